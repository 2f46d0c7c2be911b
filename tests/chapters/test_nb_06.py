"""Hooks, first weights, norms, dropout and activations against PyTorch's; what they refuse; what the record says."""

import copy
import math
import warnings
from functools import partial

import pytest
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import exp.nb_06
from exp.nb_06 import *
from exp.nb_09 import Checkpoint
from tools import records
from tools.chapters import chapter

SEEDS = st.integers(0, 10_000)


def noise(*shape, seed=0, scale=1.0, shift=0.0):
    "Return normal random numbers that a seed decides."
    return shift + scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def passed(layer, x, g, training=True):
    "Return the output, the gradients of input and parameters, and what the layer remembers."
    x = x.clone().requires_grad_()
    y = layer.train(training)(x)
    y.backward(g)
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters()), *layer.buffers()]


def agree(ours, theirs, x, rtol=1e-4, atol=2e-5, training=True):
    "Tell whether two layers give the same, forward, backward and in what they remember."
    g = noise(*x.shape, seed=99).to(x)
    pairs = zip(passed(ours, x, g, training), passed(theirs, x, g, training), strict=True)
    return all(near(a, b, rtol, atol) for a, b in pairs)


def give_weights(*layers):
    "Give layers with the same parameters the same random ones."
    for layer in layers:
        for i, p in enumerate(layer.parameters()):
            p.data = noise(*p.shape, seed=i).to(p)


# Norms

SHAPES = st.sampled_from([(2, 5), (64, 5), (1, 5, 2), (7, 5, 9), (1, 5, 1, 2), (4, 5, 6, 7)])


@given(SHAPES, SEEDS, st.sampled_from([0.05, 1.0, 30.0]), st.sampled_from([0.0, 0.1, 0.37, 1.0]))
def test_batch_norm_is_pytorchs(shape, seed, scale, momentum):
    theirs = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)](5, momentum=momentum).double()
    ours = BatchNorm(5, momentum=momentum).double()
    give_weights(ours, theirs)
    for step in range(3):
        x = noise(*shape, seed=seed + step, scale=scale, shift=2.0).double()
        assert agree(ours, theirs, x, 1e-7, 1e-7)
    assert agree(ours, theirs, x, 1e-7, 1e-7, training=False)


@given(SHAPES, SEEDS)
def test_batch_norm_in_32_bits(shape, seed):
    if shape[0] == 2 or math.prod(shape) == 10:  # of two values, the gradient is rounding alone
        return
    theirs = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(5)
    assert agree(BatchNorm(5), theirs, noise(*shape, seed=seed, scale=3.0, shift=2.0), atol=1e-4)


def test_states_of_batch_norm_go_both_ways():
    ours, theirs, x = BatchNorm(5), nn.BatchNorm1d(5), noise(64, 5, scale=3.0)
    for _ in range(4):
        ours(x)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    again = BatchNorm(5)
    again.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.eval()(x), again.eval()(x)) and near(theirs.eval()(x), again(x), 1e-5, 1e-5)
    assert again.num_batches_tracked == 4 and not again.running_var.requires_grad


def test_batch_norm_refuses():
    norm = BatchNorm(5)
    for shape in ((5,), (8, 4), (8, 4, 5)):
        with pytest.raises(ValueError, match=rf"BatchNorm: found an input of shape \[{shape[0]}.*expected \[n, 5, …\]"):
            norm(torch.ones(shape))
    for shape in ((1, 5), (1, 5, 1, 1), (0, 5)):
        with pytest.raises(ValueError, match="BatchNorm: found . value of each feature, expected 2 or more"):
            norm(torch.ones(shape))
    assert norm.num_batches_tracked == 0 and norm.running_var.eq(1).all()
    assert norm.eval()(torch.ones(1, 5)).isfinite().all()
    for momentum in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="momentum: found"):
            BatchNorm(5, momentum=momentum)


