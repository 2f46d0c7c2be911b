"""Blocks, networks, augmentation, soft labels against PyTorch's; recipes, and records that can be checked anywhere."""

import functools
import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import exp.nb_08
from exp.nb_08 import *
from exp.nb_08 import F
from exp.nb_09 import Checkpoint
from tools.chapters import ROOT


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    "Return a little of what looks like the data: 60,000 labels, and images that share their memory."
    x = torch.randn(64, 1, 28, 28, generator=seeded())
    return x.repeat(938, 1, 1, 1)[:60_000], torch.arange(60_000) % 10


TINY = RECIPE | {"images": 640, "plan": "conv 8 2, block 16 2, mean, linear 10", "epochs": 2}


# Blocks and networks


@given(n_in=st.integers(1, 4), more=st.integers(0, 4), stride=st.integers(1, 3), side=st.integers(3, 9))
def test_a_shortcut_without_weights_fits_the_block(n_in, more, stride, side):
    x = torch.randn(2, n_in, side, side)
    block = Block(n_in, n_in + more, stride, shortcut="zeros")
    assert block(x).shape == block.shortcut(x).shape
    assert torch.equal(block.shortcut(x)[:, :n_in], x[:, :, ::stride, ::stride])


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d])
@pytest.mark.parametrize("shortcut", [None, "zeros", "conv"])
def test_a_block_is_its_formula(norm, shortcut):
    x, block = torch.randn(3, 4, 6, 6), Block(4, 8, 2, norm, shortcut)
    f = block.norm2(block.conv2(block.norm1(block.conv1(x)).relu()))
    expected = (f + block.shortcut(x)).relu() if shortcut else f.relu()
    assert near(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("norm", [None, nn.BatchNorm2d])
def test_a_stack_that_starts_as_nothing_is_the_identity(norm):
    stack = nn.Sequential(*(Block(4, 4, 1, norm, "zeros") for _ in range(3)))
    x = torch.rand(2, 4, 5, 5)
    for layer in layers_of(stack, nn.BatchNorm2d if norm else nn.Conv2d):
        nn.init.constant_(layer.bias, 0.3)
    assert torch.equal(start_as_identity(stack)(x), x)


@pytest.mark.parametrize("block", [
    Block(4, 4), Block(4, 4, norm=lambda n: nn.BatchNorm2d(n, affine=False), shortcut="zeros"),
])  # fmt: skip
def test_a_block_that_would_be_dead_is_no_identity(block):
    block = block if block.norm2.weight is None else Block(4, 4, shortcut=None)
    with pytest.raises(ValueError, match="start_as_identity: found a block"):
        start_as_identity(nn.Sequential(block))


@pytest.mark.parametrize("depth", [8, 14, 20, 32])
def test_a_plan_has_its_depth(depth):
    model = network(stack_plan(depth))
    assert len(layers_of(model, (nn.Conv2d, nn.Linear))) == depth
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("plan", [
    "", "conv", "conv x", "conv 8,block 8", "Conv 8", "conv 8, , mean", "conv 8, ", "conv 8 2 3", "mean 3", "conv 0",
    "conv 8 0", "pool 0", "flat", "linear", "relu 1", "conv ²",
])  # fmt: skip
def test_a_plan_that_means_nothing(plan):
    with pytest.raises(ValueError, match="plan: found "):
        network(plan)


def test_a_stack_has_three_stages():
    with pytest.raises(ValueError, match="widths: found 2, expected three"):
        stack_plan(8, (16, 32))


def test_more_words_of_plans():
    x = torch.randn(2, 3, 8, 8)
    assert near(network("max", channels=3)(x), x.amax((2, 3)))
    assert near(network("mean", channels=3)(x), x.mean((2, 3)), atol=1e-6)
    assert near(network("pool 2", channels=3)(x), F.max_pool2d(x, 2))
    assert network("flat 64, linear 5, relu", channels=3)(x).shape == (2, 5)


def test_he_weights_are_even_and_of_the_right_variance():
    weight = he_(torch.empty(200, 50, 3, 3), seeded())
    assert near(weight.var(), 2 / 450, rtol=0.02) and near(weight.abs().max(), (6 / 450) ** 0.5, rtol=1e-3)
    assert torch.equal(weight, he_(torch.empty(200, 50, 3, 3), seeded()))


# Augmentation

CHANGES = [random_flip, random_shift, random_erase, random_affine]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_change_keeps_form_and_argument_and_can_be_had_again(change, dtype):
    x = torch.randn(16, 2, 28, 28, generator=seeded(), dtype=dtype)
    kept, found = x.clone(), change(x, seeded(1))
    assert found.shape == x.shape and found.dtype == dtype and torch.equal(x, kept)
    assert torch.equal(found, change(x, seeded(1))) and not torch.equal(found, change(x, seeded(2)))
    torch.manual_seed(0)
    assert not torch.equal(change(x), change(x))  # PyTorch's own chances go on


@given(n=st.integers(1, 6), most=st.integers(0, 4), seed=st.integers(0, 99))
def test_a_shift_is_a_window_of_each_padded_channel(n, most, seed):
    x = torch.randn(n, 2, 9, 7, generator=seeded(seed))
    down, right = torch.randint(0, 2 * most + 1, (2, n), generator=seeded(seed)).tolist()
    lows, found = x.amin((0, 2, 3)).tolist(), random_shift(x, seeded(seed), most)
    for image, own, i, j in zip(x, found, down, right):
        for channel, part, low in zip(image, own, lows):
            padded = F.pad(channel, [most] * 4, value=low)
            assert torch.equal(part, padded[i : i + 9, j : j + 7])


@given(size=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_hole_is_a_square_inside(size, seed):
    x = torch.randn(12, 2, 8, 9, generator=seeded(seed))
    changed = random_erase(x, seeded(seed), size, p=1.0) != x
    assert (changed.flatten(1).sum(1) == 2 * size * size).all()


def test_a_rotation_makes_no_value_darker_or_brighter():
    x = torch.rand(40, 1, 8, 8)
    turned = random_affine(x, seeded(), degrees=90, scale=0.3)
    assert x.min() - 1e-6 <= turned.min() and turned.max() <= x.max() + 1e-6


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("x", [torch.rand(8, 28, 28), torch.rand(8, 784), torch.rand(0, 1, 4, 4),
                               torch.zeros(8, 1, 28, 28, dtype=torch.uint8)])  # fmt: skip
def test_what_are_no_images_is_refused(change, x):
    with pytest.raises(ValueError, match="images: found .*expected floats"):
        change(x)


@pytest.mark.parametrize("do, words", [
    (lambda x: random_flip(x, p=50), "p: found 50"), (lambda x: random_erase(x, p=float("nan")), "p: found nan"),
    (lambda x: random_erase(x, size=29), "size: found 29, expected 1 to 28"),
    (lambda x: random_erase(x, size=-3), "size: "), (lambda x: random_shift(x, most=-1), "most: found -1"),
    (lambda x: mirrored(nn.Flatten())(x.flatten(1)), "images: "),
])  # fmt: skip
def test_a_strength_that_cannot_be_is_refused(do, words):
    with pytest.raises(ValueError, match=words):
        do(torch.rand(4, 1, 28, 28))


@pytest.mark.parametrize("change", [random_shift, functools.partial(random_affine, degrees=0, scale=0.5)])
def test_each_channel_has_its_own_ground(change):
    "Black, normalised channel by channel, stays black: nothing comes in from outside but each channel's darkest."
    ground = torch.tensor([-2.1, -2.0, -1.8]).view(1, 3, 1, 1)
    assert near(change(ground.expand(16, 3, 9, 12).clone(), seeded()), ground.expand(16, 3, 9, 12), atol=1e-5)


def test_a_rotation_is_one_on_images_that_are_not_square():
    "A bar through the middle, twice as far one way as the other: its tilt is the angle that was drawn."
    x = torch.zeros(24, 1, 64, 128)
    x[:, :, 31:33, 40:88] = 1.0
    turned = random_affine(x, seeded(3), degrees=25, scale=0)[:, 0]
    angles = (torch.rand(2, 24, generator=seeded(3)) * 2 - 1)[0] * 25
    rows, columns = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(128.0) - 63.5, indexing="ij")
    tilts = (turned * rows * columns).sum((1, 2)) / (turned * (columns**2 - rows**2)).sum((1, 2))
    found = torch.rad2deg(0.5 * torch.atan(2 * tilts))
    assert near(found.abs(), angles.abs(), atol=1.5) and (found * angles < 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_places_are_computed_in_32_bits(dtype):
    x = torch.rand(4, 1, 28, 28, generator=seeded()).to(dtype)
    found = random_affine(x, seeded(), degrees=0, scale=0)
    assert found.dtype == dtype and near(found.float(), x.float(), atol=0.01)


def test_a_square_image_turns_as_it_did():
    "The record of augmentation was made so: one ground, no ratio of the sides."
    x = torch.randn(8, 1, 28, 28, generator=seeded())
    angle, size = torch.rand(2, 8, generator=seeded(1)) * 2 - 1
    angle, size = angle * math.radians(10), 1 + size * 0.1
    cos, sin, zero = angle.cos() * size, angle.sin() * size, torch.zeros(8)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    old = F.grid_sample(x - x.min(), grid, align_corners=False) + x.min()
    assert torch.equal(random_affine(x, seeded(1)), old)


def test_callbacks_take_what_they_can_use():
    for wrong in (lambda: Augment(generator=seeded()), lambda: Augment(3, generator=seeded()), lambda: Mixup(0.4, None),
                  lambda: Augment(random_flip, generator=7)):  # fmt: skip
        with pytest.raises(TypeError, match="(Augment|Mixup): found"):
            wrong()


@pytest.mark.parametrize("labels", [torch.zeros(6, 1, dtype=torch.int64), torch.zeros(6, 3, dtype=torch.int64),
                                    torch.zeros(2, 3, 4)])  # fmt: skip
def test_labels_of_another_form_are_no_shares(labels):
    with pytest.raises(ValueError, match="labels: found"):
        as_shares(labels)


def test_mixed_and_softened_shares_sum_to_one_for_any_number_of_classes():
    "Smoothing behind Mixup divides by as many classes as there are."
    class Seen(Callback):
        state_names = ()

        def after_loss(self, learner):
            self.y = learner.yb

    x, y, seen = torch.randn(64, 1, 4, 4), torch.arange(64) % 7, Seen()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 7))
    callbacks = [Mixup(0.4, seeded(), classes=7), Smoothing(0.1), seen]
    Learner(model, soft_cross_entropy, SGD(model.parameters()), callbacks).fit(DataLoader(Dataset(x, y), 32))
    assert near(seen.y.sum(1), torch.ones(32)) and seen.y.min() > 0.01


