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


@pytest.mark.parametrize("seconds, said", [([0.5] * 3, "faster"), ([2.0] * 3, "slower"), ([0.9, 1, 1.2], "a tie")])
def test_verdicts(seconds, said):
    assert Times({"a": seconds, "b": [1.0] * 3}).verdict("a", "b") == said


@pytest.mark.parametrize("seconds, words", [
    ({}, "found .. rounds"), ({"a": [1.0, 1.0]}, r"found \[2\] rounds, expected .* 3 or more"),
    ({"a": [1.0] * 3, "b": [1.0] * 4}, r"found \[3, 4\] rounds, expected as many"),
    ({"a": [1.0, -1.0, 1.0]}, "a: found -1.0 to 1.0 seconds, expected 0 or more: does the clock go backwards"),
    ({"a": [1.0, float("nan"), 1.0]}, "a: found"), ({"a": [1.0, 1.0, float("inf")]}, "a: found 1.0 to inf"),
])  # fmt: skip
def test_seconds_that_are_none_are_refused(seconds, words):
    with pytest.raises(ValueError, match=words):
        Times(seconds)


def test_a_clock_that_goes_backwards_is_refused():
    ticks = iter(range(100, 0, -1))
    with pytest.raises(ValueError, match="does the clock go backwards"):
        race({"a": lambda: None}, 3, lambda: next(ticks))


def test_names_that_did_not_run_are_refused():
    times = Times({"a": [1.0] * 3, "none": [0.0] * 3})
    for ask in (times.ratio, times.verdict):
        for pair in (("a", "b"), ("b", "a")):
            with pytest.raises(ValueError, match="found 'b', expected one of"):
                ask(*pair)
        for pair in (("a", "none"), ("none", "a")):
            with pytest.raises(ValueError, match="none: found 0 seconds"):
                ask(*pair)


@pytest.mark.parametrize("works, rounds", [({}, 5), ({"a": print}, 2), ({"a": print}, 3.5)])
def test_races_without_runners_or_rounds_are_refused(works, rounds):
    with pytest.raises(ValueError, match="race: found .* expected 1 or more, and 3 or more"):
        race(works, rounds)


def test_a_race_wants_names():
    with pytest.raises(TypeError, match="race: found a list, expected {name: function}"):
        race([print])


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


def test_regions_refuse_what_would_count_twice_and_survive_an_error():
    toy = Toy()
    regions = Regions(toy.clock)
    with pytest.raises(RuntimeError, match="b: found it inside of a, expected one after the other"):
        with regions("a"):
            toy.runner("a", 2.0)()
            with regions("b"):
                pass
    with regions("b"):
        toy.runner("b", 2.0)()
    assert regions.taken == {"a": 2, "b": 2} and regions.shares() == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("ticks", [[], [5, 5], [5, 4], [1, 3, 9, 8], [float("nan")] * 2])