@pytest.mark.parametrize("ours, theirs", [(LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)])
@given(st.sampled_from([(7, (7,)), ((3, 4), (3, 4)), (5, (2, 3, 5)), ((2, 3), (4, 5, 2, 3))]), SEEDS,
       st.sampled_from([0.01, 1.0, 30.0]))  # fmt: skip
def test_layer_norm_and_rms_norm_are_pytorchs(ours, theirs, shapes, seed, scale):
    shape, x = shapes[0], noise(6, *shapes[1], seed=seed, scale=scale, shift=1.0).double()
    pair = ours(shape).double(), theirs(shape).double()
    give_weights(*pair)
    assert agree(*pair, x, 1e-7, 1e-7) and agree(*pair, x, 1e-7, 1e-7, training=False)
    assert list(pair[0].state_dict()) == list(pair[1].state_dict())


@given(SEEDS, st.sampled_from([None, 1e-6, 0.1]))
def test_rms_norm_is_identical(seed, eps):
    x, g = noise(9, 33, seed=seed), noise(9, 33, seed=seed + 1)
    pair = RMSNorm(33, eps), nn.RMSNorm(33, eps)
    give_weights(*pair)
    assert all(torch.equal(a, b) for a, b in zip(*(passed(norm, x, g) for norm in pair), strict=True))


@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
def test_norms_of_samples_refuse_other_shapes(norm):
    for shape, x in ((5, (8, 4)), ((4, 5), (3, 5, 4)), ((4, 5), (5,))):
        with pytest.raises(ValueError, match=rf"{norm.__name__}: found an input of shape .*expected \[…, "):
            norm(shape)(torch.ones(x))


# Dropout


@given(st.sampled_from([0.0, 0.1, 0.5, 0.73, 0.99]), SEEDS, st.booleans())
def test_dropout_is_pytorchs_to_the_last_random_number(p, seed, training):
    found = []
    for layer in (Dropout(p), nn.Dropout(p)):
        torch.manual_seed(seed)
        found.append([*passed(layer, noise(3, 4, 5), noise(3, 4, 5, seed=1), training), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_a_share_that_cannot_be_dropped(p):
    with pytest.raises(ValueError, match="p: found .*, expected 0 or more, below 1"):
        Dropout(p)


# Activations

THEIRS = {relu: F.relu, leaky_relu: F.leaky_relu, sigmoid: torch.sigmoid, tanh: torch.tanh, silu: F.silu, gelu: F.gelu}


@pytest.mark.parametrize("ours", THEIRS, ids=lambda f: f.__name__)
@given(st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=20),
       st.sampled_from([torch.float32, torch.float64]))  # fmt: skip
def test_activations_are_pytorchs(ours, numbers, dtype):
    z = torch.tensor([*numbers, 0.0, -0.0, -1e4, 1e4], dtype=dtype, requires_grad=True)
    atol = 1e-12 if dtype == torch.float64 else 3e-6
    values = ours(z), THEIRS[ours](z)
    gradients = [torch.autograd.grad(value.sum(), z)[0] for value in values]
    assert near(*values, rtol=1e-5, atol=atol) and near(*gradients, rtol=1e-5, atol=atol)
    assert values[0].dtype == dtype


def test_relu_is_identical_and_its_layer_says_its_name():
    z = noise(50, 50)
    assert torch.equal(Activation(relu)(z), nn.ReLU()(z)) and "gelu" in repr(Activation(gelu))
    assert Activation(partial(leaky_relu, slope=0.2))(torch.tensor(-1.0)) == -0.2


def test_gains():
    known = {relu: 2**0.5, leaky_relu: nn.init.calculate_gain("leaky_relu", 0.01), torch.nn.functional.selu: 1.0}
    assert all(near(gain(f), value, rtol=1e-4) for f, value in known.items())
    z = noise(1_000_000).double()
    for f in THEIRS:
        assert near(gain(f), (1 / f(z).square().mean().sqrt()).item(), rtol=5e-3)


# First weights

PAIRS = [(xavier_normal_, nn.init.xavier_normal_), (xavier_uniform_, nn.init.xavier_uniform_),
         (kaiming_normal_, partial(nn.init.kaiming_normal_, nonlinearity="relu")),
         (kaiming_uniform_, partial(nn.init.kaiming_uniform_, nonlinearity="relu"))]  # fmt: skip


@pytest.mark.parametrize("ours, theirs", PAIRS)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), SEEDS)
def test_first_weights_are_pytorchs(ours, theirs, shape, seed):
    found = []
    for init in (ours, theirs):
        torch.manual_seed(seed)
        found += [init(torch.empty(shape)), torch.get_rng_state()]
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert fans(torch.empty(shape)) == nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_first_weights_change_the_weight_itself_and_need_no_gradient():
    weight = nn.Parameter(torch.zeros(3, 4))
    for init, _ in PAIRS:
        assert init(weight) is weight and weight.requires_grad and weight.grad_fn is None and weight.any()
        with pytest.raises(ValueError, match=r"found a weight of shape \[4\], expected \[out, in, …\]"):
            init(torch.empty(4))


