"""Processes: the workers under every fault, the averages against PyTorch's, the Learner's callback, the program."""

import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cloudpickle
import pytest
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import exp.nb_12
from exp.nb_12 import *
from tools import records
from tools.chapters import ROOT, chapter

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker has to import pytest
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for processes")


@pytest.fixture(scope="module")
def two():
    "Two workers that stay for all tests of this module."
    with Workers(2, seconds=60) as workers:
        yield workers


def images(n=1_280):
    "Return n images and labels that can be learned."
    x = torch.randn(n, 20, generator=torch.Generator().manual_seed(n))
    return x, x[:, :5].argmax(1)


def network(seed=1, norm=None):
    "Build a small model."
    set_seed(seed)
    return nn.Sequential(nn.Linear(20, 16), *([norm(16)] if norm else []), nn.ReLU(), nn.Linear(16, 5))


def flat(model):
    "Return all weights in one vector."
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# Workers: what they do


def test_answers_come_by_rank_and_the_same_processes_stay(two):
    first, again = two(lambda: (dist.get_rank(), os.getpid())), two(lambda: (dist.get_rank(), os.getpid()))
    assert [rank for rank, _ in first] == [0, 1] and first == again and os.getpid() not in dict(first).values()


def test_functions_classes_and_tensors_arrive(two):
    class Halved:
        def __init__(self, x): self.x = x / 2  # fmt: skip

    found = two(lambda kind, f, x: f(kind(x).x).tolist(), Halved, lambda x: x + 1, torch.tensor([2.0, 4.0]))
    assert found == [[2.0, 3.0]] * 2
    shared = two(lambda x: x.is_shared(), torch.ones(3))
    assert shared == [True, True]


def test_what_workers_print_stands_after_their_rank(two, capsys):
    two(lambda: print(f"hello from {dist.get_rank()}\nand more"))
    said = ["[0] hello from 0", "[0] and more", "[1] hello from 1", "[1] and more"]
    assert capsys.readouterr().out.splitlines() == said


def test_a_world_of_one_and_two_pools_side_by_side(two):
    with Workers(1) as alone, Workers(3) as three:
        assert alone(dist.get_world_size) == [1] and three(dist.get_world_size) == [3] * 3
        assert two(dist.get_world_size) == [2, 2]


@pytest.mark.parametrize("n", [0, -1, 2.0, "2", None])
def test_a_pool_of_no_workers_is_refused(n):
    with pytest.raises(ValueError, match="expected 1 or more, whole"):
        Workers(n)


def test_only_the_loopback_is_used(two):
    names = {"linux": "lo", "darwin": "lo0"}
    assert two(lambda: os.environ.get("GLOO_SOCKET_IFNAME")) == [names.get(sys.platform)] * 2


def test_a_busy_port_disturbs_nobody():
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        with Workers(2) as workers:
            assert workers(dist.get_world_size) == [2, 2]


# Workers: what goes wrong


class Odd(Exception):
    "An error that cannot be built again from its arguments."

    def __init__(self, a, b): super().__init__(f"{a} and {b}")  # fmt: skip


def fails(what, rank=1):
    "Raise in one worker, while the others wait for it."
    if dist.get_rank() == rank:
        if what == "exit":
            sys.exit(3)
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"value": ValueError("no label"), "odd": Odd(1, 2), "import": ImportError("gone")}[what]
    dist.barrier()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "what, kind, words",
    [
        ("value", ValueError, "^no label$"),
        ("import", ImportError, "gone"),
        ("odd", TypeError, "cannot be sent: Odd: 1 and 2"),
        ("exit", RuntimeError, "ended by exit code 3"),
        ("kill", RuntimeError, "ended by SIGKILL"),
    ],
)
def test_the_cause_is_told_at_once_and_nobody_stays(rank, what, kind, words):
    workers, start = Workers(2, seconds=60), time.monotonic()
    pids = workers(os.getpid)
    with pytest.raises(kind, match=words):
        workers(fails, what, rank)
    assert time.monotonic() - start < 30 and gone(pids)
    assert workers(dist.get_rank) == [0, 1]  # and they start anew
    workers.stop()


def gone(pids, seconds=10):
    "Tell whether processes end within some seconds."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_the_traceback_of_the_worker_is_there():
    with Workers(2) as workers, pytest.raises(ValueError) as found:
        workers(fails, "value")
    assert "in worker 1" in f"{found.value.__cause__}" and "in fails" in f"{found.value.__cause__}"


