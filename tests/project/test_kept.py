"""What is kept: any changed byte of any input gives another key; what is made once is made once, also when it fails."""

import multiprocessing
import os
import time

import pytest

from tests import kept
from tools.chapters import ROOT, chapter


def flipped(path):
    "Change one bit of a file's last byte, and keep its length; a file without a byte gets one."
    data = path.read_bytes() or b"\0"
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("inputs", [
    lambda root: kept.inputs_of(chapter("02", root), root), kept.inputs_of_package, kept.inputs_of_site,
], ids=["a chapter", "the package", "the site"])  # fmt: skip
def test_any_changed_byte_of_any_input_gives_another_key(inputs, copy_project, tmp_path):
    root = copy_project(tmp_path / "project", without=[".gz", "fonts/", "corpus", "tests/proofs"])
    for name in ("mnist", "fashion_mnist"):  # small files in place of the data: all bytes count alike
        (root / "exp" / "data" / name).mkdir(parents=True, exist_ok=True)
        (root / "exp" / "data" / name / "images.gz").write_bytes(b"pixels")
    before = kept.key("a proof", *inputs(root), root=root)
    assert kept.key("a proof", *inputs(root), root=root) == before != kept.key("another", *inputs(root), root=root)
    paths = [path for place in inputs(root) for path in kept.files_below(place)]
    assert len(paths) > 10
    for path in paths:
        data = path.read_bytes()
        flipped(path)
        assert kept.key("a proof", *inputs(root), root=root) != before, path
        path.write_bytes(data)
    assert kept.key("a proof", *inputs(root), root=root) == before


def test_the_inputs_of_a_chapter_are_those_that_it_reads():
    names = {path.relative_to(ROOT).as_posix() for path in kept.inputs_of(chapter("02"))}
    assert {"nbs/02_minibatch_training.ipynb", "exp/nb_02.py", "exp/nb_01.py", "exp/nb_00.py", "exp/data"} <= names
    assert {"tools", "tests/conftest.py", "tests/bugs/nb_02.py", "constraints.txt", "settings.ini"} <= names
    assert "exp/nb_03.py" not in names and "nbs/01_data.ipynb" not in names


@pytest.mark.parametrize("name, value", [
    ("browser_version", "Chromium 999"), ("processor", ["flags: avx512"]),
])  # fmt: skip
def test_another_browser_or_processor_gives_another_key(name, value, monkeypatch):
    kept.facts.cache_clear()
    before = kept.key("a proof")
    monkeypatch.setattr(kept, name, lambda: value)
    kept.facts.cache_clear()
    assert kept.key("a proof") != before
    kept.facts.cache_clear()


def test_another_version_of_any_package_gives_another_key(monkeypatch):
    class Other:
        metadata, version = {"Name": "torch"}, "9.9"

    kept.facts.cache_clear()
    before, found = kept.key("a proof"), list(kept.importlib.metadata.distributions())
    monkeypatch.setattr(kept.importlib.metadata, "distributions", lambda: [Other, *found[1:]])
    kept.facts.cache_clear()
    assert kept.key("a proof") != before
    kept.facts.cache_clear()


def make_slowly(folder):
    "Make something that takes a moment, and leave a trace of who did it."
    with open(folder.parent / "makers", "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.3)
    (folder / "result").write_text("made", encoding="utf-8")


def ask(folder):
    "Ask for the folder; return what is in it."
    return (kept.made(folder, make_slowly) / "result").read_text(encoding="utf-8")


def test_four_processes_ask_and_one_makes(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(ask, 4 * [tmp_path / "thing"]) == 4 * ["made"]
    assert len((tmp_path / "makers").read_text(encoding="utf-8").splitlines()) == 1


def test_what_fails_fails_for_all_and_is_tried_again_by_the_next_run(tmp_path, monkeypatch):
    calls = []

    def fail(folder):
        calls.append(folder)
        raise ValueError("no such luck")

    with pytest.raises(ValueError, match="no such luck"):
        kept.made(tmp_path / "thing", fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        kept.made(tmp_path / "thing", fail)
    assert len(calls) == 1
    monkeypatch.setattr(kept, "run_name", lambda: "the next run")
    assert kept.made(tmp_path / "thing", lambda folder: (folder / "x").touch()) == tmp_path / "thing"


def test_a_half_made_folder_is_made_anew(tmp_path):
    (tmp_path / "thing").mkdir()
    (tmp_path / "thing" / "half").touch()
    kept.made(tmp_path / "thing", lambda folder: (folder / "whole").touch())
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["whole"]


def test_old_keys_are_forgotten_but_for_those_at_work(tmp_path):
    for name in ("old", "busy", "new"):
        kept.made(tmp_path / name, lambda folder: None)
    with kept.FileLock(tmp_path / "busy.lock"):
        kept.forget_others(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"busy", "new"}
    assert not (tmp_path / "old.done").exists() and (tmp_path / "busy.done").exists()


def test_an_input_that_changes_meanwhile_keeps_nothing_for_later(tmp_path, monkeypatch):
    keys, calls = iter(["other", "thing", "thing"]), []

    def make(folder):
        calls.append(folder)

    kept.made(tmp_path / "thing", make, lambda: next(keys))
    kept.made(tmp_path / "thing", make, lambda: next(keys))  # this run goes on with it
    assert len(calls) == 1
    monkeypatch.setattr(kept, "run_name", lambda: "a later run")
    kept.made(tmp_path / "thing", make, lambda: next(keys))
    kept.made(tmp_path / "thing", make, lambda: next(keys))
    assert len(calls) == 2


@pytest.mark.parametrize("name, value", [("LC_ALL", "C"), ("ATEN_CPU_CAPABILITY", "default"), ("OMP_NUM_THREADS", "7")])
def test_another_locale_or_other_kernels_give_another_key(name, value, monkeypatch):
    kept.facts.cache_clear()
    before = kept.key("a proof")
    monkeypatch.setenv(name, value)
    kept.facts.cache_clear()
    assert kept.key("a proof") != before
    kept.facts.cache_clear()


def test_ci_keeps_nothing(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert not kept.keeps()
    monkeypatch.delenv("CI")
    assert kept.keeps()


PROOF = """
def test_it(proved):
    if not proved({given!r}):
        print("made " + "anew")
        assert {given!r} != "wrong"
"""


def test_a_proof_that_passed_is_not_made_again_until_an_input_changes(pytester, monkeypatch):
    monkeypatch.setattr(kept, "STORE", pytester.path / "store")
    monkeypatch.delenv("CI", raising=False)
    pytester.makeconftest("from tests.conftest import proved, pytest_runtest_makereport, pytest_terminal_summary")
    for given, made, failed in [("one", 1, 0), ("one", 0, 0), ("two", 1, 0), ("wrong", 1, 1), ("wrong", 1, 1)]:
        pytester.makepyfile(test_proof=PROOF.format(given=given))
        result = pytester.runpytest_inprocess("-s", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=1 - failed, failed=failed)
        said = result.stdout.str()
        assert said.count("made anew") == made
        assert ("1 proofs of an earlier run hold" in said) == (not made)
