"""The directive `.. module-reference:: nb_02`: each public name that a module builds: signature, docstring, shapes.

Signatures and the comments behind their parameters are read from the live objects by fastcore's `docments`, the format
in which nbdev projects document parameters. The pages themselves are written here, one for each chapter.
"""

import importlib
import inspect

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from fastcore.docments import docments

from docs._ext.loops import write_stubs
from tools.chapters import chapters

PAGE = """exp.{module} · {name}
{line}

Built in :doc:`/chapters/{stem}`.

.. module-reference:: {module}
"""


def write_pages(app, config):
    "Write a page for the module of each chapter, touching only those that changed."
    pages = {f"{each.module}.rst": PAGE.format(line="=" * 80, name=name(each), **vars(each)) for each in chapters()}
    write_stubs(app.srcdir / "reference", "nb_[0-9][0-9].rst", pages)


def name(chapter):
    "Return the name of a chapter, short enough for the sidebar: 'Backpropagation'."
    return chapter.title.partition(" · ")[2].partition(":")[0].replace("`", "")


def own_names(module):
    "List the public names that a module defines itself, in the order of its notebook."
    return [name for name in module.__all__ if getattr(getattr(module, name), "__module__", "") == module.__name__]


def parameters(thing):
    "Return (name, comment) of each documented parameter, and of what is returned."
    found = docments(thing, full=True)
    return [(name, info.docment) for name, info in found.items() if getattr(info, "docment", None)]


def signature(thing):
    "Write a signature without types: the comments say more."
    try:
        parts = inspect.signature(thing).parameters.values()
    except ValueError:
        return ""
    return "(" + ", ".join(str(p.replace(annotation=p.empty, default=Default.of(p.default))) for p in parts) + ")"


class Default:
    "Show a default that is a class or a function by its name: `ReLU`, not what Python says of it."

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name

    @classmethod
    def of(cls, value):
        named = value is not inspect.Parameter.empty and (inspect.isclass(value) or inspect.isroutine(value))
        return cls(value.__name__) if named else value


def methods(thing):
    "List the documented public methods and properties of a class."
    own = {name: each for name, each in vars(thing).items() if not name.startswith("_") and inspect.getdoc(each)}
    return [name for name, each in own.items() if is_method(each) and home(each) in (thing.__module__, None)]


def is_method(each):
    "Return whether an attribute of a class is a method or a property."
    return callable(each) or isinstance(each, property)


def home(each):
    "Return the module in which a method or property was written, None where that cannot be told."
    return getattr(each.fget if isinstance(each, property) else each, "__module__", None)


def added(module):
    "List the methods that a module puts into classes of modules below: (name with its class, method)."
    classes = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ != module.__name__]
    found = [(f"{each.__name__}.{name}", own) for each in dict.fromkeys(classes) for name, own in vars(each).items()]
    return [(name, own) for name, own in found if is_method(own) and home(own) == module.__name__]


def documented(module):
    "List the names under which the page of a module tells what the module builds."
    return [*own_names(module), *(name for name, _ in added(module))]


def literals(text):
    "Turn Markdown's `code` into reStructuredText's, whatever follows it; join lines."
    parts = " ".join(text.split()).split("`")
    parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
    return "".join(f"``{part}``\\ " if number % 2 else part for number, part in enumerate(parts))


def describe(name, thing, indent=""):
    "Write one object as reStructuredText."
    kind = "class" if inspect.isclass(thing) else "method" if indent else "function"
    kind, own = ("property", "") if isinstance(thing, property) else (kind, signature(thing))
    own = own.replace("(self, ", "(").replace("(self)", "()") if kind == "method" else own
    lines = [f"{indent}.. py:{kind}:: {name}{own}", "", f"{indent}   {literals(inspect.getdoc(thing))}", ""]
    for parameter, comment in () if kind == "property" else parameters(thing):
        field = ":returns:" if parameter == "return" else f":param {parameter}:"
        lines.append(f"{indent}   {field} {literals(comment)}")
    lines.append("")
    if kind == "class":
        for method in methods(thing):
            lines += describe(method, getattr(thing, method), indent + "   ")
    return lines


class ModuleReference(Directive):
    "List the public names of a module of `exp`."

    required_arguments = 1

    def run(self):
        module = importlib.import_module(f"exp.{self.arguments[0]}")
        self.state.document.settings.env.note_dependency(module.__file__)
        lines = [f".. py:currentmodule:: exp.{self.arguments[0]}", ""]
        for name in own_names(module):
            lines += describe(name, getattr(module, name))
        for name, method in added(module):
            lines += describe(name, method)
        body = nodes.container()
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), 0, body)
        return body.children


def setup(app):
    app.add_directive("module-reference", ModuleReference)
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