@LINUX
def test_a_stopped_worker_is_named_within_the_time_limit():
    def stops():
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        dist.barrier()

    workers = Workers(2, seconds=3)
    with pytest.raises(TimeoutError, match="worker 0 waited for 3 s.*worker 1 does not answer.*stopped"):
        workers(stops)
    assert workers.processes == []


def test_a_call_that_takes_too_long_is_ended():
    workers = Workers(1, longest=5)
    pids = workers(os.getpid)
    with pytest.raises(TimeoutError, match="the notebook waited for 5 s.*worker 0 does not answer"):
        workers(time.sleep, 60)
    assert gone(pids)


def test_an_error_that_speaks_of_gloom_is_no_consequence():
    def gloomy():
        if dist.get_rank() == 1:
            raise RuntimeError("gloomy data in the igloo")
        dist.barrier()

    with Workers(2, seconds=20) as workers, pytest.raises(RuntimeError, match="igloo"):
        workers(gloomy)


def test_one_call_at_a_time(two):
    said = []

    def second():
        try:
            two(dist.get_rank)
        except RuntimeError as error:
            said.append(str(error))

    thread = threading.Timer(0.5, second)
    thread.start()
    assert two(lambda: [time.sleep(1.5), dist.get_rank()][1]) == [0, 1]
    thread.join()
    assert said == ["Workers: found a call still running, expected one"] and two(dist.get_rank) == [0, 1]


def test_an_answer_that_cannot_be_sent_is_told_and_what_cannot_travel_is_not_sent(two):
    with pytest.raises(TypeError, match="found an answer that cannot be sent.*expected plain data"):
        two(lambda: threading.Lock())
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        two(lambda: lock)
    assert two(dist.get_rank) == [0, 1]


LEFT_BEHIND = """
import os, sys, time
from exp.nb_12 import *
workers = Workers(2)
if __name__ == "__main__":
    print(*workers(os.getpid), flush=True)
    {then}
"""


@LINUX
@pytest.mark.parametrize("then", ["workers(time.sleep, 60)", "time.sleep(60)", "pass"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nobody_is_left_behind_by_a_process_that_ends(package, tmp_path, then, how):
    "From the installed wheel, in a folder with a space in its name."
    place = tmp_path / "a folder, größer"
    place.mkdir()
    program = place / "program.py"
    program.write_text(LEFT_BEHIND.format(then=then), encoding="utf-8")
    own = {**os.environ, "PYTHONPATH": str(package)}
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "encoding": "utf-8"}
    with subprocess.Popen([sys.executable, str(program)], cwd=place, env=own, **quiet) as process:
        pids = process.stdout.readline().split()
        assert len(pids) == 2
        if then != "pass":
            time.sleep(0.5)
            process.send_signal(how)
        process.wait(30)
        if then == "workers(time.sleep, 60)" and how == signal.SIGKILL:
            pass  # they sleep for their minute, and end when they want to answer
        else:
            assert gone(pids)
    assert sorted(path.name for path in place.iterdir()) == ["program.py"]
    for pid in pids:
        if Path(f"/proc/{pid}").exists():
            os.kill(int(pid), signal.SIGKILL)


# Meeting


def test_who_comes_alone_is_told_where_the_others_were_expected(tmp_path):
    with pytest.raises(TimeoutError, match="rank 1: found not all of 2 processes within 0.5 s"):
        join(1, 2, tmp_path, seconds=0.5)
    assert not dist.is_initialized()


@pytest.mark.parametrize("rank, n, folder", [(2, 2, "."), (-1, 2, "."), (0, 1, "no such folder")])
def test_a_rank_or_a_folder_that_is_not_there_is_told_at_once(rank, n, folder):
    with pytest.raises(ValueError, match="expected a rank from 0 to n - 1, and a folder that is there"):
        join(rank, n, folder, seconds=1)


def test_a_part_of_what_torchrun_says_is_not_enough(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"found no \['RANK', 'MASTER_ADDR', 'MASTER_PORT'\]"):
        join_torchrun(seconds=1)


def free_port():
    "Return a port that nobody uses."
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def under_torchrun(monkeypatch, port, rank):
    "Set what torchrun tells a process."
    told = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))


