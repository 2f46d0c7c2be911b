"""Chapter 11: what does `torch.compile` do with a small MLP on a CPU? One thread, mini-batches of 64, one epoch.

It needs g++ and a path without spaces, and takes its time: hence a record. A run notes, besides losses and accuracy,
the CPU seconds of the first step with an empty cache (cold) and with a full one (warm), and how many times as long as
uncompiled an epoch takes thereafter: the median of three turns. The run *by hand* notes also which ways to write an
update compute the same when they are compiled, as the largest difference to the uncompiled result; its weights are 128
by 784, and `alpha` is -0.1.
"""

import os
import statistics
import tempfile

from torch import nn

from exp.nb_02 import get_mnist_data, normalize, set_seed, torch
from tools.records import cpu_seconds

F = nn.functional
LR = 0.1


def updated(parameters, gradients):
    "Move parameters against their gradients."
    with torch.no_grad():
        for p, grad in zip(parameters, gradients):
            p.add_(grad, alpha=-LR)


def eager(model):
    "Return a step: forward, `autograd.grad`, update; nothing is compiled."
    parameters = list(model.parameters())

    def step(xb, yb):
        loss = F.cross_entropy(model(xb), yb)
        updated(parameters, torch.autograd.grad(loss, parameters))
        return loss.detach()

    return step


def compiled_model(model):
    "Return the same step, the model compiled."
    fast, parameters = torch.compile(model, dynamic=False), list(model.parameters())

    def step(xb, yb):
        loss = F.cross_entropy(fast(xb), yb)
        updated(parameters, torch.autograd.grad(loss, parameters))
        return loss.detach()

    return step


def hand_step(update):
    "Return a maker of a step by hand, compiled whole: `update(w, left, right)` moves weights by left @ right."

    def make(model):
        w1, b1, w2, b2 = (p.detach() for p in model.parameters())

        @torch.no_grad()
        def step(xb, yb):
            h = F.linear(xb, w1, b1).relu()
            z = F.linear(h, w2, b2)
            loss = F.cross_entropy(z, yb)
            g = (z.softmax(1) - F.one_hot(yb, 10)) / len(xb)
            gh = (g @ w2) * (h > 0)
            update(w2, g.T, h), b2.add_(g.sum(0), alpha=-LR)
            update(w1, gh.T, xb), b1.add_(gh.sum(0), alpha=-LR)
            return loss

        return torch.compile(step, dynamic=False)

    return make


FORMS = {  # ways to write w - 0.1 (left @ right)
    "w.add_(left @ right, alpha=-0.1)": lambda w, left, right: w.add_(left @ right, alpha=-LR),
    "torch.add(w, left @ right, alpha=-0.1)": lambda w, left, right: torch.add(w, left @ right, alpha=-LR),
    "w - 0.1 * (left @ right)": lambda w, left, right: w - LR * (left @ right),
    "w.addmm_(left, right, alpha=-0.1)": lambda w, left, right: w.addmm_(left, right, alpha=-LR),
}
WAYS = {
    "eager": eager,
    "model": compiled_model,
    "by hand, add_": hand_step(FORMS["w.add_(left @ right, alpha=-0.1)"]),
    "by hand, addmm_": hand_step(FORMS["w.addmm_(left, right, alpha=-0.1)"]),
}


def settings():
    "List all runs."
    common = {"model": "MLP", "optimiser": "SGD", "rate": "constant", "lr": LR, "seed": 42, "epochs": 1}
    return [common | {"way": way} for way in WAYS]


def forms():
    "Return how far each form of an update is from the right result when it is compiled, {form: [right, alpha = 1]}."
    chance = torch.Generator().manual_seed(0)
    w, left, right = (torch.randn(*shape, generator=chance) for shape in ((128, 784), (128, 64), (64, 784)))
    wanted, ignored, found = w - LR * (left @ right), w + left @ right, {}
    for name, form in FORMS.items():
        made = torch.compile(form, dynamic=False)(w.clone(), left, right)
        found[name] = [round((made - each).abs().max().item(), 5) for each in (wanted, ignored)]
    return found


def finite(number):
    "Return a number, or 1e30 where it is larger, infinite or none."
    return number if number < 1e30 else 1e30


def timed(work):
    "Return the CPU seconds of some work, children included."
    began = cpu_seconds()
    work()
    return round(cpu_seconds() - began, 2)


def run(setting, steps=None):
    "Train in one way, or only the first mini-batches; return losses, epochs and seconds."
    x, y = get_mnist_data()
    x = normalize(x, x[:50_000].mean(), x[:50_000].std())
    batches = list(zip(x[:50_000].split(64), y[:50_000].split(64)))[:781]
    make = WAYS[setting["way"]]

    def fresh():
        set_seed(setting["seed"])
        model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
        return model, make(model)

    model, step = fresh()
    if steps is not None:
        return {"losses": [step(*batch).item() for batch in batches[:steps]]}
    import torch._inductor.config as how

    how.compile_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        cold = timed(lambda: step(*batches[0]))
        torch._dynamo.reset()
        _, step = fresh()
        warm = timed(lambda: step(*batches[0]))
        model, step = fresh()
        losses = [finite(step(*batch).item()) for batch in batches]
        with torch.no_grad():
            logits = model(x[50_000:])
            valid = F.cross_entropy(logits, y[50_000:]).item(), (logits.argmax(1) == y[50_000:]).float().mean().item()
        found = {"losses": losses, "epochs": [[finite(statistics.fmean(losses)), finite(valid[0]), valid[1]]]}
        (_, step), base = fresh(), eager(nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)))
        pairs = [[timed(lambda each=each: [each(*batch) for batch in batches]) for each in (step, base)]
                 for _ in range(4)][1:]  # fmt: skip
        found |= {"cold": cold, "warm": warm, "to_eager": round(statistics.median(a / b for a, b in pairs), 2)}
        if setting["way"] == "by hand, add_":
            found["forms"] = forms()
        return found


# What the chapter shows of it


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    seconds = [f"{run['setting']['way']}: {run['cold']} {run['warm']} {run['to_eager']:.2f}" for run in runs]
    first = [f"{run['setting']['way']}: " + " ".join(f"{loss:.3f}" for loss in run["first"][:6]) for run in runs]
    [forms] = [run["forms"] for run in runs if "forms" in run]
    return {"compiled": seconds, "starts": first, "forms": [f"{form}: {a} {b}" for form, (a, b) in forms.items()]}
