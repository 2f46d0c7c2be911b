"""Find the exercises of a notebook: the blank, the check, the tempting mistake, the solution.

An exercise is a heading `### 1 · Title`, a code cell with a blank (`raise NotImplementedError`), a code cell with a
check (decorated with `@exercise`), and, in the next text cell, two foldable blocks with a code block each.
"""

import re
from typing import NamedTuple

FOLD = r"<details><summary>{}</summary>\n\n(?:(?!</details>).)*?```python\n(.*?)```"


class Exercise(NamedTuple):
    title: str      # of its heading
    name: str       # the function or class to write
    check: str      # the function that checks it
    blank: str      # source of the blank
    mistake: str    # source of the tempting mistake
    solution: str   # source of the solution
    hints: int      # how many hints unfold


def find(notebook):
    "List the exercises of a notebook, in order."
    cells, found, title, hints, blank = notebook.cells, [], "", 0, ""
    for index, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            for heading in re.finditer(r"^### (\d+ · .*)$", cell.source, re.MULTILINE):
                title, hints = heading.group(1), cell.source[heading.end():].count("<summary>Hint")
        elif "raise NotImplementedError" in cell.source and "def check_" not in cell.source:
            blank = cell.source
        elif check := re.search(r"^@exercise\ndef (check_\w+)\((\w+)\)", cell.source, re.MULTILINE):
            after = cells[index + 1].source if index + 1 < len(cells) else ""
            if title:
                found.append(Exercise(title, check.group(2), check.group(1), blank, fold("A tempting mistake", after),
                                      fold("Solution", after), hints))
    return found


def fold(summary, text):
    "Give the code block in the foldable part of `text` with this summary; empty, if there is none."
    match = re.search(FOLD.format(summary), text, re.DOTALL)
    return match.group(1) if match else ""
