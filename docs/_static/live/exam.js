// The trained net of chapter 14. Its file is the one of exp/data/exam: safetensors, each weight one of 255 steps, each output
// with a step of its own. Norms are folded into the convolutions, so three kinds of layers are enough.

function readSafetensors(bytes) {                        // → { about, tensors: { name: { shape, data } } }
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true), start = 8 + length;
  const { __metadata__: about, ...parts } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(parts)) {
    const { buffer } = bytes.slice(start + from, start + to);
    tensors[name] = { shape, data: dtype === "I8" ? new Int8Array(buffer) : new Float32Array(buffer) };
  }
  return { about, tensors };
}

function layersOf(tensors) {                             // weights as floats again, in the order of the file
  return Object.keys(tensors).filter((name) => name.endsWith(".weight")).map((name) => {
    const { shape, data } = tensors[name], { data: steps } = tensors[`${name}.scale`], each = data.length / shape[0];
    const weight = Float32Array.from(data, (step, i) => step * steps[Math.floor(i / each)]);
    return { shape, weight, bias: tensors[name.replace(/weight$/, "bias")].data };
  });
}

function convolve({ maps, side, data }, { shape, weight, bias }) {       // 3 × 3, a frame of zeros around each map
  const wide = side + 2, framed = new Float32Array(maps * wide * wide), made = new Float32Array(shape[0] * side * side);
  for (let row = 0; row < maps * side; row++) {
    const map = Math.floor(row / side), y = row % side;
    framed.set(data.subarray(row * side, (row + 1) * side), (map * wide + y + 1) * wide + 1);
  }
  for (let out = 0, at = 0; out < shape[0]; out++) {
    const to = out * side * side;
    made.fill(bias[out], to, to + side * side);
    for (let map = 0; map < maps; map++) {
      for (let tap = 0; tap < 9; tap++, at++) {
        const w = weight[at], from = (map * wide + Math.floor(tap / 3)) * wide + (tap % 3);
        for (let y = 0; y < side; y++) {
          for (let x = 0, p = from + y * wide, q = to + y * side; x < side; x++) made[q++] += w * framed[p++];
        }
      }
    }
  }
  return { maps: shape[0], side, data: made };
}

const rectified = (images) => ({ ...images, data: images.data.map((value) => Math.max(value, 0)) });

function added(a, b) {                                   // the shortcut of a block: as many maps in as out
  if (a.maps !== b.maps) throw new Error(`a block of ${a.maps} maps in and ${b.maps} out needs more than a sum`);
  return { ...a, data: a.data.map((value, i) => value + b.data[i]) };
}

function halved({ maps, side, data }) {                  // the largest of 2 × 2
  const small = side / 2, made = new Float32Array(maps * small * small);
  for (let i = 0; i < made.length; i++) {
    const at = 2 * side * Math.floor(i / small) + 2 * (i % small);
    made[i] = Math.max(data[at], data[at + 1], data[at + side], data[at + side + 1]);
  }
  return { maps, side: small, data: made };
}

function largest({ maps, side, data }) {                 // of each map
  const made = Float32Array.from({ length: maps }, (_, map) => data.subarray(map * side * side, (map + 1) * side * side)
    .reduce((a, b) => Math.max(a, b)));
  return { maps, side: 1, data: made };
}

function connected({ data }, { shape: [outs, ins], weight, bias }) {
  const made = Float32Array.from({ length: outs }, (_, i) =>
    data.reduce((sum, value, j) => sum + value * weight[i * ins + j], bias[i]));
  return { maps: outs, side: 1, data: made };
}

// What the words of a plan (`network` of chapter 08) do with images; `next` fetches a layer.
const WORDS = {
  conv: (images, next) => rectified(convolve(images, next())),
  block: (images, next) => rectified(added(convolve(rectified(convolve(images, next())), next()), images)),
  pool: halved,
  max: largest,
  linear: (images, next) => connected(images, next()),
};

class ExamNet {
  constructor(bytes) {
    const { about, tensors } = readSafetensors(bytes);
    Object.assign(this, { plan: about.plan.split(", "), mean: Number(about.mean), deviation: Number(about.std) });
    this.layers = layersOf(tensors);
  }

  logits(image) {                                        // 784 bytes → 10 numbers
    let images = { maps: 1, side: 28, data: Float32Array.from(image, (byte) => (byte / 255 - this.mean) / this.deviation) };
    let used = 0;
    for (const part of this.plan) images = WORDS[part.split(" ")[0]](images, () => this.layers[used++]);
    return images.data;
  }

  read(image) {                                          // a probability for each digit
    return logSoftmax(this.logits(image)).map(Math.exp);
  }
}
