"""Optimisers and schedules against PyTorch's, to the bit; what they refuse; what a checkpoint makes of them."""

import copy
import functools
import itertools
import math
import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler, swa_utils

import exp.nb_02
import exp.nb_05
from exp.nb_05 import *
from exp.nb_09 import Checkpoint

THEIRS = torch.optim
HAS_MUON = hasattr(torch.optim, "Muon")


def network(width=8):
    "Build a small model with matrices, vectors and a parameter that gets no gradient."
    model = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return model


def problem(n=70):
    "Return inputs and labels that can be learned."
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
    return x, x[:, :3].argmax(1)


def walk(make, steps=12, seed=3, model=None):
    "Take steps on gradients that do not depend on where one is; return the parameters."
    chance = torch.Generator().manual_seed(seed)
    shapes = [(5, 7), (7, 5), (4,), (3, 3)] if model is None else model
    ps = [torch.randn(*shape, generator=chance).requires_grad_() for shape in shapes]
    optim = make(ps)
    for _ in range(steps):
        for p in ps:
            p.grad = torch.randn(p.shape, generator=chance) * 10 ** torch.randn(p.shape, generator=chance)
        optim.step()
    return [p.detach() for p in ps]


def equal(these, those):
    "Tell whether two lists of tensors hold the same bits."
    return all(torch.equal(a, b) for a, b in zip(these, those, strict=True))


# The rules

RATES, SHARES, DECAYS = st.floats(1e-4, 1.0), st.floats(0.0, 0.999), st.sampled_from([0.0, 1e-4, 0.1, 1.0])


@given(RATES, st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.3, 0.9]), DECAYS, st.booleans())
def test_sgd_is_pytorchs(lr, momentum, dampening, weight_decay, nesterov):
    if nesterov:
        momentum, dampening = momentum or 0.9, 0.0
    settings = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)
    ours = walk(lambda ps: SGD(ps, **settings))
    for path in (False, True):
        assert equal(ours, walk(lambda ps, path=path: THEIRS.SGD(ps, foreach=path, **settings)))


@given(RATES, SHARES, st.sampled_from([1e-8, 1e-3]), DECAYS)
def test_rmsprop_is_pytorchs(lr, alpha, eps, weight_decay):
    settings = dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay)
    theirs = walk(lambda ps: THEIRS.RMSprop(ps, foreach=False, **settings))
    assert equal(walk(lambda ps: RMSprop(ps, **settings)), theirs)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@given(RATES, st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.9, 0.99, 0.999]), DECAYS)
def test_adam_and_adamw_are_pytorchs(name, lr, b1, b2, weight_decay):
    settings = dict(lr=lr, betas=(b1, b2), weight_decay=weight_decay)
    ours, theirs = getattr(exp.nb_05, name), getattr(THEIRS, name)
    assert equal(walk(lambda ps: ours(ps, **settings)), walk(lambda ps: theirs(ps, foreach=False, **settings)))


@pytest.mark.skipif(not HAS_MUON, reason="this PyTorch has no Muon to compare with")
@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw"])
@pytest.mark.parametrize("settings", [{}, {"nesterov": False}, {"weight_decay": 0.0, "momentum": 0.8}, {"ns_steps": 2}])
def test_muon_is_pytorchs(adjust, settings):
    shapes = [(5, 7), (7, 5), (4, 4), (1, 9)]
    ours = walk(lambda ps: Muon(ps, 0.02, adjust_lr_fn=adjust, **settings), model=shapes)
    assert equal(ours, walk(lambda ps: THEIRS.Muon(ps, 0.02, adjust_lr_fn=adjust, **settings), model=shapes))


@functools.cache
def mnist():
    "Return the training set, normalised."
    x, y = get_mnist_data()
    return Dataset(normalize(x[:50_000], x[:50_000].mean(), x[:50_000].std()), y[:50_000])


def train(make, n_batches=782):
    "Train the MLP of chapter 02 on so many mini-batches of MNIST; return history and weights."
    set_seed(42)
    model = MLP()
    optim = make(list(model.parameters()))
    loader = list(itertools.islice(DataLoader(mnist()), n_batches))
    history = fit(loader, model, cross_entropy_loss, optim)
    return history, [p.detach() for p in model.parameters()]


def both(kind, other):
    "Return what makes one optimiser for matrices and another for the rest."
    return lambda ps: Together(kind([p for p in ps if p.dim() == 2], lr=0.01),
                               other([p for p in ps if p.dim() != 2], lr=0.001))  # fmt: skip


RULES = {
    "SGD": (lambda ps: SGD(ps, lr=0.1), lambda ps, **o: THEIRS.SGD(ps, lr=0.1, **o)),
    "momentum": (lambda ps: SGD(ps, 0.02, momentum=0.9), lambda ps, **o: THEIRS.SGD(ps, 0.02, momentum=0.9, **o)),
    "Nesterov": (
        lambda ps: SGD(ps, 0.02, momentum=0.9, nesterov=True),
        lambda ps, **o: THEIRS.SGD(ps, 0.02, momentum=0.9, nesterov=True, **o),
    ),
    "decay": (
        lambda ps: SGD(ps, 0.02, momentum=0.9, weight_decay=0.01),
        lambda ps, **o: THEIRS.SGD(ps, 0.02, momentum=0.9, weight_decay=0.01, **o),
    ),
    "RMSprop": (lambda ps: RMSprop(ps, lr=0.001), lambda ps, **o: THEIRS.RMSprop(ps, lr=0.001, **o)),
    "Adam": (lambda ps: Adam(ps), lambda ps, **o: THEIRS.Adam(ps, **o)),
    "AdamW": (lambda ps: AdamW(ps), lambda ps, **o: THEIRS.AdamW(ps, **o)),
}


@pytest.mark.parametrize("name", RULES)
def test_an_epoch_of_mnist_is_identical(name):
    "All 782 mini-batches; PyTorch's default path, and foreach for a part."
    ours, theirs = RULES[name]
    history, weights = train(ours)
    for steps, options in ((782, {}), (100, {"foreach": True})):
        other, others = train(lambda ps, o=options: theirs(ps, **o), steps)
        assert other.losses == history.losses[:steps] and (steps < 782 or equal(weights, others))


