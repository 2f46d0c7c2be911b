"""The exercises: the blank fails, the tempting mistake fails, the solution passes; nothing stops *Run All*."""

import ast
import re

import exercises
import notebooks
import pytest

ALL = [(path, exercise) for path in notebooks.chapters() for exercise in exercises.find(notebooks.read(path))]
each_exercise = pytest.mark.parametrize("path, exercise", ALL, ids=[f"{p.name[:2]}-{e.title}" for p, e in ALL])


def said_of_blank(notebook, exercise):
    "Give what the check of an untouched exercise shows in the notebook."
    cell = next(c for c in notebooks.code_cells(notebook) if f"def {exercise.check}(" in c.source)
    return cell.outputs[-1].data["text/plain"]


@each_exercise
def test_the_blank_fails_and_says_so(path, exercise, executed):
    fresh, _ = executed(path)
    assert said_of_blank(fresh, exercise).startswith(f"○ {exercise.name}: not solved yet")


@each_exercise
def test_the_tempting_mistake_fails_with_a_message(path, exercise, executed):
    said = executed(path)[1][exercise.title, "mistake"]
    assert said.startswith(f"False ✗ {exercise.name}: ") and len(said) > 60, said
    assert "it raised" not in said, said


@each_exercise
def test_the_solution_passes(path, exercise, executed):
    said = executed(path)[1][exercise.title, "solution"]
    assert said == f"True ✓ {exercise.name}: solved\n"


@each_exercise
def test_it_is_whole(path, exercise):
    assert exercise.hints >= 2
    assert len({ast.dump(ast.parse(s)) for s in (exercise.blank, exercise.mistake, exercise.solution)}) == 3


def code_lines(source):
    "List the lines of code of a text, bare, without signatures, docstrings and imports."
    tree = ast.parse(source)
    plain = ast.unparse(tree).splitlines()
    return [line.strip() for line in plain if not re.match(r'\s*(def |class |import |from |"|\'|@)', line)]


@each_exercise
def test_the_solution_is_no_copy_of_the_chapters_code(path, exercise):
    "At least half of the lines that it adds to the blank are nowhere else in the chapter."
    others = {line for cell in notebooks.code_cells(notebooks.read(path)) for line in code_lines(cell.source)}
    lines = [line for line in code_lines(exercise.solution) if line not in code_lines(exercise.blank)]
    new = [line for line in lines if line not in others]
    assert len(new) >= max(1, len(lines) / 2), f"taken from the chapter: {[line for line in lines if line in others]}"


def test_the_chapters_have_enough_of_them():
    counts = {path.name[:2]: sum(p == path for p, _ in ALL) for path in notebooks.chapters()}
    assert all(count >= 5 for count in counts.values()) and counts["02"] >= 6
