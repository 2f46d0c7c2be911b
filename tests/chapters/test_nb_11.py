"""The stopwatch by a clock of its own; the fast loop against chapter 02's and PyTorch's; what they refuse."""

import copy
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import exp.nb_11
from exp.nb_11 import *
from exp.nb_11 import F, FirstSGD


class Toy:
    "A clock that only work moves on, slower and slower if told to."
    def __init__(self, drift=0.0):
        self.now, self.drift, self.ran = 0.0, drift, []

    def clock(self):
        return self.now

    def runner(self, name, seconds, cold=0.0):
        def work():
            self.now += (seconds + cold * (name not in self.ran)) * (1 + self.drift * self.now)
            self.ran.append(name)
        return work


# The stopwatch


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0]), min_size=1, max_size=5), st.integers(3, 8))
def test_a_race_gives_every_piece_its_own_seconds_without_the_warm_up(seconds, rounds):
    toy = Toy()
    works = {i: toy.runner(i, each, cold=64.0) for i, each in enumerate(seconds)}
    times = race(works, rounds, toy.clock)
    assert times.seconds == {i: [each] * rounds for i, each in enumerate(seconds)}
    assert toy.ran[: len(seconds)] == list(range(len(seconds)))  # the warm-up
    for turn in range(rounds):
        at = len(seconds) * (turn + 1)
        order = toy.ran[at : at + len(seconds)]
        assert sorted(order) == list(range(len(seconds))) and order[0] == turn % len(seconds)


def test_a_machine_that_slows_down_changes_no_ratio_much():
    toy = Toy(drift=0.002)
    times = race({"a": toy.runner("a", 1.0), "b": toy.runner("b", 2.0)}, 30, toy.clock)
    assert times.seconds["a"][-1] > 1.1 * times.seconds["a"][0]
    assert times.ratio("b", "a") == pytest.approx(2, rel=0.01) and times.verdict("b", "a") == "slower"


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=3, max_size=9))
def test_ratios_are_medians_within_rounds_or_refused(pairs):
    times = Times({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]})
    ratios = [a / b for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    if high - low > middle:
        with pytest.raises(ValueError, match="a to b: found ratios from .* expected them closer together"):
            times.ratio("a", "b")
    else:
        assert times.ratio("a", "b") == middle == pytest.approx(statistics.median(ratios))
    assert times.verdict("a", "b") in ("faster", "slower", "a tie")


@pytest.mark.parametrize("seconds, said", [([0.5] * 5, "faster"), ([2.0] * 5, "slower"), ([0.9, 1, 1.2], "a tie")])
def test_verdicts(seconds, said):
    assert Times({"a": seconds, "b": [1.0] * 5}).verdict("a", "b") == said


@pytest.mark.parametrize("works, rounds", [({}, 5), ({"a": print}, 2)])
def test_races_without_runners_or_rounds_are_refused(works, rounds):
    with pytest.raises(ValueError, match="race: found .* expected 1 or more, and 3 or more"):
        race(works, rounds)


def test_work_that_the_clock_cannot_see_is_refused():
    times = race({"a": lambda: None}, 3, clock=lambda: 1.0)
    with pytest.raises(ValueError, match="a: found 0 seconds.*too small for this clock"):
        times.ratio("a", "a")


def test_the_stopwatch_counts_cpu_seconds_unless_told_otherwise():
    nap = {"nap": lambda: time.sleep(0.05)}
    assert max(race(nap, 3).seconds["nap"]) < 0.05 <= min(race(nap, 3, time.perf_counter).seconds["nap"]) + 0.005


def test_regions_add_up_and_leave_the_rest_out():
    toy = Toy()
    regions = Regions(toy.clock)
    for seconds in (1.0, 3.0):
        with regions("a"):
            toy.runner("a", seconds)()
        toy.runner("none", 10.0)()
        with regions("b"):
            toy.runner("b", 1.0)()
    assert regions.taken == {"a": 4, "b": 2} and regions.shares() == {"a": 4 / 6, "b": 2 / 6}


def test_operations_are_counted_forward_and_backward():
    w = torch.ones(3, 3, requires_grad=True)
    seen = calls_of(lambda: (torch.ones(2, 3) @ w).sum().backward())
    assert seen["mm"] == 2 and seen["sum"] == 1 and calls_of(lambda: None).total() == 0
    with pytest.raises(RuntimeError):
        calls_of(lambda: torch.ones(2) @ torch.ones(3))
    assert calls_of(lambda: torch.ones(2)).total() == 1  # nothing is left switched on


# The limit and the fast loop


@pytest.mark.parametrize("turned", [False, True])
def test_the_limit_computes_five_products_a_step(turned):
    model = MLP(6, 5, 3)
    before = [p.clone() for p in model.parameters()]
    seen = calls_of(lambda: limit_epoch(model, torch.randn(10, 6), bs=4, turned=turned))
    assert limit_epoch(model, torch.randn(10, 6), bs=4, turned=turned) == 15 == seen["mm"]
    assert all(map(torch.equal, before, model.parameters()))


def by_pytorch(model, x, y, lr, bs):
    "Train with PyTorch's own tools; return the losses."
    losses, optim = [], torch.optim.SGD(model.parameters(), lr)
    for xb, yb in zip(x.split(bs), y.split(bs)):
        loss = F.cross_entropy(model(xb), yb)
        losses.append(loss.item())
        optim.zero_grad()
        loss.backward()
        optim.step()
    return losses


@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(1, 20), st.integers(1, 8), st.integers(0, 99))
def test_the_fast_loop_trains_what_pytorch_trains(sizes, n, bs, seed):
    n_in, _, n_out = sizes
    set_seed(seed)
    model = MLP(*sizes)
    other = copy.deepcopy(model)
    x, y = torch.randn(n, n_in), torch.randint(n_out, (n,))
    kept = x.clone(), y.clone()
    found = fast_epoch(model, x, y, 0.1, bs)
    assert found == pytest.approx(by_pytorch(other, x, y, 0.1, bs), rel=1e-4, abs=1e-5)
    for ours, theirs in zip(model.parameters(), other.parameters()):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) and ours.requires_grad and ours.grad is None
    assert torch.equal(x, kept[0]) and torch.equal(y, kept[1])


