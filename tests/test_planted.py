"""Planted bugs: each is a small patch of a chapter's live code, and one of the chapter's own checks must catch it."""

import json

import notebooks
import planted
import pytest

each_chapter = pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
STORED = json.loads(planted.FOUND.read_text(encoding="utf-8"))


@each_chapter
def test_every_planted_bug_is_caught_by_a_check_of_the_chapter(path, record_property):
    found = planted.find(path)
    assert [row for row in found if not planted.caught(row)] == []
    assert planted.stable(found) == STORED[path.stem], "run `make bugs`"
    record_property("bugs caught", len(found))


@each_chapter
def test_every_chapter_has_bugs_to_catch(path):
    names = [bug.name for bug in planted.table(path)]
    assert len(set(names)) == len(names) >= 12


def test_what_nothing_notices_is_called_uncaught():
    harmless = planted.Bug("a remark is left out", "    # `ds` takes slices and lists of indices", "    # ")
    crash = planted.Bug("a method that does not exist", "optim.step()", "optim.leap()", "def fit_slices")
    path = next(path for path in notebooks.chapters() if path.name.startswith("02"))
    assert [row["by"] for row in planted.find(path, [harmless, crash])] == ["nothing", "a crash"]


def test_a_patch_must_fit_the_code():
    with pytest.raises(ValueError, match="occurs 0 times"):
        planted.locate(["x = 1"], planted.Bug("typo", "y = 1", "y = 2"))
    with pytest.raises(ValueError, match="occurs 2 times"):
        planted.locate(["x = 1", "x = 1"], planted.Bug("twice", "x = 1", "x = 2"))
