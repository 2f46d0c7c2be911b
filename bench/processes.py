"""Time a step of one process with 64 images beside a step of two with 32 each, by every way to average of chapter 12.

    python -m bench.processes     measure, and print it as JSON; `make bench` stores it

Two sizes of the MLP: that of the chapter, where talking is everything, and one that computes for longer. Each process
has one thread. Wall seconds, for processes wait for each other. The ways take turns, 40 steps at a time; of each turn
the median step counts, and each ratio is the median of the ratios to one process within the turns.
"""

import json
import statistics

from bench import clock, machine
from bench.tables import table

TURNS, STEPS = 9, 40
HIDDEN = {"784–128–10": 128, "784–2048–10": 2_048}
WAYS = {"no talking": "two, no averaging", "ring": "ring by hand", "all_reduce": "`all_reduce`", "bucket": "one bucket",
        "DDP": "`DistributedDataParallel`"}  # fmt: skip


def steps(way, hidden, n):
    "Take n steps on this process's share of 64 images; return the median seconds of one."
    import time

    import torch
    import torch.distributed as dist
    from torch import nn

    from exp import nb_12 as ours

    ours.set_seed(42)
    rank, world = dist.get_rank(), dist.get_world_size()
    model = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    model = nn.parallel.DistributedDataParallel(model) if way == "DDP" else model
    optim, x, y = ours.SGD(model.parameters(), lr=0.01), torch.rand(64, 784), torch.arange(64) % 10
    sums, found = {"ring": ours.ring_all_reduce, "all_reduce": dist.all_reduce}, []
    for _ in range(n):
        began = time.perf_counter()
        ours.cross_entropy_loss(model(x[rank::world]), y[rank::world]).backward()
        if way in sums:
            for p in model.parameters():
                sums[way](p.grad)
                p.grad /= world
        elif way == "bucket":
            ours.average_gradients(model)
        optim.step()
        optim.zero_grad()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def measure(turns=TURNS, n=STEPS):
    "Return {model: {way: {seconds, ratio}}}: medians of a step, ratios to one process within turns."
    from exp.nb_12 import Workers

    found = {}
    with Workers(1) as one, Workers(2) as two:
        for title, hidden in HIDDEN.items():
            seconds = {"one": [], **{way: [] for way in WAYS}}
            for turn in range(turns + 1):
                order = list(seconds)
                for way in order[turn % len(order) :] + order[: turn % len(order)]:
                    pool = one if way == "one" else two
                    seconds[way].append(max(pool(steps, way, hidden, n)))
            # the first turn is a rehearsal
            found[title] = clock.summed_up({way: each[1:] for way, each in seconds.items()}, "one")
    return found


def markdown(found):
    "Return what results.md says of it."
    about = ("A step of one process on 64 images, and how many times as long two processes take with 32 each, by the "
             "ways of chapter 12 to average; one thread each. Medians, the ratios within 9 turns.")
    rows = [[title, f"{1000 * by_way['one']['seconds']:.2f} ms", *(f"{by_way[way]['ratio']:.2f}" for way in WAYS)]
            for title, by_way in found.items()]  # fmt: skip
    return ["## Two processes", about, table(["MLP", "one process", *WAYS.values()], rows)]


def main():
    "Measure, and print it."
    clock.settle(2, machine.own_cpus())
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
