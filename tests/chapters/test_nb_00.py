"""The workbench: `near`, `History`, `same`, `show_diff`, `method_of`, `Table`, `ledger`, `LiveOutput`, `exercise`."""

import builtins
import contextlib
import copy
import difflib
import functools
import inspect
import json
import math
import os
import pydoc
import random
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch.utils.data
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.text import Text

import exp.nb_00
from exp.nb_00 import *

floats = st.floats(-1e6, 1e6, width=32)


def made_up(n=60, name="made up", seed=1):
    "Make a history that looks like training."
    rng, history = random.Random(seed), History(name)
    for step in range(n):
        history.add(2.3 * math.exp(-step / 20) + 0.1 * rng.random(), rng.random(), 64)
    return history


def test_set_seed_repeats_all_generators():
    import numpy

    def draw():
        set_seed(3)
        return torch.rand(2).tolist(), random.random(), numpy.random.rand()

    assert draw() == draw()


# near


@given(st.lists(floats, max_size=5), st.lists(floats, max_size=5))
def test_near_is_allclose_of_equal_shapes(a, b):
    a, b = torch.tensor(a), torch.tensor(b)
    expected = a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-8)
    assert near(a, b) is expected


@given(st.lists(floats, min_size=1, max_size=5))
def test_near_never_broadcasts(a):
    a = torch.tensor(a)
    assert near(a, a) and not near(a, a[None]) and not near(a[None], a)


def test_near_takes_numbers_lists_types_and_gradients():
    assert near(1, 1.0) and near([1.0, 2.0], torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert near(torch.ones(2, requires_grad=True), torch.ones(2)) and near(True, True)
    assert not near(math.nan, math.nan) and near(math.inf, math.inf) and not near(math.inf, -math.inf)


# History


@given(st.lists(st.tuples(floats, st.integers(1, 100)), min_size=1, max_size=20))
def test_epoch_means_weigh_by_size(batches):
    values, sizes = map(list, zip(*batches))
    samples = torch.cat([torch.full((n,), v, dtype=torch.float64) for v, n in batches])
    assert near(epoch_means(values, sizes, [len(values)])[0], samples.mean(), rtol=1e-9, atol=1e-6)


def test_history_knows_its_epochs_and_the_unfinished_one():
    history = History()
    for epoch in range(2):
        history.add(1.0 + epoch, 0.5, 3)
        history.add(5.0 + epoch, 0.1, 1)
        history.end_epoch()
    assert train_losses(history) == [2.0, 3.0] and near(train_accs(history), [0.4, 0.4])
    history.add(9.0, 1.0, 2)
    assert train_losses(history) == [2.0, 3.0, 9.0]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_a_loss_that_is_not_finite_is_named_with_epoch_and_batch(loss):
    history = made_up(2)
    history.end_epoch()
    history.add(9.0, 0.5, 64)
    with pytest.raises(FloatingPointError, match=r"epoch 2, mini-batch 2.*smaller learning rate"):
        history.add(loss, 0.5, 64)
    assert len(history.losses) == len(history.accs) == len(history.sizes) == 3


def drawn(own):
    "Draw from every source of random numbers that training may use."
    np = sys.modules["numpy"]
    return random.random(), torch.rand(()).item(), np.random.rand(), torch.rand((), generator=own).item()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("hold", [
    lambda own: own,
    lambda own: torch.utils.data.DataLoader([1, 2], sampler=torch.utils.data.RandomSampler([1, 2], generator=own)),
    lambda own: [(1, {"deep": own})],
], ids=["itself", "in a sampler", "in a dict"])
def test_undisturbed_puts_every_source_back(hold, fails):
    own, seen = torch.Generator(), []
    for look in (False, True):
        set_seed(3)
        own.manual_seed(3)
        first = drawn(own)
        if look:
            with contextlib.suppress(ZeroDivisionError), undisturbed(hold(own)):
                assert drawn(own) != first
                assert not fails or 1 / 0
        seen.append((first, drawn(own)))
    assert seen[0] == seen[1]


def test_undisturbed_bears_what_holds_itself():
    around = {"tensor": torch.ones(2), "kind": History}
    around["self"] = around
    with undisturbed(around, None, 5):
        pass


@pytest.mark.parametrize(
    "losses, words",
    [([], "before any update. Look for NaN and infinite numbers in the inputs and in the first weights"),
     ([2.3, 9.0], "training diverged. A smaller learning rate is the usual cure"),
     ([2.3], "training diverged, or these inputs are not finite"),
     ([2.3, 2.1], "training diverged, or these inputs are not finite"),
     ([0.10, 0.12], "training diverged, or these inputs are not finite")],  # a little up is noise
)  # fmt: skip
def test_the_advice_is_given_only_where_it_can_be_right(losses, words):
    history = History()
    for loss in losses:
        history.add(loss, None, 1)
    for record in (history.add, lambda loss, acc, n: history.validate(loss, acc)):
        with pytest.raises(FloatingPointError) as caught:
            record(math.inf, 0.5, 1)
        assert words in str(caught.value) and ("rate" in str(caught.value)) == bool(losses)


@pytest.mark.parametrize("what, value", [("the loss", (torch.ones(3), 0.5)), ("accuracy", (1.0, torch.ones(2, 2)))])
def test_what_is_not_one_number_is_refused_with_its_shape(what, value):
    shape = r"\[3\]" if what == "the loss" else r"\[2, 2\]"
    for record in (lambda: History().add(*value, 3), lambda: History().validate(*value)):
        with pytest.raises(ValueError, match=f"{what}: found a tensor of shape {shape}, expected one number"):
            record()


# Tasks without accuracy; validation that starts late; nothing yet


def regression(n=20, name="regression", seed=1):
    "Make a history of a task without accuracy."
    history = made_up(n, name, seed)
    history.accs = [None] * n
    return history


def test_a_task_without_accuracy_is_recorded_compared_drawn_and_tabulated():
    history = regression()
    history.add(torch.tensor(0.5), None, 3)
    history.end_epoch()
    history.validate(0.25)
    assert history.accs == [None] * 21 and train_accs(history) == [None] and history.valid_accs == [None]
    assert repr(history).endswith("validation loss 0.2500")
    assert history.epochs == [(1, train_losses(history)[0], None, 0.25, None)]
    assert same(copy.deepcopy(history), history).validated
    for picture in (history.plot(), history.plot(regression()), plot_epochs(history)):
        [ax] = picture.fig.axes
        assert ax.get_ylabel() == "loss" and picture.alt.startswith("Line chart of ") and "accuracy" not in picture.alt
        assert picture.png().startswith(b"\x89PNG")
    assert ledger([(short, history, None)]).data["rows"][0]["accuracy"] is None
    again = LiveCurve("again")
    again.load_state_dict(history.state_dict())
    assert again.epochs == history.epochs


def test_same_does_not_pass_over_an_accuracy_that_one_run_lacks():
    with pytest.raises(AssertionError, match="60 of 60 accuracies do not"):
        same(regression(60), made_up())
    new, old = regression(60), regression(60)
    new.validate(0.5)
    old.validate(0.5, 0.9)
    with pytest.raises(AssertionError, match="validation differs"):
        same(new, old)


def test_a_run_with_and_a_run_without_accuracy_can_be_drawn_together():
    history = regression(30)
    axes = history.plot(made_up()).fig.axes
    assert [len(line.get_ydata()) for line in axes[1].lines] == [60, 60, 0, 0, 0, 0]
    history.add(1.0, 0.5, 1)
    assert list(history.plot().fig.axes[1].lines[0].get_xdata()) == [30]


def test_losses_below_zero_are_in_the_picture():
    history = regression()
    history.add(-3.0, None, 1)
    assert history.plot().fig.axes[0].get_ylim()[0] < -3 and regression().plot().fig.axes[0].get_ylim()[0] == 0


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=6), st.integers(0, 2))
def test_each_validation_stands_beside_its_own_epoch(epochs, more):
    history, expected, places = History(), [], []
    for number, (n, validated) in enumerate(epochs, 1):
        for _ in range(n):
            history.add(number, 0.5, 2)
        history.end_epoch()
        if validated:
            history.validate(10.0 * number, number / 10)
            places.append(number)
        expected.append((number, number, 0.5, *((10.0 * number, number / 10) if validated else (None, None))))
    for _ in range(more):
        history.add(1.0, 0.5, 2)
    assert history.epochs == expected
    [_, dots], _ = (ax.lines for ax in plot_epochs(history).fig.axes)
    assert list(dots.get_xdata()) == places and list(dots.get_ydata()) == [10.0 * number for number in places]


