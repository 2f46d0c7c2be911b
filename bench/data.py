"""The work that every variant does: MNIST, 50,000 images normalised as in chapter 02, 784-128-10, gradient descent, all
from the same weights."""

import ast
import importlib
from dataclasses import dataclass, field, replace

from bench.clock import Clock
from bench.machine import siblings
from tools.chapters import chapter


@dataclass
class Work:
    "What a variant is given: data, sizes, a clock to start and stop around its training."

    x: object  # training images, float32 [50000, 784], normalised
    y: object  # labels, int64 [50000]
    x_valid: object
    y_valid: object
    batch_size: int = 64
    epochs: int = 1
    lr: float = 0.1
    cpus: list = None
    clock: Clock = field(default_factory=Clock)
    runs: int = 1  # how often the clock saw the whole work

    def rehearsal(self, batches=5):
        "Return the same work with a few batches: what is loaded or built at first use is then there."
        n = batches * self.batch_size
        return replace(self, x=self.x[:n], y=self.y[:n], epochs=1, clock=Clock())

    def layers(self):
        "Build the layers; all variants start from these weights."
        import torch
        from torch import nn

        torch.manual_seed(42)
        return nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)


def load(cpus=None, **sizes):
    "Read and normalise the data as chapter 02 does."
    from exp.nb_02 import get_mnist_data, normalize

    x, y = get_mnist_data()
    m, s = x[:50_000].mean(), x[:50_000].std()
    x = normalize(x, m, s)
    watched = sorted(set().union(*map(siblings, cpus))) if cpus else None
    return Work(x[:50_000], y[:50_000], x[50_000:], y[50_000:], cpus=cpus, clock=Clock(watched), **sizes)


def from_notebook(number, *names):
    "Execute these definitions of a chapter's notebook, as they stand there; return them, in order."
    from torch import nn

    source = chapter(number)
    module = importlib.import_module(f"exp.{source.module}")
    space = {"nn": nn, **{name: value for name, value in vars(module).items() if not name.startswith("__")}}
    nodes = [node for cell in source.code_cells for node in ast.parse(cell.source).body]
    nodes = [node for node in nodes if getattr(node, "name", None) in names]
    if sorted(node.name for node in nodes) != sorted(names):
        found = [node.name for node in nodes]
        raise ValueError(f"{source.stem}: found the definitions {found}, expected each of {names} once")
    exec(compile(ast.Module(nodes, type_ignores=[]), source.path.name, "exec"), space)
    return [space[name] for name in names]


def evaluate(model, work):
    "Return the loss and accuracy of a model on the validation set."
    import torch
    import torch.nn.functional as F

    if hasattr(model, "eval"):
        model.eval()
    with torch.no_grad():
        logits = model(work.x_valid)
        right = (logits.argmax(dim=1) == work.y_valid).float().mean()
        return F.cross_entropy(logits, work.y_valid).item(), right.item()
