"""Chapter 08: how far in how long? Fashion-MNIST, 50,000 images, one thread; and MNIST, once.

A net of 117,000 weights, with flips, shifts and softened labels, AdamW and one cycle, in 16-bit floats where PyTorch's
`autocast` says so. Each run notes the CPU seconds at the end of each epoch, and what one epoch of chapter 02's MLP took
right before it, in the same process. Both on a machine that others used.
"""

import statistics
import time

from torch import nn

from exp.nb_08 import (
    RECIPE,
    SGD,
    Callback,
    DataLoader,
    Dataset,
    Learner,
    Sequential,
    cross_entropy_loss,
    data_of,
    evaluate,
    first_losses,
    mirrored,
    prepare,
    set_seed,
    soft_cross_entropy,
)
from exp.nb_08 import fingerprint as of_recipe

SEEDS = (10, 11, 12, 13, 14)
LOSSES, DIGITS = 50, 9
PLAN = "conv 16, pool 2, conv 32, block 32, pool 2, conv 64, block 64, max, linear 10"
FINAL = RECIPE | {"plan": PLAN, "augment": {"flip": 0.5, "shift": 1}, "smoothing": 0.1, "weight_decay": 0.02,
                  "epochs": 8, "bits": 16}  # fmt: skip
MNIST = {"data": "mnist", "mean": 0.1307, "std": 0.3081, "augment": {"shift": 1, "rotate": 10}}


def settings():
    "List all runs."
    return [*(FINAL | {"seed": seed} for seed in SEEDS), FINAL | MNIST | {"seed": SEEDS[0]}]


class Clock(Callback):
    "Note the CPU seconds since the start at the end of each epoch, validation included."
    state_names = ()

    def before_fit(self, learner):
        self.began, self.seconds = time.process_time(), []

    def after_epoch(self, learner):
        self.seconds.append(round(time.process_time() - self.began, 1))


def mlp_epoch(data):
    "Return the CPU seconds of an epoch of chapter 02's MLP, batches of 64."
    set_seed(0)
    model = Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    train = DataLoader(Dataset(data[0][:50_000].flatten(1), data[1][:50_000]), 64, True)
    learner = Learner(model, cross_entropy_loss, SGD(model.parameters(), 0.1))
    began = time.process_time()
    learner.fit(train)
    return time.process_time() - began


def run(setting, steps=None):
    "Train with one setting, or only its first mini-batches; return losses, epochs and what else was measured."
    if steps is not None:
        return {"losses": first_losses(setting, steps)}
    data = data_of(setting)
    before = [mlp_epoch(data) for _ in range(3)]
    learner, train, valid = prepare(setting, data)
    learner.callbacks.append(clock := Clock())
    history = learner.fit(train, setting["epochs"], valid=valid)
    epochs = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in history.epochs]
    in_32 = evaluate(valid, learner.model, soft_cross_entropy)[1]
    both = evaluate(valid, mirrored(learner.model), soft_cross_entropy)[1]
    return {"losses": history.losses, "epochs": epochs, "clock": clock.seconds,
            "mlp": round(statistics.median(before), 2), "in_32": in_32, "mirrored": both}  # fmt: skip


def fingerprint(setting, steps):
    "Return the first losses in 64 bits."
    return of_recipe(setting, steps)


def proved(setting):
    "Tell which runs have a fingerprint: one of each data set, for 50 mini-batches in 64 bits take half a minute."
    return setting["seed"] == SEEDS[0]


# What the chapter shows of it


def names_of(setting):
    "Return what the chapter calls a run."
    if setting["data"] == "mnist":
        return f"MNIST, {setting['epochs']} epochs"
    return f"{setting['epochs']} epochs"


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    kinds = {}
    for run in runs:
        kinds.setdefault(names_of(run["setting"]), []).append(run)

    def row(name, numbers, form=".2f"):
        return f"{name}: " + " ".join(f"{number:{form}}" for number in numbers)

    reached = [row(name, [100 * run["epochs"][-1][2] for run in held]) for name, held in kinds.items()]
    seconds = [row(name, [statistics.median(run["clock"][-1] for run in held),
                          statistics.median(run["clock"][-1] / run["mlp"] for run in held)], ".0f")
               for name, held in kinds.items()]  # fmt: skip
    curves = [row(name, [100 * statistics.mean(accs) for accs in
                         zip(*([epoch[2] for epoch in run["epochs"]] for run in held))], ".1f")
              for name, held in kinds.items() if name[0].isdigit()]  # fmt: skip
    both = [row(name, [100 * run["mirrored"] for run in held]) for name, held in kinds.items() if name[0].isdigit()]
    begun = [f"{bits} bits: " + " ".join(repr(number) for number in numbers[:3])
             for bits, numbers in ((64, runs[0]["fingerprint"]), (16, runs[0]["first"]))]  # fmt: skip
    return {"reached": reached, "seconds": seconds, "curves": curves, "asked_twice": both, "begun": begun}
