"""Places that one can link to besides headings: what a cell defines (`#def-SGD`), and an exercise's solution.

A planted bug has its place in `bugs.py`.
"""

import ast

from docutils import nodes

SOLUTION = "<details><summary>Solution"


def defined(cell):
    "List the names of the functions and classes that a code cell defines; none, if it is not plain Python."
    try:
        code = ast.parse(next(cell.findall(nodes.literal_block)).astext())
    except (StopIteration, SyntaxError):
        return []
    return [node.name for node in code.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]


def mark_places(app, doctree):
    "Give each cell that defines a name for the first time, and each solution, an id."
    if not app.env.docname.startswith("chapters/"):
        return
    known = set()
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") == "cell_code":
            new = [name for name in dict.fromkeys(defined(cell)) if name not in known]
            known.update(new)
            cell["ids"] += [f"def-{name}" for name in new]
    for section in doctree.findall(nodes.section):
        for child in section:
            if isinstance(child, nodes.raw) and SOLUTION in child.astext():
                marked = child.astext().replace("<details>", f'<details id="{section["ids"][0]}-solution">', 1)
                child.children[:] = [nodes.Text(marked)]
                child.rawsource = marked


def setup(app):
    app.connect("doctree-read", mark_places)
    return {"parallel_read_safe": True}
