"""Chapter 08: what does augmentation buy? 10,000 images, ten epochs, two convolutions and two linear layers.

Fashion-MNIST and MNIST, five seeds each; the same seed means the same weights, the same mini-batches, and, where two
runs share a change, the same chances. Each net is also judged on the images that it trained on, as they are, and on
the mean of its log-probabilities for an image and its mirror image.
"""

import statistics

from exp.nb_08 import (
    RECIPE,
    DataLoader,
    Dataset,
    data_of,
    evaluate,
    first_losses,
    mirrored,
    prepare,
    soft_cross_entropy,
)
from exp.nb_08 import fingerprint as of_recipe

SEEDS = (10, 11, 12, 13, 14)
LOSSES, DIGITS = 50, 9
PLAN = "conv 16 2, conv 32 2, flat 49, linear 64, relu, linear 10"
CHANGES = {  # name: what it changes
    "none": {},
    "flip": {"augment": {"flip": 0.5}},
    "shift": {"augment": {"shift": 1}},
    "rotate": {"augment": {"rotate": 10}},
    "erase": {"augment": {"erase": 8}},
    "flip, shift": {"augment": {"flip": 0.5, "shift": 1}},
    "mixup": {"mixup": 0.4},
    "smoothing": {"smoothing": 0.1},
}
RUNS = {f"fashion, {name}": change for name, change in CHANGES.items()} | {
    "mnist, none": {}, "mnist, flip": {"augment": {"flip": 0.5}}, "mnist, shift": {"augment": {"shift": 1}},
}  # fmt: skip
MNIST = {"data": "mnist", "mean": 0.1307, "std": 0.3081}


def setting(name, seed=SEEDS[0]):
    "Return a setting as it is stored: a recipe of chapter 08."
    own = {"images": 10_000, "plan": PLAN, "epochs": 10, "seed": seed}
    return RECIPE | own | (MNIST if name.startswith("mnist") else {}) | RUNS[name]


def settings():
    "List all runs."
    return [setting(name, seed) for name in RUNS for seed in SEEDS]


def run(setting, steps=None):
    "Train with one setting, or only its first mini-batches; return losses, epochs and what else was measured."
    if steps is not None:
        return {"losses": first_losses(setting, steps)}
    data = data_of(setting)
    learner, train, valid = prepare(setting, data)
    history = learner.fit(train, setting["epochs"], valid=valid)
    epochs = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in history.epochs]
    shown = DataLoader(Dataset(*(part[: setting["images"]] for part in data)), 1_000)
    seen = evaluate(shown, learner.model, soft_cross_entropy)
    both = evaluate(valid, mirrored(learner.model), soft_cross_entropy)
    return {"losses": history.losses, "epochs": epochs, "seen": [round(number, 5) for number in seen],
            "mirrored": round(both[1], 5)}  # fmt: skip


def fingerprint(setting, steps):
    "Return the first losses in 64 bits."
    return of_recipe(setting, steps)


def proved(setting):
    "Tell which runs have a fingerprint: one of each kind."
    return setting["seed"] == SEEDS[0]


# What the chapter shows of it

PROVED = "fashion, flip"  # its first mini-batches the chapter runs anew


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    by_setting = {str(run["setting"]): run for run in runs}

    def found(name):
        return [by_setting[str(setting(name, seed))] for seed in SEEDS]

    def percent(name, of):
        return f"{name}: " + " ".join(f"{100 * of(run):.2f}" for run in found(name))

    def gap(name):
        rows = [[100 * run["seen"][1], 100 * run["epochs"][-1][2], run["seen"][0], run["epochs"][-1][1]]
                for run in found(name)]  # fmt: skip
        return f"{name}: " + " ".join(f"{statistics.mean(column):.2f}" for column in zip(*rows))

    first = by_setting[str(setting(PROVED))]
    return {"judged": [percent(name, lambda run: run["epochs"][-1][2]) for name in RUNS],
            "gaps": [gap(name) for name in RUNS],
            "twice": [percent(name, lambda run: run["mirrored"]) for name in RUNS],
            "proof": in_rows("64 bits", first["fingerprint"], 4) + in_rows("32 bits", first["first"], 6)}  # fmt: skip


def in_rows(label, numbers, each):
    "Return rows of a few numbers, with all their digits."
    return [f"{label}, {i + 1}: " + " ".join(map(repr, numbers[i : i + each])) for i in range(0, len(numbers), each)]
