"""Chapter 07: what do convolutions buy? MNIST, 50,000 images, batches of 128, none short; five seeds for each run.

AdamW with one cycle, unless the optimiser is SGD: then batches of 64 and a constant rate, as in chapter 02. The same
seed means the same mini-batches for all. What is compared: an MLP and a CNN of equal parameters, of equal time, small
ones; pixels in one fixed disorder; images that are shifted, after training on images that are not, or that are; a net
under 30,000 parameters that passes 98.7 % in one epoch, with batch normalisation and with 16-bit floats besides.
"""

import functools
import statistics
from itertools import islice

from torch import nn

from exp.nb_05 import (
    SGD,
    AdamW,
    DataLoader,
    Dataset,
    Learner,
    Rate,
    cross_entropy_loss,
    evaluate,
    get_mnist_data,
    normalize,
    one_cycle,
    set_seed,
    torch,
)

TUNED_ON, SEEDS, MOST = (0, 1, 2), (10, 11, 12, 13, 14), 6


def mlp(n_hidden=128):
    "Return chapter 02's model, which takes images as rows of pixels."
    return [nn.Flatten(), nn.Linear(784, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 10)]


def cnn(*head):
    "Return two convolutions with stride 2, and a head."
    first, second = nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.Conv2d(8, 16, 3, stride=2, padding=1)
    return [first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), *head]


def three(*head):
    "Return three convolutions, and a head."
    layers = [nn.Conv2d(1, 16, 5, 2, 2), nn.Conv2d(16, 32, 3, 2, 1), nn.Conv2d(32, 48, 3, 1, 1)]
    return [part for layer in layers for part in (layer, nn.ReLU())] + list(head)


