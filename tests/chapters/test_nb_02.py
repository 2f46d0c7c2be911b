"""The training pieces against PyTorch's: values, gradients, contracts, and every error."""

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils import data

from exp.nb_02 import *

dtypes = st.sampled_from([torch.float32, torch.float64])


@st.composite
def logits_and_labels(draw, scale=20.0):
    "Draw logits [n, classes] and labels [n]."
    n, classes, seed = draw(st.integers(1, 9)), draw(st.integers(1, 12)), draw(st.integers(0, 2**31))
    generator, size = torch.Generator().manual_seed(seed), draw(st.floats(0, scale))
    logits = size * torch.randn(n, classes, generator=generator, dtype=draw(dtypes))
    return logits, torch.randint(classes, (n,), generator=generator)


def value_and_gradient(function, logits, *rest):
    "Return the value of a function, and the gradient of its sum (weighted, so that no two entries count alike)."
    logits = logits.clone().requires_grad_()
    result = function(logits, *rest)
    weights = torch.linspace(1, 2, result.numel(), dtype=result.dtype).reshape(result.shape)
    (weights * result).sum().backward()
    return result.detach(), logits.grad


def agree(ours, theirs, logits, *rest):
    "Compare values and gradients of two functions; neither may change its arguments."
    before = [logits.clone(), *(r.clone() for r in rest)]
    tolerance = 1e-4 if logits.dtype == torch.float32 else 1e-10
    for a, b in zip(value_and_gradient(ours, logits, *rest), value_and_gradient(theirs, logits, *rest)):
        assert a.dtype == b.dtype and near(a, b, rtol=tolerance, atol=tolerance)
    ours(logits, *rest)
    assert all(torch.equal(a, b) for a, b in zip(before, [logits, *rest]))


# The loss


@given(logits_and_labels())
def test_log_softmax(pair):
    agree(log_softmax, lambda z: F.log_softmax(z, dim=-1), pair[0])


@given(logits_and_labels())
def test_nll(pair):
    agree(nll, F.nll_loss, F.log_softmax(pair[0], dim=1), pair[1])


@given(logits_and_labels())
def test_cross_entropy_loss(pair):
    agree(cross_entropy_loss, F.cross_entropy, *pair)


@given(logits_and_labels(scale=1e30))
def test_the_loss_never_overflows(pair):
    assert log_softmax(pair[0]).isfinite().all() and not cross_entropy_loss(*pair).isnan()
    assert near(log_softmax(pair[0]), F.log_softmax(pair[0], dim=-1))


@pytest.mark.parametrize("size", [1e2, 1e3, 1e4, 1e6])
def test_large_logits_keep_their_digits(size):
    z, y = torch.tensor([[size, size - 0.5, 0.0]]), torch.tensor([1])
    assert near(cross_entropy_loss(z, y), F.cross_entropy(z.double(), y))


@given(logits_and_labels())
def test_accuracy_is_a_count_by_hand(pair):
    logits, y = pair
    right = sum(max(range(len(row)), key=row.__getitem__) == label for row, label in zip(logits.tolist(), y.tolist()))
    assert near(accuracy(logits, y), right / len(y))
    agree_before = logits.clone()
    accuracy(logits, y)
    assert torch.equal(agree_before, logits)


@pytest.mark.parametrize("function", [nll, cross_entropy_loss, accuracy])
@pytest.mark.parametrize(
    "y, words",
    [
        (torch.tensor([0, 3]), "labels from 0 to 3, expected 0 to 2"),
        (torch.tensor([-1, 0]), "labels from -1 to 0, expected 0 to 2"),
        (torch.tensor([0]), r"scores \[2, 3\] and labels \[1\]"),
        (torch.tensor([[0], [1]]), r"labels \[2, 1\], expected \[..., classes\] and \[...\]"),
        (torch.zeros(2, 3).long(), r"labels \[2, 3\]"),
        (torch.tensor([0.0, 1.0]), "torch.float32, expected torch.int64"),
        (torch.tensor([0, 1], dtype=torch.uint8), "torch.uint8, expected torch.int64"),
    ],
)
def test_labels_that_cannot_be_are_named(function, y, words):
    with pytest.raises(ValueError, match=words):
        function(torch.zeros(2, 3), y)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match=r"scores \[0, 3\]"):
        cross_entropy_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


@given(st.lists(st.integers(1, 4), max_size=3), st.integers(1, 7), dtypes, st.integers(0, 99))
def test_any_leading_shape_is_the_flattened_one(shape, classes, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(*shape, classes, generator=generator, dtype=dtype)
    y = torch.randint(classes, shape, generator=generator)
    agree(cross_entropy_loss, lambda z, y: F.cross_entropy(z.reshape(-1, classes), y.flatten()), z, y)
    agree(log_softmax, lambda z: F.log_softmax(z, dim=-1), z)
    agree(nll, lambda z, y: F.nll_loss(z.reshape(-1, classes), y.flatten()), F.log_softmax(z, dim=-1), y)
    assert near(accuracy(z, y), (z.argmax(-1) == y).float().mean())


def test_pytorchs_order_of_axes_is_refused():
    with pytest.raises(ValueError, match="the classes come last"):
        cross_entropy_loss(torch.zeros(2, 5, 3), torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("scores", [torch.tensor([[5.0, 1.0, 0.0]]), torch.full((1, 3), 1 / 3)])
def test_nll_refuses_logits_and_probabilities(scores):
    with pytest.raises(ValueError, match="expected 0 or less. Logits"):
        nll(scores, torch.tensor([0]))


def test_nll_leaves_a_loss_that_is_not_a_number_to_the_history():
    assert nll(torch.full((1, 3), math.nan), torch.tensor([0])).isnan()
    assert nll(torch.tensor([[0.0, -math.inf]]), torch.tensor([1])).isinf()


@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 5))
def test_evaluate_counts_every_label_once(n, t, batch_size):
    z, y = torch.randn(n, t, 4), torch.randint(4, (n, t))
    parts = [(z[i:i + batch_size], y[i:i + batch_size]) for i in range(0, n, batch_size)]
    loss, acc = evaluate(parts, nn.Identity(), cross_entropy_loss)
    assert near(loss, F.cross_entropy(z.flatten(0, 1), y.flatten()).item(), rtol=1e-4)
    assert acc == (z.argmax(-1) == y).sum().item() / (n * t)


