// The page: from its controls to the trainer, and from what that tells to the curve, the verdict and the pictures.

const $ = (name) => document.getElementById(`live-${name}`);
const say = (name, words) => { if ($(name).textContent !== String(words)) $(name).textContent = words; };
const inEnglish = (number) => number.toLocaleString("en");
const floats = (base85) => [...new Float32Array(fromBase85(base85).buffer)];

// The settings, as the form holds them: out of range goes to the nearest that is allowed.
const CHAPTER = { lr: 0.1, batch: 64, hidden: 128, momentum: 0, scale: 1, images: 10000, order: "file", drop: false, seed: 42 };

function allowed(name, value) {
  const control = $(name);
  if (control.type === "checkbox") return value === true || value === "true";
  if (control.tagName === "SELECT") {
    const known = [...control.options].some((option) => option.value === String(value));
    const chosen = known ? value : CHAPTER[name];
    return typeof CHAPTER[name] === "number" ? Number(chosen) : chosen;
  }
  const number = value === "" ? NaN : Math.round(Number(value));
  return Number.isNaN(number) ? CHAPTER[name] : Math.min(Math.max(number, control.min), control.max);
}

function settingsFrom(values) {
  const found = Object.fromEntries(Object.keys(CHAPTER).map((name) => [name, allowed(name, values[name] ?? CHAPTER[name])]));
  return { ...found, batch: Math.min(found.batch, found.images) };
}

function formValues() {
  return Object.fromEntries(Object.keys(CHAPTER).map((name) => [name, name === "drop" ? $(name).checked : $(name).value]));
}

function showInForm(settings) {
  for (const [name, value] of Object.entries(settings)) {
    if (name === "drop") $(name).checked = value;
    else $(name).value = value;
  }
}

const changesOf = (settings) => Object.entries(settings).filter(([name, value]) => value !== CHAPTER[name]);
const isSame = (a, b) => Object.keys(CHAPTER).every((name) => a[name] === b[name]);

// One run as the page sees it: what was told of it so far.
class Run {
  constructor(id, settings) {
    Object.assign(this, { id, settings, losses: [], sizes: [], seen: [], ms: 0, resting: true, judged: null });
    this.perEpoch = (settings.drop ? Math.floor : Math.ceil)(settings.images / settings.batch);
    const proof = runs.runs.find((run) => isSame(run.settings, settings));
    this.proof = proof && { wide: floats(proof.wide), plain: floats(proof.plain) };
  }

  add({ rows, ms, rests }) {
    for (const { loss, n, epoch } of rows) {
      this.losses.push(loss);
      this.sizes.push(n);
      this.seen.push((this.seen.at(-1) ?? 0) + n);
      this.epoch = epoch;
    }
    this.ms += ms;
    this.resting = rests;
  }

  get steps() { return this.losses.length; }
  get images() { return this.seen.at(-1) ?? 0; }
  get diverged() { return this.steps > 0 && !Number.isFinite(this.losses.at(-1)); }
  get inEpoch() { return this.steps - (this.epoch - 1) * this.perEpoch; }
  get nextGoal() { return (Math.floor(this.steps / this.perEpoch) + 1) * this.perEpoch; }

  theirs() {                                             // PyTorch's curve: [images seen, loss]
    const { batch, images } = this.settings;
    return this.proof ? this.proof.wide.map((loss, i) => [Math.min((i + 1) * batch, images), loss]) : [];
  }
}

class Page {
  constructor(train, valid) {
    Object.assign(this, { train, valid, ids: 0 });
    this.chart = new Chart($("chart"));
    this.units = tiles($("units"), 16, (i) => `change of the weights of a hidden unit, ${i + 1} of 16`);
    this.mistakes = tiles($("mistakes"), 12, () => "no mistake yet");
    this.bars = barsFor($("bars"));
    const { send, where } = connect(train, valid, (news) => this.hear(news));
    Object.assign(this, { send });
    say("where", where);
    this.pad = new Pad($("pad"), $("pen"), () => this.lookSoon());
    this.listen();
    this.restart(settingsFrom(fromAddress()));
  }

