"""Backpropagation: every gradient against PyTorch's, random graphs, shapes, what is kept and freed, and every error."""

import gc
import operator
import sys
import weakref

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import data

from exp.nb_03 import *

sizes = st.integers(1, 5)
seeds = st.integers(0, 2**31)


def randn(*shape, seed=0, dtype=torch.float64):
    "Draw numbers that depend on the seed only."
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def compare(f, *tensors, tolerance=1e-10):
    "Assert that value and gradients of `f` on nodes are those on PyTorch's tensors; no argument may change."
    ours, theirs = [Node(t.clone()) for t in tensors], [t.clone().requires_grad_() for t in tensors]
    a, b = f(*ours), f(*theirs)
    g = randn(*b.shape, seed=9).to(b.dtype)
    assert near(a.value, b, tolerance, tolerance) and a.value.dtype == b.dtype
    a.backward(g)
    b.backward(g)
    for before, node, tensor in zip(tensors, ours, theirs, strict=True):
        assert torch.equal(node.value, before)
        assert (node.grad is None) == (tensor.grad is None)
        if tensor.grad is not None:
            assert node.grad.dtype == tensor.grad.dtype and node.grad.shape == tensor.grad.shape
            assert near(node.grad, tensor.grad, tolerance, tolerance * float(tensor.grad.abs().max()))


# Random graphs: each operation takes two tables [n, m] and returns one; `i` holds random rows and columns.


def squash(x):
    "Keep values small, so that random graphs neither overflow nor lose their digits."
    return x / (x * x + 1.0)


OPERATIONS = {
    "+": lambda a, b, i: a + b,
    "-": lambda a, b, i: a - b,
    "*": lambda a, b, i: a * b,
    "/": lambda a, b, i: a / (b * b + 1.0),
    "@": lambda a, b, i: a @ b.T @ a,
    "neg": lambda a, b, i: -a,
    "numbers": lambda a, b, i: 2.0 - 3.0 * a + 1.0 / (a * a + 2.0) + a / 4 - 1,
    "exp": lambda a, b, i: squash(a).exp(),
    "log": lambda a, b, i: (a * a + 0.5).log(),
    "relu": lambda a, b, i: a.relu(),
    "**": lambda a, b, i: (a * a + 1.0) ** [-1.5, 0.5, 2, 3, 1, 0][int(i[0, 0]) % 6] + a**2,
    "sum": lambda a, b, i: a - b.sum(0, keepdim=True),
    "sum of rows": lambda a, b, i: b * a.sum(-1).reshape(-1, 1),
    "mean": lambda a, b, i: a * b.mean(),
    "mean of columns": lambda a, b, i: a - b.mean(0),
    "reshape": lambda a, b, i: a.reshape(a.shape[1], a.shape[0]).T + b,
    "transpose": lambda a, b, i: a.transpose(0, 1).reshape(a.shape) * b,
    "gather": lambda a, b, i: a.gather(1, i[:, :] % a.shape[1]),
    "rows": lambda a, b, i: a[i[:, 0] % a.shape[0]],
    "an entry": lambda a, b, i: a * b[0, -1] + b[-1:],
    "once more": lambda a, b, i: a * a + a,
}


@settings(max_examples=150)
@given(sizes, sizes, seeds, st.lists(st.tuples(st.sampled_from([*OPERATIONS]), seeds, seeds), min_size=1, max_size=12))
def test_random_graphs_are_pytorchs(n, m, seed, steps):
    index = torch.randint(60, (n, m), generator=torch.Generator().manual_seed(seed))

    def graph(*leaves):
        made = [leaf + torch.zeros(n, m, dtype=torch.float64) for leaf in leaves]
        for name, i, j in steps:
            made.append(squash(OPERATIONS[name](made[-1 - i % len(made)], made[j % len(made)], index)))
        return made[-1] * made[-1].sum()

    compare(graph, randn(n, m, seed=seed), randn(m, seed=seed + 1), randn(n, 1, seed=seed + 2), randn(seed=seed + 3))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_operation_is_pytorchs(name, dtype):
    index = torch.tensor([[7, 0, 1], [2, 2, 5]])
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for seed in range(5):
        a, b = (randn(2, 3, seed=seed + k, dtype=dtype) for k in (0, 50))
        compare(lambda a, b: OPERATIONS[name](a, b, index) + 0.0 * b, a, b, tolerance=tolerance)


