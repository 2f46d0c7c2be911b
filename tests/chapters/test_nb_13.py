"""The tests of chapter 13 on set-ups that are wrong in one place; that they leave no trace; what they refuse."""

import copy
import math

import pytest
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st
from torch import nn

import exp.nb_02
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


# Set-ups that are none of the gallery


def loop_of(model, optim, criterion=F.cross_entropy, prepare=lambda xb: xb):
    "Return a healthy step and its parts, as `diagnose` takes them."

    def step(xb, yb):
        loss = criterion(model(prepare(xb)), yb)
        optim.zero_grad()
        loss.backward()
        optim.step()

    return step, model, criterion, optim


def small_net(n_out=10):
    "Return a net for images of 14 × 14."
    set_seed(0)
    return nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, n_out))


def loader(x, y, n=64):
    "Return a shuffling loader."
    return DataLoader(Dataset(x, y), n, True, torch.Generator().manual_seed(0), drop_last=True)


def sgd(model, lr=0.1):
    "Return PyTorch's SGD."
    return torch.optim.SGD(model.parameters(), lr)


LOOP = {"evaluation", "overlap", "learning"}  # what is not looked at where only the loop is given


@pytest.mark.parametrize("kind", ["chapter 02", "groups", "together", "adam", "learner"])
def test_any_optimiser_and_a_learner_can_be_diagnosed(kind):
    net = small_net()
    makers = {
        "chapter 02": lambda: exp.nb_02.SGD(net.parameters(), 0.1),
        "groups": lambda: torch.optim.SGD([{"params": layer.parameters()} for layer in (net[0], net[2])], 0.1),
        "together": lambda: Together(sgd(net[0]), sgd(net[2])),
        "adam": lambda: torch.optim.Adam(net.parameters(), 0.003),
        "learner": lambda: sgd(net),
    }
    optim = makers[kind]()
    before = copy.deepcopy(net.state_dict())
    parts = loop_of(net, optim)
    if kind == "learner":
        learner = Learner(net, F.cross_entropy, optim)
        parts = lambda xb, yb: learner.fit([(xb, yb)]), *parts[1:]
    report = diagnose(*parts, Setup().batches, tests=CHEAP + ["rate"])
    assert not report.found and set(report.not_looked) <= LOOP, report
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("n_classes", [2, 100, 1000])
def test_few_and_many_classes_raise_no_alarm(n_classes):
    x, y, x_valid, y_valid = small_mnist()
    y, y_valid = (y > 4).long() if n_classes == 2 else torch.randint(0, n_classes, y.shape), (y_valid > 4).long()
    net, valid = small_net(n_classes), loader(x_valid, y_valid)
    tests = ["labels", "criterion", "first loss"] + ["learning"] * (n_classes == 2)
    evaluation = lambda: evaluate(valid, net.eval(), F.cross_entropy)  # noqa: E731
    report = diagnose(*loop_of(net, sgd(net)), loader(x, y), evaluation, valid, n_classes, tests)
    assert report.passed == tests, report


def test_tokens_are_no_measurements():
    set_seed(0)
    net, tokens = nn.Sequential(nn.Embedding(65, 32), nn.Linear(32, 65)), torch.randint(0, 65, (1_000, 17))
    batches = loader(tokens[:, :-1], tokens[:, 1:])
    report = diagnose(*loop_of(net, sgd(net), cross_entropy_loss), batches, n_classes=65, tests=CHEAP)
    assert not report.found and {"inputs", "logits"} < set(report.not_looked), report


def test_outputs_above_0_are_no_alarm_in_a_regression():
    x, *_ = small_mnist()
    net = nn.Sequential(*small_net(1), nn.Softplus(), nn.Flatten(0))
    report = diagnose(*loop_of(net, sgd(net, 0.02), F.mse_loss), loader(x, x.square().mean(1)), tests=["logits"])
    assert report.passed == ["logits"]


def test_labels_that_are_ignored_are_no_alarm():
    x, y, *_ = small_mnist()
    net, y = small_net(), torch.where(torch.arange(len(y)) % 7 == 0, -100, y)
    assert diagnose(*loop_of(net, sgd(net)), loader(x, y), tests=["criterion"]).passed == ["criterion"]


def test_what_a_test_raises_itself_is_no_finding():
    x, y, *_ = small_mnist()
    net = small_net()
    parts = loop_of(net, sgd(net), prepare=lambda xb: xb.flatten(1))
    report = diagnose(*parts, loader(x.view(-1, 14, 14), y), tests=["mixing", "gradient", "updates"])
    assert set(report.not_looked) == {"mixing", "gradient"} and report.passed == ["updates"]
    assert all(words.startswith("its own call raised RuntimeError") for words in report.not_looked.values())


