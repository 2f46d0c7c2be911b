"""Chapter 05: which optimiser is best? An MLP 784-128-10 on 50,000 images of MNIST, batches of 64, none short.

Each optimiser runs with four rates on three seeds, at a constant rate and with 100 steps of warm-up, then a cosine to
zero. The rate of the highest mean accuracy is its own. With it, it runs on five other seeds. The same seeds mean the
same weights and the same mini-batches for all. Then what the chapter claims besides: ten epochs, the rules of the
traps, averaged weights, a short last mini-batch.
"""

import functools
import statistics
from itertools import islice

from bench.data import from_notebook
from exp.nb_05 import (
    MLP,
    SGD,
    Adam,
    AdamW,
    Average,
    DataLoader,
    Dataset,
    Learner,
    Muon,
    Rate,
    RMSprop,
    Together,
    cross_entropy_loss,
    evaluate,
    get_mnist_data,
    normalize,
    set_seed,
    torch,
    warm_up_cosine,
)

TUNED_ON, JUDGED_ON = (0, 1, 2), (10, 11, 12, 13, 14)
GRIDS = {  # optimiser: rates at a constant rate, and with warm-up and cosine
    "SGD": ((0.05, 0.1, 0.2, 0.4), (0.1, 0.2, 0.4, 0.8)),
    "momentum": ((0.005, 0.01, 0.02, 0.04), (0.01, 0.02, 0.04, 0.08)),
    "RMSprop": ((0.00025, 0.0005, 0.001, 0.002), (0.001, 0.002, 0.004, 0.008)),
    "Adam": ((0.0005, 0.001, 0.002, 0.004), (0.001, 0.002, 0.004, 0.008)),
    "AdamW": ((0.0005, 0.001, 0.002, 0.004), (0.001, 0.002, 0.004, 0.008)),
    "Muon": ((0.00125, 0.0025, 0.005, 0.01), (0.005, 0.01, 0.02, 0.04)),
}
BEST = {  # the rates that `choose` finds in the grid
    ("SGD", "constant"): 0.2, ("SGD", "cosine"): 0.4,
    ("momentum", "constant"): 0.02, ("momentum", "cosine"): 0.04,
    ("RMSprop", "constant"): 0.0005, ("RMSprop", "cosine"): 0.004,
    ("Adam", "constant"): 0.001, ("Adam", "cosine"): 0.004,
    ("AdamW", "constant"): 0.001, ("AdamW", "cosine"): 0.004,
    ("Muon", "constant"): 0.0025, ("Muon", "cosine"): 0.02,
}  # fmt: skip
LONGER = (("SGD", 10), ("AdamW", 7), ("AdamW", 10), ("Muon", 10))  # with their epochs
VARIANTS = ("UncorrectedAdam", "RootedAdam", "Adam, L2 0.1", "AdamW, no bias decay")


def setting(optimiser, rate, lr, seed, epochs=3, **more):
    "Return a setting as it is stored."
    return {"optimiser": optimiser, "rate": rate, "lr": lr, "seed": seed, "epochs": epochs, **more}


def settings():
    "List all runs."
    grid = [setting(name, rate, lr, seed) for name, both in GRIDS.items()
            for rate, lrs in zip(("constant", "cosine"), both) for lr in lrs for seed in TUNED_ON]  # fmt: skip
    judged = [setting(name, rate, lr, seed) for (name, rate), lr in BEST.items() for seed in JUDGED_ON]
    longer = [setting(name, "cosine", BEST[name, "cosine"], seed, epochs)
              for name, epochs in LONGER for seed in JUDGED_ON[:3]]  # fmt: skip
    variants = [setting(name, "constant", 0.001, seed) for name in VARIANTS for seed in JUDGED_ON]
    short = [setting(name, "constant", BEST[name, "constant"], seed, short=True)
             for name in ("SGD", "RMSprop", "Adam") for seed in JUDGED_ON]  # fmt: skip
    averaged = [setting("SGD", "constant", 0.4, seed, average=0.998) for seed in JUDGED_ON]
    return grid + judged + variants + short + averaged + longer


@functools.cache
def data():
    "Return training set and validation set, normalised as in chapter 02."
    x, y = get_mnist_data()
    m, s = x[:50_000].mean(), x[:50_000].std()
    x = normalize(x, m, s)
    return Dataset(x[:50_000], y[:50_000]), DataLoader(Dataset(x[50_000:], y[50_000:]), batch_size=5_000)