def test_labels_of_sequences_are_chapter_02s():
    logits, y = torch.randn(4, 5, 3, generator=seeded()), torch.arange(20).view(4, 5) % 3
    assert near(soft_cross_entropy(logits, y), F.cross_entropy(logits.flatten(0, 1), y.flatten()))


def test_soft_labels_are_pytorchs():
    logits, y = torch.randn(8, 10, requires_grad=True), torch.arange(8)
    shares = torch.softmax(torch.randn(8, 10), 1)
    for target in (y, shares):
        ours, theirs = soft_cross_entropy(logits, target), F.cross_entropy(logits, target)
        assert near(ours, theirs, rtol=1e-5)
        (mine,), (its,) = (torch.autograd.grad(loss, logits) for loss in (ours, theirs))
        assert near(mine, its, atol=1e-6)
    assert torch.equal(as_shares(y), F.one_hot(y, 10).float()) and as_shares(shares) is shares


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_beta_has_the_moments_of_pytorchs(alpha):
    chance = seeded(3)
    drawn = torch.tensor([beta(alpha, chance) for _ in range(4_000)])
    theirs = torch.distributions.Beta(alpha, alpha)
    assert 0 <= drawn.min() and drawn.max() <= 1
    assert near(drawn.mean(), theirs.mean, atol=0.03) and near(drawn.var(), theirs.variance, rtol=0.1)


