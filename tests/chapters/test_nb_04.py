"""The Learner against the bare loop, callbacks against PyTorch's pieces."""

import collections
import copy
import functools
import importlib
import itertools
import os
import random
import subprocess
import sys
import warnings
from contextlib import nullcontext
from types import SimpleNamespace
from unittest import mock

import numpy
import pytest
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler
from torch.utils import data

import exp.nb_04
from exp.nb_04 import *


def problem(n=70, classes=3, dtype=torch.float32):
    "Return inputs and labels that can be learned."
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(n)).to(dtype)
    return x, x[:, :classes].argmax(1)


def network(dropout=0.3, norm=True, width=8):
    "Build a small model in which mode, buffers and random numbers matter."
    norms = [nn.BatchNorm1d(width)] if norm else []
    return nn.Sequential(nn.Linear(6, width), *norms, nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 3))


def halves(x, y):
    "Return a validation set in two batches of different sizes."
    return [(x[:1], y[:1]), (x[1:], y[1:])]


def run(callbacks=(), n=70, batch_size=16, n_epochs=3, optim=None, valid=True, loader=None, make=network):
    "Train from the same start each time; return the learner."
    set_seed(5)
    x, y = problem(n)
    model = make()
    optim = (optim or (lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9)))(model.parameters())
    loader = loader(x, y) if loader else DataLoader(Dataset(x, y), batch_size, True, torch.Generator().manual_seed(7))
    callbacks = callbacks(optim) if callable(callbacks) else callbacks
    learner = Learner(model, cross_entropy_loss, optim, callbacks)
    learner.fit(loader, n_epochs, halves(x, y) if valid else None)
    return learner


def records(history):
    "Return all that a history holds, without its name."
    return {name: value for name, value in vars(history).items() if name != "name"}


def identical(a, b):
    "Tell whether two learners have the same history and weights, bit for bit."
    weights = zip(a.model.state_dict().values(), b.model.state_dict().values())
    return records(a.history) == records(b.history) and all(torch.equal(p, q) for p, q in weights)


# The Learner


@given(st.integers(2, 40), st.integers(2, 45), st.integers(1, 3), st.booleans())
def test_the_learner_is_fit(n, batch_size, n_epochs, validated):
    assume(n % batch_size != 1)  # batch normalisation does not take one sample
    learner = run(n=n, batch_size=batch_size, n_epochs=n_epochs, valid=validated)
    set_seed(5)
    x, y = problem(n)
    model = network()
    optim = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loader = DataLoader(Dataset(x, y), batch_size, True, torch.Generator().manual_seed(7))
    bare = fit(loader, model, cross_entropy_loss, optim, n_epochs, halves(x, y) if validated else None)
    assert identical(learner, SimpleNamespace(model=model, history=bare))


def test_the_learner_has_as_many_lines_as_the_chapter_says():
    assert len(source_lines(Learner)) == 60


def test_our_own_pieces():
    x, y = problem()
    results = []
    for train in (fit, lambda loader, model, *rest, **more: Learner(model, *rest).fit(loader, **more)):
        set_seed(1)
        model = Sequential(nn.Linear(6, 8), nn.ReLU(), Sequential(nn.Dropout(0.5), nn.Linear(8, 3)))
        loader = DataLoader(Dataset(x, y), 16, shuffle=True)
        results.append(train(loader, model, cross_entropy_loss, SGD(model.parameters()), n_epochs=2, valid=[(x, y)]))
    assert same(*results).word == "identical" and results[0].valid_losses == results[1].valid_losses


OPTIMISERS = [
    getattr(torch.optim, name)
    for name in "SGD Adam AdamW Adamax NAdam RAdam RMSprop Adagrad Adadelta ASGD Rprop".split()
]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_any_optimiser_gives_the_weights_of_a_stock_loop(optimiser):
    x, y = problem()
    learner = run(optim=lambda ps: optimiser(ps, lr=0.01), n_epochs=2, loader=lambda x, y: stock_loader(x, y))
    set_seed(5)
    model = network()
    optim, loader = optimiser(model.parameters(), lr=0.01), stock_loader(x, y)
    for _ in range(2):
        model.train()
        for xb, yb in loader:
            optim.zero_grad()
            cross_entropy_loss(model(xb), yb).backward()
            optim.step()
        evaluate([(x, y)], model.eval(), cross_entropy_loss)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), learner.model.state_dict().values()))


def stock_loader(x, y):
    return data.DataLoader(data.TensorDataset(x, y), batch_size=16, shuffle=True)