@pytest.mark.skipif(not HAS_MUON, reason="this PyTorch has no Muon to compare with")
def test_muon_is_identical_on_mnist():
    history, weights = train(both(Muon, AdamW), 200)
    other, others = train(both(THEIRS.Muon, THEIRS.AdamW), 200)
    assert history.losses == other.losses and equal(weights, others)


@pytest.mark.parametrize("name", ["momentum", "Adam", "AdamW"])
def test_fused_is_close_and_on_some_processors_identical(name):
    ours, theirs = RULES[name]
    verdict = same(train(ours, 60)[0], train(lambda ps: theirs(ps, fused=True), 60)[0])
    assert verdict.word in ("close", "identical")


@given(st.integers(1, 9), st.integers(1, 9))
def test_orthogonal_pushes_singular_values_to_one(rows, columns):
    matrix = torch.randn(rows, columns)
    before = torch.linalg.svdvals(matrix)
    values = torch.linalg.svdvals(orthogonal(matrix).float())
    assert orthogonal(matrix).shape == matrix.shape and values.max() < 1.35
    assert values[before > 0.05 * before.norm()].min() > 0.5


# Optimizer


def test_sgd_is_chapter_02s():
    a, b = train(lambda ps: SGD(ps, 0.1), 50), train(lambda ps: exp.nb_02.SGD(ps, 0.1), 50)
    assert a[0].losses == b[0].losses and equal(a[1], b[1])
    p = torch.ones(1, requires_grad=True)
    assert SGD([p]).lr == exp.nb_02.SGD([p]).lr == 0.1


def test_the_rate_of_all_groups_can_be_assigned():
    groups = [{"params": [torch.ones(1, requires_grad=True)], "lr": lr} for lr in (0.1, 0.2)]
    optim = Adam(groups)
    assert optim.lr == 0.1 and groups[0] == {"params": groups[0]["params"], "lr": 0.1}
    optim.lr = 0.5
    assert [group["lr"] for group in optim.param_groups] == [0.5, 0.5]


def parameter(*shape):
    return torch.ones(*shape, requires_grad=True)


@pytest.mark.parametrize("kind, error, words, make", [
    (SGD, TypeError, "found learning_rate, expected some of lr, mom", lambda k: k([parameter(1)], learning_rate=1)),
    (SGD, TypeError, "SGD: found rate", lambda k: k([{"params": [parameter(1)], "rate": 1}])),
    (SGD, ValueError, "lr: found -1, expected 0 or more", lambda k: k([parameter(1)], -1)),
    (SGD, ValueError, "lr: found nan", lambda k: k([parameter(1)], math.nan)),
    (SGD, ValueError, "lr: found -1", lambda k: k([{"params": [parameter(1)], "lr": -1}])),
    (SGD, ValueError, "momentum: found -0.5", lambda k: k([parameter(1)], momentum=-0.5)),
    (Adam, ValueError, r"betas: found \(0.9, 1.0\), expected 0 or more, below 1",
     lambda k: k([parameter(1)], betas=(0.9, 1.0))),
    (RMSprop, ValueError, "alpha: found 1", lambda k: k([parameter(1)], alpha=1)),
    (AdamW, ValueError, "weight_decay: found -0.1", lambda k: k([parameter(1)], weight_decay=-0.1)),
    (SGD, ValueError, "found no parameters in a group", lambda k: k([])),
    (SGD, ValueError, "found no parameters in a group", lambda k: k([{"params": [parameter(1)]}, {"params": []}])),
    (SGD, TypeError, "found Tensor, expected model.parameters", lambda k: k(parameter(3))),
    (SGD, TypeError, "expected model.parameters", lambda k: k([parameter(3) * 2])),
    (SGD, ValueError, "found a parameter twice", lambda k: k([p := parameter(1), p])),
    (Muon, ValueError, r"Muon: found a parameter of shape \[3\]", lambda k: k([parameter(2, 2), parameter(3)])),
    (Muon, ValueError, "adjust_lr_fn: found 'none', expected one of",
     lambda k: k([parameter(2, 2)], adjust_lr_fn="none")),
    (Muon, TypeError, r"ns_coefficients: found \(1, 2\), expected 3",
     lambda k: k([parameter(2, 2)], ns_coefficients=(1, 2))),
    (SGD, TypeError, "lr: found '0.1', expected a number", lambda k: k([parameter(1)], "0.1")),
    (SGD, TypeError, "lr: found None, expected a number", lambda k: k([{"params": [parameter(1)], "lr": None}])),
    (Adam, TypeError, "betas: found 0.9, expected 2 numbers", lambda k: k([parameter(1)], betas=0.9)),
    (Adam, TypeError, "betas: found .* expected 2 numbers", lambda k: k([parameter(1)], betas=(0.9, 0.9, 0.9))),
    (SGD, ValueError, "found nesterov without momentum", lambda k: k([parameter(1)], nesterov=True)),
    (SGD, ValueError, "or with dampening", lambda k: k([parameter(1)], momentum=0.9, dampening=0.1, nesterov=True)),
    (SGD, TypeError, "found a tuple that is no parameter", lambda k: k(nn.Linear(2, 2).named_parameters())),
    (SGD, TypeError, "found set, expected model.parameters", lambda k: k({parameter(1), parameter(1)})),
    (SGD, TypeError, "found dict, expected", lambda k: k({"params": [parameter(1)]})),
    (SGD, TypeError, "found NoneType, expected", lambda k: k(None)),
    (SGD, TypeError, "found Linear, expected", lambda k: k(nn.Linear(2, 2))),
    (SGD, TypeError, "found a group without params", lambda k: k([{"params": [parameter(1)]}, parameter(1)])),
    (SGD, TypeError, "found a group without params", lambda k: k([{"lr": 0.1}])),
    (Adam, TypeError, "a parameter of torch.complex64, expected floats",
     lambda k: k([torch.ones(2, dtype=torch.complex64, requires_grad=True)])),
])  # fmt: skip
def test_what_cannot_be_is_refused(kind, error, words, make):
    with pytest.raises(error, match=words):
        make(kind)


