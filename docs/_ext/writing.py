"""The directive of `docs/writing.md`, the page on which the model of chapter 15 writes in the browser.

The weights are those of `exp/data/text/writer.f16`. When the site is built, PyTorch writes the texts that the page
compares itself with. Scripts, style and data are loaded on that page only; the random numbers are those of *Train it
here* (`live/train.js`), which are PyTorch's.
"""

import base64
import functools
import html
import json

from docutils import nodes
from docutils.parsers.rst import Directive

from exp.nb_15 import _bytes_of, get_writer, torch, write
from tools.chapters import ROOT

STATIC = ROOT / "docs" / "_static" / "writing"
PROMPT, LENGTH = "## Refactor", 200
TEXTS = [{"temperature": 0.0, "top_k": None, "seed": 0}, {"temperature": 0.8, "top_k": None, "seed": 0},
         {"temperature": 1.0, "top_k": 5, "seed": 1}]  # fmt: skip


@functools.cache
def proofs():
    "Return what PyTorch writes: texts with their settings."
    torch.set_num_threads(1)
    writer, letters = get_writer()
    found = []
    for how in TEXTS:
        chance = torch.Generator().manual_seed(how["seed"])
        text = write(writer, letters, PROMPT, LENGTH, chance, how["temperature"], how["top_k"])
        found.append(how | {"prompt": PROMPT, "text": text.removeprefix(PROMPT)})
    return found


def packed():
    "Return the script that holds the model, and the texts of PyTorch."
    writer, letters = get_writer()
    parts = [[name, value.numel()] for name, value in writer.state_dict().items()]
    held = {"chars": "".join(letters.chars), "heads": writer.blocks[0].attention.heads, "layers": len(writer.blocks),
            "window": writer.T, "parts": parts, "weights": base64.b64encode(_bytes_of("writer.f16")).decode(),
            "proof": {"texts": proofs()}}  # fmt: skip
    return f"const trainedWriter = {json.dumps(held, ensure_ascii=False)};\n"


class Writing(Directive):
    "Bring in the part of the page that writes."

    def run(self):
        env = self.state.document.settings.env
        for source in (*STATIC.glob("*.js"), ROOT / "exp" / "nb_15.py", ROOT / "docs" / "writing" / "page.html"):
            env.note_dependency(str(source))
        text = (ROOT / "docs" / "writing" / "page.html").read_text(encoding="utf-8")
        sample = html.escape(PROMPT + proofs()[0]["text"], quote=False)
        text = text.replace("{prompt}", html.escape(PROMPT)).replace("{sample}", sample)
        return [nodes.raw("", text, format="html")]


def write_data(app):
    "Write the model into the site."
    target = app.outdir / "_static" / "writing"
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.js").write_text(packed(), encoding="utf-8")


def load_here(app, pagename, templatename, context, doctree):
    "Load scripts and style on this page only."
    if pagename == "writing":
        app.add_js_file(None, body='document.documentElement.classList.add("writes");')  # before anything is shown
        for name in ("live/train", "writing/model", "writing/write", "writing/page"):
            app.add_js_file(f"{name}.js", loading_method="defer")
        app.add_css_file("writing/writing.css")


def setup(app):
    app.add_directive("writing", Writing)
    app.connect("builder-inited", write_data)
    app.connect("html-page-context", load_here)
    return {"parallel_read_safe": True}
