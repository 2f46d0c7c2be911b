"""Convolutions, pools and layers against PyTorch's: values, gradients, bits; what they refuse; what they fit into."""

import copy
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import exp.nb_07
from exp.nb_07 import *
from exp.nb_07 import F

WAYS = [conv_loops, conv_slices, conv_unfold, conv_strided, conv_by_hand]


@st.composite
def problems(draw, dtype=torch.float64, kernels=1):
    "Draw images, weights, biases, stride and padding that fit."
    n, c, o, k = (draw(st.integers(low, high)) for low, high in ((1, 3), (1, 3), (kernels, 4), (1, 4)))
    rows, columns = draw(st.integers(k, 8)), draw(st.integers(k, 8))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    chance = torch.Generator().manual_seed(draw(st.integers(0, 1_000)))
    shapes = (n, c, rows, columns), (o, c, k, k), (o,)
    x, w, b = (torch.randn(*shape, generator=chance, dtype=dtype) for shape in shapes)
    return x, w, b, stride, padding


def with_gradients(function, tensors, *settings):
    "Return the result of a function, and the gradients of the tensors for a fixed gradient of it."
    leaves = [each.clone().requires_grad_() for each in tensors]
    out = function(*leaves, *settings)
    g = torch.cos(torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape)
    return out.detach(), torch.autograd.grad(out, leaves, g)


# Convolutions