# normalize


@given(st.integers(2, 50), st.integers(1, 5), dtypes)
def test_normalize(n, columns, dtype):
    x = 7 + 3 * torch.randn(n, columns, dtype=dtype)
    before, m, s = x.clone(), x.mean(), x.std()
    if s > 0:
        z = normalize(x, m, s)
        assert near(z.mean(), 0.0, atol=1e-4) and near(z.std(), 1.0, rtol=1e-4) and torch.equal(x, before)
        assert near(z * s + m, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("s", [0.0, -1.0, math.nan, torch.tensor([1.0, 0.0])])
def test_normalize_refuses_a_deviation_that_is_not_above_zero(s):
    with pytest.raises(ValueError, match="standard deviation: found"):
        normalize(torch.ones(3, 2), 0.0, s)


def test_normalize_refuses_bytes():
    with pytest.raises(ValueError, match="torch.uint8, expected floats"):
        normalize(torch.tensor([0, 33, 255], dtype=torch.uint8), 33, 78)


# SGD


def problem(shapes, dtype, unused):
    "Return parameters of these shapes and a loss of them; the last takes no part in it if `unused`."
    parameters = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]
    used = parameters[:-1] if unused else parameters
    return parameters, lambda: sum(((p**2).sum() + p.sin().sum()) for p in used)


@given(
    st.lists(st.lists(st.integers(1, 40), max_size=2), min_size=2, max_size=4),
    dtypes,
    st.booleans(),
    st.sampled_from([0.0, 1e-4, 0.1, 0.3, 1.0, 7.7]),
)
def test_sgd_is_pytorchs_bit_for_bit(shapes, dtype, unused, lr):
    ran = []
    for optimiser in (SGD, torch.optim.SGD):
        torch.manual_seed(1)
        parameters, loss = problem(shapes, dtype, unused)
        optim = optimiser(parameters, lr)
        for _ in range(4):
            optim.zero_grad()
            loss().backward()
            optim.step()
        ran.append(parameters)
    assert all(torch.equal(a, b) for a, b in zip(*ran, strict=True))


def test_sgd_skips_parameters_without_a_gradient_and_drops_all():
    p, q = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optim = SGD([p, q], lr=0.5)
    p.sum().backward()
    optim.step()
    assert p.tolist() == [0.5, 0.5] and q.tolist() == [1.0, 1.0] and q.grad is None
    optim.zero_grad()
    assert p.grad is None


def test_sgd_refuses_a_step_without_any_gradient():
    optim = SGD(nn.Linear(2, 3).parameters())
    with pytest.raises(RuntimeError, match="found no gradient, expected at least one"):
        optim.step()


def test_sgd_refuses_a_parameter_that_is_listed_twice():
    shared = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="a parameter twice"):
        SGD([*shared.parameters(), *shared.parameters()])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        torch.optim.SGD([*shared.parameters(), *shared.parameters()], lr=0.1)


def test_sgd_restores_its_learning_rate():
    layer = nn.Linear(2, 2)
    optim = SGD(layer.parameters(), lr=0.5)
    optim.load_state_dict(SGD(layer.parameters(), lr=0.25).state_dict())
    assert optim.lr == 0.25 and optim.state_dict() == {"lr": 0.25}


def test_sgd_takes_a_generator():
    assert len(SGD(p for p in nn.Linear(2, 3).parameters()).parameters) == 2


def test_sgd_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="found no parameters"):
        SGD([])
    with pytest.raises(ValueError, match="found -0.1, expected 0 or more"):
        SGD([torch.ones(1, requires_grad=True)], lr=-0.1)
    with pytest.raises(ValueError, match="found nan"):
        SGD([torch.ones(1, requires_grad=True)], lr=math.nan)
    for wrong in (net(), net(nn.Sequential), nn.Linear(2, 2).weight, [1.0]):
        with pytest.raises(TypeError):
            SGD(wrong)


# Model, ModuleList, Sequential


class Twice(Model):
    "A model that uses a layer of its own and a list of layers."

    def __init__(self):
        self.first = nn.Linear(3, 4)
        self.rest = ModuleList([nn.ReLU(), nn.Linear(4, 2)])
        self.words = "not a layer"

    def forward(self, xb):
        xb = self.first(xb)
        for layer in self.rest:
            xb = layer(xb)
        return xb


def test_model_lists_the_parameters_of_its_layers_and_of_theirs():
    assert [tuple(p.shape) for p in Twice().parameters()] == [(4, 3), (4,), (2, 4), (2,)]
    assert repr(Twice()).splitlines() == [
        "Twice(",
        "  (first): Linear(in_features=3, out_features=4, bias=True)",
        "  (rest): ModuleList(",
        "    (0): ReLU()",
        "    (1): Linear(in_features=4, out_features=2, bias=True)",
        "  )",
        ")",
    ]


def test_model_forgets_a_layer_that_is_replaced():
    model = Twice()
    model.first = nn.Linear(3, 4, bias=False)
    assert [tuple(p.shape) for p in model.parameters()] == [(4, 3), (2, 4), (2,)]


