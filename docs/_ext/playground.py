"""The directive `{playground}`: the runs of `docs/playground/train.py` as a grid of small multiples.

With JavaScript, `site.js` puts two sliders in place of the grid; they only choose which of its figures is shown.
"""

import html
import json
import shutil
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

from tools.chapters import ROOT

FOLDER = ROOT / "docs" / "playground"
FIGURE = """<figure data-rate="{rate:g}" data-batch="{batch}">
<img src="_static/playground/{file}" alt="{alt}" width="460" height="173" loading="lazy">
<figcaption>learning rate {rate:g}, batch size {batch}: {says}</figcaption></figure>"""


class Playground(Directive):
    "Show every run."

    def run(self):
        env = self.state.document.settings.env
        env.note_dependency(str(FOLDER / "runs.json"))
        runs = json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))
        figures = "\n".join(FIGURE.format(**{**run, "alt": html.escape(run["alt"])}) for run in runs)
        return [nodes.raw("", f'<div class="playground">\n{figures}\n</div>', format="html")]


def copy_pictures(app, error):
    "Bring the pictures into the site."
    target = Path(app.outdir) / "_static" / "playground"
    target.mkdir(parents=True, exist_ok=True)
    for picture in FOLDER.glob("*.png"):
        shutil.copy(picture, target)


def setup(app):
    app.add_directive("playground", Playground)
    app.connect("build-finished", copy_pictures)
    return {"parallel_read_safe": True}
