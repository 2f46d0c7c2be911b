"""Train with PyTorch what the page `docs/live.md` trains in the browser, and store the losses.

    make live        half a minute; writes runs.json beside this file

Each of the settings is trained for one epoch, twice: `plain`, with PyTorch as one calls it, and `wide`, with its
products added up in 64 bits and rounded once, as JavaScript does it. `make test` makes the first mini-batches of each
anew.
"""

import base64
import json
from pathlib import Path

import numpy
from torch import nn
from torch.nn import functional as F

from exp.nb_02 import (
    SGD,
    DataLoader,
    Dataset,
    History,
    Sequential,
    cross_entropy_loss,
    fit,
    get_mnist_data,
    normalize,
    set_seed,
    torch,
)

STORED = Path(__file__).with_name("runs.json")
IMAGES, VALID = 10_000, slice(50_000, 52_000)  # as many as the page holds
CHAPTER = {"lr": 0.1, "batch": 64, "hidden": 128, "momentum": 0, "scale": 1, "images": IMAGES, "order": "file",
           "drop": False, "seed": 42}  # fmt: skip
CHANGES = [
    {}, {"lr": 0.01}, {"lr": 0.3}, {"lr": 1}, {"lr": 10}, {"batch": 16}, {"batch": 256}, {"batch": 1024}, {"hidden": 1},
    {"hidden": 32}, {"hidden": 256}, {"momentum": 0.9}, {"momentum": 0.9, "lr": 0.01}, {"scale": 0}, {"scale": 3},
    {"images": 1000}, {"order": "shuffled"}, {"order": "sorted"}, {"seed": 1}, {"lr": 0.3, "batch": 303},
    {"lr": 0.3, "batch": 303, "drop": True}, {"order": "shuffled", "drop": True},
]  # fmt: skip


class Linear64(nn.Linear):
    "Store 32 bits, add up in 64, round once: forwards, and by autograd backwards too."

    def forward(self, x):
        return F.linear(x.double(), self.weight.double(), self.bias.double()).float()


def loss64(logits, y):
    "Return the loss of chapter 02, computed in 64 bits."
    return cross_entropy_loss(logits.double(), y)


KINDS = {"wide": (Linear64, loss64), "plain": (nn.Linear, cross_entropy_loss)}


def data():
    "Return the images of chapter 02, normalised, their labels, and the mean and standard deviation in 32 bits."
    x, y = get_mnist_data()
    m, s = x[:50_000].mean(), x[:50_000].std()
    return normalize(x, m, s), y, m.item(), s.item()


def arrange(x, y, images, order):
    "Return the training set: the first images, or these sorted by digit."
    x, y = x[:images], y[:images]
    if order == "sorted":
        by_digit = y.argsort(stable=True)
        x, y = x[by_digit], y[by_digit]
    return Dataset(x, y)


def train(kind, x, y, lr, batch, hidden, momentum, scale, images, order, drop, seed, steps=None):
    "Train for one epoch, or only some steps of it; return the history and the model."
    linear, criterion = KINDS[kind]
    set_seed(seed)
    model = Sequential(linear(784, hidden), nn.ReLU(), linear(hidden, 10))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    optim = torch.optim.SGD(model.parameters(), lr, momentum) if momentum else SGD(model.parameters(), lr)
    generator = torch.Generator().manual_seed(seed)
    ds = arrange(x, y, images, order)
    dataloader = DataLoader(ds, batch, order == "shuffled", generator, drop)
    history = History(kind)
    few = dataloader if steps is None else [pair for _, pair in zip(range(steps), dataloader)]
    fit(few, model, criterion, optim, valid=[(x[VALID], y[VALID])] if steps is None else None, history=history)
    return history, model


def pack(losses):
    "Write losses as base85 of 32-bit floats."
    return base64.b85encode(numpy.array(losses, "<f4").tobytes()).decode()


def unpack(text):
    "Read what `pack` wrote."
    return numpy.frombuffer(base64.b85decode(text), "<f4").tolist()


def run(x, y, settings):
    "Train both ways; return what runs.json says of it."
    histories = {kind: train(kind, x, y, **settings)[0] for kind in KINDS}
    valid = {"valid_loss": round(histories["wide"].valid_losses[0], 4), "valid_acc": histories["wide"].valid_accs[0]}
    return {"settings": settings} | valid | {kind: pack(history.losses) for kind, history in histories.items()}


def stored():
    "Return what runs.json holds."
    return json.loads(STORED.read_text(encoding="utf-8"))


def main():
    "Run them all."
    torch.set_num_threads(1)
    x, y, m, s = data()
    runs = []
    for change in CHANGES:
        runs.append(run(x, y, CHAPTER | change))
        print(change or "the chapter's settings", runs[-1]["valid_loss"], f"{runs[-1]['valid_acc']:.1%}", flush=True)
    found = {"torch": torch.__version__.partition("+")[0], "mean": m, "deviation": s, "runs": runs}
    STORED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
