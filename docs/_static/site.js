// Scrolling by keyboard, stepping through the loops, choosing a run. Every page reads well without.
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Show one version of the loop at a time; arrow keys or buttons lead to the next.
function loops() {
  const versions = [...document.querySelectorAll(".loop-version")];
  if (!versions.length) return;
  const status = make("p", { role: "status" });
  const back = make("button", { type: "button", textContent: "← before" });
  const on = make("button", { type: "button", textContent: "next →" });
  versions[0].before(make("div", { className: "stepper" }, back, on, status));
  const asked = () => versions.findIndex((version) => "#" + version.id === location.hash);
  let now = Math.max(0, asked());
  const show = (next) => {
    now = Math.min(Math.max(next, 0), versions.length - 1);
    versions.forEach((version, index) => { version.hidden = index !== now; });
    back.disabled = now === 0;
    on.disabled = now === versions.length - 1;
    status.textContent = `version ${now + 1} of ${versions.length}`;
  };
  back.onclick = () => show(now - 1);
  on.onclick = () => show(now + 1);
  addEventListener("hashchange", () => { if (asked() >= 0) show(asked()); });
  addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, pre, dialog") || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "ArrowLeft") show(now - 1);
    if (event.key === "ArrowRight") show(now + 1);
  });
  show(now);
}

// Two sliders choose one of the figures, which matplotlib has drawn.
function playground() {
  const box = document.querySelector(".playground");
  if (!box) return;
  const figures = [...box.querySelectorAll("figure")];
  const values = (key) => [...new Set(figures.map((figure) => figure.dataset[key]))];
  const slider = (key, words, start) => {
    const all = values(key);
    const input = make("input", { type: "range", min: 0, max: all.length - 1, step: 1, value: all.indexOf(start), id: key });
    const output = make("output", { htmlFor: key });
    input.oninput = () => show();
    return { all, input, output, label: make("label", { htmlFor: key }, words, " ", output, input) };
  };
  const rate = slider("rate", "learning rate", "0.1");
  const batch = slider("batch", "batch size", "64");
  function show() {
    for (const each of [rate, batch]) {
      each.output.value = each.all[each.input.value];
      each.input.setAttribute("aria-valuetext", each.output.value);
    }
    for (const figure of figures) {
      figure.hidden = figure.dataset.rate !== rate.output.value || figure.dataset.batch !== batch.output.value;
    }
  }
  box.classList.add("single");
  box.before(make("div", { className: "sliders" }, rate.label, batch.label));
  box.setAttribute("aria-live", "polite");
  show();
}

document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("pre, .cell_output table, figure")) box.tabIndex = 0;
  loops();
  playground();
});
