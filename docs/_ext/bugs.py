"""The directive `{bugs}`: for each chapter a table of the bugs that were planted, and what caught each.

The bugs stand in `tests/bugs/nb_NN.py`; what caught them in `nb_NN.json`, which `make bugs` writes and `make test`
proves anew.
"""

import html

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.errors import ExtensionError

from tools.bugs import TABLES, caught, stored, table
from tools.chapters import chapters

WORDS = {"a verdict": "a verdict of same", "near": "near", "an assertion": "an assertion", "a refusal": "a refusal"}


class Bugs(Directive):
    "Show the tables, a section for each chapter."

    def run(self):
        self.state.document.settings.env.note_reread()
        found = {chapter: (table(chapter), stored(chapter)) for chapter in chapters()}
        for chapter in found:
            for suffix in (".py", ".json"):
                self.state.document.settings.env.note_dependency(str(TABLES / f"{chapter.module}{suffix}"))
        results = [result[bug.name] for each, (bugs, result) in found.items() for bug in known(each, bugs, result)]
        words = f"{len(results)} bugs planted, {sum(map(caught, results))} caught."
        sections = [self.section(chapter, *both) for chapter, both in found.items() if both[0]]
        return [nodes.paragraph("", "", nodes.strong("", words)), *sections]

    def section(self, chapter, bugs, results):
        "Make the section of one chapter."
        section = nodes.section(ids=[nodes.make_id(f"bugs-{chapter.stem}")], classes=["planted"])
        section += nodes.title("", chapter.title)
        rows = [self.row(chapter, bug, results[bug.name]) for bug in bugs]
        section += two_columns(["what went wrong", "what caught it"], rows)
        return section

    def row(self, chapter, bug, result):
        "Return the two cells of a row: the bug with its patch, and the check with a link to where it stands."
        patch = [f"- {line}" for line in bug.old.splitlines()] + [f"+ {line}" for line in bug.new.splitlines()]
        folded = f"<details><summary>the patch</summary><pre>{html.escape(chr(10).join(patch))}</pre></details>"
        title = result["section"].replace("`", "")
        place = f"chapters/{chapter.stem}.html#{nodes.make_id(title)}"
        link = nodes.reference("", title, refuri=place, internal=True)
        by = nodes.paragraph("", f"{WORDS[result['by']]}, in ", link)
        place = nodes.make_id(f"bug-{chapter.module}-{bug.name}")
        left = [nodes.paragraph("", bug.name, ids=[place]), nodes.raw("", folded, format="html")]
        return left, [by, nodes.raw("", f"<pre>{html.escape(result['check'])}</pre>", format="html")]


def known(chapter, bugs, results):
    "Return the bugs of a chapter. Raise `ExtensionError` if one of them was not planted yet."
    for bug in bugs:
        if bug.name not in results:
            raise ExtensionError(f"chapter {chapter.number}: found no result of the bug {bug.name!r}: run `make bugs`")
    return bugs


def two_columns(header, rows):
    "Make a table of two columns."
    group = nodes.tgroup("", *(nodes.colspec(colwidth=50) for _ in header), cols=len(header))
    group += nodes.thead("", nodes.row("", *(nodes.entry("", nodes.paragraph("", words)) for words in header)))
    group += nodes.tbody("", *(nodes.row("", *(nodes.entry("", *cell) for cell in row)) for row in rows))
    return nodes.table("", group)


def setup(app):
    app.add_directive("bugs", Bugs)
    return {"parallel_read_safe": True}
