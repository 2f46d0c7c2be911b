"""The directives and roles of `docs/live.md`, the page on which the network of chapter 02 trains in the browser.

`{live} train` and its like bring in a part of the page from `docs/live/`. The images are packed when the site is built,
from `exp/data/mnist`; the losses come from `docs/live/runs.json`. Scripts, style and data are loaded on that page only.
"""

import base64
import html
import json
import math
import re
import zlib

from docutils import nodes
from docutils.parsers.rst import Directive

from docs.live.runs import CHAPTER, IMAGES, STORED, VALID, stored, unpack
from exp.nb_01 import read_idx
from exp.nb_02 import fit
from tools.chapters import ROOT

PARTS, STATIC = ROOT / "docs" / "live", ROOT / "docs" / "_static" / "live"
SCRIPTS = ["check", "digits", "runs", "net", "train", "trainer", "verdict", "chart", "exam", "draw", "page"]
EXAM = ROOT / "exp" / "data" / "exam"

# The loop of chapter 02 beside the one of the page, line against line, and what a line is called in the series.
LOOP = [
    ("for _ in range(n_epochs):", "for (let epoch = 1; ; epoch++) {", "an epoch; here the caller decides how many"),
    ("model.train()", "", "no layer of this network behaves differently in training"),
    ("for xb, yb in dataloader:", "for (const [xb, yb] of dataloader) {", "02: a mini-batch of the `DataLoader`"),
    ("logits = model(xb)", "const logits = model.forward(xb);",
     "the forward pass. 02: `Sequential`; 03: `LayerStack`, `LinearLayer`, `ReLULayer`"),
    ("loss = criterion(logits, yb)", "const loss = criterion.forward(logits, yb);",
     "02: `cross_entropy_loss`; 03: `CrossEntropyLayer`"),
    ("history.add(loss, accuracy(logits, yb), len(xb))",
     "const row = { epoch, loss, acc: accuracy(logits, yb), n: yb.length };",
     "02: `accuracy`, and a row of the `History`"),
    ("optim.zero_grad()", "", "02: `SGD.zero_grad`; here each gradient is written over the one before"),
    ("loss.backward()", "model.backward(criterion.backward());",
     "the backward pass. 02: autograd; 03: `cross_entropy_backward`, `linear_backward`, `relu_backward`"),
    ("optim.step()", "optim.step();", "02: `SGD.step`"),
    ("", "yield row;", "the loop rests here, so that you can pause it, or go on step by step"),
]  # fmt: skip


class Live(Directive):
    "Bring in a part of the page."

    required_arguments = 1

    def run(self):
        name, env = self.arguments[0], self.state.document.settings.env
        sources = [STORED, *STATIC.glob("*.js"), ROOT / "exp" / "nb_02.py", PARTS / f"{name}.html"]
        for source in sources:
            env.note_dependency(str(source))
        text = sources[-1].read_text(encoding="utf-8")
        fill = {"train": {"chart": chart}, "draw": {"right": exam_accuracy},
                "loop": {"lines": loop, "fit": js("fit"), "matmul": js("matmul")}}
        for word, make in fill.get(name, {}).items():
            text = text.replace(f"{{{word}}}", make())
        return [nodes.raw("", text, format="html")]


def run_of(changes):
    "Return the stored run with the chapter's settings but for some, written as in an address: `lr=1&batch=16`."
    pairs = [pair.split("=") for pair in changes.split("&") if pair]
    changed = {name: value if name == "order" else json.loads(value) for name, value in pairs}
    return next(run for run in stored()["runs"] if run["settings"] == CHAPTER | changed)