def test_a_group_may_be_a_generator_or_one_parameter():
    layer, p = nn.Linear(2, 2), parameter(2)
    optim = SGD([{"params": layer.parameters()}, {"params": p, "lr": 0.5}], 0.2)
    assert [len(group["params"]) for group in optim.param_groups] == [2, 1] and optim.parameters[2] is p


def test_a_group_that_comes_later():
    a, b = parameter(2), parameter(2)
    ours, theirs = (kind([a], lr=0.3, momentum=0.9) for kind in (SGD, THEIRS.SGD))
    for optim in (ours, theirs):
        optim.add_param_group({"params": b, "weight_decay": 0.1})
    for group, other in zip(ours.param_groups, theirs.param_groups):
        assert all(group[name] == other[name] for name in ours.rule)
    for wrong, error in (({"params": [a]}, ValueError), ({"params": [parameter(1)], "rate": 1}, TypeError)):
        with pytest.raises(error):
            ours.add_param_group(wrong)
    with pytest.raises(ValueError, match="expected matrices"):
        Muon([parameter(2, 2)]).add_param_group({"params": parameter(2)})
    assert len(ours.param_groups) == 2


def test_a_rate_that_cannot_be_is_not_assigned():
    optim = SGD([parameter(1)], 0.2)
    for rate, error in ((-1, ValueError), (math.nan, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="lr: found"):
            optim.lr = rate
    assert optim.lr == 0.2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_other_floats_and_a_rate_that_is_a_tensor(name, dtype):
    def walk(kind, lr):
        chance = torch.Generator().manual_seed(0)
        p = torch.randn(50, generator=chance).to(dtype).requires_grad_()
        optim = kind([p], lr=lr)
        for _ in range(6):
            p.grad = torch.randn(50, generator=chance).to(dtype)
            optim.step()
        return p.detach()

    ours, theirs = getattr(exp.nb_05, name), getattr(THEIRS, name)
    for lr in (0.01, torch.tensor(0.01)):
        assert torch.equal(walk(ours, lr), walk(theirs, lr))


def test_a_sparse_gradient_is_as_good_for_plain_descent():
    def walk(kind):
        table = nn.Embedding(4, 2, sparse=True)
        nn.init.ones_(table.weight)
        optim = kind(table.parameters(), lr=0.1)
        for i in range(3):
            optim.zero_grad()
            table(torch.tensor([0, i])).sum().backward()
            optim.step()
        return table.weight.detach()

    assert torch.equal(walk(SGD), walk(THEIRS.SGD))


def test_ours_in_a_stock_loop_with_a_scaler():
    p = parameter(2)
    scaler, optim = torch.amp.GradScaler("cpu", init_scale=8.0), SGD([p], 0.1)
    scaler.scale((p * p).sum()).backward()
    scaler.step(optim)
    scaler.update()
    assert near(p, torch.full((2,), 0.8))


def test_a_step_needs_a_gradient_somewhere():
    with pytest.raises(RuntimeError, match="Adam: found no gradient"):
        Adam([parameter(2)]).step()
    a, b = parameter(2), parameter(2)
    a.grad = torch.ones(2)
    SGD([a, b]).step()
    assert not torch.equal(a, torch.ones(2)) and torch.equal(b, torch.ones(2))


@pytest.mark.parametrize("make", [lambda ps: SGD(ps, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True), RMSprop,
                                  lambda ps: Adam(ps, weight_decay=0.1), AdamW, Muon])  # fmt: skip
def test_a_step_leaves_the_gradient_alone(make):
    p = parameter(3, 3)
    optim = make([p])
    for _ in range(2):
        p.grad = torch.full((3, 3), 0.5)
        optim.step()
        assert torch.equal(p.grad, torch.full((3, 3), 0.5))
    optim.zero_grad()
    assert p.grad is None


def test_a_rule_of_ones_own_needs_one_method():
    class SignDescent(Optimizer):
        def update(self, p, g, state, lr=0.1):
            p.add_(g.sign(), alpha=-lr)

    p = parameter(2)
    p.grad = torch.tensor([5.0, -0.1])
    SignDescent([p], 0.5).step()
    assert p.tolist() == [0.5, 1.5]
    p.grad = torch.ones(2)
    with pytest.raises(NotImplementedError):
        Optimizer([p]).step()


# States


def handed(first, second, n=6):
    "Train with one optimiser, then hand its state over; return the parameters."
    chance = torch.Generator().manual_seed(1)
    ps = [parameter(4, 3), parameter(3), parameter(5, 5)]
    groups = [{"params": ps[:2], "lr": 0.02}, {"params": ps[2:]}]
    optim = first(groups)
    for i in range(2 * n):
        if i == n:
            saved = optim.state_dict()
            optim = second([{"params": ps[:2]}, {"params": ps[2:]}])
            optim.load_state_dict(copy.deepcopy(saved))
        for p in ps[: 2 if i < 2 else 3]:  # the last gets its first gradient later
            p.grad = torch.randn(p.shape, generator=chance)
        optim.step()
    return [p.detach() for p in ps]


STATES = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)),
    ("RMSprop", dict(weight_decay=0.1)),
    ("Adam", dict(weight_decay=0.1)),
    ("AdamW", {}),
]


@pytest.mark.parametrize("name, settings", STATES)
def test_states_are_exchanged_with_pytorch(name, settings):
    ours = lambda ps: getattr(exp.nb_05, name)(ps, **settings)  # noqa: E731
    theirs = lambda ps: getattr(THEIRS, name)(ps, **settings)  # noqa: E731
    unbroken = handed(theirs, theirs)
    for ways in ((ours, ours), (ours, theirs), (theirs, ours)):
        assert equal(handed(*ways), unbroken), ways