@pytest.mark.parametrize("way", WAYS)
@given(problem=problems())
def test_each_way_is_pytorchs_convolution(way, problem):
    *tensors, stride, padding = problem
    ours, mine = with_gradients(way, tensors, stride, padding)
    theirs, its = with_gradients(F.conv2d, tensors, stride, padding)
    assert near(ours, theirs, rtol=1e-9, atol=1e-12)
    assert all(near(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(mine, its))


@given(problems())
def test_the_gradient_by_hand_is_autograds(problem):
    x, w, b, stride, padding = problem
    out = F.conv2d(x, w, b, stride, padding)
    g = torch.sin(torch.arange(out.numel(), dtype=x.dtype)).reshape(out.shape)
    leaves = [each.clone().requires_grad_() for each in (x, w, b)]
    theirs = torch.autograd.grad(F.conv2d(*leaves, stride, padding), leaves, g)
    ours = conv_backward(g, x, w, stride, padding)
    assert all(a.shape == b.shape and near(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(data=st.data())
def test_by_hand_is_pytorchs_own_code_to_the_bit(dtype, data):
    *tensors, stride, padding = data.draw(problems(dtype, kernels=2))
    torch.set_num_threads(1)
    with plain_kernels():
        theirs, its = with_gradients(F.conv2d, tensors, stride, padding)
    ours, mine = with_gradients(conv_by_hand, tensors, stride, padding)
    assert torch.equal(ours, theirs) and all(torch.equal(a, b) for a, b in zip(mine, its))


@given(problems())
def test_the_gradient_of_the_gradient_is_right_too(problem):
    *tensors, stride, padding = problem
    found = []
    for way in (conv_by_hand, F.conv2d):
        leaves = [each.clone().requires_grad_() for each in tensors]
        energy = way(*leaves, stride, padding).square().sum()
        first = torch.autograd.grad(energy, leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(each.square().sum() for each in first), leaves))
    assert all(near(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(*found))


def test_autograd_adds_the_gradient_of_a_loop_from_the_last_image_to_the_first():
    x, b, g = torch.randn(8, 18, 49), torch.randn(4, 1), torch.randn(8, 4, 49)
    w = torch.randn(4, 18, requires_grad=True)
    maps = torch.stack([torch.addmm(b, w, columns) for columns in x])
    total = g[-1] @ x[-1].T
    for i in reversed(range(7)):
        total = total + g[i] @ x[i].T
    assert torch.equal(torch.autograd.grad(maps, w, g)[0], total)


def test_einsum_over_a_view_of_windows_copies_them():
    x, w = torch.randn(4, 1, 28, 28), torch.randn(8, 1, 3, 3)
    with torch.autograd.profiler.profile(record_shapes=True) as seen:
        conv_strided(x, w, torch.zeros(8))
    copied = [math.prod(event.input_shapes[0]) for event in seen.function_events if event.name == "aten::clone"]
    assert max(copied) == 4 * 9 * 26 * 26


@pytest.mark.parametrize("n", [2, 40])
def test_nnpack_is_off_too(n):
    "From 16 images on PyTorch would ask it; its sums differ."
    x, w, b = torch.randn(n, 3, 9, 9), torch.randn(3, 3, 3, 3), torch.randn(3)
    with plain_kernels():
        theirs = F.conv2d(x, w, b)
    assert torch.equal(conv_by_hand(x, w, b), theirs)


def test_plain_kernels_puts_everything_back_after_an_error():
    before = torch.backends.mkldnn.enabled, torch._C._get_nnpack_enabled()
    with pytest.raises(KeyError), plain_kernels():
        assert not torch.backends.mkldnn.enabled and not torch._C._get_nnpack_enabled()
        raise KeyError
    assert (torch.backends.mkldnn.enabled, torch._C._get_nnpack_enabled()) == before


def test_rectangular_kernels_work_where_the_code_says_rows_and_columns():
    x, w, b = torch.randn(2, 2, 7, 8), torch.randn(3, 2, 2, 3), torch.randn(3)
    for way in WAYS:
        assert near(way(x, w, b), F.conv2d(x, w, b), rtol=1e-4, atol=1e-5)
    g = torch.ones(2, 3, 6, 6)
    assert near(conv_backward(g, x, w)[0], F.conv_transpose2d(g, w), atol=1e-5)


def test_arguments_stay_as_they_are():
    x, w, b = torch.randn(2, 2, 6, 6), torch.randn(3, 2, 3, 3), torch.randn(3)
    kept = [each.clone() for each in (x, w, b)]
    for way in WAYS:
        way(x, w, b, 1, 1)
    conv_backward(torch.ones(2, 3, 4, 4), x, w)
    max_pool(x, 2), avg_pool(x, 2), shifted(x, 1, 1)
    assert all(torch.equal(a, b) for a, b in zip((x, w, b), kept))


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_fit_is_refused(way):
    x, w, b = torch.zeros(1, 2, 5, 5), torch.zeros(3, 2, 3, 3), torch.zeros(3)
    bad = {
        r"found images with 2 channels, expected 4": (x, torch.zeros(3, 4, 3, 3), b),
        r"found a kernel of 3 on 2 pixels": (x[:, :, :2], w, b),
        r"found x of shape \[2, 5, 5\], expected images": (x[0], w, b),
        r"found weights of shape \[2, 3, 3\]": (x, w[0], b),
        r"stride: found 0, expected 1 or more": (x, w, b, 0),
        r"stride: found 1.5": (x, w, b, 1.5),
        r"padding: found -1": (x, w, b, 1, -1),
        r"found a bias of shape \[1\], expected \[3\]": (x, w, b[:1]),
    }
    for words, arguments in bad.items():
        with pytest.raises(ValueError, match=words):
            way(*arguments)


@pytest.mark.parametrize("way", WAYS)
def test_numbers_of_two_types_and_whole_numbers_are_refused(way):
    x, w, b = torch.randn(2, 2, 6, 6), torch.randn(3, 2, 3, 3), torch.randn(3)
    for bad in ((x.double(), w, b), (x, w.double(), b), (x, w, b.double()), (x.byte(), w, b)):
        with pytest.raises(ValueError, match=f"{way.__name__}: found torch.* and torch.*, expected floats of one type"):
            way(*bad)
    for kind in (torch.uint8, torch.int64, torch.bool):  # bytes would overflow
        with pytest.raises(ValueError, match=f"found {kind}, expected floats"):
            way(x.to(kind), w.to(kind), b.to(kind))
    for kind in (torch.bfloat16, torch.complex64):
        tensors = [each.to(kind) for each in (x, w, b)]
        assert torch.allclose(way(*tensors), F.conv2d(*tensors), rtol=0.1, atol=0.1)


def test_autocast_chooses_types_by_itself():
    net, x = nets()["ours"], digits(4)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(x).dtype == torch.bfloat16
    assert net(x).dtype == torch.float32


def test_the_gradient_by_hand_refuses_what_is_no_gradient_of_the_maps():
    x, w = torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 3, 3)
    for g, stride in ((torch.zeros(2, 3, 6, 6), 2), (torch.zeros(2, 3, 1, 1), 1), (torch.zeros(1, 3, 6, 6), 1)):
        with pytest.raises(ValueError, match=r"conv_backward: found g of shape .* expected \[2, 3, .* of the maps"):
            conv_backward(g, x, w, stride)
    with pytest.raises(ValueError, match="conv_backward: found images with 1 channels, expected 2"):
        conv_backward(torch.zeros(2, 3, 6, 6), x, torch.zeros(3, 2, 3, 3))


def test_whole_numbers_of_numpy_are_whole_numbers():
    three, two = np.int64(3), np.int64(2)
    assert out_size(28, three, two, np.int64(1)) == 14
    x = torch.randn(2, 1, 8, 8)
    net = Sequential(Conv2d(1, 2, three, two, padding=np.int64(1)), MaxPool2d(two))
    assert net(x).shape == (2, 2, 2, 2)
    for bad, words in (((28, 3.0), "kernel: found 3.0"), ((28.5, 3), "pixels: found 28.5"),
                       ((0, 1, 1, 2), "pixels: found 0"), ((28, 3, True), "stride: found True"),
                       ((28, 3, 1, "same"), "padding: found 'same'")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            out_size(*bad)


@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))
def test_out_size_is_pytorchs(n, k, stride, padding):
    if n + 2 * padding < k:
        with pytest.raises(ValueError, match="pad more, pool less"):
            out_size(n, k, stride, padding)
    else:
        out = F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, k), None, stride, padding)
        assert out_size(n, k, stride, padding) == out.shape[-1]


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_shifted_moves_and_fills_with_the_ground(down, right):
    x = torch.rand(2, 1, 6, 7) - 0.4
    found = shifted(x, down, right)
    for i in range(6):
        for j in range(7):
            inside = 0 <= i - down < 6 and 0 <= j - right < 7
            expected = x[:, :, i - down, j - right] if inside else x.min().expand(2, 1)
            assert torch.equal(found[:, :, i, j], expected)