def fast(normalised=False):
    "Return three convolutions and two pools: under 30,000 parameters."
    layers = []
    for given, made, size, stride in ((1, 16, 5, 2), (16, 32, 3, 1), (32, 64, 3, 1)):
        layers.append(nn.Conv2d(given, made, size, stride, size // 2, bias=not normalised))
        layers += [nn.BatchNorm2d(made)] * normalised + [nn.ReLU()] + [nn.MaxPool2d(2)] * (given > 1)
    return [*layers, nn.Flatten(), nn.Linear(576, 10)]


MODELS = {  # name: its layers
    "MLP": mlp,
    "CNN": lambda: cnn(nn.Linear(784, 126), nn.ReLU(), nn.Linear(126, 10)),
    "small MLP": lambda: mlp(12),
    "small CNN": lambda: cnn(nn.Linear(784, 10)),
    "three, flat": lambda: three(nn.Flatten(), nn.Linear(2352, 10)),
    "three, pooled": lambda: three(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)),
    "fast": fast,
    "fast, normalised": lambda: fast(normalised=True),
}
GRID = {  # name: peaks of the rate that were tried, for one epoch
    **dict.fromkeys(("MLP", "CNN", "small MLP", "small CNN"), (0.0025, 0.005, 0.01, 0.02, 0.04)),
    "three, flat": (0.005, 0.01, 0.02, 0.04),
    "three, pooled": (0.005, 0.01, 0.02, 0.04, 0.08),
}
BEST = {  # the peaks that `choose` finds in the grid; the last two were not tuned
    "MLP": 0.01, "CNN": 0.02, "small MLP": 0.01, "small CNN": 0.02,
    "three, flat": 0.02, "three, pooled": 0.08, "fast": 0.01, "fast, normalised": 0.01,
}  # fmt: skip


def setting(model, epochs=1, seed=SEEDS[0], **more):
    "Return a setting as it is stored."
    common = {"model": model, "optimiser": "AdamW", "rate": "one cycle", "lr": BEST[model], "seed": seed}
    return {**common, "epochs": epochs, **more}


def plain(model, seed=SEEDS[0], **more):
    "Return a setting with chapter 02's optimiser."
    return setting(model, 1, seed) | {"optimiser": "SGD", "rate": "constant", "lr": 0.1, **more}


RUNS = {  # what the chapter calls it: a setting without its seed
    "MLP, 1 epoch": setting("MLP", shifts=True),
    "CNN, 1 epoch": setting("CNN", shifts=True),
    "MLP, 3 epochs": setting("MLP", 3),
    "CNN, 3 epochs": setting("CNN", 3),
    "MLP, 4 epochs": setting("MLP", 4),
    "MLP, 12 epochs": setting("MLP", 12),
    "small MLP, 1 epoch": setting("small MLP"),
    "small CNN, 1 epoch": setting("small CNN"),
    "small CNN, 3 epochs": setting("small CNN", 3),
    "MLP, SGD": plain("MLP"),
    "CNN, SGD": plain("CNN"),
    "MLP, SGD, short": plain("MLP", short=True),
    "CNN, SGD, short": plain("CNN", short=True),
    "MLP, permuted": setting("MLP", images="permuted"),
    "CNN, permuted": setting("CNN", images="permuted"),
    "fast": setting("fast"),
    "fast, normalised": setting("fast, normalised"),
    "fast, 16 bits": setting("fast", bits=16),
    "three, flat": setting("three, flat", 2, shifts=True),
    "three, pooled": setting("three, pooled", 2, shifts=True),
    "MLP, shifted": setting("MLP", 3, images="shifted", shifts=True),
    "CNN, shifted": setting("CNN", 1, images="shifted", shifts=True),
    "MLP, 4 epochs, 0.005": setting("MLP", 4, lr=0.005),
    "CNN, 1 epoch, 0.005": setting("CNN", lr=0.005),
    "three, pooled, 0.005": setting("three, pooled", 2, shifts=True, lr=0.005),
    "MLP, 3 epochs, 0.005": setting("MLP", 3, lr=0.005),
    "MLP, 12 epochs, 0.005": setting("MLP", 12, lr=0.005),
    "MLP, 12 epochs, 0.0025": setting("MLP", 12, lr=0.0025),
    "CNN, 3 epochs, 0.01": setting("CNN", 3, lr=0.01),
    "CNN, 3 epochs, 0.005": setting("CNN", 3, lr=0.005),
}


def settings():
    "List all runs."
    grid = [setting(model, 1, seed, lr=lr) for model, lrs in GRID.items() for lr in lrs for seed in TUNED_ON]
    return grid + [each | {"seed": seed} for each in RUNS.values() for seed in SEEDS]


@functools.cache
def data():
    "Return images [60000, 1, 28, 28], normalised as in chapter 02, and labels."
    x, y = get_mnist_data()
    return normalize(x, x[:50_000].mean(), x[:50_000].std()).view(-1, 1, 28, 28), y


def permuted(x):
    "Return images with their pixels in one fixed disorder."
    return x.flatten(1)[:, torch.randperm(784, generator=torch.Generator().manual_seed(0))].view_as(x)


def windows(x, most):
    "Return each image at every shift up to `most`: a view [n, 1, 2 most + 1, 2 most + 1, 28, 28]."
    padded = nn.functional.pad(x, [most] * 4, value=x.min().item())
    return padded.unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)


class Shifted:
    "Yield mini-batches of a data loader, each image shifted by up to four pixels at random."
    def __init__(self, loader, chance):
        self.loader, self.chance = loader, chance

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for xb, yb in self.loader:
            down, right = torch.randint(0, 9, (2, len(xb)), generator=self.chance)
            yield windows(xb, 4)[torch.arange(len(xb)), :, down, right], yb


class Half(Learner):
    "Compute the forward pass in bfloat16 where PyTorch's `autocast` says so."
    def forward(self, xb, yb):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model(xb)
        return logits.float(), self.criterion(logits.float(), yb)


