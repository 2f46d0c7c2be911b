"""Checkpoints against everything that kills, damages or confuses them."""

import collections
import functools
import json
import os
import random
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from unittest import mock

import numpy
import pytest
from torch import nn
from torch.optim import lr_scheduler
from torch.utils import data

import exp.nb_09
from exp.nb_09 import *
from tests.chapters.test_nb_04 import SCHEDULERS, NoisyInMany, identical, network, problem, run, stock_loader
from tests.programs.killed_run import equal


class InterruptAfter(Callback):
    "Interrupt the training after so many mini-batches."

    def __init__(self, batches): self.batches = batches  # fmt: skip

    def after_batch(self, learner):
        if len(learner.history.losses) == self.batches:
            raise KeyboardInterrupt


def shuffled(seed):
    "Make a sampler with a generator of its own."
    return data.RandomSampler(range(70), generator=torch.Generator().manual_seed(seed))


LOADERS = {
    "ours": None,
    "ours, global numbers": lambda x, y: DataLoader(Dataset(x, y), 16, shuffle=True),
    "torch, global numbers": stock_loader,
    "torch, generator": lambda x, y: data.DataLoader(
        data.TensorDataset(x, y), 16, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "torch, sampler": lambda x, y: data.DataLoader(
        data.TensorDataset(x, y), 16, sampler=shuffled(3)
    ),
    "torch, batch sampler": lambda x, y: data.DataLoader(
        data.TensorDataset(x, y),
        batch_sampler=data.BatchSampler(shuffled(3), 16, drop_last=False),
    ),
    "torch, weighted": lambda x, y: data.DataLoader(
        data.TensorDataset(x, y), 16, sampler=data.WeightedRandomSampler(torch.ones(70), 70)
    ),
    "noisy": lambda x, y: data.DataLoader(Noisy(x, y), 16, shuffle=True),
}


class Noisy(Dataset):
    "Add noise to each sample: Python's, NumPy's and PyTorch's."

    def __getitem__(self, i):
        import random

        import numpy

        noise = random.random() + numpy.random.rand() + torch.rand(1)
        return self.x[i] + 0.1 * noise.float(), self.y[i]


def stateful():
    "Return every callback that has state."
    return [Metrics(accuracy=accuracy), LearningRates(), KeepBest(), ClipGradient(0.5), EarlyStopping(2)]


def states(learner):
    "Return the state of the callbacks."
    return [callback.state_dict() for callback in learner.callbacks if not isinstance(callback, InterruptAfter)]


@pytest.mark.parametrize("kind", LOADERS)
def test_resumed_runs_are_identical(kind, tmp_path):
    def checkpointed(number, *more):
        path = tmp_path / f"{number}"
        return run([*stateful(), *more, Checkpoint(path, every=2, resume=True)], loader=LOADERS[kind])

    whole = checkpointed("whole")
    for after in (1, 2, 4, 5, 6, 8, 14, 15):
        with pytest.raises(KeyboardInterrupt):
            checkpointed(after, InterruptAfter(after))
        resumed = checkpointed(after)
        assert identical(resumed, whole), after
        assert equal(states(resumed), states(whole)), after
    with pytest.warns(UserWarning, match="whole: found a run of 3 epochs, of 3: nothing is left to train"):
        assert len(checkpointed("whole").history.losses) == 15


def test_resume_with_accumulation_and_our_own_pieces(tmp_path):
    def checkpointed(name, *more):
        callbacks = [Accumulate(2), *more, Checkpoint(tmp_path / name, every=1, resume=True)]
        make = lambda: Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))  # noqa: E731
        return run(callbacks, optim=lambda ps: SGD(ps, lr=0.05), make=make)

    whole = checkpointed("whole")
    for after in (2, 4, 5, 7, 9, 10, 12):
        with pytest.raises(KeyboardInterrupt):
            checkpointed(f"{after}", InterruptAfter(after))
        assert identical(checkpointed(f"{after}"), whole), after


def test_a_longer_run_goes_on(tmp_path):
    run([Checkpoint(tmp_path / "c")], n_epochs=2)
    assert identical(run([Checkpoint(tmp_path / "c", resume=True)], n_epochs=4), run(n_epochs=4))


def test_random_states_return():
    import random

    import numpy

    own = torch.Generator()
    before = random_state([own])
    draws = [[random.random(), numpy.random.rand(), torch.rand(2).tolist(), torch.rand(2, generator=own).tolist()]
             for _ in range(2) if set_random_state(before, [own]) is None]  # fmt: skip
    assert draws[0] == draws[1]


def test_no_crash_in_a_write_hurts_the_checkpoint(tmp_path):
    path = tmp_path / "c"
    for step in ("fsync", "replace", "open", "close"):
        save_checkpoint(path, {"n": 1})
        with mock.patch.object(os, step, side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, {"n": 2})
        assert load_checkpoint(path)["n"] == (1 if step in ("fsync", "replace") else 2)