# Recipes and records


@pytest.mark.parametrize("change", [
    {"augment": {"flip": 0.5}}, {"augment": {"shift": 2, "erase": 4, "rotate": 5}}, {"mixup": 0.4},
    {"smoothing": 0.1}, {"optimiser": "SGD", "momentum": 0.9}, {"rate": "constant"}, {"bits": 16}, {"bits": 64},
    {"norm": "none", "start": "measured"}, {"start": "identity"}, {"shortcut": "conv"}, {"shortcut": None},
])  # fmt: skip
def test_a_recipe_says_all(change, data):
    recipe = json.loads(json.dumps(TINY | change))
    torch.manual_seed(0)
    first = first_losses(recipe, 7, data)  # more than one epoch
    torch.manual_seed(1)
    torch.rand(3)
    assert first == first_losses(recipe, 7, data) and len(first) == 7
    learner, train, valid = prepare(recipe, data)
    assert learner.fit(train, recipe["epochs"]).losses[:5] == first[:5]
    assert first != first_losses(recipe | {"seed": 1}, 7, data)


@pytest.mark.parametrize("recipe", [{}, TINY | {"more": 1}, {k: v for k, v in TINY.items() if k != "seed"}])
def test_a_recipe_is_whole(recipe):
    with pytest.raises(ValueError, match="missing or too much"):
        prepare(recipe, (torch.zeros(60_000, 1, 1, 1), torch.zeros(60_000).long()))


