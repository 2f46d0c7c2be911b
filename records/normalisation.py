"""Chapter 06: what trains a deep net? Multilayer perceptrons on 50,000 images of MNIST, batches of 64, none short.

Which rates a shallow net bears, with each normalisation; what dropout does, with many images and with few; ten layers
with six activations, at constant rates and with warm-up and cosine; twenty layers with six initialisations, with and
without normalisation; and one and the same deep net, moved by rounding. The same seed means the same mini-batches. A
run whose loss is no longer finite ends there: the losses that follow are NaN, its model is evaluated as it is.
"""

import functools
import itertools
import math

from torch import nn

from exp.nb_06 import (
    SGD,
    Activation,
    Adam,
    BatchNorm,
    DataLoader,
    Dataset,
    Dropout,
    LayerNorm,
    Learner,
    Rate,
    RMSNorm,
    Sequential,
    cross_entropy_loss,
    deep_mlp,
    evaluate,
    gain,
    gelu,
    get_mnist_data,
    initialise,
    kaiming_normal_,
    leaky_relu,
    lsuv,
    normalize,
    relu,
    set_seed,
    sigmoid,
    silu,
    tanh,
    torch,
    warm_up_cosine,
    xavier_normal_,
)

SEEDS = (10, 11, 12, 13, 14)
THREE = SEEDS[:3]  # of the nets of twenty layers
NORMS = {"none": None, "BatchNorm": BatchNorm, "LayerNorm": LayerNorm, "RMSNorm": RMSNorm}
RATES, DEEP_RATES = (0.1, 0.4, 0.8, 1.6, 3.2, 6.4), (0.03, 0.1, 0.3)
STARTS = (("PyTorch", 0.1), ("N(0, 1)", 0.1), ("N(0, 1)", 1.6))  # first weights behind BatchNorm, peak rates
FUNCTIONS = {f.__name__: f for f in (sigmoid, tanh, relu, leaky_relu, gelu, silu)}
INITS = {
    "N(0, 1)": lambda weight: weight.normal_(0, 1),
    "N(0, 0.01)": lambda weight: weight.normal_(0, 0.01),
    "1/√n": lambda weight: kaiming_normal_(weight, 1.0),
    "Glorot": xavier_normal_,
    "Kaiming": kaiming_normal_,
}  # and PyTorch's own


def setting(rate, lr, seed, depth=2, init="PyTorch", epochs=1, optimiser="SGD", **more):
    "Return a setting as it is stored."
    return {"optimiser": optimiser, "rate": rate, "lr": lr, "seed": seed, "epochs": epochs, "depth": depth,
            "init": init, **more}  # fmt: skip


def settings():
    "List all runs."
    rates = [setting("constant", lr, seed, norm=norm) for norm in list(NORMS)[:3] for lr in RATES for seed in SEEDS]
    dropout = [setting("cosine", 0.4, seed, epochs=3, p=p) for p in (0.0, 0.2, 0.5) for seed in SEEDS]
    few = [setting("cosine", 0.2, seed, epochs=50, p=p, images=960) for p in (0.0, 0.2, 0.5) for seed in SEEDS]
    acts = [setting(rate, lr, seed, 10, "gain", activation=name) for rate, lr in (("constant", 0.05), ("cosine", 0.1))
            for name in FUNCTIONS for seed in SEEDS]  # fmt: skip
    acts += [setting("cosine", 0.05, seed, 10, "gain", activation="silu") for seed in SEEDS]
    deep = [setting("cosine", lr, seed, 20, "Kaiming", norm=norm) for norm in list(NORMS)[:3] for lr in DEEP_RATES
            for seed in THREE]  # fmt: skip
    start = [setting("cosine", lr, seed, 20, init, norm="BatchNorm") for init, lr in STARTS for seed in THREE]
    inits = [setting("cosine", lr, seed, 20, init, optimiser=optimiser)
             for optimiser, lr in (("Adam", 0.001), ("SGD", 0.03))
             for init in reversed(["PyTorch", *INITS]) for seed in THREE]  # fmt: skip
    repaired = [setting("cosine", 0.03, seed, 20, "LSUV") for seed in THREE]
    lottery = [setting(rate, lr, 10, 20, "Kaiming", moved=k) for rate, lr in (("constant", 0.01), ("cosine", 0.03))
               for k in range(5)]  # fmt: skip
    return rates + dropout + few + acts + deep + start + inits + repaired + lottery


@functools.cache
def data(images=50_000):
    "Return training set and validation set, normalised as in chapter 02."
    x, y = get_mnist_data()
    m, s = x[:50_000].mean(), x[:50_000].std()
    x = normalize(x, m, s)
    return Dataset(x[:images], y[:images]), DataLoader(Dataset(x[50_000:], y[50_000:]), batch_size=5_000)


def build(setting):
    "Build the model of a setting, with its first weights."
    set_seed(setting["seed"])
    name, activation = setting.get("activation"), nn.ReLU
    if name:
        activation = functools.partial(Activation, FUNCTIONS[name])
    model = deep_mlp(setting["depth"], activation, NORMS[setting.get("norm", "none")])
    if setting.get("p"):
        model = Sequential(*list(model)[:-1], Dropout(setting["p"]), model[-1])
    if setting["init"] == "gain":
        initialise(model, lambda weight: kaiming_normal_(weight, gain(FUNCTIONS[name])))
    elif setting["init"] == "LSUV":
        lsuv(model, data()[0].x[:512])
    elif setting["init"] != "PyTorch":
        initialise(model, INITS[setting["init"]])
    if setting.get("moved"):
        move(model, setting["moved"])
    return model


