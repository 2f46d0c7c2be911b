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
from tools.compare import differences

SMALL = ["00_workbench", "01_data"]  # chapters enough to see what nbdev does, and quick to run
SCRIPTS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def clone(copy_project, tmp_path_factory):
    "Make a repository of its own from the project's files, with the small chapters only."
    others = [f"nbs/{chapter.stem}" for chapter in chapters() if chapter.stem not in SMALL]
    others += [f"exp/{chapter.module}" for chapter in chapters() if chapter.stem not in SMALL]
    root = copy_project(tmp_path_factory.mktemp("nbdev") / "clone", without=[*others, "docs/", "tests/", "bench/"])
    own = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-m", "tools.export"], cwd=root, env=own, check=True)  # the map is shorter here
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "-c", "user.name=x", "-c", "user.email=x", "commit", "--quiet", "--message", "as it is")
    return root


def git(root, *arguments):
    "Run git in a repository; return what it says."
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout


def nbdev(root, command):
    "Run a command of nbdev in a repository, as somebody would who has just installed the project there."
    own = {**os.environ, "PYTHONPATH": str(root), "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([command], cwd=root, env=own, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["nbdev-export", "nbdev-clean", "nbdev-prepare"])  # which also runs nbdev-test
def test_a_command_leaves_the_tree_clean(clone, command, proved):
    if proved(ROOT / "nbs", ROOT / "exp", ROOT / ".gitignore"):
        return
    nbdev(clone, command)
    assert git(clone, "status", "--porcelain") == ""


def test_export_through_nbdev_is_ours(clone, proved):
    if proved(ROOT / "nbs", ROOT / "exp"):
        return
    for path in (clone / "exp").glob("nb_*.py"):
        path.write_text("", encoding="utf-8")
    nbdev(clone, "nbdev-export")
    for path in (clone / "exp").glob("nb_*.py"):
        assert path.read_text(encoding="utf-8") == (ROOT / "exp" / path.name).read_text(encoding="utf-8")
    assert "'torch'" in (clone / "exp" / "nb_01.py").read_text(encoding="utf-8")  # it is passed on


def test_cleaning_changes_no_byte_of_any_chapter(chapter, tmp_path):
    copy = shutil.copy(chapter.path, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [SCRIPTS / "nbdev-clean", "--fname", copy]
    subprocess.run(command, cwd=tmp_path, env=own, check=True, capture_output=True)
    assert Path(copy).read_bytes() == chapter.path.read_bytes()


def test_our_own_form_is_that_of_the_file(chapter, tmp_path):
    run.write(chapter.notebook, tmp_path / "again.ipynb")
    assert (tmp_path / "again.ipynb").read_bytes() == chapter.path.read_bytes()
    assert differences(nbformat.read(tmp_path / "again.ipynb", as_version=4), chapter.notebook, chapter.stem) == []


def test_the_checkouts_tools_are_installed_with_it_and_stay_out_of_the_wheel(wheel):
    import zipfile

    assert not any(name.startswith("tools") for name in zipfile.ZipFile(wheel).namelist())
    said = [sys.executable, "-I", "-c", "import tools.export"]
    done = subprocess.run(said, cwd=kept.ROOT.parent, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