def by_shift(model, x, y):
    "Return the accuracies on 2,500 images shifted by 0 … 6 pixels: means of the four directions."
    x, y, found = x[:2_500], y[:2_500], []
    for far in range(MOST + 1):
        places = [(MOST - far, MOST), (MOST + far, MOST), (MOST, MOST - far), (MOST, MOST + far)]
        accs = [evaluate(DataLoader(Dataset(windows(x, MOST)[:, :, i, j], y), 1_000), model, cross_entropy_loss)[1]
                for i, j in (places if far else places[:1])]  # fmt: skip
        found.append(statistics.mean(accs))
    return found


def run(setting, steps=None):
    "Train with one setting, or only its first mini-batches; return losses, epochs and what else was measured."
    (x, y), seed, images = data(), setting["seed"], setting.get("images")
    x = permuted(x) if images == "permuted" else x
    set_seed(seed)
    model, order = nn.Sequential(*MODELS[setting["model"]]()), torch.Generator().manual_seed(seed)
    sgd = setting["optimiser"] == "SGD"
    loader = DataLoader(Dataset(x[:50_000], y[:50_000]), 64 if sgd else 128, shuffle=True, generator=order,
                        drop_last=not setting.get("short"))  # fmt: skip
    valid = DataLoader(Dataset(x[50_000:], y[50_000:]), 1_000)
    total = setting["epochs"] * len(loader)
    optim = (SGD if sgd else AdamW)(model.parameters(), setting["lr"])
    if images == "shifted":
        loader = Shifted(loader, torch.Generator().manual_seed(seed + 100))
    kind = Half if setting.get("bits") == 16 else Learner
    learner = kind(model, cross_entropy_loss, optim, [] if sgd else [Rate(one_cycle(total))])
    if steps is not None:
        return {"losses": learner.fit(list(islice(loader, steps))).losses}
    history = learner.fit(loader, setting["epochs"], valid=valid)
    found = {"losses": history.losses}
    found["epochs"] = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in history.epochs]
    if setting.get("shifts"):
        found["shifts"] = [round(acc, 5) for acc in by_shift(model.eval(), x[50_000:], y[50_000:])]
    return found


# What the chapter shows of it


def choose(runs):
    "Return the peaks of the highest mean accuracy on the seeds for tuning, {model: lr}."
    by_setting = {str(run["setting"]): run["epochs"][-1][2] for run in runs}

    def mean(model, lr):
        return statistics.mean(by_setting[str(setting(model, 1, seed, lr=lr))] for seed in TUNED_ON)

    return {model: max(lrs, key=lambda lr, m=model: mean(m, lr)) for model, lrs in GRID.items()}


FIRST = ("MLP, 1 epoch", "CNN, 1 epoch", "fast")  # these the chapter runs anew


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    by_setting = {str(run["setting"]): run for run in runs}

    def found(label):
        return [by_setting[str(RUNS[label] | {"seed": seed})] for seed in SEEDS]

    def percent(numbers, form=".2f"):
        return " ".join(f"{100 * number:{form}}" for number in numbers)

    tuned = []
    for model, lrs in GRID.items():
        pairs = [(lr, [by_setting[str(setting(model, 1, seed, lr=lr))]["epochs"][-1][2] for seed in TUNED_ON])
                 for lr in lrs]  # fmt: skip
        tuned.append(f"{model}: " + "  ".join(f"{lr:g} {100 * statistics.mean(accs):.2f}" for lr, accs in pairs))
    five = [f"{label}: " + percent(run["epochs"][-1][2] for run in found(label)) for label in RUNS]
    shifts = {label: [run["shifts"] for run in found(label)] for label, each in RUNS.items() if "shifts" in each}
    moved = [f"{label}: " + percent(map(statistics.mean, zip(*rows)), ".1f") for label, rows in shifts.items()]
    at_four = [f"{label}: " + percent((row[4] for row in rows), ".1f") for label, rows in shifts.items()]
    firsts = "first: " + " ".join(f"{statistics.mean(found(label)[0]['first']):.4f}" for label in FIRST)
    return {"tuned": tuned, "judged": five[:13], "besides": five[13:], "moved": moved, "at_four": [*at_four, firsts]}