def test_model_forgets_a_layer_that_is_gone_and_passes_over_what_is_none():
    model = Twice()
    model.optim, model.kind = SGD(model.parameters()), nn.Linear
    assert len(model.parameters()) == 4
    model.first = None
    assert len(model.parameters()) == 2


def test_model_without_layers_has_no_parameters():
    assert Model().parameters() == [] and repr(Model()) == "Model(\n)"


def test_model_forgets_a_layer_that_is_deleted():
    ours, theirs = Twice(), nn.Module()
    theirs.first, theirs.rest = nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
    for model in (ours, theirs):
        del model.first
        assert len(list(model.parameters())) == 2 and not hasattr(model, "first")
        assert list(model.state_dict()) == ["rest.1.weight", "rest.1.bias"] and "first" not in repr(model)
    with pytest.raises(AttributeError):
        del ours.first


# What a model holds: parameters(), state_dict(), load_state_dict(), to()


def held(kind):
    "Build a model that holds parameters itself, in layers, in a layer of its own kind, and one of them twice."
    class Inner(kind):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.randn(2))

    class Held(kind):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
            self.scale = nn.Parameter(torch.randn(4))
            self.inner, self.frozen = Inner(), nn.Parameter(torch.randn(1), requires_grad=False)
            self.again, self.words = self.first, torch.ones(3)

    torch.manual_seed(4)
    return Held()


class OfTensors(Model):
    "A model that lists plain tensors as its parameters."

    def __init__(self, n=2):
        self.weight, self.bias = torch.randn(n, n), torch.randn(n)

    def parameters(self):
        return [self.weight, self.bias]


MODELS = [Model, Twice, OfTensors, lambda: held(Model), lambda: MLP(4, 3, 2),
          lambda: Sequential(OfTensors(), nn.ReLU(), ModuleList([OfTensors(), nn.BatchNorm1d(2)]))]


def test_a_model_holds_what_pytorchs_would():
    ours, theirs = held(Model), held(nn.Module)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b) and a.requires_grad == b.requires_grad
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize("make", MODELS)
def test_listed_held_restored_and_moved_are_the_same(make):
    model, other = make(), make()
    places = {p.data_ptr() for p in model.parameters()}
    assert places <= {value.data_ptr() for value in model.state_dict().values()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other.load_state_dict(before)
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name]) and not value.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    old = model.parameters()
    for p in old:
        p.grad = torch.ones_like(p)
    assert model.to(torch.float64) is model
    assert all(a is b for a, b in zip(old, model.parameters(), strict=True))  # an optimiser still has them
    assert all(p.dtype == p.grad.dtype == torch.float64 for p in model.parameters())
    model.to(None)
    model.to("cpu")


@pytest.mark.parametrize("make", MODELS[1:])
def test_a_state_of_other_names_or_shapes_is_refused_whole(make):
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    *_, last = [name for name, value in before.items() if value.dim()]
    for wrong, words in (
        ({**before, "more": torch.ones(1)}, "more"),
        ({name: value for name, value in before.items() if name != last}, "found .*expected"),
        ({**{name: value + 1 for name, value in before.items()}, last: torch.ones(1)}, rf"{last}: found \[1\]"),
    ):
        with pytest.raises(ValueError, match=words):
            model.load_state_dict(wrong)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_parameters_without_a_name_are_refused():
    class Hidden(Model):
        def __init__(self):
            self.tensors = [torch.ones(2)]

        def parameters(self):
            return self.tensors

    for act in (Hidden().state_dict, lambda: Hidden().load_state_dict({}), lambda: Hidden().to("cpu")):
        with pytest.raises(ValueError, match="1 tensors that are no attribute of the Hidden"):
            act()


def test_mlp_is_the_two_layers_of_the_chapter():
    torch.manual_seed(3)
    ours = MLP(5, 4, 3)
    torch.manual_seed(3)
    theirs = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.randn(7, 5)
    assert torch.equal(ours(x), theirs(x)) and isinstance(ours, Model)
    assert list(ours.state_dict()) == ["l1.weight", "l1.bias", "l2.weight", "l2.bias"]
    assert MLP()(torch.ones(1, 784)).shape == (1, 10)


@pytest.mark.parametrize("part", [slice(None, -1), slice(1, None), slice(0, 0), slice(None, None, 2), slice(5, 9)])
def test_a_slice_of_layers_is_of_the_same_kind(part):
    layers = [nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)]
    ours, theirs = Sequential(*layers)[part], nn.Sequential(*layers)[part]
    x = torch.randn(2, 3)
    assert type(ours) is Sequential and torch.equal(ours(x), theirs(x)) and len(ours) == len(theirs)
    assert type(ModuleList(layers)[part]) is ModuleList
    assert all(a is b for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))

    class Named(Sequential):
        def __init__(self, name):
            super().__init__(*layers)

    assert type(Named("x")[part]) is Named
    with pytest.raises(IndexError):
        Sequential(*layers)[3]