def test_what_was_written_is_on_the_disk_before_it_has_the_name(tmp_path):
    order, fsync, replace = [], os.fsync, os.replace
    with mock.patch.object(os, "fsync", lambda number: (order.append(os.fstat(number).st_size), fsync(number))):
        with mock.patch.object(os, "replace", lambda a, b: (order.append("replace"), replace(a, b))):
            write_atomically(tmp_path / "f", b"12345")
    assert order[:2] == [5, "replace"] and len(order) == (3 if os.name == "posix" else 2)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_files_that_are_no_checkpoints_are_named(tmp_path):
    path = tmp_path / "c"
    with pytest.raises(FileNotFoundError):
        load_checkpoint(path)
    save_checkpoint(path, {"n": torch.arange(9)})
    whole = path.read_bytes()
    for cut in [*range(0, 80), *range(80, len(whole), 7)]:
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=f"{path.name}: found .*, expected "):
            load_checkpoint(path)
    for flipped in range(0, len(whole), 11):
        path.write_bytes(whole[:flipped] + bytes([whole[flipped] ^ 4]) + whole[flipped + 1 :])
        with pytest.raises(ValueError, match=f"{path.name}: found .*, expected "):
            load_checkpoint(path)
    torch.save({"n": 1}, path)
    with pytest.raises(ValueError, match=r"a file that starts with b'PK.*expected b'exp.nb_09 checkpoint"):
        load_checkpoint(path)


class Evil:
    def __reduce__(self):
        return print, ("this was run",)


def test_nothing_is_run(tmp_path, capsys):
    with pytest.raises(TypeError, match=r"c: found Evil at state\['n'\], expected tensors"):
        save_checkpoint(tmp_path / "c", {"n": Evil()})
    assert not (tmp_path / "c").exists()
    save_checkpoint(tmp_path / "c", {"n": Evil()}, check=False)
    with pytest.raises(ValueError, match="c: found .*print, expected tensors"):
        load_checkpoint(tmp_path / "c")
    assert "this was run" not in capsys.readouterr().out
    assert "weights_only=False" not in Path(exp.nb_09.__file__).read_text(encoding="utf-8")


def test_a_checkpoint_made_for_something_else_is_refused_untouched(tmp_path):
    path = tmp_path / "c"
    run([KeepBest(), Checkpoint(path)])
    others = {
        r"c: model, 0.weight: found \[8, 6\], expected \[9, 6\]": dict(make=lambda: network(width=9)),
        "c: optimiser: found SGD, expected Adam": dict(optim=torch.optim.Adam),
        r"c: parameter groups: found \[6\], expected \[1\]": dict(optim=lambda ps: torch.optim.SGD([next(ps)])),
        r"c: callbacks: found \['KeepBest'\], expected \[\]": dict(callbacks=[]),
        r"c: learning rates: found \[0.1\], expected \[0.2\]": dict(optim=lambda ps: torch.optim.SGD(ps, 0.2)),
        "c: data, mini-batches: found 5, expected 7": dict(batch_size=10),
        "c: data, batch size: found 16, expected 17": dict(batch_size=17),
        "c: data, samples: found 70, expected 69": dict(n=69),
        "c: data, shuffle: found True, expected False": dict(loader=lambda x, y: DataLoader(Dataset(x, y), 16)),
        r"c: sources of random numbers: found \['Generator'\], expected \[\]": dict(
            loader=lambda x, y: DataLoader(Dataset(x, y), 16, shuffle=True)
        ),
    }
    for words, other in others.items():
        callbacks = [*other.pop("callbacks", [KeepBest()]), Checkpoint(path, resume=True)]
        with pytest.raises(ValueError, match=words):
            run(callbacks, **other)
    save_checkpoint(path, [1, 2])
    with pytest.raises(ValueError, match="c: found a list, expected a checkpoint of a Learner"):
        run([Checkpoint(path, resume=True)])


def in_pieces(size, end=70, order=None):
    "Return a function that makes a one-way loader which says nothing of itself."
    def loader(x, y):
        at = torch.arange(70) if order is None else order
        return ((x[i : i + size], y[i : i + size]) for x, y in [(x[at], y[at])] for i in range(0, end, size))

    return loader


