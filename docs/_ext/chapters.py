"""Render the notebooks of `nbs/` as they are stored, and honour what their `#|` lines say.

- The chapters are copied to `docs/chapters/` (not committed), so that they are pages like others and can be downloaded.
  What follows happens to the text in memory: the download stays the runnable notebook.
- `#| hide` drops a cell. `#| export` keeps it, whole, with a quiet mark that names its module. `#| echo: false` hides
  the code, `#| output: false` the output, `#| code-fold: true` folds the code. The lines themselves vanish.
- A callout, `::: {.callout-note}`, becomes an admonition of that kind.
- A figure gets the alternative text that its output carries.
- A name in backticks that the modules export becomes a link to its reference.
"""

import json
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

DIRECTIVE = re.compile(r"^#\| *([\w-]+)(?::? +(.*))?$")
CALLOUT = re.compile(r"^(:{3,}) *\{\.callout-(note|tip|warning|important|caution)[^}]*\}", re.MULTILINE)
TAGS = {("echo", "false"): "remove-input", ("output", "false"): "remove-output", ("code-fold", "true"): "hide-input"}


def copy_chapters(app, config):
    "Bring the notebooks into the source folder, touching only those that changed."
    source, target = Path(app.confdir).parent / "nbs", Path(app.srcdir) / "chapters"
    target.mkdir(exist_ok=True)
    wanted = {path.name: path for path in source.glob("[0-9]*.ipynb")}
    for path in target.glob("*.ipynb"):
        if path.name not in wanted:
            path.unlink()
    for name, path in wanted.items():
        copy = target / name
        if not copy.exists() or copy.read_bytes() != path.read_bytes():
            shutil.copy(path, copy)


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
        source[0] = json.dumps(rewrite(json.loads(source[0])))


def rewrite(notebook):
    "Give a notebook as its directives want it to be shown."
    module, cells = "", []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            found, cell["source"] = directives(cell)
            module = found.get("default_exp", module)
            if "hide" in found or not cell["source"].strip():
                continue
            tags = [tag for (name, value), tag in TAGS.items() if found.get(name) == value]
            tags += ["exported", f"exp-{module}"] if found.keys() & {"export", "exports"} else []
            alt = [o["metadata"]["image/png"]["alt"] for o in cell["outputs"] if "image/png" in o.get("metadata", {})]
            cell["metadata"] = {"tags": tags} | ({"mystnb": {"image": {"alt": alt[0]}}} if alt else {})
        else:
            cell["source"] = CALLOUT.sub(r"\1{\2}", "".join(cell["source"]))
        cells.append(cell)
    return notebook | {"cells": cells}


def mark_exported(app, doctree):
    "Put the name of its module above each exported cell; let wide outputs be scrolled by keyboard."
    for cell in list(doctree.findall(nodes.container)):
        module = next((c.removeprefix("tag_exp-") for c in cell["classes"] if c.startswith("tag_exp-")), "")
        if module and cell.get("nb_element") == "cell_code":
            mark = nodes.paragraph("", f"exp.{module}", classes=["export-mark"])
            if cell.get("hide_mode"):  # folded: its first child must stay the code
                cell.parent.insert(cell.parent.index(cell), mark)
            else:
                cell.insert(0, mark)
    for raw in doctree.findall(nodes.raw):
        if "<pre style" in raw.astext():
            text = raw.astext().replace("<pre style", '<pre tabindex="0" style')
            raw.replace_self(nodes.raw(raw.rawsource, text, format="html", classes=raw["classes"]))


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
        objects = sorted(self.env.get_domain("py").objects, key=lambda name: -name.count("."))
        names = {name.rpartition(".")[2]: name for name in objects}      # a function or class before a method
        if self.env.docname.startswith("reference"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            name = re.sub(r"\(.*\)$", "", literal.astext())
            if name in names and not isinstance(literal.parent, (nodes.reference, addnodes.pending_xref)):
                xref = addnodes.pending_xref(
                    "", refdomain="py", reftype="obj", reftarget=names[name], refexplicit=True, refdoc=self.env.docname
                )
                literal.replace_self(xref)
                xref += literal


def setup(app):
    app.connect("config-inited", copy_chapters)
    app.connect("source-read", read_source)
    app.connect("doctree-read", mark_exported)
    app.connect("html-page-context", mend_launch_links, priority=900)  # after the theme's own
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True}