SCHEDULERS = {
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 15),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "linear": lambda o: lr_scheduler.LinearLR(o, total_iters=5),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 12),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.95**step),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 4), lr_scheduler.ExponentialLR(o, 0.9)], [4]
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.filterwarnings("ignore:To get the last learning rate:UserWarning")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_any_scheduler_gives_the_rates_of_a_stock_loop(name):
    rates = LearningRates()
    run(lambda o: [rates, Schedule(SCHEDULERS[name](o))])
    p = nn.Parameter(torch.zeros(1))
    p.grad, optim = torch.zeros(1), torch.optim.SGD([p], lr=0.1, momentum=0.9)
    scheduler, expected = SCHEDULERS[name](optim), []
    for _ in range(15):
        expected.append(optim.param_groups[0]["lr"])
        optim.step()
        scheduler.step()
    assert rates.lrs == expected


def test_reduce_on_plateau_gets_the_validation_loss():
    def made(optim):
        return [rates, Schedule(lr_scheduler.ReduceLROnPlateau(optim, patience=0, threshold=1e3))]

    rates = LearningRates()
    run(made)
    assert rates.lrs == pytest.approx([0.1] * 5 + [0.01] * 5 + [0.001] * 5)
    with pytest.raises(ValueError, match=r"Schedule: found no validation set"):
        run(made, valid=False)


def test_a_model_that_diverges_is_stopped_with_words():
    with pytest.raises(FloatingPointError, match="training diverged"):
        run(optim=lambda ps: torch.optim.SGD(ps, lr=1e30), make=lambda: network(norm=False))


def test_a_loader_that_is_used_up_is_named():
    x, y = problem()
    with pytest.raises(ValueError, match="epoch 2 had no mini-batch"):
        run(loader=lambda x, y: iter([(x, y)]), valid=False)


def test_two_runs_of_one_learner_start_afresh():
    learner = run([stop := EarlyStopping(1), best := KeepBest(), metrics := Metrics(accuracy=accuracy)])
    x, y = problem()
    again = learner.fit([(x, y)], 2, [(x, y)])
    assert len(again.losses) == len(metrics.train["accuracy"]) == 2 and best.loss == min(again.valid_losses)
    assert stop.best == best.loss


# The device


def test_batches_stay_or_move():
    pair = torch.zeros(3), torch.ones(3, dtype=torch.int64)
    assert all(a is b for a, b in zip(next(on_device([pair], None)), pair))
    assert [t.device.type for t in next(on_device([pair], "meta"))] == ["meta", "meta"]
    assert list(on_device([], "cpu")) == []


def test_the_model_moves_in_place_ours_and_theirs():
    for make in (lambda: Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), lambda: nn.Sequential(nn.Linear(2, 2))):
        model = make()
        before = [id(p) for p in model.parameters()]
        assert Learner(model, None, None, device="cpu").model is model and [id(p) for p in model.parameters()] == before


# Anything that can be trained


def tasks():
    "Return {name: (model, criterion, x, y)}: tasks of every kind."
    torch.manual_seed(3)
    x, t, image = torch.randn(40, 6), torch.randn(40, 5, 6), torch.randn(40, 1, 4, 4)
    y, ce, bce = x[:, :3].argmax(1), nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()
    ignored = torch.where(torch.arange(40) % 4 == 0, -100, y)
    pixel = nn.Conv2d(1, 2, 3, padding=1)
    return {
        "class": (nn.Linear(6, 3), cross_entropy_loss, x, y),
        "regression": (nn.Linear(6, 1), nn.MSELoss(), x, x[:, :1]),
        "regression, flat": (nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), nn.MSELoss(), x, x[:, 0]),
        "binary": (nn.Linear(6, 1), bce, x, (x[:, :1] > 0).float()),
        "multi-label": (nn.Linear(6, 6), bce, x, (x > 0).float()),
        "sequence, ours": (nn.Linear(6, 3), cross_entropy_loss, t, t[..., :3].argmax(-1)),
        "sequence, theirs": (nn.Linear(6, 3), lambda z, y: ce(z.transpose(1, 2), y), t, t[..., :3].argmax(-1)),
        "segmentation": (pixel, ce, image, (image[:, 0] > 0).long()),
        "soft targets": (nn.Linear(6, 3), ce, x, x[:, :3].softmax(1)),
        "ignore_index": (nn.Linear(6, 3), ce, x, ignored),
        "autoencoder": (nn.Linear(6, 6), nn.MSELoss(), x, x),
    }


@pytest.mark.parametrize("name", tasks())
def test_any_task_is_trained_as_in_a_stock_loop(name):
    results = []
    for by_learner in (True, False):
        model, criterion, x, y = tasks()[name]
        batches = [(x[:16], y[:16]), (x[16:32], y[16:32]), (x[32:], y[32:])]
        optim = torch.optim.AdamW(model.parameters(), lr=0.05)
        if by_learner:
            history = Learner(model, criterion, optim).fit(batches, 4, valid=batches)
            losses, valid_losses = history.losses, history.valid_losses
        else:
            losses, valid_losses = [], []
            for _ in range(4):
                for xb, yb in batches:
                    loss = criterion(model(xb), yb)
                    losses.append(loss.item())
                    optim.zero_grad()
                    loss.backward()
                    optim.step()
                with torch.no_grad():
                    total = sum(len(yb) * criterion(model(xb), yb).item() for xb, yb in batches)
                valid_losses.append(total / 40)
        results.append((losses, valid_losses, [p.tolist() for p in model.parameters()]))
    assert results[0] == results[1]
    known = name == "class"
    assert all((acc is not None) == known for acc in history.accs + history.valid_accs)
    assert len(epoch_table(history).rows[0]) == (5 if known else 3)
    repr(history), history.plot(), plot_epochs(history)


