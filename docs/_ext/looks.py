"""How chapters look: lines of code that wrap below their own start, refactors as one block, framed exercises, traps.

The styles are `_static/type.css` (fonts, colours), `code.css`, `site.css` and `print.css`.
"""

import base64
import re
from pathlib import Path

from docutils import nodes
from pygments.formatters import HtmlFormatter
from sphinx.highlighting import PygmentsBridge

STYLES = {"type.css": 500, "code.css": 500, "print.css": 900}  # in this order; site.css, of conf.py, is 800
FITS = 40  # characters: a line of so many fits on a phone
DEEPEST = 16  # characters: what is indented more goes on here
EXERCISE, TRAP = re.compile(r"\d+ · "), re.compile(r"\btrap\b", re.IGNORECASE)
REFACTOR = re.compile(r"Refactor \(\w\)")
FONT = re.compile(r"url\((fonts/[^)]+)\)")
COLUMNS = re.compile(r"\S {2,}\S|[─│┌└├]|^ +\S", re.MULTILINE)
EFFORT = re.compile(r"([●○]{3}) · (\d+ minutes?)\. *")
EFFORT_LINE = '<p class="effort"><span class="dots" role="img" aria-label="difficulty {} of 3">{}</span> {}</p>'


def hang(line):
    "Say of a long line of highlighted code how far it is indented: `code.css` lets the rest of it hang below."
    text = re.sub(r"&[^;]*;", "x", re.sub(r"<[^>]*>", "", line)).rstrip()
    indent = min(len(text) - len(text.lstrip()), DEEPEST)
    return f'<span style="--in:{indent}">{line}</span>' if len(text) > FITS else line


class Hanging(HtmlFormatter):
    "Write code as Pygments does, with `hang` for each line."

    def wrap(self, source):
        return super().wrap((kind, hang(line) if kind else line) for kind, line in source)


def dress(app, doctree):
    "Give sections that are refactors, exercises or traps their form."
    if app.env.docname.startswith("chapters/"):
        inner = [section for section in doctree.findall(nodes.section) if section.parent is not doctree]
        for section in inner:
            title = section[0].astext()
            if EXERCISE.match(title):
                frame(section)
            elif TRAP.search(title):
                section["classes"].append("trap")
            elif REFACTOR.match(title):
                unite(section)


def unite(section):
    "Set a refactor as one block: from below its title to its first section. `site.css` labels what is in it."
    ends = [i for i, child in enumerate(section) if isinstance(child, nodes.section)] or [len(section)]
    parts = section[1 : ends[0]]
    section[1 : ends[0]] = [nodes.container("", *parts, classes=["refactor"])]


def mark_sentences(app, doctree):
    "Tell outputs that are sentences, which may wrap anywhere, from those with columns, which may not."
    for block in doctree.findall(nodes.literal_block):
        if "output" in block["classes"] and not COLUMNS.search(block.astext()):
            block["classes"].append("sentences")


def frame(section):
    "Make a section an exercise: from its title to its last fold. What follows belongs to the section around it."
    section["classes"].append("exercise")
    ends = [i for i, child in enumerate(section) if isinstance(child, nodes.raw) and "</details>" in child.astext()]
    if ends:
        after, rest = section.parent.index(section) + 1, section[ends[-1] + 1 :]
        del section[ends[-1] + 1 :]
        section.parent[after:after] = rest
    found = ((text, EFFORT.match(text)) for text in section.findall(nodes.Text))
    text, match = next((pair for pair in found if pair[1]), (None, None))
    if match:
        dots, minutes = match.groups()
        paragraph = text.parent
        effort = nodes.raw("", EFFORT_LINE.format(dots.count("●"), dots, minutes), format="html")
        paragraph.parent.insert(paragraph.parent.index(paragraph), effort)
        paragraph.replace(text, nodes.Text(text[match.end() :]))


def embed_fonts(app, error):
    "Put the fonts into the styles: a page is drawn with them at once, so nothing moves when they arrive."

    def data(match):
        return f"url(data:font/woff2;base64,{base64.b64encode((static / match[1]).read_bytes()).decode()})"

    static = Path(app.outdir) / "_static"
    for path in [] if error or app.builder.format != "html" else sorted(static.glob("*.css")):
        text = path.read_text(encoding="utf-8")
        if FONT.search(text):
            path.write_text(FONT.sub(data, text), encoding="utf-8", newline="\n")


def setup(app):
    PygmentsBridge.html_formatter = Hanging
    for name, order in STYLES.items():
        app.add_css_file(name, priority=order)
    app.add_js_file("looks.js", loading_method="defer")
    app.connect("doctree-read", dress)
    app.connect("doctree-read", mark_sentences)
    app.connect("build-finished", embed_fonts)
    return {"parallel_read_safe": True}
