"""The workbench: `near`, `History`, `same`, `show_diff`, `Table`, `ledger`, `LiveCurve`, `exercise`."""

import copy
import math
import random
import struct
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    expected = a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6)
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
    history.add(1.0, 0.5, 64)
    with pytest.raises(FloatingPointError, match=r"epoch 2, mini-batch 2.*smaller learning rate"):
        history.add(loss, 0.5, 64)
    assert len(history.losses) == len(history.accs) == len(history.sizes) == 3


def test_an_empty_epoch_is_refused():
    with pytest.raises(ValueError, match="epoch 1 had no mini-batch"):
        History().end_epoch()


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


def test_rounding_is_close_and_the_first_difference_is_named():
    new = made_up()
    new.losses[7:] = [loss * (1 + 2e-7) for loss in new.losses[7:]]
    verdict = same(new, made_up())
    assert (verdict.word, verdict.first) == ("close", 8) and near(verdict.largest, 2e-7, rtol=0.5, atol=0)


def test_rounding_that_chaos_has_amplified_is_close():
    new = made_up()
    new.losses[7] *= 1 + 1e-7
    new.losses[30] *= 1.02
    assert same(new, made_up()).word == "close"


def change(name):
    "Give a history that tells another story than `made_up()`."
    new = made_up()
    if name == "a loss":
        new.losses[5] *= 1.001
    elif name == "a small change, everywhere, from the start":
        new.losses = [loss * (1 + 1e-4) for loss in new.losses]
    elif name == "born small, grown too large":
        new.losses[5] *= 1 + 1e-7
        new.losses[50] *= 1.5
    elif name == "stale accuracies":
        new.accs = new.accs[:1] * 60
    elif name == "a batch missing":
        del new.losses[-1], new.accs[-1], new.sizes[-1]
    elif name == "other batch sizes":
        new.sizes[-1] = 16
    elif name == "other epochs":
        new.epoch_ends = [30, 60]
    elif name == "accuracies off on average":
        new.losses[5] *= 1 + 1e-7
        new.accs[6:] = [acc * 0.9 for acc in new.accs[6:]]
    return new


@pytest.mark.parametrize(
    "name",
    ["a loss", "a small change, everywhere, from the start", "born small, grown too large", "stale accuracies",
     "a batch missing", "other batch sizes", "other epochs", "accuracies off on average"],
)  # fmt: skip
def test_another_story_raises_with_figures(name):
    with pytest.raises(AssertionError, match=r"\d"):
        same(change(name), made_up())


def test_validation_is_compared_where_both_have_it():
    new, old = made_up(), made_up()
    old.validate(0.5, 0.9)
    assert same(new, old).word == "identical"
    new.validate(0.51, 0.9)
    with pytest.raises(AssertionError, match="0.51"):
        same(new, old)


def test_nothing_is_not_the_same_as_nothing():
    with pytest.raises(AssertionError, match="nothing to compare"):
        same(History(), History())


@given(st.integers(0, 59), st.floats(1.2e-5, 1e3))
def test_any_loss_changed_by_more_than_rounding_is_noticed(step, change):
    new = made_up()
    new.losses[step] *= 1 + change
    with pytest.raises(AssertionError):
        same(new, made_up())


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
    page = diff._repr_html_()
    assert "<del" in page and "<ins" in page and ">- def short(x):<" in page and "&gt;" not in page.split("<pre")[0]


def test_show_diff_of_classes_and_escapes():
    class Small:
        def less(self, a):
            return a < 1 and "<b>"

    page = show_diff(Small, Small)._repr_html_()
    assert "&lt; 1" in page and "<b>&" not in page and "<del" not in page


# Table, ledger


def test_table_aligns_text_and_escapes_html():
    table = Table(["a", "long header"], [["<x>", 1]])
    assert repr(table).splitlines()[0] == "a    long header" and "&lt;x&gt;" in table._repr_html_()


def test_ledger_takes_every_figure_from_the_run():
    history = made_up(name="a step")
    history.validate(0.5, 0.9812)
    text = repr(ledger([(short, history, None), (documented, history, same(history, history))]))
    assert f"{train_losses(history)[-1]:.4f}" in text and "98.12%" in text and "identical" in text and "a step" in text


# LiveCurve


def test_live_curve_is_a_history_outside_a_notebook():
    live = LiveCurve(seconds=0)
    for loss, acc, n in zip(made_up().losses, made_up().accs, made_up().sizes):
        live.add(loss, acc, n)
    live.end_epoch()
    live.validate(1.0, 0.5)
    assert same(live, made_up()).word == "identical"


def test_live_curve_updates_one_figure(monkeypatch):
    import IPython
    import IPython.display

    shown, updates = [], []

    class Handle:
        def update(self, picture):
            updates.append(picture.alt)

    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", lambda picture, display_id: shown.append(picture) or Handle())
    live = LiveCurve(seconds=0)
    for _ in range(3):
        live.add(1.0, 0.5, 64)
    live.end_epoch()
    assert len(shown) == 1 and len(updates) == 3 and "3 mini-batches" in updates[-1]


# exercise


def test_exercise_reports_and_never_raises():
    @exercise
    def check(answer):
        assert answer() == 4, "expected 4"

    def blank():
        raise NotImplementedError

    def crash():
        raise KeyError("k")

    assert check(lambda: 4).solved and not check(lambda: 5).solved and "expected 4" in check(lambda: 5).message
    assert "not solved yet" in check(blank).message and "KeyError" in check(crash).message
    with pytest.raises(AssertionError, match="expected 4"):
        check.__wrapped__(lambda: 5)


def test_histories_can_be_copied():
    assert same(copy.deepcopy(made_up()), made_up()).word == "identical"
