"""The directive `{bench-chart}`: the chart that `make bench` has drawn, with what it shows in words."""

import json
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive


class BenchChart(Directive):
    "Show `bench.png` with the alternative text that stands in `bench/results.json`."

    def run(self):
        env = self.state.document.settings.env
        results = Path(env.srcdir).parent / "bench" / "results.json"
        env.note_dependency(str(results))
        chart = json.loads(results.read_text(encoding="utf-8"))["chart"]
        place = f"_static/{chart['file']}"
        env.images.add_file(env.docname, place)
        return [nodes.figure("", nodes.image(uri=place, alt=chart["alt"], candidates={"*": place}))]


def setup(app):
    app.add_directive("bench-chart", BenchChart)
    return {"parallel_read_safe": True}
