"""The comparison of outputs: it must notice what matters, say where it is, and pass over what does not matter."""

import copy

import nbformat
import pytest

from tools.compare import agree, differences, digest


@pytest.mark.parametrize(
    "stored, fresh",
    [
        ("loss 0.28234", "loss 0.28235"),
        ("⏱ 12.3 ms", "⏱ 1,204 ms"),
        ("close: first at ≈5 (≈7e-08)", "close: first at ≈123 (≈2e-06)"),
        ("mini-batch ≈4     ≈1e-07", "mini-batch ≈11    ≈3e-07"),
        ("mean -0.006", "mean -0.006"),
        ("accuracy 95.43%", "accuracy 95.44%"),
        ("loss ≈0.187", "loss ≈0.193"),
        ("read instead: ≈(4 → 7, 9 → 4).", "read instead: ≈(9 → 4)."),
        ("drawn: 'fit', 782 points: 0.61 95.5", "drawn: 'fit', 782 points: 0.62 95.1"),
    ],
)
def test_rounding_and_timings_may_differ(stored, fresh):
    assert agree(stored, fresh)


@pytest.mark.parametrize(
    "stored, fresh",
    [
        ("loss 0.2823", "loss 0.2923"),
        ("identical: 782", "close: 782"),
        ("782 batches", "781 batches"),
        ("9 as 4", "4 as 9"),
        ("accuracy 95.43%", "accuracy 95.93%"),
        ("1e-07", "1e-05"),
        ("≈5", "5"),
        ("≈4     close", "≈11    identical"),
        ("loss ≈0.187", "loss ≈0.287"),
        ("drawn: 'fit', 782 points: 0.61", "drawn: 'fit', 781 points: 0.61"),
        ("drawn: 'fit', 782 points: 95.5", "drawn: 'fit', 782 points: 93.5"),
        ("drawn: 'fit', 782 points: 0.61 0.3", "drawn: 'fit', 782 points: 0.61"),
        ("loss -0.5", "loss 0.5"),
        ("[1, 2]", "[1, 2, 3]"),
    ],
)
def test_another_story_is_noticed(stored, fresh):
    assert not agree(stored, fresh)


def stored(source, text):
    "Make up a notebook with one cell that has run."
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text=text)]
    notebook.metadata.ran = {cell.id: digest(cell.source) for cell in notebook.cells}
    return notebook


def test_the_difference_is_named_by_notebook_cell_and_line():
    notebook = stored("fit()", "epoch 1\nloss 0.2823\n")
    stale = copy.deepcopy(notebook)
    stale.cells[0].outputs[0].text = "epoch 1\nloss 0.3823\n"
    assert differences(stale, notebook, "09.ipynb") == [
        "09.ipynb, code cell 1 ('fit()'), line 2: stored 'loss 0.3823', made 'loss 0.2823'"
    ]


def test_a_cell_that_was_edited_after_its_run_is_named():
    edited = stored("fit(lr=0.1)", "done\n")
    edited.cells[0].source = "fit(lr=0.2)"
    assert differences(edited, edited, "09.ipynb") == [
        "09.ipynb, code cell 1 ('fit(lr=0.2)'): was edited after it ran, or was never run"
    ]