@pytest.mark.parametrize("other, words", [
    (in_pieces(40), "mini-batch 1 of the epoch is not the one that was trained on"),
    (in_pieces(8, end=24), "found 3 mini-batches in the epoch, expected 4 or more"),
    (in_pieces(8, order=torch.arange(70).roll(1)), "mini-batch 1 of the epoch is not the one"),
    (in_pieces(8, order=torch.tensor([*range(24), *range(31, 23, -1), *range(32, 70)])), "mini-batch 4 of the epoch"),
])  # fmt: skip
def test_other_mini_batches_are_noticed(other, words, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run([InterruptAfter(8), Checkpoint(tmp_path / "c", 4, resume=True)], loader=in_pieces(8), n_epochs=1)
    with pytest.raises(ValueError, match=words):
        run([Checkpoint(tmp_path / "c", 4, resume=True)], loader=other, n_epochs=1)
    again = run([Checkpoint(tmp_path / "c", 4, resume=True)], loader=in_pieces(8), n_epochs=1)
    assert identical(again, run(loader=in_pieces(8), n_epochs=1))


class Wrapped:
    "Hide a data loader."

    def __init__(self, loader): self.inside = {"loader": [loader]}  # fmt: skip

    def __iter__(self): return iter(self.inside["loader"][0])  # fmt: skip


@pytest.mark.parametrize("after", [1, 3, 5, 7, 10, 12])
@pytest.mark.parametrize("kind", ["noise of every kind", "wrapped", "callback"])
def test_hidden_generators_are_found(kind, after, tmp_path):
    class Jitters(Callback):
        own = None

        def before_fit(self, learner):
            self.own = torch.Generator().manual_seed(8)

        def before_batch(self, learner):
            learner.xb = learner.xb + torch.randn(learner.xb.shape, generator=self.own)

    loader = {
        "noise of every kind": lambda x, y: data.DataLoader(NoisyInMany(x, y), 16, shuffle=True),
        "wrapped": lambda x, y: Wrapped(DataLoader(Dataset(x, y), 16, True, torch.Generator().manual_seed(2))),
        "callback": None,
    }[kind]

    def checkpointed(path, *more):
        return run([Jitters(), *more, Checkpoint(tmp_path / path, 2, resume=True)], loader=loader)

    whole = checkpointed("whole")
    with pytest.raises(KeyboardInterrupt):
        checkpointed("c", InterruptAfter(after))
    assert identical(checkpointed("c"), whole)


@pytest.mark.parametrize("wrap", [lambda loader: loader, Wrapped, lambda loader: Wrapped(lambda: loader)])
def test_workers_that_stay_are_refused(wrap, tmp_path):
    def loader(x, y):
        return wrap(data.DataLoader(Dataset(x, y), 16, num_workers=1, persistent_workers=True))

    with pytest.raises(ValueError, match="found persistent_workers=True, expected False"):
        run([Checkpoint(tmp_path / "c")], loader=loader)


@pytest.mark.parametrize("every", [None, 2])
def test_a_run_that_was_stopped_is_whole_in_its_file(every, tmp_path):
    def stopped(*more):
        lr = dict(optim=lambda ps: torch.optim.SGD(ps, lr=3.0))
        return run([KeepBest(), EarlyStopping(1), *more], n_epochs=30, **lr)

    expected = stopped()
    first = stopped(Checkpoint(tmp_path / "c", every, resume=True))
    assert identical(first, expected) and len(first.history.epoch_ends) < 30
    assert load_checkpoint(tmp_path / "c")["history"] == first.history.state_dict()
    written = (tmp_path / "c").read_bytes()
    again = stopped(Checkpoint(tmp_path / "c", every, resume=True))
    assert identical(again, expected) and (tmp_path / "c").read_bytes() == written


class CancelAfter(InterruptAfter):
    "Cancel the training after so many mini-batches, in this process only."

    def after_batch(self, learner):
        if len(learner.history.losses) == self.batches:
            raise CancelFit


@pytest.mark.parametrize("after", [3, 5, 8])
def test_a_run_that_was_cancelled_goes_on(after, tmp_path):
    cancelled = run([CancelAfter(after), Checkpoint(tmp_path / "c", 2, resume=True)])
    assert len(load_checkpoint(tmp_path / "c")["history"]["losses"]) == len(cancelled.history.losses) == after
    assert identical(run([Checkpoint(tmp_path / "c", 2, resume=True)]), run())


@pytest.mark.parametrize("event", ["before_batch", "after_loss", "after_backward"])
def test_no_half_mini_batch_is_written(event, tmp_path):
    def cancel(self, learner):
        if len(learner.history.losses) >= 7:
            raise CancelFit

    run([type("Cancels", (Callback,), {event: cancel})(), Checkpoint(tmp_path / "c", 2, resume=True)])
    assert identical(run([Checkpoint(tmp_path / "c", 2, resume=True)]), run())


def test_cancelled_in_a_window_of_accumulation(tmp_path):
    class Cancels(Callback):
        def after_loss(self, learner):
            if len(learner.history.losses) == 7:
                raise CancelFit

    run([Accumulate(3), Cancels(), Checkpoint(tmp_path / "c", 1, resume=True)])
    assert identical(run([Accumulate(3), Checkpoint(tmp_path / "c", 1, resume=True)]), run([Accumulate(3)]))


@pytest.mark.parametrize("resume", [False, True])
def test_what_can_be_known_is_said_before_the_first_mini_batch(resume, tmp_path):
    losses = []

    class Counts(Callback):
        def after_loss(self, learner): losses.append(1)  # fmt: skip

    def attempt(path, **more):
        return run([Counts(), Checkpoint(path, resume=resume)], **more)

    with pytest.raises(FileNotFoundError, match="found no folder .*runs, expected one: os.makedirs"):
        attempt(tmp_path / "runs" / "c")
    with pytest.raises(IsADirectoryError, match="found a folder, expected the name of a file"):
        attempt(tmp_path)

    class Bare:
        def __init__(self, parameters): pass  # fmt: skip
        def step(self): pass  # fmt: skip
        def zero_grad(self): pass  # fmt: skip

    with pytest.raises(TypeError, match="found a Bare without state_dict, expected an optimiser that can be saved"):
        attempt(tmp_path / "c", optim=Bare)
    assert losses == []


def test_the_last_few_files_are_kept(tmp_path):
    run([Checkpoint(tmp_path / "c", keep=3)], n_epochs=5)
    files = {path.name: len(load_checkpoint(path)["history"]["epoch_ends"]) for path in tmp_path.iterdir()}
    assert files == {"c": 5, "c.1": 4, "c.2": 3}
    whole = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="damaged: take an older one, .*c.1$"):
        load_checkpoint(tmp_path / "c")
    os.replace(tmp_path / "c.1", tmp_path / "c")
    resumed = run([Checkpoint(tmp_path / "c", keep=3, resume=True)], n_epochs=5)
    assert identical(resumed, run(n_epochs=5))


