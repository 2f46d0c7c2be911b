"""The directive `{find-the-bug}`: a card for each exercise *Find the bug* of chapter 13; the answer unfolds.

A card shows curves and numbers out of the record, under letters, and names the candidates. What unfolds says which is
which, how the exercise's solution decides, and what the chapter's tests say. All of it works without JavaScript.
"""

import html
import re

from docutils import nodes
from docutils.parsers.rst import Directive

from docs._ext.exercises import takes
from docs._ext.gallery import HEIGHT, TOP, WIDTH, words
from records import debugging
from tools import records
from tools.chapters import chapter, chapters

JUDGED = r"^@exercise\ndef {}\(.*?\n    judge\(\w+, \[([\w, ]+)\], (\d+), hints\)$"
THICK = (7, 4.5, 2.5, 1)  # where curves lie on each other, each is thinner than the one below it
STEPS = {0: "without a step", 1: "with one step at most"}


def found():
    "List the exercises in which a set-up is to be found: (exercise, names of the candidates, steps at most)."
    shown = chapter("13")
    sources, cases = "\n\n".join(cell.source for cell in shown.code_cells), []
    for exercise in shown.exercises:
        judged = re.search(JUDGED.format(exercise.check), sources, re.DOTALL | re.MULTILINE)
        if judged and "\n\n" not in judged[0]:
            names = ["Healthy" if name == "Setup" else name for name in judged[1].split(", ")]
            cases.append((exercise, names, int(judged[2])))
    return cases


def drawing(runs):
    "Draw the training losses of some runs as SVG, cut off at `TOP`."
    lines = "".join(f'<line x1="0" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (0, HEIGHT / 3, 2 * HEIGHT / 3, HEIGHT))
    curves = []
    for number, (run, width) in enumerate(zip(runs, THICK)):
        points = [max(0.0, min(TOP, loss)) for loss in run["curve"]]
        path = " ".join(f"{i * WIDTH / 39:.0f},{HEIGHT - y / TOP * HEIGHT:.1f}" for i, y in enumerate(points))
        curves.append(f'<polyline class="curve-{number}" stroke-width="{width}" points="{path}"/>')
    ends = ", ".join(f"{letter} {debugging.short(run['curve'][-1])}" for letter, run in zip("ABCD", runs))
    size = f'viewBox="0 -4 {WIDTH} {HEIGHT + 8}" width="{WIDTH}" height="{HEIGHT}"'
    told = f"{len(runs)} training losses; at the end: {ends}."
    return f'<svg {size} role="img" aria-label="{told}"><g>{lines}</g>{"".join(curves)}</svg>'


def numbers(runs):
    "Write what one sees of each run as a table."
    rows = "".join(
        f'<tr><th scope="row"><span class="key curve-{number}" aria-hidden="true"></span>{letter}</th>'
        f"<td>{debugging.short(run['curve'][0])}</td><td>{run['train']:.0%}</td><td>{run['epochs'][-1][2]:.0%}</td></tr>"
        for number, (letter, run) in enumerate(zip("ABCD", runs))
    )
    head = "<tr><th>run</th><th>first loss</th><th>training</th><th>validation</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def card(exercise, names, most, runs, reports):
    "Write the card of one exercise."
    shown = sorted(names, key=lambda name: 17 * sum(map(ord, name)) % 1009)  # an order that says nothing
    order = sorted(names)
    steps = STEPS.get(most, f"with {most} steps at most")
    title = exercise.title.replace("`", "")
    uri = f"chapters/{chapter('13').stem}.html#{nodes.make_id(title)}"
    candidates = "".join(f"<li><code>{name}</code>: {words(name)}</li>" for name in order)
    answers = []
    for letter, name in zip("ABCD", shown):
        said = reports[name].items()
        tests = "".join(f"<li><b>{html.escape(test)}</b>: {html.escape(found)}</li>" for test, found in said)
        told = f"<ul>{tests}</ul>" if tests else "<p>No test of <code>diagnose</code> says anything.</p>"
        answers.append(f"<li>{letter} is <code>{name}</code>.{told}</li>")
    minutes = takes(chapter("13"), exercise.title)[1]
    drawn = [runs[name] for name in shown]
    return (f'<li class="case-card"><h3><a href="{uri}">{html.escape(title)}</a></h3>{drawing(drawn)}{numbers(drawn)}'
            f"<p>Which is which?</p><ul>{candidates}</ul>"
            f"<p>The chapter asks for the test that decides, {steps} ({minutes} minutes).</p>"
            f"<details><summary>The answer to {title.partition(' ')[0]}</summary><ul>{''.join(answers)}</ul>"
            f"<p>The test that decides:</p><pre>{html.escape(exercise.solution.rstrip())}</pre>"
            "</details></li>")  # fmt: skip


class FindTheBug(Directive):
    "Show the cards."

    def run(self):
        if all(each.number != "13" for each in chapters()):  # a copy of the project may lack it
            return []
        env = self.state.document.settings.env
        for path in (chapter("13").path, *(records.FOLDER / f"{name}.json" for name in ("debugging", "diagnoses"))):
            env.note_dependency(str(path))

        def of(name):
            return {run["setting"]["setup"]: run for run in records.stored(name)["runs"] if run["setting"]["seed"] == 0}

        runs, reports = of("debugging"), {name: run["found"] for name, run in of("diagnoses").items()}
        cards = [card(*case, runs, reports) for case in found()]
        return [nodes.raw("", f'<ul class="gallery cases">{"".join(cards)}</ul>', format="html")]


def setup(app):
    app.add_directive("find-the-bug", FindTheBug)
    return {"parallel_read_safe": True}