def test_initialise_reaches_every_weight_and_leaves_the_norms():
    model = Sequential(nn.Conv2d(1, 4, 3), BatchNorm(4), nn.Sequential(nn.Linear(9, 3, bias=False), nn.Linear(3, 2)))
    before = copy.deepcopy(model.state_dict())
    assert initialise(model, nn.init.ones_) is model
    after = model.state_dict()
    assert all(after[name].eq(1).all() for name in ("0.weight", "2.0.weight", "2.1.weight"))
    assert not after["0.bias"].any() and not after["2.1.bias"].any()
    assert all(torch.equal(before[name], after[name]) for name in after if name.startswith("1."))


@given(st.sampled_from([0.001, 1.0, 20.0]), st.booleans(), SEEDS)
def test_lsuv_repairs(scale, bias, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 6, 3, bias=bias), Activation(silu), nn.Flatten(),
                          nn.Linear(216, 30, bias=bias), nn.Tanh(), Dropout(0.5), nn.Linear(30, 4))  # fmt: skip
    initialise(model, lambda weight: weight.normal_(0, scale))
    xb = noise(200, 1, 8, 8, seed=seed)
    before = torch.get_rng_state()
    assert lsuv(model, xb) is model and model.training and torch.equal(before, torch.get_rng_state())
    z = []
    weighted = [model[0], model[3], model[6]]
    with Hooks(weighted, lambda i, layer, output: z.append(output)):
        model.eval()(xb)
    assert all(abs(each.std() - 1) < 2e-3 for each in z) and all(not layer._forward_hooks for layer in weighted)
    assert all(abs(each.mean()) < 2e-3 for each, layer in zip(z, weighted) if layer.bias is not None)
    assert all(p.grad is None for p in model.parameters())


def test_lsuv_says_what_cannot_be_repaired():
    model = initialise(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.init.zeros_)
    with pytest.raises(ValueError, match="standard deviation 0, expected a number above 0"):
        lsuv(model, noise(8, 3))
    assert not model[0]._forward_hooks


# Hooks


def small_net(kind=Sequential):
    torch.manual_seed(1)
    inner = kind(nn.Linear(8, 8), nn.ReLU())
    return kind(nn.Linear(6, 8), BatchNorm(8), nn.ReLU(), inner, Dropout(0.2), nn.Linear(8, 3))


def problem(n=70):
    x = noise(n, 6, seed=n)
    return x, x[:, :3].argmax(1)


def learn(model, callbacks=(), n_epochs=3, lr=0.1):
    torch.manual_seed(3)
    x, y = problem()
    loader = DataLoader(Dataset(x, y), 16, True, torch.Generator().manual_seed(7), drop_last=True)
    learner = Learner(model, cross_entropy_loss, Adam(model.parameters(), lr), callbacks)
    learner.fit(loader, n_epochs, [(x, y)])
    return learner


