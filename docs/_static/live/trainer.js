// Where the network of train.js is trained: in a worker, or, where the browser allows none, in the page itself.

// A network in training. It does what messages ask, and tells what comes of it.
class Trainer {
  constructor(train, valid, tell) {
    this.train = new Dataset(train.bytes, train.y, train.normalized);
    const judges = new Dataset(valid.bytes, valid.y, valid.normalized);
    [this.xv, this.yv] = judges.fetch(Int32Array.from(valid.y, (_, i) => i));
    this.tell = tell;
    this.drawing = null;
  }

  start(settings) {
    Object.assign(this, prepare(settings, this.train), { id: settings.id, steps: 0, running: false });
    this.born = this.model.layers[0].weight.data.slice();
    this.report([], 0);
  }

  go({ steps }) {                                        // on, until so many mini-batches have been seen in all
    this.goal = steps;
    if (this.running) return;
    this.running = true;
    this.work(this.id);
  }

  pause() {
    if (!this.running) return;
    this.running = false;
    this.report([], 0);
  }

  work(id) {                                             // for a twentieth of a second, then look for messages
    if (!this.running || id !== this.id) return;
    const from = performance.now(), rows = [];
    do {
      rows.push(this.run.next().value);
      this.steps++;
      this.running = this.steps < this.goal && Number.isFinite(rows.at(-1).loss);
    } while (this.running && performance.now() - from < 50);
    this.report(rows, performance.now() - from);
    setTimeout(() => this.work(id));
  }

  report(rows, ms) {                                     // the curve first; what takes longer follows
    const rests = !this.running, { id, steps } = this;
    this.tell({ id, steps, rows, ms, rests, changes: this.changes(16), guess: this.guess() });
    if (rests && steps) this.tell({ id, judged: this.evaluate() });
  }

  evaluate() {                                           // by images that it was not trained on
    const logits = this.model.forward(this.xv), read = rowsOf(logits).map((row, index) => {
      const p = logSoftmax(row).map(Math.exp), sure = Math.max(...p);
      return { index, truth: this.yv[index], guess: p.indexOf(sure), sure };
    });
    const mistakes = read.filter(({ truth, guess }) => truth !== guess).sort((a, b) => b.sure - a.sure).slice(0, 12);
    return { loss: new CrossEntropy().forward(logits, this.yv), acc: accuracy(logits, this.yv), mistakes };
  }

  changes(count) {                                       // of the weights of those units that training has changed most
    const now = rowsOf(this.model.layers[0].weight), { born } = this;
    const units = now.map((row, unit) => {
      const change = row.map((weight, i) => weight - born[784 * unit + i]);
      return { unit, change, size: change.reduce((sum, each) => sum + each * each, 0) };
    });
    return units.sort((a, b) => b.size - a.size).slice(0, count);
  }

  read({ drawing }) {                                    // 784 normalised numbers, or null
    this.drawing = drawing;
    this.tell({ guess: this.guess() });
  }

  guess() {                                              // a probability for each digit
    if (!this.drawing) return null;
    const [logits] = rowsOf(this.model.forward(new Matrix(1, 784, this.drawing)));
    return logSoftmax(logits).map(Math.exp);
  }
}

// Return a function that sends a message to a Trainer. The worker is made from the text of the live classes and functions:
// a page that was opened as a file may not load one from another file.
function connect(train, valid, tell) {
  const listen = `onmessage = ({ data: { train, valid } }) => {
    const trainer = new Trainer(train, valid, (news) => postMessage(news));
    onmessage = ({ data: { what, details } }) => trainer[what](details);
  };`;
  try {
    if (location.search.includes("worker=no")) throw new Error("asked to do without a worker");
    const source = [...NETWORK, Trainer, listen].join("\n");
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    worker.onmessage = ({ data }) => tell(data);
    worker.onerror = ({ message }) => { throw new Error(`the worker: ${message}`); };
    worker.postMessage({ train, valid });
    return { send: (what, details) => worker.postMessage({ what, details }), where: "in a worker, beside the page" };
  } catch {
    const trainer = new Trainer(train, valid, (news) => tell(structuredClone(news)));
    return { send: (what, details) => trainer[what](details), where: "in the page itself" };
  }
}

// Unpack the images that were written when the site was built: training set, validation set.
async function unpackDigits({ train, valid, mean, deviation, zlib }) {
  const packed = new Blob([fromBase85(zlib)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const all = new Uint8Array(await new Response(packed).arrayBuffer()), n = train + valid, round = Math.fround;
  const normalized = Float32Array.from({ length: 256 }, (_, byte) => round(round(byte / 255) - mean) / deviation);
  const part = (from, to) => new Dataset(all.slice(784 * from, 784 * to), all.slice(784 * n + from, 784 * n + to), normalized);
  return [part(0, train), part(train, n)];
}

// What base64.b85encode of Python wrote: five letters are four bytes.
const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

function fromBase85(text) {
  const values = new Uint8Array(128), missing = (5 - (text.length % 5)) % 5, padded = text + "~".repeat(missing);
  [...LETTERS].forEach((letter, value) => { values[letter.charCodeAt(0)] = value; });
  const bytes = new DataView(new ArrayBuffer((padded.length / 5) * 4));
  for (let i = 0; i < padded.length; i += 5) {
    let word = 0;
    for (let j = i; j < i + 5; j++) word = 85 * word + values[padded.charCodeAt(j)];
    bytes.setUint32((i / 5) * 4, word);
  }
  return new Uint8Array(bytes.buffer, 0, bytes.byteLength - missing);
}
