"""The directives `{bench-chart}` and `{ladder-chart}`: what `make bench` and chapter 11 have drawn, with its words."""

import json

from docutils import nodes
from docutils.parsers.rst import Directive
from PIL import Image

from tools.chapters import ROOT


class BenchChart(Directive):
    "Show `bench/chart.png` with the alternative text that stands in `bench/results.json`."

    def run(self):
        env = self.state.document.settings.env
        results = ROOT / "bench" / "results.json"
        env.note_dependency(str(results))
        chart = json.loads(results.read_text(encoding="utf-8"))["chart"]
        with Image.open(ROOT / "bench" / chart["file"]) as image:  # two dots a pixel; its place is kept while it loads
            width, height = (str(side // 2) for side in image.size)
        uri = f"../bench/{chart['file']}"
        return [nodes.figure("", nodes.image(uri=uri, alt=chart["alt"], width=width, height=height))]


class LadderChart(Directive):
    "Show the picture of chapter 11's ladder, where it is."

    def run(self):
        path = ROOT / "docs" / "_static" / "ladder.png"
        if not path.exists():
            return []
        alt = ("Thirteen bars, one for each loop of chapter 11, from fit at the top to fast_epoch at the bottom, in "
               "multiples of the limit: the table on this page has the figures.")  # fmt: skip
        with Image.open(path) as image:
            width, height = (str(side // 2) for side in image.size)
        return [nodes.figure("", nodes.image(uri=f"_static/{path.name}", alt=alt, width=width, height=height))]


def setup(app):
    app.add_directive("bench-chart", BenchChart)
    app.add_directive("ladder-chart", LadderChart)
    return {"parallel_read_safe": True}
