// Written in the JavaScript of 2009, which every browser reads: if the page cannot run here, it says what is missing.
document.addEventListener("DOMContentLoaded", function () {
  var needed = ["Promise", "Blob", "Response", "DecompressionStream", "ResizeObserver", "PointerEvent", "structuredClone"];
  var missing = needed.filter(function (name) { return !(name in window); });
  try {
    new Function("class A { static b = 1 } let c = null; c ??= A?.b; [...[1]].at(-1); async function* d() {}");
    if (![].at) missing.push("Array.prototype.at");
  } catch (error) {
    missing.push("the JavaScript of 2022");
  }
  if (missing.length) {
    document.getElementById("live-missing").textContent =
      "This page cannot train in this browser, which lacks " + missing.join(", ") + ". A newer one can.";
  }
});
