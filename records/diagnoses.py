"""Chapter 13: what `diagnose` says of every set-up of the gallery, before training; two seeds each.

The losses are those of the first mini-batches, trained *after* the diagnosis: it leaves no trace, so they are those of
the record `debugging`.
"""

from exp.nb_13 import diagnose
from records.debugging import SEEDS, SETUPS


def setting(name, seed):
    "Return a setting as it is stored."
    common = {"model": "MLP", "optimiser": "SGD", "rate": "constant", "epochs": 0}
    return {"setup": name, "seed": seed, **common}


def settings():
    "List all runs."
    return [setting(name, seed) for seed in SEEDS[:2] for name in SETUPS]


def run(setting, steps=None):
    "Diagnose one set-up, and train its first mini-batches."
    setup = SETUPS[setting["setup"]](setting["seed"])
    if steps is not None:
        return {"losses": setup.run(steps).losses}
    parts = setup.step, setup.model, setup.criterion, setup.optim, setup.batches
    report = diagnose(*parts, setup.evaluate, setup.valid_dl)
    losses = SETUPS[setting["setup"]](setting["seed"]).run(20).losses
    return {"losses": losses, "epochs": [], "found": report.found, "not_looked": list(report.not_looked)}