def test_a_full_disk_keeps_the_old_file_and_no_half_one(tmp_path):
    save_checkpoint(tmp_path / "c", {"n": 1})
    full = OSError(28, "No space left on device")
    with mock.patch.object(os, "fsync", side_effect=full), pytest.raises(OSError, match="No space left on device.*c'"):
        save_checkpoint(tmp_path / "c", {"n": 2})
    assert load_checkpoint(tmp_path / "c") == {"n": 1} and os.listdir(tmp_path) == ["c"]


WRITES = """
import sys
from exp.nb_09 import *
for n in range(150):
    save_checkpoint(sys.argv[1], {"n": n, "weights": torch.full((999,), n)}, check=False, keep=int(sys.argv[2]))
    load_checkpoint(sys.argv[1])
"""


@pytest.mark.parametrize("keep", [1, 3])
def test_two_processes_with_one_path_never_publish_half_a_file(keep, tmp_path):
    path = tmp_path / "c"
    both = [subprocess.Popen([sys.executable, "-c", WRITES, str(path), f"{keep}"]) for _ in range(2)]
    while any(process.poll() is None for process in both):
        if path.exists():
            state = load_checkpoint(path)
            assert (state["weights"] == state["n"]).all()
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(os.listdir(tmp_path)) == ["c", "c.1", "c.2"][:keep]
    assert all((state["weights"] == state["n"]).all() for state in map(load_checkpoint, tmp_path.iterdir()))


@pytest.mark.parametrize("value, name", [(Path("x"), ".*Path"), (lambda: 1, "method"), (range(3), "range")])
def test_the_place_of_what_is_no_data_is_named(value, name, tmp_path):
    class Holds(Callback):
        state_names = ("n",)
        n = value

    with pytest.raises(TypeError, match=rf"c: found ({name}) at state\['callbacks'\]\[0\]\['n'\], expected tensors"):
        run([Holds(), Checkpoint(tmp_path / "c")])
    assert os.listdir(tmp_path) == []


def test_other_metrics_are_refused_at_once(tmp_path):
    run([Metrics(acc=accuracy), Checkpoint(tmp_path / "c")])
    with pytest.raises(ValueError, match=r"Metrics: found the names \['acc'\], expected \['top1'\]"):
        run([Metrics(top1=accuracy), Checkpoint(tmp_path / "c", resume=True)], n_epochs=5)


def test_what_a_callback_refuses_is_refused_before_a_weight_is_touched(tmp_path):
    run([Metrics(acc=accuracy), Checkpoint(tmp_path / "c")])
    made = []
    with pytest.raises(ValueError, match="Metrics: found the names"):
        run([Metrics(top1=accuracy), Checkpoint(tmp_path / "c", resume=True)],
            make=lambda: made.append(network()) or made[0])  # fmt: skip
    set_seed(5)  # as `run` does
    assert all(map(torch.equal, made[0].state_dict().values(), network().state_dict().values()))


def test_the_number_of_steps_goes_on(tmp_path):
    run([Checkpoint(tmp_path / "c")], n_epochs=2)
    assert run([Checkpoint(tmp_path / "c", resume=True)], n_epochs=3).step == 15


