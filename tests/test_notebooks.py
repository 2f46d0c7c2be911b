"""The notebooks: what they store is what a clean run gives, and they keep to the series' form."""

import copy
import re
import shutil
import statistics

import export
import notebooks
import pytest
from notebooks import agree, chapters, code_cells, differences, read

each_chapter = pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)


def code(cell):
    "List the lines of a cell that are code."
    return [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#|")]


@each_chapter
def test_stored_outputs_are_those_of_a_clean_run(path, executed):
    fresh, _ = executed(path)
    assert differences(read(path), fresh, path.name) == []


@each_chapter
def test_no_output_is_an_error_or_a_warning(path):
    outputs = [output for cell in code_cells(read(path)) for output in cell.outputs]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []


@each_chapter
def test_cells_are_short(path):
    lengths = [len(code(cell)) for cell in code_cells(read(path)) if code(cell)]
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 4


@each_chapter
def test_every_figure_says_what_it_shows(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 20
                assert output.data["text/plain"] == output.metadata["image/png"]["alt"]


@each_chapter
def test_a_chapter_starts_with_title_promise_and_what_it_takes(path):
    text = read(path).cells[0].source
    assert re.match(rf"# {path.name[:2]} · .+\n\n> .+", text)
    for part in ("**You will**", "**You need**", "**Takes**"):
        assert part in text


@each_chapter
def test_links_between_chapters_lead_somewhere(path):
    for cell in read(path).cells:
        for target in re.findall(r"\]\(([^)#]+\.ipynb)\)", cell.source):
            assert (path.parent / target).exists(), target


def test_exported_modules_are_in_step(tmp_path):
    shutil.copytree(notebooks.ROOT / "nbs", tmp_path / "nbs")
    export.main(tmp_path)
    fresh = {path.name: path.read_text() for path in (tmp_path / "exp").glob("*.py")}
    stored = {path.name: path.read_text() for path in (notebooks.ROOT / "exp").glob("nb_*.py")}
    assert fresh == stored, "run `make export`"


def test_pictures_are_those_of_the_notebooks():
    made = {name: png for path in chapters() for name, png in notebooks.pictures(read(path)).items()}
    assert made
    for name, png in made.items():
        assert (notebooks.ROOT / "docs" / "_static" / name).read_bytes() == png, "run `make outputs`"


# The comparison itself: it must notice what matters and pass over what does not.


@pytest.mark.parametrize(
    "stored, fresh",
    [
        ("loss 0.28234", "loss 0.28235"),
        ("⏱ 12.3 ms", "⏱ 1,204 ms"),
        ("close: first at ≈5 (≈7e-08)", "close: first at ≈123 (≈2e-06)"),
        ("mean -0.006", "mean -0.006"),
        ("accuracy 95.43%", "accuracy 95.44%"),
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
        ("loss -0.5", "loss 0.5"),
        ("[1, 2]", "[1, 2, 3]"),
    ],
)
def test_another_story_is_noticed(stored, fresh):
    assert not agree(stored, fresh)


def tampered(path):
    "Give a notebook with each kind of tampering, one at a time, and what the comparison should say."
    index = next(i for i, c in enumerate(read(path).cells) if c.get("outputs") and "text/plain" in str(c.outputs))
    for kind in ("deleted", "changed", "added", "never run"):
        notebook = copy.deepcopy(read(path))
        cell = notebook.cells[index]
        if kind == "deleted":
            cell.outputs = []
        elif kind == "changed":
            cell.outputs[0].data["text/plain"] = "something else"
        elif kind == "added":
            cell.outputs.append(cell.outputs[0])
        else:
            cell.execution_count = None
        yield kind, notebook


@each_chapter
def test_tampering_is_noticed(path):
    for kind, notebook in tampered(path):
        found = differences(notebook, read(path), path.name)
        assert len(found) >= 1 and path.name in found[0] and "cell" in found[0], kind