@given(st.lists(sizes, max_size=3), st.data(), seeds)
def test_broadcasting_is_undone(shape, draw, seed):
    def part():
        cut = shape[draw.draw(st.integers(0, len(shape))) :]
        return [draw.draw(st.sampled_from([1, size])) for size in cut]

    a, b = randn(*part(), seed=seed), randn(*part(), seed=seed + 1)
    compare(lambda a, b: a + b * a - b / (a * a + 1.0), a, b)
    full = torch.broadcast_shapes(a.shape, b.shape)
    assert near(undo_broadcast(randn(*full), a.shape), randn(*full).sum_to_size(a.shape), 1e-12)


@pytest.mark.parametrize("shape, wanted", [([2, 3], [2]), ([3], [2, 3]), ([2, 3], [4]), ([4, 1], [4, 3]), ([], [1])])
def test_shapes_that_do_not_broadcast_are_refused(shape, wanted):
    with pytest.raises(ValueError, match="expected one to which"):
        undo_broadcast(torch.zeros(shape), wanted)


@given(sizes, sizes, sizes, sizes, seeds)
def test_matrix_products(batch, n, k, m, seed):
    compare(lambda a, b: a @ b, randn(n, k, seed=seed), randn(k, m, seed=seed + 1))
    compare(lambda a, b: a @ b, randn(batch, n, k, seed=seed), randn(k, m, seed=seed + 1))
    compare(lambda a, b: a @ b, randn(n, k, seed=seed), randn(batch, k, m, seed=seed + 1))
    compare(lambda b: randn(n, k, seed=seed) @ b, randn(k, m, seed=seed + 1))


@pytest.mark.parametrize(
    "index",
    [0, -1, slice(1, None), slice(None, None, 2), (slice(None), 1), (0, 2), torch.tensor([2, 0, 2, 2]), [1, 1],
     (torch.tensor([0, 1, 0]), torch.tensor([2, 2, 2])), torch.tensor([True, False, True]), None, ..., (..., 0)],
    ids=str,
)  # fmt: skip
def test_indexing_of_every_kind(index):
    compare(lambda a: a[index] * 2.0, randn(3, 4))


@given(st.integers(1, 4), st.integers(1, 6), seeds)
def test_gather_adds_up_what_it_took_twice(n, m, seed):
    for dim in (0, 1, -1):
        limit = [n, m][dim]
        index = torch.randint(limit, (n, m), generator=torch.Generator().manual_seed(seed))
        compare(lambda a, dim=dim, index=index: a.gather(dim, index), randn(n, m, seed=seed))


def test_sums_and_means_over_every_dimension():
    for dim in (None, 0, 1, 2, -1, -2, -3):
        for keepdim in (False, True):
            compare(lambda a, d=dim, k=keepdim: a.sum(d, keepdim=k) * 2.0, randn(2, 3, 4))
            compare(lambda a, d=dim, k=keepdim: a.mean(d, keepdim=k) * 2.0, randn(2, 3, 4))
    compare(lambda a: a.sum() + a.mean(), randn())


def test_edges_of_operations():
    zero = torch.tensor([0.0, -0.0, 2.0], dtype=torch.float64)
    for n in (0, 1, 2, 3, 0.0, 1.0):
        compare(lambda a, n=n: a**n, zero)
    compare(lambda a: a.relu(), zero)
    dead = Node(torch.tensor([-1.0, 1.0]))
    dead.relu().backward(torch.tensor([torch.inf, torch.inf]))
    assert dead.grad.tolist() == [0.0, torch.inf]        # as in PyTorch: an infinite gradient stops at a closed gate
    compare(lambda a: a.reshape([4, 3]).reshape(2, -1).transpose(-1, 0), randn(3, 4))