def test_validation_may_be_added(tmp_path):
    run([Checkpoint(tmp_path / "c")], n_epochs=2, valid=False)
    learner = run([Checkpoint(tmp_path / "c", resume=True)], n_epochs=3)
    rows = epoch_table(learner.history).rows[1:]
    assert len(rows) == 3 and [row[2] == "–" for row in rows] == [True, True, False]


def test_no_checkpoint_is_overwritten_or_followed(tmp_path):
    run([Checkpoint(tmp_path / "c")])
    with pytest.raises(FileExistsError, match="c: found a checkpoint, expected none. resume=True goes on from it"):
        run([Checkpoint(tmp_path / "c")])
    with pytest.raises(ValueError, match="found another callback after it, expected it at the end"):
        run([Checkpoint(tmp_path / "d"), KeepBest()])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this machine cannot fork")
def test_a_run_that_is_killed_twenty_times_is_never_another(tmp_path):
    script = Path(__file__).parents[1] / "programs" / "killed_run.py"
    command = [sys.executable, "-W", "error", str(script), str(tmp_path), "5"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    kills, ends = told["kills"], told["ends"]
    parts = {"losses", "weights", "order", "optimiser", "callbacks"}
    assert len(ends) == 5 and all(set(each) == parts and all(each.values()) for each in ends), ends
    assert len(kills) == 20 and all(kill["killed"] for kill in kills), kills
    assert len({kill["batches"] for kill in kills}) >= 10, kills  # spread over the run
    assert sum(kill["in the epoch"] > 0 for kill in kills) >= 6, kills
    assert sum(kill["in a write"] for kill in kills) >= 1, kills


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.filterwarnings("ignore:To get the last learning rate:UserWarning")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_any_scheduler_survives_a_checkpoint(name, tmp_path):
    rates = LearningRates()
    whole = run(lambda o: [rates, Schedule(SCHEDULERS[name](o))])
    expected = rates.lrs

    def interrupted(after):
        return lambda o: [rates, Schedule(SCHEDULERS[name](o)), *after, Checkpoint(tmp_path / "c", 1, resume=True)]

    with pytest.raises(KeyboardInterrupt):
        run(interrupted([InterruptAfter(7)]))
    resumed = run(interrupted([]))
    assert rates.lrs == expected and identical(resumed, whole)


def test_what_cannot_be_is_refused():
    for name, words in (("every", ", or None: only after each epoch"), ("keep", "$")):
        with pytest.raises(ValueError, match=f"{name}: found 0, expected 1 or more{words}"):
            Checkpoint("x", **{name: 0})


def test_saving_observes(tmp_path):
    assert identical(run([KeepBest(), Checkpoint(tmp_path / "c", 2)]), run([KeepBest()]))


# Random numbers that hide


NOISE = random.Random(4)  # a global that a function below names


def hides(kind, x, y):
    "Return a data loader and a criterion; one of them draws from a generator that is well hidden."
    own, criterion = torch.Generator().manual_seed(1), cross_entropy_loss

    def shuffled(): return iter(DataLoader(Dataset(x, y), 16, True, own))  # fmt: skip

    class InClosure:
        def __iter__(self): return shuffled()  # fmt: skip

    class InPartial:
        make = functools.partial(lambda g: iter(DataLoader(Dataset(x, y), 16, True, g)), own)
        def __iter__(self): return self.make()  # fmt: skip

    class InGlobals(Dataset):
        def __getitem__(self, i): return self.x[i] + NOISE.random(), self.y[i]  # fmt: skip

    drawn = numpy.random.default_rng(5)

    def collated(samples, noise=drawn):
        return torch.stack([a for a, _ in samples]) + noise.random(), torch.stack([b for _, b in samples])

    class Noisy:
        def __init__(self): self.add = lambda logits: logits + torch.randn(logits.shape, generator=own)  # fmt: skip
        def __call__(self, logits, yb): return cross_entropy_loss(self.add(logits), yb)  # fmt: skip

    loader = DataLoader(Dataset(x, y), 16)
    if kind in ("closure", "partial"):
        loader = {"closure": InClosure, "partial": InPartial}[kind]()
    elif kind == "global":
        NOISE.seed(4)
        loader = DataLoader(InGlobals(x, y), 16)
    elif kind == "default of collate":
        loader = data.DataLoader(data.TensorDataset(x, y), 16, collate_fn=collated)
    elif kind == "criterion":
        criterion = Noisy()
    return loader, criterion


@pytest.mark.parametrize("after", [3, 5, 8, 10])
@pytest.mark.parametrize("kind", ["closure", "partial", "global", "default of collate", "criterion"])
def test_what_is_hidden_in_functions_is_found(kind, after, tmp_path):
    def checkpointed(path, *more):
        set_seed(5)
        model, (loader, criterion) = network(), hides(kind, *problem())
        learner = Learner(model, criterion, SGD(model.parameters()), [*more, Checkpoint(tmp_path / path, 2, True)])
        learner.fit(loader, 3, [problem()])
        return learner

    whole = checkpointed("whole")
    with pytest.raises(KeyboardInterrupt):
        checkpointed("c", InterruptAfter(after))
    assert identical(checkpointed("c"), whole)


class ByTheSystem:
    "Draw numbers that nobody can put back: for the order, or for the inputs."

    def __init__(self, x, y, noise):
        self.x, self.y, self.noise, self.dice = x, y, noise, random.SystemRandom()

    def __iter__(self):
        x = self.x + self.dice.random() if self.noise else self.x
        order = torch.arange(70) if self.noise else torch.tensor(self.dice.sample(range(70), 70))
        return iter([(x[some], self.y[some]) for some in order.split(16)])


class CountsEpochs:
    "Shuffle by the number of times that it was asked, which it keeps for itself."

    def __init__(self, x, y): self.x, self.y, self.epoch = x, y, 0  # fmt: skip

    def __iter__(self):
        self.epoch += 1
        order = torch.randperm(70, generator=torch.Generator().manual_seed(self.epoch))
        return iter([(self.x[some], self.y[some]) for some in order.split(16)])


UNFOUND = [lambda x, y: ByTheSystem(x, y, False), lambda x, y: ByTheSystem(x, y, True), CountsEpochs]


@pytest.mark.parametrize("make", UNFOUND)
def test_what_nobody_finds_is_refused_before_the_first_mini_batch(make, tmp_path):
    losses = []

    class Counts(Callback):
        def after_loss(self, learner): losses.append(1)  # fmt: skip

    with pytest.raises(ValueError, match="c: training: found another first mini-batch, expected the same again"):
        run([Counts(), Checkpoint(tmp_path / "c")], loader=make)
    set_seed(5)
    model, (x, y) = network(), problem()
    learner = Learner(model, cross_entropy_loss, SGD(model.parameters()), [Counts(), Checkpoint(tmp_path / "c")])
    with pytest.raises(ValueError, match="c: validation: found another first mini-batch"):
        learner.fit(DataLoader(Dataset(x, y), 16), 1, valid=make(x, y))
    assert losses == [] and os.listdir(tmp_path) == []


@pytest.mark.parametrize("wrap", [lambda stream: stream, lambda stream: Wrapped(stream)])
def test_a_stream_is_not_asked_twice(wrap, tmp_path):
    learner = run([Checkpoint(tmp_path / "c")], loader=lambda x, y: wrap(in_pieces(16)(x, y)), n_epochs=1)
    assert learner.history.sizes == [16, 16, 16, 16, 6]
    assert identical(learner, run(loader=in_pieces(16), n_epochs=1))


@pytest.mark.parametrize("n_epochs", [1, 2])
def test_other_inputs_are_noticed_between_epochs_too(n_epochs, tmp_path):
    run([Checkpoint(tmp_path / "c")], n_epochs=n_epochs)

    def brighter(x, y): return DataLoader(Dataset(1.01 * x, y), 16, True, torch.Generator().manual_seed(5))  # fmt: skip

    with pytest.raises(ValueError, match="c: training: found another first mini-batch"):
        run([Checkpoint(tmp_path / "c", resume=True)], loader=brighter)


def test_a_script_without_a_seed_goes_on(tmp_path):
    "The first mini-batch is asked for with the random numbers of the file, not of the script."
    def checkpointed(*more):
        model, (x, y) = network(), problem()
        loader = data.DataLoader(Noisy(x, y), 16, shuffle=True)
        optim = torch.optim.SGD(model.parameters(), lr=0.1)
        learner = Learner(model, cross_entropy_loss, optim, [*more, Checkpoint(tmp_path / "c", 2, resume=True)])
        learner.fit(loader, 3)
        return learner

    with pytest.raises(KeyboardInterrupt):
        checkpointed(InterruptAfter(7))
    torch.seed(), random.seed(), numpy.random.seed()
    assert len(checkpointed().history.losses) == 15


def test_checksums_of_what_mini_batches_hold():
    checksum = exp.nb_09._checksum
    for dtype in (torch.float32, torch.bfloat16, torch.complex64, torch.bool, torch.uint8, torch.int64):
        one = torch.tensor([0, 1, 1]).to(dtype)
        assert checksum(one) == checksum(one.clone()) != checksum(one.flip(0)), dtype
    assert checksum(torch.empty(0)) == checksum(torch.empty(0)) != checksum(torch.zeros(1))
    many = numpy.arange(5_000)
    other = many.copy()
    other[2_500] = 0
    assert checksum(many) == checksum(many.copy()) != checksum(other)  # of which repr shows the ends only
    assert checksum(collections.UserDict(a=many)) == checksum({"a": many}) != checksum({"a": other})
    assert checksum({"a": 1}) != checksum({"b": 1}) and checksum([1, "a"]) != checksum([1, "b"])
    assert checksum(object()) == checksum(object())  # no address


def test_a_mini_batch_is_split_once(tmp_path):
    class Draws(Learner):
        splits = 0

        def split(self, batch):
            self.splits += 1
            return batch.pop("x") + torch.rand(1), batch.pop("y")

    class Dicts:
        def __init__(self, x, y): self.pairs = in_pieces(16)(x, y)  # fmt: skip
        def __iter__(self): return ({"x": x, "y": y} for x, y in self.pairs)  # fmt: skip

    def trained(*callbacks):
        set_seed(5)
        model = network()
        learner = Draws(model, cross_entropy_loss, torch.optim.SGD(model.parameters(), lr=0.1), callbacks)
        learner.fit(map(dict, Dicts(*problem())), 1)
        return learner

    bare = trained()
    saved = trained(Checkpoint(tmp_path / "c", 2))
    assert bare.splits == saved.splits == 5 and identical(bare, saved) and "split" not in vars(saved)
    with pytest.raises(KeyboardInterrupt):
        trained(InterruptAfter(3), Checkpoint(tmp_path / "d", 2))
    resumed = trained(Checkpoint(tmp_path / "d", 2, resume=True))
    assert identical(resumed, bare) and "split" not in vars(resumed)


def test_a_split_of_ones_own_stays(tmp_path):
    model, (x, y) = network(), problem()
    learner = Learner(model, cross_entropy_loss, SGD(model.parameters()), [Checkpoint(tmp_path / "c")])
    learner.split = split = lambda batch: (batch["x"], batch["y"])
    learner.fit([{"x": x, "y": y}] * 3, 2, valid=[{"x": x, "y": y}])
    assert learner.split is split and len(learner.history.losses) == 6


# What the file would win


def decays(o): return Schedule(lr_scheduler.StepLR(o, 2, 0.5))  # fmt: skip


OTHERS = {
    "momentum of group 0 of the optimiser: found 0.9, expected 0.5": dict(
        optim=lambda ps: torch.optim.SGD(ps, 0.1, 0.5)),
    "weight_decay of group 0 of the optimiser: found 0, expected 0.1": dict(
        optim=lambda ps: torch.optim.SGD(ps, 0.1, 0.9, weight_decay=0.1)),
    "nesterov of group 0 of the optimiser: found False, expected True": dict(
        optim=lambda ps: torch.optim.SGD(ps, 0.1, 0.9, nesterov=True)),
    "gamma of Schedule, the state 0: found 0.5, expected 0.1": dict(schedule=lambda o: lr_scheduler.StepLR(o, 2, 0.1)),
    "step_size of Schedule, the state 0: found 2, expected 3": dict(schedule=lambda o: lr_scheduler.StepLR(o, 3, 0.5)),
    "level of Holds, the state 1: found 'low', expected 'high'": dict(level="high"),
}  # fmt: skip


@pytest.mark.parametrize("words", [None, *OTHERS])
def test_settings_of_the_file_do_not_win_without_a_word(words, tmp_path):
    class Holds(Callback):
        state_names, n = ("level", "n"), 0
        def __init__(self, level): self.level = level  # fmt: skip
        def after_batch(self, learner): self.n += 1  # fmt: skip

    def checkpointed(n_epochs, optim=lambda ps: torch.optim.SGD(ps, 0.1, 0.9), level="low",
                     schedule=lambda o: lr_scheduler.StepLR(o, 2, 0.5)):  # fmt: skip
        return run(lambda o: [Schedule(schedule(o)), Holds(level), Checkpoint(tmp_path / "c", 2, resume=True)],
                   n_epochs=n_epochs, optim=optim)  # fmt: skip

    checkpointed(1)
    if words is None:
        assert checkpointed(2).callbacks[2].n == 10
    else:
        with pytest.raises(ValueError, match=f"c: settings, {words}. The checkpoint was made for something else"):
            checkpointed(2, **OTHERS[words])


def test_settings_that_a_schedule_moves_are_none(tmp_path):
    def cycle(o): return lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=20)  # fmt: skip

    def pieces(path):
        set_seed(5)
        model, (x, y) = network(), problem()
        optim = torch.optim.SGD(model.parameters(), 0.1, 0.9)  # the cycle moves the momentum, too
        callbacks = [Schedule(cycle(optim)), Checkpoint(tmp_path / path, resume=True)]
        learner = Learner(model, cross_entropy_loss, optim, callbacks)
        return learner, DataLoader(Dataset(x, y), 16, True)

    whole, loader = pieces("whole")
    whole.fit(loader, 4)
    here, loader = pieces("here")
    for n in (1, 2, 3, 4):
        here.fit(loader, n)  # in one process: each goes on from the file
    assert identical(here, whole)
    for n in (1, 2, 3, 4):
        there, loader = pieces("there")
        there.fit(loader, n)  # as if each were a new one
    assert identical(there, whole)


