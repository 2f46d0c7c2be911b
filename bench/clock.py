"""The clock that times every variant: wall time and CPU time of the training alone, and the CPU time that *other*
processes took meanwhile."""

import os
import statistics
import time
from dataclasses import dataclass

from bench.machine import busy_seconds, own_seconds


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
        "Return the times of one run, of `runs` that were timed together."
        foreign = None if self.foreign is None else self.foreign / runs
        return {"seconds": self.wall / runs, "cpu": self.cpu / runs, "foreign": foreign}

    def __enter__(self):
        self.start()

    def __exit__(self, *error):
        self.stop()


def settle(threads, cpus):
    "Hold this process to `threads` of `cpus` and torch to as many threads. Call it before anything imports torch."
    if cpus:
        os.sched_setaffinity(0, cpus[:threads])
    os.environ.update({name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")})
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)


def in_turns(each, turns):
    "Return {name: its seconds, one for each turn}: every turn begins with another; the first turn is a rehearsal."
    times = {name: [] for name in each}
    for turn in range(turns + 1):
        order = list(each.items())
        for name, work in order[turn % len(order) :] + order[: turn % len(order)]:
            began = time.process_time()
            work()
            times[name].append(time.process_time() - began)
    return {name: found[1:] for name, found in times.items()}


def summed_up(times, base):
    "Return {name: {seconds, ratio}}: medians; the ratios to `base` within turns."
    return {
        name: {"seconds": statistics.median(found),
               "ratio": statistics.median(a / b for a, b in zip(found, times[base]))}
        for name, found in times.items()
    }  # fmt: skip