def test_constants_on_either_side_are_no_parents():
    t, x = randn(2, 3, seed=1), Node(randn(2, 3))
    products = x @ t.T, t @ x.T
    for result in (t + x, x + t, t - x, x - t, t * x, x * t, t / x, x / t, 1 - x, 2 / x, 1 + x, 3 * x, *products):
        assert isinstance(result, Node) and len(result.parents) == 1
        result.backward(torch.ones_like(result.value))
    assert t.grad is None
    compare(lambda x: (t - x) / (2 / (t / (x * x + 1.0))), randn(2, 3))


LEFT = [2, 2.0, np.float32(2), np.float64(2), np.int64(2), np.ones(3, "float32"), np.arange(1, 4), torch.ones(3)]


@pytest.mark.parametrize("other", LEFT, ids=repr)
@pytest.mark.parametrize("name", ["+", "-", "*", "/"])
def test_numbers_and_arrays_of_numpy_are_constants_on_either_side(name, other):
    apply = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[name]
    constant = torch.as_tensor(other)
    for f in (lambda x, c: apply(x, c), lambda x, c: apply(c, x)):
        ours, theirs = Node(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        a, b = f(ours, other), f(theirs, constant)
        assert isinstance(a, Node) and torch.equal(a.value, b)
        a.sum().backward()
        b.sum().backward()
        assert torch.equal(ours.grad, theirs.grad)


def test_numpy_in_products_powers_and_of_another_type():
    x = Node(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    eye = np.eye(2, dtype="float32")
    for result in (x @ eye, eye @ x):
        assert isinstance(result, Node) and torch.equal(result.value, x.value)
    assert torch.equal((x ** np.float32(2)).value, x.value**2) and torch.equal((x ** np.int64(2)).value, x.value**2)
    for attempt in (lambda: np.ones(2) * x, lambda: x * np.ones(2)):
        with pytest.raises(ValueError, match=r"\*: found torch.float32 and torch.float64, expected one type"):
            attempt()
    with pytest.raises(TypeError, match="Node"):
        np.exp(x)                                        # a function of NumPy's, for which we have `x.exp()`


# The engine


def test_a_value_used_twice_and_a_diamond():
    compare(lambda x: x * x + x, torch.tensor(3.0, dtype=torch.float64))

    def diamond(x):
        left, right = x.exp(), x * 3.0
        return left * right + left / right

    compare(diamond, randn(4) ** 2 + 0.5)
    x = Node(3.0)
    (x * x + x).backward()
    assert x.grad == 7


@pytest.mark.parametrize("n", [10_000, 30_000])
def test_a_long_chain_overflows_no_stack(n):
    x = Node(torch.tensor(1.0, dtype=torch.float64))
    chain = x
    for _ in range(n):
        chain = chain + x
    order = topological_order(chain)
    assert len(order) == n + 1 and order[-1] is chain and order[0] is x
    chain.backward()
    assert x.grad == n + 1
    forgotten = x
    for _ in range(n):
        forgotten = forgotten * 1.0
    del forgotten                                        # taken apart without a deep recursion too


def test_many_diamonds_take_no_time():
    x = top = Node(torch.tensor(1.0, dtype=torch.float64))
    for _ in range(200):
        x = x + x
    x.backward()
    assert top.grad == 2.0**200


@given(st.lists(st.tuples(seeds, seeds), min_size=1, max_size=40))
def test_topological_order_lists_parents_first_and_each_once(pairs):
    made = [Node(1.0)]
    for i, j in pairs:
        made.append(made[i % len(made)] + made[j % len(made)])
    order = topological_order(made[-1])
    place = {node: k for k, node in enumerate(order)}
    assert len(place) == len(order) and order[-1] is made[-1]
    assert all(place[parent] < place[node] for node in order for parent, _ in node.parents)


def test_gradients_accumulate_until_they_are_dropped():
    ours, theirs = Node(randn(3)), randn(3).requires_grad_()
    for _ in range(3):
        (ours * ours).sum().backward()
        (theirs * theirs).sum().backward()
    assert near(ours.grad, theirs.grad, 1e-12)
    ours.grad = None
    (ours * ours).sum().backward()
    assert near(ours.grad, 2 * ours.value, 1e-12)


def test_two_nodes_of_one_tensor_share_its_gradient():
    w = randn(3)
    (Node(w) * Node(w) + Node(w)).sum().backward()
    assert near(w.grad, 2 * w + 1, 1e-12)


def test_no_two_leaves_share_the_memory_of_a_gradient():
    a, b, g = Node(randn(2, 3)), Node(randn(2, 3)), randn(2, 3, seed=5)
    (a + b).backward(g)
    before = g.clone()
    a.grad.add_(1.0)
    assert near(b.grad, before, 1e-12) and torch.equal(g, before)
    c = Node(randn(4))
    c.sum().backward()
    c.grad.add_(torch.arange(4.0))                       # an expanded gradient could not be changed in place
    assert c.grad.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_backward_twice():
    x = Node(3.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match=r"backward was here before \(\*\).*retain_graph=True"):
        y.backward()
    with pytest.raises(RuntimeError, match="backward was here before"):
        (y + 1.0).backward()
    assert x.grad == 6                                   # untouched by what was refused


def test_retain_graph_goes_through_again_as_in_pytorch():
    ours, theirs = Node(randn(3)), randn(3).requires_grad_()
    a, b = ((x.exp() * x).sum() * x.sum() for x in (ours, theirs))
    for keep in (True, True, False):
        a.backward(retain_graph=keep)
        b.backward(retain_graph=keep)
        assert near(ours.grad, theirs.grad, 1e-12)
    for result in (a, b):
        with pytest.raises(RuntimeError):
            result.backward()


def test_backward_from_a_leaf():
    x = Node([1.0, 2.0])
    x.backward(torch.tensor([3.0, 4.0]))
    assert x.grad.tolist() == [3.0, 4.0]
    one = Node(5.0)
    one.backward()
    one.backward()
    assert one.grad == 2


def test_a_graph_is_freed_without_the_garbage_collector():
    gc.disable()
    try:
        for use in (lambda y: y.sum().backward(), lambda y: y.sum(), draw_nothing):
            x = Node(randn(3))
            y = cross_entropy_loss((x.relu() * x.exp()).reshape(1, 3), torch.tensor([1]))
            watch = weakref.ref(y)
            use(y)
            del y
            assert watch() is None
    finally:
        gc.enable()


def draw_nothing(y):
    "Look at a node in every way."
    repr(y), topological_order(y), y.item(), float(y), y.shape


# What is refused


def test_a_table_needs_a_gradient_to_start_from():
    x = Node(randn(2, 3))
    with pytest.raises(ValueError, match=r"result of shape \[2, 3\], expected a single number, or a gradient"):
        (x * 2.0).backward()
    (x[:1, :1] * 2.0).backward()                         # one number in a table will do
    assert x.grad.sum() == 2


@pytest.mark.parametrize("g", [torch.ones(3), torch.ones(2, 3), torch.ones(3, 2, dtype=torch.float64), torch.ones(())])
def test_a_gradient_to_start_from_must_fit(g):
    with pytest.raises(ValueError, match=r"to start from, expected \[2, 3\] of type torch.float64"):
        (Node(randn(2, 3)) * 2.0).backward(g)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda a, b: a + b,
        lambda a, b: a * b,
        lambda a, b: a - b,
        lambda a, b: a / b,
        lambda a, b: a @ b,
        lambda a, b: a.reshape(5, 5),
        lambda a, b: a.gather(1, torch.tensor([[7]])),
        lambda a, b: a[7],
        lambda a, b: affine(torch.ones(2, 5, dtype=torch.float64), a, Node(torch.ones(2, dtype=torch.float64))),
    ],
)
def test_shapes_that_do_not_fit_are_refused(attempt):
    with pytest.raises((RuntimeError, IndexError)):
        attempt(Node(randn(2, 3)), Node(randn(4, 2)))


