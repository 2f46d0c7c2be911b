"""What else takes time: importing, reading the data, running the notebooks, building the site."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import browser
from bench.machine import python_says
from bench.results import summary
from tools.chapters import ROOT, chapters

IMPORTS = """
import time
start = time.perf_counter()
import torch
between = time.perf_counter()
{then}
print([between - start, time.perf_counter() - between, time.perf_counter() - start])
"""

DATA = """
import json, resource, sys, time
from exp.nb_02 import get_mnist_data, torch
torch.zeros(1)
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
start = time.perf_counter()
x, y = get_mnist_data()
seconds = time.perf_counter() - start
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
print(json.dumps([seconds, after - before, x.nbytes + y.nbytes]))
"""

CHAPTER = "from bench import {name}; {name}.main()"

NOTEBOOK = """
import sys, time
from tools.run import run
start = time.perf_counter()
run(sys.argv[1])
print(time.perf_counter() - start)
"""


def imports(python, rounds, env):
    "Time `import torch` alone and followed by `import exp.nb_02`, in processes that alternate."
    alone, both = [], []
    for _ in range(rounds + 1):
        for then, times in (("pass", alone), ("import exp.nb_02", both)):
            times.append(python_says(python, IMPORTS.format(then=then), env=env))
    alone, both = alone[1:], both[1:]  # the first pair warmed the file cache
    return {
        "torch": summary([t[2] for t in alone]),
        "torch_and_exp": summary([t[2] for t in both]),
        "exp": summary([t[1] for t in both]),
    }


def data(python, rounds, env):
    "Time `get_mnist_data()`; return also by how much it raises the peak of the memory, and the size of what it gives."
    found = [python_says(python, DATA, env=env) for _ in range(rounds)]
    seconds, peaks, sizes = zip(*found)
    return {"seconds": summary(seconds), "peak_bytes": summary(peaks), "tensor_bytes": sizes[0]}


def docs(rounds):
    "Time a build of the site from nothing, into a folder of its own, and epochs on the page that trains."
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"the site could not be built:\n{done.stderr[-3000:]}")
        return seconds, browser.epochs(Path(folder) / "live.html", rounds)


def chapter(name, python, env):
    "Measure what a chapter shows (`bench/name.py`), in a process of its own."
    return python_says(python, CHAPTER.format(name=name), env=env)


def measure(python, rounds, env, say):
    "Measure all of these; `python` imports and reads, the Python of the developer runs notebooks and builds the site."
    found = {"import": imports(python, rounds, env), "get_mnist_data": data(python, rounds, env)}
    say("import and get_mnist_data: done")
    ours = os.environ | {"PYTHONPATH": str(ROOT)}
    found["notebooks"] = {each.stem: python_says(sys.executable, NOTEBOOK, each.path, env=ours) for each in chapters()}
    say("notebooks: done")
    found["docs"], found["live"] = docs(rounds)
    return found