@pytest.mark.skipif(not HAS_MUON, reason="this PyTorch has no Muon to compare with")
def test_states_of_muon_are_exchanged():
    def go(first, second):
        p, chance = parameter(4, 3), torch.Generator().manual_seed(1)
        optim = first([p], lr=0.02)
        for i in range(8):
            if i == 4:
                saved = optim.state_dict()
                optim = second([p], lr=0.5)
                optim.load_state_dict(saved)
            p.grad = torch.randn(p.shape, generator=chance)
            optim.step()
        return [p.detach()]

    for ways in ((Muon, Muon), (Muon, THEIRS.Muon), (THEIRS.Muon, Muon)):
        assert equal(go(*ways), go(THEIRS.Muon, THEIRS.Muon))


def test_a_state_of_something_else_is_refused():
    p, other = parameter(2, 3), parameter(3, 2)
    p.grad = torch.ones(2, 3)
    optim = Adam([p])
    optim.step()
    saved = optim.state_dict()
    with pytest.raises(ValueError, match=r"parameter 0: found a memory of shape \[2, 3\], expected \[3, 2\]"):
        Adam([other]).load_state_dict(saved)
    with pytest.raises(ValueError, match=r"found groups of \[1\] parameters, expected \[1, 1\]"):
        Adam([{"params": [p]}, {"params": [other]}]).load_state_dict(saved)
    for kind, strange in ((Adam, dict(amsgrad=True)), (SGD, dict(maximize=True)), (RMSprop, dict(centered=True))):
        theirs = getattr(THEIRS, kind.__name__)([p], **strange).state_dict()
        with pytest.raises(ValueError, match=f"found the setting {next(iter(strange))}"):
            kind([p]).load_state_dict(theirs)


def test_a_refused_state_changes_nothing():
    p = parameter(2, 3)
    p.grad = torch.ones(2, 3)
    optim = Adam([p], lr=0.5)
    optim.step()
    bad = Adam([p], lr=0.1).state_dict() | {"state": {0: {"exp_avg": torch.ones(9), "step": 3}}}
    with pytest.raises(ValueError):
        optim.load_state_dict(bad)
    assert optim.lr == 0.5 and optim.state[p]["step"] == 1