@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.booleans())
def test_sequential_is_pytorchs(widths, shared):
    layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
    if shared and widths[0] == widths[-1]:
        layers += layers[:1] if len(set(widths)) == 1 else []
    ours, theirs = Sequential(*layers), nn.Sequential(*layers)
    x = torch.randn(3, widths[0])
    assert torch.equal(ours(x), theirs(x)) and len(ours) == len(theirs) and ours[0] is theirs[0]
    assert all(a is b for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_shared_layer_counts_once():
    layer = nn.Linear(2, 2)
    assert len(Sequential(layer, nn.ReLU(), layer).parameters()) == 2
    assert len(list(nn.Sequential(layer, nn.ReLU(), layer).parameters())) == 2


def test_anything_but_a_layer_is_refused():
    for wrong in (torch.relu, nn.ReLU):
        with pytest.raises(TypeError, match=r"layer 1: found <.*(relu|ReLU).*nn\.ReLU\(\)"):
            Sequential(nn.Linear(2, 2), wrong)


def test_train_and_eval_reach_every_layer():
    model = Sequential(nn.Linear(4, 4), Sequential(nn.Dropout(0.5)))
    x = torch.ones(64, 4)
    assert model.training and not torch.equal(model(x), model(x))
    assert model.eval() is model and torch.equal(model(x), model(x)) and not model.training
    assert model.train().training and not torch.equal(model(x), model(x))


# Dataset, DataLoader


def small(n=10):
    "Return n inputs and labels that can be told apart."
    return torch.arange(n, dtype=torch.float32)[:, None].repeat(1, 3), torch.arange(n) % 3


@given(st.integers(1, 30), st.randoms())
def test_dataset_is_pytorchs_for_every_index(n, random):
    x, y = small(n)
    ours, theirs = Dataset(x, y), data.TensorDataset(x, y)
    i, j = sorted(random.randrange(-n, n) for _ in range(2))
    for index in (i, slice(i, j), slice(None, None, 2), torch.randint(n, (5,)), [i, j]):
        assert len(ours) == len(theirs) == n
        assert all(torch.equal(a, b) for a, b in zip(ours[index], theirs[index], strict=True))


def test_dataset_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="10 inputs and 9 labels"):
        Dataset(torch.ones(10, 2), torch.ones(9))
    with pytest.raises(ValueError, match="empty dataset"):
        Dataset(torch.ones(0, 2), torch.ones(0))