def test_an_unreachable_rendezvous_is_told(monkeypatch):
    under_torchrun(monkeypatch, free_port(), 1)
    with pytest.raises(TimeoutError, match="rank 1: found nobody at 127.0.0.1, port .* firewall"):
        join_torchrun(seconds=1)


def test_a_port_in_use_is_told(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        under_torchrun(monkeypatch, taken.getsockname()[1], 0)
        with pytest.raises(TimeoutError, match="is the port in use"):
            join_torchrun(seconds=1)


# Averages


def both_sums(shapes, kind):
    "Return ours and PyTorch's sum of tensors of these shapes."
    chance, found = torch.Generator().manual_seed(dist.get_rank()), []
    for shape in shapes:
        ours = torch.randint(-99, 99, shape, generator=chance).to(kind)
        theirs = ours.clone()
        ring_all_reduce(ours)
        dist.all_reduce(theirs)
        found.append(torch.equal(ours, theirs))
    return found


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_ring_is_all_reduce(world):
    "Whole numbers: every order gives the same. Fewer numbers than processes, none, and no dimension, too."
    shapes = [(7, 5), (1,), (2,), (3,), (0,), (), (64, 3, 2)]
    with Workers(world) as workers:
        for kind in (torch.float32, torch.float64, torch.int64):
            assert workers(both_sums, shapes, kind) == [[True] * len(shapes)] * world


def train(way, steps, size=64):
    "Train on the shares of MNIST's mini-batches; return losses and weights."
    x, y = get_mnist_data()
    x, y = normalize(x[:50_000], x[:50_000].mean(), x[:50_000].std()), y[:50_000]
    set_seed(42)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    world = 2
    parts = range(2) if way == "in parts" else [dist.get_rank()]
    model = DistributedDataParallel(model) if way == "DDP" else model
    optim, losses = SGD(model.parameters(), lr=0.1), []
    loader = DataLoader(Dataset(x, y), size, shuffle=True, generator=torch.Generator().manual_seed(42))
    for _, (xb, yb) in zip(range(steps), loader):
        for part in parts:
            loss = cross_entropy_loss(model(xb[part::world]), yb[part::world])
            losses.append(loss.item())
            loss.backward()
        if way == "in parts":
            for p in model.parameters():
                p.grad /= world
        elif way == "ring":
            for p in model.parameters():
                ring_all_reduce(p.grad)
                p.grad /= world
        elif way == "bucket":
            average_gradients(model)
        optim.step()
        optim.zero_grad()
    return losses, flat(model)


def test_two_processes_are_one_that_takes_the_shares_in_turn_over_a_whole_epoch(two):
    "All 782 mini-batches, the last of 16: every loss, every weight, bit for bit."
    losses, weights = train("in parts", 782)
    for way in ("ring", "bucket", "DDP"):
        (first, w0), (second, w1) = two(train, way, 782)
        assert [loss for pair in zip(first, second) for loss in pair] == losses and len(first) == 782
        assert torch.equal(w0, weights) and torch.equal(w1, weights)


def averaged(frozen):
    "Return the gradients that the bucket gives, and those of single all-reduces."
    ours, theirs = network(), network()
    for model in (ours, theirs):
        model[2].double()
        (model[0](torch.full((1, 20), dist.get_rank() + 1.0)).sum() + 3 * model[2].weight.sum()).backward()
    if frozen:
        ours[0].weight.grad = theirs[0].weight.grad = None
    average_gradients(ours)
    for p in theirs.parameters():
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= 2
    pairs = [(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters())]
    return all(torch.equal(p, q) if p is not None else q is None for p, q in pairs)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_bucket_takes_several_types_and_parameters_without_gradients(two, frozen):
    assert two(averaged, frozen) == [True, True]


def test_the_bucket_without_any_gradient_says_so(two):
    with pytest.raises(RuntimeError, match="found no gradients, expected some"):
        two(lambda: average_gradients(network()))


def copies(kind):
    "Broadcast a model whose weights differ; return whether all are equal, before and after."
    set_seed(dist.get_rank())
    model = MLP(20, 8, 5) if kind == "ours" else network(dist.get_rank(), nn.BatchNorm1d)
    if kind != "ours":
        model[1].running_mean += dist.get_rank()
    try:
        check_equal(model)
        before = True
    except RuntimeError as error:
        before = str(error)
    broadcast(model)
    check_equal(model)
    return before


@pytest.mark.parametrize("kind", ["ours", "PyTorch's"])
def test_broadcast_makes_equal_and_check_equal_sees_it(two, kind):
    assert all("other weights on rank [1]" in said for said in two(copies, kind))


def normed(training, steps=3):
    "Compare our SyncBatchNorm over shares with BatchNorm over all: values, gradients, statistics."
    rank, world = dist.get_rank(), dist.get_world_size()
    ours, theirs = network(1, exp.nb_12.SyncBatchNorm).double(), network(1, nn.BatchNorm1d).double()
    theirs.load_state_dict(ours.state_dict())
    ours.train(training), theirs.train(training)
    for step in range(steps):
        x = torch.randn(12, 20, generator=torch.Generator().manual_seed(step)).double()
        y = torch.arange(12) % 5
        ours.zero_grad(), theirs.zero_grad()
        share, whole = ours(x[rank::world]), theirs(x)
        cross_entropy_loss(share, y[rank::world]).backward()
        cross_entropy_loss(whole, y).backward()
        average_gradients(ours)
        assert near(share, whole[rank::world], 1e-9)
        assert all(near(p.grad, q.grad, 1e-8, 1e-12) for p, q in zip(ours.parameters(), theirs.parameters()))
    return all(near(a, b, 1e-9) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values()))


