"""Read the chapters: title, promise, times, sections, cells, exercises, data in their outputs, and their order.

This is the only code that opens a notebook to find out what it says of itself. The site, the tests, the bench and the
other tools ask here.

An exercise is a heading `### 1 · Title`, a code cell with a blank (`raise NotImplementedError`), a code cell with a
check (decorated with `@exercise`), and, in the next text cell, foldable blocks with a code block each: one or more
whose summary starts with *A tempting mistake*, one with *Solution*.
"""

import base64
import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import nbformat

from tools import settings

ROOT = Path(settings.ROOT)
DATA = "application/vnd.training-refactored+json"  # the type of what ledgers, verdicts and diffs say of themselves
FOLD = r"<details><summary>{}[^<]*</summary>\n\n(?:(?!</details>).)*?```python\n(.*?)```"


class Exercise(NamedTuple):
    title: str      # of its heading
    name: str       # the function or class to write
    check: str      # the function that checks it
    blank: str      # source of the blank
    mistakes: tuple  # sources of the tempting mistakes
    solution: str   # source of the solution
    hints: int      # how many hints unfold


class Chapter:
    "A notebook of `nbs/`, read when something of it is asked for."

    def __init__(self, path):
        self.path = Path(path)
        self.stem, self.number = self.path.stem, self.path.name[:2]
        self.module = f"nb_{self.number}"

    def __repr__(self):
        return f"Chapter({self.stem})"

    @cached_property
    def notebook(self):
        "The notebook as it is stored."
        return nbformat.read(self.path, as_version=4)

    @property
    def cells(self):
        "All of its cells."
        return self.notebook.cells

    @property
    def code_cells(self):
        "The cells that hold code."
        return code_cells(self.notebook)

    # What the first cell says

    @cached_property
    def head(self):
        "Title, promise, minutes and seconds, of the first cell. Raise `ValueError` if it has another form."
        text = self.cells[0].source if self.cells else ""
        first = re.match(r"# (.+)\n\n> (.+)", text)
        takes = re.search(r"\*\*Takes\*\* (\d+) minutes to read, (\d+) seconds to run", text)
        if not (first and takes and first[1].startswith(f"{self.number} · ")):
            raise ValueError(
                f"{self.path.name}: found a first cell {text[:60]!r}, expected '# {self.number} · Title', a line "
                "'> Promise', and '**Takes** N minutes to read, M seconds to run'"
            )
        return first[1], first[2], int(takes[1]), int(takes[2])

    title = property(lambda self: self.head[0], doc="Number and name: '02 · Mini-batch training'.")
    promise = property(lambda self: self.head[1], doc="One sentence.")
    minutes = property(lambda self: self.head[2], doc="Time to read.")
    seconds = property(lambda self: self.head[3], doc="Time to run.")

    # What is in it

    @cached_property
    def sections(self):
        "For each code cell, the heading that it stands under."
        heading, found = "", []
        for cell in self.cells:
            if cell.cell_type == "code":
                found.append(heading)
            text = re.sub(r"^```.*?^```", "", cell.source, flags=re.DOTALL | re.MULTILINE)
            for line in text.splitlines() if cell.cell_type == "markdown" else ():
                heading = line.lstrip("# ") if re.match("#+ ", line) else heading
        return found

    @cached_property
    def exercises(self):
        "Its exercises, in order."
        found, title, hints, blank = [], "", 0, ""
        for index, cell in enumerate(self.cells):
            if cell.cell_type == "markdown":
                for heading in re.finditer(r"^### (\d+ · .*)$", cell.source, re.MULTILINE):
                    title, hints = heading[1], cell.source[heading.end() :].count("<summary>Hint")
            elif "raise NotImplementedError" in cell.source and "def check_" not in cell.source:
                blank = cell.source
            elif title and (check := re.search(r"^@exercise\ndef (check_\w+)\((\w+)\)", cell.source, re.MULTILINE)):
                after = self.cells[index + 1].source if index + 1 < len(self.cells) else ""
                mistakes = folds("A tempting mistake", after)
                solution = (*folds("Solution", after), "")[0]
                found.append(Exercise(title, check[2], check[1], blank, mistakes, solution, hints))
        return found

    @property
    def outputs(self):
        "All outputs, each with its cell: (cell, output)."
        return [(cell, output) for cell in self.code_cells for output in cell.outputs]

    def told(self, *kinds):
        "List what ledgers, verdicts and diffs among the outputs say of themselves: (output, data), in order."
        found = [(output, output.get("data", {}).get(DATA)) for _, output in self.outputs]
        return [(output, data) for output, data in found if data and data["kind"] in kinds]

    @property
    def figures(self):
        "Its figures, base64-encoded PNG, in order."
        return figures(self.notebook)

    @property
    def pictures(self):
        "{NAME: PNG bytes} of the figures whose cells have a tag `picture:NAME`."
        tagged = [(cell, tag) for cell in self.code_cells for tag in cell.metadata.get("tags", [])]
        return {
            tag.removeprefix("picture:"): base64.b64decode(output.data["image/png"])
            for cell, tag in tagged
            for output in cell.outputs
            if tag.startswith("picture:") and "image/png" in output.get("data", {})
        }


def chapters(root=ROOT):
    "List the chapters in the order in which they are read: 01, 02, …, and 00, the workbench, last."
    found = [Chapter(path) for path in (Path(root) / "nbs").glob("*.ipynb")]
    numbers = [chapter.number for chapter in found]
    for each in found:
        if not re.match(r"\d\d_\w+$", each.stem) or numbers.count(each.number) > 1:
            raise ValueError(f"nbs/{each.path.name}: expected a name such as 05_name.ipynb, and one chapter a number")
    return sorted(found, key=lambda chapter: (chapter.number == "00", chapter.stem))


def chapter(number, root=ROOT):
    "Return the chapter with this number ('02'). Raise `ValueError` if there is none."
    found = {each.number: each for each in chapters(root)}
    if number not in found:
        raise ValueError(f"chapter: found {number!r}, expected one of {', '.join(found)}")
    return found[number]


def chosen(numbers, root=ROOT):
    "List the chapters with these numbers, or all, if none is given."
    return [chapter(number, root) for number in numbers] or chapters(root)


def below(module, root=ROOT):
    "List the modules of `exp/` that a module stands on, itself first: ['nb_02', 'nb_01', 'nb_00']."
    found = [module]
    for name in found:
        source = Path(root, "exp", f"{name}.py").read_text(encoding="utf-8")
        found += [new for new in re.findall(r"^from \.(nb_\d\d) import", source, re.MULTILINE) if new not in found]
    return found


def code_cells(notebook):
    "List the code cells of a notebook."
    return [cell for cell in notebook.cells if cell["cell_type"] == "code"]


def code_lines(cell):
    "List the lines of a cell that are no directives and not empty."
    return [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#|")]


def figures(notebook):
    "List the figures of a notebook, base64-encoded PNG, in order."
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data["image/png"].strip() for output in outputs if "image/png" in output.get("data", {})]


def folds(summary, text):
    "Return the code blocks in the foldable parts of `text` whose summary starts so."
    return tuple(re.findall(FOLD.format(summary), text, re.DOTALL))