# Pools


@pytest.mark.parametrize("ours, theirs", [(max_pool, F.max_pool2d), (avg_pool, F.avg_pool2d)])
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 50), st.booleans())
def test_pools_are_pytorchs_ties_included(ours, theirs, k, stride, seed, ties):
    x = torch.randn(2, 3, 7, 6, generator=torch.Generator().manual_seed(seed))
    x = x.round() if ties else x
    (a, [ga]), (b, [gb]) = (with_gradients(pool, [x], k, stride) for pool in (ours, theirs))
    assert near(a, b, atol=1e-6) and near(ga, gb, atol=1e-6)
    assert ours is avg_pool or torch.equal(a, b)


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_pools_refuse_what_is_too_small(pool):
    with pytest.raises(ValueError, match="found a kernel of 3 on 2 pixels"):
        pool(torch.zeros(1, 1, 2, 9), 3)
    with pytest.raises(ValueError, match="expected images"):
        pool(torch.zeros(1, 4, 4), 2)
    with pytest.raises(ValueError, match="stride: found 0"):
        pool(torch.zeros(1, 1, 4, 4), 2, 0)


# Layers

PAIRS = {
    "Conv2d": lambda where: where.Conv2d(2, 3, 3, stride=2, padding=1),
    "Conv2d without bias": lambda where: where.Conv2d(2, 3, 2, bias=False),
    "MaxPool2d": lambda where: where.MaxPool2d(2),
    "MaxPool2d that overlaps": lambda where: where.MaxPool2d(3, 2),
    "AvgPool2d": lambda where: where.AvgPool2d(2),
    "AvgPool2d that overlaps": lambda where: where.AvgPool2d(3, 1),
    "Flatten": lambda where: where.Flatten(),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_are_pytorchs(name, dtype):
    set_seed(1)
    ours = PAIRS[name](exp.nb_07)
    set_seed(1)
    theirs = PAIRS[name](nn)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    theirs.to(dtype)
    for p in ours.parameters():
        p.data = p.data.to(dtype)
    x = torch.randn(4, 2, 7, 8).round().to(dtype)
    (a, [ga]), (b, [gb]) = (with_gradients(layer, [x]) for layer in (ours, theirs))
    assert torch.equal(a, b) and near(ga, gb, atol=1e-5)
    with torch.no_grad():
        out = ours(x)
        g = torch.cos(torch.arange(out.numel(), dtype=out.dtype)).reshape(out.shape)
        assert near(ours.backward(g), gb, rtol=1e-4, atol=1e-5)
        with pytest.raises(RuntimeError, match="backward without a forward pass"):
            ours.backward(g)


def nets():
    "Return the same net of our layers, of PyTorch's, and mixed."
    def of(conv, pool, flat, stack):
        set_seed(0)
        return stack(conv(1, 4, 3, 2, 1), nn.ReLU(), pool(2), flat(), nn.Linear(4 * 7 * 7, 10))

    return {"ours": of(Conv2d, MaxPool2d, Flatten, Sequential),
            "mixed": of(nn.Conv2d, MaxPool2d, nn.Flatten, Sequential),
            "PyTorch's": of(nn.Conv2d, nn.MaxPool2d, nn.Flatten, nn.Sequential)}  # fmt: skip


def digits(n=256):
    "Return some images and labels."
    x, y = get_mnist_data()
    return normalize(x[:n], 0.13, 0.31).reshape(-1, 1, 28, 28), y[:n]


def test_nets_of_both_learn_the_same_and_load_each_others_state():
    losses, (x, y) = {}, digits()
    for name, net in nets().items():
        losses[name] = fit(DataLoader(Dataset(x, y), 32), net, cross_entropy_loss, SGD(net.parameters(), 0.1)).losses
    assert losses["ours"] == losses["mixed"] == losses["PyTorch's"]
    ours, mixed, theirs = nets().values()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for target in (ours, mixed):
        target.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    with pytest.raises(ValueError, match="found .* expected"):
        other = Sequential(Conv2d(1, 4, 5, 2, 1), nn.ReLU(), MaxPool2d(2), Flatten(), nn.Linear(196, 10))
        ours.load_state_dict(other.state_dict())


def test_stock_pytorch_trains_our_net_and_a_checkpoint_holds_it():
    net, (x, y) = nets()["ours"], digits()
    optim = torch.optim.SGD(net.parameters(), 0.1)
    stock = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 32)
    first = None
    for xb, yb in stock:
        loss = nn.functional.cross_entropy(net(xb), yb)
        first = first or loss.item()
        optim.zero_grad()
        loss.backward()
        optim.step()
    assert loss.item() < first
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    again = nets()["ours"]
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(x[:5]), net(x[:5]))