def test_a_validation_within_an_epoch_is_drawn_within_it():
    history = History()
    history.validate(3.0, 0.1)
    for step in range(1, 7):
        history.add(1.0, 0.5, 2)
        history.validate(1.0, 0.5)
        if step == 4:
            history.end_epoch()
    assert list(plot_epochs(history).fig.axes[0].lines[1].get_xdata()) == [0, 0.25, 0.5, 0.75, 1, 1.5, 2]
    assert [row[3] for row in history.epochs] == [1.0]


def test_of_two_validations_after_one_epoch_the_last_counts():
    history = made_up(2)
    history.end_epoch()
    history.validate(0.5, 0.5)
    history.validate(0.25, 0.75)
    assert history.epochs[0][3:] == (0.25, 0.75)


def test_every_view_of_an_empty_history_says_that_it_is_empty():
    history = History("none yet")
    for picture in (history.plot(), plot_epochs(history)):
        assert [text.get_text() for text in picture.fig.axes[0].texts] == ["nothing recorded yet"]
        assert "none yet: 0 mini-batches" in picture.alt and picture.png()
    assert history.epochs == train_losses(history) == train_accs(history) == []
    assert ledger([(short, history, None)]).rows[1] == ["none yet", "3", "(the first)", "–", "–"]


def test_an_empty_epoch_is_refused():
    with pytest.raises(ValueError, match="epoch 1 had no mini-batch"):
        History().end_epoch()
    history = made_up(2)
    history.end_epoch()
    with pytest.raises(ValueError, match="epoch 2 had no mini-batch"):
        history.end_epoch()


@given(st.lists(st.integers(1, 4), max_size=5), st.integers(0, 3))
def test_a_history_counts_the_mini_batches_of_the_open_epoch(epochs, more):
    history, rng = History(), random.Random(0)
    for n in epochs:
        for _ in range(n):
            history.add(rng.random(), rng.random(), rng.randint(1, 9))
        assert history.in_epoch == n
        history.end_epoch()
    for _ in range(more):
        history.add(rng.random(), rng.random(), rng.randint(1, 9))
    assert history.in_epoch == more
    ends = [sum(epochs[: i + 1]) for i in range(len(epochs))] + [sum(epochs) + more] * (more > 0)
    assert history.epoch_losses == epoch_means(history.losses, history.sizes, ends) == train_losses(history)
    assert history.epoch_accs == epoch_means(history.accs, history.sizes, ends) == train_accs(history)


def test_a_history_gives_out_everything_that_it_recorded_and_takes_it_up():
    history = made_up(7)
    history.end_epoch()
    history.validate(0.5, 0.9)
    history.add(0.25, 1.0, 16)
    for other in (History("another"), LiveCurve("another")):
        other.load_state_dict(history.state_dict())
        assert repr(other).partition(":")[2] == repr(history).partition(":")[2] and same(other, history).validated
    recorded = {name for name, value in vars(history).items() if name != "name"}
    assert set(history.state_dict()) == recorded == set(LiveCurve().state_dict())


def test_a_saved_state_is_a_copy_both_ways():
    history, other = made_up(3), History()
    saved = history.state_dict()
    history.add(1.0, 0.5, 64)
    other.load_state_dict(saved)
    other.add(1.0, 0.5, 64)
    other.end_epoch()
    assert [len(values) for values in saved.values()] == [3, 3, 3, 0, 0, 0, 0]