def test_vectors_in_a_product_are_refused():
    for a, b in ((randn(3), randn(3, 2)), (randn(2, 3), randn(3)), (randn(3), randn(3))):
        with pytest.raises(ValueError, match="expected matrices"):
            Node(a) @ Node(b)


def test_mixed_types_are_refused():
    x = Node(randn(3))
    for other in (Node(randn(3, dtype=torch.float32)), Node(torch.tensor(2.0))):
        with pytest.raises(ValueError, match=r"\*: found torch.float32 and torch.float64, expected one type"):
            x * other
    assert (x * torch.tensor([1, 0, 1])).value.dtype == torch.float64        # constants may be integers


def test_anything_but_a_plain_tensor_of_floats_is_refused():
    for wrong in (3, torch.tensor([1]), torch.tensor([True])):
        with pytest.raises(ValueError, match="expected floats"):
            Node(wrong)
    with pytest.raises(ValueError, match="PyTorch's autograd watches"):
        Node(nn.Linear(2, 2).weight)
    with pytest.raises(ValueError, match="PyTorch's autograd watches"):
        Node(torch.ones(2)) * nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match="wrapped already"):
        Node(Node(1.0))
    with pytest.raises(TypeError, match="exponent of type Node"):
        Node(2.0) ** Node(2.0)


