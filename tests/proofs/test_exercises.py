"""The exercises: blank and tempting mistakes fail, each with its hint, the solution passes; none stops *Run All*."""

import ast
import re

import pytest

from tests.conftest import CHAPTERS

ALL = [(chapter, exercise) for chapter in CHAPTERS for exercise in chapter.exercises]
each_exercise = pytest.mark.parametrize("chapter, exercise", ALL, ids=[f"{c.number}-{e.title}" for c, e in ALL])


def said_of_blank(notebook, exercise):
    "Return what the check of an untouched exercise shows in the notebook."
    cell = next(c for c in notebook.cells if c.cell_type == "code" and f"def {exercise.check}(" in c.source)
    return cell.outputs[-1].data["text/plain"]


@each_exercise
def test_the_blank_fails_and_says_so(chapter, exercise, executed):
    fresh, _ = executed(chapter)
    assert said_of_blank(fresh, exercise).startswith(f"○ {exercise.name}: not solved yet")


@each_exercise
def test_each_tempting_mistake_fails_with_a_message(chapter, exercise, executed):
    said = executed(chapter)[1]
    for number in range(1, len(exercise.mistakes) + 1):
        words = said[exercise.title, f"mistake {number}"]
        assert words.startswith(f"False ✗ {exercise.name}: ") and len(words) > 60, words
        assert "it raised" not in words, words


@each_exercise
def test_each_tempting_mistake_has_a_hint_of_its_own(chapter, exercise, executed):
    said = executed(chapter)[1]
    hints = [said[exercise.title, f"mistake {number}"] for number in range(1, len(exercise.mistakes) + 1)]
    assert len({*hints}) == len(hints), hints


@each_exercise
def test_the_solution_passes(chapter, exercise, executed):
    assert executed(chapter)[1][exercise.title, "solution"] == f"True ✓ {exercise.name}: solved\n"


@each_exercise
def test_it_is_whole(chapter, exercise):
    assert exercise.hints >= 2 and len(exercise.mistakes) >= 2 and exercise.solution
    answers = [exercise.blank, *exercise.mistakes, exercise.solution]
    assert len({ast.dump(ast.parse(source)) for source in answers}) == len(answers)


def code_lines(source):
    "List the lines of code of a text, bare, without signatures, docstrings and imports."
    tree = ast.parse(source)
    plain = ast.unparse(tree).splitlines()
    return [line.strip() for line in plain if not re.match(r'\s*(def |class |import |from |"|\'|@)', line)]


@each_exercise
def test_the_solution_is_no_copy_of_the_chapters_code(chapter, exercise):
    "At least half of the lines that it adds to the blank are nowhere else in the chapter."
    others = {line for cell in chapter.code_cells for line in code_lines(cell.source)}
    lines = [line for line in code_lines(exercise.solution) if line not in code_lines(exercise.blank)]
    new = [line for line in lines if line not in others]
    assert len(new) >= max(1, len(lines) / 2), f"taken from the chapter: {[line for line in lines if line in others]}"


def test_none_is_passed_over(chapter):
    "What looks like a part of an exercise is one: none has a form that the reader of the chapters does not know."
    texts = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")
    sources = [cell.source for cell in chapter.code_cells]
    checks = sum(len(re.findall(r"^@exercise\ndef check_", source, re.MULTILINE)) for source in sources)
    headings = len(re.findall(r"^### \d+ · ", texts, re.MULTILINE))
    assert headings == len(chapter.exercises) <= checks  # the workbench shows a check that is none of an exercise
    assert texts.count("<summary>A tempting mistake") == sum(len(e.mistakes) for e in chapter.exercises)
    assert texts.count("<summary>Solution") == len(chapter.exercises)


def test_the_chapters_have_enough_of_them():
    counts = {chapter.number: len(chapter.exercises) for chapter in CHAPTERS}
    assert all(count >= 5 for count in counts.values()) and counts["02"] >= 6