  listen() {
    $("controls").onchange = () => this.restart(settingsFrom(formValues()));
    $("controls").onsubmit = (event) => event.preventDefault();
    $("go").onclick = () => this.trainOrPause();
    $("step").onclick = () => this.send("go", { steps: this.run.steps + 1 });
    $("again").onclick = () => this.restart(this.run.settings);
    $("chapter").onclick = () => this.restart(CHAPTER);
    $("clear").onclick = () => this.pad.clear();
    $("reader").onchange = () => this.lookSoon();
    $("sample").onclick = () => this.showSample();
    $("names-button").onclick = () => {
      const hidden = $("loop").classList.toggle("without-names");
      $("names-button").setAttribute("aria-pressed", String(!hidden));
    };
    for (const button of document.querySelectorAll(".live-try")) button.onclick = () => this.tryOut(button);
    addEventListener("hashchange", () => {
      if (location.hash.includes("=")) this.restart(settingsFrom(fromAddress()));
    });
  }

  restart(settings) {
    this.run = new Run(++this.ids, settings);
    showInForm(settings);
    toAddress(settings);
    this.send("start", { id: this.run.id, ...settings });
    for (const { tile } of this.mistakes) tile.hidden = true;
    say("said", this.run.proof ? "Not trained yet. The grey band is PyTorch's run with these settings." : "Not trained yet.");
    say("accuracy", "–");
    this.showVerdict();
    this.showRun();
    this.showProgram();
  }

  trainOrPause() {
    if (!this.run.resting) return this.send("pause");
    this.run.resting = false;
    this.showButtons();
    this.send("go", { steps: this.run.nextGoal });
  }

  tryOut(button) {                                       // set the controls, train, and bring the curve into view
    this.restart(settingsFrom(Object.fromEntries(new URLSearchParams(button.dataset.settings))));
    this.trainOrPause();
    $("go").focus({ preventScroll: true });
    $("train").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  hear({ id, rows, ms, rests, changes, guess, judged }) {
    if (guess && this.readsHere) this.showGuess(guess);
    if (id !== this.run.id) return;                      // of a run that was given up, or of the drawing alone
    if (judged) return this.showJudged(judged);
    this.run.add({ rows, ms, rests });
    this.units.forEach(({ tile, canvas, caption }, i) => {
      tile.hidden = i >= changes.length;
      if (tile.hidden) return;
      drawImage(canvas, changes[i].change, true);
      caption.textContent = `unit ${changes[i].unit}`;
    });
    this.showRun();
    document.documentElement.dataset.liveReady = "";
    $("train").removeAttribute("aria-busy");             // the first news: now the page is whole
  }

  showRun() {
    const { run } = this, { losses, seen } = run, epochs = Math.max(1, Math.ceil(run.steps / run.perEpoch));
    const says = run.steps
      ? `Training loss over ${inEnglish(run.images)} images: from ${losses[0].toFixed(2)} to ${losses.at(-1).toFixed(2)}.`
      : `Training loss: nothing trained yet.${run.proof ? " The grey band is PyTorch's run with these settings." : ""}`;
    this.chart.draw({ theirs: run.theirs(), ours: losses.map((loss, i) => [seen[i], loss]), images: epochs * run.settings.images, says });
    $("theirs-key").hidden = !run.proof;
    $("above").hidden = !losses.some((loss) => !(loss <= MOST));
    say("batches", inEnglish(run.steps));
    say("loss", run.steps ? losses.at(-1).toFixed(3) : "–");
    say("speed", run.ms ? inEnglish(Math.round((1000 * run.images) / run.ms)) : "–");
    this.showButtons();
  }

  showButtons() {
    const { run } = this, between = run.steps % run.perEpoch !== 0;
    say("go", !run.resting ? "Pause" : between ? "Go on" : run.steps ? "One more epoch" : "Train");
    $("go").disabled = run.diverged;
    $("step").disabled = run.diverged || !run.resting;
  }

  showJudged(judged) {
    const { run } = this, { losses, epoch, inEpoch, perEpoch } = run;
    run.judged = judged;
    say("accuracy", run.diverged ? "–" : percent(judged.acc));
    say("said", standing({ losses, epoch, inEpoch, perEpoch, judged }));
    this.showVerdict();
    this.showProgram();
    this.mistakes.forEach(({ tile, canvas, caption }, i) => {
      const one = judged.mistakes[i];
      tile.hidden = !one || run.diverged;
      if (tile.hidden) return;
      drawImage(canvas, this.valid.bytes.subarray(784 * one.index, 784 * one.index + 784));
      canvas.setAttribute("aria-label", `a ${one.truth}, read as a ${one.guess}`);
      caption.textContent = `${one.truth} read as ${one.guess}, ${percent(one.sure)}`;
    });
  }

  showVerdict() {
    const { proof, losses, sizes, steps } = this.run;
    $("verdict").hidden = !proof || !steps;
    $("no-proof").hidden = Boolean(proof);
    const [wide, plain] = ["wide", "plain"].map((kind) => proof && steps && verdict(losses, proof[kind], sizes));
    for (const [kind, found] of [["wide", wide], ["plain", plain]]) {
      say(`${kind}-word`, found ? `${found.word} ${found.word === "different" ? "from" : "to"}` : "");
      $(`${kind}-word`).dataset.word = found ? found.word : "";
      say(`${kind}-figures`, found ? `: ${verdictInWords(found)}.` : ".");
    }
    $("grown").hidden = !(wide && wide.word === "identical" && plain.word === "different");
  }

  showProgram() {
    const { settings, losses } = this.run;
    document.querySelector(".live-program pre").textContent = program(settings, losses.slice(0, 10).filter(Number.isFinite));
  }

  get readsHere() { return $("reader").value === "here"; }                 // or the net of chapter 14
  get exam() { return (this.trained ??= new ExamNet(fromBase85(exam))); }

  lookSoon() {                                           // at the drawing, once the pen has gone on a little
    if (this.looking) return;
    this.looking = setTimeout(() => {
      this.looking = null;
      const image = this.pad.image();
      drawImage($("seen"), image ?? new Uint8Array(784));
      if (!this.readsHere) return this.showGuess(image && this.exam.read(image));
      const drawing = image && Float32Array.from(image, (byte) => this.valid.normalized[byte]);
      this.send("read", { drawing });
      if (!image) this.showGuess(null);
    }, 40);
  }

  showSample() {
    this.sample = ((this.sample ?? -1) + 1) % this.valid.length;
    this.pad.show(this.valid.bytes.subarray(784 * this.sample, 784 * this.sample + 784));
  }

  showGuess(p) {
    const best = p ? p.indexOf(Math.max(...p)) : -1;
    this.bars.forEach(({ row, bar, number }, digit) => {
      bar.style.width = p && Number.isFinite(p[digit]) ? `${100 * p[digit]}%` : "0";
      number.textContent = p && Number.isFinite(p[digit]) ? percent(p[digit]) : "–";
      row.classList.toggle("best", digit === best);
    });
    const untrained = this.run.steps || !this.readsHere ? "" : " But it is not trained yet.";
    say("reads", !p ? "Draw a digit." : best < 0 ? "It reads nothing: its numbers are no numbers any more."
      : `It reads a ${best} (${percent(p[best])}).${untrained}`);
  }
}

// The settings that differ from the chapter's stand behind the # of the address.
function fromAddress() {
  return location.hash.includes("=") ? Object.fromEntries(new URLSearchParams(location.hash.slice(1))) : {};
}

function toAddress(settings) {
  const words = new URLSearchParams(changesOf(settings)).toString(), [bare] = location.href.split("#");
  if (words || location.hash.includes("=")) history.replaceState(null, "", words ? `${bare}#${words}` : bare);
}

function tiles(list, count, label) {
  return Array.from({ length: count }, (_, i) => {
    const tile = document.createElement("li"), canvas = document.createElement("canvas"), caption = document.createElement("span");
    canvas.width = canvas.height = 28;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label(i));
    tile.append(canvas, caption);
    list.append(tile);
    return { tile, canvas, caption };
  });
}

