"""The work that every variant does, and the clock that times it.

The work: MNIST, 50,000 images normalised as in chapter 02, 784-128-10, gradient descent, all from the same weights.
The clock: wall time and CPU time of the training alone, and the CPU time that *other* processes took meanwhile.
"""

import ast
import importlib
import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAT = Path("/proc/stat")


# The processor


def own_cpus(wanted=2):
    "List CPUs to run on, the last ones that we may use, each of another core where that can be told; None: unknown."
    if not hasattr(os, "sched_getaffinity"):
        return None
    chosen, taken = [], set()
    for cpu in sorted(os.sched_getaffinity(0), reverse=True):
        if cpu not in taken and len(chosen) < wanted:
            chosen.append(cpu)
            taken.update(siblings(cpu))
    return chosen


def siblings(cpu):
    "Give the CPUs that share a core with `cpu`, itself included."
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return {cpu}
    spans = [part.split("-") for part in text.strip().split(",")]
    return {n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)}


def busy_seconds(cpus, text=None):
    "Give the seconds that `cpus` have been busy since the machine started, stolen ones included; None: can't tell."
    try:
        lines = (STAT.read_text() if text is None else text).splitlines()
    except OSError:
        return None
    rows = {words[0]: [int(word) for word in words[1:]] for words in map(str.split, lines) if words}
    rows = [rows.get(f"cpu{cpu}") for cpu in cpus or ()]
    if not rows or None in rows:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal: all but the two in which the CPU waits
    return sum(sum(row[:3]) + sum(row[5:8]) for row in rows) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    "Give the CPU seconds of this process and of its children that have ended."
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


@dataclass
class Clock:
    "Time what lies between `start` and `stop` (or inside `with`), once or several times."

    cpus: list = None  # watch these for foreign work: the ones that we run on, and those that share their cores
    wall: float = 0.0  # seconds
    cpu: float = 0.0  # seconds of our own CPU time
    foreign: float = 0.0  # seconds of other processes' CPU time; None: can't tell

    def start(self):
        self._began = time.perf_counter(), own_seconds(), busy_seconds(self.cpus)

    def stop(self):
        wall, cpu, busy = time.perf_counter(), own_seconds(), busy_seconds(self.cpus)
        began_wall, began_cpu, began_busy = self._began
        self.wall += wall - began_wall
        self.cpu += cpu - began_cpu
        unknown = self.foreign is None or busy is None or began_busy is None
        self.foreign = None if unknown else self.foreign + busy - began_busy - (cpu - began_cpu)

    def each(self, runs=1):
        "Give the times of one run, of `runs` that were timed together."
        foreign = None if self.foreign is None else self.foreign / runs
        return {"seconds": self.wall / runs, "cpu": self.cpu / runs, "foreign": foreign}

    def __enter__(self):
        self.start()

    def __exit__(self, *error):
        self.stop()


# The work


@dataclass
class Work:
    "What a variant is given: data, sizes, a clock to start and stop around its training."

    x: object  # training images, float32 [50000, 784], normalised
    y: object  # labels, int64 [50000]
    x_valid: object
    y_valid: object
    batch_size: int = 64
    epochs: int = 1
    lr: float = 0.1
    cpus: list = None
    clock: Clock = field(default_factory=Clock)
    runs: int = 1  # how often the clock saw the whole work

    def rehearsal(self, batches=5):
        "Give the same work with a few batches: what is loaded or built at first use is then there."
        n = batches * self.batch_size
        return replace(self, x=self.x[:n], y=self.y[:n], epochs=1, clock=Clock())

    def layers(self):
        "Build the layers; all variants start from these weights."
        import torch
        from torch import nn

        torch.manual_seed(42)
        return nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)


def settle(threads, cpus):
    "Hold this process to `threads` of `cpus` and torch to as many threads. Call it before anything imports torch."
    if cpus:
        os.sched_setaffinity(0, cpus[:threads])
    os.environ.update({name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def load(cpus=None, **sizes):
    "Read and normalise the data as chapter 02 does."
    from exp.nb_02 import get_mnist_data, normalize

    x, y = get_mnist_data()
    m, s = x[:50_000].mean(), x[:50_000].std()
    x = normalize(x, m, s)
    watched = sorted(set().union(*map(siblings, cpus))) if cpus else None
    return Work(x[:50_000], y[:50_000], x[50_000:], y[50_000:], cpus=cpus, clock=Clock(watched), **sizes)


def from_notebook(stem, *names):
    "Execute these definitions of the notebook `nbs/stem.ipynb`, as they stand there; give them, in order."
    from torch import nn

    module = importlib.import_module(f"exp.nb_{stem[:2]}")
    space = {"nn": nn, **{name: getattr(module, name) for name in module.__all__}}
    cells = json.loads((ROOT / "nbs" / f"{stem}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    nodes = [node for source in sources for node in ast.parse(source).body if getattr(node, "name", None) in names]
    if sorted(node.name for node in nodes) != sorted(names):
        found = [node.name for node in nodes]
        raise ValueError(f"{stem}: found the definitions {found}, expected each of {names} once")
    exec(compile(ast.Module(nodes, type_ignores=[]), f"{stem}.ipynb", "exec"), space)
    return [space[name] for name in names]


def judge(model, work):
    "Give the loss and accuracy of a model on the validation set."
    import torch
    import torch.nn.functional as F

    if hasattr(model, "eval"):
        model.eval()
    with torch.no_grad():
        logits = model(work.x_valid)
        right = (logits.argmax(dim=1) == work.y_valid).float().mean()
        return F.cross_entropy(logits, work.y_valid).item(), right.item()
