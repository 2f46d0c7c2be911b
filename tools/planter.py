"""What `tools.bugs` starts within a chapter's kernel: at the cell where a bug belongs, fork, and run the rest with it.

The kernel goes on without the bug. Its child lives until a cell raises, and writes down what noticed. This file is read
into the kernel by its path, with nothing of the project beside it, so that a chapter runs with its package alone.
"""

import ast
import gc
import io
import json
import linecache
import os
import signal
import sys
import warnings
from pathlib import Path

LONGEST = 240  # seconds that a child may live
TOOLS = "zmq|ipykernel|jupyter_client|tornado|traitlets|asyncio|comm|debugpy"  # the kernel's own, and not the chapter's


class Planter:
    "Plant the bugs that a file holds: {sources, headings, bugs: [[name, old, new, number of the cell]]}."

    def __init__(self, shell, given, folder):
        import torch

        self.shell, self.folder, self.running = shell, Path(folder), []
        self.__dict__.update(json.loads(Path(given).read_text(encoding="utf-8")))
        self.filters = warnings.catch_warnings()
        self.filters.__enter__()
        torch.optim.SGD([torch.zeros(1)], lr=0.1)  # the first optimiser imports for a second: here, not in each child
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=rf"({TOOLS})(\.|$)")
        gc.freeze()  # what is there stays shared with the children

    def plant(self, number):
        "Fork a child for each bug of a cell; not more at once than there are processors."
        for index, bug in enumerate(self.bugs):
            if bug[3] == number:
                self.wait((os.cpu_count() or 1) - 1)
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()  # the thread that sends what is printed has nothing to do, and holds no lock
                self.running.append(os.fork())
                if self.running[-1] == 0:
                    self.live(index)

    def wait(self, most=0):
        "Wait until at most so many children live."
        while len(self.running) > most:
            os.waitpid(self.running.pop(0), 0)

    def end(self):
        "Wait for all children; from now on warnings are no errors any more."
        self.wait()
        self.filters.__exit__(None, None, None)

    def live(self, index):
        "In the child: run the chapter with a bug, write what noticed, and end without a word to anybody."
        try:
            signal.alarm(LONGEST)
            be_quiet(self.shell)
            own_what_starts_processes()
            warnings.simplefilter("error")
            told = json.dumps(self.what_notices(*self.bugs[index]))
            (self.folder / f"{index}.json").write_text(told, encoding="utf-8")
        finally:
            os._exit(0)

    def what_notices(self, name, old, new, at):
        "Run the cells from number `at` on, that one with the bug, until one raises; tell what it was."
        for number, source in enumerate(self.sources[at:], at):
            result = self.shell.run_cell(source.replace(old, new) if number == at else source, store_history=False)
            error = result.error_before_exec or result.error_in_exec
            if error:
                try:
                    by, check = verdict(error, self.shell.compile._filename_map)
                except Exception as problem:
                    by, check = "a crash", f"{type(error).__name__}: {error} ({problem})"
                words = {"section": self.headings[number], "check": check, "message": f"{error}"[:300]}
                return {"bug": name, "by": by, **words}
        return {"bug": name, "by": "nothing", "section": "", "check": ""}


def be_quiet(shell):
    "Cut a forked shell off from the sockets of its kernel: what it prints and shows goes nowhere."
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher

    sys.stdout = sys.stderr = io.StringIO()
    shell.display_pub = DisplayPublisher(parent=shell, shell=shell)
    shell.displayhook = shell.display_trap.hook = DisplayHook(shell=shell, cache_size=shell.cache_size)
    shell.showtraceback = shell.showsyntaxerror = lambda *_, **__: None


def own_what_starts_processes():
    """Let this copy of a process start processes as the original does, with the same fork server if there is one.

    `multiprocessing` knows nothing of a bare fork: the server is no child of the copy, and what hands out shared
    tensors has a thread that the copy lacks.
    """
    from multiprocessing import forkserver, util

    util._run_after_forkers()
    if forkserver._forkserver._forkserver_address:
        forkserver._forkserver.ensure_running = lambda: None


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


def statement(lines, number):
    "Return the smallest statement of a cell that holds line `number`: (node, source)."
    text = "".join(lines)
    around = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.stmt) and n.lineno <= number <= n.end_lineno]
    node = min(around, key=lambda n: n.end_lineno - n.lineno)
    return node, ast.get_source_segment(text, node)
