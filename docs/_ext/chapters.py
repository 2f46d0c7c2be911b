"""Render the notebooks of `nbs/` as they are stored, and honour what their `#|` lines say.

- The chapters are copied to `docs/chapters/` (not committed), so that they are pages like others and can be downloaded.
  What follows happens to the text in memory: the download stays the runnable notebook.
- `#| hide` drops a cell. `#| export` keeps it, whole, and links to its reference. `#| echo: false` hides the
  code, `#| output: false` the output, `#| code-fold: true` folds the code. The lines themselves vanish.
- A callout, `::: {.callout-note}`, becomes an admonition of that kind.
- A figure gets the alternative text that its output carries; one without it ends the build.
- A name in backticks that the modules export becomes a link to its reference: in a chapter, to the version of this
  chapter or, where it has none, of the nearest one below it.
"""

import ast
import importlib
import json
import re
import shutil
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.directives.other import TocTree
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform

from docs._ext.reference import documented
from tools.chapters import DATA, Chapter, below, chapters

DIRECTIVE = re.compile(r"^#\| *([\w-]+)(?::? +(.*))?$")
CALLOUT = re.compile(r"^(:{3,}) *\{\.callout-(note|tip|warning|important|caution)[^}]*\}", re.MULTILINE)
TAGS = {("echo", "false"): "remove-input", ("output", "false"): "remove-output", ("code-fold", "true"): "hide-input"}


def copy_chapters(app, config):
    "Bring the notebooks into the source folder, touching only those that changed."
    target = Path(app.srcdir) / "chapters"
    target.mkdir(exist_ok=True)
    wanted = {chapter.path.name: chapter.path for chapter in chapters()}
    for path in target.glob("*.ipynb"):
        if path.name not in wanted:
            path.unlink()
    for name, path in wanted.items():
        copy = target / name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copy(path, copy)


class ChapterToctree(TocTree):
    "List the pages of a folder that chapters have there, in reading order: `{chapter-toctree} chapters/{stem}`."

    required_arguments = 1
    option_spec = TocTree.option_spec | {"workbench": lambda argument: argument or "only"}

    def run(self):
        "Leave the workbench out, or with `:workbench: last` put it at the end, with `:workbench: only` list it alone."
        self.env.note_reread()  # a new chapter changes it
        wish, found = self.options.pop("workbench", "none"), self.env.found_docs
        takes = {"none": lambda c: c.number != "00", "only": lambda c: c.number == "00", "last": lambda c: True}[wish]
        names = [self.arguments[0].format(stem=c.stem, module=c.module) for c in chapters() if takes(c)]
        self.arguments, self.content = [], StringList([name for name in names if name in found], source="chapters")
        return super().run()


def directives(cell):
    "Split a cell's source into its directives {name: value} and the rest."
    found, rest = {}, []
    for line in "".join(cell["source"]).splitlines(keepends=True):
        match = DIRECTIVE.match(line.strip())
        if match:
            found[match.group(1)] = (match.group(2) or "").strip()
        else:
            rest.append(line)
    return found, "".join(rest)


def read_source(app, docname, source):
    "Rewrite a notebook in memory as its directives say."
    if app.env.doc2path(docname).suffix == ".ipynb":
        source[0] = json.dumps(rewrite(json.loads(source[0]), docname))


def description(output, where):
    "Return the alternative text of a figure. Raise `ExtensionError` if it has none."
    alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
    if len(alt) <= 20:
        raise ExtensionError(
            f"{where}: found a figure with the description {alt!r}, expected a sentence that says what it shows. "
            "Return a Picture(fig, alt), or run `make outputs` if a tool has dropped it"
        )
    return alt


def proved(notebook):
    """Return {index of a cell: n} for the cells that show the verdict on the n-th version of the loop.

    For the first, which has none before it, the cell that defines it.
    """
    told = [
        (index, output["data"][DATA])
        for index, cell in enumerate(notebook["cells"])
        for output in cell.get("outputs", ())
        if DATA in output.get("data", {})
    ]
    rows = next((data["rows"] for _, data in reversed(told) if data["kind"] == "ledger"), [])
    found = {}
    for number, row in enumerate(rows, 1):
        shown = [index for index, data in told if data["kind"] == "verdict" and data["new"] == row["step"]]
        if number == 1:
            first = row["source"].splitlines()[0]
            cells = enumerate(notebook["cells"])
            shown = [index for index, cell in cells if "outputs" in cell and first in "".join(cell["source"])]
        found |= {index: number for index in shown[:1]}
    return found


