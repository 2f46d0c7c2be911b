"""The tests of chapter 13 on set-ups that are wrong in one place; that they leave no trace; what they refuse."""

import copy
import math

import pytest
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from torch import nn

import exp.nb_13
from exp.nb_13 import *
from exp.nb_13 import F

BUGS = [
    NoStep,
    StepFirst,
    DropGradient,
    ForgetZero,
    Detach,
    Freeze,
    HoldLast,
    SoftmaxTwice,
    SummedLoss,
    WrongDim,
    Sorted,
    ShuffledLabels,
    HalfShuffled,
    OffByOne,
    SameBatch,
    Bytes,
    KeepGraph,
    JudgeOnTraining,
    RawValidation,
    HighRate,
    LowRate,
]
NAMES = {  # set-up: the test that speaks first; None: none does
    NoStep: "gradient",
    StepFirst: "gradient",
    DropGradient: "gradient",
    ForgetZero: "gradient",
    Detach: "reach",
    Freeze: "optimiser",
    HoldLast: "optimiser",
    SoftmaxTwice: "criterion",
    SummedLoss: "criterion",
    WrongDim: "criterion",
    Sorted: "labels",
    SameBatch: "order",
    Bytes: "inputs",
    KeepGraph: "memory",
    HighRate: "updates",
    LowRate: "updates",
    JudgeOnTraining: "overlap",
}
CHEAP = [name for name in TESTS if name not in ("one batch", "learning", "rate")]


def case_of(setup):
    "Return the case of a set-up."
    return Case(setup.step, setup.model, setup.criterion, setup.optim, setup.batches, setup.evaluate, setup.valid_dl)


def parts_of(setup):
    "Return the arguments of `diagnose`."
    case = case_of(setup)
    return case.step, case.model, case.criterion, case.optim, case.batches, case.evaluate, case.valid


# Set-ups


def test_a_bug_changes_one_part_of_the_set_up():
    for kind in BUGS:
        own = {name for name in vars(kind) if not name.startswith("__")} - {"total"}
        assert len(own) == 1 and own <= set(vars(Setup)), kind


def test_small_images_are_the_means_of_four_pixels():
    x, y, x_valid, y_valid = small_mnist()
    raw, labels = get_mnist_data()
    assert x.shape == (12_800, 196) and x_valid.shape == (2_000, 196)
    assert torch.equal(y, labels[:12_800]) and torch.equal(y_valid, labels[50_000:52_000])
    four = raw[3].view(28, 28)[10:12, 12:14].mean()
    low, spread = x.min(), (x.max() - x.min()) / (raw[:12_800].max() - raw[:12_800].min())
    assert x[3].view(14, 14)[5, 6].item() == pytest.approx((low + spread * four).item(), rel=0.02)


def test_a_run_ends_where_the_loss_is_not_finite():
    class Broken(Setup):
        "Divide by zero at the third mini-batch."

        done = 0

        def criterion(self, logits, yb):
            self.done += 1
            return F.cross_entropy(logits, yb) * (math.inf if self.done == 3 else 1)

    history = Broken().run()
    assert len(history.losses) == 2 and not history.valid_losses


def test_a_short_run_is_the_start_of_a_long_one():
    assert Setup(1).run(30).losses == Setup(1).run().losses[:30] != Setup(2).run(30).losses


# Each test


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_the_first_test_that_speaks_names_the_bug(kind):
    report = diagnose(*parts_of(kind(5)), tests=CHEAP)
    assert next(iter(report.found)) == NAMES[kind], report


def test_a_healthy_set_up_is_left_alone():
    report = diagnose(*parts_of(Setup(5)))
    assert not report.found and report.passed == list(TESTS) and "no health" in repr(report)


@given(st.sampled_from(CHEAP), st.booleans())
@settings_of(max_examples=30)
def test_a_test_leaves_no_trace(name, momentum):
    class Full(Setup):
        "Have all that could be left changed."

        def make_model(self):
            return nn.Sequential(nn.Linear(196, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10))

        def make_optim(self):
            return torch.optim.SGD(self.model.parameters(), self.lr, momentum=0.9 * momentum)

    losses = []
    for look in (False, True):
        setup = Full(3)
        setup.run(2)
        setup.model[1].eval()
        random, order = torch.get_rng_state(), setup.order.get_state()
        if look:
            TESTS[name](case_of(setup))
        assert torch.equal(random, torch.get_rng_state()) and torch.equal(order, setup.order.get_state())
        losses.append([setup.step(*batch)[0].item() for batch in case_of(setup).first(4)])
    assert losses[0] == losses[1]


def test_it_puts_back_after_an_error():
    setup = Setup()
    before = copy.deepcopy(setup.model.state_dict())
    with pytest.raises(KeyError), put_back(case_of(setup)):
        setup.step(*next(iter(setup.batches)))
        raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in setup.model.state_dict().items())
    assert all(p.grad is None for p in setup.model.parameters())