def test_layers_of():
    class Deep(Model):
        def __init__(self):
            self.inner, self.last = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU())), nn.Linear(2, 2)

    model = Deep()
    assert layers_of(model, nn.ReLU) == [model.inner[0], model.inner[1][0]]
    assert layers_of(model)[0] is model and layers_of(model, (nn.Linear, Model)) == [model, model.last]
    assert layers_of(nn.Linear(2, 2), nn.ReLU) == []
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    assert layers_of(net) == list(net.modules())


def test_hooks_listen_and_stop():
    model, seen = small_net(), []
    layers = layers_of(model, nn.ReLU)
    with Hooks(layers, lambda i, layer, output: seen.append((i, layer, output.shape)) or 5):
        y = model(noise(4, 6))
        copy.deepcopy(model)(noise(4, 6))
    model(noise(4, 6))
    assert y.shape == (4, 3) and seen == [(0, layers[0], (4, 8)), (1, layers[1], (4, 8))]
    with pytest.raises(TypeError, match="Hooks: found a Sequential, expected layers that are nn.Modules"):
        Hooks([*layers, model], print)
    assert not any(layer._forward_hooks for layer in layers)
    hooks = Hooks(layers, lambda *_: None)
    hooks.remove()
    hooks.remove()


@pytest.mark.parametrize("kind", [Sequential, nn.Sequential])
def test_activations_change_nothing_and_count(kind):
    spies = Activations(bins=8, high=3.0)
    plain, spied = learn(small_net(kind)), learn(small_net(kind), [spies])
    assert plain.history.losses == spied.history.losses
    assert plain.history.valid_losses == spied.history.valid_losses
    assert [len(series[1]) for series in (spies.means, spies.stds, spies.silent, spies.hists)] == [12] * 4
    assert all(hist.sum() == 16 * 8 and len(hist) == 8 for hist in spies.hists[0])
    assert not any(layer._forward_hooks for layer in layers_of(spied.model, nn.Module))


def test_activations_twice_are_fresh_and_gone_after_an_error():
    class Stop(Callback):
        def after_batch(self, learner):
            raise KeyboardInterrupt

    spies, model = Activations(), small_net()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            learn(model, [spies, Stop()])
        assert len(spies.stds[0]) == 1 and not layers_of(model, nn.ReLU)[0]._forward_hooks
    with pytest.raises(ValueError, match="Activations: found no .*Tanh"):
        learn(model, [Activations(nn.Tanh)])


def test_an_average_that_copies_the_model_is_not_recorded():
    spies = Activations()
    learner = learn(small_net(), [spies, average := Average(0.5)])
    average.model.train()(noise(8, 6))
    assert [len(stds) for stds in spies.stds] == [12, 12] and learner.history.valid_losses


# Together: Learner, Checkpoint, to


def test_an_interrupted_run_with_all_layers_is_resumed_to_the_same_bits(tmp_path):
    class Stop(Callback):
        def after_batch(self, learner):
            if learner.step == 7:
                raise CancelFit

    def run(*more):
        spies = Activations(nn.ReLU)
        return learn(small_net(), [spies, *more], lr=0.02), spies

    whole, spies = run()
    run(Stop(), Checkpoint(tmp_path / "run", every=1))
    resumed, again = run(Checkpoint(tmp_path / "run", every=1, resume=True))
    assert resumed.history.losses == whole.history.losses
    assert resumed.history.valid_losses == whole.history.valid_losses
    assert again.stds == spies.stds and all(torch.equal(a, b) for a, b in zip(again.hists[1], spies.hists[1]))


def test_they_move_with_the_model_and_stand_in_both_kinds_of_sequential():
    for kind in (Sequential, nn.Sequential):
        model = kind(BatchNorm(4), LayerNorm(4), RMSNorm(4), Dropout(0.1), Activation(silu)).to("meta")
        assert all(value.device.type == "meta" for value in model.state_dict().values())
    one, other = small_net(), small_net(nn.Sequential)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(noise(5, 6)), other.eval()(noise(5, 6)))
    x = noise(3, 8).double()
    assert nn.Sequential(LayerNorm(8), RMSNorm(8), BatchNorm(8)).double()(x).dtype == torch.float64