def chart():
    "Draw PyTorch's run with the chapter's settings, for readers without JavaScript."
    losses = unpack(run_of("")["wide"])
    places = [(44 + 548 * step / len(losses), 222 - 70 * min(loss, 3)) for step, loss in enumerate(losses, 1)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    ticks = "".join(f'<text x="37" y="{226 - 70 * y}" text-anchor="end">{y}</text>' for y in range(4))
    says = f"Training loss of PyTorch over 10,000 images: from {losses[0]:.2f} to {losses[-1]:.2f}."
    return f"""<svg viewBox="0 0 600 260" role="img" aria-label="{says}"><path class="frame" d="M44 12V222H592"/>{ticks}
<text x="592" y="239" text-anchor="end">10,000</text><text x="318" y="253" text-anchor="middle">images seen</text>
<text transform="translate(13 117) rotate(-90)" text-anchor="middle">loss (nats)</text>
<path class="guessing" d="M44 {222 - 70 * math.log(10):.1f}H592"/><polyline class="theirs" points="{points}"/></svg>"""


def js(name):
    "Return a function that finds a JavaScript function in train.js, as HTML."
    source = (STATIC / "train.js").read_text(encoding="utf-8")
    return lambda: html.escape(re.search(rf"^function\*? {name}\(.*?^}}$", source, re.M | re.S)[0], quote=False)


def loop():
    "Pair the lines of both loops; raise if one of them has a line that is not in `LOOP`, or in another order."
    theirs = re.search(r"    for _ in range.*optim\.step\(\)", "\n".join(source_of(fit)), re.S)[0].splitlines()
    ours = html.unescape(js("fit")()).splitlines()[1:]
    rows = []
    for python, line, name in LOOP:
        indented = [next(each for each in lines if each.strip() == wanted) if wanted else "" for lines, wanted in
                    ((theirs, python), (ours, line))]
        cells = [html.escape(text[cut:], quote=False) for text, cut in zip(indented, (4, 2))]
        rows.append(f'<li><code class="py-line"><span class="unseen">Python: </span>{cells[0]}</code>'
                    f'<code class="js-line">{cells[1]}</code><span class="name">{linked(name)}</span></li>')
    for lines, column in ((theirs, 0), (ours, 1)):
        found = [line.strip() for line in lines if line.strip() != "}"]
        if found != [row[column] for row in LOOP if row[column]]:
            raise ValueError(f"LOOP in docs/_ext/live.py does not hold the lines of fit: {found}")
    return "\n".join(rows)


def source_of(function):
    "Return the lines of a function."
    from exp.nb_00 import source_lines

    return source_lines(function)


def linked(words):
    "Turn names in backticks into links to the reference of chapter 02 or 03, whichever was named before."
    parts, module = [], "nb_02"
    for part in re.split(r"(0[23]:|`[^`]*`)", words):
        if part in ("02:", "03:"):
            module = f"nb_{part[:2]}"
        if part.startswith("`"):
            name, home = part.strip("`"), "nb_00" if part == "`History`" else module
            part = f'<a href="reference/{home}.html#exp.{home}.{name.partition(".")[0]}"><code>{name}</code></a>'
        parts.append(part)
    return "".join(parts)


def try_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    "Make a button of `words <settings>`: it sets the controls and trains."
    words, settings = re.fullmatch(r"(.*) <(.*)>", text, re.S).groups()
    start = f'<button type="button" class="live-try" data-settings="{html.escape(settings)}">'
    return [nodes.raw("", f"{start}{html.escape(words)}</button>", format="html")], []


def ran_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    "Say what PyTorch found with these settings: `accuracy` or `loss` on the validation images."
    what, _, changes = text.partition(" ")
    run = run_of(changes)
    found = f"{run['valid_acc']:.1%}" if what == "accuracy" else f"{run['valid_loss']:.2f}"
    return [nodes.Text(found)], []


def exam_accuracy():
    "Say how many of the test images the net of chapter 14 has right, as the page runs it."
    found = json.loads((EXAM / "test.json").read_text(encoding="utf-8"))
    return f"{found['record CNN, int8']['acc']:.2%}"


def pack_digits():
    "Return the script that holds the images: the training set's first, and validation images."
    folder = ROOT / "exp" / "data" / "mnist"
    images, labels = (read_idx(folder / f"train-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    parts = [slice(0, IMAGES), VALID]
    raw = b"".join(bytes(tensor[part].numpy()) for tensor in (images, labels) for part in parts)
    found = stored()
    about = {"train": IMAGES, "valid": VALID.stop - VALID.start, "mean": found["mean"], "deviation": found["deviation"]}
    packed = {"zlib": base64.b85encode(zlib.compress(raw)).decode()}
    return f"const digits = {json.dumps(about | packed)};\n"


def write_data(app):
    "Write images and losses into the site."
    target = app.outdir / "_static" / "live"
    target.mkdir(parents=True, exist_ok=True)
    (target / "runs.js").write_text(f"const runs = {json.dumps(stored())};\n", encoding="utf-8")
    (target / "digits.js").write_text(pack_digits(), encoding="utf-8")
    net = base64.b85encode((EXAM / "digits.safetensors").read_bytes()).decode()
    (target / "net.js").write_text(f"const exam = {json.dumps(net)};\n", encoding="utf-8")


def load_here(app, pagename, templatename, context, doctree):
    "Load scripts and style on this page only."
    if pagename == "live":
        for name in SCRIPTS:
            app.add_js_file(f"live/{name}.js", loading_method="defer")
        app.add_css_file("live/live.css")


def setup(app):
    app.add_directive("live", Live)
    app.add_role("try", try_role)
    app.add_role("ran", ran_role)
    app.connect("builder-inited", write_data)
    app.connect("html-page-context", load_here)
    return {"parallel_read_safe": True}