@pytest.mark.parametrize("change", [
    {"data": "cifar"}, {"rate": "one_cycle"}, {"optimiser": "Adam"}, {"bits": 7}, {"bits": "16"}, {"images": 60_000},
    {"images": -5}, {"augment": {"flop": 1}}, {"start": "warm"}, {"norm": "layer"},
])  # fmt: skip
def test_a_word_of_a_recipe_that_means_nothing(change, data):
    [name] = change
    with pytest.raises(ValueError, match=f"{name}: found"):
        prepare(TINY | change, data)


def test_the_labels_of_a_recipe_are_its_own():
    _, y = data_of(RECIPE)
    y[:] = 0
    assert data_of(RECIPE)[1].unique().tolist() == [*range(10)]


def with_callbacks(*callbacks):
    "Return a small learner, and its loader."
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    x, y = torch.randn(64, 1, 28, 28, generator=seeded()), torch.arange(64) % 10
    learner = Learner(model, soft_cross_entropy, SGD(model.parameters()), list(callbacks))
    return learner, DataLoader(Dataset(x, y), 16)


def flips(*more, p=None):
    "Return a list of one callback that flips."
    first = random_flip if p is None else functools.partial(random_flip, p=p)
    return [Augment(first, *more, generator=seeded())]


@pytest.mark.parametrize("first, second", [
    (flips, lambda: flips(p=0.9)), (flips, lambda: flips(random_shift)),
    (lambda: [Smoothing(0.1)], lambda: [Smoothing(0.4)]), (lambda: [Smoothing(0.1)], list),
    (lambda: [Mixup(0.4, seeded())], lambda: [Mixup(1.5, seeded())]),
])  # fmt: skip
def test_a_run_is_not_resumed_with_other_changes(first, second, tmp_path):
    learner, loader = with_callbacks(*first(), Checkpoint(tmp_path / "run"))
    learner.fit(loader)
    same, _ = with_callbacks(*first(), Checkpoint(tmp_path / "run", resume=True))
    same.fit(loader, 2)
    other, _ = with_callbacks(*second(), Checkpoint(tmp_path / "run", resume=True))
    with pytest.raises(ValueError, match="found"):
        other.fit(loader, 3)