@given(st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_dataloader_is_pytorchs(n, batch_size, drop_last):
    x, y = small(n)
    theirs = data.DataLoader(data.TensorDataset(x, y), batch_size, drop_last=drop_last)
    if drop_last and n < batch_size:
        with pytest.raises(ValueError, match=f"found {n} samples, expected {batch_size} or more: drop_last"):
            DataLoader(Dataset(x, y), batch_size, drop_last=True)
        assert len(theirs) == 0
        return
    ours = DataLoader(Dataset(x, y), batch_size, drop_last=drop_last)
    assert len(ours) == len(theirs) == len(list(ours))
    assert type(len(ours)) is int
    for (xa, ya), (xb, yb) in zip(ours, theirs, strict=True):
        assert torch.equal(xa, xb) and torch.equal(ya, yb)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_shuffling_keeps_pairs_and_loses_nothing(n, batch_size, seed):
    x, y = small(n)
    loader = DataLoader(Dataset(x, y), batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    xs, ys = (torch.cat(parts) for parts in zip(*loader))
    assert torch.equal(xs, x[order]) and torch.equal(ys, y[order])
    assert sorted(torch.cat([xb[:, 0] for xb, _ in loader]).tolist()) == x[:, 0].tolist()


def test_each_epoch_has_its_own_order_and_the_seed_repeats_them():
    def epochs():
        loader = DataLoader(Dataset(*small(50)), 8, shuffle=True, generator=torch.Generator().manual_seed(5))
        return [torch.cat([xb[:, 0] for xb, _ in loader]).tolist() for _ in range(3)]

    first, second, third = epochs()
    assert first != second != third != first and epochs() == [first, second, third]


@given(st.integers(10, 40), st.integers(1, 9), st.integers(0, 99))
def test_what_is_dropped_is_the_end_of_the_order(n, batch_size, seed):
    x, y = small(n)
    for loader in (DataLoader, lambda *a, **k: DataLoader(*a, **k, drop_last=True)):
        parts = loader(Dataset(x, y), batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed))
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        seen = torch.cat([xb for xb, _ in parts])
        assert torch.equal(seen, x[order][: len(seen)]) and n - len(seen) < batch_size


@pytest.mark.parametrize("batch_size", [0, -1, 20.0, "64", None])
def test_dataloader_refuses_a_batch_size_that_is_no_number_above_zero(batch_size):
    with pytest.raises(ValueError, match=f"found {batch_size}, expected 1 or more"):
        DataLoader(Dataset(*small()), batch_size)


def test_dataloader_refuses_a_seed_for_a_generator():
    with pytest.raises(TypeError, match="generator: found 42, expected a torch.Generator"):
        DataLoader(Dataset(*small()), shuffle=True, generator=42)


def test_a_last_batch_of_one_stops_batch_norm_and_drop_last_lets_it_train():
    x, y = blobs(33)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fit(DataLoader(Dataset(x, y), 16), model, F.cross_entropy, SGD(model.parameters()))
    history = fit(DataLoader(Dataset(x, y), 16, drop_last=True), model, F.cross_entropy, SGD(model.parameters()))
    assert history.sizes == [16, 16]


def test_dataloader_refuses_an_empty_dataset():
    with pytest.raises(ValueError, match="empty dataset"):
        DataLoader([])
    with pytest.raises(TypeError, match="found a list of samples"):
        DataLoader([(torch.ones(2), 1), (torch.ones(2), 0)])


def test_loaders_and_datasets_are_interchangeable():
    x, y = small(20)
    for loader in (
        DataLoader(data.TensorDataset(x, y), 8),
        DataLoader(data.Subset(Dataset(x, y), range(20)), 8),
        data.DataLoader(Dataset(x, y), 8),
        data.DataLoader(Dataset(x, y), 8, num_workers=1),
    ):
        assert torch.equal(torch.cat([xb for xb, _ in loader]), x)
        assert torch.equal(torch.cat([yb for _, yb in loader]), y)


def test_random_split_works_in_our_loader_shuffled():
    parts = data.random_split(Dataset(*small(20)), [15, 5])
    seen = [xb[:, 0].tolist() for part in parts for xb, _ in DataLoader(part, 4, shuffle=True)]
    assert sorted(sum(seen, [])) == list(range(20)) and len(DataLoader(parts[0], 4).dataset) == 15


# fit


def blobs(n=150):
    "Return three clouds of points that can be told apart."
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(n) % 3
    return torch.randn(n, 4, generator=generator) + 6 * F.one_hot(y, 4), y


def net(kind=Sequential):
    "Build a small model from the same random numbers each time."
    set_seed(0)
    return kind(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def stock_loop(loader, model, criterion, optim, n_epochs=1):
    "Train as every PyTorch tutorial does; return the losses."
    losses = []
    for _ in range(n_epochs):
        model.train()
        for xb, yb in loader:
            loss = criterion(model(xb), yb)
            losses.append(loss.item())
            optim.zero_grad()
            loss.backward()
            optim.step()
    return losses


def test_fit_is_the_stock_loop_bit_for_bit():
    model = net(nn.Sequential)
    loader = data.DataLoader(data.TensorDataset(*blobs()), batch_size=16)
    losses = stock_loop(loader, model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1), 3)
    ours = net()
    history = fit(DataLoader(Dataset(*blobs()), 16), ours, F.cross_entropy, SGD(ours.parameters(), lr=0.1), 3)
    assert history.losses == losses
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("loader", [DataLoader, data.DataLoader])
@pytest.mark.parametrize("kind", [Sequential, nn.Sequential])
@pytest.mark.parametrize("optimiser", [SGD, torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("criterion", [cross_entropy_loss, F.cross_entropy, nn.CrossEntropyLoss()])
def test_every_mixture_of_pieces_learns(loader, kind, optimiser, criterion):
    model = net(kind)
    valid = loader(Dataset(*blobs(30)), batch_size=8)
    optim = optimiser(model.parameters(), lr=0.05)
    history = fit(loader(Dataset(*blobs()), batch_size=16), model, criterion, optim, 4, valid)
    assert history.valid_accs[-1] > 0.9 and history.valid_losses[-1] < history.valid_losses[0]


def test_our_pieces_work_in_the_stock_loop():
    model = net()
    losses = stock_loop(DataLoader(Dataset(*blobs()), 16), model, cross_entropy_loss, SGD(model.parameters()), 5)
    assert losses[-1] < 0.3 < losses[0]


def pieces():
    "Return a loader, a model, a loss and an optimiser that belong together."
    model = net()
    return DataLoader(Dataset(*blobs()), 16), model, cross_entropy_loss, SGD(model.parameters())


@pytest.mark.parametrize("optimiser", [SGD, torch.optim.SGD, torch.optim.Adam])
def test_fit_refuses_the_optimiser_of_another_model(optimiser):
    loader, model, criterion, _ = pieces()
    with pytest.raises(ValueError, match="found parameters of another model"):
        fit(loader, model, criterion, optimiser(net().parameters(), lr=0.1))
    assert len(fit(loader, model, criterion, optimiser(model[0].parameters(), lr=0.1)).losses) == 10  # a part of it


def test_fit_takes_an_optimiser_that_does_not_say_what_it_moves():
    loader, model, criterion, optim = pieces()

    class Wrapped:
        step, zero_grad = staticmethod(optim.step), staticmethod(optim.zero_grad)

    assert len(fit(loader, model, criterion, Wrapped()).losses) == 10


@pytest.mark.parametrize("n_epochs", [0, -1, 1.5, "2", [(1, 2)]])
def test_fit_refuses_a_number_of_epochs_that_is_none(n_epochs):
    with pytest.raises(ValueError, match="n_epochs: found .* expected 1 or more"):
        fit(*pieces(), n_epochs)


def test_fit_and_evaluate_refuse_what_yields_no_mini_batches():
    loader, *rest = pieces()
    x, y = blobs(6)
    for wrong, words in ((Dataset(x, y), "found a Dataset, expected mini-batches"),
                         (data.TensorDataset(x, y), "found a TensorDataset"), (x, "found a Tensor"),
                         ((x, y), "found a tuple of tensors")):
        for act in (lambda w: fit(w, *rest), lambda w: fit(loader, *rest, valid=w),
                    lambda w: evaluate(w, rest[0], rest[1])):
            with pytest.raises(TypeError, match=words):
                act(wrong)


def test_fit_refuses_a_loss_that_is_no_mean():
    loader, model, _, optim = pieces()
    with pytest.raises(TypeError, match=r"found a class, expected CrossEntropyLoss\(\)"):
        fit(loader, model, nn.CrossEntropyLoss, optim)
    for reduction in ("sum", "none"):
        with pytest.raises(ValueError, match=f"found reduction='{reduction}', expected 'mean'"):
            fit(loader, model, nn.CrossEntropyLoss(reduction=reduction), optim)


def test_fit_trains_on_sequences_of_labels():
    x, y = blobs(60)
    model = net()
    loader = DataLoader(Dataset(x.reshape(20, 3, 4), y.reshape(20, 3)), 5)
    history = fit(loader, model, cross_entropy_loss, SGD(model.parameters()), 30, loader)
    assert history.sizes[0] == 5 and history.valid_accs[-1] > 0.9
    assert near(history.valid_accs[-1], accuracy(model(x), y).item())


def test_fit_counts_all_batches_and_weighs_them_by_size():
    x, y = blobs(50)
    model = net()
    history = fit(DataLoader(Dataset(x, y), 16), model, cross_entropy_loss, SGD(model.parameters(), lr=0.0), 2)
    assert history.sizes == [16, 16, 16, 2] * 2
    assert near(train_losses(history), [cross_entropy_loss(model(x), y).item()] * 2)
    assert near(train_accs(history), [accuracy(model(x), y).item()] * 2)


def test_validation_is_over_the_whole_set_and_disturbs_nothing():
    x, y = blobs()
    plain, watched = net(), net()
    without = fit(DataLoader(Dataset(x, y), 16), plain, cross_entropy_loss, SGD(plain.parameters()), 2)
    valid = DataLoader(Dataset(*blobs(50)), 16)
    seen = fit(DataLoader(Dataset(x, y), 16), watched, cross_entropy_loss, SGD(watched.parameters()), 2, valid)
    assert same(seen, without).word == "identical" and seen.valid_steps == [10, 20]
    xv, yv = blobs(50)
    assert near(seen.valid_losses[-1], cross_entropy_loss(watched(xv), yv).item())
    assert near(seen.valid_accs[-1], accuracy(watched(xv), yv).item())


@pytest.mark.parametrize("loader", [DataLoader, data.DataLoader])
def test_validation_draws_no_random_number_of_training(loader):
    runs = []
    for valid in (None, loader(Dataset(*blobs(30)), 8, shuffle=True)):
        model = net()
        train = DataLoader(Dataset(*blobs()), 16, shuffle=True)
        runs.append(fit(train, model, cross_entropy_loss, SGD(model.parameters()), 3, valid))
    assert same(*runs).word == "identical"


def test_divergence_in_the_last_update_is_seen_by_validation():
    model, loader = net(), DataLoader(Dataset(*blobs()), 150)
    with pytest.raises(FloatingPointError, match="in validation"):
        fit(loader, model, cross_entropy_loss, SGD(model.parameters(), lr=1e38), 1, loader)


def test_dropout_and_batch_norm_are_off_in_validation_and_on_in_training():
    for kind in (Sequential, nn.Sequential):
        modes = []
        probe = nn.Identity()
        probe.register_forward_hook(lambda module, *_, modes=modes: modes.append(module.training))
        model = kind(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), probe, nn.Linear(8, 3))
        loader = DataLoader(Dataset(*blobs(32)), 16)
        fit(loader, model, cross_entropy_loss, SGD(model.parameters()), 2, loader)
        assert modes == [True, True, False, False] * 2


def test_fit_continues_a_history():
    model = net()
    loader, optim = DataLoader(Dataset(*blobs()), 16), SGD(model.parameters())
    history = fit(loader, model, cross_entropy_loss, optim)
    assert fit(loader, model, cross_entropy_loss, optim, history=history) is history
    assert len(history.losses) == 20 and len(train_losses(history)) == 2


def test_fit_is_not_misled_by_gradients_left_over():
    clean, dirty = net(), net()
    for p in dirty.parameters():
        p.grad = torch.full_like(p, 100.0)
    loader = DataLoader(Dataset(*blobs()), 16)
    runs = [fit(loader, model, cross_entropy_loss, SGD(model.parameters())) for model in (clean, dirty)]
    assert same(*runs).word == "identical"


def test_a_loss_that_diverges_is_named_with_epoch_and_batch():
    model = net()
    with pytest.raises(FloatingPointError, match=r"(nan|inf) at epoch \d, mini-batch \d.*smaller learning rate"):
        fit(DataLoader(Dataset(*blobs()), 16), model, cross_entropy_loss, SGD(model.parameters(), lr=1e30), 2)


def test_a_loader_that_gives_nothing_is_refused():
    model = net()
    used_up = iter(DataLoader(Dataset(*blobs()), 16))
    with pytest.raises(ValueError, match="epoch 2 had no mini-batch"):
        fit(used_up, model, cross_entropy_loss, SGD(model.parameters()), n_epochs=2)
    with pytest.raises(ValueError, match="no mini-batch to evaluate"):
        evaluate([], model, cross_entropy_loss)


def test_labels_outside_the_classes_stop_training():
    x, y = blobs()
    model = net()
    with pytest.raises(ValueError, match="labels from 0 to 3, expected 0 to 2"):
        fit(DataLoader(Dataset(x, y + (y == 2)), 16), model, cross_entropy_loss, SGD(model.parameters()))


# Evaluating disturbs nothing


class Drawing(Dataset):
    "Add to each input random numbers from Python's, NumPy's or PyTorch's shared source."

    def __init__(self, x, y, source):
        super().__init__(x, y)
        self.draw = {"random": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand(()).item()}[source]

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + self.draw(), y


def shared_samplers(ds, generator):
    "Return a loader of PyTorch's whose sampler, and not the loader, has the generator."
    return data.DataLoader(ds, 16, sampler=data.RandomSampler(ds, generator=generator))


LOADERS = {
    "ours": lambda ds, generator: DataLoader(ds, 16, True, generator),
    "PyTorch's": lambda ds, generator: data.DataLoader(ds, 16, True, generator=generator),
    "a sampler": shared_samplers,
    "no generator": lambda ds, generator: data.DataLoader(ds, 16, True),
}


@pytest.mark.parametrize("source", ["random", "numpy", "torch"])
@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_training_is_the_same_with_and_without_validation(make, source):
    ran = []
    for judged in (False, True):
        model, generator = net(), torch.Generator().manual_seed(1)
        loader, valid = (make(Drawing(*blobs(n), source), generator) for n in (60, 30))
        valid = valid if judged else None
        ran.append(fit(loader, model, cross_entropy_loss, SGD(model.parameters()), 3, valid).losses)
    assert ran[0] == ran[1]


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_an_evaluation_that_fails_puts_random_numbers_back_too(make):
    def fails(logits, y):
        raise ZeroDivisionError

    generator = torch.Generator().manual_seed(1)
    loader, model = make(Drawing(*blobs(30), "random"), generator), net()
    before = random.getstate(), torch.get_rng_state().tolist(), generator.get_state().tolist()
    with pytest.raises(ZeroDivisionError):
        evaluate(loader, model, fails)
    assert before == (random.getstate(), torch.get_rng_state().tolist(), generator.get_state().tolist())


# The exercises: each wrong answer gets its own hint


ANSWERS = ["top_k_accuracy", "masked_cross_entropy", "smooth_cross_entropy", "linear", "decaying_sgd", "momentum_sgd",
           "even_batches"]  # fmt: skip


@pytest.fixture(scope="module")
def checks():
    "Return the names that the checks need, and the checks, from the notebook's cells."
    path = Path(__file__).parents[2] / "nbs" / "02_minibatch_training.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names = dict.fromkeys(["top_k_accuracy", "masked_cross_entropy", "smooth_cross_entropy", "Linear", "DecayingSGD",
                           "MomentumSGD", "EvenBatches"])  # fmt: skip
    exec("import math\nfrom torch import nn\nimport torch.nn.functional as F\nfrom exp.nb_02 import *", names)
    exec("x_train = torch.linspace(-1, 1, 80).reshape(5, 16)", names)
    helpers = "def fresh(", "def three_steps(", "def seeded("
    for start in (*helpers, *(f"@exercise\ndef check_{name}" for name in ANSWERS)):
        [cell] = [source for source in sources if source.startswith(start)]
        exec(cell, names)
    return names