def test_what_a_node_says_of_itself():
    x = Node(torch.tensor([1.0, 2.0]), name="x")
    assert repr(x) == "Node(x: [1.0, 2.0], grad none)"
    (x * x).sum().backward()
    assert repr(x) == "Node(x: [1.0, 2.0], grad [2.0, 4.0])"
    assert repr(Node(torch.zeros(64, 10)).exp()) == "Node(exp: float32 [64, 10], grad none)"
    assert len(x) == 2 and x.shape == (2,) and x.dim() == 1 and float(x.sum()) == x.sum().item() == 3.0
    assert x.detach() is x.value and x.argmax() == 1


# By hand: finite differences, gradients of layers


@given(st.lists(st.integers(1, 3), max_size=3), seeds)
def test_numeric_gradient(shape, seed):
    x = randn(*shape, seed=seed)
    before = x.clone()
    found = numeric_gradient(lambda x: (x**3).sum(), x)
    assert found.shape == x.shape and near(found, 3 * x**2, 1e-6, 1e-7) and torch.equal(x, before)


def test_numeric_gradient_of_views_of_nodes_and_of_other_types():
    x = randn(3, 2)
    assert near(numeric_gradient(lambda t: (t * x.T).sum(), x.T), x.T, 1e-6)
    assert near(numeric_gradient(lambda t: (Node(t) * Node(t)).sum(), x), 2 * x, 1e-6)
    with pytest.raises(ValueError, match="torch.float32, expected torch.float64"):
        numeric_gradient(torch.sum, torch.ones(2))


@given(sizes, sizes, sizes, seeds, st.sampled_from([torch.float32, torch.float64]))
def test_linear_and_relu_backward_are_pytorchs(n, n_in, n_out, seed, dtype):
    x, w, b, g = (randn(*shape, seed=seed + i, dtype=dtype)
                  for i, shape in enumerate(([n, n_in], [n_out, n_in], [n_out], [n, n_out])))  # fmt: skip
    theirs = [t.clone().requires_grad_() for t in (x, w, b)]
    F.linear(*theirs).backward(g)
    for ours, tensor in zip(linear_backward(g, x, w), theirs, strict=True):
        assert ours.dtype == dtype and near(ours, tensor.grad, 1e-5, 1e-6)
    a = (x @ w.T).requires_grad_()
    a.relu().backward(g)
    assert torch.equal(relu_backward(g, a.detach()), a.grad)


@given(st.integers(1, 6), st.integers(1, 8), seeds, st.floats(0, 1e4))
def test_cross_entropy_backward_is_pytorchs(n, classes, seed, scale):
    z = (scale * randn(n, classes, seed=seed)).requires_grad_()
    y = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed))
    F.cross_entropy(z, y).backward()
    found = cross_entropy_backward(z.detach(), y)
    assert near(found, z.grad, 1e-10, 1e-12) and near(found.sum(1), torch.zeros(n), atol=1e-12)
    compare(lambda z: cross_entropy_loss(z, y), z.detach())


def test_chapter_02s_loss_refuses_on_nodes_too():
    with pytest.raises(ValueError, match="labels from 3 to 10"):
        cross_entropy_loss(Node(torch.zeros(2, 10)), torch.tensor([3, 10]))


# Layers


def pair(kind):
    "Return our layers and PyTorch's, with equal weights."
    set_seed(4)
    theirs = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    set_seed(4)
    return kind(), theirs


