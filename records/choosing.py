"""Chapter 14: fifty settings of a small MLP, on 10,000 images. Which is best, and how much does choosing flatter?

Of each net it is kept which of 20,000 other training images it has right, a bit for each: images 20,000 to 40,000, of
which the chapter draws validation sets of every size, while the others tell the truth.
"""

import base64
import random
import zlib

import numpy
from torch import nn

from exp.nb_08 import (
    SGD,
    AdamW,
    DataLoader,
    Dataset,
    Learner,
    Rate,
    cross_entropy_loss,
    get_mnist_data,
    normalize,
    one_cycle,
    set_seed,
    torch,
)

POOL = slice(20_000, 40_000)
EPOCHS = 4


def settings():
    "List fifty settings, drawn at random, as one who looks for a good one would draw them."
    chance, found = random.Random(14), []
    for seed in range(50):
        found.append({"model": "MLP", "optimiser": chance.choice(["SGD", "AdamW"]), "rate": "one cycle",
                      "hidden": chance.choice([48, 64, 96, 128]), "dropout": chance.choice([0.0, 0.1, 0.2]),
                      "power": chance.choice([-0.5, -0.25, 0.0, 0.25]), "epochs": EPOCHS, "seed": seed})  # fmt: skip
    return found


def run(setting, steps=None):
    "Train one net, or only its first mini-batches."
    x, y = get_mnist_data()
    x = normalize(x, 0.1307, 0.3081)
    set_seed(setting["seed"])
    hidden, sgd = setting["hidden"], setting["optimiser"] == "SGD"
    model = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Dropout(setting["dropout"]), nn.Linear(hidden, 10))
    train = DataLoader(Dataset(x[:10_000], y[:10_000]), 128, True, torch.Generator().manual_seed(setting["seed"]),
                       drop_last=True)  # fmt: skip
    rate = (0.3 if sgd else 0.006) * 10 ** setting["power"]
    optim = (SGD if sgd else AdamW)(model.parameters(), rate)
    total = len(train) * EPOCHS
    learner = Learner(model, cross_entropy_loss, optim, [Rate(one_cycle(total))])
    if steps is not None:
        return {"losses": learner.fit([pair for pair, _ in zip(train, range(steps))]).losses}
    pool = Dataset(x[POOL], y[POOL])
    history = learner.fit(train, EPOCHS, valid=DataLoader(pool, 2_000))
    with torch.no_grad():
        right = model.eval()(pool.x).argmax(1) == pool.y
    epochs = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in history.epochs]
    return {"losses": history.losses, "epochs": epochs, "right": pack(right)}


def pack(right):
    "Write bits as text."
    return base64.b85encode(zlib.compress(numpy.packbits(right.numpy()).tobytes(), 9)).decode()