def test_a_net_can_be_copied_after_training_and_in_the_middle_of_an_evaluation():
    net, (x, y) = nets()["ours"], digits()
    learner = Learner(net, cross_entropy_loss, SGD(net.parameters(), 0.05), [Average(0.9)])
    batches = DataLoader(Dataset(x, y), 32)
    learner.fit(batches, valid=batches)
    assert torch.equal(copy.deepcopy(net)(x), net(x)) and learner.callbacks[-1].model is not net
    assert find_rate(learner, batches, steps=10).rates


@pytest.mark.parametrize("do, words", [
    (lambda: Conv2d(3, 4, 3)(torch.zeros(1, 1, 8, 8)), "Conv2d: found images with 1 channels, expected 3"),
    (lambda: Conv2d(1, 4, 9)(torch.zeros(1, 1, 8, 8)), "found a kernel of 9 on 8 pixels"),
    (lambda: Conv2d(1, 4, 3)(torch.zeros(1, 8, 8)), "Conv2d: found x of shape .1, 8, 8., expected images"),
    (lambda: Conv2d(1, 4, 3, stride=0), "stride: found 0"),
    (lambda: Conv2d(1, 4, 3, padding=-1), "padding: found -1"),
    (lambda: Conv2d(1, 4, 3, stride=(1, 2)), "stride: found .1, 2., expected 1 or more, whole"),
    (lambda: MaxPool2d(4)(torch.zeros(1, 1, 3, 3)), "found a kernel of 4 on 3 pixels"),
    (lambda: MaxPool2d(2, -1), "stride: found -1"),
    (lambda: MaxPool2d(2, 0), "stride: found 0"),
    (lambda: AvgPool2d(0), "kernel: found 0, expected 1 or more"),
    (lambda: Conv2d(1, 4, (3, 3)), r"kernel: found .3, 3., expected 1 or more, whole"),
    (lambda: AvgPool2d(2)(torch.zeros(3, 3)), "AvgPool2d: found x of shape .3, 3."),
    (lambda: Flatten()(torch.zeros(784)), "Flatten: found x of shape .784."),
    (lambda: Flatten()(torch.zeros(3, 28, 28)), "Flatten: found x of shape .3, 28, 28., expected images"),
])  # fmt: skip
def test_layers_refuse_what_is_no_image(do, words):
    with pytest.raises(ValueError, match=words):
        do()


