"""Time a step of the optimisers of chapter 05 beside PyTorch's: the default path, `foreach`, `fused`.

    python -m bench.optimisers     measure, and print it as JSON; `make bench` stores it

The parameters are those of the MLP 784-128-10, the gradients stay the same. One thread; the paths of an optimiser take
turns, 100 steps at a time, and each ratio is the median of the ratios within the turns.
"""

import json
import statistics
import time

from bench import clock, machine
from bench.tables import table

TURNS, STEPS = 15, 100


def makers():
    "Return {optimiser: (ours, PyTorch's, its settings)}."
    import torch

    from exp import nb_05

    found = {
        "SGD": ("SGD", dict(lr=1e-3)),
        "SGD, momentum": ("SGD", dict(lr=1e-3, momentum=0.9)),
        "RMSprop": ("RMSprop", dict(lr=1e-3)),
        "Adam": ("Adam", dict(lr=1e-3)),
        "AdamW": ("AdamW", dict(lr=1e-3)),
        "Muon": ("Muon", dict(lr=1e-3)),
    }
    return {title: (getattr(nb_05, name), getattr(torch.optim, name, None), settings)
            for title, (name, settings) in found.items()}  # fmt: skip


def paths(title, ours, theirs, settings):
    "Return {path: an optimiser with gradients}; a path that PyTorch has not is left out."
    from exp.nb_05 import MLP

    options = {"ours": (ours, {}), "default": (theirs, {})}
    if title != "Muon":
        options["foreach"] = theirs, {"foreach": True}
        if title != "RMSprop":
            options["fused"] = theirs, {"fused": True}
    found = {}
    for path, (kind, extra) in options.items():
        if kind is not None:
            ps = [p for p in MLP().parameters() if title != "Muon" or p.dim() == 2]
            for p in ps:
                p.grad = p.detach().clone() * 1e-3
            found[path] = kind(ps, **settings, **extra)
    return found


def measure(turns=TURNS, steps=STEPS):
    "Return {optimiser: {path: {seconds, to_default}}}: medians of a step, ratios within turns."
    found = {}
    for title, rule in makers().items():
        optims, times = paths(title, *rule), {}
        for optim in optims.values():
            optim.step()  # what is built at first use
        for turn in range(turns):
            order = list(optims.items())
            for path, optim in order[turn % len(order) :] + order[: turn % len(order)]:
                began = time.perf_counter()
                for _ in range(steps):
                    optim.step()
                times.setdefault(path, []).append((time.perf_counter() - began) / steps)
        default = times.get("default")
        found[title] = {
            path: {"seconds": statistics.median(each),
                   "to_default": statistics.median(a / b for a, b in zip(each, default)) if default else None}
            for path, each in times.items()
        }  # fmt: skip
    return found


def markdown(found):
    "Return what results.md says of it."
    about = ("Microseconds of one step of an optimiser on the parameters of the MLP, one thread (to PyTorch's "
             "default path): medians, the ratios within 15 turns of 100 steps.")
    paths = ("ours", "default", "foreach", "fused")
    rows = []
    for title, by_path in found.items():
        each = [by_path[path] if path in by_path else None for path in paths]
        rows.append([title, *("" if t is None else cell_of(t) for t in each)])
    head = ["optimiser", "ours", "PyTorch's default path", "its `foreach`", "its `fused`"]
    return ["## A step of an optimiser", about, table(head, rows)]


def cell_of(time):
    "Write microseconds of a step, and how many times those of the default path."
    ratio = "" if time["to_default"] is None else f" ({time['to_default']:.2f})"
    return f"{1e6 * time['seconds']:.0f}{ratio}"


def main():
    "Measure, and print it."
    clock.settle(1, machine.own_cpus())
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
