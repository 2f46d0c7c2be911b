"""Checkpoints against everything that kills, damages or confuses them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from torch import nn
from torch.utils import data

import exp.nb_09
from exp.nb_09 import *
from tests.chapters.test_nb_04 import SCHEDULERS, identical, network, problem, run, stock_loader
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
    assert len(checkpointed("whole").history.losses) == 15  # nothing left to do


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
    with pytest.raises(TypeError, match="found contents that are no data"):
        save_checkpoint(tmp_path / "c", {"n": Evil()})
    assert not (tmp_path / "c").exists()
    save_checkpoint(tmp_path / "c", {"n": Evil()}, check=False)
    with pytest.raises(ValueError, match="c: found contents that are no data, expected tensors"):
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
        "c: mini-batches: found 5, expected 7": dict(batch_size=10),
    }
    for words, other in others.items():
        callbacks = [*other.pop("callbacks", [KeepBest()]), Checkpoint(path, resume=True)]
        with pytest.raises(ValueError, match=words):
            run(callbacks, **other)
    save_checkpoint(path, [1, 2])
    with pytest.raises(ValueError, match="c: found a list, expected a checkpoint of a Learner"):
        run([Checkpoint(path, resume=True)])


def test_a_loader_that_has_become_shorter_is_noticed(tmp_path):
    long = lambda x, y: (pair for pair in DataLoader(Dataset(x, y), 8))  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        run([InterruptAfter(8), Checkpoint(tmp_path / "c", 4, resume=True)], loader=long, n_epochs=1)
    short = lambda x, y: (pair for pair in DataLoader(Dataset(x, y), 40))  # noqa: E731
    with pytest.raises(ValueError, match="found 2 mini-batches in the epoch, expected 4 or more"):
        run([Checkpoint(tmp_path / "c", 4, resume=True)], loader=short, n_epochs=1)


def test_no_checkpoint_is_overwritten_or_followed(tmp_path):
    run([Checkpoint(tmp_path / "c")])
    with pytest.raises(FileExistsError, match="c: found a checkpoint, expected none. resume=True goes on from it"):
        run([Checkpoint(tmp_path / "c")])
    with pytest.raises(ValueError, match="found another callback after it, expected it at the end"):
        run([Checkpoint(tmp_path / "d"), KeepBest()])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this machine cannot fork")
def test_a_run_that_is_killed_twenty_times_is_never_another(tmp_path):
    script = Path(__file__).parents[1] / "programs" / "killed_run.py"
    command = [sys.executable, "-W", "error", str(script), str(tmp_path), "20"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)["kills"]
    same_in = [all(kill[part] for part in ("losses", "weights", "order", "optimiser", "callbacks")) for kill in kills]
    assert len(kills) == 20 and all(same_in), kills
    assert sum(kill["killed"] for kill in kills) >= 12, kills  # a fast machine may end a run before its kill
    assert len({kill["batches"] for kill in kills}) >= 8, kills  # spread over the run
    assert sum(kill["in the epoch"] > 0 for kill in kills) >= 3 and any(kill["in a write"] for kill in kills), kills


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
    with pytest.raises(ValueError, match="every: found 0, expected 1 or more"):
        Checkpoint("x", every=0)


def test_saving_observes(tmp_path):
    assert identical(run([KeepBest(), Checkpoint(tmp_path / "c", 2)]), run([KeepBest()]))


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
