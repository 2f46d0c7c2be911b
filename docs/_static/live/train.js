// Chapter 02 in JavaScript: its network, its loop, and PyTorch's random numbers.
//
// Numbers are stored in 32 bits (Float32Array), as PyTorch stores them. JavaScript computes in 64 bits, so a sum is added
// up in 64 and rounded once, when it is stored. `Math.fround` stands where PyTorch rounds to 32 bits in between.

// A matrix. Element [i, j] is data[i * down + j * right], so the transpose is the same data, read the other way.
class Matrix {
  constructor(rows, cols, data = new Float32Array(rows * cols), down = cols, right = 1) {
    this.rows = rows;
    this.cols = cols;
    this.data = data;
    this.down = down;
    this.right = right;
  }

  get T() {
    return new Matrix(this.cols, this.rows, this.data, this.right, this.down);
  }
}

// Write a @ b + bias into `out`, and return it. Two rows of a meet four columns of b at a time, so that a number, once
// fetched, is used more than once: three times as fast as sum after sum. Where rows or columns run out, the last one is
// taken again: the same sum is written to the same place.
function matmul(a, b, out, bias = new Float32Array(b.cols)) {
  const { data: A, down, right } = a, { data: B } = b, { data: C } = out;
  for (let i = 0; i < a.rows; i += 2) {
    const i2 = Math.min(i + 1, a.rows - 1);
    for (let j = 0; j < b.cols; j += 4) {
      const last = b.cols - 1, j2 = Math.min(j + 1, last), j3 = Math.min(j + 2, last), j4 = Math.min(j + 3, last);
      let p1 = bias[j], p2 = bias[j2], p3 = bias[j3], p4 = bias[j4];       // sums of row i
      let q1 = p1, q2 = p2, q3 = p3, q4 = p4;                              // sums of row i2
      const at1 = j * b.right, at2 = j2 * b.right, at3 = j3 * b.right, at4 = j4 * b.right;
      for (let k = 0, p = i * down, q = i2 * down, w = 0; k < a.cols; k++, p += right, q += right, w += b.down) {
        const x = A[p], y = A[q], w1 = B[w + at1], w2 = B[w + at2], w3 = B[w + at3], w4 = B[w + at4];
        p1 += x * w1; p2 += x * w2; p3 += x * w3; p4 += x * w4;
        q1 += y * w1; q2 += y * w2; q3 += y * w3; q4 += y * w4;
      }
      const to = i * out.cols, to2 = i2 * out.cols;
      C[to + j] = p1; C[to + j2] = p2; C[to + j3] = p3; C[to + j4] = p4;
      C[to2 + j] = q1; C[to2 + j2] = q2; C[to2 + j3] = q3; C[to2 + j4] = q4;
    }
  }
  return out;
}

// torch.Generator().manual_seed(seed): the Mersenne Twister, MT19937.
class Generator {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed;
    for (let i = 1; i < 624; i++) {
      const last = this.state[i - 1];
      this.state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
    this.used = 624;
  }

  refill() {
    const { state } = this;
    for (let i = 0; i < 624; i++) {
      const mixed = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (mixed >>> 1) ^ (mixed % 2 ? 0x9908b0df : 0);
    }
    this.used = 0;
  }