def test_a_resumed_run_with_every_chance_has_the_same_bits(data, tmp_path):
    recipe = TINY | {"augment": {"flip": 0.5, "shift": 1, "erase": 8}, "mixup": 0.4, "smoothing": 0.1}
    learner, train, _ = prepare(recipe, data)
    whole = learner.fit(train, 2).losses

    def part(epochs, stop=None):
        learner, train, _ = prepare(recipe, data)
        if stop:
            learner.callbacks.append(Stop(stop))
        learner.callbacks.append(Checkpoint(tmp_path / "run", every=2, resume=True))
        return learner.fit(train, epochs).losses

    class Stop(Callback):
        state_names = ()

        def __init__(self, at):
            self.at = at

        def after_batch(self, learner):
            if learner.step == self.at:
                raise CancelFit

    assert part(2, stop=7) == whole[:7]
    assert part(2) == whole


PROGRAM = """
import json, sys, torch
torch.set_num_threads(1)
from exp.nb_08 import *
x = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0)).repeat(938, 1, 1, 1)[:60_000]
print(json.dumps([fingerprint(recipe, 20, (x, torch.arange(60_000) % 10)) for recipe in json.loads(sys.argv[1])]))
"""


def elsewhere(recipes, **environment):
    "Return fingerprints made in a process that pretends to be another processor."
    run = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(recipes)], env=os.environ | environment, cwd=ROOT,
                         capture_output=True, text=True, check=True, encoding="utf-8")  # fmt: skip
    return json.loads(run.stdout)


def test_a_fingerprint_is_the_same_without_avx2():
    recipes = [TINY | {"augment": {"flip": 0.5, "shift": 1, "rotate": 10}, "mixup": 0.4, "smoothing": 0.1},
               TINY | {"norm": "none", "start": "measured", "augment": {"erase": 8}}]  # fmt: skip
    here = elsewhere(recipes)
    for names in ({"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"},
                  {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "AVX2"}):  # fmt: skip
        for own, other in zip(here, elsewhere(recipes, **names)):
            assert max(abs(a - b) for a, b in zip(own, other)) < 1e-9, names


def test_a_record_of_another_run_is_refused(data):
    run = {"setting": TINY, "fingerprint": fingerprint(TINY, 6, data)}
    run["first"] = [float(f"{loss:.9g}") for loss in first_losses(TINY, 6, data)]
    assert check_record(run, 6, data) == (0, 6)
    for change in ({"lr": 0.010001}, {"seed": 1}, {"weight_decay": 0.0}, {"epochs": 3}, {"images": 639}):
        with pytest.raises(AssertionError, match="found another run: from mini-batch"):
            check_record(run | {"setting": TINY | change}, 6, data)


def test_the_record_of_an_honest_run_is_all_equal(data):
    run = {"setting": TINY, "fingerprint": fingerprint(TINY, 6, data), "first": first_losses(TINY, 6, data)}
    assert check_record(run, 6, data) == (0, 6)
    with pytest.raises(AssertionError, match="found first losses"):
        check_record(run | {"first": [99.0] * 6}, 6, data)
    for part in ({"first": []}, {"fingerprint": run["fingerprint"][:3]}):
        with pytest.raises(ValueError, match="expected 6 of each"):
            check_record(run | part, 6, data)


def test_importing_reads_no_file():
    assert exp.nb_08._read.cache_info().currsize in (0, 1)
    code = "import exp.nb_08 as m; assert m._read.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_mirrored_is_the_mean_of_both():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)), torch.randn(4, 1, 28, 28)
    assert near(mirrored(model)(x), mirrored(model)(x.flip(-1)), atol=1e-6)


def test_a_narrow_shortcut_does_not_crash(data):
    "PyTorch 2.13 ends the process in backward there, with channels last, on a processor without AVX-512."
    recipe = RECIPE | {"images": 640, "plan": "conv 4 2, block 8 2, mean, linear 10", "shortcut": "conv", "epochs": 1}
    assert len(elsewhere([recipe])[0]) == 20
