"""An nbdev user's habits change nothing: export, clean, test and prepare leave the tree as it is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests import kept
from tools import run
from tools.chapters import ROOT, chapters
from tools.chapters import chapter as chapter_of
from tools.compare import differences

SCRIPTS = Path(sys.executable).parent


@pytest.fixture
def clone(copy_project, tmp_path):
    "Return a function that makes a repository of its own from the project's files, with some chapters or all."

    def clone(*numbers):
        others = [chapter for chapter in chapters() if numbers and chapter.number not in numbers]
        names = [f"nbs/{chapter.stem}" for chapter in others] + [f"exp/{chapter.module}" for chapter in others]
        root = copy_project(tmp_path / "clone", without=[*names, "exp/data/", "docs/", "tests/", "bench/"])
        if numbers:  # the map of the modules is shorter
            own = {**os.environ, "PYTHONPATH": str(root)}
            subprocess.run([sys.executable, "-m", "tools.export"], cwd=root, env=own, check=True)
        git(root, "init", "--quiet")
        git(root, "add", "--all")
        git(root, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "--message", "as it is")
        return root

    return clone


def git(root, *arguments):
    "Run git in a repository; return what it says."
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout


def nbdev(root, command):
    "Run a command of nbdev in a repository, as somebody would who has just installed the project there."
    own = {**os.environ, "PYTHONPATH": str(root), "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([command], cwd=root, env=own, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_export_and_clean_leave_the_tree_as_it_is(clone, proved):
    "The modules are emptied before: `nbdev-export` writes what `make export` wrote, passed-on names and all."
    if proved(ROOT / "nbs", ROOT / "exp", ROOT / ".gitignore"):
        return
    root = clone()
    for path in (root / "exp").glob("nb_*.py"):
        path.write_text("", encoding="utf-8")
    for command in ("nbdev-export", "nbdev-clean"):
        nbdev(root, command)
        assert git(root, "status", "--porcelain") == ""
    assert "'torch'" in (root / "exp" / "nb_04.py").read_text(encoding="utf-8")


def test_prepare_which_exports_tests_and_cleans_leaves_the_tree_as_it_is(clone, proved):
    "With the workbench alone: nbdev runs every notebook that it finds, as the other proofs do."
    if proved(*kept.inputs_of(chapter_of("00")), ROOT / ".gitignore"):
        return
    root = clone("00")
    nbdev(root, "nbdev-prepare")
    assert git(root, "status", "--porcelain") == ""


def test_cleaning_changes_no_byte_of_any_chapter(chapter, tmp_path):
    copy = shutil.copy(chapter.path, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [SCRIPTS / "nbdev-clean", "--fname", copy]
    subprocess.run(command, cwd=tmp_path, env=own, check=True, capture_output=True)
    assert Path(copy).read_bytes() == chapter.path.read_bytes(), "run `make outputs`"


def test_our_own_form_is_that_of_the_file(chapter, tmp_path):
    run.write(run.tidy(nbformat.read(chapter.path, as_version=4)), tmp_path / "again.ipynb")
    assert (tmp_path / "again.ipynb").read_bytes() == chapter.path.read_bytes(), "run `make outputs`"
    assert differences(nbformat.read(tmp_path / "again.ipynb", as_version=4), chapter.notebook, chapter.stem) == []


def test_the_checkouts_tools_are_installed_with_it_and_stay_out_of_the_wheel(wheel):
    import zipfile

    assert not any(name.startswith("tools") for name in zipfile.ZipFile(wheel).namelist())
    said = [sys.executable, "-I", "-c", "import tools.export"]
    done = subprocess.run(said, cwd=kept.ROOT.parent, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
