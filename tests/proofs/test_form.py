"""The form of a chapter: its first cell, its cells' length, its links; each cell depends on those above it only."""

import ast
import builtins
import importlib
import re
import statistics
import symtable

from tools.chapters import code_lines
from tools.export import is_method_of

WIDTH = 92  # characters in a line of code: more are cut off on the site and in JupyterLab on a laptop


def test_a_chapter_keeps_its_budget(chapter):
    assert len(chapter.cells) <= 260
    wide = [line for cell in chapter.code_cells for line in cell.source.splitlines() if len(line) > WIDTH]
    assert wide == [], f"over {WIDTH} characters"


def test_a_chapter_has_pictures_of_ideas(chapter):
    pictures = [output for _, output in chapter.outputs if "image/png" in output.get("data", {})]
    words = [picture.metadata["image/png"]["alt"] for picture in pictures]
    ideas = [alt for alt in words if not alt.startswith("Line charts of")]  # those are what a run recorded
    assert len(ideas) >= 4, ideas


def test_cells_are_short(chapter):
    lengths = {cell.source: len(code_lines(cell)) for cell in chapter.code_cells if code_lines(cell)}
    long = [source for source, length in lengths.items() if length > 25]
    assert [source for source in long if not is_one_class(source)] == [], "over 25 lines"
    assert statistics.median(lengths.values()) <= 4


def test_what_is_folded_on_the_site_is_folded_in_jupyterlab(chapter):
    folded = {cell.id for cell in chapter.cells if cell.metadata.get("jupyter", {}).get("source_hidden")}
    assert folded == {cell.id for cell in chapter.code_cells if "#| code-fold: true" in cell.source.splitlines()}


def is_one_class(source):
    "Return whether a cell holds a class and nothing else."
    body = ast.parse(source).body
    return len(body) == 1 and isinstance(body[0], ast.ClassDef)


def test_every_figure_says_what_it_shows(chapter):
    for _, output in chapter.outputs:
        if "image/png" in output.get("data", {}):
            assert len(output.metadata["image/png"]["alt"]) > 20
            assert output.data["text/plain"] == output.metadata["image/png"]["alt"]


def test_a_chapter_starts_with_title_promise_and_what_it_takes(chapter):
    assert chapter.title and chapter.promise and chapter.minutes and chapter.seconds
    for part in ("**You will**", "**You need**", "**Takes**"):
        assert part in chapter.cells[0].source


def test_links_between_chapters_lead_somewhere(chapter):
    for cell in chapter.cells:
        for target in re.findall(r"\]\(([^)#]+\.ipynb)\)", cell.source):
            assert (chapter.path.parent / target).exists(), target


# Alone and in order


def names(table, inside=False):
    "Return what a piece of code reads from the globals, in functions and outside, and what it binds there."
    function = inside or (table.get_type() == "function" and table.get_name() not in ("listcomp", "genexpr", "dictcomp", "setcomp"))  # noqa: E501
    top = table.get_type() == "module"
    seen = [s for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())]
    reads = {(s.get_name(), function) for s in seen}
    binds = {s.get_name() for s in table.get_symbols() if top and (s.is_assigned() or s.is_imported())}
    for child in table.get_children():
        reads |= names(child, function)[0]
    return reads, binds


def without_methods(source):
    "Return the code of a cell as a function, where `@method_of(…)` binds no name: it puts the function into a class."
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(map(is_method_of, node.decorator_list)):
            node.name = f"_method_{node.name}"
    return ast.unparse(tree)


def starred(source):
    "Return the names that a star import in a cell binds."
    froms = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    stars = [node.module for node in froms if node.names[0].name == "*"]
    return {name for module in stars for name in importlib.import_module(module).__all__}


def test_no_cell_depends_on_one_below(chapter):
    cells = [cell.source for cell in chapter.code_cells]
    found = [names(symtable.symtable(without_methods(source), chapter.path.name, "exec")) for source in cells]
    binds = [bound | starred(source) for (_, bound), source in zip(found, cells)]
    bound = set(dir(builtins)) | {"__name__"}
    for number, ((reads, _), new) in enumerate(zip(found, binds)):
        bound |= new
        assert {name for name, _ in reads} <= bound, f"cell {number + 1} reads {({n for n, _ in reads} - bound)}"
        later = set().union(*binds[number + 1 :]) - {name for name in new if "import " in cells[number]}
        anew = {name for name, inside in reads if inside and name in later and not imported(name, cells)}
        assert not anew, f"cell {number + 1}: a function reads {anew}, which a later cell binds anew"


def imported(name, cells):
    "Return whether a name is bound by imports only, so that binding it again changes nothing."
    binding = [cell for cell in cells if name in names(symtable.symtable(cell, "", "exec"))[1]]
    return all(re.search(rf"^(import|from) .*\b{name}\b", cell, re.MULTILINE) for cell in binding)