def stack():
    return LayerStack(LinearLayer(4, 8), ReLULayer(), LinearLayer(8, 3))


def test_a_stack_of_layers_is_pytorchs():
    ours, theirs = pair(stack)
    criterion, x, y = CrossEntropyLayer(), randn(6, 4, dtype=torch.float32), torch.tensor([0, 1, 2, 0, 1, 2])
    images = x.clone().requires_grad_()
    loss = criterion(ours(x), y)
    found = ours.backward(criterion.backward())
    expected = F.cross_entropy(theirs(images), y)
    expected.backward()
    assert near(loss, expected) and near(found, images.grad, 1e-5, 1e-7)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q) and not p.requires_grad and near(p.grad, q.grad, 1e-5, 1e-7)


def test_backward_needs_a_forward_pass_of_its_own():
    ours, criterion, x = stack(), CrossEntropyLayer(), randn(2, 4, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="CrossEntropyLayer: backward without a forward pass"):
        criterion.backward()
    with pytest.raises(RuntimeError, match="LinearLayer: backward without a forward pass"):
        ours.backward(x)
    criterion(ours(x), torch.tensor([0, 1]))
    ours.backward(criterion.backward())
    with pytest.raises(RuntimeError, match="LinearLayer: backward without a forward pass"):
        ours.backward(torch.ones(2, 3))


def test_layers_of_one_kind_do_not_share_their_memory():
    a, b = ReLULayer(), ReLULayer()
    a(torch.ones(2))
    assert b.inputs is None and Layer.inputs is None


# What `parameters()` lists is what `state_dict()` holds, `load_state_dict` restores and `.to()` moves

LAYERS = {
    "LinearLayer": (lambda: LinearLayer(4, 3), ["weight", "bias"]),
    "NodeLinear": (lambda: NodeLinear(4, 3), ["weight", "bias"]),
    "ReLULayer": (ReLULayer, []),
    "CrossEntropyLayer": (CrossEntropyLayer, []),
    "LayerStack": (stack, ["0.weight", "0.bias", "2.weight", "2.bias"]),
    "NodeMLP": (lambda: NodeMLP(4, 8, 3), ["l1.weight", "l1.bias", "l2.weight", "l2.bias"]),
    "a model of both": (lambda: Sequential(NodeLinear(4, 4), LinearLayer(4, 3)),
                        ["0.weight", "0.bias", "1.weight", "1.bias"]),
}  # fmt: skip
each_layer = pytest.mark.parametrize("make, names", LAYERS.values(), ids=LAYERS)


@each_layer
def test_state_dict_holds_what_parameters_lists(make, names):
    model = make()
    state = model.state_dict()
    assert list(state) == names
    assert [v.data_ptr() for v in state.values()] == [p.data_ptr() for p in model.parameters()]


@each_layer
def test_load_state_dict_restores_in_place(make, names):
    model, other = make(), make()
    before = model.parameters()
    model.load_state_dict(other.state_dict())
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))      # an optimiser still has them
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    if names:
        for wrong in ({}, {**other.state_dict(), names[0]: torch.zeros(7, 7)}):
            with pytest.raises(ValueError, match="expected"):
                model.load_state_dict(wrong)


@each_layer
def test_to_moves_every_parameter_and_its_gradient_and_keeps_the_objects(make, names):
    model = make()
    before = model.parameters()
    for p in before:
        p.grad = torch.ones_like(p)
    assert model.to(torch.float64) is model and model.to(None) is model
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert {t.dtype for p in before for t in (p, p.grad)} == ({torch.float64} if names else set())


def test_a_deleted_layer_of_nodes_is_gone():
    model = NodeMLP(4, 8, 3)
    del model.l2
    assert list(model.state_dict()) == ["l1.weight", "l1.bias"] and len(model.parameters()) == 2


def test_a_moved_model_of_nodes_trains_on():
    set_seed(0)
    model, y = NodeMLP(4, 8, 3), torch.arange(6) % 3
    optim = SGD(model.parameters(), lr=0.5)
    model.to(torch.float64)
    x, losses = randn(6, 4), []
    for _ in range(50):
        loss = cross_entropy_loss(model(x), y)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# The model of nodes