def test_batches_of_any_form():
    x, y = problem()

    class Dicts(Learner):
        def split(self, batch):
            return batch["x"], batch["y"]

    class Several(Learner):
        def split(self, batch):
            *xs, yb = batch
            return xs, yb

        def forward(self, xb, yb):
            return super().forward(sum(xb), yb)

    class Reconstruct(Learner):
        def split(self, batch):
            return batch, batch

    def trained(kind, batches, callbacks=(), out=3, criterion=cross_entropy_loss):
        set_seed(1)
        model = nn.Linear(6, out)
        optim = torch.optim.SGD(model.parameters(), lr=0.1)
        learner = kind(model, criterion, optim, callbacks, device="cpu")
        learner.fit(batches, 2, valid=batches)
        return learner

    metrics = Metrics(accuracy=accuracy), Accumulate(2)
    pairs = trained(Learner, [(x, y), (x[:9], y[:9])])
    assert identical(trained(Dicts, [{"x": x, "y": y}, {"x": x[:9], "y": y[:9], "name": "b"}]), pairs)
    assert identical(trained(Several, [(0.5 * x, 0.5 * x, y), [x[:9], 0 * x[:9], y[:9]]]), pairs)
    assert trained(Dicts, [{"x": x, "y": y}] * 2, metrics).step == 2
    assert len(metrics[0].valid["accuracy"]) == 2
    learner = trained(Reconstruct, Tensors(x), out=6, criterion=nn.MSELoss())
    assert len(learner.history.losses) == 4 and learner.history.accs == 4 * [None]


class Tensors:
    "Yield bare tensors: mini-batches without targets."

    def __init__(self, x): self.x = x  # fmt: skip

    def __iter__(self): return iter([self.x, self.x[:9]])  # fmt: skip


def test_an_optimiser_that_needs_a_closure_is_refused():
    with pytest.raises(TypeError, match="optim: found LBFGS, whose step needs a closure"):
        run(optim=torch.optim.LBFGS)
    with pytest.raises(TypeError, match="callbacks: found <class .*expected callbacks, such as KeepBest"):
        run([KeepBest])


def test_nested_batches_move():
    pair = collections.namedtuple("pair", "x y")(torch.zeros(2), 3)
    packed = nn.utils.rnn.pack_sequence([torch.zeros(3, 1), torch.zeros(2, 1)])
    [moved] = on_device([{"a": [pair, "word"], "b": (packed,)}], "meta")
    assert moved["a"][0].x.device.type == moved["b"][0].data.device.type == "meta"
    assert type(moved["a"][0]) is type(pair) and moved["a"][0].y == 3 and moved["a"][1] == "word"
    assert n_samples({"a": [torch.zeros(4, 2)]}) == 4
    for nothing in (3, [], "word", torch.tensor(1.0)):
        with pytest.raises(TypeError, match="expected a tensor"):
            n_samples(nothing)


@pytest.mark.parametrize("device, expected", [("cpu", False), ("mps", False), ("cuda", True), ("cuda:1", True)])
def test_only_cuda_copies_without_waiting(device, expected):
    with mock.patch.object(torch.Tensor, "to") as to:
        to_device(torch.zeros(1), device)
    assert to.call_args == mock.call(device, non_blocking=expected)


def test_epoch_step_and_batch_say_where_the_run_is():
    seen = []

    class Looks(Callback):
        def after_batch(self, learner):
            seen.append((learner.epoch, learner.step, learner.batch[0] is learner.xb))

        def after_epoch(self, learner):
            assert learner.epoch == len(learner.history.epoch_ends)

    run([Looks()], n=40, batch_size=20, n_epochs=2)
    assert seen == [(1, 1, True), (1, 2, True), (2, 3, True), (2, 4, True)]


@pytest.mark.parametrize("event", ["before_fit", "after_loss", "before_valid", "after_epoch", "after_fit"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, CancelFit, None])
def test_the_clean_up_always_comes(event, error):
    log = []

    def fails(self, learner):
        if error:
            raise error

    failing = type("Failing", (Callback,), {event: fails, "clean_up": lambda self, learner: log.append("own")})()
    quiet = error is None or error is CancelFit and event != "after_fit"
    with nullcontext() if quiet else pytest.raises(error):
        run([listener(log), failing, listener(log, "later ")])
    assert log[-3:] == ["later clean_up", "own", "clean_up"] and log.count("clean_up") == 1


