"""Chapter 14: how much data? The MLP of chapter 02 on 100 to 50,000 images, five seeds, as many steps for all.

SGD at 0.1, falling to 0 as a cosine; mini-batches of 50; 3,000 steps, and 1,000. What is kept is the error on the
10,000 validation images.
"""

import itertools
import statistics

from torch import nn

from exp.nb_08 import (
    SGD,
    DataLoader,
    Dataset,
    Learner,
    Rate,
    cosine_decay,
    cross_entropy_loss,
    get_mnist_data,
    normalize,
    set_seed,
    torch,
)

SIZES = (100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
SEEDS, STEPS = (1, 2, 3, 4, 5), (3_000, 1_000)


def settings():
    "List all runs."
    return [{"model": "MLP", "optimiser": "SGD", "rate": f"cosine, {steps}", "steps": steps, "images": n, "epochs": 1,
             "seed": seed} for steps in STEPS for n in SIZES for seed in SEEDS]  # fmt: skip


class Passes:
    "Yield so many mini-batches, of as many passes over a data loader as it takes."
    def __init__(self, loader, count):
        self.loader, self.count = loader, count

    def __len__(self):
        return self.count

    def __iter__(self):
        return itertools.islice(itertools.chain.from_iterable(itertools.repeat(self.loader)), self.count)


def run(setting, steps=None):
    "Train one net, or only its first mini-batches. A run is one *epoch*, however often it sees an image."
    x, y = get_mnist_data()
    x = normalize(x, 0.1307, 0.3081)
    set_seed(setting["seed"])
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    chance = torch.Generator().manual_seed(setting["seed"])
    those = torch.randperm(50_000, generator=chance)[: setting["images"]]
    loader = DataLoader(Dataset(x[those], y[those]), 50, True, chance)
    batches = Passes(loader, setting["steps"] if steps is None else steps)
    learner = Learner(model, cross_entropy_loss, SGD(model.parameters(), 0.1), [Rate(cosine_decay(setting["steps"]))])
    valid = DataLoader(Dataset(x[50_000:], y[50_000:]), 2_000) if steps is None else None
    history = learner.fit(batches, valid=valid)
    return {"losses": history.losses,
            "epochs": [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in history.epochs]}  # fmt: skip


def errors(runs):
    "Return {steps: {images: the errors of the seeds, in percent}}."
    found = {steps: {n: [] for n in SIZES} for steps in STEPS}
    for run in runs:
        found[run["setting"]["steps"]][run["setting"]["images"]].append(100 - 100 * run["epochs"][-1][2])
    return found


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    found = errors(runs)
    return {f"learned_{steps}": [f"{n}: " + " ".join(f"{error:.2f}" for error in row) for n, row in rows.items()]
            for steps, rows in found.items()}  # fmt: skip


def mean_and_error(row):
    "Return the mean of a row and its standard error."
    return statistics.mean(row), statistics.stdev(row) / len(row) ** 0.5
