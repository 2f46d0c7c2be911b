"""Chapter 08: what trains a deep stack of convolutions? Fashion-MNIST, 10,000 images, three epochs of 78 mini-batches.

A convolution with stride 2, three stages of blocks (two convolutions each), a mean, a linear layer. Plain, with batch
normalisation, with shortcuts, with both; with SGD and AdamW; from drawn and from measured first weights; from blocks
that start as the identity. Rates are tuned at depth 20, on a seed of their own; the same seed means the same images.
"""

import statistics

from exp.nb_08 import RECIPE, first_losses, prepare, stack_plan
from exp.nb_08 import fingerprint as of_recipe

TUNED_ON, SEEDS = 0, (10, 11, 12, 13, 14)
LOSSES, DIGITS = 50, 9
WIDTHS = (8, 16, 32)
SGD = {"optimiser": "SGD", "momentum": 0.9, "weight_decay": 0.0005}
ADAMW = {"optimiser": "AdamW", "weight_decay": 0.01}
KINDS = {  # name: what it changes
    "plain": {"norm": "none", "shortcut": None} | SGD,
    "plain, measured": {"norm": "none", "shortcut": None, "start": "measured"} | SGD,
    "plain, AdamW": {"norm": "none", "shortcut": None} | ADAMW,
    "plain, measured, AdamW": {"norm": "none", "shortcut": None, "start": "measured"} | ADAMW,
    "shortcuts": {"norm": "none", "shortcut": "zeros"} | SGD,
    "shortcuts, identity": {"norm": "none", "shortcut": "zeros", "start": "identity"} | SGD,
    "norm": {"norm": "batch", "shortcut": None} | SGD,
    "norm, shortcuts": {"norm": "batch", "shortcut": "zeros"} | SGD,
    "norm, shortcuts, identity": {"norm": "batch", "shortcut": "zeros", "start": "identity"} | SGD,
}
GRID = {  # name: peaks of the rate that were tried at depth 20
    "plain": (0.0008, 0.0016, 0.003, 0.006, 0.0125, 0.05),
    "plain, measured": (0.0008, 0.0016, 0.003, 0.006, 0.0125, 0.05),
    "plain, AdamW": (0.001, 0.002, 0.004, 0.008),
    "plain, measured, AdamW": (0.001, 0.002, 0.004, 0.008),
    "shortcuts": (0.003, 0.0125, 0.05),
    "shortcuts, identity": (0.0125, 0.05, 0.2),
    "norm": (0.0125, 0.05, 0.2, 0.8),
    "norm, shortcuts": (0.0125, 0.05, 0.2, 0.8),
    "norm, shortcuts, identity": (0.0125, 0.05, 0.2, 0.8),
}
BEST = {  # the peaks that `choose` finds in the grid
    "plain": 0.003, "plain, measured": 0.003, "plain, AdamW": 0.004, "plain, measured, AdamW": 0.008,
    "shortcuts": 0.0125, "shortcuts, identity": 0.05, "norm": 0.2, "norm, shortcuts": 0.2,
    "norm, shortcuts, identity": 0.2,
}  # fmt: skip
JUDGED = {kind: (20,) for kind in KINDS} | {  # depths of five seeds
    "plain": (8, 20),
    "norm": (8, 20, 32),
    "norm, shortcuts": (8, 20, 32),
}  # fmt: skip


def setting(kind, depth=20, seed=SEEDS[0], lr=None):
    "Return a setting as it is stored: a recipe of chapter 08."
    own = {"images": 10_000, "plan": stack_plan(depth, WIDTHS), "lr": BEST[kind] if lr is None else lr, "seed": seed}
    return RECIPE | own | KINDS[kind]


def settings():
    "List all runs."
    grid = [setting(kind, 20, TUNED_ON, lr) for kind, lrs in GRID.items() for lr in lrs]
    return grid + [setting(kind, depth, seed) for kind, depths in JUDGED.items() for depth in depths for seed in SEEDS]


def run(setting, steps=None):
    "Train with one setting, or only its first mini-batches; return losses and epochs."
    if steps is not None:
        return {"losses": first_losses(setting, steps)}
    learner, train, valid = prepare(setting)
    history = learner.fit(train, setting["epochs"], valid=valid)
    epochs = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in history.epochs]
    return {"losses": history.losses, "epochs": epochs, "late": round(statistics.mean(history.losses[-50:]), 4)}


def fingerprint(setting, steps):
    "Return the first losses in 64 bits."
    return of_recipe(setting, steps)


def proved(setting):
    "Tell which runs have a fingerprint: one of each kind."
    return setting["seed"] == SEEDS[0]


# What the chapter shows of it


def choose(runs):
    "Return the peaks of the highest accuracy on the seed for tuning, {kind: lr}."
    found = {str(run["setting"]): run["epochs"][-1][2] for run in runs}
    return {kind: max(lrs, key=lambda lr, k=kind: found[str(setting(k, 20, TUNED_ON, lr))])
            for kind, lrs in GRID.items()}  # fmt: skip


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    found = {str(run["setting"]): 100 * run["epochs"][-1][2] for run in runs}
    tuned = [f"{kind}: " + "  ".join(f"{lr:g} {found[str(setting(kind, 20, TUNED_ON, lr))]:.1f}" for lr in lrs)
             for kind, lrs in GRID.items()]  # fmt: skip
    deep = [f"{kind}, {depth}: " + " ".join(f"{found[str(setting(kind, depth, seed))]:.1f}" for seed in SEEDS)
            for kind, depths in JUDGED.items() for depth in depths]  # fmt: skip
    return {"tuned": tuned, "deep": deep}
