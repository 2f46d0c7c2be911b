"""Run a notebook in a clean kernel, and compare its outputs with the stored ones.

Training is chaotic in its last digits, and another processor rounds differently. So marks say what may differ:

- `⏱ 12.3 ms`    a timing: stored as `⏱ … ms` and never compared;
- `≈2e-07`, `≈5`  a number that hangs on the last digit of a float: its presence is compared, not its value;
- `≈0.187`       a number that training scatters: compared to one part in ten (`SCATTER`);
- `≈(4, 9)`      words that hang on it: their presence is compared.

All other numbers must agree to a relative tolerance of `RTOL`, percentages to `POINTS`, whole numbers exactly; words to
the letter. A figure is compared by its size, its alternative text, and what was drawn: for each line its name, its
number of points, and the means of ten equal parts, to a relative tolerance of `DRAWN`, or one unit where that is less.
"""

import base64
import itertools
import os
import re
import struct
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
RTOL, POINTS, SCATTER, DRAWN = 5e-3, 0.2, 0.1, 0.05
NOTHING, CURVE = "(nothing)", "drawn: "
NUMBER = r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
TIMING = re.compile(rf"(⏱ *){NUMBER}")
LOOSE = re.compile(r"≈\([^)]*\)|≈ *[-+]?[\d,]+(?:\.?\d*e[-+]?\d+)?(?!\.?\d)")
SCATTERED = re.compile(rf"≈ *({NUMBER})")
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


def run(path, epilogue=(), package=None):
    """Execute a copy of the notebook at `path`, in order, in a new kernel and an empty folder; give it back tidy.

    Each string of `epilogue` is run as a further cell after the last; with it, give also the list of what they print.
    With a folder `package`, modules that lie there are imported before those of the environment.
    """
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    notebook.cells += [nbformat.v4.new_code_cell(code) for code in epilogue]
    own = {"PYTHONPATH": str(package)} if package else {}
    options = {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"]}
    with tempfile.TemporaryDirectory() as empty:
        client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": empty}}, **options)
        try:
            client.execute(env={**os.environ, **own})
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
    "Tell whether two lines of text agree: words to the letter, numbers as their marks allow."
    if stored == fresh:
        return True
    if stored.startswith(CURVE) and fresh.startswith(CURVE):
        return agree_curves(stored, fresh)
    stored, fresh = (LOOSE.sub("≈#", TIMING.sub(r"\1…", line)) for line in (stored, fresh))
    if not all_near(SCATTERED.findall(stored), SCATTERED.findall(fresh), SCATTER):
        return False
    stored, fresh = (SCATTERED.sub("≈#", line) for line in (stored, fresh))
    if re.split(NUMBER, stored) != re.split(NUMBER, fresh):
        return False
    pairs = zip(re.findall(f"{NUMBER}%?", stored), re.findall(f"{NUMBER}%?", fresh))
    return all(a == b or close(a, b) for a, b in pairs)


def agree_curves(stored, fresh):
    "Tell whether two lines of a figure agree: name and number of points exactly, means to `DRAWN`."
    (stored, _, these), (fresh, _, those) = (line.rpartition(": ") for line in (stored, fresh))
    return stored == fresh and all_near(these.split(), those.split(), DRAWN, most=1.0)


def all_near(these, those, rtol, most=float("inf")):
    "Tell whether two lists of written numbers agree to a relative tolerance, or to `most` where that is less."
    pairs = [(float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in zip(these, those)]
    return len(these) == len(those) and all(abs(a - b) <= min(rtol * abs(a), most) for a, b in pairs)


def close(a, b):
    "Tell whether two written numbers agree: whole ones exactly, others as said above or to a unit of the last digit."
    if not re.search(r"[.e]", a + b):
        return False
    x, y = (float(number.strip("%").replace(",", "")) for number in (a, b))
    decimals, power = re.search(r"(?:\.(\d+))?(e.*)?$", a.strip("%")).groups(default="")
    unit = 10.0 ** -len(decimals) * float(f"1{power}")
    return abs(x - y) <= max(POINTS if a.endswith("%") else RTOL * abs(x), 1.01 * unit)


def describe(output):
    "Give what of an output is compared, as a list of lines."
    if output.output_type == "stream":
        return [f"{output.name}:", *output.text.splitlines()]
    if output.output_type == "error":
        return ["error:", f"{output.ename}: {output.evalue}"]
    lines = []
    for mime, content in sorted(output.data.items()):
        if mime == "image/png":
            width, height = struct.unpack(">II", base64.b64decode(content[:32])[16:24])
            about = output.metadata.get(mime, {})
            lines += ["image/png:", f"{width} by {height} pixels", about.get("alt", "no alternative text")]
            curves = [(f"{d.name!r}, {d.points} points", " ".join(map(str, d.get("means", [])))) for d in about.get("drawn", [])]
            lines += [f"{CURVE}{curve}: {means}" for curve, means in curves]
        else:
            lines += [f"{mime}:", *str(content).splitlines()]
    return lines


def differences(stored, fresh, name):
    "List what differs between a notebook's stored outputs and fresh ones, a line of text each."
    found, last = [], 0
    olds, news = code_cells(stored), code_cells(fresh)
    for index, (old, new) in enumerate(itertools.zip_longest(olds, news), 1):
        if old is None or new is None or old.source != new.source:
            found = [f"{first_line(cell)!r}" if cell else NOTHING for cell in (old, new)]
            return [f"{name}, code cell {index}, line 1: stored {found[0]}, run {found[1]}: other code than was run"]
    for index, (old, new) in enumerate(zip(olds, news), 1):
        where = f"{name}, code cell {index} ({first_line(old)!r})"
        if old.execution_count is None and old.source.strip():
            found.append(f"{where}: was never run")
        elif old.execution_count is not None and old.execution_count != last + 1:
            found.append(f"{where}: was run as number {old.execution_count}, not in order: expected {last + 1}")
        last = old.execution_count or last
        if old.outputs != new.outputs:
            found += output_differences(old.outputs, new.outputs, where)
    return found


def output_differences(old, new, where):
    "List what differs between the outputs of one cell."
    found = [f"{where}: an output vanished: {describe(output)[:2]}" for output in new[len(old):]]
    found += [f"{where}: an output too many: {describe(output)[:2]}" for output in old[len(new):]]
    for stored, fresh in zip(map(describe, old), map(describe, new)):
        pairs = itertools.zip_longest(stored, fresh, fillvalue=NOTHING)
        lines = [
            f"{where}, line {number}: stored {a!r}, made {b!r}"
            for number, (a, b) in enumerate(pairs)
            if NOTHING in (a, b) or not agree(a, b)
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
