"""The directive `{bug-gallery}`: a card for each set-up of chapter 13's record, to be filtered by what one sees.

A card shows the curve and three numbers; what it is, unfolds. All is there without JavaScript; `gallery.js` filters.
"""

import html
import inspect
import re

from docutils import nodes
from docutils.parsers.rst import Directive

from records import debugging
from tools import records

TOP, WIDTH, HEIGHT = 3.0, 156, 60
FILTERS = {  # what one sees: (its question, the answers in order)
    "curve": ("The training loss", ["is flat", "falls slowly", "falls as in a healthy run", "is nearly 0", "goes wild",
                                    "is negative"]),
    "valid": ("The validation accuracy is", ["as in a healthy run", "lower", "that of guessing"]),
    "gap": ("Validation is", ["about as good as training", "far worse than training", "far better than training"]),
}  # fmt: skip


def seen(run):
    "Return what one sees of a run: {question: answer}."
    first, last, valid = run["curve"][0], run["curve"][-1], run["epochs"][-1][2]
    curves, valids, gaps = (answers for _, answers in FILTERS.values())
    if last < 0:
        curve = curves[5]
    elif max(run["curve"][5:]) > 5 and run["curve"][-1] > 0.5:
        curve = curves[4]
    elif abs(last - first) < 0.06:
        curve = curves[0]
    else:
        curve = curves[3 if last < 0.1 else 2 if last < 0.45 else 1]
    valid_words = valids[0 if valid >= 0.87 else 1 if valid > 0.2 else 2]
    gap = gaps[1 if run["train"] > valid + 0.15 else 2 if valid > run["train"] + 0.1 else 0]
    return {"curve": curve, "valid": valid_words, "gap": gap}


def drawing(run):
    "Draw the training loss as SVG, cut off at `TOP`."
    points = [max(0.0, min(TOP, loss)) for loss in run["curve"]]
    path = " ".join(f"{i * WIDTH / 39:.0f},{HEIGHT - loss / TOP * HEIGHT:.1f}" for i, loss in enumerate(points))
    told = (
        f"Training loss: {debugging.short(run['curve'][0])} at first, {debugging.short(run['curve'][-1])} at the end."
    )
    lines = "".join(f'<line x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (0, HEIGHT / 3, 2 * HEIGHT / 3, HEIGHT))
    return (f'<svg viewBox="0 -2 {WIDTH} {HEIGHT + 4}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            f'aria-label="{told}"><g>{lines}</g><polyline points="{path}"/></svg>')  # fmt: skip


def words(name):
    "Return what a set-up does, as its docstring says, as HTML."
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(debugging.words(name)))


def card(number, name, run, report):
    "Write the card of one set-up."
    kind, what = debugging.SETUPS[name], debugging.GALLERY[debugging.SETUPS[name]][0]
    answers, acc = seen(run), run["epochs"][-1][2]
    data = " ".join(f'data-{key}="{html.escape(value)}"' for key, value in answers.items())
    found = "".join(f"<li><b>{html.escape(test)}</b>: {html.escape(words)}</li>" for test, words in report.items())
    said = f"<ul>{found}</ul>" if found else "<p>No test of <code>diagnose</code> says anything.</p>"
    source = html.escape(inspect.getsource(kind).rstrip())
    return (f'<li class="gallery-card" {data}>{drawing(run)}<p>first loss {debugging.short(run["curve"][0])}, '
            f'training {run["train"]:.0%}, validation {acc:.0%}</p>'
            f"<details><summary>{number}: what is it?</summary><p><b>{what}</b>. {words(name)}</p>"
            f"<pre>{source}</pre>{said}</details></li>")  # fmt: skip


def choice(key):
    "Write the box that asks one question."
    question, answers = FILTERS[key]
    options = "".join(f"<option>{html.escape(answer)}</option>" for answer in answers)
    return f'<label>{question} <select name="{key}"><option value="">(all)</option>{options}</select></label>'


def shown():
    "List the set-ups in an order that says nothing: (name, its run of seed 0, what the tests say of it)."
    runs = {run["setting"]["setup"]: run for run in records.stored("debugging")["runs"] if run["setting"]["seed"] == 0}
    said = {run["setting"]["setup"]: run["found"] for run in records.stored("diagnoses")["runs"]
            if run["setting"]["seed"] == 0}  # fmt: skip
    names = sorted(runs, key=lambda name: (sum(map(ord, name)) * 7919 % 1009, name))
    return [(name, runs[name], said.get(name, {})) for name in names]


class BugGallery(Directive):
    "Show the boxes and the cards."

    def run(self):
        env = self.state.document.settings.env
        for name in ("debugging.json", "diagnoses.json", "debugging.py"):
            env.note_dependency(str(records.FOLDER / name))
        cards = [card(number, *row) for number, row in enumerate(shown(), 1)]
        boxes = "".join(map(choice, FILTERS))
        status = f'<p role="status">{len(cards)} of {len(cards)} set-ups</p>'
        form = f'<form class="gallery-form js-only">{boxes}{status}</form>'
        return [nodes.raw("", f'{form}<ul class="gallery">{"".join(cards)}</ul>', format="html")]


def only_there(app, pagename, templatename, context, doctree):
    "Load script and style on the page of the gallery alone."
    if pagename == "gallery":
        app.add_css_file("gallery.css")
        app.add_js_file("gallery.js", loading_method="defer")


def setup(app):
    app.add_directive("bug-gallery", BugGallery)
    app.connect("html-page-context", only_there)
    return {"parallel_read_safe": True}