def test_a_step_that_another_optimiser_makes_is_told_from_none():
    net = small_net()
    step, *parts = loop_of(net, sgd(net))
    parts[2] = sgd(net)
    assert "the weights move, but not by the optim" in see_gradient(Case(step, *parts, Setup().batches))


def test_a_gradient_that_is_missing_is_told_from_none_at_all():
    net = small_net()
    optim = sgd(net)

    def step(xb, yb):
        optim.zero_grad()
        F.cross_entropy(net(xb), yb).backward()
        net[0].bias.grad = None
        optim.step()

    assert "gradients for 3 of the parameters only" in see_gradient(
        Case(step, net, F.cross_entropy, optim, Setup().batches)
    )


def test_a_closure_is_not_looked_at():
    net = small_net()
    optim = torch.optim.LBFGS(net.parameters(), 0.1, max_iter=2)

    def step(xb, yb):
        def closure():
            optim.zero_grad()
            loss = F.cross_entropy(net(xb), yb)
            loss.backward()
            return loss

        optim.step(closure)

    report = diagnose(step, net, F.cross_entropy, optim, Setup().batches, tests=["gradient"])
    assert "closure" in report.not_looked["gradient"]


@pytest.mark.parametrize("result", [0.9, (0.3, 89.0), (0.3, math.nan), (0.3, 0.9, 1)])
def test_an_evaluation_of_another_form_is_not_looked_at(result):
    net = small_net()
    parts = *loop_of(net, sgd(net)), Setup().batches, lambda: result
    report = diagnose(*parts, tests=["evaluation", "learning"])
    assert not report.found and all("evaluate() returns" in words for words in report.not_looked.values())


def test_a_loss_that_is_none_is_no_missing_eval():
    net = small_net()
    parts = *loop_of(net, sgd(net)), Setup().batches, lambda: (math.nan, 0.5)
    assert diagnose(*parts, tests=["evaluation"]).not_looked == {"evaluation": "evaluate() returns a loss of nan"}


def test_a_step_at_every_other_mini_batch_is_told_from_none():
    class Second(Setup):
        "Step at the second mini-batch, the fourth, and so on."

        count = 0

        def step(self, xb, yb):
            self.criterion(self.model(xb), yb).backward()
            self.count += 1
            if self.count % 2 == 0:
                self.optim.step()
                self.optim.zero_grad()

    assert see_gradient(case_of(Second())) == "optim.step is called in 1 of three steps: accumulated?"


def test_one_mini_batch_has_no_order_and_an_endless_loader_no_overlap():
    class Endless:
        "Yield mini-batches for ever."

        def __iter__(self):
            while True:
                yield from list(Setup().batches)[:2]

    net, (x, y, *_) = small_net(), small_mnist()
    parts = loop_of(net, sgd(net))
    assert "single mini-batch" in diagnose(*parts, [(x[:64], y[:64])], tests=["order"]).not_looked["order"]
    report = diagnose(*parts, Endless(), valid=loader(x, y), tests=["overlap"])
    assert "may never end" in report.not_looked["overlap"]


def test_numbers_that_are_none_are_not_called_mixed():
    net = small_net()
    net[2].bias.data[0] = math.nan
    report = diagnose(*loop_of(net, sgd(net)), Setup().batches, tests=["mixing", "gradient"])
    assert set(report.not_looked) == {"mixing"} and "first_nan" in report.found["gradient"]


def test_what_no_state_dict_holds_is_put_back():
    class Counts(nn.Linear):
        "Count calls in a buffer that is not stored."

        def __init__(self):
            super().__init__(196, 10)
            self.register_buffer("calls", torch.zeros(1), persistent=False)

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    model = Counts()
    other = copy.deepcopy(model)
    optim = sgd(other)
    step = loop_of(other, optim)[0]
    before = other.weight.clone()
    diagnose(step, model, F.cross_entropy, optim, Setup().batches, tests=["gradient", "updates"])
    assert torch.equal(before, other.weight) and model.calls == 0