def test_deep_mlp():
    model = deep_mlp(4, nn.Tanh, BatchNorm, width=7, n_in=5, n_out=2)
    assert model(noise(3, 5)).shape == (3, 2)
    kinds = [nn.Linear, BatchNorm, nn.Tanh] * 3 + [nn.Linear]
    assert [type(layer) for layer in model] == kinds and len({id(layer) for layer in model}) == 10
    assert [type(layer) for layer in deep_mlp(1)] == [nn.Linear]
    with pytest.raises(ValueError, match="depth: found 0, expected 1 or more"):
        deep_mlp(0)


def test_its_names_do_not_hide_those_of_the_chapters_below():
    before, own = __import__("exp.nb_05", fromlist=["x"]), exp.nb_06
    changed = [name for name in before.__all__ if getattr(before, name) is not getattr(own, name)]
    assert changed == []


# The record


def test_the_chapter_shows_what_the_record_holds():
    record = records.module("normalisation")
    sources = [cell.source for cell in chapter("06").code_cells]
    for name, rows in record.texts(records.stored("normalisation")["runs"]).items():
        text = '"""\n' + "\n".join(rows) + '\n"""'
        assert sum(text in source for source in sources) == 1, f"{name}: the chapter shows other numbers"
    assert f"{len(record.settings())} runs" in "".join(cell.source for cell in chapter("06").cells)


# What a first reader found


def test_relu_lets_nan_pass():
    z = torch.tensor([math.nan, -1.0, 0.0, 2.0], requires_grad=True)
    assert relu(z)[0].isnan() and torch.equal(relu(z)[1:], torch.relu(z)[1:])
    assert torch.autograd.grad(relu(z).sum(), z)[0][1:].tolist() == [0.0, 0.0, 1.0]


def test_hooks_take_layers_from_a_generator():
    model, seen = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), []
    with Hooks(model.children(), lambda i, layer, output: seen.append(i)):
        model(torch.zeros(1, 2))
    assert seen == [0, 1]


def test_an_activation_is_made_of_a_function_not_of_a_class():
    with pytest.raises(TypeError, match=r"Activation: found the class GELU, expected a function, or GELU\(\)"):
        Activation(nn.GELU)
    assert Activation(nn.GELU())(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_lsuv_scales_a_weight_without_a_bias():
    embedding = nn.Embedding(7, 30)
    lsuv(nn.Sequential(embedding), torch.arange(7))
    assert near(embedding.weight.std(), torch.tensor(1.0), rtol=2e-3)


def test_lsuv_leaves_the_mode_as_it_was_when_it_refuses():
    model = nn.Sequential(nn.Linear(3, 3))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    with pytest.raises(ValueError, match="expected a number above 0"):
        lsuv(model.train(), torch.ones(4, 3))
    assert model.training


# What an adversary tried


NORMS = [(BatchNorm, nn.BatchNorm1d), (LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)]


@pytest.mark.parametrize("ours, theirs", NORMS)
def test_norms_take_16_bits_beside_a_weight_of_32(ours, theirs):
    "As PyTorch's to the bit; for parameters the gradients in 64 bits: those of its LayerNorm are off by a hundredth."
    x, g = noise(64, 32, scale=3.0, shift=1.0).bfloat16(), noise(64, 32, seed=9).bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's RMSNorm: no fused way
        found, wanted = passed(ours(32), x, g), passed(theirs(32), x, g)
    exact = passed(theirs(32).double(), x.double(), g.double())
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    assert all(near(a.float(), b.float(), rtol=8e-3, atol=1e-3) for a, b in zip(found[:2], wanted[:2]))
    assert all(near(a.double(), b.double(), rtol=1e-4, atol=1e-4) for a, b in zip(found[2:], exact[2:]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Sequential(nn.Linear(32, 32), ours(32))(x.float()).dtype == torch.bfloat16


@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm, RMSNorm])
def test_norms_refuse_types_that_lose_digits_and_settings_that_no_norm_has(norm):
    for x in (torch.ones(8, 5).double(), torch.ones(8, 5).long(), torch.ones(8, 5) > 0):
        with pytest.raises(TypeError, match=rf"{norm.__name__}: found an input of torch\.\w+, beside a weight of"):
            norm(5)(x)
    with pytest.raises(ValueError, match="eps: found -1, expected 0 or more"):
        norm(5, eps=-1)
    for shape in (0, -3, ()):
        with pytest.raises(ValueError, match="found the shape .*, expected numbers of 1 or more"):
            norm(shape)


def test_momentum_and_share_that_are_no_numbers():
    for momentum in (None, "0.1"):
        with pytest.raises(ValueError, match="momentum: found .*, expected 0 to 1"):
            BatchNorm(5, momentum=momentum)
    with pytest.raises(ValueError, match="p: found None, expected 0 or more, below 1"):
        Dropout(None)


@given(SEEDS)
def test_views_that_are_not_contiguous(seed):
    x = noise(7, 6, 9, seed=seed).transpose(1, 2)[:, ::3]  # [7, 3, 6]
    assert not x.is_contiguous()
    for (ours, theirs), n in zip(NORMS, (3, 6, 6)):
        assert agree(ours(n), theirs(n), x, atol=1e-4)
    found = []
    for layer in (Dropout(0.4), nn.Dropout(0.4)):
        torch.manual_seed(seed)
        found.append(layer(x))
    assert torch.equal(*found)
    weight = torch.empty(6, 4).T
    torch.manual_seed(seed)
    ours = kaiming_normal_(weight).clone()
    torch.manual_seed(seed)
    assert torch.equal(ours, nn.init.kaiming_normal_(torch.empty(6, 4).T, nonlinearity="relu"))


def test_a_short_last_mini_batch_counts_as_pytorch_counts_it():
    ours, theirs = BatchNorm(5).double(), nn.BatchNorm1d(5).double()
    for epoch in range(3):
        for n in (64, 64, 3):
            for layer in (ours, theirs):
                layer(noise(n, 5, seed=epoch, scale=2.0, shift=3.0).double())
    assert all(near(a, b, 1e-9, 1e-9) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))


