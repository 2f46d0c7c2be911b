"""The stored outputs are those of a clean run, and a forgery of any of them is noticed."""

import collections
import copy
import re

import nbformat
import pytest

from tools import chapters, compare
from tools.chapters import DATA
from tools.compare import differences


def test_stored_outputs_are_those_of_a_clean_run(chapter, executed):
    fresh, _ = executed(chapter)
    assert differences(chapter.notebook, fresh, chapter.path.name) == []


def test_no_output_is_an_error_or_a_warning(chapter):
    outputs = [output for _, output in chapter.outputs]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []


@pytest.mark.all_chapters
def test_pictures_are_those_of_the_notebooks():
    made = {name: png for chapter in chapters.chapters() for name, png in chapter.pictures.items()}
    assert made
    for name, png in made.items():
        assert (chapters.ROOT / "docs" / "_static" / name).read_bytes() == png, "run `make outputs`"


# Forgeries


def with_cell(notebook, index, change):
    "Return a copy of a notebook in which `change` was done to a copy of one cell."
    other, cell = copy.copy(notebook), copy.deepcopy(notebook.cells[index])
    other.cells = [*notebook.cells[:index], cell, *notebook.cells[index + 1 :]]
    change(cell)
    return other


def never_run(notebook, cell):
    "Return a copy of a notebook of which it is not known that one cell has run."
    other = copy.copy(notebook)
    other.metadata = copy.deepcopy(notebook.metadata)
    del other.metadata.ran[cell.id]
    return other


def texts(cell):
    "List the places of a cell's outputs that hold text: (holder, key)."
    places = [(output, "text") for output in cell.outputs if "text" in output]
    data = [output.data for output in cell.outputs if "data" in output]
    places += [(held, mime) for held in data for mime in held if mime.startswith("text/")]
    held = [place for each in data if DATA in each for place in places_of(each[DATA])]
    return places + [(holder, key) for holder, key in held if isinstance(holder[key], str) and key != "kind"]


def places_of(data):
    "List the places of nested dictionaries and lists that hold neither: (holder, key)."
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        if isinstance(value, (dict, list)):
            yield from places_of(value)
        else:
            yield data, key


def changes_of_text(text):
    "Return each small forgery of a text: (kind, forged text). What is marked as loose is passed over."
    loose = [match.span() for mark in (compare.LOOSE, compare.TIMING) for match in mark.finditer(text)]
    for match in re.finditer(compare.NUMBER, text):
        digit = re.search(r"[1-9]", match.group())
        if digit and not any(a <= match.start() < b for a, b in loose):
            at = match.start() + digit.start()
            yield "digit", text[:at] + str(int(text[at]) + (4 if text[at] < "6" else -4)) + text[at + 1 :]
    for match in re.finditer(r"\b(identical|close)\b", text):
        other = {"identical": "close", "close": "identical"}[match.group()]
        if not any(a <= match.start() < b for a, b in loose):
            yield "verdict", text[: match.start()] + other + text[match.end() :]
    for line in text.splitlines():
        shares = list(re.finditer(r"(?<!≈)\b\d+\.\d+%", compare.LOOSE.sub("", line)))
        low, high = (f(shares, key=lambda m: float(m.group()[:-1]), default=None) for f in (min, max))
        if shares and float(high.group()[:-1]) - float(low.group()[:-1]) > compare.POINTS:
            swap = {low.group(): high.group(), high.group(): low.group()}
            both = "|".join(map(re.escape, swap))
            yield "swap", text.replace(line, re.sub(both, lambda m, swap=swap: swap[m.group()], line), 1)
    for match in re.finditer(r"(?<![\w≈#&])[A-Za-z]{4,}", text):
        if not any(a <= match.start() < b for a, b in loose):
            yield "word", text[: match.start()] + "x" + text[match.start() + 1 :]


def alone(notebook, cell):
    "Return a copy of a notebook that has one cell: the thousands of forgeries of its outputs are compared with that."
    other = copy.copy(notebook)
    other.cells = [cell]
    return other


def forgeries(notebook):
    "Return each forgery of a notebook: (kind, what is forged, forged)."
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        yield "never run", notebook, never_run(notebook, cell)
        yield "edited after its run", notebook, with_cell(notebook, index, lambda c: c.update(source=c.source + "\n1"))
        added = copy.copy(notebook)
        added.cells = [*notebook.cells[: index + 1], nbformat.v4.new_code_cell("40 + 2"), *notebook.cells[index + 1 :]]
        yield "cell added without output", notebook, added
        own = alone(notebook, cell)
        for k, output in enumerate(cell.outputs):
            yield "output deleted", notebook, with_cell(notebook, index, lambda c, k=k: c.outputs.pop(k))
            yield "output doubled", notebook, with_cell(notebook, index, lambda c, k=k: c.outputs.append(c.outputs[k]))
            for n, line in enumerate(output.get("metadata", {}).get("image/png", {}).get("drawn", [])):
                means = [1.1 * mean + 1e-3 for mean in line.get("means", [9])]
                for key, forged in [("points", line.points + 1), ("means", means)]:
                    yield f"figure, {key}", own, with_cell(own, 0, lambda c, k=k, n=n, key=key, forged=forged: (
                        c.outputs[k].metadata["image/png"]["drawn"][n].update({key: forged})))  # fmt: skip
        for place, (holder, key) in enumerate(texts(cell)):
            for kind, forged in changes_of_text(holder[key]):
                yield kind, own, with_cell(own, 0, lambda c, place=place, key=key, forged=forged: (
                    texts(c)[place][0].update({key: forged})))  # fmt: skip


def test_every_forgery_of_a_stored_output_is_noticed(chapter, record_property, proved):
    if proved(chapter.path):
        return
    counts = collections.Counter()
    for kind, original, forged in forgeries(chapter.notebook):
        found = differences(forged, original, chapter.path.name)
        assert found and found[0].startswith(f"{chapter.path.name}, code cell "), f"{kind}: {found}"
        counts[kind] += 1
    assert {"digit", "output deleted", "never run", "cell added without output", "word"} <= set(counts)
    record_property("forgeries noticed", dict(counts))


def test_among_them_are_losses_accuracies_verdicts_and_their_data():
    kinds = {kind for kind, *_ in forgeries(chapters.chapter("02").notebook)}
    assert {"digit", "swap", "verdict", "figure, points", "figure, means"} <= kinds
    cells = [cell for cell, output in chapters.chapter("02").outputs if DATA in output.get("data", {})]
    assert any(key == "source" for cell in cells for _, key in texts(cell))