function barsFor(table) {
  return Array.from({ length: 10 }, (_, digit) => {
    const row = table.insertRow(), head = document.createElement("th"), bar = document.createElement("span");
    head.scope = "row";
    head.textContent = digit;
    row.append(head);
    row.insertCell().append(bar);
    const number = row.insertCell();
    number.textContent = "–";
    return { row, bar, number };
  });
}

// The loop beside the Python: each line that is shown has to be a line of the function that runs.
function showLiveLoop() {
  const lines = String(fit).split("\n").map((line) => line.trim());
  for (const code of document.querySelectorAll("#live-loop .js-line")) {
    if (code.textContent && !lines.includes(code.textContent.trim())) throw new Error(`not a line of fit: ${code.textContent}`);
  }
  $("loop").classList.add("without-names");
  $("fit").textContent = String(fit);
  $("matmul").textContent = String(matmul);
}

document.addEventListener("DOMContentLoaded", async () => {
  $("train").setAttribute("aria-busy", "true");
  try {
    const [train, valid] = await unpackDigits(digits);
    document.documentElement.classList.add("live");
    showLiveLoop();
    window.live = new Page(train, valid);
  } catch (error) {
    document.documentElement.classList.remove("live");
    document.documentElement.dataset.liveReady = "";
    $("train").removeAttribute("aria-busy");
    $("missing").textContent ||= `This page could not start: ${error.message}`;
    throw error;
  }
});
