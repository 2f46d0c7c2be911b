"""The directive `{exercise-index}`: all exercises by chapter, with difficulty and minutes, and a tick for each.

The tick stands at the exercise itself, too; `series.js` keeps it in the reader's browser.
"""

import re

from docutils import nodes
from docutils.parsers.rst import Directive

from tools.chapters import chapters

TAKES = re.compile(r"^(●[●○]*) · (\d+) minutes", re.MULTILINE)
BOX = '<label class="solved-box js-only"><input type="checkbox" class="solved" value="{}"> {}</label>'
LEVELS = {1: "easy", 2: "medium", 3: "hard"}


def takes(chapter, title):
    "Return the difficulty (●○○) and the minutes of an exercise. Raise `ValueError` if it does not say them."
    for cell in chapter.cells:
        if cell.cell_type == "markdown" and f"### {title}" in cell.source.splitlines():
            found = TAKES.search(cell.source.partition(f"### {title}\n")[2])
            if found:
                return found[1], int(found[2])
    raise ValueError(f"{chapter.path.name}: exercise {title!r} does not say '●○○ · 5 minutes' below its title")


def name(chapter, title):
    "Return the name under which an exercise's tick is kept."
    return f"{chapter.number}/{title.partition(' ')[0]}"


class ExerciseIndex(Directive):
    "List all exercises."

    def run(self):
        self.state.document.settings.env.note_reread()
        found = []
        for chapter in chapters():
            self.state.document.settings.env.note_dependency(str(chapter.path))
            if chapter.exercises:
                section = nodes.section(ids=[f"exercises-{chapter.number}"])
                section += nodes.title("", chapter.title)
                items = nodes.bullet_list(classes=["exercise-list"])
                for exercise in chapter.exercises:
                    items += self.item(chapter, exercise)
                section += items
                found.append(section)
        return found

    def item(self, chapter, exercise):
        "Make the line of one exercise."
        level, minutes = takes(chapter, exercise.title)
        title = exercise.title.replace("`", "")
        uri = f"chapters/{chapter.stem}.html#{nodes.make_id(title)}"
        dots = f'<span class="level" role="img" aria-label="{LEVELS[level.count("●")]}">{level}</span>'
        box = BOX.format(name(chapter, exercise.title), "solved")
        return nodes.list_item("", nodes.paragraph(
            "", "", nodes.reference("", title, refuri=uri, internal=True), nodes.Text(" "),
            nodes.raw("", dots, format="html"), nodes.Text(f" {minutes} minutes "), nodes.raw("", box, format="html"),
        ))  # fmt: skip


def add_ticks(app, doctree):
    "Put a tick below the title of each exercise of a chapter."
    folder, _, stem = app.env.docname.rpartition("/")
    if folder != "chapters":
        return
    chapter = next(each for each in chapters() if each.stem == stem)
    titles = {exercise.title.replace("`", ""): exercise.title for exercise in chapter.exercises}
    for section in doctree.findall(nodes.section):
        title = titles.get(section[0].astext())
        if title:
            box = BOX.format(name(chapter, title), "solved")
            section.insert(1, nodes.raw("", box, format="html"))


def setup(app):
    app.add_directive("exercise-index", ExerciseIndex)
    app.connect("doctree-read", add_ticks)
    return {"parallel_read_safe": True}
