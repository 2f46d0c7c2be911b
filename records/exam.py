"""Chapter 14: the nets that sit the exam. Each is a recipe of chapter 08.

Of each net its losses are kept, its validation accuracy, and the SHA-256 of its weights. The weights themselves lie in
`.proofs/exam/`, not in the repository; `python -m tools.exam` asks them. This module never reads a test image.
"""

import hashlib

from exp.nb_08 import RECIPE, data_of, first_losses, prepare, torch
from exp.nb_08 import fingerprint as of_recipe
from records.fashion import FINAL, MNIST
from tools.chapters import ROOT

LOSSES, DIGITS = 20, 9
WEIGHTS = ROOT / ".proofs" / "exam"

ON_MNIST = RECIPE | {"data": "mnist", "mean": 0.1307, "std": 0.3081, "norm": "none", "shortcut": None,
                     "weight_decay": 0.0}  # fmt: skip
TWO_LAYERS = ON_MNIST | {"plan": "flat 784, linear 128, relu, linear 10", "optimiser": "SGD", "lr": 0.1,
                         "rate": "constant", "batch_size": 64}  # fmt: skip
BEST_MLP = ON_MNIST | {"plan": "flat 784, linear 512, relu, linear 256, relu, linear 10", "epochs": 8, "lr": 0.002,
                       "augment": {"shift": 1, "rotate": 10}, "weight_decay": 0.02}  # fmt: skip
SHORT = {"epochs": 3, "bits": 32}  # records/fashion.py, but shorter; this processor has no instructions for 16 bits
NETS = {  # what the chapter calls it: its recipe
    "MLP, 1 epoch": TWO_LAYERS | {"epochs": 1, "seed": 42},
    "MLP, 20 epochs": TWO_LAYERS | {"epochs": 20, "lr": 0.05, "momentum": 0.9, "seed": 42},
    **{f"best MLP, {seed}": BEST_MLP | {"seed": seed} for seed in range(3)},
    "CNN, 1 epoch": ON_MNIST | {"plan": "conv 16 2, conv 32, pool, conv 64, pool, flat 9, linear 10", "epochs": 1,
                                "seed": 42},
    "record CNN": FINAL | MNIST | SHORT | {"seed": 10},
    "Fashion, MLP": TWO_LAYERS | {"data": "fashion", "mean": 0.286, "std": 0.353, "epochs": 1, "seed": 42},
    "Fashion, record CNN": FINAL | SHORT | {"epochs": 2, "seed": 10},
}  # fmt: skip


def settings():
    "List the recipes."
    return list(NETS.values())


def name_of(setting):
    "Return what the chapter calls a net."
    return next(name for name, recipe in NETS.items() if recipe == setting)


def file_of(setting):
    "Return where the weights of a net lie."
    return WEIGHTS / f"{name_of(setting).replace(', ', '-').replace(' ', '-')}.pt"


def digest(state):
    "Return the SHA-256 of weights: their names, shapes and bytes."
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {list(tensor.shape)} {tensor.dtype};".encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def run(setting, steps=None):
    "Train one net, or only its first mini-batches; keep its weights aside, and return their digest."
    if steps is not None:
        return {"losses": first_losses(setting, steps)}
    learner, train, valid = prepare(setting, data_of(setting))
    history = learner.fit(train, setting["epochs"], valid=valid)
    epochs = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in history.epochs]
    state = {name: tensor.contiguous() for name, tensor in learner.model.state_dict().items()}
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    torch.save(state, file_of(setting))
    return {"losses": history.losses, "epochs": epochs, "weights": digest(state)}


def fingerprint(setting, steps):
    "Return the first losses in 64 bits."
    return of_recipe(setting, steps)


def proved(setting):
    "Tell which nets have a fingerprint: one of each kind."
    return not (name_of(setting).startswith("best MLP") and setting["seed"])