@pytest.mark.parametrize("make", [lambda: Conv2d(1, 2, 3), lambda: MaxPool2d(2), lambda: AvgPool2d(2), Flatten])
def test_a_pass_under_autograd_forgets_the_input_of_one_without(make):
    layer = make()
    with torch.no_grad():
        layer(torch.randn(2, 1, 6, 6))
    out = layer(torch.randn(3, 1, 6, 6))
    with pytest.raises(RuntimeError, match="backward without a forward pass"):
        layer.backward(torch.ones_like(out))


@pytest.mark.parametrize("name", PAIRS)
def test_a_gradient_that_is_not_the_outputs_is_refused(name):
    layer, x = PAIRS[name](exp.nb_07), torch.randn(2, 2, 7, 8)
    with torch.no_grad():
        out = layer(x)
    for shape in ((1,) * out.dim(), out.shape[::-1], (out.numel(),), (*out.shape[:-1], 1)):
        with pytest.raises(ValueError, match="found a gradient of shape .*, expected .*: that of the output"):
            layer.backward(torch.ones(shape))
    with torch.no_grad():
        assert layer.backward(torch.ones_like(out)).shape == x.shape  # the input is still there


@pytest.mark.parametrize("name", PAIRS)
def test_an_input_that_was_changed_in_place_is_refused(name):
    layer, x = PAIRS[name](exp.nb_07), torch.randn(2, 2, 7, 8)
    with torch.no_grad():
        out = layer(x)
        x.mul_(2)
        with pytest.raises(RuntimeError, match="found an input that was changed in place after the forward pass"):
            layer.backward(torch.ones_like(out))
        layer(x)
        layer.backward(torch.ones_like(out))
        layer(x)
        copied = copy.deepcopy(layer)                    # its input starts to count anew
        assert torch.equal(copied.backward(torch.ones_like(out)), layer.backward(torch.ones_like(out)))
    with torch.inference_mode():
        layer(x + 1)
        layer.backward(torch.ones_like(out))


def test_what_is_frozen_gets_no_gradient_by_hand():
    layer, x = Conv2d(1, 2, 3), torch.randn(2, 1, 6, 6)
    layer.weight.requires_grad_(False)
    with torch.no_grad():
        layer.backward(torch.ones_like(layer(x)))
    assert layer.weight.grad is None and layer.bias.grad is not None