class Forgets(Callback):
    "Remember something, and say nothing of it."

    def before_fit(self, learner): self.seen, self.n, self.path = [], 0, "x"  # fmt: skip

    def after_batch(self, learner):
        self.seen.append(1)
        self.n = 1


class SaysSo(Forgets):
    state_names = ()


def test_what_a_callback_forgets_is_said(tmp_path):
    def checkpointed(n_epochs, *callbacks):
        path = tmp_path / type(callbacks[0]).__name__
        return run([*callbacks, Checkpoint(path, resume=True)], n_epochs=n_epochs)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpointed(1, Forgets())
        for quiet in (SaysSo, Progress, Accumulate, KeepBest, LearningRates, ClipGradient):
            checkpointed(1, quiet())
            checkpointed(2, quiet())
    words = r"Forgets: found nothing of Forgets.seen \(callback 1\), Forgets.n \(callback 1\), which changed while it"
    with pytest.warns(UserWarning, match=words):
        checkpointed(2, Forgets())


# A file that is there stays whole


class CancelsAtOnce(Callback):
    on = True

    def before_fit(self, learner):
        if self.on:
            raise CancelFit


def test_a_fit_that_is_cancelled_at_once_writes_nothing(tmp_path):
    model, (x, y) = network(), problem()
    first, last = CancelsAtOnce(), Checkpoint(tmp_path / "c", resume=True)
    learner = Learner(model, cross_entropy_loss, SGD(model.parameters()), [first, last])
    assert learner.fit(DataLoader(Dataset(x, y), 16), 1).losses == [] and os.listdir(tmp_path) == []
    first.on = False
    learner.fit(DataLoader(Dataset(x, y), 16), 1)
    written, first.on = (tmp_path / "c").read_bytes(), True
    with torch.no_grad():
        model[0].weight.add_(1.0)
    learner.fit(DataLoader(Dataset(x, y), 16), 2)
    assert (tmp_path / "c").read_bytes() == written


