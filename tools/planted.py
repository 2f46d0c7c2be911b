"""Plant bugs in the chapters, one at a time, and see which of a chapter's own checks catches each.

    python tools/planted.py              all chapters: store what was found in docs/planted.json
    python tools/planted.py 02           those whose name starts with 02;  -v shows the messages too

A bug is a small patch of a chapter's live code. The tables stand in `tests/planted/`, one module for each chapter. The
cells of a chapter run in order in one process, with warnings as errors. At the cell where a bug belongs, the process
forks; its child runs the patched cell and what follows, until a cell raises. What counts as caught: an assertion, a
verdict, or a refusal by the chapter's own code. A mere crash inside a library does not count.
"""

import ast
import importlib.util
import json
import linecache
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

from notebooks import ROOT, chapters, code_cells, read

FOUND = ROOT / "docs" / "planted.json"


class Bug(NamedTuple):
    name: str   # what went wrong, in a learner's words
    old: str    # text that occurs once in the chapter's code
    new: str    # what takes its place
    cell: str = ""  # where `old` occurs more than once: text that only its cell holds


def table(path):
    "Give the bugs to plant in the chapter at `path`; none, if it has no table."
    source = ROOT / "tests" / "planted" / f"nb_{path.name[:2]}.py"
    if not source.exists():
        return []
    spec = importlib.util.spec_from_file_location(source.stem, source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BUGS


def locate(sources, bug):
    "Give the number of the cell that holds the text of a bug; raise `ValueError` unless it occurs once."
    counts = [source.count(bug.old) * (bug.cell in source) for source in sources]
    if sum(counts) != 1:
        raise ValueError(f"{bug.name}: the text to replace occurs {sum(counts)} times, expected once")
    return counts.index(1)


def sections(notebook):
    "List, for each code cell, the heading that it stands under."
    heading, found = "", []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found.append(heading)
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            heading = line.lstrip("# ") if line.startswith("#") else heading
    return found


def statement(lines, number):
    "Give the source of the smallest statement of a cell that holds line `number`."
    text = "".join(lines)
    around = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.stmt) and n.lineno <= number <= n.end_lineno]
    node = min(around, key=lambda n: n.end_lineno - n.lineno)
    return node, ast.get_source_segment(text, node)


def verdict(error, names):
    "Tell what caught an error: the statement of the cell that was running, and what kind of check it is."
    frames, trace = [], error.__traceback__
    while trace:
        frames.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    ours = [(name, row) for name, row in frames if name in names or f"{os.sep}exp{os.sep}nb_" in name]
    _, check = statement(linecache.getlines(ours[0][0]), ours[0][1])
    raised, _ = statement(linecache.getlines(ours[-1][0]), ours[-1][1])
    if "same(" in check and isinstance(error, AssertionError):
        return "a verdict", check
    if isinstance(error, AssertionError):
        return ("near" if "near(" in check else "an assertion"), check
    refused = frames[-1] == ours[-1] and isinstance(raised, ast.Raise)
    return ("a refusal" if refused else "a crash"), check


def start_shell():
    "Start IPython in this process: no history file, one thread, warnings as errors."
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    warnings.simplefilter("error")
    return shell


def run_from(shell, sources, start):
    "Run the cells from number `start` on; give None, or (number, error) of the first that raises."
    for number, source in enumerate(sources[start:], start):
        result = shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if error:
            return number, error


def child(shell, sources, at, bug, headings):
    "Run the chapter with a bug in place from cell `at` on; tell what noticed."
    patched = [*sources[:at], sources[at].replace(bug.old, bug.new), *sources[at + 1:]]
    found = {"bug": bug.name, "old": bug.old, "new": bug.new}
    raised = run_from(shell, patched, at)
    if raised is None:
        return found | {"by": "nothing", "section": "", "check": ""}
    number, error = raised
    try:
        by, check = verdict(error, shell.compile._filename_map)
    except Exception as problem:
        by, check = "a crash", f"{type(error).__name__}: {error} ({problem})"
    return found | {"by": by, "section": headings[number], "check": check, "message": f"{error}"[:300]}


def plant(path, bugs):
    "Run a chapter with each of its bugs, one at a time; list what caught them. In a process of its own: see `find`."
    notebook = read(path)
    sources, headings = [cell.source for cell in code_cells(notebook)], sections(notebook)
    places = {bug: locate(sources, bug) for bug in bugs}
    shell, out, running = start_shell(), tempfile.mkdtemp(), []
    for number in range(len(sources)):
        for index, bug in enumerate(bugs):
            if places[bug] != number:
                continue
            while len(running) >= (os.cpu_count() or 1):
                os.waitpid(running.pop(0), 0)
            running.append(os.fork())
            if running[-1] == 0:
                told = child(shell, sources, number, bug, headings)
                with open(f"{out}/{index}", "w") as file:
                    json.dump(told, file)
                os._exit(0)
        raised = run_from(shell, sources[: number + 1], number)
        if raised:
            raise RuntimeError(f"{path.name}: without any bug, cell {number + 1} raises {raised[1]!r}")
    for pid in running:
        os.waitpid(pid, 0)
    return [json.load(open(f"{out}/{index}")) for index in range(len(bugs))]


def find(path, bugs=None):
    "Plant bugs (its own, if none are given) in the chapter at `path`, in a new process; list what caught them."
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "bugs.json").write_text(json.dumps(table(path) if bugs is None else bugs), encoding="utf-8")
        command = [sys.executable, __file__, "--child", str(path), f"{empty}/bugs.json", f"{empty}/found.json"]
        env = {**os.environ, **quiet, "IPYTHONDIR": f"{empty}/ipython"}
        done = subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr or done.stdout)
        return json.loads(Path(empty, "found.json").read_text(encoding="utf-8"))


def stable(rows):
    "Drop what may differ from processor to processor: the words of a message."
    return [{key: value for key, value in row.items() if key != "message"} for row in rows]


def caught(row):
    "Tell whether one of the chapter's checks caught a bug."
    return row["by"] not in ("nothing", "a crash")


def main(starts, verbose=False):
    "Plant the bugs of the chapters whose names start with one of `starts` (all, if none is given); store the table."
    stored = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    rows = []
    for path in chapters():
        if table(path) and (not starts or path.name.startswith(tuple(starts))):
            found = find(path)
            stored[path.stem] = stable(found)
            rows += [(path.name[:2], row) for row in found]
    for chapter, row in rows:
        mark, check = "  " if caught(row) else "✗ ", row["check"].partition("\n")[0]
        print(f"{chapter} {mark}{row['bug']}: {row['by']}  {check}")
        if verbose:
            print(f"        {row.get('message', '')[:150]!r}")
    FOUND.write_text(json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(rows)} bugs planted, {sum(caught(row) for _, row in rows)} caught")
    return 0 if all(caught(row) for _, row in rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        bugs = [Bug(*fields) for fields in json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))]
        Path(sys.argv[4]).write_text(json.dumps(plant(Path(sys.argv[2]), bugs)), encoding="utf-8")
    else:
        sys.exit(main([word for word in sys.argv[1:] if word != "-v"], "-v" in sys.argv))