def test_the_bias_of_a_layer_goes_by_name():
    with pytest.raises(TypeError):
        Conv2d(1, 2, 3, 1, 0, 2)                         # PyTorch's sixth is the dilation


def test_a_layer_says_what_it_is():
    said = "Conv2d(in_channels=1, out_channels=8, kernel_size=5, stride=2, padding=2)"
    assert repr(Conv2d(1, 8, 5, 2, 2)) == said
    assert repr(Conv2d(1, 8, 5, 2, 2).eval()) == said and repr(Flatten().train()) == "Flatten()"
    assert repr(Conv2d(1, 8, 5, 2, 2, bias=False)) == said.replace(")", ", bias=False)")
    assert repr(Sequential(MaxPool2d(2))) == "Sequential(\n  (0): MaxPool2d(kernel_size=2, stride=2)\n)"


# The engine


def test_nodes_convolve_and_pool_as_pytorch_does():
    set_seed(3)
    ours = NodeConv2d(2, 3, 3, 2, 1)
    set_seed(3)
    theirs = nn.Conv2d(2, 3, 3, 2, 1)
    x = torch.randn(4, 2, 8, 8)
    leaf, node = x.clone().requires_grad_(), Node(x)
    mine, its = node_max_pool(ours(node)), F.max_pool2d(theirs(leaf), 2)
    assert near(mine.value, its, atol=1e-6)
    g = torch.randn(its.shape)
    mine.backward(g)
    its.backward(g)
    assert near(node.grad, leaf.grad, atol=1e-5)
    assert near(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-5)
    assert near(ours.bias.grad, theirs.bias.grad, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="found maps of 5 × 4, expected multiples of 2"):
        node_max_pool(Node(torch.zeros(1, 1, 5, 4)))
    assert torch.equal(node_max_pool(x).value, F.max_pool2d(x, 2))
    for bad, k, words in ((x, 0, "kernel: found 0, expected 1 or more"), (x, 9, "found a kernel of 9 on 8 pixels"),
                          (x[0], 2, r"node_max_pool: found x of shape \[2, 8, 8\], expected images")):
        with pytest.raises(ValueError, match=words):
            node_max_pool(Node(bad), k)
    with pytest.raises(ValueError, match="NodeConv2d: found images with 3 channels, expected 2"):
        ours(torch.zeros(1, 3, 8, 8))
    for bad, words in (((2, 3, 3, 0), "stride: found 0"), ((2, 3, (3, 2)), r"kernel: found \(3, 2\)")):
        with pytest.raises(ValueError, match=words):
            NodeConv2d(*bad)


# Shapes and fields


def test_trace_tells_shapes_counts_and_numbers():
    net, x = nets()["ours"], digits(64)[0]
    rows = trace(net, x).rows
    assert rows[0] == ["layer", "shape of a sample", "parameters", "mean", "deviation"]
    assert [row[0] for row in rows[1:]] == ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear"]
    assert rows[1][1:3] == ["[1, 28, 28] → [4, 14, 14]", "40"] and rows[5][1:3] == ["[196] → [10]", "1,970"]
    out = net(x)
    assert rows[5][3:] == [f"{out.mean():.2f}", f"{out.std():.2f}"]
    nested = nn.Sequential(nn.Sequential(nn.Flatten()), nn.Linear(784, 2))
    assert [row[0] for row in trace(nested, x).rows[1:]] == ["Flatten", "Linear"]
    assert trace(nn.Linear(3, 1), torch.zeros(1, 3)).rows[1][4] == "0.00"


def test_trace_changes_nothing():
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten()), digits(8)[0]
    kept, chance = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    trace(net, x)
    assert all(torch.equal(kept[name], value) for name, value in net.state_dict().items())
    assert torch.equal(chance, torch.get_rng_state()) and net.training


class Block(nn.Sequential):
    "Add what comes in."
    def forward(self, x):
        return x + super().forward(x)


class OwnBlock(Sequential):
    "Add what comes in."
    def forward(self, x):
        return x + super().forward(x)