NO_DATA = [print, torch.relu, range(3), nn.ReLU(), nn.ReLU, random.Random(), threading.Lock(), ...]


@pytest.mark.parametrize("value", NO_DATA)
def test_what_becomes_no_data_later_is_not_written(value, tmp_path):
    class Turns(Callback):
        state_names, n = ("n",), 1

        def after_epoch(self, learner):
            self.n = value if learner.epoch == 2 else 1

    with pytest.raises(TypeError, match=r"c: found .* at state\['callbacks'\]\[0\]\['n'\], expected tensors"):
        run([Turns(), Checkpoint(tmp_path / "c")])
    assert len(load_checkpoint(tmp_path / "c")["history"]["epoch_ends"]) == 1 and os.listdir(tmp_path) == ["c"]


def test_an_older_file_that_another_process_has_moved_is_no_error(tmp_path):
    for n in (1, 2, 3):
        save_checkpoint(tmp_path / "c", {"n": n}, keep=3)
    replace = os.replace

    def stolen(a, b):
        if f"{a}".endswith("c.1"):
            os.unlink(a)
        replace(a, b)

    with mock.patch.object(os, "replace", stolen):
        save_checkpoint(tmp_path / "c", {"n": 4}, keep=3)
    assert [load_checkpoint(tmp_path / name)["n"] for name in ("c", "c.1", "c.2")] == [4, 3, 1]


