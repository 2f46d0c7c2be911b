"""The directive `{bench}`: the chart and the tables that `make bench` has written into `bench/results.*`."""

import json
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList


class Bench(Directive):
    "Show the results under the page's own title."

    def run(self):
        env = self.state.document.settings.env
        folder = Path(env.srcdir).parent / "bench"
        for name in ("results.json", "results.md"):
            env.note_dependency(str(folder / name))
        chart = json.loads((folder / "results.json").read_text(encoding="utf-8"))["chart"]
        lines = (folder / "results.md").read_text(encoding="utf-8").splitlines()[1:]
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source="results.md"), 0, container, match_titles=True)
        place = f"_static/{chart['file']}"
        env.images.add_file(env.docname, place)
        image = nodes.image(uri=place, alt=chart["alt"], candidates={"*": place})
        return [nodes.figure("", image), *container.children]


def setup(app):
    app.add_directive("bench", Bench)
    return {"parallel_read_safe": True}