def test_a_state_of_another_rule_is_refused():
    def state(kind, **settings):
        p = parameter(2, 2)
        optim = kind([p], **settings)
        p.grad = torch.ones(2, 2)
        optim.step()
        return optim.state_dict()

    mark = "decoupled_weight_decay"
    for kind, other, words in ((Adam, AdamW, f"{mark}=True"), (Adam, THEIRS.AdamW, f"{mark}=True"),
                               (AdamW, Adam, f"{mark}=False"), (AdamW, THEIRS.Adam, f"{mark}=False"),
                               (Adam, SGD, "no setting betas"), (Adam, THEIRS.SGD, "no setting betas"),
                               (RMSprop, Adam, "no setting alpha"), (AdamW, Muon, "no setting betas")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{kind.__name__}: found .*{words}"):
            kind([parameter(2, 2)]).load_state_dict(state(other))
    with pytest.raises(ValueError, match=r"SGD: found \[\], expected state, param_groups"):
        SGD([parameter(2)]).load_state_dict({})
    bad = state(SGD)
    bad["param_groups"][0]["lr"] = -1
    with pytest.raises(ValueError, match="lr: found -1"):
        SGD([parameter(2, 2)]).load_state_dict(bad)


def test_pytorchs_rules_know_ours_by_their_mark():
    "What PyTorch's Adam reads from our AdamW decays as AdamW."
    p = parameter(2)
    theirs = THEIRS.Adam([p])
    theirs.load_state_dict(AdamW([p]).state_dict())
    assert theirs.param_groups[0]["decoupled_weight_decay"] is True


def test_a_saved_state_stays_as_it_is():
    p = parameter(2)
    optim = Adam([p])
    p.grad = torch.ones(2)
    optim.step()
    saved, expected = (optim.state_dict() for _ in range(2))
    expected = copy.deepcopy(expected)
    optim.step()
    optim.lr = 0.7
    assert str(saved) == str(expected)


def test_a_state_without_velocity_gets_one_later():
    p = parameter(2)
    theirs, ours = THEIRS.SGD([p], 0.1), SGD([p])
    p.grad = torch.ones(2)
    theirs.step()
    ours.load_state_dict(theirs.state_dict())
    ours.param_groups[0]["momentum"] = 0.9
    ours.step()
    assert torch.equal(ours.state[p]["momentum_buffer"], p.grad)


def test_a_memory_smaller_than_its_parameter_is_restored():
    class Edges(Optimizer):
        def update(self, p, g, state, lr=0.1):
            state.setdefault("rows", torch.zeros(len(p))).add_(g.sum(1))

    p = parameter(2, 3)
    p.grad = torch.ones(2, 3)
    optim, other = Edges([p]), Edges([p])
    optim.step()
    other.load_state_dict(optim.state_dict())
    assert torch.equal(other.state[p]["rows"], torch.full((2,), 3.0))
    with pytest.raises(ValueError, match=r"found a memory of shape \[2\], expected \[3, 4\]"):
        Edges([parameter(3, 4)]).load_state_dict(optim.state_dict())


def test_pickle_keeps_memories_with_their_parameters():
    p = parameter(2)
    optim = Adam([p])
    p.grad = torch.ones(2)
    optim.step()
    twin = pickle.loads(pickle.dumps(optim))
    [q] = twin.parameters
    q.grad = torch.ones(2)
    twin.step()
    assert q is not p and twin.state[q]["step"] == 2 and optim.state[p]["step"] == 1


def test_a_loaded_memory_is_a_copy():
    p = parameter(2)
    p.grad = torch.ones(2)
    first = Adam([p])
    first.step()
    second = Adam([p])
    second.load_state_dict(first.state_dict())
    second.step()
    assert torch.equal(first.state[p]["exp_avg"], torch.full((2,), 0.1)) and first.state[p]["step"] == 1


def test_a_copy_of_model_and_optimiser_goes_on_by_itself():
    model = network()
    optim = Adam(model.parameters())
    model(torch.randn(5, 6)).sum().backward()
    optim.step()
    twin, twins = copy.deepcopy((model, optim))
    assert all(p in twins.state for p in twin.parameters() if p.grad is not None)
    before = [p.detach().clone() for p in model.parameters()]
    twin(torch.randn(5, 6)).sum().backward()
    twins.step()
    assert equal(before, [p.detach() for p in model.parameters()])


def test_together_steps_saves_and_restores():
    ps = [parameter(2, 2), parameter(2)]
    optim = Together(Muon(ps[:1]), AdamW(ps[1:]))
    for p in ps:
        p.grad = torch.ones_like(p)
    optim.step()
    assert all(not torch.equal(p, torch.ones_like(p)) for p in ps) and len(optim.param_groups) == 2
    optim.zero_grad()
    assert ps[0].grad is ps[1].grad is None
    other = Together(Muon(ps[:1], 0.5), AdamW(ps[1:], 0.5))
    other.load_state_dict(optim.state_dict())
    assert [g["lr"] for g in other.param_groups] == [0.001, 0.001]
    assert other.optims[1].state[ps[1]]["step"] == 1


@pytest.mark.parametrize("make, error, words", [
    (lambda p: Together(), ValueError, "Together: found nothing"),
    (lambda p: Together([SGD([p])]), TypeError, "Together: found a list without groups"),
    (lambda p: Together(SGD), TypeError, "Together: found a type without groups"),
    (lambda p: Together(exp.nb_02.SGD([p])), TypeError, "Together: found a SGD without groups"),
    (lambda p: Together(SGD([p]), Adam([p])), ValueError, "Together: found a parameter twice"),
    (lambda p: Together(SGD([p])).load_state_dict(SGD([p]).state_dict()), ValueError,
     "states of 0 optimisers, expected 1"),
    (lambda p: Together(SGD([p]), SGD([parameter(2)])).load_state_dict(Together(SGD([p])).state_dict()), ValueError,
     "states of 1 optimisers, expected 2"),
])  # fmt: skip
def test_what_together_refuses(make, error, words):
    with pytest.raises(error, match=words):
        make(parameter(2))


@pytest.mark.parametrize("first", [SGD, THEIRS.SGD])
def test_together_restores_all_or_none(first):
    a, b = parameter(2), parameter(2)
    for p in (a, b):
        p.grad = torch.ones(2)
    optim, other = Together(first([a], 0.5, momentum=0.9), Adam([b], 0.5)), Together(SGD([a]), SGD([b]))
    optim.step()
    before = copy.deepcopy(optim.state_dict())
    with pytest.raises(ValueError, match="Adam: found no setting betas"):
        optim.load_state_dict(other.state_dict())
    assert str(optim.state_dict()) == str(before)


# In the Learner


def learn(make, callbacks=lambda optim: (), n_epochs=3, valid=True):
    "Train a small network in the learner; return it."
    set_seed(5)
    x, y = problem()
    model = network()
    optim = make(model.parameters())
    loader = DataLoader(Dataset(x, y), 16, True, torch.Generator().manual_seed(7), drop_last=True)
    learner = Learner(model, cross_entropy_loss, optim, callbacks(optim))
    learner.fit(loader, n_epochs, [(x, y)] if valid else None)
    return learner


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_ours_in_the_learner_is_pytorchs_in_the_learner(name):
    ours, theirs = (learn(lambda ps, k=k: getattr(k, name)(ps, lr=0.01)) for k in (exp.nb_05, THEIRS))
    assert ours.history.losses == theirs.history.losses and ours.history.valid_losses == theirs.history.valid_losses


def test_an_interrupted_run_is_resumed_to_the_same_bits(tmp_path):
    class Stop(Callback):
        def after_batch(self, learner):
            if learner.step == 7:
                raise CancelFit

    def callbacks(*more, resume=True):
        tools = [Rate(warm_up_cosine(12, 3)), Average(0.8), *more]
        return lambda optim: [*tools, Checkpoint(tmp_path / "run", every=1, resume=resume)]

    whole = learn(Adam, lambda optim: [Rate(warm_up_cosine(12, 3)), Average(0.8)])
    learn(Adam, callbacks(Stop()))
    resumed = learn(Adam, callbacks())
    assert resumed.history.losses == whole.history.losses
    pair = [learner.callbacks[2].model.state_dict().values() for learner in (whole, resumed)]
    assert equal(*pair)


# Schedules


def rates_of_theirs(make, steps, lr=0.1):
    "Return the rates of a scheduler of PyTorch."
    optim = THEIRS.SGD([parameter(1)], lr=lr)
    scheduler, rates = make(optim), []
    for _ in range(steps):
        rates.append(optim.param_groups[0]["lr"])
        optim.step()
        scheduler.step()
    return rates


@given(st.integers(1, 40), st.integers(1, 4), st.floats(0.1, 0.9))
def test_steps_down(every, falls, gamma):
    steps = every * (falls + 1)
    theirs = rates_of_theirs(lambda o: lr_scheduler.StepLR(o, every, gamma), steps)
    factor = steps_down(every, falls, gamma)
    assert near([0.1 * factor(t) for t in range(steps)], theirs, rtol=1e-12)


@given(st.integers(2, 80), st.floats(0.8, 0.999))
def test_exponential_decay(steps, gamma):
    theirs = rates_of_theirs(lambda o: lr_scheduler.ExponentialLR(o, gamma), steps)
    factor = exponential_decay(steps, gamma**steps)
    assert near([0.1 * factor(t) for t in range(steps)], theirs, rtol=1e-11)


@given(st.integers(1, 80), st.sampled_from([0.0, 0.1]))
def test_cosine_decay(steps, end):
    theirs = rates_of_theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, steps, eta_min=0.1 * end), steps)
    factor = cosine_decay(steps, end)
    assert near([0.1 * factor(t) for t in range(steps)], theirs, rtol=1e-9)
    assert factor(steps) == factor(10 * steps) == end


