"""An index of the site by section, as a script, so that search leads to the section and works from a file, too.

`search-sections.js` holds for each section its page, anchor, titles and text; `search.js` on the search page does the
rest. Only what a chapter says is in it: prose, figures' descriptions, and the words of its code, each once in a
section; no menus, no outputs.
"""

import html
import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

from docs._ext.formulas import mathml

LONG = 4_000  # characters of a section's prose that are kept


def plain(node):
    "Return the text of a node: formulas as they are read and not as TeX, no tags."
    parts = []
    for text in node.findall(nodes.Text):
        formula = isinstance(text.parent, (nodes.math, nodes.math_block))
        markup = mathml(text) if formula else str(text)
        tagged = formula or isinstance(text.parent, nodes.raw)
        parts.append(html.unescape(re.sub("<[^>]*>", "", markup)) if tagged else markup)
    block = isinstance(node, (nodes.paragraph, nodes.literal_block))
    return ("" if block else " ").join(parts)


def text_of(section):
    "Return the prose of a section, then the other words of its code; nothing of the sections in it, no outputs."
    found, code = [], []
    for child in section.children:
        if isinstance(child, (nodes.section, nodes.title, nodes.raw)):
            continue
        if isinstance(child, nodes.container) and child.get("nb_element") == "cell_code":
            inputs = [each for each in child.findall(nodes.literal_block) if not is_output(each)]
            code += [each.astext() for each in inputs]
        elif not isinstance(child, (addnodes.desc, nodes.Invisible)):  # an object of the reference is a section itself
            blocks = list(child.findall(lambda node: isinstance(node, (nodes.paragraph, nodes.math_block))))
            found += [plain(block) for block in blocks or [child]]
    prose = " ".join(" ".join(found).split())[:LONG]
    words = re.findall(r"[^\W\d]\w+", " ".join(code))
    said = {word.lower() for word in re.findall(r"\w+", prose)}
    return " ".join([prose, *(word for word in dict.fromkeys(words) if word.lower() not in said)])


def is_output(block):
    "Return whether a block of code is an output of a cell."
    parent = block.parent
    while parent is not None:
        if parent.get("nb_element") == "cell_code_output":
            return True
        parent = parent.parent
    return False


def collect(app, doctree):
    "Keep the sections of a page; in the reference, each object is one."
    env, docname = app.env, app.env.docname
    env.sections = getattr(env, "sections", {})
    page = next((title.astext() for title in doctree.findall(nodes.title)), docname)
    rows = env.sections[docname] = []
    if docname == "404":
        return
    for section in doctree.findall(nodes.section):
        title = section[0].astext() if isinstance(section[0], nodes.title) else ""
        top = isinstance(section.parent, nodes.document)
        rows.append([docname, "" if top else section["ids"][0], page, "" if top else title, text_of(section)])
    for thing in doctree.findall(addnodes.desc):
        signature = thing[0]
        if signature.get("ids"):
            rows.append([docname, signature["ids"][0], page, signature.astext(), thing[1].astext()[:LONG]])


def forget(app, env, docname):
    "Drop the sections of a page."
    getattr(env, "sections", {}).pop(docname, None)


def write(app, error):
    "Write the index."
    if error or app.builder.format != "html":
        return
    sections = getattr(app.env, "sections", {})
    rows = [row for docname in sorted(sections) for row in sections[docname]]
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).replace("],[", "],\n[")
    (Path(app.outdir) / "search-sections.js").write_text(f"const SECTIONS = {text};\n", encoding="utf-8")


def alone(app):
    "Have Sphinx make no index of its own; then the page is ours to ask for."
    app.builder.search = False
    app.config.html_additional_pages = {"search": "search.html"}


def setup(app):
    app.connect("builder-inited", alone)
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", forget)
    app.connect("build-finished", write)
    return {"parallel_read_safe": False, "env_version": 1}