@torch.no_grad()
def move(model, k):
    "Change every weight by about a ten-millionth of it."
    chance = torch.Generator().manual_seed(k)
    for p in model.parameters():
        p.mul_(1 + 1e-7 * torch.randn(p.shape, generator=chance))


def run(setting, steps=None):
    "Train with one setting, or only its first mini-batches; return losses, epochs and what else was measured."
    train, valid = data(setting.get("images", 50_000))
    model, order = build(setting), torch.Generator().manual_seed(setting["seed"])
    loader = DataLoader(train, shuffle=True, generator=order, drop_last=True)
    optim = {"SGD": SGD, "Adam": Adam}[setting["optimiser"]](model.parameters(), setting["lr"])
    total = setting["epochs"] * len(loader)
    callbacks = [Rate(warm_up_cosine(total))] if setting["rate"] == "cosine" else []
    learner = Learner(model, cross_entropy_loss, optim, callbacks)
    if steps is not None:
        epochs = itertools.chain.from_iterable(itertools.repeat(loader))  # the first mini-batches may be more than one
        return {"losses": learner.fit(list(itertools.islice(epochs, steps))).losses}
    try:
        learner.fit(loader, setting["epochs"], valid=valid)
    except FloatingPointError:
        pass
    losses = learner.history.losses
    late = sum(losses[-50:]) / 50 if len(losses) == total else math.nan
    epochs = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in learner.history.epochs if acc is not None]
    if len(epochs) < setting["epochs"]:
        broken = [math.nan, *evaluate(valid, model, cross_entropy_loss)]
        epochs += [broken] * (setting["epochs"] - len(epochs))
    return {"losses": losses + [math.nan] * (20 - len(losses)), "epochs": epochs, "steps": len(losses), "late": late}


# What the chapter shows of it

AGAIN = [setting("constant", 0.4, 10, norm=norm) for norm in list(NORMS)[:3]] + [
    setting("cosine", 0.1, 10, 10, "gain", activation="gelu"), setting("cosine", 0.03, 10, 20, "Kaiming", norm="none")
]  # fmt: skip


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    by_setting = {str(run["setting"]): run for run in runs}

    def row(label, wanted):
        accs = [by_setting[str(each)]["epochs"][-1][2] for each in wanted]
        return f"{label}: " + " ".join(f"{100 * acc:.2f}" for acc in accs)

    shallow, names = list(NORMS)[:3], ["PyTorch", *INITS]
    rates = [row(f"{norm}, {lr:g}", [setting("constant", lr, seed, norm=norm) for seed in SEEDS])
             for norm in shallow for lr in RATES]  # fmt: skip
    dropout = [row(f"50000 images, p {p:g}", [setting("cosine", 0.4, seed, epochs=3, p=p) for seed in SEEDS])
               for p in (0.0, 0.2, 0.5)]  # fmt: skip
    dropout += [row(f"960 images, p {p:g}",
                    [setting("cosine", 0.2, seed, epochs=50, p=p, images=960) for seed in SEEDS])
                for p in (0.0, 0.2, 0.5)]  # fmt: skip
    kinds = [(name, rate, lr) for rate, lr in (("constant", 0.05), ("cosine", 0.1)) for name in FUNCTIONS]
    acts = [row(f"{name}, {rate}", [setting(rate, lr, seed, 10, "gain", activation=name) for seed in SEEDS])
            for name, rate, lr in kinds]  # fmt: skip
    deep = [row(f"Kaiming, {norm}, {lr:g}", [setting("cosine", lr, seed, 20, "Kaiming", norm=norm) for seed in THREE])
            for norm in shallow for lr in DEEP_RATES]  # fmt: skip
    deep += [row(f"{init}, BatchNorm, {lr:g}",
                 [setting("cosine", lr, seed, 20, init, norm="BatchNorm") for seed in THREE])
             for init, lr in STARTS]  # fmt: skip
    inits = [row(f"{optimiser}, {init}", [setting("cosine", lr, seed, 20, init, optimiser=optimiser) for seed in THREE])
             for optimiser, lr in (("SGD", 0.03), ("Adam", 0.001)) for init in names]  # fmt: skip
    lottery = [row(f"{rate}, {lr:g}", [setting(rate, lr, 10, 20, "Kaiming", moved=k) for k in range(5)])
               for rate, lr in (("constant", 0.01), ("cosine", 0.03))]  # fmt: skip
    lottery += [row(init, [setting("cosine", 0.03, seed, 20, init) for seed in THREE]) for init in ("Kaiming", "LSUV")]
    first = ["first: " + " ".join(f"{sum(by_setting[str(each)]['first']) / 20:.4f}" for each in AGAIN)]
    return {"rates": rates, "dropout": dropout, "activations": acts, "deep": deep, "inits": inits,
            "lottery": lottery, "first": first}  # fmt: skip
