"""The notebooks: what they store is what a clean run gives, and they keep to the series' form."""

import ast
import builtins
import collections
import copy
import importlib
import re
import shutil
import statistics
import symtable

import export
import nbformat
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


def with_cell(notebook, index, change):
    "Give a copy of a notebook in which `change` was done to a copy of one cell."
    other, cell = copy.copy(notebook), copy.deepcopy(notebook.cells[index])
    other.cells = [*notebook.cells[:index], cell, *notebook.cells[index + 1 :]]
    change(cell)
    return other


def texts(cell):
    "List the places of a cell's outputs that hold text: (holder, key)."
    places = [(output, "text") for output in cell.outputs if "text" in output]
    return places + [(o.data, mime) for o in cell.outputs for mime in o.get("data", {}) if mime.startswith("text/")]


def changes_of_text(text):
    "Give each small forgery of a text: (kind, forged text). What is marked as loose is passed over."
    loose = [match.span() for mark in (notebooks.LOOSE, notebooks.TIMING) for match in mark.finditer(text)]
    for match in re.finditer(notebooks.NUMBER, text):
        digit = re.search(r"[1-9]", match.group())
        if digit and not any(a <= match.start() < b for a, b in loose):
            at = match.start() + digit.start()
            yield "digit", text[:at] + str(int(text[at]) + (4 if text[at] < "6" else -4)) + text[at + 1 :]
    for match in re.finditer(r"\b(identical|close)\b", text):
        other = {"identical": "close", "close": "identical"}[match.group()]
        yield "verdict", text[: match.start()] + other + text[match.end() :]
    for line in text.splitlines():
        shares = list(re.finditer(r"(?<!≈)\b\d+\.\d+%", notebooks.LOOSE.sub("", line)))
        low, high = (f(shares, key=lambda m: float(m.group()[:-1]), default=None) for f in (min, max))
        if shares and float(high.group()[:-1]) - float(low.group()[:-1]) > notebooks.POINTS:
            swap = {low.group(): high.group(), high.group(): low.group()}
            both = "|".join(map(re.escape, swap))
            yield "swap", text.replace(line, re.sub(both, lambda m, swap=swap: swap[m.group()], line), 1)
    for match in re.finditer(r"(?<![\w≈#&])[A-Za-z]{4,}", text):
        if not any(a <= match.start() < b for a, b in loose):
            yield "word", text[: match.start()] + "x" + text[match.start() + 1 :]


def forgeries(notebook):
    "Give each forgery of a notebook: (kind, forged notebook)."
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        yield "never run", with_cell(notebook, index, lambda c: c.update(execution_count=None))
        added = copy.copy(notebook)
        added.cells = [*notebook.cells[: index + 1], nbformat.v4.new_code_cell("40 + 2"), *notebook.cells[index + 1 :]]
        yield "cell added without output", added
        for k, output in enumerate(cell.outputs):
            yield "output deleted", with_cell(notebook, index, lambda c, k=k: c.outputs.pop(k))
            yield "output doubled", with_cell(notebook, index, lambda c, k=k: c.outputs.append(c.outputs[k]))
            for n, line in enumerate(output.get("metadata", {}).get("image/png", {}).get("drawn", [])):
                means = [1.1 * mean + 1e-3 for mean in line.get("means", [9])]
                for key, forged in [("points", line.points + 1), ("means", means)]:
                    yield f"figure, {key}", with_cell(notebook, index, lambda c, k=k, n=n, key=key, forged=forged: (
                        c.outputs[k].metadata["image/png"]["drawn"][n].update({key: forged})))  # fmt: skip
        for place, (holder, key) in enumerate(texts(cell)):
            for kind, forged in changes_of_text(holder[key]):
                yield kind, with_cell(notebook, index, lambda c, place=place, key=key, forged=forged: (
                    texts(c)[place][0].update({key: forged})))  # fmt: skip


@each_chapter
def test_every_forgery_of_a_stored_output_is_noticed(path, record_property):
    notebook, counts = read(path), collections.Counter()
    for kind, forged in forgeries(notebook):
        found = differences(forged, notebook, path.name)
        assert found and found[0].startswith(f"{path.name}, code cell "), f"{kind}: {found}"
        counts[kind] += 1
    assert {"digit", "output deleted", "never run", "cell added without output", "word"} <= set(counts)
    record_property("forgeries noticed", dict(counts))


def test_among_them_are_losses_accuracies_and_verdicts():
    kinds = {kind for kind, _ in forgeries(read(chapters()[2]))}
    assert {"digit", "swap", "verdict", "figure, points", "figure, means"} <= kinds


def test_the_difference_is_named_by_notebook_cell_and_line():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("fit()", execution_count=1)])
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="epoch 1\nloss 0.2823\n")]
    stale = copy.deepcopy(notebook)
    stale.cells[0].outputs[0].text = "epoch 1\nloss 0.3823\n"
    assert differences(stale, notebook, "09.ipynb") == [
        "09.ipynb, code cell 1 ('fit()'), line 2: stored 'loss 0.3823', made 'loss 0.2823'"
    ]


# Alone and in order


def names(table, inside=False):
    "Give what a piece of code reads from the globals, in functions and outside, and what it binds there."
    function = inside or (table.get_type() == "function" and table.get_name() not in ("listcomp", "genexpr", "dictcomp", "setcomp"))  # noqa: E501
    top = table.get_type() == "module"
    seen = [s for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())]
    reads = {(s.get_name(), function) for s in seen}
    binds = {s.get_name() for s in table.get_symbols() if top and (s.is_assigned() or s.is_imported())}
    for child in table.get_children():
        reads |= names(child, function)[0]
    return reads, binds


def starred(source):
    "Give the names that a star import in a cell binds."
    froms = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    stars = [node.module for node in froms if node.names[0].name == "*"]
    return {name for module in stars for name in importlib.import_module(module).__all__}


@each_chapter
def test_no_cell_depends_on_one_below(path):
    cells = [cell.source for cell in code_cells(read(path))]
    found = [names(symtable.symtable(source, path.name, "exec")) for source in cells]
    binds = [bound | starred(source) for (_, bound), source in zip(found, cells)]
    bound = set(dir(builtins)) | {"__name__"}
    for number, ((reads, _), new) in enumerate(zip(found, binds)):
        bound |= new
        assert {name for name, _ in reads} <= bound, f"cell {number + 1} reads {({n for n, _ in reads} - bound)}"
        later = set().union(*binds[number + 1 :]) - {name for name in new if "import " in cells[number]}
        anew = {name for name, inside in reads if inside and name in later and not imported(name, cells)}
        assert not anew, f"cell {number + 1}: a function reads {anew}, which a later cell binds anew"


def imported(name, cells):
    "Tell whether a name is bound by imports only, so that binding it again changes nothing."
    binding = [cell for cell in cells if name in names(symtable.symtable(cell, "", "exec"))[1]]
    return all(re.search(rf"^(import|from) .*\b{name}\b", cell, re.MULTILINE) for cell in binding)
