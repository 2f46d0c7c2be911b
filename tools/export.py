"""Write the modules of `exp/` from the notebooks of `nbs/`, with nbdev: `python -m tools.export`, or `nbdev-export`.

Both do the same, because pyproject.toml names `Map` under `export_procs`, so that nbdev loads this module. It changes
one thing in nbdev: `__all__` of a module also passes on the names that the module's star imports bring, so that
`from exp.nb_04 import *` gives a chapter and those before it.
"""

import ast
import re

from fastcore.basics import patch
from nbdev.export import nb_export
from nbdev.maker import ModuleMaker, read_var

from tools.chapters import ROOT, chapters

own_names = ModuleMaker.make_all


def stars(cells):
    "List the modules from which the cells import `*`."
    nodes = [node for cell in cells for node in cell.parsed_() or ()]
    return [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]


def methods(cells):
    "Return the names of functions that `@method_of(…)` puts into a class, and that are nothing else."
    nodes = [node for cell in cells for node in cell.parsed_() or ()]
    named = [node for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    within = {node.name for node in named if any(map(is_method_of, node.decorator_list))}
    return within - {node.name for node in named if not any(map(is_method_of, node.decorator_list))}


def is_method_of(decorator):
    "Return whether a decorator is a call of `method_of`."
    return isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "method_of"


@patch
def make_all(self: ModuleMaker, cells):
    "List the names of the chapter itself, then those that it passes on."
    names = [module.rpartition(".")[2] for module in stars(cells)]
    below = [self.fname.with_name(f"{name}.py") for name in names if name.startswith("nb_")]
    passed = [name for path in below for name in read_var(path.read_text(encoding="utf-8"), "__all__") or ()]
    own = [name for name in own_names(self, cells) if name not in methods(cells)]
    return list(dict.fromkeys(own + passed))


class Map:
    "Processor of nbdev, which makes one for each notebook: bring the map in `exp/__init__.py` up to date."

    def __init__(self, nb, root=ROOT):
        self.path, self.root = root / "exp" / "__init__.py", root

    def end(self):
        "Write a line for each chapter, where they stood before."
        text = self.path.read_text(encoding="utf-8")
        lines = [f"    {chapter.module}   {chapter.title[5:]}\n" for chapter in by_number(self.root)]
        fresh = re.sub(r"(?:    nb_\d\d .*\n)+", lambda _: "".join(lines), text, count=1)
        if fresh != text:
            self.path.write_text(fresh, encoding="utf-8", newline="\n")


def by_number(root=ROOT):
    "List the chapters by number: those below first."
    return sorted(chapters(root), key=lambda chapter: chapter.number)


def main(root=ROOT):
    "Export every chapter of `root/nbs` to `root/exp`."
    for chapter in by_number(root):
        nb_export(chapter.path, lib_path=root / "exp")
    Map(None, root).end()


if __name__ == "__main__":
    main()