def test_a_subclass_saves_what_it_records_more():
    class Timed(History):
        def __init__(self):
            super().__init__()
            self.seconds, self.limit = [], 5

    timed, again = Timed(), Timed()
    timed.seconds.append(0.25)
    again.load_state_dict(timed.state_dict())
    assert again.seconds == [0.25] and set(timed.state_dict()) - set(History().state_dict()) == {"seconds"}


@pytest.mark.parametrize("change", [{"speeds": []}, {"losses": None}, {"losses": None, "speeds": []}])
def test_a_state_with_other_names_is_refused(change):
    state = {**made_up(3).state_dict(), **change}
    state = {name: values for name, values in state.items() if values is not None}
    history = made_up(2)
    with pytest.raises(ValueError, match="history: found the records .*, expected .*losses"):
        history.load_state_dict(state)
    assert history.losses == made_up(2).losses


@pytest.mark.parametrize("acc, n", [(1.5, 64), (-0.1, 64), (math.nan, 64), (0.5, 0), (0.5, -3), (0.5, 2.7)])
def test_what_cannot_be_is_not_recorded(acc, n):
    history = made_up(2)
    with pytest.raises(ValueError, match="found .*, expected"):
        history.add(1.0, acc, n)
    assert len(history.losses) == len(history.accs) == len(history.sizes) == 2


def test_validation_that_diverged_is_refused():
    with pytest.raises(FloatingPointError, match="nan in validation"):
        made_up().validate(math.nan, 0.5)


@pytest.mark.parametrize("loss, acc", [(math.nan, 0.5), (0.5, 98.0)])
def test_of_a_validation_that_is_refused_nothing_is_recorded(loss, acc):
    history = made_up(3)
    with pytest.raises((FloatingPointError, ValueError)):
        history.validate(loss, acc)
    assert history.state_dict() == made_up(3).state_dict()


def test_a_loss_with_a_gradient_is_recorded_without_a_warning():
    loss = (torch.ones(1, requires_grad=True) * 2).sum()
    history = History()
    history.add(loss, torch.tensor(0.5), 1)
    history.validate(loss, torch.tensor(0.25))
    assert history.losses == [2.0] == history.valid_losses and history.valid_accs == [0.25]


@given(st.lists(floats, min_size=1, max_size=80), st.integers(0, 20))
def test_smooth_stays_within_its_values(values, reach):
    smoothed = smooth(values, reach)
    slack = 1e-6 * max(1, max(map(abs, values)))
    assert len(smoothed) == len(values)
    assert all(min(values) - slack <= value <= max(values) + slack for value in smoothed)


@pytest.mark.parametrize("huge", [1e36, 1e300, math.inf, math.nan])
def test_smooth_forgets_a_huge_loss_as_soon_as_it_is_no_neighbour(huge):
    smoothed = smooth([1.0] * 20 + [huge] + [1.0] * 20, reach=2)
    assert smoothed[:18] == [1.0] * 18 and smoothed[23:] == [1.0] * 18


# Pictures


@pytest.mark.parametrize("histories", [[made_up()], [made_up(), made_up(30)], [made_up()] * 9, [History()]])
def test_plots_have_labels_and_alternative_text(histories):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = histories[-1].plot(*histories[:-1])
        png = picture.png()
    assert png.startswith(b"\x89PNG") and struct.unpack(">II", png[16:24])[0] > 1000
    assert [ax.get_ylabel() for ax in picture.fig.axes] == ["loss (nats)", "accuracy (%)"]
    assert all(ax.get_xlabel() == "mini-batches seen" for ax in picture.fig.axes)
    assert f"{len(histories[-1].losses)} mini-batches" in picture.alt


def test_a_single_plot_shows_the_smooth_line_over_the_raw_one():
    ax = made_up().plot().fig.axes[0]
    raw, line = ax.get_lines()[:2]
    assert list(raw.get_ydata()) == made_up().losses and list(line.get_ydata()) == smooth(made_up().losses)


def test_the_colours_are_public_and_drawn():
    assert {"COLORS", "GREY"} <= set(exp.nb_00.__all__) and len(set(COLORS)) == len(COLORS) == 6
    ax = made_up(name="second").plot(made_up(name="first")).fig.axes[0]
    assert [line.get_color() for line in ax.get_lines()[:4]] == [COLORS[0]] * 2 + [COLORS[1]] * 2
    assert ax.xaxis.label.get_color() == GREY


def test_no_word_in_a_figure_is_smaller_than_11_pixels():
    fig, [ax] = canvas()
    ax.text(0.5, 0.5, "small", fontsize=7)
    ax.plot([0, 1000], label="a line")
    ax.legend(fontsize=6)
    ax.set_title("large", fontsize=20)
    Picture(fig, "A figure with words of several sizes.").png()
    sizes = {text.get_text(): text.get_fontsize() for text in fig.findobj(Text) if text.get_text()}
    assert min(sizes.values()) == 11 and {"small", "a line", "large", "1000"} <= set(sizes) and sizes["large"] == 20


def luminance(color):
    "Return the relative luminance of a colour, 0 to 1, as WCAG defines it."
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_the_small_ticks_of_log_scales_have_our_grey_too():
    fig, [ax] = canvas()
    ax.loglog([50, 500], [2, 400])
    fig.canvas.draw()
    ticks = [tick for axis in (ax.xaxis, ax.yaxis) for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())]
    assert len(ticks) > 10 and {tick.label1.get_color() for tick in ticks} == {GREY}
    assert {tick.tick1line.get_color() for tick in ticks} == {GREY}


@pytest.mark.parametrize("ground, least", [("white", 4.5), ("#fbfaf7", 4.5), ("#111111", 3.9)])
def test_words_in_every_colour_can_be_read_on_paper_and_lines_on_any_ground(ground, least):
    for color in [*COLORS, GREY]:
        dark, light = sorted(map(luminance, (color, ground)))
        assert (light + 0.05) / (dark + 0.05) >= least, color