@pytest.mark.parametrize("training", [True, False])
def test_sync_batch_norm_is_batch_norm_of_all(two, training):
    assert two(normed, training) == [True, True]


@pytest.mark.parametrize("shape", [(2, 64, 3), (2, 63), (2, 1), (64,)])
def test_sync_batch_norm_refuses_other_shapes(two, shape):
    with pytest.raises(ValueError, match=r"SyncBatchNorm: found x of shape .*expected \[n, 64\]"):
        two(lambda: exp.nb_12.SyncBatchNorm(64)(torch.ones(shape)))


def test_sync_batch_norm_refuses_one_sample_and_takes_one_of_each(two):
    with pytest.raises(ValueError, match="fewer than two samples in all"):
        two(lambda: exp.nb_12.SyncBatchNorm(4)(torch.ones(1 - dist.get_rank(), 4)))
    one_each = two(lambda: exp.nb_12.SyncBatchNorm(4)(torch.full((1, 4), 1.0 * dist.get_rank())).tolist())
    assert near(one_each, [[[-1.0] * 4], [[1.0] * 4]], 1e-4)


# The Learner


def learn(shared, seed=3, size=24, n=100, n_epochs=2, more=None, loader="ours", model=network):
    "Train a Learner, with our callback or alone; return its history and weights."
    x, y = images(n)
    net = model(seed + (dist.get_rank() if shared else 0))
    callbacks = [Distributed()] if shared else []
    learner = Learner(net, cross_entropy_loss, SGD(net.parameters(), lr=0.3), callbacks + (more() if more else []))
    if loader == "ours":
        batches = DataLoader(Dataset(x, y), size, shuffle=True, generator=torch.Generator().manual_seed(5))
    else:
        order = torch.Generator().manual_seed(5)
        batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), size, shuffle=True, generator=order)
    history = learner.fit(batches, n_epochs, valid=DataLoader(Dataset(x, y), 50))
    return history, flat(net)


@pytest.mark.parametrize("loader", ["ours", "PyTorch's"])
@pytest.mark.parametrize("world", [1, 3])
def test_the_learner_with_others_is_the_learner_alone(world, loader):
    "100 samples in mini-batches of 24 leave 4; one sample more than three processes, and in batches of 2 one fewer."
    with Workers(world) as workers:
        for size in (24, 2):
            alone = learn(False, size=size, loader=loader)
            found = workers(learn, True, 3, size, 100, 2, None, loader)
            assert same(found[0][0], alone[0]).word == ("identical" if world == 1 else "close")
            assert all(torch.equal(weights, found[0][1]) for _, weights in found)
            assert all(history.losses == found[0][0].losses for history, _ in found)


def tools():
    "Return callbacks that must do the same everywhere."
    return [ClipGradient(0.5), KeepBest(), EarlyStopping(patience=1, min_delta=10.0), LearningRates()]


