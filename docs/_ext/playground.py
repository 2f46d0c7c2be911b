"""The directive `{playground}`: the runs of `docs/playground/train.py` as a grid of small multiples.

With JavaScript two sliders stand in place of the grid; they only choose which of its figures is shown.
"""

import html
import json
import shutil
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

from tools.chapters import ROOT

FOLDER = ROOT / "docs" / "playground"
START = (0.1, 64)
SLIDER = """<label for="{key}">{words} <output for="{key}">{value:g}</output>
<input type="range" id="{key}" min="0" max="{last}" step="1" value="{at}" aria-valuetext="{value:g}"></label>"""
FIGURE = """<figure{now} data-rate="{rate:g}" data-batch="{batch}">
<img src="_static/playground/{file}" alt="{alt}" width="460" height="173" loading="lazy">
<figcaption>learning rate {rate:g}, batch size {batch}: {says}</figcaption></figure>"""


class Playground(Directive):
    "Show every run."

    def run(self):
        env = self.state.document.settings.env
        env.note_dependency(str(FOLDER / "runs.json"))
        runs = json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))
        sliders = ""
        for key, words, start in zip(("rate", "batch"), ("learning rate", "batch size"), START):
            values = list(dict.fromkeys(run[key] for run in runs))
            last, at = len(values) - 1, values.index(start)
            sliders += SLIDER.format(key=key, words=words, value=start, last=last, at=at)
        figures = "\n".join(map(self.figure, runs))
        sliders = f'<div class="sliders js-only">{sliders}</div>'
        grid = f'<div class="playground" aria-live="polite">\n{figures}\n</div>'
        return [nodes.raw("", sliders + grid, format="html")]

    def figure(self, run):
        "Write the figure of a run."
        now = ' class="now"' if (run["rate"], run["batch"]) == START else ""
        return FIGURE.format(**{**run, "alt": html.escape(run["alt"]), "now": now})


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
