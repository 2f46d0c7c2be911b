"""Time the ladder of chapter 11, from `fit` to the limit, and what else the chapter tells of speed.

    python -m bench.speed     measure, and print it as JSON; `make bench` stores it

One thread, CPU seconds; the loops are the notebook's own. They take turns, 100 mini-batches and a short one at a time,
and each ratio is the median of the ratios within the turns: many short turns bear a busy neighbour better than few long
ones. Workers are timed by the wall, for they wait; so are two threads, alone and beside a busy process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from bench import clock, data, machine
from bench.tables import table

TURNS, SOME, MOST = 9, 6_416, 1.25  # SOME: images in a turn of the ladder; MOST: of the fastest loop, to the limit
CLIMB = ("fitted", "fused_loss", "plain", "silent", "sliced", "functional", "returned", "by_formula", "in_place",
         "fused_update", "late_losses", "buffered", "fast_epoch")  # fmt: skip
NOTHING = ("late_items", "torch.optim.SGD", "foreach", "fused", "only_out", "turned_weights")
SIZES = (64, 256, 1_024, 4_096)
WORKERS = (0, 1, 2, 4)
NEIGHBOUR = "while True: pass"  # a program that keeps one processor busy


def loops():
    "Return {name: loop}: those of the notebook, the exported one, and the idiom."
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from exp import nb_11 as ours

    F = ours.F
    names = [*CLIMB[:-1], "late_items", "only_out", "turned_weights", "with_optimiser"]
    found = dict(zip(names, data.from_notebook("11", *names)))
    by = found.pop("with_optimiser")
    found |= {"torch.optim.SGD": by(), "foreach": by(foreach=True), "fused": by(fused=True)}

    def idiom(model, x, y, lr=0.1, bs=64):
        losses, accs, optim = [], [], torch.optim.SGD(model.parameters(), lr)
        for xb, yb in DataLoader(TensorDataset(x, y), bs):
            logits = model(xb)
            loss = F.cross_entropy(logits, yb)
            losses.append(loss.item())
            accs.append((logits.argmax(dim=1) == yb).float().mean().item())
            optim.zero_grad()
            loss.backward()
            optim.step()
        return losses

    def turned(model, x, y):
        return ours.limit_epoch(model, x, turned=True)

    return found | {"fast_epoch": ours.fast_epoch, "idiom": idiom, "limit": ours.limit_epoch, "limit, turned": turned}


def ladder(work, turns):
    "Return {name: {seconds of an epoch, to_fit, to_limit}}."
    from exp.nb_02 import MLP

    x, y = work.x[:SOME], work.y[:SOME]
    each = {name: lambda loop=loop, model=MLP(): loop(model, x, y) for name, loop in loops().items()}  # noqa: B008
    times = clock.in_turns(each, 5 * turns)
    to_fit, to_limit = clock.summed_up(times, "fitted"), clock.summed_up(times, "limit")
    epoch = len(work.x) / len(x)
    return {name: {"seconds": epoch * row["seconds"], "to_fit": to_fit[name]["ratio"], "to_limit": row["ratio"]}
            for name, row in to_limit.items()}  # fmt: skip


def batches(work, turns):
    "Return {bits: {size of the mini-batch: ratio to 32 bits and 64}}: an epoch each."
    import torch

    from exp import nb_11 as ours

    def epoch(size, bits):
        parameters = list(ours.MLP().parameters())
        w1, b1, w2, b2 = parameters
        for xb, yb in zip(work.x.split(size), work.y.split(size)):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bits == 16):
                logits = ours.F.linear(ours.F.linear(xb, w1, b1).relu(), w2, b2)
            loss = ours.F.cross_entropy(logits.float(), yb)
            with torch.no_grad():
                for p, grad in zip(parameters, torch.autograd.grad(loss, parameters)):
                    p.add_(grad, alpha=-0.1)

    pairs = [(bits, size) for bits in (32, 16) for size in SIZES]
    found = clock.summed_up(clock.in_turns({(b, s): lambda b=b, s=s: epoch(s, b) for b, s in pairs}, turns), (32, 64))
    return {str(bits): {str(size): found[bits, size]["ratio"] for size in SIZES} for bits in (32, 16)}


def layouts(work, turns, steps=5):
    "Return {kind: ratio}: a step of a CNN like chapter 07's, plain, channels last; and a step of the MLP."
    import torch
    from torch import nn

    from exp.nb_05 import AdamW
    from exp.nb_11 import F

    x, y = work.x[:64].view(-1, 1, 28, 28), work.y[:64]

    def net():
        convs = [nn.Conv2d(1, 24, 5, 2, 2), nn.Conv2d(24, 48, 3, 1, 1), nn.Conv2d(48, 96, 3, 1, 1)]
        layers = [convs[0], nn.ReLU(), *(each for conv in convs[1:] for each in (conv, nn.ReLU(), nn.MaxPool2d(2)))]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(864, 10))

    def training(model):
        optim = AdamW(model.parameters(), 0.001)

        def step():
            for _ in range(steps):
                F.cross_entropy(model(x), y).backward()
                optim.step()
                optim.zero_grad()

        return step

    mlp = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    each = {"plain": net(), "channels last": net().to(memory_format=torch.channels_last), "MLP": mlp}
    found = clock.summed_up(clock.in_turns({name: training(model) for name, model in each.items()}, 3 * turns), "plain")
    return {name: row["ratio"] for name, row in found.items()}


def feeding(work, turns):
    "Return the ratio of an epoch's shuffled mini-batches from mapped bytes to those from floats."
    import torch

    from exp import nb_11 as ours

    raw = (torch.rand(len(work.x), 784) * 255).byte()
    m, s = work.x.mean(), work.x.std()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bytes")
        path.write_bytes(raw.numpy().tobytes())
        mapped = ours.MappedDataset(path, work.y, [784], lambda b: (b.float() / 255 - m) / s)
        kinds = {"floats": ours.Dataset(work.x, work.y), "bytes": mapped}
        each = {kind: lambda ds=ds: sum(len(yb) for _, yb in ours.DataLoader(ds, 64, shuffle=True))
                for kind, ds in kinds.items()}  # fmt: skip
        return clock.summed_up(clock.in_turns(each, turns), "floats")["bytes"]["ratio"]


def workers(work, turns):
    "Return {kind of sample: {number of workers: wall seconds of an epoch}}: 320 that take 5 ms each, 6,400 in memory."
    import statistics

    from torch.utils.data import DataLoader

    from exp import nb_11 as ours

    found = {}
    for kind, ds in {"slow": ours.SlowDataset(work.x[:320], work.y[:320], 0.005),
                     "quick": ours.Dataset(work.x[:6_400], work.y[:6_400])}.items():  # fmt: skip
        times = {n: [] for n in WORKERS}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # four workers are too many for a core: that is measured here
            for n in [*WORKERS] * turns:
                began = time.perf_counter()
                assert sum(len(yb) for _, yb in DataLoader(ds, 64, num_workers=n)) == len(ds)
                times[n].append(time.perf_counter() - began)
        found[kind] = {str(n): statistics.median(each) for n, each in times.items()}
    return found


def threads(work, turns, cpus=None):
    "Return {alone, busy: {threads: ratio of wall seconds}}: 100 steps, to one thread alone, on two processors."
    import torch

    from exp.nb_02 import MLP

    loop, x, y = loops()["sliced"], work.x[:SOME], work.y[:SOME]
    kept = os.sched_getaffinity(0) if cpus else None
    if cpus:
        os.sched_setaffinity(0, cpus)
    times = {(kind, n): [] for kind in ("alone", "busy") for n in (1, 2)}
    try:
        for _ in range(turns + 1):
            for kind in ("alone", "busy"):
                neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) if kind == "busy" else None
                time.sleep(0.2)
                for n in (1, 2):
                    torch.set_num_threads(n)
                    loop(MLP(), x[:640], y[:640])
                    began = time.perf_counter()
                    loop(MLP(), x, y)
                    times[kind, n].append(time.perf_counter() - began)
                if neighbour:
                    neighbour.kill()
                    neighbour.wait()
    finally:
        torch.set_num_threads(1)
        if cpus:
            os.sched_setaffinity(0, kept)
    found = clock.summed_up({key: each[1:] for key, each in times.items()}, ("alone", 1))
    return {kind: {str(n): found[kind, n]["ratio"] for n in (1, 2)} for kind in ("alone", "busy")}


def measure(turns=TURNS, work=None, cpus=None):
    "Return all tables, and whether the target is met."
    work = work or data.load(machine.own_cpus())
    found = {"ladder": ladder(work, turns), "batches": batches(work, turns), "layouts": layouts(work, turns),
             "bytes": feeding(work, turns), "workers": workers(work, min(turns, 3)),
             "threads": threads(work, turns, cpus)}  # fmt: skip
    ratio = found["ladder"]["fast_epoch"]["to_limit"]
    return found | {"target": {"ratio": ratio, "at_most": MOST, "met": ratio <= MOST}}


def texts(found):
    "Return what the chapter's cells hold, by the names that they have there."
    def quotients(by_name):
        return " ".join(f"{ratio:.2f}" for ratio in by_name.values())

    rungs = [f"{name}: {row['to_fit']:.2f} {row['to_limit']:.2f}" for name, row in found["ladder"].items()]
    sizes = [f"{bits} bits: {quotients(by_size)}" for bits, by_size in found["batches"].items()]
    kinds = [f"{name}: {ratio:.3f}" for name, ratio in found["layouts"].items()]
    waits = [f"{kind}: {quotients(by_number)}" for kind, by_number in found["workers"].items()]
    beside = [f"{kind}: {quotients(by_number)}" for kind, by_number in found["threads"].items()]
    waits.append(f"bytes: {found['bytes']:.2f}")
    return {"neighbour": beside, "ladder": rungs, "sizes": sizes, "layouts": kinds, "waits": waits}


def markdown(found):
    "Return what results.md says of it."
    about = ("The loops of chapter 11: CPU seconds of an epoch, medians of 100 mini-batches at a time; the ratios "
             "within turns. One thread. The limit is that of the five matrix products.")
    order = sorted(found["ladder"].items(), key=lambda pair: -pair[1]["seconds"])
    rungs = [[f"`{name}`", f"{row['seconds']:.3f}", f"{row['to_fit']:.2f}", f"{row['to_limit']:.2f}"]
             for name, row in order]  # fmt: skip
    target = found["target"]
    said = (f"Target: `fast_epoch` takes {target['at_most']} times the limit at most. Found {target['ratio']:.2f}: "
            f"{'met' if target['met'] else '**missed**'}.")
    sizes = [[f"{bits} bits", *(f"{ratio:.2f}" for ratio in row.values())] for bits, row in found["batches"].items()]
    waits = [[kind, *(f"{seconds:.2f} s" for seconds in row.values())] for kind, row in found["workers"].items()]
    beside = [[kind, *(f"{ratio:.2f}" for ratio in row.values())] for kind, row in found["threads"].items()]
    more = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found["layouts"].items())
    head = ["loop", "seconds", "to fit", "to the limit"]
    return ["## From the readable loop to the limit", about, table(head, rungs), said,
            "An epoch of the functional loop by the size of its mini-batches, to 32 bits and 64:",
            table(["numbers of", *SIZES], sizes), f"A step of a small CNN, to the plain one: {more}.",
            f"Mini-batches from mapped bytes take {found['bytes']:.2f} times as long as from floats. An epoch of "
            "samples, by the number of workers (wall seconds):", table(["samples", *WORKERS], waits),
            "100 steps by threads, alone and beside one busy process on two processors (wall seconds, to one thread "
            "alone):", table(["the machine", "one thread", "two"], beside)]  # fmt: skip


def main():
    "Measure, and print it."
    cpus = machine.own_cpus()
    clock.settle(1, cpus)
    print(json.dumps(measure(cpus=cpus)))


if __name__ == "__main__":
    main()
