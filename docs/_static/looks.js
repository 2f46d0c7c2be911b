// Printing, and what can be scrolled.

// Paper cannot be unfolded: print with every fold open, then leave the page as it was.
const opened = [];
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not([open])")) {
    fold.open = true;
    opened.push(fold);
  }
});
addEventListener("afterprint", () => {
  for (const fold of opened.splice(0)) fold.open = false;
});

// A box takes the keyboard, for its arrow keys, only if there is more of it than is shown.
function reachable() {
  const boxes = [...document.querySelectorAll("pre, .cell_output table, .pst-scrollable-table-container, figure, a.image-reference, div.math")];
  const more = boxes.map((box) => box.scrollWidth > box.clientWidth + 1);
  boxes.forEach((box, index) => {
    if (more[index]) box.tabIndex = 0;
    else if (box.tagName !== "A") box.removeAttribute("tabindex");
  });
}
addEventListener("load", reachable);
addEventListener("toggle", reachable, true);
let wait;
addEventListener("resize", () => {
  cancelAnimationFrame(wait);
  wait = requestAnimationFrame(reachable);
});
