"""The directive `{bench-chart}`: the chart that `make bench` has drawn, with what it shows in words."""

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


def setup(app):
    app.add_directive("bench-chart", BenchChart)
    return {"parallel_read_safe": True}