def linear(body, forward="xb @ self.weight.T + self.bias"):
    "Write a class `Linear` whose `__init__` is `body`."
    lines = "".join(f"        {line}\n" for line in ["b = n_in ** -0.5", *body])
    return ("class Linear(Model):\n    def __init__(self, n_in, n_out):\n" + lines
            + f"    def forward(self, xb):\n        return {forward}\n")  # fmt: skip


def optimiser(name, step, more=""):
    "Write an optimiser whose step is `step`."
    what = {"DecayingSGD": "weight_decay", "MomentumSGD": "momentum"}[name]
    lines = "".join(f"        {line}\n" for line in step)
    return (f"class {name}(SGD):\n    def __init__(self, parameters, lr=0.1, {what}=0.9):\n"
            f"        super().__init__(parameters, lr)\n        self.{what} = {what}\n"
            f"        self.velocities = [torch.zeros_like(p) for p in self.parameters]\n"
            f"    @torch.no_grad()\n    def step(self):\n{lines}")  # fmt: skip


def batches(body, length="math.ceil(len(self.dataset) / self.batch_size)"):
    "Write a loader whose `__iter__` ends with `body`; `order` is made."
    return ("class EvenBatches(DataLoader):\n"
            f"    def __len__(self):\n        return {length}\n"
            "    def __iter__(self):\n        n, g = len(self.dataset), self.generator\n"
            "        order = torch.randperm(n, generator=g) if self.shuffle else torch.arange(n)\n"
            f"        {body}\n")  # fmt: skip