def test_other_callbacks_work_and_all_stop_together(two):
    alone = learn(False, n_epochs=6, more=tools)
    found = two(learn, True, 3, 24, 100, 6, tools)
    assert same(found[0][0], alone[0]).word == "close" and len(alone[0].epoch_ends) == 2
    assert found[0][0].losses == found[1][0].losses


def test_our_own_model_is_trained_too(two):
    def mlp(seed):
        set_seed(seed)
        return MLP(20, 16, 5)

    alone = learn(False, model=mlp)
    found = two(learn, True, 3, 24, 100, 2, None, "ours", mlp)
    assert same(found[0][0], alone[0]).word == "close" and torch.equal(found[0][1], found[1][1])


def test_a_loss_that_is_no_number_on_one_rank_is_the_error_that_is_told():
    def breaks():
        net, (x, y) = network(), images(64)
        x[1] = torch.nan  # in the share of rank 1
        learner = Learner(net, cross_entropy_loss, SGD(net.parameters()), [Distributed()])
        learner.fit(DataLoader(Dataset(x, y), 64))

    with Workers(2, seconds=60) as workers, pytest.raises(FloatingPointError, match="mini-batch 1"):
        workers(breaks)


class Broken(Callback):
    "Raise after some mini-batches."

    state_names = []

    def __init__(self, after): self.after = after  # fmt: skip

    def after_batch(self, learner):
        if learner.step == self.after:
            raise InterruptedError("broken off")


def saving(path, broken=None):
    "Return a function that makes callbacks: one that breaks off, metrics, a checkpoint."
    stop = lambda: [Broken(broken)] if broken else []  # noqa: E731
    return lambda: [Metrics(top=lambda z, y: z.amax()), *stop(), SharedCheckpoint(path, every=2, resume=True)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_broken_run_goes_on_and_with_other_numbers_of_processes(two, tmp_path, world):
    whole = two(learn, True, 3, 24, 100, 3, saving(str(tmp_path / "whole.pt")))
    path = str(tmp_path / "broken.pt")
    with pytest.raises(InterruptedError, match="broken off"):
        two(learn, True, 3, 24, 100, 3, saving(path, broken=7))
    with Workers(world) as others:
        found = others(learn, True, 3, 24, 100, 3, saving(path))
    assert same(found[0][0], whole[0][0]).word == ("identical" if world == 2 else "close")
    assert all(torch.equal(weights, found[0][1]) for _, weights in found)


def test_a_checkpoint_of_another_model_is_refused_by_all(two, tmp_path):
    path = str(tmp_path / "run.pt")
    two(learn, True, 3, 24, 100, 1, saving(path))

    def wider(seed):
        set_seed(seed)
        return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))

    with pytest.raises(ValueError, match="model, .*found .*expected"):
        two(learn, True, 3, 24, 100, 2, saving(path), "ours", wider)


def test_outside_of_a_group_the_callback_says_what_is_missing():
    with pytest.raises(RuntimeError, match="found no process group, expected one"):
        net = network()
        Learner(net, cross_entropy_loss, SGD(net.parameters()), [Distributed()]).fit(DataLoader(Dataset(*images(64))))


def test_a_callback_that_would_see_the_gradients_of_one_share_is_refused():
    def clipped_first():
        net, callbacks = network(), [ClipGradient(1.0), Distributed()]
        Learner(net, cross_entropy_loss, SGD(net.parameters()), callbacks).fit(DataLoader(Dataset(*images(64))))

    with Workers(1) as workers, pytest.raises(ValueError, match="found ClipGradient before it"):
        workers(clipped_first)


@pytest.mark.parametrize("frozen", [(0, 2), (0, 1), (None, 3)])
def test_gradients_of_other_parameters_are_refused_and_not_mixed(frozen):
    "Also where the buckets are equally long, which gloo would sum without a word."
    def train_parts():
        net = nn.Sequential(*(nn.Linear(20, 20) for _ in range(4)), nn.Linear(20, 5))
        layer = frozen[dist.get_rank()]
        if layer is not None:
            net[layer].requires_grad_(False)
        Learner(net, cross_entropy_loss, SGD(net.parameters()), [Distributed()]).fit(DataLoader(Dataset(*images(64))))

    with Workers(2, seconds=20) as workers, pytest.raises(RuntimeError, match="found gradients of other parameters"):
        workers(train_parts)


