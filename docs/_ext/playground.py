"""The directive `{playground}`: the runs of `docs/playground/train.py` as a grid of small multiples.

With JavaScript, `site.js` puts two sliders in place of the grid; they only choose which of its figures is shown.
"""

import html
import json

from docutils import nodes
from docutils.parsers.rst import Directive

from tools.chapters import ROOT

FOLDER = ROOT / "docs" / "playground"
FIGURE = """<figure data-rate="{rate:g}" data-batch="{batch}">
<img src="_images/{place}" alt="{alt}" width="460" height="173" loading="lazy">
<figcaption>learning rate {rate:g}, batch size {batch}: {says}</figcaption></figure>"""


class Playground(Directive):
    "Show every run."

    def run(self):
        env = self.state.document.settings.env
        env.note_dependency(str(FOLDER / "runs.json"))
        figures = [self.figure(env, run) for run in json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))]
        return [nodes.raw("", '<div class="playground">\n' + "\n".join(figures) + "\n</div>", format="html")]

    def figure(self, env, run):
        "Have the picture of a run copied; return its HTML."
        env.images.add_file(env.docname, f"playground/{run['file']}")
        place = env.images[f"playground/{run['file']}"][1]
        return FIGURE.format(**{**run, "alt": html.escape(run["alt"]), "place": place})


def setup(app):
    app.add_directive("playground", Playground)
    return {"parallel_read_safe": True}