def optimiser(name, parameters, lr):
    "Make an optimiser of the comparison, or one of the chapter's traps."
    ps = list(parameters)
    matrices, biases = [p for p in ps if p.dim() == 2], [p for p in ps if p.dim() != 2]
    if name in ("UncorrectedAdam", "RootedAdam"):
        return from_notebook("05", name)[0](ps, lr)
    make = {
        "SGD": lambda: SGD(ps, lr),
        "momentum": lambda: SGD(ps, lr, momentum=0.9),
        "RMSprop": lambda: RMSprop(ps, lr),
        "Adam": lambda: Adam(ps, lr),
        "AdamW": lambda: AdamW(ps, lr, weight_decay=0.1),
        "Muon": lambda: Together(Muon(matrices, lr), AdamW(biases, 0.001)),
        "Adam, L2 0.1": lambda: Adam(ps, lr, weight_decay=0.1),
        "AdamW, no bias decay": lambda: AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}], lr),
    }  # fmt: skip
    return make[name]()


def run(setting, steps=None):
    "Train with one setting, or only its first mini-batches; return losses, epochs and what else was measured."
    (train, valid), seed = data(), setting["seed"]
    set_seed(seed)
    model, order = MLP(), torch.Generator().manual_seed(seed)
    loader = DataLoader(train, shuffle=True, generator=order, drop_last=not setting.get("short"))
    optim = optimiser(setting["optimiser"], model.parameters(), setting["lr"])
    total = setting["epochs"] * len(loader)
    callbacks = [Rate(warm_up_cosine(total))] if setting["rate"] == "cosine" else []
    average = Average(setting["average"]) if "average" in setting else None
    learner = Learner(model, cross_entropy_loss, optim, callbacks + [average] * (average is not None))
    if steps is not None:
        return {"losses": learner.fit(list(islice(loader, steps))).losses}
    history = learner.fit(loader, setting["epochs"], valid=valid)
    found = {"losses": history.losses}
    found["epochs"] = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in history.epochs]
    if average:
        found["averaged"] = list(evaluate(valid, average.model, cross_entropy_loss))
    return found


# What the chapter shows of it


def accuracies(runs, name, rate, seeds, lr=None, epochs=3, part=2, **more):
    "Return the last accuracy (or loss: part 1) of each seed, in order."
    wanted = [setting(name, rate, lr or BEST[name, rate], seed, epochs, **more) for seed in seeds]
    by_setting = {str(run["setting"]): run["epochs"][-1][part] for run in runs}
    return [by_setting[str(each)] for each in wanted]


def choose(runs):
    "Return the rates of the highest mean accuracy on the seeds for tuning, {(optimiser, rate): lr}."
    def mean(name, rate, lr):
        return statistics.mean(accuracies(runs, name, rate, TUNED_ON, lr))

    return {(name, rate): max(lrs, key=lambda lr, n=name, r=rate: mean(n, r, lr))
            for name, both in GRIDS.items() for rate, lrs in zip(("constant", "cosine"), both)}  # fmt: skip


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    grid = []
    for name, both in GRIDS.items():
        for rate, lrs in zip(("constant", "cosine"), both):
            means = [100 * statistics.mean(accuracies(runs, name, rate, TUNED_ON, lr)) for lr in lrs]
            grid.append(f"{name}, {rate}: " + "  ".join(f"{lr:g} {mean:.2f}" for lr, mean in zip(lrs, means)))

    def row(label, *wanted, seeds=JUDGED_ON, **more):
        found = [accuracies(runs, *wanted, seeds=seeds, part=part, **more) for part in (2, 1)]
        return numbers(label, *found)

    five = [row(f"{name}, {rate}", name, rate) for name, rate in BEST]
    besides = [row(name, name, "constant", lr=0.001) for name in VARIANTS]
    besides += [row(f"{name}, short", name, "constant", short=True) for name in ("SGD", "RMSprop", "Adam")]
    wild = [run for run in runs if "averaged" in run]
    besides.append(row("SGD 0.4, raw", "SGD", "constant", lr=0.4, average=0.998))
    besides.append(numbers("SGD 0.4, averaged", *zip(*[run["averaged"][::-1] for run in wild])))
    besides += [row(f"{name}, {n} epochs", name, "cosine", seeds=JUDGED_ON[:3], epochs=n) for name, n in LONGER]
    seconds = [statistics.median(run["seconds"] for run in runs if run["setting"]["optimiser"] == name
                                 and run["setting"]["epochs"] == 3) for name in GRIDS]  # fmt: skip
    besides.append("time: " + " ".join(f"{each / seconds[0]:.1f}" for each in seconds))
    wanted = [setting(name, "constant", BEST[name, "constant"], JUDGED_ON[0]) for name in GRIDS]
    firsts = [next(run["first"] for run in runs if run["setting"] == each) for each in wanted]
    besides.append("first: " + " ".join(f"{statistics.mean(losses):.4f}" for losses in firsts))
    return {"grid": grid, "five": five, "besides": besides}


def numbers(label, accs, losses):
    "Write accuracies (%) and losses of some seeds as a row."
    return f"{label}: " + " ".join([f"{100 * acc:.2f}" for acc in accs] + [f"{loss:.4f}"[1:] for loss in losses])