def test_plot_epochs_draws_training_and_validation():
    history = made_up(10)
    history.end_epoch()
    history.validate(0.5, 0.9)
    axes = plot_epochs(history).fig.axes
    drawn = [[list(line.get_ydata()) for line in ax.get_lines()] for ax in axes]
    assert drawn[0] == [train_losses(history), [0.5]] and drawn[1] == [[100 * train_accs(history)[0]], [90.0]]


def test_a_picture_brings_its_alternative_text_to_the_notebook():
    data, metadata = made_up().plot()._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"} and metadata["image/png"]["alt"] == data["text/plain"]


# same


def test_equal_runs_are_identical():
    verdict = same(made_up(), made_up())
    assert verdict.word == "identical" and repr(verdict) == "identical: 60 of 60 losses are equal, bit for bit"
    assert not verdict.validated


def test_rounding_is_close_and_the_first_difference_is_named():
    new = made_up()
    new.losses[7:] = [loss + 2e-7 for loss in new.losses[7:]]
    verdict = same(new, made_up())
    assert (verdict.word, verdict.first) == ("close", 8) and near(verdict.largest, 2e-7, rtol=0.5, atol=0)
    assert "first difference at mini-batch ≈8" in repr(verdict) and "largest ≈2e-07" in repr(verdict)


def test_rounding_that_chaos_has_amplified_is_close():
    new = made_up()
    for step in range(7, 60):
        new.losses[step] += 1e-7 * 1.3 ** max(0, step - 20)
    verdict = same(new, made_up())
    assert verdict.word == "close" and verdict.largest > 1e-3


def change(name):
    "Return a history that tells another story than `made_up()`."
    new = made_up()
    if name == "a loss":
        new.losses[5] *= 1.001
    elif name == "a small change, everywhere, from the start":
        new.losses = [loss * (1 + 1e-4) for loss in new.losses]
    elif name == "born small, then a jump":
        new.losses[5] += 1e-7
        new.losses[50] += 0.01
    elif name == "grown for ten mini-batches":
        new.losses[5:] = [loss + 1e-6 * i for i, loss in enumerate(new.losses[5:])]
    elif name == "stale accuracies":
        new.accs = new.accs[:1] * 60
    elif name == "a batch missing":
        del new.losses[-1], new.accs[-1], new.sizes[-1]
    elif name == "other batch sizes":
        new.sizes[-1] = 16
    elif name == "other epochs":
        new.epoch_ends = [30, 60]
    elif name == "accuracies off on average":
        for step in range(5, 60):
            new.losses[step] += 1e-7 * 1.4 ** (step - 5) if step > 20 else 1e-7
        new.accs[40:] = [acc * 0.9 for acc in new.accs[40:]]
    elif name == "accuracies one batch late, losses close":
        new.losses[0] += 1e-7
        new.accs = new.accs[:1] + new.accs[:-1]
    return new


@pytest.mark.parametrize(
    "name",
    ["a loss", "a small change, everywhere, from the start", "born small, then a jump",
     "grown for ten mini-batches", "stale accuracies", "accuracies one batch late, losses close",
     "a batch missing", "other batch sizes", "other epochs", "accuracies off on average"],
)  # fmt: skip
def test_another_story_raises_with_figures(name):
    with pytest.raises(AssertionError, match=r"\d"):
        same(change(name), made_up())


def test_validation_is_compared_where_both_have_it():
    new, old = made_up(), made_up()
    old.validate(0.5, 0.9)
    assert same(new, old).word == "identical"
    new.validate(0.501, 0.9)
    with pytest.raises(AssertionError, match="validation differs: .0.501"):
        same(new, old)


@pytest.mark.parametrize("loss, acc, fine", [(0.50001, 0.9, True), (0.501, 0.9, False), (0.5, 0.902, False)])
def test_validation_has_to_be_as_close_as_the_losses(loss, acc, fine):
    new, old = made_up(), made_up()
    new.losses[5] += 1e-7
    old.validate(0.5, 0.9)
    new.validate(loss, acc)
    if fine:
        assert same(new, old).validated
    else:
        with pytest.raises(AssertionError, match="validation differs"):
            same(new, old)


def test_validation_after_other_mini_batches_is_another_story():
    new, old = made_up(), made_up()
    old.validate(0.5, 0.9)
    new.validate(0.5, 0.9)
    new.validate(0.5, 0.9)
    with pytest.raises(AssertionError, match=r"other mini-batches: \[60, 60\], \[60\]"):
        same(new, old)


def test_nothing_is_not_the_same_as_nothing():
    with pytest.raises(AssertionError, match="nothing to compare: no mini-batch"):
        same(History(), History())
    history = made_up()
    with pytest.raises(AssertionError, match="a history with itself"):
        same(history, history)


def test_the_promise_holds_without_assertions():
    code = "from exp.nb_00 import *; a, b = History(), History(); a.add(1, .5, 3); b.add(9, .5, 3); same(a, b)"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode and "AssertionError: different" in done.stderr


@given(st.integers(0, 59), st.floats(6e-6, 1e3))
def test_any_loss_changed_by_more_than_rounding_is_noticed(step, change):
    new = made_up()
    new.losses[step] += change * max(1, new.losses[step])
    with pytest.raises(AssertionError):
        same(new, made_up())


# plot_difference


def test_the_difference_of_identical_runs_is_said_in_words():
    picture = plot_difference(made_up(name="new"), made_up(name="old"))
    [ax] = picture.fig.axes
    words = "identical: all 60 losses are equal, bit for bit"
    assert [text.get_text() for text in ax.texts] == [words] and not ax.lines
    assert picture.alt == f"Empty chart of the difference of the losses of new and old: {words}."


