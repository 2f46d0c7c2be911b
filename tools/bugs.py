"""Plant bugs in the chapters, one at a time, and see which of a chapter's own checks catches each; run cells twice.

    python -m tools.bugs              all chapters: store what caught each bug beside the table of the bugs
    python -m tools.bugs 02           these;  -v shows the messages too

A bug is a small patch of a chapter's live code. The bugs of chapter NN stand in `tests/bugs/nb_NN.py`, what caught them
in `nb_NN.json`. The cells of a chapter run in order in one process, with warnings as errors. At the cell where a bug
belongs, the process forks; its child runs the patched cell and what follows, until a cell raises. What counts as
caught: an assertion, a verdict, or a refusal by the chapter's own code. A mere crash inside a library does not count.

Without a bug, each cell runs twice before the next one, as readers do: it has to bear that.
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

from tools.chapters import ROOT, Chapter, chosen

TABLES = ROOT / "tests" / "bugs"


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


def statement(lines, number):
    "Return the source of the smallest statement of a cell that holds line `number`."
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
    "Start IPython in this process: no history file, one thread, warnings as errors; what is slow to import is there."
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    torch.optim.SGD([torch.zeros(1)], lr=0.1)  # the first optimiser imports for a second: here once, else in each child
    warnings.simplefilter("error")
    return shell


def run_from(shell, sources, start):
    "Run the cells from number `start` on; return None, or (number, error) of the first that raises."
    for number, source in enumerate(sources[start:], start):
        result = shell.run_cell(source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if error:
            return number, error


def child(shell, sources, at, bug, headings):
    "Run the chapter with a bug in place from cell `at` on; tell what noticed."
    patched = [*sources[:at], sources[at].replace(bug.old, bug.new), *sources[at + 1:]]
    found = {"bug": bug.name}
    raised = run_from(shell, patched, at)
    if raised is None:
        return found | {"by": "nothing", "section": "", "check": ""}
    number, error = raised
    try:
        by, check = verdict(error, shell.compile._filename_map)
    except Exception as problem:
        by, check = "a crash", f"{type(error).__name__}: {error} ({problem})"
    return found | {"by": by, "section": headings[number], "check": check, "message": f"{error}"[:300]}


def plant(chapter, bugs):
    """Run a chapter with each bug, one at a time, and without, each cell twice; `find` does so in a process of its own.

    Return what caught the bugs, and [number of the cell, error] for each cell that raises when it is run again.
    """
    sources, headings = [cell.source for cell in chapter.code_cells], chapter.sections
    places = {bug: locate(sources, bug) for bug in bugs}
    shell, out, running, again = start_shell(), tempfile.mkdtemp(), [], []
    for number in range(len(sources)):
        for index, bug in enumerate(bugs):
            if places[bug] != number:
                continue
            while len(running) >= (os.cpu_count() or 1):
                os.waitpid(running.pop(0), 0)
            running.append(os.fork())
            if running[-1] == 0:
                told = child(shell, sources, number, bug, headings)
                Path(out, str(index)).write_text(json.dumps(told), encoding="utf-8")
                os._exit(0)
        if raised := run_from(shell, sources[: number + 1], number):
            raise RuntimeError(f"{chapter.path.name}: without any bug, cell {number + 1} raises {raised[1]!r}")
        if raised := run_from(shell, sources[: number + 1], number):
            again.append([number + 1, f"{type(raised[1]).__name__}: {raised[1]}"[:300]])
    for pid in running:
        os.waitpid(pid, 0)
    return [json.loads(Path(out, str(index)).read_text(encoding="utf-8")) for index in range(len(bugs))], again


def find(chapter, bugs=None):
    """Plant bugs (its own, if none are given) in a chapter, in a new process.

    Return what caught them, and [number of the cell, error] for each cell that raises when it is run again.
    """
    quiet = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as empty:
        given, found = Path(empty, "bugs.json"), Path(empty, "found.json")
        given.write_text(json.dumps(table(chapter) if bugs is None else bugs), encoding="utf-8")
        command = [sys.executable, "-m", "tools.bugs", "--child", *map(str, (chapter.path, given, found, empty))]
        env = {**os.environ, **quiet, "IPYTHONDIR": f"{empty}/ipython"}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8")
        if done.returncode:
            raise RuntimeError(done.stderr or done.stdout)
        return json.loads(found.read_text(encoding="utf-8"))


def stable(rows):
    "Return what is stored of what was found: not the words of a message, which may differ between processors."
    return {row["bug"]: {key: row[key] for key in ("by", "section", "check")} for row in rows}


def caught(row):
    "Return whether one of the chapter's checks caught a bug."
    return row["by"] not in ("nothing", "a crash")


def refresh(chapter, verbose=False):
    "Plant the bugs of a chapter, store and print what caught them; return the rows."
    rows, again = find(chapter)
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


def work(path, given, found, folder):
    "Do what `find` asks for, in the process that it has started."
    os.chdir(folder)
    bugs = [Bug(*fields) for fields in json.loads(Path(given).read_text(encoding="utf-8"))]
    Path(found).write_text(json.dumps(plant(Chapter(path), bugs)), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        work(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