def test_the_fast_loop_is_close_to_fit_for_a_hundred_mini_batches():
    set_seed(1)
    x, y = torch.randn(6_416, 784), torch.randint(10, (6_416,))
    histories = []
    for name in ("fit", "fast"):
        set_seed(2)
        model, history = MLP(), History(name)
        if name == "fit":
            kept = fit(DataLoader(Dataset(x, y), 64), model, cross_entropy_loss, FirstSGD(model.parameters(), 0.01))
            losses = kept.losses
        else:
            losses = fast_epoch(model, x, y, 0.01)
        for loss, part in zip(losses, y.split(64), strict=True):
            history.add(loss, None, len(part))
        history.end_epoch()
        histories.append(history)
    assert same(*histories[::-1]).word in ("identical", "close")


def test_the_fast_loop_asks_for_few_operations():
    x, y = torch.randn(64 * 21, 784), torch.randint(10, (64 * 21,))
    one, more = (calls_of(lambda n=n: fast_epoch(MLP(), x[:n], y[:n])).total() for n in (64, 64 * 21))
    assert (more - one) / 20 < 25


def refusals():
    "List what the fast loop must not take: (error, message, arguments)."
    x, y, model = torch.randn(8, 784), torch.arange(8), MLP()
    return [
        (TypeError, "model: found a Linear, expected an MLP", (nn.Linear(784, 10), x, y)),
        (ValueError, r"x: found \[8, 784\] of torch.float64", (model, x.double(), y)),
        (ValueError, r"x: found \[8, 9\]", (model, x[:, :9], y)),
        (ValueError, r"y: found \[7\] of torch.int64, expected \[8\]", (model, x, y[:7])),
        (ValueError, r"y: found \[8\] of torch.int32", (model, x, y.int())),
        (ValueError, "one label or more", (model, x[:0], y[:0])),
        (ValueError, "y: found labels from 3 to 10, expected 0 to 9", (model, x, y + 3)),
        (ValueError, "y: found labels from -1 to 6", (model, x, y - 1)),
        (ValueError, "bs: found 0, expected 1 or more, whole", (model, x, y, 0.1, 0)),
        (ValueError, "bs: found 2.5", (model, x, y, 0.1, 2.5)),
    ]


@pytest.mark.parametrize("error, words, arguments", refusals())
def test_the_fast_loop_refuses_what_it_would_compute_wrongly(error, words, arguments):
    with pytest.raises(error, match=words):
        fast_epoch(*arguments)


# Bytes


@given(st.integers(1, 20), st.integers(1, 9))
def test_bytes_give_the_same_mini_batches_as_floats(n, bs):
    raw = torch.randint(256, (n, 7), dtype=torch.uint8)
    y, m, s = torch.arange(n), torch.tensor(0.3), torch.tensor(0.2)
    floats = DataLoader(Dataset(normalize(raw / 255, m, s), y), bs)
    ours = ByteLoader(raw, y, m, s, bs)
    assert len(ours) == len(floats) == len(list(ours))
    for _ in range(2):
        for (xb, yb), (xf, yf) in zip(ours, floats, strict=True):
            assert torch.equal(xb, xf) and torch.equal(yb, yf)


@pytest.mark.parametrize("values, y, bs, words", [
    (torch.zeros(3), torch.zeros(3), 1, "found 3 of torch.float32"),
    (torch.zeros(3, dtype=torch.uint8), torch.zeros(2), 1, "and 2 labels"),
    (torch.zeros(3, dtype=torch.uint8), torch.zeros(3), 0, "batch_size: found 0"),
])  # fmt: skip
def test_what_are_no_bytes_is_refused(values, y, bs, words):
    with pytest.raises(ValueError, match=words):
        ByteLoader(values, y, 0.5, 0.5, bs)


def test_importing_passes_on_the_chain():
    assert {"race", "Times", "Regions", "calls_of", "limit_epoch", "fast_epoch", "ByteLoader"} <= set(exp.nb_11.__all__)
