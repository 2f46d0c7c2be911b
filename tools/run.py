"""Run a notebook in a clean kernel, and store it in the one form that we store notebooks in.

The form is the one in which `nbdev-clean` leaves a notebook, so that an nbdev user's habits change nothing: no
execution counts, no metadata but what pyproject.toml allows. Instead of a count, the notebook's metadata hold under
`ran` a digest of each code cell as it was when it ran: a cell that was edited, added or never run does not match.
"""

import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools.chapters import code_cells
from tools.compare import TIMING, digest

ANSI = re.compile(r"\x1b\[[0-9;]*m")
METADATA = {
    "kernelspec": {"display_name": "python3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def run(path, epilogue=(), package=None):
    """Execute a copy of the notebook at `path`, in order, in a new kernel and an empty folder; return it tidy.

    Each string of `epilogue` is run as a further cell after the last; with it, return also the list of what they print.
    With a folder `package`, modules that lie there are imported before those of the environment.
    """
    notebook, after = blank(path), [code_cell(code) for code in epilogue]
    execute(with_cells(notebook, [*notebook.cells, *after]), Path(path).name, package)
    return (tidy(notebook), list(map(printed, after))) if epilogue else tidy(notebook)


def blank(path):
    "Return the notebook at `path` without outputs."
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    return notebook


def code_cell(source, **metadata):
    "Return a new code cell."
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def with_cells(notebook, cells):
    "Return a notebook like the one given, of these cells: not copies, so that they get the outputs."
    other = nbformat.v4.new_notebook(metadata=notebook.metadata)
    other.cells = cells
    return other


def execute(notebook, name, package=None, environment=()):
    "Run the cells of a notebook in a new kernel and an empty folder. Raise `RuntimeError`, with `name`, if one raises."
    own = {"PYTHONPATH": str(package)} if package else {}
    options = {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"]}
    with tempfile.TemporaryDirectory() as empty:
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": empty}}, **options)
        try:
            client.execute(env={**os.environ, **dict(environment), **own})
        except CellExecutionError as error:
            raise RuntimeError(f"{name}: {ANSI.sub('', str(error))}") from None


def printed(cell):
    "Return what a cell has printed."
    return "".join(output.get("text", "") for output in cell.outputs)


def tidy(notebook):
    "Drop what belongs to one run only: counts, timings, metadata that tools leave behind, Python's version."
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.metadata.ran = {cell.id: digest(cell.source) for cell in code_cells(notebook)}
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(lasting(cell))
    for cell in code_cells(notebook):
        cell.execution_count, cell.outputs = None, join_streams(cell.outputs)
        for output in cell.outputs:
            tidy_output(output)
    return notebook


def lasting(cell):
    "Return the metadata that a cell keeps: its tags; and that JupyterLab folds its source, where it says so itself."
    folded = cell.cell_type == "code" and re.search(r"^#\| code-fold: true$", cell.source, re.MULTILINE)
    tags = {"tags": cell.metadata.tags} if "tags" in cell.metadata else {}
    return tags | ({"jupyter": {"source_hidden": True}} if folded else {})


def tidy_output(output):
    "Drop what belongs to one run only from an output."
    if "execution_count" in output:
        output.execution_count = None
    if "text" in output:
        output.text = TIMING.sub(r"\1…", output.text)
    for mime in output.get("data", {}):
        if mime.startswith("text/"):
            output.data[mime] = TIMING.sub(r"\1…", output.data[mime])
        elif mime.startswith("image/"):
            output.data[mime] = output.data[mime].rstrip()
    if "metadata" in output:
        output.metadata = nbformat.from_dict({k: v for k, v in output.metadata.items() if k == "image/png"})


def join_streams(outputs):
    "Join pieces of one stream that follow each other: how they were cut is an accident of timing."
    joined = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def write(notebook, path):
    "Store a notebook the one way in which we store notebooks, so that differences show changes only."
    nbformat.validate(notebook)
    Path(path).write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
