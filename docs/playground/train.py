"""Train with every combination of some learning rates and batch sizes, and store a picture and the figures of each run.

    make playground        about a minute; writes the pictures and runs.json beside this file

The site shows the pictures; nothing is computed in the browser. `make test` makes one run anew.
"""

import itertools
import json
from pathlib import Path

import torch
from torch import nn

from exp.nb_02 import *

RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
BATCH_SIZES = [16, 64, 256, 1024]
FOLDER = Path(__file__).parent


def data():
    "Return the training and the validation set of chapter 02, normalised."
    x, y = get_mnist_data()
    m, s = x[:50_000].mean(), x[:50_000].std()
    x = normalize(x, m, s)
    return Dataset(x[:50_000], y[:50_000]), Dataset(x[50_000:], y[50_000:])


def train(rate, batch_size, train_ds, valid_ds):
    "Train for one epoch; return the history and whether it diverged."
    set_seed(42)
    model = Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    loader = DataLoader(train_ds, batch_size, shuffle=True, generator=torch.Generator().manual_seed(7))
    history, valid = History(f"lr {rate:g}, batch {batch_size}"), DataLoader(valid_ds, 10_000)
    try:
        fit(loader, model, cross_entropy_loss, SGD(model.parameters(), rate), valid=valid, history=history)
    except FloatingPointError:
        return history, True
    return history, history.valid_losses[-1] > 2.31


def draw(history, words):
    "Draw loss and accuracy on the same axes for every run, so that runs can be compared."
    fig, axes = canvas(1, 2, width=6.4, height=2.4)
    images = [seen / 1000 for seen in itertools.accumulate(history.sizes)]
    series = [(history.losses, "loss (nats)", (0, 3)), ([100 * a for a in history.accs], "accuracy (%)", (0, 100))]
    for ax, (values, label, limits) in zip(axes, series):
        ax.plot(images, values, alpha=0.3, linewidth=0.7)
        ax.plot(images, smooth(values), color=ax.get_lines()[0].get_color())
        ax.set(xlabel="images seen (thousands)", ylabel=label, xlim=(0, 50), ylim=limits)
    return Picture(fig, f"Loss and accuracy over one epoch with learning rate and batch size {history.name}: {words}.")


def run(rate, batch_size, sets):
    "Train once; return what runs.json says of it, and the picture."
    history, diverged = train(rate, batch_size, *sets)
    words = "diverged" if diverged else f"{history.valid_accs[-1]:.1%} of the validation images right"
    picture = draw(history, words)
    name = f"{rate:g}-{batch_size}.png"
    return {"rate": rate, "batch": batch_size, "file": name, "says": words, "alt": picture.alt}, picture


def main():
    "Run them all."
    torch.set_num_threads(1)
    sets, runs = data(), []
    for rate, batch_size in itertools.product(RATES, BATCH_SIZES):
        told, picture = run(rate, batch_size, sets)
        (FOLDER / told["file"]).write_bytes(picture.png())
        runs.append(told)
        print(told["alt"])
    (FOLDER / "runs.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
