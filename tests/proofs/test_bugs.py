"""Planted bugs: each is a small patch of a chapter's live code, and one of the chapter's own checks must catch it.

Without a bug, every cell may be run twice in a row, as readers do: none changes what it reads.
"""

import nbformat
import pytest

from tools import bugs
from tools.chapters import Chapter


def test_every_planted_bug_is_caught_by_a_check_of_the_chapter(chapter, planted, record_property):
    found, _ = planted(chapter)
    assert [row for row in found if not bugs.caught(row)] == []
    assert bugs.stable(found) == bugs.stored(chapter), "run `make bugs`"
    record_property("bugs caught", len(found))


def test_every_cell_may_be_run_twice_in_a_row(chapter, planted):
    first_lines = [cell.source.partition("\n")[0] for cell in chapter.code_cells]
    _, again = planted(chapter)
    words = [f"cell {n} ({first_lines[n - 1]!r}): {error}" for n, error in again]
    assert words == []


def test_every_chapter_has_bugs_to_catch(chapter):
    names = [bug.name for bug in bugs.table(chapter)]
    assert len(set(names)) == len(names) >= 12


def small_chapter(folder, *cells):
    "Write a notebook with these code cells; return it as a chapter."
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, folder / "00_small.ipynb")
    return Chapter(folder / "00_small.ipynb")


def test_what_nothing_notices_is_called_uncaught(tmp_path):
    chapter = small_chapter(tmp_path, "import math\n\ndef double(x):\n    return 2 * x", "assert double(3) == 6")
    planted = [
        bugs.Bug("a remark", "    return 2 * x", "    return 2 * x  # twice"),
        bugs.Bug("a function that does not exist", "    return 2 * x", "    return math.double(x)"),
        bugs.Bug("three times", "    return 2 * x", "    return 3 * x"),
        bugs.Bug("a check that is gone", "assert double(3) == 6", "double(3)"),
    ]
    found = bugs.find(chapter, planted)
    assert [row["by"] for row in found.caught] == ["nothing", "a crash", "an assertion", "nothing"]
    assert found.again == []


def test_a_cell_that_changes_what_it_reads_is_named(tmp_path):
    cells = ["x = [3, 4]", "y = x.pop(0)\nassert y == 3", "x = [3, 4]", "import os\nos.rmdir(os.mkdir('new') or 'new')"]
    assert bugs.find(small_chapter(tmp_path, *cells), []).again == [[2, "AssertionError: "]]


def test_a_warning_stops_a_chapter_the_first_time_and_the_second(tmp_path):
    warns = "import warnings\nwarnings.warn('careful')"
    with pytest.raises(RuntimeError, match=r"(?s)00_small\.ipynb: .*UserWarning: careful"):
        bugs.find(small_chapter(tmp_path, warns), [])
    cells = ["import warnings\nseen = []", "seen and warnings.warn('again'); seen.append(1)", "seen"]
    found = bugs.find(small_chapter(tmp_path, *cells), [], ["warnings.warn('later'); print('no error')"])
    assert found.again == [[2, "UserWarning: again"]] and "no error" in found.said[0]  # in the answers to exercises
    assert found.notebook.cells[2].outputs[0].data["text/plain"] == "[1]"  # the second time has raised


def test_a_bug_that_kills_or_prints_disturbs_nobody(tmp_path):
    cells = ["import os\n\ndef half(x):\n    return x / 2", "print(half(3))\nassert half(3) == 1.5"]
    planted = [bugs.Bug("it ends the process", "    return x / 2", "    os._exit(0)"),
               bugs.Bug("it prints", "    return x / 2", "    print('lost')\n    return x / 4")]  # fmt: skip
    found = bugs.find(small_chapter(tmp_path, *cells), planted, ["print(half(8))"])
    assert [row["by"] for row in found.caught] == ["a crash", "an assertion"] and found.said == ["4.0\n"]
    assert [output.text for output in found.notebook.cells[1].outputs] == ["1.5\n"]


def test_a_chapter_with_a_bug_may_start_processes(tmp_path):
    cells = ["import math, multiprocessing\n\nnumbers = [4.0, 9.0]",
             "def roots():\n    with multiprocessing.get_context('forkserver').Pool(1) as pool:\n"
             "        return pool.map(math.sqrt, numbers)",
             "assert roots() == [2.0, 3.0]", "assert numbers == [4.0, 9.0]",
             "assert roots() == [2.0, 3.0]"]  # fmt: skip
    planted = [bugs.Bug("another root", "assert numbers == [4.0, 9.0]", "numbers[1] = 16.0")]
    found = bugs.find(small_chapter(tmp_path, *cells), planted)
    assert [(row["by"], row["message"]) for row in found.caught] == [("an assertion", "")] and found.again == []


def test_a_patch_must_fit_the_code():
    with pytest.raises(ValueError, match="occurs 0 times"):
        bugs.locate(["x = 1"], bugs.Bug("typo", "y = 1", "y = 2"))
    with pytest.raises(ValueError, match="occurs 2 times"):
        bugs.locate(["x = 1", "x = 1"], bugs.Bug("twice", "x = 1", "x = 2"))
