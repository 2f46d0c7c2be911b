"""What else takes time: importing, reading the data, running the notebooks, building the site. And on what machine."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import summary
from work import ROOT

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

NOTEBOOK = """
import sys, time
sys.path.insert(0, "tools")
import notebooks
start = time.perf_counter()
notebooks.run(sys.argv[1])
print(time.perf_counter() - start)
"""


def python_says(python, code, *arguments, env=None):
    "Run a piece of Python in a process of its own; give the last line that it prints, read as JSON."
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a measurement broke:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


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
    "Time `get_mnist_data()`; give also by how much it raises the peak of the memory, and the size of what it gives."
    found = [python_says(python, DATA, env=env) for _ in range(rounds)]
    seconds, peaks, sizes = zip(*found)
    return {"seconds": summary(seconds), "peak_bytes": summary(peaks), "tensor_bytes": sizes[0]}


def docs():
    "Time a build of the site from nothing, into a folder of its own."
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"the site could not be built:\n{done.stderr[-3000:]}")
    return seconds


def measure(python, rounds, env, say):
    "Measure all of these; `python` imports and reads, the Python of the developer runs notebooks and builds the site."
    found = {"import": imports(python, rounds, env), "get_mnist_data": data(python, rounds, env)}
    say("import and get_mnist_data: done")
    ours = os.environ | {"PYTHONPATH": str(ROOT)}
    paths = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
    found["notebooks"] = {path.stem: python_says(sys.executable, NOTEBOOK, path, env=ours) for path in paths}
    say("notebooks: done")
    found["docs"] = docs()
    return found


def machine(python, cpus):
    "Describe the machine, without a name of it."
    config = python_says(python, "import json, torch; print(json.dumps([torch.__config__.show(), "
                                 "torch.backends.cpu.get_cpu_capability()]))")
    blas = [line.strip(" -") for line in config[0].splitlines() if "Math Kernel" in line or "BLAS_INFO" in line]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "pinned": cpus is not None,
        "vectors": config[1],
        "blas": blas[0].split("-Product")[0].split(",")[0] if blas else "unknown",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor():
    "Give the name of the processor's model."
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