def test_a_clean_up_that_fails_stops_no_other():
    log, clean_up = [], {"clean_up": lambda self, learner: 1 / 0}
    with pytest.raises(ZeroDivisionError):
        run([listener(log), type("Broken", (Callback,), clean_up)()])
    assert log[-1] == "clean_up"


@pytest.mark.parametrize("event", ["before_fit", "before_epoch", "after_valid_batch", "after_epoch", "after_fit"])
def test_a_mini_batch_cannot_be_cancelled_outside_of_one(event):
    def cancel(self, learner):
        raise CancelBatch

    with pytest.raises(CancelBatch, match="found CancelBatch outside of a mini-batch, expected it in before_batch"):
        run([type("Cancels", (Callback,), {event: cancel})()])


def one_generator(shuffle_valid):
    own = torch.Generator().manual_seed(1)
    x, y = problem()
    return DataLoader(Dataset(x, y), 16, True, own), data.DataLoader(Dataset(x, y), 16, shuffle_valid, generator=own)


class NoisyInMany(Dataset):
    "Draw from generators of every kind, some of them well hidden."

    def __init__(self, x, y):
        import random

        import numpy

        super().__init__(x, y)
        self.parts = {"a": [random.Random(1), numpy.random.default_rng(2)]}
        self.old, self.own = numpy.random.RandomState(3), SimpleNamespace(deep=torch.Generator().manual_seed(4))

    def __getitem__(self, i):
        import random

        import numpy

        noise = self.parts["a"][0].random() + self.parts["a"][1].random() + self.old.rand() + random.random()
        noise += numpy.random.rand() + torch.rand(1, generator=self.own.deep).item()
        return self.x[i] + 0.1 * noise, self.y[i]


@pytest.mark.parametrize("shuffle_valid", [False, True])
def test_validation_never_changes_training(shuffle_valid):
    def trained(validated):
        set_seed(5)
        model, (loader, valid) = network(), one_generator(shuffle_valid)
        learner = Learner(model, cross_entropy_loss, SGD(model.parameters()))
        return learner.fit(loader, 3, valid if validated else None).losses

    assert trained(True) == trained(False)

    def noisy(validated):
        set_seed(5)
        dataset, model = NoisyInMany(*problem()), network()
        loader = data.DataLoader(dataset, 16, shuffle=True)
        learner = Learner(model, cross_entropy_loss, SGD(model.parameters()))
        return learner.fit(loader, 3, loader if validated else None).losses

    assert noisy(True) == noisy(False)


LIMIT = numpy.random.default_rng(6)  # a global that a function below names
KINDS = {
    "PyTorch's": lambda: torch.Generator().manual_seed(1),
    "Python's": lambda: random.Random(1),
    "NumPy's": lambda: numpy.random.default_rng(1),
    "NumPy's, old": lambda: numpy.random.RandomState(1),
}


def draw(source):
    "Draw a number from a source of any kind."
    return torch.rand(1, generator=source).item() if isinstance(source, torch.Generator) else source.random()


def hide(place, source):
    "Hide a source of random numbers in an object."
    def closure(): return source  # fmt: skip
    def default(n, given=source): return given  # fmt: skip
    def keyword(*, given=source): return given  # fmt: skip

    def waits():
        held = source
        yield
        yield held

    class InClass:
        own = source

        def method(self): return source  # fmt: skip

    class Slots:
        __slots__ = ("own",)

    slots, waiting = Slots(), waits()
    slots.own = source
    next(waiting)
    return {
        "list": [[source]], "dictionary": {"a": {"b": source}}, "the last of many": [*range(5_000), source],
        "attribute": SimpleNamespace(a=SimpleNamespace(b=source)), "slot": slots, "set": {source},
        "deque": collections.deque([source]), "closure": closure, "default": default, "keyword": keyword,
        "lambda in a lambda": lambda: (lambda: source), "class": InClass(), "method": InClass().method,
        "partial": functools.partial(print, source), "map": map(lambda n: source, [1]), "generator": waiting,
        "decorated": functools.lru_cache(closure), "property": property(closure),
    }[place]  # fmt: skip


