// The curve: the loss of each mini-batch over the images seen. Grey: PyTorch's. Blue: this page's. Orange: smoothed.

const MOST = 3;                                          // nats: higher losses are drawn at the edge, and the page says so

function svgElement(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Average each value with its neighbours, as `smooth` of chapter 00; each mean from its own values: in running sums, what
// follows a loss of 1e36 would be lost.
function smooth(values, reach = Math.floor(values.length / 50)) {
  return values.map((_, i) => {
    const near = Math.min(i, reach), part = values.slice(i - near, i + near + 1);
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}

// Thin out a long curve: means of neighbours, so that at most 800 points are left.
function thin(points) {
  const group = Math.ceil(points.length / 800), found = [];
  for (let i = 0; i < points.length; i += group) {
    const part = points.slice(i, i + group), mean = (k) => part.reduce((sum, point) => sum + point[k], 0) / part.length;
    found.push([mean(0), mean(1)]);
  }
  return found;
}

class Chart {
  constructor(box) {
    this.box = box;
    this.drawn = { theirs: [], ours: [], images: 1 };
    new ResizeObserver(() => this.draw(this.drawn)).observe(box);
  }

  // Curves are lists of [images seen, loss]; `images` is where the axis ends.
  draw({ theirs, ours, images, says }) {
    this.drawn = { theirs, ours, images, says };
    const width = Math.max(this.box.clientWidth, 240), height = width < 500 ? 190 : 260;
    const [left, right, top, bottom] = [44, width - 8, 12, height - 38];
    const x = (seen) => left + ((right - left) * seen) / images;
    const y = (loss) => bottom - ((bottom - top) * Math.min(Number.isFinite(loss) ? loss : MOST, MOST)) / MOST;
    const curve = (name, points) => svgElement("polyline", {
      class: name, points: thin(points).map(([seen, loss]) => `${x(seen).toFixed(1)},${y(loss).toFixed(1)}`).join(" ") });
    const text = (words, at, anchor, more = {}) => svgElement("text", { x: at[0], y: at[1], "text-anchor": anchor, ...more }, words);
    const losses = smooth(ours.map(([, loss]) => loss));
    this.box.replaceChildren(svgElement("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": says ?? "" },
      svgElement("path", { class: "frame", d: `M${left} ${top}V${bottom}H${right}` }),
      ...[0, 1, 2, 3].map((loss) => text(String(loss), [left - 7, y(loss) + 4], "end")),
      text("0", [left, bottom + 17], "middle"),
      text(images.toLocaleString("en"), [right, bottom + 17], "end"),
      text("images seen", [(left + right) / 2, bottom + 31], "middle"),
      text("loss (nats)", [0, 0], "middle", { transform: `translate(13 ${(top + bottom) / 2}) rotate(-90)` }),
      svgElement("path", { class: "guessing", d: `M${left} ${y(Math.log(10))}H${right}` }),
      curve("theirs", theirs), curve("ours", ours), curve("smoothed", ours.map(([seen], i) => [seen, losses[i]])),
    ));
  }
}

// Show 28 × 28 numbers: bytes as white on black; signed numbers as orange above 0 and blue below.
function drawImage(canvas, values, signed = false) {
  const context = canvas.getContext("2d"), image = context.createImageData(28, 28);
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12);
  const tint = (v) => (v > 0 ? [255, 255 - 207 * v, 255 - 235 * v] : [255 + 208 * v, 255 + 128 * v, 255 + 41 * v]);
  values.forEach((value, i) => image.data.set([...(signed ? tint(value / largest) : [value, value, value]), 255], 4 * i));
  context.putImageData(image, 0, 0);
}