def test_frozen_norms_and_copies():
    norm = BatchNorm(5)
    norm.requires_grad_(False)
    x = noise(8, 5).requires_grad_()
    norm(x).sum().backward()
    assert x.grad is not None and norm.weight.grad is None and norm.num_batches_tracked == 1
    other = copy.deepcopy(norm)
    other(noise(8, 5, seed=1))
    assert norm.num_batches_tracked == 1 and other.num_batches_tracked == 2
    with torch.inference_mode():
        assert norm.eval()(noise(1, 5)).shape == (1, 5)


def test_norms_of_two_dimensions_keep_their_weights():
    for norm in (LayerNorm((2, 3)), RMSNorm((2, 3)), nn.LayerNorm((2, 3)), nn.RMSNorm((2, 3))):
        model = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), norm)
        lsuv(initialise(model), noise(50, 4))
        assert model[2].weight.eq(1).all()


def test_a_weight_that_is_computed_from_others_is_filled():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    initialise(layer, nn.init.ones_)
    assert near(layer.weight, torch.ones(3, 4), rtol=1e-6) and not layer.bias.any()


def test_models_without_weights_and_lists_are_refused():
    for do in (initialise, partial(lsuv, xb=torch.ones(2, 3))):
        with pytest.raises(ValueError, match="found no weight of two or more dimensions in a ReLU"):
            do(nn.ReLU())
        with pytest.raises(TypeError, match="layers_of: found a list, expected a model or a layer"):
            do([nn.Linear(3, 3)])
    for shape in ((3, 0), (0, 3)):
        with pytest.raises(ValueError, match="found a weight of shape"):
            kaiming_normal_(torch.empty(shape))


def test_lsuv_refuses_layers_that_are_used_never_or_twice():
    class Two(nn.Module):
        def __init__(self, calls):
            super().__init__()
            self.layer, self.calls = nn.Linear(6, 6), calls

        def forward(self, x):
            for _ in range(self.calls):
                x = self.layer(x)
            return x

    for calls in (0, 2):
        model = Two(calls)
        with pytest.raises(ValueError, match=rf"Linear.*: found {calls} calls in a forward pass, expected 1"):
            lsuv(model, noise(20, 6))
        assert model.training and not model.layer._forward_hooks


