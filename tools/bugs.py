"""Plant bugs in the chapters, one at a time, and see which of a chapter's own checks catches each; run cells twice.

    python -m tools.bugs              all chapters: store what caught each bug beside the table of the bugs
    python -m tools.bugs 02           these;  -v shows the messages too

A bug is a small patch of a chapter's live code. The bugs of chapter NN stand in `tests/bugs/nb_NN.py`, what caught them
in `nb_NN.json`. The cells of a chapter run in order in one kernel, with warnings as errors. At the cell where a bug
belongs, the kernel forks (tools/planter.py); its child runs the patched cell and what follows, until a cell raises.
What counts as caught: an assertion, a verdict, or a refusal by the chapter's own code. A mere crash inside a library
does not count.

Without a bug, each cell runs twice before the next one, as readers do: it has to bear that. What it shows the first
time is what a clean run shows: so one run serves the proof of the outputs, of the exercises, and of the bugs.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tools import run
from tools.chapters import ROOT, chosen

TABLES, PLANTER = ROOT / "tests" / "bugs", ROOT / "tools" / "planter.py"
QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Bug(NamedTuple):
    name: str   # what went wrong, in a learner's words
    old: str    # text that occurs once in the chapter's code
    new: str    # what takes its place
    cell: str = ""  # where `old` occurs more than once: text that only its cell holds


def table(chapter):
    "Return the bugs to plant in a chapter; none, if it has no table."
    source = TABLES / f"{chapter.module}.py"
    if not source.exists():
        return []
    spec = importlib.util.spec_from_file_location(f"bugs_of_{source.stem}", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BUGS


def stored(chapter):
    "Return what caught the bugs of a chapter when they were last planted: {name: {by, section, check}}."
    result = TABLES / f"{chapter.module}.json"
    return json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}


def locate(sources, bug):
    "Return the number of the cell that holds the text of a bug; raise `ValueError` unless it occurs once."
    counts = [source.count(bug.old) * (bug.cell in source) for source in sources]
    if sum(counts) != 1:
        raise ValueError(f"{bug.name}: the text to replace occurs {sum(counts)} times, expected once")
    return counts.index(1)


class Found(NamedTuple):
    notebook: object  # the chapter, run in order: its outputs are those of the first time that each cell ran
    said: list        # what each piece of the epilogue printed
    caught: list      # a row for each bug: {bug, by, section, check, message}
    again: list       # [number of the cell, words] of each cell that cannot be run twice


def find(chapter, bugs=None, epilogue=(), package=None):
    """Run a chapter in a new kernel, each cell twice, and with each bug (its own, if none are given); return `Found`.

    The pieces of code of `epilogue` run after its last cell. With a folder `package`, modules that lie there are
    imported before those of the environment.
    """
    notebook, cells = run.blank(chapter.path), chapter.code_cells
    sources = [cell.source for cell in cells]
    planted = [[bug.name, bug.old, bug.new, locate(sources, bug)] for bug in (table(chapter) if bugs is None else bugs)]
    twice, after = [], [run.code_cell(code) for code in epilogue]
    steps = []
    for number, cell in enumerate(run.code_cells(notebook)):
        twice.append(run.code_cell(cell.source, tags=["raises-exception"]))
        steps += [run.code_cell(f"get_ipython().planter.plant({number})")] if number in {b[3] for b in planted} else []
        steps += [cell, twice[-1]]
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder, "given.json")
        given.write_text(json.dumps({"sources": sources, "headings": chapter.sections, "bugs": planted}), "utf-8")
        start = f"get_ipython().planter = __import__('runpy').run_path({str(PLANTER)!r})['Planter'](get_ipython(), "
        first = run.code_cell(f"{start}{str(given)!r}, {folder!r})")
        last = run.code_cell("get_ipython().planter.end()")
        run.execute(run.with_cells(notebook, [first, *steps, last, *after]), chapter.path.name, package, QUIET)
        rows = [read(Path(folder, f"{index}.json"), bug[0]) for index, bug in enumerate(planted)]
    again = [[n, words] for n, cell in enumerate(twice, 1) for words in map(complaint, cell.outputs) if words]
    return Found(run.tidy(notebook), [run.printed(cell) for cell in after], rows, again)


def read(path, name):
    "Return what a child has written; what has written nothing has crashed, or hung."
    if not path.exists():
        return {"bug": name, "by": "a crash", "section": "", "check": "", "message": "the process ended without a word"}
    return json.loads(path.read_text(encoding="utf-8"))


def complaint(output):
    "Return the words of an output that is an error or a warning, or nothing."
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"[:300]
    return output.text[:300] if output.get("name") == "stderr" else ""


def stable(rows):
    "Return what is stored of what was found: not the words of a message, which may differ between processors."
    return {row["bug"]: {key: row[key] for key in ("by", "section", "check")} for row in rows}


def caught(row):
    "Return whether one of the chapter's checks caught a bug."
    return row["by"] not in ("nothing", "a crash")


def refresh(chapter, verbose=False):
    "Plant the bugs of a chapter, store and print what caught them; return the rows."
    _, _, rows, again = find(chapter)
    text = json.dumps(stable(rows), indent=1, ensure_ascii=False) + "\n"
    (TABLES / f"{chapter.module}.json").write_text(text, encoding="utf-8")
    for number, error in again:
        print(f"{chapter.number} ✗ cell {number} cannot be run twice: {error}")
    for row in rows:
        mark, check = "  " if caught(row) else "✗ ", row["check"].partition("\n")[0]
        print(f"{chapter.number} {mark}{row['bug']}: {row['by']}  {check}")
        if verbose:
            print(f"        {row.get('message', '')[:150]!r}")
    return rows


def main(words):
    "Plant the bugs of the chapters that are named, or of all."
    verbose, numbers = "-v" in words, [word for word in words if word != "-v"]
    rows = [row for chapter in chosen(numbers) if table(chapter) for row in refresh(chapter, verbose)]
    print(f"{len(rows)} bugs planted, {sum(map(caught, rows))} caught")
    return 0 if all(map(caught, rows)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
