"""Every code cell may be run twice in a row, as readers do: none changes what it reads.

The cells of a chapter run as they do for the planted bugs: in one process without a kernel, warnings as errors.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import kept
from tools import bugs
from tools.chapters import ROOT, Chapter


def run_twice(sources):
    "Run each cell twice before the next one; list (number of the cell, first or second run, error)."
    shell, found = bugs.start_shell(), []
    for number, source in enumerate(sources, 1):
        for run in ("first", "second"):
            if raised := bugs.run_from(shell, [source], 0):
                found.append((number, run, f"{type(raised[1]).__name__}: {raised[1]}"[:300]))
    return found


def work(path, result, folder):
    "Do what `raised` asks for, in the process that it has started."
    os.chdir(folder)
    sources = [cell.source for cell in Chapter(path).code_cells]
    Path(result).write_text(json.dumps(run_twice(sources)), encoding="utf-8")


def raised(path):
    "Run each cell of a notebook twice, in a new process and an empty folder; list what was raised."
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as own:
        command = [sys.executable, "-m", "tests.proofs.test_twice", str(path), f"{own}/found.json", empty]
        env = {**os.environ, **quiet, "IPYTHONDIR": f"{own}/ipython"}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr or done.stdout
        return json.loads(Path(own, "found.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def found(once):
    "Return a function: chapter → what its cells raise when each is run twice."

    def make(chapter, folder):
        (folder / "found.json").write_text(json.dumps(raised(chapter.path)), encoding="utf-8")

    def found(chapter):
        inputs = [*kept.inputs_of(chapter), Path(__file__)]
        folder = once(f"twice-{chapter.number}", lambda folder: make(chapter, folder), inputs)
        return json.loads((folder / "found.json").read_text(encoding="utf-8"))

    return found


def test_every_cell_may_be_run_twice_in_a_row(chapter, found):
    first_lines = [cell.source.partition("\n")[0] for cell in chapter.code_cells]
    words = [f"cell {n} ({first_lines[n - 1]!r}), {run} run: {error}" for n, run, error in found(chapter)]
    if words:
        pytest.fail("\n".join(words), pytrace=False)


def test_a_cell_that_changes_what_it_reads_is_named(tmp_path):
    cells = ["x = [3, 4]", "y = x.pop(0)\nassert y == 3", "x = [3, 4]", "import os\nos.rmdir(os.mkdir('new') or 'new')"]
    code = [{"cell_type": "code", "id": f"c{i}", "execution_count": None, "metadata": {}, "outputs": [], "source": cell}
            for i, cell in enumerate(cells)]  # fmt: skip
    notebook = {"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "odd.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    assert raised(tmp_path / "odd.ipynb") == [[2, "second", "AssertionError: "]]


if __name__ == "__main__":
    work(*sys.argv[1:])