def fit_with(callbacks=list, criterion=cross_entropy_loss, labels=None, seed=0, size=64, n=64, velocity=0, norm=None):
    "Fit a small net in every process, with one thing changed."
    net, (x, y) = network(norm=norm), images(n)
    optim = SGD(net.parameters(), lr=0.1, momentum=0.9)
    if velocity:
        for p in net.parameters():
            p.grad = torch.full_like(p, velocity * dist.get_rank())
        optim.step()
        optim.zero_grad()
    y = y if labels is None else torch.where(torch.arange(n) == 3, labels, y)
    order = torch.Generator().manual_seed(seed * dist.get_rank())
    loader = DataLoader(Dataset(x, y), size, shuffle=True, generator=order)
    Learner(net, criterion, optim, [Distributed(), *callbacks()]).fit(loader)
    return flat(net)


@pytest.mark.parametrize(
    "how, words",
    [
        ({"seed": 1}, "found another mini-batch than in other processes"),
        ({"velocity": 1.0}, r"found another optimiser state on rank \[1\]"),
        ({"criterion": nn.CrossEntropyLoss(weight=torch.arange(5.0))}, "weights of classes"),
        ({"criterion": nn.CrossEntropyLoss(), "labels": -100}, "found labels -100, which the loss leaves out"),
        ({"callbacks": lambda: [Accumulate(2)], "size": 3, "n": 6}, "found a mini-batch of 3 for 2 .* beside Acc"),
        ({"callbacks": lambda: [Checkpoint("run.pt")]}, "found Checkpoint, which every process would write"),
        ({"norm": lambda n: exp.nb_12.SyncBatchNorm(n), "size": 4, "n": 5}, "a mini-batch of 1 for 2 .* and Sync"),
    ],
)
def test_what_would_go_wrong_in_silence_is_refused(how, words):
    with Workers(2, seconds=20) as workers, pytest.raises((ValueError, RuntimeError), match=words):
        workers(lambda: fit_with(**how))


def test_accumulated_gradients_of_equal_shares_are_those_of_one_process(two):
    def accumulated(shared):
        net, (x, y) = network(), images(96)
        callbacks = [*([Distributed()] if shared else []), Accumulate(2)]
        Learner(net, cross_entropy_loss, SGD(net.parameters(), lr=0.1), callbacks).fit(DataLoader(Dataset(x, y), 16))
        return flat(net)

    first, second = two(accumulated, True)
    assert torch.equal(first, second) and near(first, accumulated(False), 1e-5, 1e-6)


def test_all_judge_with_the_statistics_of_rank_0_and_stop_together(two):
    def judged():
        net, (x, y) = network(norm=nn.BatchNorm1d), images(200)
        optim, stop = SGD(net.parameters(), lr=1.0), EarlyStopping(patience=1)
        loader = DataLoader(Dataset(x[:100], y[:100]), 20)
        history = Learner(net, cross_entropy_loss, optim, [Distributed(), stop]).fit(
            loader, 8, valid=DataLoader(Dataset(x[100:], y[100:]), 50))
        return history.valid_losses

    first, second = two(judged)
    assert first == second and len(first) >= 2


def test_gradients_that_a_sum_of_squares_would_take_for_equal_are_told():
    "3² + 4² = 5²."
    def crossed():
        net, off = nn.Sequential(*(nn.Linear(20, 20) for _ in range(3)), nn.Linear(20, 5)), ((4,), (2, 3))
        for i, p in enumerate(net.parameters()):
            p.requires_grad_(i not in off[dist.get_rank()])
        Learner(net, cross_entropy_loss, SGD(net.parameters()), [Distributed()]).fit(DataLoader(Dataset(*images(64))))

    with Workers(2, seconds=20) as workers, pytest.raises(RuntimeError, match="found gradients of other parameters"):
        workers(crossed)


def test_what_is_shared_of_a_mini_batch():
    Pair = collections.namedtuple("Pair", "x names")
    x = torch.arange(10.0).reshape(5, 2)
    share = exp.nb_12._share
    assert share(x, 5, 1, 3).tolist() == x[[1, 4]].tolist() and share(x[:1], 1, 2, 3).tolist() == x[:1].tolist()
    found = share({"pair": Pair(x, list("abcde")), "more": [x, (x,)]}, 5, 0, 2)
    assert found["pair"].names == ["a", "c", "e"] and isinstance(found["pair"], Pair)
    assert len(found["more"][0]) == len(found["more"][1][0]) == 3
    for wrong in (torch.tensor(3.0), torch.ones(4), [x, torch.ones(4)], list("abc")):
        with pytest.raises(ValueError, match="found a part of .* rows in a mini-batch of 5 samples"):
            share(wrong, 5, 0, 2)


