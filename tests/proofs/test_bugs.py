"""Planted bugs: each is a small patch of a chapter's live code, and one of the chapter's own checks must catch it."""

import pytest

from tools import bugs
from tools.chapters import chapter as chapter_of


def test_every_planted_bug_is_caught_by_a_check_of_the_chapter(chapter, planted, record_property):
    found = planted(chapter)
    assert [row for row in found if not bugs.caught(row)] == []
    assert bugs.stable(found) == bugs.stored(chapter), "run `make bugs`"
    record_property("bugs caught", len(found))


def test_every_chapter_has_bugs_to_catch(chapter):
    names = [bug.name for bug in bugs.table(chapter)]
    assert len(set(names)) == len(names) >= 12


def test_what_nothing_notices_is_called_uncaught():
    harmless = bugs.Bug("a remark", "    torch.manual_seed(seed)", "    torch.manual_seed(seed)  # PyTorch too")
    crash = bugs.Bug("a method that does not exist", "    torch.manual_seed(seed)", "    torch.manual_leap(seed)")
    assert [row["by"] for row in bugs.find(chapter_of("00"), [harmless, crash])] == ["nothing", "a crash"]


def test_a_patch_must_fit_the_code():
    with pytest.raises(ValueError, match="occurs 0 times"):
        bugs.locate(["x = 1"], bugs.Bug("typo", "y = 1", "y = 2"))
    with pytest.raises(ValueError, match="occurs 2 times"):
        bugs.locate(["x = 1", "x = 1"], bugs.Bug("twice", "x = 1", "x = 2"))