@given(st.integers(2, 20), st.integers(1, 60))
def test_warm_up_cosine(warm_up, falling):
    def make(o):
        parts = [lr_scheduler.LinearLR(o, 0.01, total_iters=warm_up), lr_scheduler.CosineAnnealingLR(o, falling)]
        return lr_scheduler.SequentialLR(o, parts, milestones=[warm_up])

    steps = warm_up + falling
    factor = warm_up_cosine(steps, warm_up)
    assert near([0.1 * factor(t) for t in range(steps)], rates_of_theirs(make, steps), rtol=1e-9)


@given(st.integers(10, 200), st.floats(0.2, 0.8))
def test_one_cycle(steps, rise):
    theirs = rates_of_theirs(lambda o: lr_scheduler.OneCycleLR(o, 0.1, steps, pct_start=rise), steps)
    factor = one_cycle(steps, rise)
    assert near([0.1 * factor(t) for t in range(steps)], theirs, rtol=1e-7, atol=1e-12)


def test_stable_decay_rises_stays_and_falls():
    factor = stable_decay(100, 10, 20)
    assert [factor(t) for t in (0, 5, 10, 79, 90, 100, 500)] == [0, 0.5, 1, 1, 0.5, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([linear, cosine, exponential]),
                          st.floats(0.01, 1), st.floats(0.01, 1)), min_size=1, max_size=4))  # fmt: skip
def test_the_same_function_in_pytorchs_scheduler(legs):
    factor, steps = schedule(*legs), sum(leg[0] for leg in legs) + 3
    assert rates_of_theirs(lambda o: lr_scheduler.LambdaLR(o, factor), steps) == [0.1 * factor(t) for t in range(steps)]
    assert factor(steps) == legs[-1][3]


def test_a_leg_needs_steps():
    with pytest.raises(ValueError, match="schedule: found no legs"):
        schedule()
    for steps in (-1, math.nan):
        with pytest.raises(ValueError, match=f"schedule: leg 2: found {steps} steps, expected 0 or more"):
            schedule((5, linear, 0, 1), (steps, linear, 1, 0))
    for make in (lambda: warm_up_cosine(50), lambda: stable_decay(100), lambda: one_cycle(2)):
        with pytest.raises(ValueError, match="schedule: leg .: found -.* steps"):
            make()


@pytest.mark.parametrize("leg", [[(4, linear, 0, 1)], linear, (4, 0, 1), (4, "linear", 0, 1), (4, linear, None, 1)])
def test_a_leg_has_four_parts(leg):
    with pytest.raises(TypeError, match=r"schedule: leg 1: found .*, expected \(steps, shape, start, end\)"):
        schedule(leg)


def test_no_ratio_leads_to_zero_and_no_step_is_negative():
    for factor in (exponential_decay(4, 0), exponential_decay(4, -1), schedule((4, exponential, 0, 1))):
        with pytest.raises(ValueError, match="exponential: found .* expected both above 0"):
            factor(1)
    with pytest.raises(ValueError, match="schedule: found step -5"):
        cosine_decay(10)(-5)


def test_rate_is_pytorchs_schedule_in_the_learner():
    factor = warm_up_cosine(12, 4)
    momentum = dict(lr=0.1, momentum=0.9)
    ours = learn(lambda ps: SGD(ps, **momentum), lambda optim: [Rate(factor)])
    theirs = learn(
        lambda ps: THEIRS.SGD(ps, **momentum), lambda optim: [Schedule(lr_scheduler.LambdaLR(optim, factor))]
    )
    mixed = learn(lambda ps: THEIRS.SGD(ps, **momentum), lambda optim: [Rate(factor)])
    assert ours.history.losses == theirs.history.losses == mixed.history.losses


def test_rate_keeps_the_ratio_of_groups_and_puts_it_back():
    class Look(Callback):
        def after_backward(self, learner):
            seen.append([group["lr"] for group in learner.optim.param_groups])

    seen = []

    def make(ps):
        ps = list(ps)
        return SGD([{"params": ps[:1], "lr": 0.1}, {"params": ps[1:], "lr": 0.02}])

    learner = learn(make, lambda optim: [Rate(lambda step: 1 / (1 + step)), Look()], n_epochs=1)
    assert near(seen, [[0.1 / (1 + t), 0.02 / (1 + t)] for t in range(4)], rtol=1e-12)
    assert [group["lr"] for group in learner.optim.param_groups] == [0.1, 0.02]


def test_rate_counts_steps_not_mini_batches():
    rates = LearningRates()
    learner = learn(lambda ps: SGD(ps, 1.0), lambda optim: [Rate(lambda step: step), Accumulate(2), rates], n_epochs=1)
    assert learner.step == 2 and learner.optim.lr == 1.0


def test_rate_can_move_another_setting():
    seen = []

    class Look(Callback):
        def after_backward(self, learner):
            seen.append(learner.optim.param_groups[0]["momentum"])

    cycle = schedule((2, linear, 1, 0.5))
    learn(lambda ps: SGD(ps, 0.1, momentum=0.8), lambda optim: [Rate(cycle, "momentum"), Look()], n_epochs=1)
    assert near(seen, [0.8, 0.6, 0.4, 0.4])
    with pytest.raises(ValueError, match="Rate: found an optimiser without a number momentun"):
        learn(SGD, lambda optim: [Rate(cycle, "momentun")])
    with pytest.raises(ValueError, match="Rate: found an optimiser without a number lr"):
        learn(lambda ps: exp.nb_02.SGD(ps, 0.1), lambda optim: [Rate(cycle)])


@pytest.mark.parametrize("factor, words", [
    (lambda step: -1.0, "Rate: found -1.0 as the factor of step 0"), (lambda step: math.nan, "Rate: found nan as"),
    (lambda step: None, "Rate: found a NoneType as"), (cosine_decay, "Rate: found a function as"),
    (lambda step: 1.0 - step, "Rate: found -1.0 as the factor of step 2"),
])  # fmt: skip
def test_a_factor_that_cannot_be(factor, words):
    with pytest.raises(ValueError, match=words):
        learn(SGD, lambda optim: [Rate(factor)])


