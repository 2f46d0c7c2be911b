// The page: from its controls to `write`, and from what that yields to the text and the attention.

const $ = (name) => document.getElementById(`writing-${name}`);
const shown = (char) => ({ "\n": "↵", " ": "␣" })[char] ?? char;

class WritingPage {
  constructor(held) {
    Object.assign(this, { model: new Writer(held), proof: held.proof, heads: held.heads });
    for (let i = 0; i < held.layers * held.heads; i++) {
      $("head").add(new Option(`block ${Math.floor(i / held.heads) + 1}, head ${(i % held.heads) + 1}`, i));
    }
    $("controls").onsubmit = (event) => { event.preventDefault(); this.begin(); };
    $("more").onclick = () => this.goOn(200);
    $("at").oninput = () => this.look();
    $("head").onchange = () => this.look();
    $("text").onclick = ({ target }) => {
      if (target.dataset.place) { $("at").value = target.dataset.place; this.look(); }
    };
    this.begin();
  }

  begin() {
    const k = Number($("top").value);
    this.settings = { temperature: Number($("temperature").value), topK: k || Infinity, seed: Number($("seed").value) >>> 0 };
    this.prompt = $("prompt").value.replaceAll("\\n", "\n");
    this.steps = [];
    $("text").replaceChildren();
    [...this.prompt].forEach((char, place) => this.append(char, place, "prompt"));
    $("more").disabled = false;
    try {
      this.source = write(this.model, this.prompt, this.settings);
      this.goOn(200);
    } catch (error) {
      $("said").textContent = `This beginning cannot be read: ${error.message}.`;
      $("verdict").textContent = "";
      $("more").disabled = true;
    }
  }

  goOn(count) {
    for (let i = 0; i < count; i++) {
      const step = this.source.next().value;
      this.append(step.char, [...this.prompt].length + this.steps.push(step) - 1, "written");
    }
    $("at").min = [...this.prompt].length;
    $("at").max = [...this.prompt].length + this.steps.length - 1;
    $("at").value = $("at").max;
    this.judge();
    this.look();
  }

  append(char, place, kind) {
    const span = document.createElement("span");
    span.textContent = char;
    span.className = kind;
    span.dataset.place = place;
    $("text").append(span);
  }

  get written() { return this.steps.map(({ char }) => char).join(""); }

  judge() {                                              // against what PyTorch wrote when the page was made
    const { prompt, settings, texts } = { ...this, ...this.proof };
    const own = texts.find((each) => each.prompt === prompt && each.temperature === settings.temperature
      && (each.top_k ?? Infinity) === settings.topK && (each.seed === settings.seed || each.temperature === 0));
    const theirs = own ? [...own.text] : [], ours = [...this.written];
    const n = Math.min(theirs.length, ours.length), equal = theirs.slice(0, n).filter((char, i) => char === ours[i]).length;
    $("verdict").textContent = !own ? "No text of PyTorch is stored for these settings: the chapter makes it."
      : equal === n ? `Identical to PyTorch: ${n} of ${n} characters are equal.` : `Different from PyTorch: ${equal} of ${n} characters are equal.`;
    $("verdict").dataset.word = own ? (equal === n ? "identical" : "different") : "";
  }

  look() {                                               // where the model looked to write this character
    const place = Number($("at").value), step = this.steps[place - [...this.prompt].length], spans = [...$("text").children];
    spans.forEach((span) => { span.style.backgroundColor = ""; span.classList.remove("chosen"); });
    if (!step) return;
    const wanted = $("head").value, rows = wanted === "mean" ? step.looks : [step.looks[Number(wanted)]];
    const shares = rows[0].map((_, j) => rows.reduce((sum, row) => sum + row[j], 0) / rows.length), most = Math.max(...shares);
    shares.forEach((share, j) => {
      spans[step.start + j].style.backgroundColor = `color-mix(in srgb, var(--writing-blue) ${(45 * share / most).toFixed(1)}%, transparent)`;
    });
    spans[place].classList.add("chosen");
    const best = shares.indexOf(most);
    $("said").textContent = `To write character ${place + 1}, “${shown(step.char)}” (the model gave it a chance of ${(100 * step.chance).toFixed(1)} %), `
      + `it looked most at “${shown(spans[step.start + best].textContent)}”, ${place - step.start - best} before it: ${(100 * most).toFixed(0)} % of its attention.`;
    this.shares = shares;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  try {
    window.writing = new WritingPage(trainedWriter);
  } catch (error) {
    document.documentElement.classList.remove("writes");
    $("missing").textContent = `This page could not start: ${error.message}`;
    throw error;
  }
});
