// The drawing: a pad for pointer, touch and keyboard, and the way from its ink to an image like MNIST's.

// Bring ink (bytes, width × height) into the form that MNIST's images have: the longer side of what is drawn measures 20
// pixels, and its centre of mass lies at pixel (14, 14) of 28 × 28, moved there by whole pixels. What is fainter than a
// sixth is the soft edge of a stroke, and does not count as drawn. Without ink: null.
function likeMnist(ink, width, height) {
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let i = 0; i < ink.length; i++) {
    if (ink[i] < 40) continue;
    const x = i % width, y = Math.floor(i / width);
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  }
  if (right < 0) return null;
  const step = (Math.max(right - left, bottom - top) + 1) / 20;          // of the drawing's pixels, in one of ours
  const box = Float64Array.from({ length: 400 }, (_, i) => {
    const x = left + (i % 20) * step, y = top + Math.floor(i / 20) * step;
    return x <= right && y <= bottom ? meanInk(ink, width, height, x, y, step) : 0;
  });
  const mass = box.reduce((sum, value) => sum + value);
  const centre = (at) => box.reduce((sum, value, i) => sum + value * at(i), 0) / mass;
  const dx = Math.round(14 - centre((i) => i % 20)), dy = Math.round(14 - centre((i) => Math.floor(i / 20)));
  const image = new Uint8Array(784);
  box.forEach((value, i) => {
    const x = (i % 20) + dx, y = Math.floor(i / 20) + dy;
    if (x >= 0 && x < 28 && y >= 0 && y < 28) image[28 * y + x] = Math.round(value);
  });
  return image;
}

// The mean ink of a square, from 8 × 8 looks at it.
function meanInk(ink, width, height, left, top, side, looks = 8) {
  let sum = 0;
  for (let i = 0; i < looks ** 2; i++) {
    const x = Math.floor(left + (side * ((i % looks) + 0.5)) / looks);
    const y = Math.floor(top + (side * (Math.floor(i / looks) + 0.5)) / looks);
    if (x < width && y < height) sum += ink[y * width + x];
  }
  return sum / looks ** 2;
}

// A pad to draw on. By keyboard: arrows move the pen, space lowers and lifts it, Delete clears. `changed` hears of ink.
class Pad {
  constructor(canvas, cursor, changed) {
    this.canvas = canvas;
    this.cursor = cursor;
    this.changed = changed;
    this.pen = { x: canvas.width / 2, y: canvas.height / 2, down: false };
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    Object.assign(this.context, { lineWidth: 22, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.lower(this.place(event));
    };
    canvas.onpointermove = (event) => {
      if (!this.pen.down || event.buttons === 0) return;
      for (const each of event.getCoalescedEvents?.() ?? [event]) this.move(this.place(each));
    };
    canvas.onpointerup = canvas.onpointercancel = canvas.onblur = () => this.lift();
    canvas.onkeydown = (event) => this.key(event);
    canvas.onfocus = () => this.showPen();
  }

  place(event) {
    const { width, left, top } = this.canvas.getBoundingClientRect(), scale = this.canvas.width / width;
    return { x: (event.clientX - left) * scale, y: (event.clientY - top) * scale };
  }

  lower({ x, y }) {
    this.pen = { x, y, down: true };
    this.move({ x, y });
  }

  lift() {
    this.pen.down = false;
    this.showPen();
  }

  move({ x, y }) {                                       // and draw, if the pen is down
    if (this.pen.down) {
      this.context.beginPath();
      this.context.moveTo(this.pen.x, this.pen.y);
      this.context.lineTo(x, y);
      this.context.stroke();
      this.changed();
    }
    Object.assign(this.pen, { x, y });
    this.showPen();
  }

  key(event) {
    const arrow = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
    const within = (value) => Math.min(Math.max(value, 10), this.canvas.width - 10);
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === " ") this.pen.down ? this.lift() : this.lower(this.pen);
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (arrow) this.move({ x: within(this.pen.x + arrow[0]), y: within(this.pen.y + arrow[1]) });
    else return;
    event.preventDefault();
  }

  showPen() {
    this.cursor.style.left = `${(100 * this.pen.x) / this.canvas.width}%`;
    this.cursor.style.top = `${(100 * this.pen.y) / this.canvas.height}%`;
    this.cursor.classList.toggle("down", this.pen.down);
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.changed();
  }

  show(bytes) {                                          // an image of 28 × 28, enlarged
    const small = document.createElement("canvas"), context = small.getContext("2d");
    small.width = small.height = 28;
    const image = context.createImageData(28, 28);
    bytes.forEach((byte, i) => image.data.set([255, 255, 255, byte], 4 * i));
    context.putImageData(image, 0, 0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.context.drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
    this.changed();
  }

  image() {                                              // what the network is shown
    const { width, height } = this.canvas, { data } = this.context.getImageData(0, 0, width, height);
    return likeMnist(Uint8Array.from({ length: width * height }, (_, i) => data[4 * i + 3]), width, height);
  }
}