def test_a_rate_needs_a_function():
    with pytest.raises(TypeError, match="Rate: found 0.1, expected a function of the step"):
        Rate(0.1)
    with pytest.raises(ValueError, match="without a number betas"):
        learn(Adam, lambda optim: [Rate(cosine_decay(10), "betas")])


def test_nobody_undoes_what_a_rate_has_set():
    fall = cosine_decay(12)
    for others in (lambda optim: [Rate(fall), Rate(fall)], lambda optim: [Plateau(), Rate(fall)]):
        with pytest.raises(ValueError, match="Rate: found another callback that sets lr"):
            learn(SGD, others)
    with pytest.raises(RuntimeError, match=r"Rate: found lr .* as it was left"):
        scheduler = lambda optim: Schedule(lr_scheduler.LambdaLR(optim, lambda step: 0.5**step))  # noqa: E731
        learn(lambda ps: THEIRS.SGD(ps, 0.1), lambda optim: [Rate(fall), scheduler(optim)])
    learn(lambda ps: SGD(ps, 0.1, momentum=0.9), lambda optim: [Rate(fall), Rate(fall, "momentum")])


def test_a_rate_puts_back_what_this_run_found():
    class Stop(Callback):
        def before_fit(self, learner):
            raise CancelFit

    rate = Rate(lambda step: 0.5)
    learner = learn(lambda ps: SGD(ps, 0.1), lambda optim: [rate], n_epochs=1)
    learner.optim.lr, learner.callbacks = 0.7, [Stop(), rate]
    learner.fit([problem()])
    assert learner.optim.lr == 0.7


@pytest.mark.parametrize("name, value", [("factor", 1.0), ("factor", -0.1), ("factor", math.nan), ("patience", -1),
                                         ("threshold", -1)])  # fmt: skip
def test_a_plateau_that_cannot_be(name, value):
    with pytest.raises(ValueError, match="Plateau: found"):
        Plateau(**{name: value})


def test_plateau_needs_groups():
    with pytest.raises(ValueError, match="Plateau: found an optimiser without a number lr"):
        learn(lambda ps: exp.nb_02.SGD(ps, 0.1), lambda optim: [Plateau()])


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=60), st.sampled_from([0.1, 0.5]), st.integers(0, 4))
def test_plateau_is_pytorchs(losses, factor, patience):
    ours, theirs = SGD([parameter(1)], 1.0), THEIRS.SGD([parameter(1)], 1.0)
    lower = lr_scheduler.ReduceLROnPlateau(theirs, factor=factor, patience=patience)
    plateau, learner = Plateau(factor, patience), SimpleNamespace(optim=ours, valid=[], history=History())
    plateau.before_fit(learner)
    for loss in losses * 3:
        learner.history.valid_losses.append(loss)
        plateau.after_epoch(learner)
        lower.step(loss)
        assert ours.lr == theirs.param_groups[0]["lr"]


def test_plateau_needs_validation():
    with pytest.raises(ValueError, match="Plateau: found no validation set"):
        learn(SGD, lambda optim: [Plateau()], valid=False)


# The finder


def test_the_finder_changes_nothing():
    learner = learn(lambda ps: Adam(ps, 0.01), lambda optim: [Rate(lambda step: 1.0)])
    before = copy.deepcopy((learner.model.state_dict(), learner.optim.state_dict(), learner.history.losses))
    own = learner.model, learner.optim, learner.callbacks, learner.step
    loader = DataLoader(Dataset(*problem()), 16, True, torch.Generator().manual_seed(7))
    random = torch.get_rng_state(), loader.generator.get_state()
    sweep = find_rate(learner, loader, 1e-3, 1.0, 20)
    after = learner.model.state_dict(), learner.optim.state_dict(), learner.history.losses
    assert equal(before[0].values(), after[0].values()) and before[2] == after[2]
    assert str(before[1]) == str(after[1])
    assert all(a is b for a, b in zip(own, (learner.model, learner.optim, learner.callbacks, learner.step)))
    assert torch.equal(random[0], torch.get_rng_state()) and torch.equal(random[1], loader.generator.get_state())
    assert near(sweep.rates[0], 1e-3, rtol=1e-9) and len(sweep.rates) == len(sweep.losses) == len(sweep.smoothed)


@pytest.mark.parametrize("make", [lambda ps: SGD(ps, 0.01), lambda ps: THEIRS.Adam(ps, 0.01),
                                  lambda ps: THEIRS.SGD(ps, 0.01)])  # fmt: skip
def test_the_rates_grow_by_the_same_ratio(make):
    learner = learn(make, n_epochs=1)
    sweep = find_rate(learner, DataLoader(Dataset(*problem()), 16), 1e-5, 1e-3, 21)
    assert len(sweep.rates) == 21 and near(sweep.rates, [10 ** (-5 + 2 * i / 20) for i in range(21)], rtol=1e-6)


def test_a_sweep_that_explodes_ends():
    learner = learn(lambda ps: SGD(ps, 0.01), n_epochs=1)
    for criterion in (cross_entropy_loss, lambda z, y: cross_entropy_loss(z, y) * 1e30):
        learner.criterion = criterion
        sweep = find_rate(learner, DataLoader(Dataset(*problem()), 16), 1e-3, 1e12, 100)
        assert 0 < len(sweep.rates) < 100


def test_a_sweep_below_zero_goes_on():
    learner = learn(lambda ps: SGD(ps, 0.01), n_epochs=1)
    learner.criterion = lambda z, y: cross_entropy_loss(z, y) - 5
    assert len(find_rate(learner, DataLoader(Dataset(*problem()), 16), 1e-6, 1e-4, 30).rates) == 30


def test_a_loader_that_cannot_tell_its_length():
    class Batches:
        def __iter__(self):
            return iter(DataLoader(Dataset(*problem()), 16))

    learner = learn(lambda ps: SGD(ps, 0.01), n_epochs=1)
    assert len(find_rate(learner, Batches(), 1e-6, 1e-4, 12).rates) == 12