@given(st.floats(0.1, 10).filter(lambda factor: not 0.85 < factor < 1.15))
@settings_of(max_examples=10)
def test_a_scaled_gradient_is_measured(factor):
    class Scaled(Setup):
        "Scale the loss before `backward`."

        def step(self, xb, yb):
            self.optim.zero_grad()
            (factor * self.criterion(self.model(xb), yb)).backward()
            self.optim.step()

    found = see_gradient(case_of(Scaled()))
    assert float(found.split()[0]) == pytest.approx(factor, rel=0.06) and "times as long" in found


def test_the_gradient_that_is_used_is_that_of_autograd():
    for used, fresh in used_and_fresh(case_of(Setup()), 3):
        assert torch.equal(used, fresh)


def test_update_sizes_are_rate_times_gradient_over_weight():
    setup = Setup()
    case = case_of(setup)
    w, [batch] = setup.model[2].weight.detach().clone(), case.first(1)
    gradient = fresh_gradients(case, *batch)[setup.model[2].weight]
    expected = (0.1 * gradient.norm() / w.norm()).item()
    assert update_sizes(case, 1)["2.weight"] == pytest.approx(expected, rel=1e-4)


def test_the_spy_keeps_a_step_that_was_put_on_the_object():
    setup, calls = Setup(), []
    own = lambda: calls.append("own")  # noqa: E731
    setup.optim.step = own
    with watched(setup.optim, lambda: calls.append("seen")):
        setup.optim.step()
    assert calls == ["seen", "own"] and setup.optim.step is own


def test_a_graph_that_backward_has_used_up_is_not_kept():
    assert graph_kept(case_of(Setup())) == 0 == graph_kept(case_of(Detach())) < graph_kept(case_of(KeepGraph()))


def test_regression_is_told_what_was_not_looked_at():
    class Regression(Setup):
        "Regress the digit."

        def data(self, x, y, x_valid, y_valid):
            return x, y.float(), x_valid, y_valid.float()

        def criterion(self, out, yb):
            return (out[:, 0] - yb).square().mean()

    report = diagnose(*parts_of(Regression())[:5])
    assert {"labels", "criterion", "first loss", "learning", "evaluation"} <= set(report.not_looked)
    assert "the labels are no classes" in repr(report)


def test_a_step_that_raises_is_a_finding():
    def step(xb, yb):
        raise RuntimeError("no such layer")

    setup = Setup()
    report = diagnose(step, setup.model, setup.criterion, setup.optim, setup.batches, tests=["gradient"])
    assert report.found == {"gradient": "raised RuntimeError: no such layer"}


def test_our_own_models_and_optimisers_can_be_diagnosed():
    set_seed(0)
    model = MLP(196, 32, 10)
    optim = AdamW(model.parameters(), 0.003)

    def step(xb, yb):
        loss = cross_entropy_loss(model(xb), yb)
        optim.zero_grad()
        loss.backward()
        optim.step()

    report = diagnose(step, model, cross_entropy_loss, optim, Setup().batches)
    assert not report.found and set(report.not_looked) == {"evaluation", "overlap", "learning"}


# Refusals


def test_what_is_no_case_is_refused():
    step, model, criterion, optim, batches, *_ = parts_of(Setup())
    with pytest.raises(TypeError, match=r"found step None .*expected two functions"):
        Case(None, model, criterion, optim, batches)
    with pytest.raises(TypeError, match="expected two functions"):
        diagnose(step, model, "cross-entropy", optim, batches)
    with pytest.raises(ValueError, match=r"batches: found none, expected a loader"):
        diagnose(step, model, criterion, optim, [])


# Numbers that are none


@given(st.integers(0, 2), st.sampled_from([math.nan, math.inf]))
@settings_of(max_examples=20)
def test_the_layer_that_makes_the_first_nan_is_named(at, value):
    class Breaks(nn.Module):
        def forward(self, x):
            return x * value

    layers = [nn.Linear(6, 6) for _ in range(3)]
    layers[at] = Breaks()
    x, y = torch.rand(4, 6) + 0.5, torch.tensor([0, 1, 2, 3])
    assert first_nan(nn.Sequential(*layers), F.cross_entropy, x, y) == f"layer {at}, forward"


def test_a_finite_pass_has_no_first_nan_and_leaves_no_hook():
    model, x, y = nn.Sequential(nn.Linear(6, 6), nn.ReLU()), torch.rand(4, 6), torch.tensor([0, 1, 2, 3])
    assert first_nan(model, F.cross_entropy, x, y) is None
    assert not any(layer._forward_hooks for layer in model) and all(p.grad is None for p in model.parameters())
    assert first_nan(model, F.cross_entropy, x * math.nan, y) == "the inputs"
    assert first_nan(model, lambda logits, yb: logits.sum() / 0, x, y) == "the criterion, forward"


def test_every_name_of_the_chapter_is_exported():
    assert {"Setup", "Case", "diagnose", "Report", "TESTS", "first_nan"} <= set(exp.nb_13.__all__)