@pytest.mark.parametrize("size", [1e-16, 1e-7, 1e-3, 1e4])
def test_every_difference_is_drawn_at_its_height(size):
    new = made_up(name="new")
    new.losses[7:] = [loss + size * max(loss, 1.0) for loss in new.losses[7:]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = plot_difference(new, made_up(name="old"))
        assert picture.png().startswith(b"\x89PNG")
    [ax] = picture.fig.axes
    differ, equal = (list(line.get_ydata()) for line in ax.lines[:2])
    gaps = [abs(a - b) / max(b, 1.0) for a, b in zip(new.losses, made_up().losses)]
    assert all(math.isnan(d) if gap == 0 else d == gap for d, gap in zip(differ, gaps, strict=True))
    assert all(math.isnan(d) != math.isnan(e) for d, e in zip(differ, equal, strict=True))
    low, high = ax.get_ylim()
    assert ax.get_yscale() == "log" and all(low < gap < high for gap in gaps if gap)
    assert ax.get_xlabel() == "mini-batches seen" and picture.loose


def test_a_difference_is_drawn_of_the_same_mini_batches_only():
    with pytest.raises(ValueError, match="not the same mini-batches"):
        plot_difference(made_up(9), made_up(10))
    with pytest.raises(ValueError, match="nothing to compare: no mini-batch"):
        plot_difference(History(), History())
    history = made_up()
    with pytest.raises(ValueError, match="a history with itself"):
        plot_difference(history, history)


# show_diff


def short(x):
    "Docstrings are left out."
    # so are comment lines
    y = x + 1

    return y


def documented(
    x: int,  # a number
    y=2,  # another one
) -> int:
    "Signatures of several lines become one."
    for _ in range(2):
        y = x + 1
    return y


def test_source_lines_are_code_only():
    assert source_lines(short) == ["def short(x):", "    y = x + 1", "    return y"]
    assert source_lines(documented)[0] == "def documented(x, y=2):"


def test_show_diff_marks_lines_by_more_than_colour():
    diff = show_diff(short, documented)
    assert repr(diff).splitlines() == [
        "short → documented: 3 → 4 lines",
        "- def short(x):",
        "+ def documented(x, y=2):",
        "+     for _ in range(2):",
        ">         y = x + 1",
        "      return y",
    ]
    rows = BeautifulSoup(diff._repr_html_(), "html.parser").select("pre.diff > *")
    assert [(row.name, row.b.extract().text, row.text) for row in rows] == [
        ("del", "− ", "def short(x):\n"),
        ("ins", "+ ", "def documented(x, y=2):\n"),
        ("ins", "+ ", "    for _ in range(2):\n"),
        ("span", "› ", "        y = x + 1\n"),
        ("span", "  ", "    return y\n"),
    ]


def test_a_diff_colours_keywords_strings_and_numbers_and_no_character_is_lost():
    line = "    return f'{a!r} <b>' if not a & 1e3 else None  # <why> 'not'"
    soup = BeautifulSoup(f"<pre>{exp.nb_00._colored(line)}</pre>", "html.parser")
    inks = [(span["style"].split("editor-")[1].removesuffix("-color)"), span.text) for span in soup.find_all("span")]
    assert soup.text == line and ("comment", "# <why> 'not'") in inks and ("number", "1e3") in inks
    assert {text for ink, text in inks if ink == "keyword"} == {"return", "if", "not", "else", "None"}


def test_what_stays_as_it_is_unfolds_and_nothing_is_left_out():
    old = [f"line_{i}" for i in range(40)]
    new = [*old[:20], "new", *old[21:]]
    soup = BeautifulSoup(Diff(old, new, title="")._repr_html_(), "html.parser")
    folds = [fold.get_text() for fold in soup.select("details.folded")]
    assert [fold.splitlines()[0][:2] for fold in folds] == ["14", "13"] and "line_16\n" in folds[0]
    assert "line_17\n" not in folds[0] and "line_24\n" in folds[1] and "line_23\n" not in folds[1]
    assert [row.b.extract() and row.text.strip() for row in soup.select("pre > *")] == [*old[:21], *new[20:]]
    assert not BeautifulSoup(Diff(old[:9], old[:9], title="")._repr_html_(), "html.parser").select("details")


def test_show_diff_of_classes_and_escapes():
    class Small:
        def less(self, a):
            return a < 1 and "<b>"

    page = show_diff(Small, Small)._repr_html_()
    assert "a &lt; <span" in page and "&lt;b&gt;" in page and "<del" not in page


class Tricky:
    attribute = """
# no comment

"""

    async def wait(self, x: int):
        "Gone."  # gone too
        return x

    def one_line(self): return 1

    def long(
        self,
        x,  # a comment
    ): return x


def commented(x: int) -> int:
    # a comment under a short signature
    return x


def test_source_lines_know_code_from_comments():
    assert source_lines(Tricky) == [
        "class Tricky:",
        '    attribute = """',
        "# no comment",
        "",
        '"""',
        "    async def wait(self, x: int):",
        "        return x",
        "    def one_line(self): return 1",
        "    def long(self, x): return x",
    ]
    assert source_lines(commented) == ["def commented(x: int) -> int:", "    return x"]


@pytest.mark.parametrize("thing", [3, len, type("Made", (), {})])
def test_source_lines_say_what_has_no_source(thing):
    with pytest.raises(ValueError, match="found no source of"):
        source_lines(thing)


def test_the_source_of_a_class_of_a_notebook_is_found_by_any_of_its_methods():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    cells = ["before = 1\nclass Odd:\n    @property\n    def one(self):\n        return 1\nafter = 2",
             "def two(self): return 2\nOdd.two = two\ndel Odd.one", "text = source_lines(Odd)"]
    for cell in [cells[0], "from exp.nb_00 import source_lines", cells[2]]:
        shell.run_cell(cell).raise_error()
    assert shell.user_ns["text"] == ["class Odd:", "    @property", "    def one(self):", "        return 1"]
    shell.run_cell(cells[1]).raise_error()
    with pytest.raises(ValueError, match="found no source"):
        shell.run_cell(cells[2]).raise_error()
    InteractiveShell.clear_instance()


# method_of


class Shelf:
    "Hold books."

    def __init__(self, *books):
        self.books = books


globals()["before"] = "what this name meant before"


@method_of(Shelf)
def sum(self, start=0):
    "Return the length of all names."
    return sum(map(len, self.books), start)


@method_of(Shelf)
def before(self):
    return self.books[0]


@method_of(Shelf)
def new_name(self):
    return len(self.books)


@method_of(Shelf)
@property
def last(self):
    "Return the last book."
    return self.books[-1]


@method_of(Shelf)
@classmethod
def empty(cls):
    return cls()


@method_of(Shelf)
@torch.no_grad()
def reversed(self):
    assert not torch.is_grad_enabled()
    return Shelf(*reversed(self.books))


def test_a_function_becomes_a_method_under_its_own_name():
    shelf = Shelf("A", "BC")
    assert (shelf.sum(), shelf.before(), shelf.new_name(), shelf.last) == (3, "A", 2, "BC")
    assert Shelf.empty().books == () and shelf.reversed().books == ("BC", "A")
    assert Shelf.sum.__doc__ == "Return the length of all names." and Shelf.last.__doc__ == "Return the last book."


def test_the_name_of_a_method_means_what_it_meant_before():
    assert sum is builtins.sum and reversed is builtins.reversed
    assert before == "what this name meant before" and new_name is None


def test_a_method_is_found_under_its_full_name():
    inner = [Shelf.sum, Shelf.before, Shelf.last.fget, Shelf.empty.__func__, Shelf.reversed]
    assert [f.__qualname__ for f in inner] == ["Shelf." + n for n in "sum before last empty reversed".split()]
    with pytest.raises(TypeError, match=r"Shelf\.new_name\(\) takes 1 positional argument"):
        Shelf().new_name(3)
    assert "sum(self, start=0)" in pydoc.plain(pydoc.render_doc(Shelf))


@pytest.mark.parametrize("thing", [print, Shelf(), None, "Shelf", lambda self: None])
def test_only_a_class_gets_methods(thing):
    with pytest.raises(TypeError, match=r"method_of: found a .*, expected a class: write `@method_of\(Model\)`"):
        method_of(thing)


def test_the_source_of_a_class_is_its_body_and_that_of_an_added_method_its_own():
    assert source_lines(Shelf) == ["class Shelf:", "    def __init__(self, *books):", "        self.books = books"]
    assert source_lines(Shelf.before) == ["@method_of(Shelf)", "def before(self):", "    return self.books[0]"]
    assert "+     return len(self.books)" in repr(show_diff(Shelf.before, Shelf.new_name))


# Table, ledger


def test_table_aligns_text_and_escapes_html():
    table = Table(["a", "long header"], [["<x>", 1]])
    assert repr(table).splitlines()[0] == "a    long header" and "&lt;x&gt;" in table._repr_html_()
    assert table._repr_html_().startswith('<table style="margin: 0">')   # JupyterLab would put it in the middle


def test_a_table_with_a_short_row_is_refused():
    with pytest.raises(ValueError, match=r"rows of \[2, 1\] cells"):
        Table(["a", "b"], [[1]])


def test_odd_names_can_be_drawn():
    made_up(name=r"_$\foo$").plot().png()


def test_ledger_takes_every_figure_from_the_run():
    history = made_up(name="a step")
    history.validate(0.5, 0.9812)
    text = repr(ledger([(short, history, None), (documented, history, same(history, copy.deepcopy(history)))]))
    assert f"{train_losses(history)[-1]:.4f}" in text and "98.12%" in text and "identical" in text and "a step" in text


def bundle(thing):
    "Return what a notebook stores of a thing."
    from IPython.core.formatters import DisplayFormatter

    data, metadata = DisplayFormatter().format(thing)
    assert metadata == {} and data["text/plain"] == repr(thing)
    assert data.get("text/html") == (thing._repr_html_() if hasattr(thing, "_repr_html_") else None)
    return data.get("application/vnd.training-refactored+json")


def test_a_verdict_is_a_badge_and_its_sentence():
    new, old = made_up(name="<new>"), made_up(name="old")
    for word, sign in (("identical", "✓"), ("close", "≈")):
        page = BeautifulSoup(same(new, old)._repr_html_(), "html.parser").select_one("p.verdict")
        assert page.b.text == f"{sign} {word}" and repr(same(new, old)) == page.text.removeprefix(f"{sign} ").replace(
            word, f"{word}:", 1)  # fmt: skip
        new.losses[5] += 1e-7


def test_verdicts_and_diffs_carry_names_and_no_figure_that_rounding_decides():
    new, old = made_up(name="new"), made_up(name="old")
    new.losses[5] += 1e-7
    verdict = same(new, old)
    new.name = "named anew"
    assert bundle(verdict) == {"kind": "verdict", "new": "new", "old": "old", "word": "close"}
    assert bundle(show_diff(short, documented)) == {"kind": "diff", "new": "documented", "old": "short"}


def test_a_ledger_carries_its_rows_and_a_plain_table_nothing():
    first, second = made_up(name="first"), made_up(name="second")
    second.validate(0.5, 0.98765)
    found = bundle(ledger([(documented, first, None), (Tricky, second, same(second, first))]))
    assert found["kind"] == "ledger" and list(found) == ["kind", "rows"]
    one, two = found["rows"]
    assert one == {"accuracy": None, "lines": 4, "loss": round(train_losses(first)[0], 4), "name": "documented",
                   "source": inspect.getsource(documented).rstrip(), "step": "first", "verdict": None}  # fmt: skip
    assert (two["accuracy"], two["name"], two["verdict"]) == (0.9877, "Tricky", "identical")
    assert list(two) == sorted(two) and two["source"].startswith("class Tricky:\n    attribute")
    assert bundle(Table(["a"], [[1]])) is None and bundle(Diff([], ["a"], "made by hand")) is None


def test_the_data_of_a_ledger_says_what_its_text_says():
    history = made_up(name="a step")
    history.validate(0.5, 0.9812)
    table = ledger([(short, history, None)])
    [row] = table.data["rows"]
    assert table.rows[1] == ["a step", "3", "(the first)", f"{row['loss']:.4f}", f"{row['accuracy']:.2%}"]


# LiveOutput, LiveCurve


class Notebook:
    "What stands in for a notebook: it lists what was shown, and what took its place."

    def __init__(self, monkeypatch):
        import IPython
        import IPython.display

        self.shown, self.updates = [], []
        shell = type("Shell", (), {"kernel": object()})()
        monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
        monkeypatch.setattr(IPython.display, "display", self.display)

    def display(self, thing, display_id):
        place = len(self.shown)
        self.shown.append(thing)
        return type("Handle", (), {"update": lambda _, thing: self.updates.append((place, thing))})()


def test_live_output_shows_each_thing_in_a_place_of_its_own(monkeypatch):
    notebook, output = Notebook(monkeypatch), LiveOutput()
    assert output.shown
    for i in range(3):
        output.show(lambda i=i: f"bar {i}", lambda i=i: f"curve {i}")
    assert notebook.shown == ["bar 0", "curve 0"]
    assert notebook.updates == [(0, "bar 1"), (1, "curve 1"), (0, "bar 2"), (1, "curve 2")]


def test_live_output_draws_for_about_a_sixth_of_the_time_at_most(monkeypatch):
    now, drawing = [0.0], 0.0
    notebook = Notebook(monkeypatch)
    monkeypatch.setattr(exp.nb_00, "time", type("Clock", (), {"monotonic": lambda: now[0]}))

    def slow():
        now[0] += 2.0

    output = LiveOutput(seconds=3)
    for _ in range(10_000):
        now[0] += 0.1
        if output.due:
            begin = now[0]
            output.show(slow)
            drawing += now[0] - begin
    assert len(notebook.shown) == 1 and len(notebook.updates) > 50
    assert drawing / now[0] < 0.17


def test_live_output_waits_for_its_seconds(monkeypatch):
    now = [0.0]
    Notebook(monkeypatch)
    monkeypatch.setattr(exp.nb_00, "time", type("Clock", (), {"monotonic": lambda: now[0]}))
    output = LiveOutput(seconds=3)
    for start in (0.0, 3.5):
        now[0] = start + 3
        assert not output.due
        now[0] = start + 3.5
        assert output.due
        output.show(lambda: "quick")


def test_outside_a_notebook_nothing_is_due_and_nothing_is_made():
    output = LiveOutput(seconds=-1)
    output.show(lambda: 1 / 0)
    assert not output.shown and not output.due


def test_live_curve_is_a_history_outside_a_notebook():
    live = LiveCurve(seconds=0)
    for loss, acc, n in zip(made_up().losses, made_up().accs, made_up().sizes):
        live.add(loss, acc, n)
    live.end_epoch()
    live.validate(1.0, 0.5)
    assert same(live, made_up()).word == "identical"


def test_live_curve_updates_one_figure(monkeypatch):
    notebook, live = Notebook(monkeypatch), LiveCurve(seconds=0)
    for _ in range(3):
        live.output._next = 0
        live.add(1.0, 0.5, 64)
    live.end_epoch()
    assert len(notebook.shown) == 1 and len(notebook.updates) == 3
    assert "3 mini-batches" in notebook.updates[-1][1].alt


# exercise


def test_exercise_reports_and_never_raises():
    @exercise
    def check(answer):
        assert answer() == 4, "expected 4"

    def blank():
        raise NotImplementedError

    def crash():
        raise KeyError("k")

    def leave():
        raise SystemExit

    assert check(lambda: 4).solved and not check(lambda: 5).solved and "expected 4" in check(lambda: 5).message
    assert not check(leave).solved and not check(3).solved and check(functools.partial(int, 4)).solved
    assert "not solved yet" in check(blank).message and "KeyError" in check(crash).message
    with pytest.raises(AssertionError, match="expected 4"):
        check.__wrapped__(lambda: 5)


def test_histories_can_be_copied():
    assert same(copy.deepcopy(made_up()), made_up()).word == "identical"


# The exercises: each wrong answer gets its own hint


@pytest.fixture(scope="module")
def checks():
    "Return the checks, from the notebook's cells, and the names that they need."
    path = Path(exp.nb_00.__file__).parents[1] / "nbs" / "00_workbench.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    names = {"difflib": difflib}
    exec("from exp.nb_00 import *", names)
    for source in ("".join(cell["source"]) for cell in cells):
        if found := re.match(r"@exercise\ndef check_(?!double)(\w+)", source):
            exec(source, {**names, found[1]: None}, names)
    return names


def average(weights=(0.75, 0.25), carry=False):
    "Write a running average that errs in its weights, or carries the corrected mean on."

    def answer(values, beta=0.9):
        old, new = weights if beta == 0.75 else (beta, 1 - beta)
        mean, result = 0.0, []
        for step, value in enumerate(values, 1):
            mean = old * mean + new * value
            result.append(mean / (1 - beta**step))
            mean = result[-1] if carry else mean
        return result

    return answer


def zipped(new, old, start=0):
    return next((i for i, (a, b) in enumerate(zip(new, old), start) if a != b), None)


def shorter(new, old):
    return None if len(new) == len(old) else min(len(new), len(old))


@pytest.mark.parametrize(
    "check, answer, words",
    [
        ("largest_difference", lambda a, b: (a - b).max(), "What if b is the larger one"),
        ("largest_difference", lambda a, b: (a - b).max().abs(), "What if b is the larger one"),
        ("largest_difference", lambda a, b: (a.max() - b.max()).abs(), "only the largest of each"),
        ("largest_difference", lambda a, b: (a - b).abs().mean(), "the mean of the differences"),
        ("largest_difference", lambda a, b: (a - b).abs().argmax(), "where it is, not how much"),
        ("largest_difference", lambda a, b: None, "is a `return` missing"),
        ("largest_difference", lambda a, b: (a - b).abs().max().item(), "solved"),
        ("running_average", average(carry=True), "Is the corrected average carried on"),
        ("running_average", average((0.25, 0.75)), "1 − β to the new value"),
        ("running_average", lambda values, beta=0.9: [0.25, 0.2, 0.1], "divided by 1 − βᵗ"),
        ("running_average", lambda values, beta=0.9: average()(values, beta)[-1:], "expected 3 averages, found 1"),
        ("running_average", lambda values, beta=0.75: average()(values, beta), "the default of `beta` is 0.9"),
        ("running_average", average(), "solved"),
        ("best_epoch", lambda history: 4, "best .accuracy"),
        ("best_epoch", lambda history: 5, "lowest .training. loss"),
        ("best_epoch", lambda history: history.valid_losses.index(min(history.valid_losses)), "A list counts from 0"),
        ("best_epoch", lambda history: min(history.valid_losses), "That is the loss itself"),
        ("best_epoch", lambda history: min(history.epochs, key=lambda row: row[3])[0], "solved"),
        ("first_difference", zipped, "Where does zip stop"),
        ("first_difference", lambda a, b: zipped(a, b, 1), "counts from 0"),
        ("first_difference", lambda a, b: zipped(a, b) or shorter(a, b), "0 is an index"),
        ("first_difference", lambda a, b: shorter(a, b) if len(a) != len(b) else zipped(a, b), "lengths compared"),
        ("first_difference", lambda a, b: shorter(a, b) if zipped(a, b) is None else zipped(a, b), "solved"),
        ("lines_added", lambda old, new: len(set(new) - set(old)), "know how often"),
        ("lines_added", lambda old, new: sum("+" in line for line in difflib.ndiff(old, new)), "The mark is in front"),
        ("lines_added", lambda old, new: len(new) - len(old), "Lines may leave"),
        ("lines_added", lambda old, new: sum(line[0] == "+" for line in difflib.ndiff(new, old)), "in this order"),
        ("lines_added", lambda old, new: sum(line[0] == "+" for line in difflib.ndiff(old, new)), "solved"),
    ],
    ids=range(28),
)  # fmt: skip
def test_each_wrong_answer_gets_its_hint(checks, check, answer, words):
    outcome = checks[f"check_{check}"](answer)
    assert re.search(words, outcome.message) and outcome.solved == (words == "solved"), outcome.message


# Consoles

PRINTED = """
from exp.nb_00 import *
def run(name):
    history = History(name)
    for step in range(20):
        history.add(1 / (step + 1), 0.5, 64)
    return history
def unsolved(): raise NotImplementedError
check = exercise(lambda answer: answer())
new, old = run("größer → ≈ – ✓ 数"), run("old")
new.losses[5:] = [loss + 1e-7 for loss in new.losses[5:]]
verdict = same(new, old)
things = [new, verdict, verdict.figures(), show_diff(set_seed, smooth), Table(["─", "→"], [["✓", "✗"], ["○", "–"]])]
things += [ledger([(smooth, new, None)]), check(list), check(unsolved), check(lambda: 1 / 0), new.plot(old)]
new.losses[5] *= 2
try: same(new, old)
except AssertionError as error: things += [error]
things += [outcome.message for outcome in things[6:9]]
for thing in things:
    print(thing)
"""


def printed(encoding):
    "Run a script that prints everything at a console of some encoding; return what it printed."
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", PRINTED], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(encoding, "replace")[-500:]
    return done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_lacks_our_signs_gets_plain_ones(encoding):
    said = printed(encoding)
    assert "close: first difference at mini-batch ~6, ~1e-07 within ten" in said
    assert "set_seed -> smooth: 5 -> " in said
    assert "different, not close: first difference at mini-batch ~6" in said
    assert "ok list: solved" in said and "o unsolved: not solved yet" in said and "x <lambda>: it raised" in said
    assert ("größer" if encoding == "cp1252" else "gr??er") in said and not set("─≈→✓✗○数") & set(said)
    rule = said.splitlines().index("--  --")
    assert said.splitlines()[rule - 1] == "-   ->" and said.splitlines()[rule + 1] == "ok  x"


def test_where_the_console_can_all_signs_stay():
    said = printed("utf-8")
    assert "set_seed → smooth: 5 → " in said and "≈1e-07" in said and "✓ list: solved" in said and "数" in said


def test_a_program_without_a_console_can_print_too(monkeypatch):
    history = made_up(name="→")
    for stdout in (None, type("Odd", (), {})()):
        monkeypatch.setattr(sys, "stdout", stdout)
        assert repr(history).startswith("→: 60")


# What the site says about arguments

NAMES = [name for name in exp.nb_00.__all__ if getattr(getattr(exp.nb_00, name), "__module__", "") == "exp.nb_00"]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_says_what_it_does_and_every_class_what_it_takes(name):
    from fastcore.docments import docments

    thing = getattr(exp.nb_00, name)
    methods = [getattr(thing, m) for m in vars(thing) if not m.startswith("_")] if inspect.isclass(thing) else []
    for each in [thing, *methods]:
        text = inspect.getdoc(each)
        assert text and text[0].isupper() and "\n" not in text and not text.startswith(("Give", "Gives")), each
    if inspect.isclass(thing):
        found = docments(thing.__init__)
        assert all(found[parameter] for parameter in list(inspect.signature(thing).parameters)), found


@pytest.mark.parametrize("n", [1, 2, 5, 20, 100])
def test_epochs_are_numbered_by_whole_numbers_that_do_not_run_together(n):
    history = History()
    for _ in range(n):
        history.add(1.0, 0.5, 64)
        history.end_epoch()
    for ax in plot_epochs(history).fig.axes:
        ticks = [tick for tick in ax.get_xticks() if 1 <= tick <= n]
        assert 1 <= len(ticks) <= 11 and all(tick == int(tick) for tick in ticks)