def test_lsuv_says_when_it_has_not_got_there():
    class Stubborn(nn.Linear):
        def forward(self, x):
            return 3 * nn.functional.normalize(super().forward(x)) * x.shape[1] ** 0.5

    with pytest.raises(ValueError, match="found standard deviation .* after 10 rounds, expected 1"):
        lsuv(nn.Sequential(Stubborn(64, 64, bias=False)), noise(200, 64))


def test_lsuv_leaves_each_layer_in_its_mode_after_errors_too():
    model = nn.Sequential(nn.Linear(9, 9), nn.BatchNorm1d(9), nn.Dropout(0.5)).train()
    model[1].eval()  # frozen
    lsuv(model, noise(60, 9))
    assert [layer.training for layer in model] == [True, False, True] and model.training
    with pytest.raises(RuntimeError):
        lsuv(model, noise(60, 8))
    assert [layer.training for layer in model] == [True, False, True] and not model[0]._forward_hooks


def test_deep_mlp_says_what_it_needs():
    for activation in (gelu, nn.ReLU(), 3):
        with pytest.raises(TypeError, match="activation: found .*, expected what makes a layer"):
            deep_mlp(3, activation)
    for norm in (nn.BatchNorm1d(128), True):
        with pytest.raises(TypeError, match="norm: found .*, expected what makes a layer"):
            deep_mlp(3, norm=norm)
    with pytest.raises(ValueError, match="width: found 0, expected 1 or more"):
        deep_mlp(3, width=0)


def test_gain_refuses_what_has_none():
    for f in (torch.zeros_like, torch.sqrt, torch.sum):
        with pytest.raises(ValueError, match="gain: found outputs of shape .*, expected a number for each z"):
            gain(f)
    with pytest.raises(TypeError, match=r"gain: found the class GELU, expected a function, or GELU\(\)"):
        gain(nn.GELU)
    with pytest.raises(TypeError, match="Activation: found 'gelu', expected a function"):
        Activation("gelu")
    assert near(gain(nn.ReLU(inplace=True)), 2**0.5, rtol=1e-4)


def test_relu_keeps_whole_numbers():
    assert torch.equal(relu(torch.tensor([-1, 0, 2])), torch.relu(torch.tensor([-1, 0, 2])))
    assert relu(torch.tensor([-1, 0, 2])).dtype == torch.int64


def test_activations_say_what_they_cannot_measure():
    spies = Activations()
    assert spies.means == spies.hists == []
    for bins, low, high in ((0, 0.0, 1.0), (5, 1.0, 1.0), (5, 2.0, 1.0)):
        with pytest.raises(ValueError, match="Activations: found . bins from"):
            Activations(bins=bins, low=low, high=high)
    x = torch.zeros(3, 4, 5)
    with pytest.raises(ValueError, match=r"found an output of shape \[3, 4, 5\]: say dim=-1"):
        spies.by_unit(x)
    assert Activations(dim=-1).by_unit(x).shape == (12, 5) and Activations(dim=1).by_unit(x).shape == (15, 4)
    with pytest.raises(TypeError, match="Activations: found a tuple as output, expected a tensor"):
        spies.by_unit((x, x))
    with pytest.raises(ValueError, match="Hooks: found no layers"):
        Hooks([], print)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("event", ["before_fit", "before_batch", "after_loss", "before_valid", "after_fit"])
def test_no_hook_stays_whenever_a_run_breaks(error, event):
    def stop(self, learner):
        raise error

    model = small_net()
    for order in (1, -1):
        callbacks = [Activations(), type("Stop", (Callback,), {event: stop})()][::order]
        with pytest.raises(error):
            learn(model, callbacks)
        assert not any(layer._forward_hooks for layer in layers_of(model, nn.Module))
