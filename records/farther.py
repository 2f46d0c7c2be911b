"""Chapter 08: the net of records/fashion.py, once, in 32 bits and for thirty epochs: how far in less than an hour?

Larger shifts, and holes besides; else the same settings. Another record, for it was made on another processor.
"""

from records.fashion import DIGITS, FINAL, LOSSES, SEEDS, fingerprint, run

__all__ = ["DIGITS", "LOSSES", "fingerprint", "run"]


def settings():
    "List the one run."
    augment = {"flip": 0.5, "shift": 2, "erase": 8}
    return [FINAL | {"augment": augment, "epochs": 30, "bits": 32, "seed": SEEDS[0]}]


def proved(setting):
    "Tell that it has a fingerprint."
    return True


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    [run] = runs
    accuracies, seconds = (100 * run["epochs"][-1][2], 100 * run["mirrored"]), run["clock"][-1]
    return {"farther": [f"once, twice: {accuracies[0]:.2f} {accuracies[1]:.2f}",
                        f"CPU seconds, epochs of the MLP: {seconds:.0f} {seconds / run['mlp']:.0f}"]}  # fmt: skip
