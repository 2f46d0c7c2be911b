"""Time the norms, dropout and activations of chapter 06, ours beside PyTorch's, in a net that trains.

    python -m bench.normalisation     measure, and print it as JSON; `make bench` stores it

Six linear layers of width 128 on mini-batches of 64 images: forward, backward and a step of `SGD`. The base of norms
and dropout is the net with ReLU alone; that of activations has nothing between its linear layers. One thread, CPU
seconds. All nets take turns, 20 mini-batches at a time, and each ratio is the median of the ratios within the turns.
"""

import functools
import json

from bench import clock, machine
from bench.tables import table

TURNS, STEPS = 25, 20
PAIRS = {
    "norms": ("BatchNorm", "LayerNorm", "RMSNorm", "Dropout"),
    "activations": ("relu", "leaky_relu", "sigmoid", "tanh", "silu", "gelu"),
}


def nets():
    "Return {table: {(what stands in the net, whose): the net}}; the base of a table is `none`."
    from torch import nn

    from exp import nb_06

    theirs = {"BatchNorm": nn.BatchNorm1d, "LayerNorm": nn.LayerNorm, "RMSNorm": nn.RMSNorm, "Dropout": nn.Dropout,
              "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "silu": nn.SiLU,
              "gelu": nn.GELU}  # fmt: skip

    def normed(kind, name):
        return nb_06.deep_mlp(6, norm=(lambda width: kind(0.1)) if name == "Dropout" else kind)

    def active(name, whose):
        ours = functools.partial(nb_06.Activation, getattr(nb_06, name))
        return nb_06.deep_mlp(6, ours if whose == "ours" else theirs[name])

    found = {"norms": {("none", ""): nb_06.deep_mlp(6)},
             "activations": {("none", ""): nb_06.deep_mlp(6, nn.Identity)}}  # fmt: skip
    for whose in ("ours", "PyTorch"):
        for name in PAIRS["norms"]:
            kind = getattr(nb_06, name) if whose == "ours" else theirs[name]
            found["norms"][name, whose] = normed(kind, name)
        for name in PAIRS["activations"]:
            found["activations"][name, whose] = active(name, whose)
    return found


def training(net, steps):
    "Return a function that trains a net on so many mini-batches of noise."
    import torch

    from exp.nb_06 import SGD, cross_entropy_loss

    chance = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 784, generator=chance), torch.randint(10, (64,), generator=chance)
    optim = SGD(net.parameters(), 0.01)

    def work():
        for _ in range(steps):
            loss = cross_entropy_loss(net(x), y)
            loss.backward()
            optim.step()
            optim.zero_grad()

    return work


def measure(turns=TURNS, steps=STEPS):
    "Return {table: {what: {whose: {seconds, ratio}}}}: seconds of a mini-batch, the ratio to the net without."
    tables = nets()
    each = {(title, *key): training(net, steps) for title, found in tables.items() for key, net in found.items()}
    times, told = clock.in_turns(each, turns), {}
    for title, found in tables.items():
        own = {key: [seconds / steps for seconds in times[(title, *key)]] for key in found}
        for (name, whose), row in clock.summed_up(own, ("none", "")).items():
            told.setdefault(title, {}).setdefault(name, {})[whose or "base"] = row
    return told


def markdown(found):
    "Return what results.md says of it."
    about = ("CPU seconds of a mini-batch of 64 images in a net of six layers of width 128, with a norm, dropout or an "
             "activation of chapter 06 between the layers; forward, backward and a step of SGD; one thread; medians of "
             "the ratios within 25 turns of 20 mini-batches.")
    parts = ["## Norms, dropout, activations", about]
    for title, by_name in found.items():
        base = by_name["none"]["base"]["seconds"]
        rows = [[name, *(f"{each[whose]['ratio']:.2f}" for whose in ("ours", "PyTorch"))]
                for name, each in by_name.items() if name != "none"]  # fmt: skip
        without = "ReLU alone" if title == "norms" else "nothing between the layers"
        head = [f"to the net with {without} ({1e6 * base:.0f} µs a mini-batch)", "ours", "PyTorch's"]
        parts.append(table(head, rows))
    return parts


def main():
    "Measure, and print it."
    clock.settle(1, machine.own_cpus())
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