@pytest.mark.parametrize("error, words, options", [
    (ValueError, "found rates from -1 to 1", dict(low=-1, high=1)), (ValueError, "found rates from 0 to", dict(low=0)),
    (ValueError, "found rates from 1 to 0.1", dict(low=1, high=0.1)),
    (ValueError, "found rates from nan", dict(low=math.nan)),
    (ValueError, "steps: found 1, expected 2", dict(steps=1)), (ValueError, "steps: found 2.5", dict(steps=2.5)),
    (TypeError, "found an iterator", dict(dataloader=iter([problem()]))),
])  # fmt: skip
def test_a_sweep_that_cannot_be(error, words, options):
    learner = learn(lambda ps: SGD(ps, 0.01), n_epochs=1)
    with pytest.raises(error, match=words):
        find_rate(learner, **{"dataloader": [problem()], **options})


def test_a_sweep_needs_a_rate_and_a_loss():
    with pytest.raises(ValueError, match="found a learning rate of 0"):
        find_rate(learn(lambda ps: SGD(ps, 0.0), n_epochs=1), [problem()])
    learner = learn(lambda ps: SGD(ps, 0.1), n_epochs=1)
    learner.criterion = lambda z, y: cross_entropy_loss(z, y) * math.nan
    with pytest.raises(FloatingPointError, match="find_rate: found a first loss that is not finite"):
        find_rate(learner, [problem()])
    with pytest.raises(ValueError, match="Sweep: found no losses"):
        _ = Sweep().steepest


def test_a_sweep_within_a_run_changes_nothing():
    class Look(Callback):
        def before_fit(self, learner):
            find_rate(learner, learner.dataloader, 1e-6, 1e-4, 10)

        after_backward = after_epoch = before_fit

    fall = cosine_decay(12)
    with_it, without = (learn(Adam, lambda optim, more=more: [*more, Rate(fall)]) for more in ([Look()], []))
    assert with_it.history.losses == without.history.losses


def test_a_sweep_leaves_a_criterion_with_parameters_alone():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.chance = nn.Parameter(torch.ones(3)), torch.Generator()

        def forward(self, z, y):
            return cross_entropy_loss(z * self.scale + torch.rand(3, generator=self.chance), y)

    model, criterion = nn.Linear(6, 3), Scaled()
    before = criterion.chance.get_state()
    find_rate(Learner(model, criterion, SGD([*model.parameters(), *criterion.parameters()])), [problem()], 1e-6, 1e-4)
    assert criterion.scale.grad is None and torch.equal(criterion.chance.get_state(), before)


def sweep_of(smoothed):
    "Return a sweep that has seen these smoothed losses, at rates 1, 2, 3 …"
    sweep = Sweep()
    sweep.rates, sweep.smoothed = [float(i) for i in range(1, len(smoothed) + 1)], smoothed
    return sweep


def test_what_a_sweep_suggests():
    sweep = sweep_of([2.3, 2.2, 1.7, 1.5, 1.4, 2.0, 2.5, 4.0])
    assert (sweep.steepest, sweep.lowest, sweep.highest) == (2.0, 5.0, 6.0)
    assert sweep_of([2.3, 2.0, 1.0]).highest == 3.0


# Averages


def averages(average, options, n_epochs=3):
    "Average a small network in the learner, with ours and with PyTorch's; return both models."
    class Theirs(Callback):
        def before_fit(self, learner):
            self.model = swa_utils.AveragedModel(learner.model, **options)

        def after_batch(self, learner):
            if learner.step > average.start:
                self.model.update_parameters(learner.model)

    theirs = Theirs()
    learn(lambda ps: SGD(ps, 0.3), lambda optim: [average, theirs], n_epochs)
    return average.model.state_dict().values(), theirs.model.module.state_dict().values()


@given(st.sampled_from([0.0, 0.5, 0.9, 0.998]), st.integers(0, 5))
def test_average_is_pytorchs_ema(decay, start):
    options = dict(multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay))
    assert equal(*averages(Average(decay, start), options))


def test_average_is_close_to_pytorchs_mean():
    for start in (0, 4):
        pairs = zip(*averages(Average(None, start), {}))
        assert all(near(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs)


def test_an_average_is_evaluated_not_trained():
    average = Average(0.8)
    learn(lambda ps: SGD(ps, 0.1), lambda optim: [average])
    before = copy.deepcopy(average.model.state_dict())
    evaluate([problem()], average.model, cross_entropy_loss)
    assert not average.model.training and equal(before.values(), average.model.state_dict().values())


def test_until_it_starts_an_average_is_the_model_of_now():
    average = Average(0.5, start=10_000)
    learner = learn(lambda ps: SGD(ps, 0.1), lambda optim: [average])
    assert average.n == 0 and equal(average.model.state_dict().values(), learner.model.state_dict().values())


def test_an_average_keeps_tied_weights_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.b.weight = self.a.weight

        def forward(self, xb):
            return self.out(self.b(self.a(xb)))

    model, average = Tied(), Average(0.5)
    theirs = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5))
    watch = Callback()
    watch.after_batch = lambda learner: theirs.update_parameters(learner.model)
    Learner(model, cross_entropy_loss, SGD(model.parameters()), [average, watch]).fit([problem()] * 4)
    assert average.model.a.weight is average.model.b.weight
    assert equal(average.model.state_dict().values(), theirs.module.state_dict().values())


def test_an_average_starts_at_a_step():
    for start in (-3, math.nan):
        with pytest.raises(ValueError, match="start: found"):
            Average(0.5, start)


def test_average_takes_models_of_chapter_02():
    x, y = problem()
    model, average = MLP(6, 4, 3), Average(0.5)
    learner = Learner(model, cross_entropy_loss, SGD(model.parameters(), 0.1), [average])
    learner.fit([(x, y)] * 3)
    assert average.n == 3 and average.model is not model
    assert not torch.equal(average.model.l1.weight, model.l1.weight)


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_a_decay_that_cannot_be(decay):
    with pytest.raises(ValueError, match="decay: found"):
        Average(decay)
