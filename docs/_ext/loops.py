"""The directive `{loops} 02_minibatch_training`: each version of a chapter's training loop, in order.

Everything is read from the stored notebook, whose outputs were made from the live functions: the rows of the cell
`steps = [(function, history, verdict), …]`; for each, the source of its function, the diffs shown since the row before,
the verdict, and the figures of the ledger.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive


def text_of(cell, mime="text/plain"):
    "Give the outputs of a cell of one type, joined."
    return "".join("".join(output.get("data", {}).get(mime, "")) for output in cell.get("outputs", []))


def versions(cells):
    "Give a dict for each version of the loop: name, figures, source, diffs, verdict."
    sources = ["".join(cell["source"]) for cell in cells]
    last = next(i for i, source in enumerate(sources) if source.startswith("steps = ["))
    functions = re.findall(r"\((\w+), +(\w+), +\w+\)", sources[last])
    figures = [re.split(r" {2,}", line) for line in text_of(cells[last]).splitlines()[2:]]
    found, start = [], 0
    for (function, history), row in zip(functions, figures, strict=True):
        named = next(i for i, source in enumerate(sources) if f'{history}.name = "{row[0]}"' in source)
        loop = next(s for s in sources if re.search(rf"^def {function}\(", s, re.MULTILINE))
        shown = [text_of(cell, "text/html") for cell in cells[start:named] if "show_diff(" in "".join(cell["source"])]
        said = [text_of(c) for c in cells[named:last] if re.match(r"identical|close", text_of(c))]
        verdict = said[0] if row[2] != "(the first)" else "the first: there is none before it to be compared with"
        code = "\n".join(line for line in loop.splitlines() if not line.startswith("#|"))
        found.append({"row": row, "source": code, "diffs": shown, "verdict": verdict})
        start = named
    return found


class Loops(Directive):
    "Show every version of the loop; `site.js` lets one step through them."

    required_arguments = 1

    def run(self):
        env = self.state.document.settings.env
        path = Path(env.srcdir) / "chapters" / f"{self.arguments[0]}.ipynb"
        env.note_dependency(str(path))
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        return [self.section(number, version) for number, version in enumerate(versions(cells), 1)]

    def section(self, number, version):
        "Make the section of one version."
        name, lines, _, loss, accuracy = version["row"]
        section = nodes.section(ids=[f"version-{number}"], classes=["loop-version"])
        section += nodes.title("", f"{number}. {name}")
        section += nodes.paragraph("", f"{lines} lines. Training loss {loss}, validation accuracy {accuracy}.")
        section += nodes.paragraph("", "", nodes.strong("", "Verdict: "), nodes.Text(version["verdict"]))
        for diff in version["diffs"]:
            section += nodes.raw("", diff, format="html")
        section += nodes.literal_block("", version["source"], language="python")
        return section


def setup(app):
    app.add_directive("loops", Loops)
    return {"parallel_read_safe": True}