W, B = ("self.{} = nn.Parameter(torch.empty({}).uniform_(-b, b))".format(*pair) for pair in
        (("weight", "n_out, n_in"), ("bias", "n_out")))  # fmt: skip
WITH_GRADIENT = "for p in [p for p in self.parameters if p.grad is not None]:"
EACH = "for p in self.parameters:"
DECAY = f"{WITH_GRADIENT} p.grad.add_(p, alpha=%s * self.weight_decay)"
LATER, LAST = "[p.mul_(1 - %s * self.weight_decay) for p in self.parameters]", "super().step()"
PAIRS = "for p, v in [pair for pair in zip(self.parameters, self.velocities) if pair[0].grad is not None]:"
ROLL = f"{PAIRS} v.mul_(self.momentum).add_(p.grad%s); p.add_(v, alpha=-self.lr)"
KEPT = "cross_entropy_loss(z[y != i], y[y != i])"
EVEN = "yield from (self.dataset[part.tolist()] for part in %s)"


@pytest.mark.parametrize(
    "check, answer, words",
    [
        ("top_k_accuracy", "lambda z, y, k: None", "is a `return` missing"),
        ("top_k_accuracy", "lambda z, y, k: (z.topk(k, 1).indices == y[:, None]).float().mean()", "Averaged over n"),
        ("top_k_accuracy", "lambda z, y, k: (z.topk(k, 1).values == y[:, None]).any(1).float().mean()", "not values"),
        ("top_k_accuracy", "lambda z, y, k: (z.topk(k, 1).indices == y[:, None]).all(1).float().mean()", "any"),
        ("top_k_accuracy", "lambda z, y, k: (z.topk(k, 1).indices == y[:, None]).any(1).float().mean()", "solved"),
        ("masked_cross_entropy", "lambda z, y, i=-100: None", "is a `return` missing"),
        ("masked_cross_entropy", f"lambda z, y, i=-100: {KEPT} * (y != i).float().mean()",
         "Divided by 5"),
        ("masked_cross_entropy", "lambda z, y, i=-100: (log_softmax(z).gather(1, y[:, None])[:, 0] * (y != i)).mean()",
         "names no column"),
        ("masked_cross_entropy", "lambda z, y, i=-100: cross_entropy_loss(z, y.clamp(min=0))", "read as a 0"),
        ("masked_cross_entropy", "lambda z, y, i=-100: cross_entropy_loss(z[y >= 0], y[y >= 0])", "fixed in the code"),
        ("masked_cross_entropy", "cross_entropy_loss", "takes 2 positional|expected 0 to 9"),
        ("masked_cross_entropy", f"lambda z, y, i=-100: {KEPT}", "solved"),
        ("smooth_cross_entropy", "lambda z, y, eps: None", "is a `return` missing"),
        ("smooth_cross_entropy", "lambda z, y, eps: nll(log_softmax(z), y) - eps * log_softmax(z).mean()", "lost its"),
        ("smooth_cross_entropy", "lambda z, y, eps: F.cross_entropy(z, y, label_smoothing=eps)", "solved"),
        ("linear", linear(["self.weight, self.bias = torch.ones(n_out, n_in), torch.ones(n_out)"]), "nn.Parameter"),
        ("linear", linear([W, "self.bias = torch.zeros(n_out)"]), "Where is the other one"),
        ("linear", linear([B, W]), "Weight first"),
        ("linear", linear(["bias = torch.empty(n_out).uniform_(-b, b)", W, "self.bias = nn.Parameter(bias)"]),
         "Was the bias drawn first"),
        ("linear", linear([W.replace("n_out, n_in", "n_in, n_out"), B]), "outputs in front"),
        ("linear", linear([W.replace("(-b, b)", "(0, b)"), B]), "from -1/4 to 1/4, found 0.0"),
        ("linear", linear([W.replace("(-b, b)", "(-b * b, b * b)"), B]), "from -1/4 to 1/4, found -0.06"),
        ("linear", linear([W, "self.bias = nn.Parameter(torch.zeros(n_out))"]), "the bias is not the one"),
        ("linear", linear([W, B], "xb @ self.weight.T"), "the output differs"),
        ("linear", linear([W, B]), "solved"),
        ("decaying_sgd", optimiser("DecayingSGD", [DECAY % 1]), "not moved at all"),
        ("decaying_sgd", optimiser("DecayingSGD", [LAST]), "plain SGD"),
        ("decaying_sgd", optimiser("DecayingSGD", [DECAY % -1, LAST]), "added to the gradient, or subtracted"),
        ("decaying_sgd", optimiser("DecayingSGD", [DECAY % 2, LAST]), "A factor of 2"),
        ("decaying_sgd", optimiser("DecayingSGD", [LAST, LATER % "1"]), "times lr, like the rest"),
        ("decaying_sgd", optimiser("DecayingSGD", [LAST, LATER % "self.lr"]), "comes too late"),
        ("decaying_sgd", optimiser("DecayingSGD", [LATER % "self.lr", LAST]), "5 stays 5"),
        ("decaying_sgd", optimiser("DecayingSGD", [DECAY.replace(WITH_GRADIENT, EACH) % 1, LAST]),
         "has the gradient None"),
        ("decaying_sgd", optimiser("DecayingSGD", [DECAY % 1, LAST]), "solved"),
        ("momentum_sgd", optimiser("MomentumSGD", [LAST]), "without momentum"),
        ("momentum_sgd", optimiser("MomentumSGD", [ROLL % ", alpha=1 - self.momentum"]), "takes a tenth"),
        ("momentum_sgd", optimiser("MomentumSGD", [ROLL % "", LAST]), "moves p twice"),
        ("momentum_sgd", optimiser("MomentumSGD", [f"for p, v in zip(self.parameters, self.velocities): "
                                                   f"{(ROLL % '')[len(PAIRS):]}"]), "has the gradient None"),
        ("momentum_sgd", optimiser("MomentumSGD", [ROLL % ""]), "solved"),
        ("even_batches", batches(EVEN % "order.chunk(len(self))"), "the last is short"),
        ("even_batches", batches(EVEN % "order.tensor_split(n // self.batch_size)"), "4 samples in a batch at most"),
        ("even_batches", batches(EVEN % "order.tensor_split(len(self))", "super().__len__()"), "drop_last=True: exp"),
        ("even_batches", batches(EVEN % "order.tensor_split(-(-n // self.batch_size))", "super().__len__()"),
         "a length of 3, found 2"),
        ("even_batches", batches(EVEN % "torch.randperm(n, generator=g).tensor_split(len(self))"), "0 to 9 in order"),
        ("even_batches", batches(EVEN % "torch.arange(n).tensor_split(len(self))"), "with the loader's generator"),
        ("even_batches", batches(EVEN % "order[:n - n % self.batch_size].split(self.batch_size)"), "expected all 10"),
        ("even_batches", batches(EVEN % "order.tensor_split(len(self))"), "solved"),
    ],
    ids=range(47),
)  # fmt: skip
def test_each_wrong_answer_gets_its_hint(checks, check, answer, words):
    space = dict(checks)
    if answer.startswith("class"):
        exec(answer, space)
        found = space[re.match(r"class (\w+)", answer)[1]]
    else:
        found = eval(answer, space)
    outcome = checks[f"check_{check}"](found)
    assert re.search(words, outcome.message) and outcome.solved == (words == "solved"), outcome.message
    assert len(outcome.message) < 400