@pytest.mark.parametrize("block", [Block(nn.Conv2d(1, 1, 3, padding=1)), OwnBlock(Conv2d(1, 1, 3, padding=1))])
def test_trace_takes_no_block_apart_that_has_a_forward_of_its_own(block):
    x = digits(4)[0]
    stack = Sequential(block, nn.Flatten())
    rows, made = trace(stack, x).rows, stack(x)
    assert [row[0] for row in rows[1:]] == [type(block).__name__, "Flatten"]
    assert rows[-1][3:] == [f"{made.mean():.2f}", f"{made.std():.2f}"] and rows[1][2] == "10"


def test_trace_leaves_the_mini_batch_and_reads_any_type():
    x = torch.randn(3, 1, 6, 6)
    kept = x.clone()
    trace(nn.Sequential(nn.ReLU(inplace=True)), x)
    assert torch.equal(x, kept)
    assert trace(Sequential(Flatten()), torch.ones(2, 1, 3, 3, dtype=torch.long)).rows[1][3] == "1.00"
    net = nn.Sequential(nn.Flatten()).bfloat16()
    assert trace(net, torch.full((2, 1, 40, 40), 12.34).bfloat16()).rows[1][3:] == ["12.31", "0.00"]  # as it is stored


def test_trace_leaves_no_hook_and_passes_on_errors_of_others():
    class Odd(nn.Module):
        def forward(self, x):
            raise KeyError("odd")

    net = nn.Sequential(nn.Dropout(), Odd())
    with pytest.raises(KeyError):
        trace(net, torch.zeros(1, 1, 2, 2))
    assert net.training and torch.is_grad_enabled() and not any(layer._forward_hooks for layer in net.modules())


@pytest.mark.parametrize("odd", [
    Block(nn.Conv2d(1, 1, 3)), OwnBlock(Conv2d(1, 1, 3)), nn.ModuleList([nn.Conv2d(1, 1, 3)]),
    nn.ConvTranspose2d(1, 1, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=2), nn.Fold((4, 4), 2),
], ids=lambda layer: type(layer).__name__)  # fmt: skip
def test_the_receptive_field_of_what_has_another_rule_is_refused(odd):
    with pytest.raises(ValueError, match=f"receptive_field: found {type(odd).__name__}, expected a stack"):
        receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Sequential(odd)) if isinstance(odd, nn.Module)
                        else Sequential(Conv2d(1, 1, 3), odd))


def test_trace_names_the_layer_that_fails():
    with pytest.raises(ValueError, match=r"layer 1, Linear: found an input of shape \[2, 784\], expected another"):
        trace(Sequential(nn.Flatten(), nn.Linear(700, 10)), torch.zeros(2, 1, 28, 28))
    with pytest.raises(ValueError, match="layer 0, Conv2d: .*found images with 2 channels, expected 1"):
        trace(Sequential(Conv2d(1, 1, 3)), torch.zeros(2, 2, 8, 8))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=3))
def test_the_receptive_field_is_what_the_gradient_reaches(settings):
    stack = nn.Sequential(*(nn.Conv2d(1, 1, k, stride, dilation=d, bias=False) for k, stride, d in settings))
    for p in stack.parameters():
        nn.init.ones_(p)
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    out = stack(x)[0, 0]
    seen = torch.autograd.grad(out[0, 0], x)[0][0, 0].any(0).nonzero()
    assert receptive_field(stack) == seen.max().item() + 1


def test_the_receptive_field_counts_our_layers_and_pools():
    assert receptive_field(Sequential(Conv2d(1, 1, 3), nn.ReLU(), MaxPool2d(2), Sequential(Conv2d(1, 1, 3)))) == 8
    assert receptive_field(nn.Sequential(nn.ReLU())) == 1
    assert receptive_field(nn.Sequential(nn.Conv2d(1, 1, (1, 5)))) == 5  # in a row
    assert receptive_field(nn.MaxPool2d([2, 3])) == 3
    assert receptive_field(Sequential(Conv2d(1, 1, 3), Flatten(), nn.Linear(2, 2))) == 3
