"""Run a notebook in a clean kernel, and compare its outputs with the stored ones.

Two marks in an output say what may differ from machine to machine:

- `⏱ 12.3 ms`  a timing: stored as `⏱ … ms` and never compared;
- `≈2e-07`     a number that hangs on the last digit of a float: its presence is compared, not its value.

All other numbers must agree to a relative tolerance of `RTOL`; everything else must agree to the letter.
"""

import base64
import re
import struct
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
RTOL = 2e-3
NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
TIMING = re.compile(rf"(⏱ *){NUMBER}")
LOOSE = re.compile(rf"≈ *{NUMBER}")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def chapters(root=ROOT):
    "List the notebooks of `nbs/`, in order."
    return sorted((root / "nbs").glob("[0-9]*.ipynb"))


def read(path):
    "Read a notebook as it is stored."
    return nbformat.read(path, as_version=4)


def run(path, epilogue=()):
    """Execute a copy of the notebook at `path`, in order, in a new kernel and an empty folder; give it back tidy.

    Each string of `epilogue` is run as a further cell after the last; with it, give also the list of what they print.
    """
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    notebook.cells += [nbformat.v4.new_code_cell(code) for code in epilogue]
    options = {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"]}
    with tempfile.TemporaryDirectory() as empty:
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": empty}}, **options)
        try:
            client.execute()
        except CellExecutionError as error:
            raise RuntimeError(f"{Path(path).name}: {ANSI.sub('', str(error))}") from None
    added = [notebook.cells.pop() for _ in epilogue][::-1]
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in added]
    return (tidy(notebook), said) if epilogue else tidy(notebook)


def tidy(notebook):
    "Drop what belongs to one run only: timings, cell metadata that tools leave behind, Python's version."
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if "tags" in cell.metadata else {})
    for cell in code_cells(notebook):
        cell.outputs = join_streams(cell.outputs)
        for output in cell.outputs:
            if "text" in output:
                output.text = TIMING.sub(r"\1…", output.text)
            for mime in [mime for mime in output.get("data", {}) if mime.startswith("text/")]:
                output.data[mime] = TIMING.sub(r"\1…", output.data[mime])
    return notebook


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


def code_cells(notebook):
    "List the code cells that hold code."
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def write(notebook, path):
    "Store a notebook the one way in which we store notebooks, so that differences show changes only."
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def agree(stored, fresh):
    "Tell whether two lines of text agree: words to the letter, numbers within `RTOL`, `≈` numbers by their presence."
    stored, fresh = (LOOSE.sub("≈#", TIMING.sub(r"\1…", line)) for line in (stored, fresh))
    if re.split(NUMBER, stored) != re.split(NUMBER, fresh):
        return False
    pairs = zip(re.findall(NUMBER, stored), re.findall(NUMBER, fresh))
    return all(a == b or close(a, b) for a, b in pairs)


def close(a, b):
    "Tell whether two written numbers agree: whole numbers exactly, others within `RTOL` or one unit of the last digit."
    if not re.search(r"[.e]", a + b):
        return False
    x, y = (float(number.replace(",", "")) for number in (a, b))
    unit = 10.0 ** -len(re.sub(r"e.*", "", a).partition(".")[2]) * float("1" + re.search(r"(e.*)?$", a).group())
    return abs(x - y) <= max(RTOL * abs(x), 1.01 * unit)


def describe(output):
    "Give what of an output is compared, as a list of lines."
    if output.output_type == "stream":
        return [f"{output.name}:", *output.text.splitlines()]
    if output.output_type == "error":
        return ["error:", f"{output.ename}: {output.evalue}"]
    lines = []
    for mime, content in sorted(output.data.items()):
        if mime == "image/png":
            width, height = struct.unpack(">II", base64.b64decode(content)[16:24])
            alt = output.metadata.get(mime, {}).get("alt", "no alternative text")
            lines += ["image/png:", f"{width} by {height} pixels", alt]
        else:
            lines += [f"{mime}:", *str(content).splitlines()]
    return lines


def differences(stored, fresh, name):
    "List what differs between a notebook's stored outputs and fresh ones, a line of text each."
    found = []
    pairs = list(zip(code_cells(stored), code_cells(fresh)))
    shifted = [old for old, new in pairs if None is not old.execution_count != new.execution_count]
    if shifted:
        found.append(f"{name}: from {first_line(shifted[0])!r} on, run numbers are not those of one run in order")
    for index, (old, new) in enumerate(pairs, 1):
        where = f"{name}, code cell {index} ({first_line(old)!r})"
        if old.source.strip() and old.execution_count is None:
            found.append(f"{where}: was never run")
        found += output_differences(old.outputs, new.outputs, where)
    return found


def output_differences(old, new, where):
    "List what differs between the outputs of one cell."
    if len(old) != len(new):
        return [f"{where}: {len(old)} outputs stored, {len(new)} made"]
    found = []
    for stored, fresh in zip(map(describe, old), map(describe, new)):
        if len(stored) != len(fresh):
            found.append(f"{where}: {len(stored)} lines stored, {len(fresh)} made")
        lines = [
            f"{where}, line {number}: stored {a!r}, made {b!r}"
            for number, (a, b) in enumerate(zip(stored, fresh))
            if not agree(a, b)
        ]
        found += lines[:3] + ([f"{where}: and {len(lines) - 3} lines more"] if len(lines) > 3 else [])
    return found


def first_line(cell):
    "Give the first line of a cell that is no directive."
    lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#|")]
    return lines[0] if lines else ""


def figures(notebook):
    "List the figures of a notebook, base64-encoded PNG, in order."
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data["image/png"].strip() for output in outputs if "image/png" in output.get("data", {})]


def pictures(notebook):
    "Map the name in each tag `picture:NAME` to the PNG bytes of the tagged cell's figure."
    tagged = [(cell, tag) for cell in code_cells(notebook) for tag in cell.metadata.get("tags", [])]
    return {
        tag.removeprefix("picture:"): base64.b64decode(output.data["image/png"])
        for cell, tag in tagged
        for output in cell.outputs
        if tag.startswith("picture:") and "image/png" in output.get("data", {})
    }
