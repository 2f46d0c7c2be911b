"""The directive `{playground}`: the runs of `tools/playground.py` as a grid of small multiples.

With JavaScript, `site.js` puts two sliders in place of the grid; they only choose which of its figures is shown.
"""

import html
import json
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

FIGURE = """<figure data-rate="{rate:g}" data-batch="{batch}">
<img src="_static/playground/{file}" alt="{alt}" width="460" height="173" loading="lazy">
<figcaption>learning rate {rate:g}, batch size {batch}: {says}</figcaption></figure>"""


class Playground(Directive):
    "Show every run."

    def run(self):
        env = self.state.document.settings.env
        path = Path(env.srcdir) / "_static" / "playground" / "runs.json"
        env.note_dependency(str(path))
        runs = json.loads(path.read_text(encoding="utf-8"))
        figures = "\n".join(FIGURE.format(**{**run, "alt": html.escape(run["alt"])}) for run in runs)
        return [nodes.raw("", f'<div class="playground">\n{figures}\n</div>', format="html")]


def setup(app):
    app.add_directive("playground", Playground)
    return {"parallel_read_safe": True}
