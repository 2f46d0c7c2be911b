// Stepping through the loops. The page reads well without.
// Show one version of the loop at a time; arrow keys or buttons lead to the next, and the address follows.
function loops() {
  const versions = [...document.querySelectorAll(".loop-version")];
  if (!versions.length) return;
  const [back, on] = document.querySelectorAll(".stepper button");
  const status = document.querySelector(".stepper [role=status]");
  const asked = () => versions.findIndex((version) => "#" + version.id === location.hash);
  let now = Math.max(0, asked());
  const show = (next) => {
    now = Math.min(Math.max(next, 0), versions.length - 1);
    versions.forEach((version, index) => version.classList.toggle("now", index === now));
    back.disabled = now === 0;
    on.disabled = now === versions.length - 1;
    status.textContent = `version ${now + 1} of ${versions.length}`;
  };
  const step = (by) => {
    show(now + by);
    history.replaceState(null, "", "#" + versions[now].id);
    dispatchEvent(new Event("scroll")); // the contents follow
  };
  back.onclick = () => step(-1);
  on.onclick = () => step(1);
  addEventListener("hashchange", () => { if (asked() >= 0) show(asked()); });
  addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, pre, dialog") || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  document.documentElement.classList.add("stepped"); // from now on not the address, but this decides
  show(now);
}

document.addEventListener("DOMContentLoaded", () => {
  loops();
});
