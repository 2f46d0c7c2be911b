"""Chapter 11: what do larger batches learn in one epoch, and how do 99 % come about in one? MNIST, 50,000 images.

Batches: chapter 02's MLP by SGD, one epoch, with mini-batches of 64 to 2,048 images; the rate stays, or grows with the
square root of the batch, or with the batch; it is constant, or the peak of one cycle. Five seeds.

99 %: a net of chapter 07's kind, wider and with batch normalisation, AdamW with one cycle, mini-batches of 64. Beside
it the same without batch normalisation, at a constant rate, on images that are shifted at random by up to two pixels,
judged by its averaged weights, and twice as wide. Five seeds; the same seed means the same mini-batches.
"""

import functools
import math
import statistics
from itertools import islice

from torch import nn

from exp.nb_08 import (
    SGD,
    AdamW,
    Augment,
    Average,
    DataLoader,
    Dataset,
    Learner,
    Rate,
    cross_entropy_loss,
    evaluate,
    get_mnist_data,
    normalize,
    one_cycle,
    random_shift,
    set_seed,
    torch,
)

SEEDS, SIZES = (10, 11, 12, 13, 14), (64, 256, 1_024, 2_048)
RULES = {"the same": lambda k: 1.0, "square root": math.sqrt, "linear": lambda k: k}


def mlp():
    "Return chapter 02's model."
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def net(width=24, normalised=True):
    "Return three convolutions and two pools, the maps `width`, 2 `width`, 4 `width`."
    layers = []
    for given, made, size, stride in ((1, width, 5, 2), (width, 2 * width, 3, 1), (2 * width, 4 * width, 3, 1)):
        layers.append(nn.Conv2d(given, made, size, stride, size // 2, bias=not normalised))
        layers += [nn.BatchNorm2d(made)] * normalised + [nn.ReLU()] + [nn.MaxPool2d(2)] * (given > 1)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36 * width, 10))
    return model.to(memory_format=torch.channels_last)


MODELS = {
    "MLP": mlp,
    "net": net,
    "net, plain": lambda: net(normalised=False),
    "net, wide": lambda: net(width=48),
}


def of_batch(size, rule, seed=SEEDS[0], rate="constant"):
    "Return a setting of chapter 02's loop with another mini-batch."
    lr = round(0.1 * RULES[rule](size / 64), 4)
    return {"model": "MLP", "optimiser": "SGD", "rate": rate, "lr": lr, "batch": size, "rule": rule,
            "seed": seed, "epochs": 1}  # fmt: skip


def of_net(model="net", seed=SEEDS[0], **more):
    "Return a setting for 99 %."
    return {"model": model, "optimiser": "AdamW", "rate": "one cycle", "lr": 0.01, "batch": 64, "seed": seed,
            "epochs": 1, **more}  # fmt: skip


NETS = {  # what the chapter calls it: a setting without its seed
    "the net": of_net(),
    "without batch normalisation": of_net("net, plain", lr=0.003),
    "constant rate": of_net(rate="constant", lr=0.002),
    "shifted images": of_net(shift=2),
    "averaged weights": of_net(average=0.98),
    "twice as wide": of_net("net, wide"),
}
RATES = "constant", "one cycle"


def settings():
    "List all runs."
    batches = [of_batch(size, rule, seed, rate) for rate in RATES for rule in RULES for size in SIZES for seed in SEEDS
               if size > 64 or rule == "the same"]  # fmt: skip
    return batches + [each | {"seed": seed} for each in NETS.values() for seed in SEEDS]


@functools.cache
def data():
    "Return images [60000, 1, 28, 28], normalised as in chapter 02, and labels."
    x, y = get_mnist_data()
    return normalize(x, x[:50_000].mean(), x[:50_000].std()).view(-1, 1, 28, 28), y


def run(setting, steps=None):
    "Train with one setting, or only its first mini-batches; return losses and epochs."
    (x, y), seed = data(), setting["seed"]
    set_seed(seed)
    model, order = MODELS[setting["model"]](), torch.Generator().manual_seed(seed)
    loader = DataLoader(Dataset(x[:50_000], y[:50_000]), setting["batch"], shuffle=True, generator=order,
                        drop_last=True)  # fmt: skip
    valid = DataLoader(Dataset(x[50_000:], y[50_000:]), 1_000)
    optim = (SGD if setting["optimiser"] == "SGD" else AdamW)(model.parameters(), setting["lr"])
    callbacks = [Rate(one_cycle(len(loader)))] if setting["rate"] == "one cycle" else []
    if "shift" in setting:
        chance = torch.Generator().manual_seed(seed)
        callbacks.append(Augment(functools.partial(random_shift, most=setting["shift"]), generator=chance))
    if "average" in setting:
        callbacks.append(Average(setting["average"]))
    learner = Learner(model, cross_entropy_loss, optim, callbacks)
    if steps is not None:
        return {"losses": learner.fit(list(islice(loader, steps))).losses}
    history = learner.fit(loader)
    judged = callbacks[-1].model if "average" in setting else model
    epoch = [history.epoch_losses[0], *evaluate(valid, judged.eval(), cross_entropy_loss)]
    return {"losses": history.losses, "epochs": [epoch]}


# What the chapter shows of it


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    by_setting = {str(run["setting"]): run for run in runs}

    def percents(setting):
        found = [by_setting[str(setting | {"seed": seed})] for seed in SEEDS]
        return " ".join(f"{100 * run['epochs'][0][2]:.2f}" for run in found)

    learned = [f"{rate}, {rule}, {size}: {percents(of_batch(size, rule if size > 64 else 'the same', rate=rate))}"
               for rate in RATES for rule in RULES for size in SIZES if size > 64 or rule == "the same"]  # fmt: skip
    nets = [f"{name}: {percents(setting)}" for name, setting in NETS.items()]
    first = statistics.mean(by_setting[str(NETS["the net"])]["first"])

    def took(setting):
        return statistics.median(by_setting[str(setting | {"seed": seed})]["seconds"] for seed in SEEDS)

    epochs = [f"{name}: {took(setting) / took(of_batch(64, 'the same')):.1f}" for name, setting in NETS.items()]
    return {"learned": learned, "nets": [*nets, f"first: {first:.4f}"], "epochs": epochs}
