"""A new chapter is a notebook, a table of bugs, a test module and a row in the README.

A tiny one is added to a copy of the project, of which only the first chapters are taken (they are enough): the export,
the site, the reference, the cards, the tables and the tests find it without any other edit.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from bs4 import BeautifulSoup

from tests import kept
from tests.conftest import CHAPTERS, build_site

HEAD = """# 16 · A tiny chapter

> A loop of two lines becomes one of one line.

**You will** see a chapter grow.

**You need** chapter 02.

**Takes** 2 minutes to read, 3 seconds to run."""
CODE = [
    "#| default_exp nb_16",
    "#| export\nfrom exp.nb_02 import *",
    '''#| export
def accuracy(
    scores: torch.Tensor,   # a number for each answer, [n]
) -> float:                 # a number from 0 to 1
    "Return the share of scores above 0."
    return (scores > 0).float().mean().item()''',
    "assert accuracy(torch.tensor([1.0, -1.0])) == 0.5",
    '''def loop(history):
    for loss in (0.3, 0.2):
        history.add(loss, 0.5, 8)
    return history''',
    '''def shorter(history):
    history.add(0.3, 0.5, 8); history.add(0.2, 0.5, 8)    # noqa: E702
    return history''',
    "show_diff(loop, shorter)",
    'old, new = loop(History("in two lines")), shorter(History("in one line"))',
    "verdict = same(new, old)\nverdict",
    "ledger([(loop, old, None), (shorter, new, verdict)])",
    'old.plot()',
    "def idea(words):\n    return Picture(canvas(height=1)[0], f'An empty picture that stands for {words}.')",
    *(f"idea('the {word} idea')" for word in ("first", "second", "third", "fourth")),
]
BUGS = '''"""The tiny chapter."""

from tools.bugs import Bug

BUGS = [Bug(f"the bound is {bound}", "(scores > 0)", f"(scores > {bound})") for bound in range(1, 13)]
BUGS += [Bug("another loss", "history.add(0.3, 0.5, 8); history", "history.add(0.4, 0.5, 8); history")]
'''
TEST = '''"""The tiny chapter."""

from exp.nb_16 import *


def test_accuracy():
    assert accuracy(torch.tensor([1.0])) == 1.0
'''


TAKEN = ("00_workbench", "01_data", "02_minibatch_training")


def write(path, text):
    "Write a file."
    path.write_text(text, encoding="utf-8")


# What the commands of the Makefile do, in one process.
MAKE = """
from tools import bugs, chapters, export, outputs
export.main()
outputs.refresh(chapters.chapter("16"))
bugs.refresh(chapters.chapter("16"))
"""
PROVE = """
import sys, pytest
asked, those = ["--chapter", "16", "-q", "-p", "no:cacheprovider"], ["tests/chapters", "tests/proofs/test_form.py"]
sys.exit(pytest.main([*asked, "--collect-only"]) or pytest.main([*asked, *those]))
"""


def python(root, code):
    "Run code in the copy; return what it prints."
    own = {**os.environ, "PYTHONPATH": str(root), "CI": "true"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, env=own, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def grown(once, copy_project):
    "Add the chapter to a copy, and a repository to its settings; return (folder, its site, what pytest finds)."

    def make(folder):
        others = [name for chapter in CHAPTERS if chapter.stem not in TAKEN for name in (chapter.stem, chapter.module)]
        page = ["docs/writing", "docs/_ext/writing.py", "docs/_static/writing", "test_writing"]  # that of chapter 15,
        page += ["records/writing", "tools/data.py"]  # and what else imports it
        root = copy_project(folder / "project", without=["exp/data/", ".png", *page, *others])
        for path in (root / "nbs").glob("*.ipynb"):  # links to the others lead to chapter 01
            text, there = path.read_text(encoding="utf-8"), "|".join(TAKEN)
            write(path, re.sub(rf"\]\((?!{there})\d\d_\w+\.ipynb", "](01_data.ipynb", text))
        for name in ("docs/_static/loops.png", "bench/chart.png"):
            (root / name).write_bytes((kept.ROOT / name).read_bytes())
        for data in ("exp/data/mnist", "exp/data/exam"):  # the page that trains packs images, and a trained net
            shutil.copytree(kept.ROOT / data, root / data)
        made = [nbformat.v4.new_markdown_cell(HEAD), *map(nbformat.v4.new_code_cell, CODE)]
        made.append(nbformat.v4.new_markdown_cell("`accuracy` is ours, `normalize` is chapter 02's."))
        nbformat.write(nbformat.v4.new_notebook(cells=made), root / "nbs" / "16_tiny.ipynb")
        write(root / "tests" / "bugs" / "nb_16.py", BUGS)
        write(root / "tests" / "chapters" / "test_nb_16.py", TEST)
        readme = (root / "README.md").read_text(encoding="utf-8")
        row = "| 16 | [A tiny chapter](nbs/16_tiny.ipynb) | see a chapter grow | 2 min | 3 s |"
        write(root / "README.md", readme.replace("\n| 00 |", f"\n{row}\n| 00 |"))
        settings = (root / "settings.ini").read_text(encoding="utf-8")
        write(root / "settings.ini", settings.replace("repository =", "repository = https://github.com/some/body"))
        python(root, MAKE)
        build_site(root, folder)
        write(folder / "collected.txt", python(root, PROVE))

    inputs = [*kept.inputs_of_site(), kept.ROOT / "tests"]
    folder = once("grown", make, inputs)
    return folder / "project", folder / "html", (folder / "collected.txt").read_text(encoding="utf-8")


@pytest.fixture
def page(grown):
    "Return a function: name of a page → its parsed HTML."
    return lambda name: BeautifulSoup((grown[1] / name).read_text(encoding="utf-8"), "html.parser")


def test_the_module_passes_on_what_it_stands_on(grown):
    names = re.search(r"__all__ = \[(.*?)\]", (grown[0] / "exp" / "nb_16.py").read_text(encoding="utf-8"), re.DOTALL)
    listed = re.findall(r"'(\w+)'", names[1])
    assert listed[0] == "accuracy" and listed.count("accuracy") == 1 and {"torch", "fit", "same"} <= set(listed)


def test_cards_contents_and_reference_have_it(page):
    home = page("index.html")
    assert "A loop of two lines becomes one of one line." in home.get_text()
    order = [link["href"] for link in home.select("nav.bd-links a[href^='chapters/']")]
    assert order[-2:] == ["chapters/16_tiny.html", "chapters/00_workbench.html"]
    assert "a number for each answer" in page("reference/nb_16.html").get_text()


def test_the_tables_have_it(page):
    assert "16 · A tiny chapter" in [h.get_text().rstrip("#") for h in page("bugs.html").select("h2")]
    loops = page("loops/16_tiny.html")
    steps = [section.h2.get_text().rstrip("#") for section in loops.select(".loop-version")]
    assert steps == ["1. in two lines", "2. in one line"] and "identical: 2 of 2" in loops.get_text()
    assert loops.select("del") and loops.select("ins") and "def shorter" in loops.get_text()


def test_every_kind_of_proof_finds_it(grown):
    files = {line.partition("::")[0] for line in grown[2].splitlines() if "::" in line}
    kinds = {"outputs", "form", "bugs", "lab", "pages"}
    assert {f"tests/proofs/test_{kind}.py" for kind in kinds} | {"tests/chapters/test_nb_16.py"} <= files
    for name in ("chapters/16_tiny", "reference/nb_16", "loops/16_tiny"):
        assert f"test_a_page_is_sound_on_every_screen[{name}]" in grown[2]
    assert "test_exported_modules_are_in_step" in grown[2] and "02_minibatch_training" not in grown[2]


def test_a_name_leads_to_the_version_that_the_chapter_means(page):
    def links(name):
        return {tag["href"].partition("#")[2] for tag in page(name).select("main a[href*='reference/']")}

    assert {"exp.nb_16.accuracy", "exp.nb_02.normalize"} <= links("chapters/16_tiny.html")
    assert "exp.nb_02.accuracy" in links("chapters/02_minibatch_training.html")
    assert "exp.nb_16.accuracy" not in links("chapters/02_minibatch_training.html")


def test_a_repository_shows_only_when_settings_name_one(page, site):
    theirs = "header a[href*=github], .sidebar-primary-item a[href*=github], a[href*=colab]"
    ours = BeautifulSoup((site / "chapters" / "01_data.html").read_text(encoding="utf-8"), "html.parser")
    other = page("chapters/01_data.html")
    assert not ours.select(theirs) and other.select(theirs)
    colab = re.search(r"colab\.research\.google\.com/github/some/body/blob/\w+/([^\"]+)", str(other))
    assert colab and colab[1] == "nbs/01_data.ipynb"
    for link in ("https://github.com/some/body", "https://github.com/some/body/issues"):
        assert link in str(other)


def test_its_result_lies_beside_its_table(grown):
    found = json.loads((grown[0] / "tests" / "bugs" / "nb_16.json").read_text(encoding="utf-8"))
    assert len(found) == 13 and all(set(row) == {"by", "section", "check"} for row in found.values())