def test_shares_of_no_time_are_refused(ticks):
    clock = iter(ticks)
    regions = Regions(lambda: next(clock))
    for name in range(len(ticks) // 2):
        with regions(name):
            pass
    with pytest.raises(ValueError, match="shares: found .* expected some time"):
        regions.shares()


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


def test_the_limit_makes_nothing_in_its_loop():
    calls = [calls_of(lambda n=n: limit_epoch(MLP(6, 5, 3), torch.randn(n, 6), bs=4)).total() for n in (8, 80)]
    assert calls[1] - calls[0] == 5 * 18


@pytest.mark.parametrize("x, bs", [
    (torch.ones(0, 6), 4), (torch.ones(6), 4), (torch.ones(4, 6), 0), (torch.ones(4, 6), 2.0),
])  # fmt: skip
def test_the_limit_of_nothing_is_refused(x, bs):
    with pytest.raises(ValueError, match="limit_epoch: found x of .* expected"):
        limit_epoch(MLP(6, 5, 3), x, bs=bs)


@pytest.mark.parametrize("n, bs", [(1, 1), (3, 1), (3, 2), (4, 10**9)])
def test_the_limit_and_the_fast_loop_take_any_mini_batch(n, bs):
    x = torch.randn(n, 6, requires_grad=True)
    steps = len(x.split(bs))
    assert limit_epoch(MLP(6, 5, 3), x, bs=bs) == 5 * steps
    assert len(fast_epoch(MLP(6, 5, 3), x, torch.arange(n) % 3, bs=bs)) == steps and x.grad is None


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


@pytest.mark.parametrize("turn", [
    lambda x: x.t().contiguous().t(), lambda x: x.repeat(1, 2)[:, ::2][:, :6], lambda x: x[:1].expand(10, 6),
])  # fmt: skip
def test_the_fast_loop_takes_inputs_and_weights_in_any_order_of_memory(turn):
    set_seed(0)
    x, y, model = turn(torch.randn(10, 6)), torch.arange(20)[::2] % 3, MLP(6, 5, 3)
    other = copy.deepcopy(model)
    model.l1.weight.data = model.l1.weight.data.t().contiguous().t()
    assert fast_epoch(model, x, y, 0.1, 4) == pytest.approx(by_pytorch(other, x, y, 0.1, 4), rel=1e-4)
    for ours, theirs in zip(model.parameters(), other.parameters()):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_two_epochs_are_two_calls():
    set_seed(0)
    model, x, y = MLP(6, 5, 3), torch.randn(10, 6), torch.arange(10) % 3
    other, kept = copy.deepcopy(model), fast_epoch(model, x, y, 0.1, 4)
    first = list(kept)
    losses = kept + fast_epoch(model, x, y, 0.1, 4)
    assert kept == first and losses == pytest.approx(
        by_pytorch(other, x, y, 0.1, 4) + by_pytorch(other, x, y, 0.1, 4), rel=1e-4
    )


def odd_models():
    "List models that the fast loop would train wrongly, in silence: (error, message, model)."
    class Other(MLP):
        def forward(self, xb):
            return self.l2(self.l1(xb).tanh())

    frozen, half, hooked, plain, more, tied, patched = (MLP(6, 6, 6) for _ in range(7))
    frozen.l1.bias.requires_grad_(False)
    half.l1.double(), half.l2.double()
    hooked.l2.register_forward_pre_hook(lambda layer, given: None)
    plain.l2 = nn.Linear(6, 6, bias=False)
    more.l3 = nn.Linear(6, 6)
    tied.l2 = tied.l1
    patched.forward = lambda xb: patched.l1(xb)
    return [(TypeError, "found a Other, expected an MLP with its own forward", Other(6, 6, 6)),
            (TypeError, "expected an MLP with its own forward", patched),
            (ValueError, "found frozen parameters, expected none", frozen),
            (ValueError, "expected weights and bias of two layers, torch.float32", half),
            (ValueError, "found hooks, expected none", hooked),
            (ValueError, "expected weights and bias of two layers", plain),
            (ValueError, "expected weights and bias of two layers", more),
            (ValueError, "expected weights and bias of two layers", tied)]  # fmt: skip


@pytest.mark.parametrize("error, words, model", odd_models())
def test_the_fast_loop_refuses_models_that_it_would_train_wrongly(error, words, model):
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(error, match=words):
        fast_epoch(model, torch.randn(4, 6), torch.arange(4))
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("x, lr", [(torch.full((8, 6), float("nan")), 0.1), (torch.ones(8, 6), 1e30)])
def test_losses_that_are_none_are_refused(x, lr):
    with pytest.raises(FloatingPointError, match="mini-batch .: found a loss of .*, expected a number"):
        fast_epoch(MLP(6, 5, 3), x, torch.arange(8) % 3, lr, 2)


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
        (TypeError, "found a list and a Tensor, expected two tensors", (model, x.tolist(), y)),
        (TypeError, "found a Tensor and a list", (model, x, y.tolist())),
        (ValueError, "bs, lr: found 0, 0.1, expected 1 or more, whole", (model, x, y, 0.1, 0)),
        (ValueError, "bs, lr: found 2.5", (model, x, y, 0.1, 2.5)),
        (ValueError, "bs, lr: found True", (model, x, y, 0.1, True)),
        *[(ValueError, f"bs, lr: found 64, {lr}", (model, x, y, lr)) for lr in (-0.1, float("nan"), float("inf"))],
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


@pytest.mark.parametrize("m, s", [
    (33.3, 0.3), (0.1, 78.6), (-0.1, 0.3), (float("nan"), 0.3), (0.1, float("nan")), (0.1, -1.0),
])  # fmt: skip
def test_means_that_are_no_shares_are_refused(m, s):
    raw = torch.zeros(3, 2, dtype=torch.uint8)
    for pair in ((m, s), (torch.tensor([0.1, m]), torch.tensor([0.3, s]))):
        with pytest.raises(ValueError, match="expected those of the values as shares of 255"):
            ByteLoader(raw, torch.zeros(3), *pair)
    with pytest.raises(ValueError, match="found 0 of torch.uint8"):
        ByteLoader(raw[:0], torch.zeros(0), 0.1, 0.3)


def test_importing_passes_on_the_chain():
    assert {"race", "Times", "Regions", "calls_of", "limit_epoch", "fast_epoch", "ByteLoader"} <= set(exp.nb_11.__all__)