def test_a_checkpoint_that_only_one_process_sees_is_refused(tmp_path):
    def resumed(place):
        path = os.path.join(place, f"{dist.get_rank()}.pt")
        if dist.get_rank() == 0:
            save_checkpoint(path, {})
        fit_with(lambda: [SharedCheckpoint(path, resume=True)])

    with Workers(2, seconds=20) as workers, pytest.raises(ValueError, match="expected one file that all processes see"):
        workers(resumed, str(tmp_path))


def test_other_shapes_are_not_broadcast():
    with Workers(2, seconds=20) as workers, pytest.raises(ValueError, match=r"other names or shapes on rank \[1\]"):
        workers(lambda: broadcast(nn.Linear(3, 3 + dist.get_rank())))


def test_outside_of_a_group_all_say_so():
    for call in (lambda: broadcast(network()), lambda: check_equal(network()), lambda: on_rank_0(),
                 lambda: exp.nb_12.SyncBatchNorm(4)(torch.ones(2, 4))):  # fmt: skip
        with pytest.raises(RuntimeError, match="found no process group, expected one"):
            call()


def test_a_layer_that_is_frozen_everywhere_is_no_mistake(two):
    def train_rest():
        net = network()
        net[0].requires_grad_(False)
        before = net[0].weight.clone()
        Learner(net, cross_entropy_loss, SGD(net.parameters()), [Distributed()]).fit(DataLoader(Dataset(*images(64))))
        return torch.equal(net[0].weight, before)

    assert two(train_rest) == [True, True]


def test_callbacks_of_rank_0_are_there_only(two):
    assert two(lambda: len(on_rank_0(Progress(0.5), Accuracy()))) == [2, 0]


# The program


def program(*words, env=()):
    "Run the chapter's program; return what it says."
    own = {**os.environ, "PYTHONPATH": str(ROOT), **dict(env)}
    command = [sys.executable, *words]
    done = subprocess.run(command, env=own, capture_output=True, text=True, encoding="utf-8", timeout=200)
    return done.returncode, done.stdout + done.stderr


def test_the_program_runs_alone_and_says_its_options(tmp_path):
    told = tmp_path / "told.json"
    words = ["-W", "error", "-m", "exp.nb_12", "--samples", "640", "--data", "fashion", "--history", str(told)]
    code, said = program(*words)
    assert code == 0 and "rank 0 of 1" in said and re.search(r"^1 +\d\.\d", said, re.MULTILINE), said
    assert len(json.loads(told.read_text(encoding="utf-8"))["losses"]) == 10
    code, said = program("-m", "exp.nb_12", "--help")
    assert code == 0 and "--checkpoint" in said and "--batch-size" in said
    code, said = program("-m", "exp.nb_12", "--history", str(tmp_path / "no" / "told.json"))
    assert code == 1 and "--history: found no folder for" in said
    code, said = program("-m", "exp.nb_12", "--samples", "3")
    assert code == 1 and "found 3, expected 64 (a mini-batch) to 50,000" in said


# The model of the network


@pytest.mark.parametrize("n", [2, 3, 8, 100, 1024])
def test_the_times_of_ring_and_tree(n):
    assert ring_time(n, 1e9, 0, 1e9) == pytest.approx(tree_time(n, 1e9, 0, 1e9)) == pytest.approx(2 * (n - 1) / n)
    assert ring_time(n, 0, 1, 1) == 2 * (n - 1) >= tree_time(n, 0, 1, 1) >= 2


# The records


@pytest.mark.parametrize("name", ["kills", "network"])
def test_the_chapter_shows_what_is_stored(name):
    rows = records.module(name).rows(records.stored(name)["runs"])
    text = '"""\n' + "\n".join(rows) + '\n"""'
    assert sum(text in cell.source for cell in chapter("12").code_cells) == 1


def test_no_folder_is_left_in_the_place_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Workers(1) as workers:
        workers(dist.get_rank)
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