def test_a_run_that_is_cancelled_in_a_validation_goes_on(tmp_path):
    class Cancels(Callback):
        def after_valid_batch(self, learner):
            if learner.epoch == 2:
                raise CancelFit

    def checkpointed(*more):
        return run([Metrics(accuracy=accuracy), *more, Checkpoint(tmp_path / "c", 2, resume=True)])

    cancelled, whole = checkpointed(Cancels()), run([Metrics(accuracy=accuracy)])
    assert load_checkpoint(tmp_path / "c")["history"]["epoch_ends"] == cancelled.history.epoch_ends == [5, 10]
    resumed = checkpointed()
    assert resumed.history.losses == whole.history.losses
    assert resumed.callbacks[1].train == whole.callbacks[1].train
    first, _, last = whole.history.valid_losses
    assert resumed.history.valid_losses == [first, last] and resumed.history.valid_steps == [5, 15]
    assert resumed.callbacks[1].valid["accuracy"][1] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA on this machine")
def test_training_on_a_gpu(tmp_path):
    set_seed(0)
    x, y = problem()
    model = network()
    callbacks = [Metrics(accuracy=accuracy), KeepBest(), ClipGradient(1.0), Checkpoint(tmp_path / "c", 2, resume=True)]
    learner = Learner(model, cross_entropy_loss, torch.optim.Adam(model.parameters()), callbacks, device="cuda")
    learner.fit(DataLoader(Dataset(x, y), 16), 2, [(x, y)])
    assert next(model.parameters()).is_cuda
    assert len(learner.fit(DataLoader(Dataset(x, y), 16), 3, [(x, y)]).losses) == 15
