"""The home page: the loop itself with a slider over its versions, three numbers, and what may be there or not.

`{the-loop} 02` lays all versions of a chapter's loop over each other: each line knows in which versions it stands, and
how deep. `home.js` folds and unfolds them. Without JavaScript the first and the last version stand side by side.
The curve is that of the chapter's own picture `loops.png`: the mean loss of each tenth of the epoch, for each version.
"""

import ast
import html
from difflib import SequenceMatcher

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.directives.other import TocTree
from sphinx.util.docutils import SphinxDirective

from docs._ext.loops import versions
from tools.bugs import caught, stored, table
from tools.chapters import chapter, chapters

WIDTH, HEIGHT, TOP = 300, 150, 0.8  # of the curve, in pixels; the loss at its upper edge


def shown(source):
    "List (depth, text) of the lines of a function, without its docstring and the comments of its parameters."
    lines, function = source.splitlines(), ast.parse(source).body[0]
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    body = lines[first.end_lineno if documented else first.lineno - 1 :]
    head = f"def {function.name}({ast.unparse(function.args)}):"
    return [((len(line) - len(line.lstrip())) // 4, line.strip()) for line in [head, *body] if line.strip()]


def laid_over(texts):
    """Lay versions over each other. Return rows (text, depths): for each version the depth of the line, or None.

    A line that is only indented anew stays the same row.
    """
    rows = [(text, [depth]) for depth, text in texts[0]]
    for number, lines in enumerate(texts[1:], 1):
        before = [row for row in rows if row[1][-1] is not None]
        for _, depths in rows:
            depths.append(None)
        at = 0  # where the next new line goes
        matcher = SequenceMatcher(None, [text for text, _ in before], [text for _, text in lines], autojunk=False)
        for kind, a, b, c, d in matcher.get_opcodes():
            for old, (depth, _) in zip(before[a:b], lines[c:d]) if kind == "equal" else ():
                old[1][number] = depth
            if b > a:
                at = next(i for i, row in enumerate(rows) if row is before[b - 1]) + 1
            if kind in ("insert", "replace"):
                new = [(text, [None] * number + [depth]) for depth, text in lines[c:d]]
                rows[at:at] = new
                at += len(new)
    return rows


def coloured(text):
    "Colour a line of Python."
    return highlight(text, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip("\n")


def curves(source):
    "Return {step: means} from the picture of all loops: the loss of each tenth of the epoch."
    for cell, output in source.outputs:
        if any(tag == "picture:loops.png" for tag in cell.metadata.get("tags", [])):
            found = {}
            for drawn in output.metadata["image/png"]["drawn"]:
                found.setdefault(drawn["name"], drawn.get("means"))  # the loss is drawn first, then the accuracy
            return found
    return {}


def points(means):
    "Write a curve as points of an SVG."
    step = WIDTH / len(means)
    return " ".join(f"{(i + 0.5) * step:.1f},{HEIGHT * (1 - mean / TOP):.2f}" for i, mean in enumerate(means))


def chart(rows, means):
    "Draw the curve of each version over that of the first."
    if not all(row["step"] in means for row in rows):
        return ""
    lines = [
        f'<polyline class="this{" now" if not number else ""}" points="{points(means[row["step"]])}"/>'
        for number, row in enumerate(rows)
    ]
    first = means[rows[0]["step"]]
    words = f"Training loss over an epoch, by tenths: from {first[0]:.2f} to {first[-1]:.2f}, whatever the version."
    marks = "".join(
        f'<line x1="0" x2="{WIDTH}" y1="{(y := HEIGHT * (1 - loss / TOP)):g}" y2="{y:g}"/>'
        f'<text x="-6" y="{y + 4:g}" text-anchor="end">{loss:g}</text>'
        for loss in (0, 0.2, 0.4, 0.6)
    )
    return (
        f'<svg class="curve" viewBox="-34 -6 {WIDTH + 40} {HEIGHT + 30}" role="img" aria-label="{html.escape(words)}">'
        f'<g class="axes">{marks}<text x="{WIDTH}" y="{HEIGHT + 18}" text-anchor="end">mini-batch 782</text></g>'
        f'<polyline class="first" points="{points(first)}"/>{"".join(lines)}</svg>'
    )


def verdict(row):
    "Return the word of a verdict and the words of its badge."
    if not row["verdict"]:
        return "first", "the first loop"
    word = row["verdict"]
    counted = row["said"].partition(": ")[2].partition(" losses")[0] if word == "identical" else ""
    return word, f"{word} · {counted}" if counted else word


class TheLoop(Directive):
    "Show the loop of a chapter with a slider over its versions."

    required_arguments = 1

    def run(self):
        source = chapter(self.arguments[0])
        self.state.document.settings.env.note_dependency(str(source.path))
        rows = versions(source)
        texts = [shown(row["source"]) for row in rows]
        lines = []
        for text, depths in laid_over(texts):
            marks = " ".join("-" if depth is None else str(depth) for depth in depths)
            now = f'style="--depth: {depths[0]}"' if depths[0] is not None else 'data-gone=""'
            lines.append(f'<span class="code-row" data-depths="{marks}" {now}>{coloured(text)}\n</span>')
        data = [
            {"step": row["step"], "lines": row["lines"], "word": word, "badge": badge}
            for row in rows
            for word, badge in [verdict(row)]
        ]
        states = "".join(
            f'<li data-lines="{each["lines"]}" data-word="{each["word"]}" data-badge="{html.escape(each["badge"])}">'
            f"{html.escape(each['step'])}</li>"
            for each in data
        )
        tallest = max(map(len, texts))
        ends = "".join(
            f"<figure><figcaption>{words}: {row['step']}, {row['lines']} lines</figcaption>"
            f'<div class="highlight"><pre tabindex="0">{self.plain(text)}</pre></div></figure>'
            for words, row, text in (("The first version", rows[0], texts[0]), ("The last", rows[-1], texts[-1]))
        )
        return [
            nodes.raw(
                "",
                f'<div class="loop-ends">{ends}</div>'
                f'<div class="the-loop js-only"><div class="loop-code highlight"><pre tabindex="0" '
                f'style="--rows: {tallest}">{"".join(lines)}</pre></div>'
                f'<label class="loop-slider">From the first loop to PyTorch’s own tools '
                f'<input type="range" min="1" max="{len(rows)}" value="1" step="1" '
                f'aria-valuetext="version 1 of {len(rows)}: {html.escape(rows[0]["step"])}"></label>'
                f'<p class="loop-step" role="status">{self.status(data)}</p>{chart(rows, curves(source))}'
                f'<ol class="loop-steps" hidden>{states}</ol></div>',
                format="html",
            )
        ]

    def status(self, data):
        "Write what is said of the first version; `home.js` writes the same of the others."
        first = data[0]
        return (
            f'<b class="lines">{first["lines"]} lines</b> <span class="badge" data-word="{first["word"]}">'
            f'{first["badge"]}</span> <span class="step">version 1 of {len(data)}: {html.escape(first["step"])}</span>'
        )

    def plain(self, text):
        "Colour a whole version."
        return coloured("\n".join("    " * depth + line for depth, line in text))


class Numbers(Directive):
    "Count what the chapters hold: loops, planted bugs, exercises."

    def run(self):
        self.state.document.settings.env.note_reread()
        all_chapters = chapters()
        loops = sum(len(versions(each)) for each in all_chapters)
        planted = [(bug, stored(each)) for each in all_chapters for bug in table(each)]
        found = sum(caught(results[bug.name]) for bug, results in planted if bug.name in results)
        exercises = sum(len(each.exercises) for each in all_chapters)
        said = [
            (loops, "loops", "each compared with the one before it", "loops.html"),
            (len(planted), "bugs planted", f"{found} caught by the chapters’ own checks", "bugs.html"),
            (exercises, "exercises", "with hints, tempting mistakes and solutions", "exercises.html"),
        ]
        rows = "".join(f'<li><a href="{to}"><b>{n}</b> {what}</a><span>{how}</span></li>' for n, what, how, to in said)
        return [nodes.raw("", f'<ul class="numbers">{rows}</ul>', format="html")]


class TocTreeOfThoseThere(TocTree):
    "List pages, but those that are not there."

    def run(self):
        self.env.note_reread()
        there = [name for name in self.content if name in self.env.found_docs]
        self.content = StringList(there, source=self.env.docname)
        return super().run()


class WhenThere(SphinxDirective):
    "Show what it holds only if a page, or a file of the built site, is there: `{when-there} live`."

    required_arguments = 1
    has_content = True

    def run(self):
        self.env.note_reread()
        name = self.arguments[0]
        if name not in self.env.found_docs and not (self.env.app.outdir / name).exists():
            return []
        body = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, body)
        return body.children


def only_at_home(app, pagename, templatename, context, doctree):
    "Load the slider's script on the home page alone, the style of the cards where there are some."
    if pagename in (app.config.root_doc, "404"):
        app.add_css_file("home.css")
    if pagename == app.config.root_doc:
        app.add_js_file("home.js", loading_method="defer")


def setup(app):
    app.add_directive("the-loop", TheLoop)
    app.add_directive("numbers", Numbers)
    app.add_directive("when-there", WhenThere)
    app.add_directive("toctree-of-those-there", TocTreeOfThoseThere)
    app.connect("html-page-context", only_at_home)
    return {"parallel_read_safe": True}