PLACES = [
    *("list", "dictionary", "the last of many", "attribute", "slot", "set", "deque", "closure", "default", "keyword"),
    *("lambda in a lambda", "class", "method", "partial", "map", "generator", "decorated", "property"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_sources_of_random_numbers_are_found_wherever_they_are(kind, place):
    source, drawn = KINDS[kind](), draw(KINDS[kind]())
    hidden = hide(place, source)
    assert [found for found in exp.nb_04._sources(hidden) if found is source] == [source]
    assert len(exp.nb_04._sources([hidden, hidden], hidden)) == 1
    with undisturbed(hidden):
        assert draw(source) == drawn
    assert draw(source) == drawn


def test_globals_that_a_function_names_are_found(tmp_path, monkeypatch):
    assert exp.nb_04._sources(lambda: LIMIT.random()) == [LIMIT]
    assert exp.nb_04._sources(lambda: problem()) == []
    (tmp_path / "noise_of_mine.py").write_text("import random\nown = random.Random(5)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("noise_of_mine")
    monkeypatch.setitem(globals(), "noise", module)
    assert exp.nb_04._sources(lambda: noise.own.random()) == [module.own]  # noqa: F821
    assert exp.nb_04._sources(lambda: noise) == []  # noqa: F821


def test_what_is_not_ours_is_not_read_and_what_has_no_state_is_let_be():
    assert exp.nb_04._sources(data.DataLoader, nn.Module, nn.Linear(2, 2), collections, busy_learner()) == []
    with undisturbed(random.SystemRandom(), {"a": random.SystemRandom()}):
        pass
    loop = []
    loop.append(loop)
    assert exp.nb_04._sources(loop) == []


def busy_learner():
    "Return a learner with many callbacks: none of them holds a source."
    model = network()
    optim = torch.optim.AdamW(model.parameters())
    callbacks = [Metrics(accuracy=accuracy), Progress(), KeepBest(), Accumulate(2), ClipGradient()]
    return Learner(model, nn.CrossEntropyLoss(), optim, callbacks)


@pytest.mark.parametrize("where", ["model", "criterion", "callback", "learner"])
def test_judging_puts_back_what_any_piece_holds(where):
    def trained(validated):
        set_seed(5)
        own = random.Random(2)
        noisy = lambda logits: logits + own.random() * torch.arange(3)  # noqa: E731

        class Model(nn.Sequential):
            def forward(self, xb):
                return noisy(super().forward(xb)) if where == "model" else super().forward(xb)

        class Criterion:
            def __call__(self, logits, yb):
                return cross_entropy_loss(noisy(logits) if where == "criterion" else logits, yb)

        class Changes(Callback):
            def before_batch(self, learner): learner.xb = learner.xb * own.random()  # fmt: skip
            def after_valid_batch(self, learner): own.random()  # fmt: skip

        class Noisy(Learner):
            def forward(self, xb, yb):
                logits = noisy(self.model(xb)) if where == "learner" else self.model(xb)
                return logits, self.criterion(logits, yb)

        model, (x, y) = Model(nn.Linear(6, 3)), problem()
        callbacks = [Changes()] if where == "callback" else []
        learner = Noisy(model, Criterion(), SGD(model.parameters()), callbacks)
        return learner.fit(DataLoader(Dataset(x, y), 16), 3, halves(x, y) if validated else None).losses

    assert trained(True) == trained(False)


@pytest.mark.parametrize("event", ["before_valid", "after_valid_batch"])
def test_a_validation_that_is_cancelled_leaves_an_epoch_without_one(event):
    def cancel(self, learner):
        if learner.epoch == 2:
            raise CancelFit

    log, metrics = [], Metrics(accuracy=accuracy)
    cancels = type("Cancels", (Callback,), {event: cancel})()
    learner = run([metrics, cancels, listener(log)], n_epochs=4)
    whole, history = run([Metrics(accuracy=accuracy)], n_epochs=2), learner.history
    assert history.losses == whole.history.losses and history.epoch_ends == [5, 10]
    assert history.valid_losses == whole.history.valid_losses[:1]
    assert log[-2:] == ["after_fit", "clean_up"] and log.count("after_epoch") == 1
    assert metrics.train == whole.callbacks[1].train and metrics.seen == {"train": [], "valid": []}
    assert metrics.valid["accuracy"] == [whole.callbacks[1].valid["accuracy"][0], None]
    rows = epoch_table(history, [metrics]).rows[1:]
    assert [row[0] for row in rows] == ["1", "2"] and rows[1][2] == rows[1][4] == "–" != rows[1][5]


@pytest.mark.parametrize("batch, words", [
    (lambda x, y: (x, x, y), "a mini-batch that is a tuple of 3 parts, expected a pair"),
    (lambda x, y: [x], "a mini-batch that is a list of 1 parts, expected a pair"),
    (lambda x, y: {"x": x, "y": y}, r"a mini-batch that is a dict, expected a pair \(xb, yb\): override `split`"),
])  # fmt: skip
def test_a_mini_batch_that_is_no_pair_is_named(batch, words):
    model = network()
    with pytest.raises(TypeError, match=words):
        Learner(model, cross_entropy_loss, SGD(model.parameters())).fit([batch(*problem())])
    with pytest.raises(TypeError, match="a mini-batch that is a Tensor, expected a pair"):
        Learner(model, cross_entropy_loss, SGD(model.parameters())).fit(Tensors(problem()[0][:2]))


def test_a_mean_over_all_samples_does_not_depend_on_the_mini_batches():
    x, y = problem()
    y = torch.where(torch.arange(70) % 40 < 9, -100, y)

    def loss(criterion, size, callbacks=()):
        torch.manual_seed(1)
        model = nn.Linear(6, 3).double()
        batches = DataLoader(Dataset(x.double(), y), size)
        learner = Learner(model, criterion, torch.optim.SGD(model.parameters(), lr=0.5), callbacks)
        return learner.fit(batches, 2, valid=batches).valid_losses[-1]

    def per_sample(logits, yb):
        return F.cross_entropy(logits, yb, reduction="sum") / len(yb)

    for criterion, expected in ((per_sample, True), (F.cross_entropy, False)):
        whole, pieces = loss(criterion, 40), loss(criterion, 10, [Accumulate(4)])
        assert near(whole, pieces, rtol=1e-9) == expected


def test_metrics_stand_in_the_table_at_their_epoch():
    metrics = Metrics(accuracy=accuracy)
    learner = run([metrics, Progress()], n_epochs=2)
    table = epoch_table(learner.history, [metrics])
    assert table.rows[0][-1] == "accuracy" and len(table.rows) == 3
    assert [row[-1] for row in table.rows[1:]] == [f"{value:.3f}" for value in metrics.valid["accuracy"]]
    metrics.valid["accuracy"] = [None, 0.5]
    assert epoch_table(learner.history, [metrics]).rows[1][-1] == f"{metrics.train['accuracy'][0]:.3f}"
    with pytest.raises(ValueError, match=r"Metrics: found the names \['accuracy'\], expected \['top1'\]"):
        Metrics(top1=accuracy).load_state_dict(metrics.state_dict())


# Events, order, cancelling


def listener(log, name=""):
    "Make a callback that logs each event."
    events = [event for event in vars(Callback) if event.startswith(("before_", "after_", "clean"))]
    hooks = {event: lambda self, learner, word=name + event: log.append(word) for event in events}
    return type("Listener", (Callback,), hooks)()


def test_every_event_comes_in_its_place():
    log = []
    run([listener(log)], n=40, batch_size=30, n_epochs=2)
    batch = ["before_batch", "after_loss", "after_backward", "after_batch"]
    valid = ["before_valid", "after_valid_batch", "after_valid_batch", "after_valid"]
    epoch = ["before_epoch", *batch, *batch, *valid, "after_epoch"]
    assert log == ["before_fit", *epoch, *epoch, "after_fit", "clean_up"]


def test_the_list_is_the_order():
    log = []
    run([listener(log, "A "), listener(log, "B ")], n_epochs=1)
    *events, last, first = log  # the clean-up goes backwards
    assert [word[2:] for word in events[::2]] == [word[2:] for word in events[1::2]]
    assert {word[0] for word in events[::2]} == {"A"} and {word[0] for word in events[1::2]} == {"B"}
    assert (last, first) == ("B clean_up", "A clean_up")


def test_in_validation_a_callback_finds_the_validation_batch():
    found = []

    class Finds(Callback):
        def after_valid_batch(self, learner):
            assert torch.equal(learner.model(learner.xb), learner.logits)
            assert learner.loss == learner.criterion(learner.logits, learner.yb)
            found.append((learner.xb, learner.yb))

    run([Finds()], n_epochs=2)
    expected = 2 * halves(*problem())
    assert all(torch.equal(a, b) for pair in zip(found, expected, strict=True) for a, b in zip(*pair))


@pytest.mark.parametrize("error, event, then", [
    (CancelBatch, "before_batch", "before_batch"), (CancelBatch, "after_loss", "before_batch"),
    (CancelBatch, "after_backward", "before_batch"), (CancelFit, "before_fit", "after_fit"),
    (CancelFit, "before_epoch", "after_fit"), (CancelFit, "after_loss", "after_fit"),
    (CancelFit, "after_valid_batch", "after_fit"), (CancelFit, "after_epoch", "after_fit"),
])  # fmt: skip
def test_cancelling_leaves_at_once(error, event, then):
    log, times = [], itertools.count()

    def cancel(self, learner):
        if next(times) == 0:
            raise error

    run([listener(log), type("Cancels", (Callback,), {event: cancel})(), listener(log, "later ")], n_epochs=1)
    at = log.index(event)
    assert log[at + 1] == then


def test_a_misspelt_event_is_refused_and_helpers_are_not():
    with pytest.raises(TypeError, match="Wrong: found before_bach, expected one of before_fit, before_epoch"):
        type("Wrong", (Callback,), {"before_bach": None})
    type("Right", (Callback,), {"helper": None, "_before_all": None})


# Observers


def test_observers_observe(capsys):
    observers = [Metrics(accuracy=accuracy), LearningRates(), KeepBest(), Progress()]
    assert identical(run(observers), run())
    assert capsys.readouterr().out.splitlines()[-1].startswith("3  ")  # a line per epoch, without a notebook


@given(st.integers(2, 40), st.integers(2, 45))
def test_metrics_are_means_over_samples(n, batch_size):
    assume(n % batch_size != 1)
    last = {}

    class Keeps(Callback):
        def before_epoch(self, learner):
            last.clear()

        def after_loss(self, learner):
            last.setdefault("train", []).append((learner.logits, learner.yb))

        def after_valid_batch(self, learner):
            last.setdefault("valid", []).append((learner.logits, learner.yb))

    def squares(logits, yb): return (logits**2).mean()  # fmt: skip

    metrics = Metrics(accuracy=accuracy, squares=squares)
    x, y = problem(n)
    set_seed(0)
    model = network()
    learner = Learner(model, cross_entropy_loss, torch.optim.SGD(model.parameters()), [metrics, Keeps()])
    learner.fit(DataLoader(Dataset(x, y), batch_size), 2, DataLoader(Dataset(x, y), batch_size))
    for part, means in (("train", metrics.train), ("valid", metrics.valid)):
        logits, yb = (torch.cat(tensors) for tensors in zip(*last[part]))
        assert near(means["accuracy"][-1], accuracy(logits, yb)) and len(means["squares"]) == 2
        assert near(means["squares"][-1], squares(logits, yb), rtol=1e-4)


def test_the_best_weights_are_those_of_the_best_epoch():
    seen = []

    class Weights(Callback):
        def after_epoch(self, learner): seen.append(copy.deepcopy(learner.model.state_dict()))  # fmt: skip

    learner = run([best := KeepBest(), Weights()], optim=lambda ps: torch.optim.SGD(ps, lr=3.0), n_epochs=6)
    losses = learner.history.valid_losses
    assert best.epoch == 1 + losses.index(min(losses)) and best.loss == min(losses)
    assert all(torch.equal(best.weights[name], value) for name, value in seen[best.epoch - 1].items())


def test_a_progress_bar_says_where_the_run_is():
    learner = run([Progress()])
    bar = exp.nb_04._Bar(3, 5, "epoch 1 of 2: 3 of 5 <mini-batches>", epoch_table(learner.history))
    assert 'value="3" max="5"' in bar._repr_html_() and "&lt;mini" in bar._repr_html_() and "epoch 1 of 2" in repr(bar)
    assert len(epoch_table(learner.history).rows) == 4 and epoch_table(run(valid=False).history).rows[1][2] == "–"


IN_A_CONSOLE = """
import torch
from exp.nb_04 import *
x, y = torch.randn(20, 6), torch.arange(20) % 3
model = torch.nn.Sequential(torch.nn.Linear(6, 3))
learner = Learner(model, cross_entropy_loss, SGD(model.parameters()), [Progress()])
for valid in (None, [(x, y)]):
    print(epoch_table(learner.fit([(x, y)], 2, valid)))
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_progress_prints_on_any_console(encoding):
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", IN_A_CONSOLE], capture_output=True, env=env)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode(encoding).splitlines()
    assert len(lines) == 12 and lines[0].split()[2] == ("–" if encoding != "ascii" else "-")
    assert lines[2].split()[:2] == ["epoch", "training"] and set(lines[3]) <= set("─- ")


def test_learning_rates_of_ours_and_theirs():
    p = nn.Parameter(torch.zeros(1))
    assert learning_rate(SGD([p], lr=0.25)) == learning_rate(torch.optim.AdamW([p], lr=0.25)) == 0.25


# Callbacks that act


def stops_after(valid_losses, patience, min_delta):
    "Say by brute force after how many epochs training should stop."
    for n in range(1, len(valid_losses) + 1):
        best, waited = float("inf"), 0
        for loss in valid_losses[:n]:
            best, waited = (loss, 0) if loss < best - min_delta else (best, waited + 1)
        if waited == patience:
            return n
    return len(valid_losses)


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12), st.integers(1, 4),
       st.sampled_from([0.0, 0.05, 0.15]))  # fmt: skip
def test_early_stopping(valid_losses, patience, min_delta):
    callback, history = EarlyStopping(patience, min_delta), SimpleNamespace(valid_losses=[])
    learner = SimpleNamespace(valid=True, history=history)
    callback.before_fit(learner)
    for loss in valid_losses:
        history.valid_losses.append(loss)
        try:
            callback.after_epoch(learner)
        except CancelFit:
            break
    assert len(history.valid_losses) == stops_after(valid_losses, patience, min_delta)


@given(st.floats(1e-3, 1e3), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99))
def test_clipping_is_pytorchs(max_norm, dtype, seed):
    torch.manual_seed(seed)
    models = [nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype) for _ in range(2)]
    for p, q in zip(*(model.parameters() for model in models)):
        p.grad = 10 * torch.randn_like(p)
        q.grad = p.grad.clone()
    models[0][0].bias.grad = models[1][0].bias.grad = None  # a parameter that took no part
    clip = ClipGradient(max_norm)
    clip.before_fit(None)
    clip.after_backward(SimpleNamespace(model=models[0]))
    norm = nn.utils.clip_grad_norm_(models[1].parameters(), max_norm)
    assert near(clip.norms, [norm], rtol=1e-5)
    for p, q in zip(*(model.parameters() for model in models)):
        assert p.grad is q.grad is None or near(p.grad, q.grad)


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 6))
def test_accumulated_batches_are_the_large_batch(n, batch_size, steps):
    x, y = problem(n, dtype=torch.float64)
    weights = []
    for size, callbacks in ((batch_size, [Accumulate(steps)]), (batch_size * steps, [])):
        torch.manual_seed(0)
        model = network(dropout=0.0, norm=False).double()
        optim = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        Learner(model, cross_entropy_loss, optim, callbacks).fit(DataLoader(Dataset(x, y), size), n_epochs=2)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert near(*weights, rtol=1e-9, atol=1e-12)


def test_accumulation_needs_no_len():
    def in_order(x, y):
        return [(x[i : i + 9], y[i : i + 9]) for i in range(0, len(x), 9)]

    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(in_order(*problem()))

    with_len = run([Accumulate(3)], loader=in_order)
    stream = data.DataLoader(Stream(), batch_size=None, generator=torch.Generator())
    without = run([Accumulate(3)], loader=lambda x, y: stream)
    assert identical(with_len, without) and with_len.step == 9


def test_accumulation_leaves_the_loss_alone_and_counts_what_was_trained():
    losses = []

    class Later(Callback):
        def after_loss(self, learner):
            losses.append(learner.loss.item())

    learner = run([Accumulate(4), Later()], n=40)
    assert losses == learner.history.losses

    class SkipsFirst(Callback):
        def before_batch(self, learner):
            if learner.history.in_epoch == 0 and learner.epoch > len(self.skipped):
                self.skipped.append(learner.epoch)
                raise CancelBatch

    skips = SkipsFirst()
    skips.skipped = []
    assert run([skips, Accumulate(2)]).step == 6  # four of five mini-batches in each of three epochs

    class SkipsLast(Callback):
        def before_batch(self, learner):
            if learner.history.in_epoch == 3:
                raise CancelBatch

    with pytest.raises(RuntimeError, match="found 1 mini-batches without a step"):
        run([SkipsLast(), Accumulate(2)])


def stray_optim():
    "Return an optimiser that belongs to no model."
    return torch.optim.SGD([torch.zeros(1)])


@pytest.mark.parametrize("make, words", [
    (lambda: EarlyStopping(0), "patience: found 0, expected 1 or more"),
    (lambda: ClipGradient(0.0), "max_norm: found 0.0, expected more than 0"),
    (lambda: Accumulate(0), "steps: found 0, expected 1 or more"),
    (lambda: Schedule(None, each="step"), "each: found 'step', expected 'batch' or 'epoch'"),
    (lambda: Schedule(lr_scheduler.ReduceLROnPlateau(stray_optim()), "batch"), "found 'batch', expected 'epoch'"),
    (lambda: run([Schedule(lr_scheduler.StepLR(stray_optim(), 1))]), "found a scheduler of another optimiser"),
    (lambda: run([Accumulate(2), Accumulate(2)]), "Accumulate: found more than one"),
    (lambda: run(2 * [LearningRates()]), "callbacks: found the same LearningRates twice"),
    (lambda: run(loader=lambda x, y: []), "found a list without a mini-batch"),
    (lambda: Learner(network(), F.cross_entropy, torch.optim.SGD(network().parameters())).fit([problem()]),
     "optim: found parameters of another model"),
    (lambda: run([EarlyStopping()], valid=False), r"EarlyStopping: found no validation set, expected fit\(…, valid"),
    (lambda: run([KeepBest()], valid=False), "KeepBest: found no validation set"),
])  # fmt: skip
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_our_model_saves_and_loads_its_state():
    model = Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), Sequential(nn.Linear(3, 1)))
    theirs = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 1)))
    theirs.load_state_dict(model.state_dict())
    model.load_state_dict(theirs.state_dict())
    with pytest.raises(ValueError, match=r"found \['0.weight'\], expected \['0.bias'"):
        model.load_state_dict({"0.weight": torch.zeros(3, 2)})
    optim = SGD(model.parameters(), lr=0.5)
    optim.load_state_dict(SGD(model.parameters(), lr=0.25).state_dict())
    assert optim.lr == 0.25


def test_importing_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subprocess.run([sys.executable, "-W", "error", "-c", "import exp.nb_04"], check=True)


def test_the_loss_may_be_pytorchs():
    x, y = problem()
    model = network()
    history = Learner(model, F.cross_entropy, torch.optim.Adam(model.parameters())).fit([(x, y)], 30)
    assert history.losses[-1] < history.losses[0]


def test_a_state_that_comes_late_is_named():
    class Late(Callback):
        state_names = ("n",)

    with pytest.raises(AttributeError, match="Late: found no n, expected it from `before_fit` on"):
        Late().state_dict()
