// The slider over the versions of the loop: lines fold and unfold, the curve stays where it is.
addEventListener("DOMContentLoaded", () => {
  const box = document.querySelector(".the-loop");
  const rows = [...box.querySelectorAll(".code-row")].map((row) => [row, row.dataset.depths.split(" ")]);
  const steps = [...box.querySelectorAll(".loop-steps li")];
  const curves = [...box.querySelectorAll(".this")];
  const slider = box.querySelector("input");
  const [lines, badge, step] = [".lines", ".badge", ".step"].map((name) => box.querySelector(name));
  let before = 0;

  const show = (version) => {
    for (const [row, depths] of rows) {
      const depth = depths[version];
      const came = depth !== "-" && depths[before] === "-";
      const went = depth === "-" && depths[before] !== "-";
      row.classList.toggle("came", came);
      row.classList.toggle("went", went);
      row.toggleAttribute("data-gone", depth === "-");
      row.setAttribute("aria-hidden", depth === "-");
      if (depth !== "-") row.style.setProperty("--depth", depth);
    }
    curves.forEach((curve, number) => curve.classList.toggle("now", number === version));
    const { dataset, textContent } = steps[version];
    lines.textContent = `${dataset.lines} lines`;
    badge.textContent = dataset.badge;
    badge.dataset.word = dataset.word;
    step.textContent = `version ${version + 1} of ${steps.length}: ${textContent}`;
    slider.setAttribute("aria-valuetext", step.textContent);
    before = version;
  };
  slider.oninput = () => show(slider.value - 1);
  show(slider.value - 1); // a reload may have kept another value
});

// Who has read before goes on where they were.
addEventListener("DOMContentLoaded", () => {
  const place = memory.get("place");
  const start = document.querySelector(".start");
  if (start && place.page) {
    const link = document.createElement("a");
    link.href = `chapters/${place.page}#${place.id}`;
    link.className = "continue";
    link.textContent = `Continue where you were: ${place.title}, ${place.heading}`;
    start.append(" ", link);
  }
  const read = memory.get("read");
  for (const card of document.querySelectorAll(".chapter-cards > li")) {
    const stem = card.querySelector("a").getAttribute("href").match(/(\w+)\.html$/)[1];
    if (read[stem]) card.querySelector(".takes").append(" · read");
  }
});
