// Where the reader is: contents that follow, ticks, minutes left, the loop as it stands. What is kept stays in this
// browser; where it keeps nothing (private windows, some files), everything works for as long as the page is open.
const memory = (() => {
  const key = "training-refactored";
  let kept = {};
  try { kept = JSON.parse(localStorage.getItem(key)) || {}; } catch { /* none: begin anew */ }
  return {
    get: (name) => kept[name] || {},
    set(name, value) {
      kept[name] = value;
      try { localStorage.setItem(key, JSON.stringify(kept)); } catch { /* not kept */ }
    },
  };
})();
const root = document.documentElement.dataset.content_root || "./";
const line = () => innerHeight * 0.3; // what lies above it has been reached
const above = (element) => element.getClientRects().length > 0 && element.getBoundingClientRect().top <= line();
const lastAbove = (elements) => elements.findLast(above);

// The entry of the contents for the last heading above the line is marked, and its sidebar scrolls to it.
function follow(contents) {
  const links = [...contents.querySelectorAll('a[href^="#"]')];
  const byHeading = new Map();
  for (const link of links) {
    const heading = document.getElementById(decodeURIComponent(link.hash.slice(1)));
    if (heading) byHeading.set(heading, link);
  }
  let marked;
  return () => {
    const heading = lastAbove([...byHeading.keys()]);
    const link = heading && byHeading.get(heading);
    if (link === marked) return;
    marked?.removeAttribute("aria-current");
    marked = link;
    if (!link) return;
    link.setAttribute("aria-current", "location");
    const box = contents.getBoundingClientRect();
    const at = link.getBoundingClientRect();
    const bottom = Math.min(box.bottom, innerHeight);
    if (at.top < box.top || at.bottom > bottom) contents.scrollTop += at.top - (box.top + bottom) / 2;
  };
}

// Ticks in the strip: by hand, or because the end of the chapter was reached.
function ticks(strip) {
  const here = strip.querySelector("[aria-current]");
  const box = strip.querySelector(".read");
  const names = new Map([...strip.querySelectorAll("a")].map((link) => [link, link.title]));
  const show = () => {
    const read = memory.get("read");
    for (const [link, name] of names) {
      link.classList.toggle("done", Boolean(read[link.dataset.chapter]));
      link.setAttribute("aria-label", name + (read[link.dataset.chapter] ? ", read" : ""));
    }
    box.checked = Boolean(read[here.dataset.chapter]);
  };
  const set = (value) => { memory.set("read", { ...memory.get("read"), [here.dataset.chapter]: value }); show(); };
  box.onchange = () => set(box.checked);
  show();
  let reached = box.checked;
  return (share) => { if (share >= 1 && !reached) { reached = true; set(true); } };
}

// The panel shows the last version that a verdict above the line has proved.
function loopNow(panel) {
  const states = [...panel.querySelectorAll(".loop-state")];
  const cells = states.map((state) => document.querySelector(`.tag_version-${state.dataset.version}`));
  const [name, facts] = panel.querySelectorAll("summary b, summary span");
  let shown;
  return () => {
    const index = Math.max(0, cells.findLastIndex((cell) => cell && above(cell)));
    if (index === shown) return;
    shown = index;
    states.forEach((state, number) => { state.hidden = number !== index; });
    name.textContent = states[index].dataset.words;
    facts.textContent = states[index].dataset.facts;
  };
}

// What is left to read stands above the contents; where one is, is kept for the home page.
function progress(article, contents, strip) {
  const here = strip.querySelector("[aria-current]");
  const left = document.createElement("span");
  left.className = "minutes-left";
  contents?.querySelector(".page-toc, .onthispage")?.append(left);
  const headings = [...article.querySelectorAll("section > h2, section > h3")];
  return () => {
    const box = article.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (innerHeight - box.top) / box.height));
    left.textContent = ` ${Math.ceil(here.dataset.minutes * (1 - share))} min left`;
    const heading = lastAbove(headings);
    if (heading) {
      const words = heading.cloneNode(true);
      words.querySelectorAll(".headerlink").forEach((link) => link.remove());
      memory.set("place", {
        page: here.getAttribute("href"), title: here.title.split(":")[0],
        id: heading.parentElement.id, heading: words.textContent,
      });
    }
    return share;
  };
}

// A tick at each exercise, the same as in the list of all exercises.
function exercises() {
  for (const box of document.querySelectorAll("input.solved")) {
    box.checked = Boolean(memory.get("solved")[box.value]);
    box.onchange = () => memory.set("solved", { ...memory.get("solved"), [box.value]: box.checked });
  }
}

// Someone who reports what is wrong need not say where.
function report() {
  for (const link of document.querySelectorAll('.page-links a[href*="issues/new"]')) {
    const address = link.href;
    link.onclick = () => {
      const heading = lastAbove([...document.querySelectorAll("article section[id]")]);
      if (heading) link.href = address.replace("Section%3A%20", `Section%3A%20${encodeURIComponent(heading.id)}`);
    };
  }
}

addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector("article.bd-article");
  const contents = document.getElementById("pst-secondary-sidebar");
  const strip = document.querySelector("nav.series");
  const panel = document.querySelector(".loop-now");
  const tasks = [];
  if (contents) tasks.push(follow(contents));
  if (panel) tasks.push(loopNow(panel));
  if (strip) {
    const told = progress(article, contents, strip);
    const tick = ticks(strip);
    tasks.push(() => tick(told()));
  }
  let asked = false;
  const now = () => { asked = false; tasks.forEach((task) => task()); };
  const soon = () => { if (!asked) { asked = true; requestAnimationFrame(now); } };
  addEventListener("scroll", soon, { passive: true });
  addEventListener("resize", soon, { passive: true });
  now();
  exercises();
  report();
});
