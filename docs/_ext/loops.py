"""The directive `{loops} 02`: each version of a chapter's training loop, in order.

Everything comes from the data in the outputs of the stored notebook, which were made from the live functions: its last
ledger has a row for each version, with the source of what changed; the diffs that the chapter shows before the verdict
on a version belong to it. Every chapter with a ledger has a page of its own, and `{loop-list}` links to them.
"""

from docutils import nodes
from docutils.parsers.rst import Directive

from tools.chapters import chapter, chapters

PAGE = """# {title}: the loop in {n} versions

Every version of the training loop of {{doc}}`chapter {number} </chapters/{stem}>`, in order: what changed from the one
before (`-` went, `+` came, `>` was only indented anew), the verdict on its losses, and the loop itself. Step through
them with the buttons or with the arrow keys, left and right.

```{{loops}} {number}
```
"""


def versions(chapter):
    "Return a dict for each version of the loop: its row of the ledger, and the diffs and the verdict that were shown."
    ledgers, found, diffs = chapter.told("ledger"), {}, []
    if not ledgers or chapter.number == "00":  # the workbench's ledger is a sample
        return []
    rows = ledgers[-1][1]["rows"]
    words = {row["step"]: row["verdict"] for row in rows}
    for output, data in chapter.told("diff", "verdict"):
        if data["kind"] == "diff":
            diffs.append(output.data["text/html"])
            continue
        if data["new"] not in found and data["word"] == words.get(data["new"]):
            found[data["new"]], diffs = {"said": output.data["text/plain"], "diffs": diffs}, []
    first = "the first: there is none before it to be compared with"
    return [{"said": row["verdict"] or first, "diffs": []} | row | found.get(row["step"], {}) for row in rows]


def write_pages(app, config):
    "Write a page for each chapter that has a ledger, touching only those that changed."
    wanted = {}
    for each in chapters():
        if rows := versions(each):
            wanted[f"{each.stem}.md"] = PAGE.format(title=each.title, n=len(rows), number=each.number, stem=each.stem)
    write_stubs(app.srcdir / "loops", "[0-9][0-9]_*.md", wanted)


def write_stubs(folder, pattern, wanted):
    "Let a folder hold these files {name: text} of all that fit a pattern; leave those that hold their text already."
    folder.mkdir(exist_ok=True)
    for path in folder.glob(pattern):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


STEPPER = """<div class="stepper js-only"><button type="button" disabled>← before</button>
<button type="button">next →</button><p role="status">version 1 of {n}</p></div>"""


class Loops(Directive):
    "Show every version of a chapter's loop; `site.js` lets one step through them, the first being shown at first."

    required_arguments = 1

    def run(self):
        source = chapter(self.arguments[0])
        self.state.document.settings.env.note_dependency(str(source.path))
        rows = versions(source)
        stepper = nodes.raw("", STEPPER.format(n=len(rows)), format="html")
        return [stepper, *(self.section(number, version) for number, version in enumerate(rows, 1))]

    def section(self, number, version):
        "Make the section of one version."
        section = nodes.section(ids=[f"version-{number}"], classes=["loop-version"] + ["now"] * (number == 1))
        section += nodes.title("", f"{number}. {version['step']}")
        words = [] if version["loss"] is None else [f"training loss {version['loss']:.4f}"]  # none: nothing was trained
        words += [] if version["accuracy"] is None else [f"validation accuracy {version['accuracy']:.2%}"]
        section += nodes.paragraph("", f"{version['lines']} lines. {', '.join(words).capitalize()}.")
        section += nodes.paragraph("", "", nodes.strong("", "Verdict: "), nodes.Text(version["said"]))
        for diff in version["diffs"]:
            section += nodes.raw("", diff, format="html")
        section += nodes.literal_block("", version["source"], language="python")
        return section


class LoopList(Directive):
    "List the chapters that refactor a loop: each links to its versions, and says how far they went."

    def run(self):
        self.state.document.settings.env.note_reread()
        found = nodes.bullet_list(classes=["cards"])
        for each in chapters():
            self.state.document.settings.env.note_dependency(str(each.path))
            if rows := versions(each):
                link = nodes.reference("", each.title, refuri=f"loops/{each.stem}.html", internal=True)
                words = f"{len(rows)} versions: from “{rows[0]['step']}” to “{rows[-1]['step']}”."
                head = nodes.paragraph("", "", nodes.strong("", "", link))
                found += nodes.list_item("", head, nodes.paragraph("", words))
        return [found]


def setup(app):
    app.add_directive("loops", Loops)
    app.add_directive("loop-list", LoopList)
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