@pytest.mark.parametrize("optimiser", [SGD, torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("loader", [DataLoader, data.DataLoader])
def test_fit_trains_nodes_with_everybodys_optimisers_and_loaders(optimiser, loader):
    y = torch.arange(150) % 3
    x = randn(150, 4, seed=3, dtype=torch.float32) + 6 * F.one_hot(y, 4)
    ours, theirs = pair(lambda: NodeMLP(4, 8, 3))
    runs = []
    for model in (ours, theirs):
        optim, dl = optimiser(model.parameters(), lr=0.05), loader(Dataset(x, y), batch_size=16)
        runs.append(fit(dl, model, cross_entropy_loss, optim, 4, valid=loader(Dataset(x, y), batch_size=50)))
    assert runs[0].valid_accs[-1] > 0.9
    assert same(*runs).word == "identical"
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_affine_is_pytorchs_linear():
    x, w, b = (randn(*shape, dtype=torch.float32) for shape in ([64, 784], [128, 784], [128]))
    assert torch.equal(affine(x, Node(w), Node(b)).value, F.linear(x, w, b))     # to the last bit, unlike x @ w.T + b
    for x in (randn(5, 4), Node(randn(5, 4))):
        w, b = Node(randn(3, 4, seed=1)), Node(randn(3, seed=2))
        assert torch.equal(affine(x, w, b).value, F.linear(randn(5, 4), w.value, b.value))
    compare(lambda x, w, b: affine(x, w, b) if isinstance(x, Node) else F.linear(x, w, b),
            randn(5, 4), randn(3, 4, seed=1), randn(3, seed=2))  # fmt: skip


def test_a_layer_used_twice_gets_both_gradients():
    set_seed(1)
    ours = NodeLinear(4, 4)
    set_seed(1)
    theirs = nn.Linear(4, 4)
    x = randn(3, 4, dtype=torch.float32)
    ours(ours(x).relu()).sum().backward()
    theirs(theirs(x).relu()).sum().backward()
    assert near(ours.weight.grad, theirs.weight.grad, 1e-5, 1e-6) and near(ours.bias.grad, theirs.bias.grad, 1e-5)


# Drawing


def test_a_graph_is_drawn_with_words_for_those_who_do_not_see_it():
    x = Node(3.0, name="x")
    picture = draw_graph(x * x + x)
    assert repr(picture) == "Graph of a calculation, from top to bottom. Leaves: x, 3. Operations: *, 9, +, 12."
    for node in (root := x * x + x, x):
        node.grad = torch.tensor(1.0)
    words = "Graph of a calculation, from top to bottom. Leaves: x, 3, grad 1. Operations: *, 9, +, 12, grad 1."
    assert repr(draw_graph(root)) == words
    table = draw_graph(Node(torch.zeros(2, 3), name="table") * 2.0)
    assert repr(table).endswith("Leaves: table. Operations: *.")
    assert picture.png().startswith(b"\x89PNG") and "matplotlib.pyplot" not in sys.modules
    assert draw_graph(x).png() and draw_graph(x.exp()).png()


def test_drawing_puts_each_node_below_its_parents():
    from exp import nb_03

    model = NodeMLP()
    root = cross_entropy_loss(model(torch.zeros(2, 784)), torch.tensor([0, 1]))
    nodes = topological_order(root)
    places, lines = nb_03._layout(nodes, 1.0, 0.4)
    assert all(places[parent][1] < places[node][1] for node in nodes for parent, _ in node.parents)
    assert len(set(places.values())) == len(nodes) and len(lines) == sum(len(dict(n.parents)) for n in nodes)
    assert places == nb_03._layout(nodes, 1.0, 0.4)[0]


def test_drawing_without_the_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grandalf.graphs", None)
    with pytest.raises(ImportError, match="pip install grandalf"):
        draw_graph(Node(1.0) * 2.0)


def test_a_used_graph_cannot_be_drawn():
    y = Node(1.0) * 2.0
    y.backward()
    with pytest.raises(RuntimeError, match="backward was here before"):
        draw_graph(y)