  random() {                                             // a whole number below 2³²
    if (this.used === 624) this.refill();
    let bits = this.state[this.used++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  uniform(low, high) {                                   // Tensor.uniform_: a fused multiply-add, rounded once
    const part = (this.random() % 2 ** 24) / 2 ** 24;
    return Math.fround(part * Math.fround(high - low) + low);
  }

  randperm(n) {                                          // torch.randperm: swap each with one that comes later, or itself
    const order = Int32Array.from({ length: n }, (_, i) => i);
    for (let i = 0; i < n - 1; i++) {
      const other = i + (this.random() % (n - i));
      [order[i], order[other]] = [order[other], order[i]];
    }
    return order;
  }
}

// nn.Parameter: numbers, and the gradient of the loss for each.
class Parameter extends Matrix {
  constructor(rows, cols) {
    super(rows, cols);
    this.grad = new Matrix(rows, cols);
  }
}

// nn.Linear: x @ W.T + b. Both start uniform between ±1/√nIn, times `scale`.
class Linear {
  constructor(nIn, nOut, generator, scale = 1) {
    const bound = Math.fround(1 / Math.sqrt(nIn));
    this.weight = new Parameter(nOut, nIn);
    this.bias = new Parameter(1, nOut);
    for (const { data } of this.parameters()) {
      for (let i = 0; i < data.length; i++) data[i] = generator.uniform(-bound, bound) * Math.fround(scale);
    }
  }

  parameters() {
    return [this.weight, this.bias];
  }

  forward(x) {
    this.x = x;
    return matmul(x, this.weight.T, new Matrix(x.rows, this.weight.rows), this.bias.data);
  }

  backward(g, wanted) {                                  // linear_backward of chapter 03; is x's own gradient wanted?
    const ones = new Matrix(1, g.rows, new Float32Array(g.rows).fill(1));
    matmul(g.T, this.x, this.weight.grad);
    matmul(ones, g, this.bias.grad);                     // the sum of each column
    return wanted ? matmul(g, this.weight, new Matrix(g.rows, this.weight.cols)) : null;
  }
}

// nn.ReLU. NaN passes, so that a run which diverges shows it.
class ReLU {
  parameters() {
    return [];
  }

  forward(x) {
    this.x = x;
    return new Matrix(x.rows, x.cols, x.data.map((value) => (value < 0 ? 0 : value)));
  }

  backward(g) {                                          // relu_backward of chapter 03
    return new Matrix(g.rows, g.cols, g.data.map((value, i) => (this.x.data[i] > 0 ? value : 0)));
  }
}

class Sequential {
  constructor(...layers) {
    this.layers = layers;
  }

  parameters() {
    return this.layers.flatMap((layer) => layer.parameters());
  }

  forward(x) {
    for (const layer of this.layers) x = layer.forward(x);
    return x;
  }

  backward(g) {                                          // the layers from last to first; the images need no gradient
    for (let i = this.layers.length - 1; i >= 0; i--) g = this.layers[i].backward(g, i > 0);
  }
}

function logSoftmax(z) {                                 // log_softmax of chapter 02, for one row
  const largest = z.reduce((a, b) => Math.max(a, b));
  const log = Math.log(z.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  return Array.from(z, (value) => value - largest - log);
}

// cross_entropy_loss of chapter 02, and cross_entropy_backward of chapter 03.
class CrossEntropy {
  forward(logits, y) {
    this.y = y;
    this.logp = rowsOf(logits).map(logSoftmax);
    const sum = this.logp.reduce((total, row, i) => total - row[y[i]], 0);
    return Math.fround(sum / y.length);
  }

  backward() {                                           // (softmax - one-hot) / n
    const g = new Matrix(this.logp.length, this.logp[0].length);
    this.logp.forEach((row, i) => row.forEach((logp, j) => {
      g.data[i * g.cols + j] = (Math.exp(logp) - (j === this.y[i] ? 1 : 0)) / g.rows;
    }));
    return g;
  }
}

function rowsOf({ rows, cols, data }) {
  return Array.from({ length: rows }, (_, i) => data.subarray(i * cols, (i + 1) * cols));
}

function accuracy(logits, y) {
  const right = rowsOf(logits).filter((row, i) => row.indexOf(Math.max(...row)) === y[i]);
  return right.length / y.length;
}

// torch.optim.SGD: v ← μ · v + g, then p ← p - lr · v. Without momentum μ is 0, so v is g: the SGD of chapter 02.
class SGD {
  constructor(parameters, lr, momentum = 0) {
    this.parameters = parameters;
    this.lr = Math.fround(lr);
    this.momentum = Math.fround(momentum);
    this.velocities = parameters.map(({ data }) => new Float32Array(data.length));
  }

  step() {
    const { lr, momentum } = this;
    this.parameters.forEach(({ data, grad }, which) => {
      const velocity = this.velocities[which];
      for (let i = 0; i < data.length; i++) {
        velocity[i] = Math.fround(momentum * velocity[i]) + grad.data[i];
        data[i] -= lr * velocity[i];
      }
    });
  }
}

// Images as the bytes of their file, and their labels. A byte is normalised when its image is fetched: `normalized` says
// for each of the 256 values what (x - m) / s makes of it.
class Dataset {
  constructor(bytes, y, normalized) {
    this.bytes = bytes;
    this.y = y;
    this.normalized = normalized;
  }

  get length() {
    return this.y.length;
  }

  fetch(order) {                                         // the mini-batch (xb, yb) of these images
    const xb = new Matrix(order.length, 784), { bytes, normalized } = this;
    for (let row = 0; row < order.length; row++) {
      for (let p = 0; p < 784; p++) xb.data[784 * row + p] = normalized[bytes[784 * order[row] + p]];
    }
    return [xb, Array.from(order, (i) => this.y[i])];
  }
}

// DataLoader of chapter 02: in order, or with a generator in a new order each epoch.
class DataLoader {
  constructor(ds, batchSize, { generator = null, dropLast = false } = {}) {
    Object.assign(this, { ds, batchSize, generator, dropLast });
  }

  get length() {
    const batches = this.ds.length / this.batchSize;
    return this.dropLast ? Math.floor(batches) : Math.ceil(batches);
  }

  *[Symbol.iterator]() {
    const n = this.ds.length, order = this.generator?.randperm(n) ?? Int32Array.from({ length: n }, (_, i) => i);
    for (let i = 0; i < this.length; i++) {
      yield this.ds.fetch(order.subarray(i * this.batchSize, (i + 1) * this.batchSize));
    }
  }
}

// The loop. At each `yield` it rests, until whoever called it asks for the next mini-batch.
function* fit(dataloader, model, criterion, optim) {
  for (let epoch = 1; ; epoch++) {
    for (const [xb, yb] of dataloader) {
      const logits = model.forward(xb);
      const loss = criterion.forward(logits, yb);
      const row = { epoch, loss, acc: accuracy(logits, yb), n: yb.length };
      model.backward(criterion.backward());
      optim.step();
      yield row;
    }
  }
}

// A run by its settings: the model, and the loop at its start.
function prepare({ lr, batch, hidden, momentum, scale, images, order, drop, seed }, ds) {
  const generator = new Generator(seed);                 // as set_seed: the weights are drawn from it
  const model = new Sequential(
    new Linear(784, hidden, generator, scale), new ReLU(), new Linear(hidden, 10, generator, scale));
  const dataloader = new DataLoader(arrange(ds, images, order), batch, {
    generator: order === "shuffled" ? new Generator(seed) : null, dropLast: drop });
  return { model, run: fit(dataloader, model, new CrossEntropy(), new SGD(model.parameters(), lr, momentum)) };
}

function arrange({ bytes, y, normalized }, images, order) {  // the first images, or these sorted by digit
  const first = Array.from({ length: images }, (_, i) => i);
  if (order !== "sorted") return new Dataset(bytes, y.subarray(0, images), normalized);
  first.sort((i, j) => y[i] - y[j]);                     // a stable sort: equal digits stay in their order
  const pixels = new Uint8Array(784 * images);
  first.forEach((from, to) => pixels.set(bytes.subarray(784 * from, 784 * from + 784), 784 * to));
  return new Dataset(pixels, y.slice(0, images).sort(), normalized);
}

const NETWORK = [Matrix, matmul, Generator, Parameter, Linear, ReLU, Sequential, logSoftmax, CrossEntropy, rowsOf, accuracy,
  SGD, Dataset, DataLoader, fit, prepare, arrange];
