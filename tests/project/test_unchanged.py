"""What passed on this very tree is left out, what failed or was skipped is not; a changed byte brings all back."""

import pytest

from tests import kept, unchanged

TESTS = """
import pytest

def test_passes(): pass
def test_fails(): assert False
def test_is_skipped(): pytest.skip("not here")

@pytest.fixture
def falls_at_the_end():
    yield
    raise ValueError

def test_whose_end_fails(falls_at_the_end): pass
"""


@pytest.fixture
def run(pytester, tmp_path):
    "Return `run(tree, *options)`: run the tests of a tree that is called so; return pytest's result."
    pytester.makepyfile(test_it=TESTS)

    def run(tree, *options):
        plugin = unchanged.Unchanged(tmp_path / "store", lambda: tree)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options, plugins=[plugin])

    return run


def left_out(result):
    "Return how many tests a run says that it left out."
    said = [line for line in result.outlines if "passed before on this very tree" in line]
    return int(said[0].split()[0]) if said else 0


def test_what_passed_is_left_out_and_nothing_else(run):
    for count in (0, 1, 1):
        result = run("a tree")
        result.assert_outcomes(passed=2 - count, failed=1, skipped=1, errors=1, deselected=count)
        assert left_out(result) == count


def test_another_tree_brings_all_back_and_forgets_the_first(run):
    for tree, count in (("first", 0), ("second", 0), ("second", 1), ("first", 0)):
        assert left_out(run(tree)) == count


def test_one_test_always_runs(run):
    for count in (0, 0):
        result = run("a tree", "-k", "passes")
        result.assert_outcomes(passed=1, deselected=3)
        assert left_out(result) == count


def test_a_tree_that_is_not_known_keeps_nothing(run):
    assert [left_out(run(None)), left_out(run(None))] == [0, 0]


def test_a_file_that_changes_meanwhile_keeps_nothing(pytester, tmp_path):
    pytester.makepyfile(test_it=TESTS)
    for _ in range(2):
        trees = iter(["before", "after"])
        plugin = unchanged.Unchanged(tmp_path / "store", lambda trees=trees: next(trees))
        assert left_out(pytester.runpytest_inprocess("-p", "no:cacheprovider", plugins=[plugin])) == 0


def test_two_processes_write_down_what_each_has_run(pytester, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(unchanged.ROOT))
    store, copies = tmp_path / "store", "\n".join(f"def test_{number}(): pass" for number in range(8))
    pytester.makepyfile(test_it=copies)
    pytester.makeconftest(f"""
from pathlib import Path
from tests.unchanged import Unchanged

def pytest_configure(config):
    config.pluginmanager.register(Unchanged(Path({str(store)!r}), lambda: "a tree"), "unchanged")
""")
    for count in (0, 7):
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2")
        result.assert_outcomes(passed=8 - count)
        assert left_out(result) == count


def test_any_file_and_any_commit_is_a_part_of_the_tree(monkeypatch, tmp_path):
    monkeypatch.setattr(unchanged, "ROOT", tmp_path)
    assert unchanged.tree() is None  # no repository
    git = ("-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-m")
    unchanged.git("init", "-q")
    unchanged.git(*git, "first")
    seen = [unchanged.tree()]
    (tmp_path / "new.py").write_text("x = 1", encoding="utf-8")
    seen.append(unchanged.tree())
    (tmp_path / "new.py").write_text("x = 2", encoding="utf-8")
    seen.append(unchanged.tree())
    (tmp_path / ".gitignore").write_text("*.log", encoding="utf-8")
    seen.append(unchanged.tree())
    (tmp_path / "a.log").write_text("made by a tool", encoding="utf-8")
    assert unchanged.tree() == seen[-1]
    unchanged.git(*git, "second")
    seen.append(unchanged.tree())
    assert None not in seen and len(set(seen)) == len(seen)
    monkeypatch.setattr(kept, "facts", lambda: ["another processor"])
    assert unchanged.tree() not in seen
