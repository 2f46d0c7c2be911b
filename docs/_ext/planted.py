"""The directive `{planted}`: for each chapter a table of the bugs that were planted, and what caught each.

Everything is read from `planted.json`, which `make bugs` writes and `make test` proves anew.
"""

import html
import json
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

WORDS = {"a verdict": "a verdict of same", "near": "near", "an assertion": "an assertion", "a refusal": "a refusal"}


class Planted(Directive):
    "Show the tables, a section for each chapter."

    def run(self):
        env = self.state.document.settings.env
        source = Path(env.srcdir) / "planted.json"
        env.note_dependency(str(source))
        chapters = json.loads(source.read_text(encoding="utf-8"))
        total = sum(map(len, chapters.values()))
        said = nodes.paragraph("", "", nodes.strong("", f"{total} bugs planted, {total} caught."))
        order = sorted(chapters, key=lambda name: (name < "01", name))  # the workbench last
        return [said, *(self.section(env, name, chapters[name]) for name in order)]

    def section(self, env, name, rows):
        "Make the section of one chapter."
        notebook = json.loads((Path(env.srcdir) / "chapters" / f"{name}.ipynb").read_text(encoding="utf-8"))
        heading = "".join(notebook["cells"][0]["source"]).splitlines()[0].lstrip("# ")
        section = nodes.section(ids=[nodes.make_id(f"bugs-{name}")], classes=["planted"])
        section += nodes.title("", heading)
        section += table(["what went wrong", "what caught it"], [self.row(name, row) for row in rows])
        return section

    def row(self, name, row):
        "Give the two cells of a row: the bug with its patch, and the check with a link to where it stands."
        patch = [f"- {line}" for line in row["old"].splitlines()] + [f"+ {line}" for line in row["new"].splitlines()]
        folded = f"<details><summary>the patch</summary><pre>{html.escape(chr(10).join(patch))}</pre></details>"
        title = row["section"].replace("`", "")
        link = nodes.reference("", title, refuri=f"chapters/{name}.html#{nodes.make_id(title)}", internal=True)
        caught = nodes.paragraph("", f"{WORDS[row['by']]}, in ", link)
        bug = [nodes.paragraph("", row["bug"]), nodes.raw("", folded, format="html")]
        return bug, [caught, nodes.raw("", f"<pre>{html.escape(row['check'])}</pre>", format="html")]


def table(header, rows):
    "Make a table of two columns."
    group = nodes.tgroup("", *(nodes.colspec(colwidth=50) for _ in header), cols=len(header))
    group += nodes.thead("", nodes.row("", *(nodes.entry("", nodes.paragraph("", words)) for words in header)))
    group += nodes.tbody("", *(nodes.row("", *(nodes.entry("", *cell) for cell in row)) for row in rows))
    return nodes.table("", group)


def setup(app):
    app.add_directive("planted", Planted)
    return {"parallel_read_safe": True}