def rewrite(notebook, where=""):
    "Return a notebook as its directives want it to be shown."
    module, cells, loops = "", [], proved(notebook)
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            found, cell["source"] = directives(cell)
            module = found.get("default_exp", module)
            if "hide" in found or not cell["source"].strip():
                continue
            tags = [tag for (name, value), tag in TAGS.items() if found.get(name) == value]
            tags += ["exported", f"exp-{module}"] if found.keys() & {"export", "exports"} else []
            tags += [f"version-{loops[index]}"] if index in loops else []
            alt = [description(o, where) for o in cell["outputs"] if "image/png" in o.get("data", {})]
            if len(alt) > 1:
                raise ExtensionError(f"{where}: found a cell with {len(alt)} figures, expected one and its description")
            for output in cell["outputs"]:
                output.get("data", {}).pop(DATA, None)  # for the pages that are made from it, not for this one
            cell["metadata"] = {"tags": tags} | ({"mystnb": {"image": {"alt": alt[0]}}} if alt else {})
        else:
            cell["source"] = CALLOUT.sub(r"\1{\2}", "".join(cell["source"]))
        cells.append(cell)
    return notebook | {"cells": cells}


def saved(module, cell):
    "Link to the reference of what an exported cell builds; where it builds nothing that has one, to the module's page."
    code = ast.parse(next(cell.findall(nodes.literal_block)).astext())
    built = {node.name for node in code.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    known = documented(importlib.import_module(f"exp.{module}"))
    name = next((name for name in known if name.rpartition(".")[2] in built), None)
    about = {"refdomain": "py", "reftype": "obj", "reftarget": f"exp.{module}.{name}"}
    page = {"refdomain": "std", "reftype": "doc", "reftarget": f"/reference/{module}"}
    words = nodes.inline("", f"saved in exp.{module}")
    return addnodes.pending_xref("", words, refexplicit=True, **(about if name else page))


def mark_exported(app, doctree):
    "Say above each exported cell where it is saved."
    for cell in list(doctree.findall(nodes.container)):
        module = next((c.removeprefix("tag_exp-") for c in cell["classes"] if c.startswith("tag_exp-")), "")
        if module and cell.get("nb_element") == "cell_code":
            mark = nodes.paragraph("", "", saved(module, cell), classes=["export-mark"])
            if cell.get("hide_mode"):  # folded: its first child must stay the code
                cell.parent.insert(cell.parent.index(cell), mark)
            else:
                cell.insert(0, mark)


def mend_launch_links(app, pagename, templatename, context, doctree):
    "Let launch buttons name the notebook in `nbs/`, not its copy."
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if "url" in button:
                button["url"] = button["url"].replace("/nbs/chapters/", "/nbs/")


class LinkNames(SphinxPostTransform):
    "Make a name in backticks a link to its reference, in chapters and pages, not in the reference itself."

    default_priority = 5

    def run(self):
        if self.env.docname.startswith("reference"):
            return
        names = self.names()
        for literal in list(self.document.findall(nodes.literal)):
            name = re.sub(r"\(.*\)$", "", literal.astext())
            if name in names and not isinstance(literal.parent, (nodes.reference, addnodes.pending_xref)):
                xref = addnodes.pending_xref(
                    "", refdomain="py", reftype="obj", reftarget=names[name], refexplicit=True, refdoc=self.env.docname
                )
                literal.replace_self(xref)
                xref += literal

    def names(self):
        "Return {name: what it means on this page}: this chapter's own or the nearest below, functions before methods."
        folder, _, stem = self.env.docname.rpartition("/")
        near = below(Chapter(stem + ".ipynb").module) if folder == "chapters" else []

        def rank(name):
            module = name.split(".")[1]
            return name.count("."), near.index(module) if module in near else len(near), module

        objects = self.env.get_domain("py").objects
        return {name.rpartition(".")[2]: name for name in sorted(objects, key=rank, reverse=True)}


def setup(app):
    app.add_directive("chapter-toctree", ChapterToctree)
    app.connect("config-inited", copy_chapters)
    app.connect("source-read", read_source)
    app.connect("doctree-read", mark_exported)
    app.connect("html-page-context", mend_launch_links, priority=900)  # after the theme's own
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True}