# The module


def test_star_imports_give_the_names_of_the_design():
    import exp.nb_00
    import exp.nb_01
    import exp.nb_02

    workbench = "near History same show_diff LiveCurve ledger exercise method_of COLORS GREY set_seed torch".split()
    data = "read_idx get_mnist_data get_fashion_data fashion_classes show_images".split()
    loss, loop = "normalize nll log_softmax cross_entropy_loss accuracy", "SGD Dataset DataLoader evaluate fit"
    ours = f"{loss} Model MLP ModuleList Sequential {loop}"
    assert set(workbench) <= set(exp.nb_00.__all__)
    assert {*exp.nb_00.__all__, *data} == set(exp.nb_01.__all__)
    assert {*exp.nb_01.__all__, *ours.split()} == set(exp.nb_02.__all__)


@pytest.mark.parametrize("empty", [[], ()])
def test_an_empty_list_is_refused_before_anything_is_trained(empty):
    model = nn.Sequential(nn.Linear(4, 3))
    kept, optim = model[0].weight.detach().clone(), SGD(model.parameters())
    batches = [(torch.randn(8, 4), torch.arange(8) % 3)]
    for loader, valid in ((empty, None), (batches, empty)):
        with pytest.raises(ValueError, match="found a list without a mini-batch, expected one at least"):
            fit(loader, model, cross_entropy_loss, optim, valid=valid)
    assert torch.equal(model[0].weight, kept)