def test_fresh_gradients_change_no_statistics():
    net = nn.Sequential(nn.Linear(196, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    case = Case(*loop_of(net, sgd(net)), Setup().batches)
    fresh_gradients(case, *case.first(1)[0])
    assert net[1].num_batches_tracked == 0 and not net[1].running_mean.any()


# Refusals


def test_a_mini_batch_of_another_form_is_refused():
    net, (x, y, *_) = small_net(), small_mnist()
    parts, x, y = loop_of(net, sgd(net)), x[:64], y[:64]
    for batch in ({"x": x, "y": y}, (x, y, y), x, ([x], y)):
        with pytest.raises(TypeError, match="expected a pair of tensors"):
            diagnose(*parts, [batch, batch])
    with pytest.raises(TypeError, match="found an iterator"):
        diagnose(*parts, iter([(x, y)]))
    with pytest.raises(ValueError, match="found 10, expected 0 to 9"):
        diagnose(*parts, [(x, y + 1)])
    with pytest.raises(ValueError, match="n_classes: found 1"):
        diagnose(*parts, [(x, y)], n_classes=1)


def test_models_optimisers_and_tests_of_another_form_are_refused():
    step, model, criterion, optim, batches, *_ = parts_of(Setup())
    with pytest.raises(TypeError, match=r"model: found a function without parameters\(\)"):
        diagnose(step, lambda xb: xb, criterion, optim, batches)
    with pytest.raises(TypeError, match=r"optim: found a list without step\(\)"):
        diagnose(step, model, criterion, [optim], batches)
    with pytest.raises(ValueError, match="model: found no parameters"):
        diagnose(step, nn.ReLU(), criterion, optim, batches)
    for tests in (["gradients"], "rate"):
        with pytest.raises(ValueError, match="tests: found"):
            diagnose(step, model, criterion, optim, batches, tests=tests)
    for n, m in ((50_001, 10), (10, 10_001), (0, 10)):
        with pytest.raises(ValueError, match="at most 50,000 and 10,000"):
            small_mnist(n, m)


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


class Steps(nn.Module):
    "Hold two layers, and do something of its own between them."

    def __init__(self, between):
        super().__init__()
        self.a, self.b, self.between = nn.Linear(6, 6), nn.Linear(6, 6), between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


def test_what_happens_between_two_layers_is_not_blamed_on_them():
    x, y = torch.rand(4, 6) + 0.5, torch.tensor([0, 1, 2, 3])
    assert first_nan(Steps(lambda h: h / 0), F.cross_entropy, x, y) == "before layer b, forward"
    root = Steps(lambda h: (h * 0).sqrt())
    assert first_nan(root, F.cross_entropy, x, y) == "before layer b, backward"


def test_the_second_call_of_a_layer_is_told_from_the_first():
    class Twice(Steps):
        def forward(self, x):
            return self.a(self.b(self.a(x)) * math.nan)

    x, y = torch.rand(4, 6), torch.tensor([0, 1, 2, 3])
    assert first_nan(Twice(None), F.cross_entropy, x, y) == "before layer a, forward"


def test_layers_with_several_outputs_or_none_that_counts_are_passed():
    class Recurrent(Steps):
        def __init__(self):
            super().__init__(None)
            self.cell, self.unused = nn.GRU(6, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            h = self.cell(x[:, None])[0][:, -1]
            self.unused(h)
            return self.b(h)

    x, y = torch.rand(4, 6), torch.tensor([0, 1, 2, 3])
    assert first_nan(Recurrent(), F.cross_entropy, x, y) is None


def test_a_parameter_whose_gradient_breaks_is_named():
    class Rooted(Steps):
        def __init__(self):
            super().__init__(None)
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return self.b(x) + 0 * self.w.sqrt()

    x, y = torch.rand(4, 6), torch.tensor([0, 1, 2, 3])
    assert first_nan(Rooted(), F.cross_entropy, x, y) == "w, backward"


def test_the_search_leaves_statistics_and_no_hook_even_after_an_error():
    x, y = torch.rand(4, 6), torch.tensor([0, 1, 2, 3])
    net = nn.Sequential(Steps(lambda h: h / 0), nn.BatchNorm1d(6))
    assert first_nan(net, F.cross_entropy, x, y) == "before layer 0.b, forward"
    assert net[1].running_mean.isfinite().all() and net[1].num_batches_tracked == 0
    broken = nn.Sequential(nn.Linear(6, 6), nn.Linear(7, 6))
    with pytest.raises(RuntimeError):
        first_nan(broken, F.cross_entropy, x, y)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in broken)


def test_every_name_of_the_chapter_is_exported():
    assert {"Setup", "Case", "diagnose", "Report", "TESTS", "first_nan"} <= set(exp.nb_13.__all__)
