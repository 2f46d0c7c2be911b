"""The project: every value in one file, nothing private, installable, importable without a trace, README true."""

import ast
import importlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tools import bugs, export
from tools.chapters import ROOT, below, chapters
from tools.settings import read

MODULES = sorted(path.stem for path in (ROOT / "exp").glob("nb_*.py"))


def python(*arguments, cwd=None):
    "Run Python; give what it prints, fail with what it says."
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def text_of(path):
    "Read a file, unpacked if it is packed with `xz`."
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes()).decode()
    return path.read_text(encoding="utf-8")


# Values


def test_the_installed_version_is_that_of_settings():
    import exp

    assert exp.__version__ == read()["version"]


def test_no_value_stands_in_two_files(files):
    code = [path for path in files if path.suffix in (".py", ".toml", ".cfg")]
    found = [path.name for path in code if read()["version"] in text_of(path)]
    assert found == []
    assert "[project]" not in text_of(ROOT / "pyproject.toml")


# Encodings (files: ruff's PLW1514)


def test_what_a_process_says_is_read_as_utf_8(files):
    "Windows and an ASCII locale prefer others."
    for path in files:
        for node in ast.walk(ast.parse(text_of(path))) if path.suffix == ".py" else ():
            given = {k.arg: ast.unparse(k.value) for k in node.keywords} if isinstance(node, ast.Call) else {}
            assert given.get("text") != "True" or "encoding" in given, f"{path.name}, line {node.lineno}"


# Privacy

PRIVATE = [
    r"(?<![\w.])/(?:work|root|tmp|opt|home|Users|farm)/[\w.-]",  # a machine's path
    r"[\w.+-]+@[\w-]+\.[a-z]{2,}",  # a mail address
    r"\b(?:pypi|files\.pythonhosted|download\.pytorch|registry\.npmjs|deb\.debian|conda\.anaconda)\.org",  # a registry
    r"(?<!==)\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+(?:\.\d+)?\b",  # a private address
]


def test_nothing_private_is_in_any_file(files):
    ours = [p for p in files if "fonts" not in p.parts and p != ROOT / "tests" / "project" / "test_project.py"]
    packed = (".gz", ".png", ".safetensors", ".f16")
    texts = [p for p in ours if p.suffix not in packed and "corpus" not in p.parts]
    found = [(p.name, match.group()) for p in texts for rule in PRIVATE for match in re.finditer(rule, text_of(p))]
    assert found == []


# Modules


def test_importing_leaves_no_trace(tmp_path):
    "In one process: what the first of them loads, the others load too."
    watch = f"""
import importlib, sys, torch
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
for module in {MODULES}:
    importlib.import_module("exp." + module)
    read = [path for path in opened if path.endswith((".gz", ".png", ".json", ".ipynb"))]
    print(module, "matplotlib.pyplot" in sys.modules, read)
"""
    said = python("-W", "error", "-c", watch, cwd=tmp_path)
    assert said.splitlines() == [f"{module} False []" for module in MODULES]


@pytest.mark.all_chapters
def test_one_import_brings_a_chapter_and_those_before_it():
    for module in MODULES:
        space = {}
        exec(f"from exp.{module} import *", space)
        own = importlib.import_module(f"exp.{module}")
        assert len(set(own.__all__)) == len(own.__all__) and "torch" in space
        for lower in below(module):
            names = importlib.import_module(f"exp.{lower}").__all__
            assert set(names) <= set(own.__all__) <= set(space), f"{module} does not pass on all of {lower}"
            defined = ast.parse(text_of(ROOT / "exp" / f"{lower}.py")).body
            public = {n.name for n in defined if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name[0] != "_"}
            decorators = {n.name: map(ast.unparse, n.decorator_list) for n in defined if hasattr(n, "decorator_list")}
            methods = {name for name, texts in decorators.items() if any("method_of(" in text for text in texts)}
            assert public - methods <= set(own.__all__)


@pytest.mark.all_chapters
def test_every_public_name_says_what_it_is():
    for module in MODULES:
        own = importlib.import_module(f"exp.{module}")
        for name in own.__all__:
            thing = getattr(own, name)
            if getattr(thing, "__module__", "") == f"exp.{module}":
                assert re.match(r"[A-Z].+\.$", (thing.__doc__ or " ").splitlines()[0]), f"{module}.{name}"


@pytest.mark.all_chapters
def test_exported_modules_are_in_step(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs")
    (tmp_path / "exp").mkdir()
    shutil.copy(ROOT / "exp" / "__init__.py", tmp_path / "exp")
    export.main(tmp_path)
    fresh = {path.name: text_of(path) for path in (tmp_path / "exp").glob("*.py")}
    stored = {path.name: text_of(path) for path in (ROOT / "exp").glob("*.py") if path.name != "_modidx.py"}
    assert fresh == stored, "run `make export`"


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_downwards_only(module):
    tree = ast.parse(text_of(ROOT / "exp" / f"{module}.py"))
    below = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert all(node.module < module for node in below)
    whole = [node.module for node in below if node.names[0].name == "*"]
    assert len(whole) == (module != "nb_00"), "one chapter passes all names of the chain on"


# Installation


def test_the_wheel_holds_the_data_and_its_attribution(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("mnist", "fashion_mnist"):
        assert sum(name.startswith(f"exp/data/{folder}/") and name.endswith(".gz") for name in names) == 4
        assert f"exp/data/{folder}/README.md" in names
    assert "exp/data/fashion_mnist/LICENSE" in names
    assert {"exp/data/text/series.txt.xz", "exp/data/text/writer.f16", "exp/data/text/README.md"} <= set(names)
    assert not any(name.startswith(("tests", "tools", "nbs")) for name in names)


def test_the_wheel_works_read_only_from_a_folder_with_an_odd_name(wheel, tmp_path):
    place = tmp_path / "ein Ordner, größer"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    for path in place.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    say = "import exp, exp.nb_02 as n; print(exp.__file__); print(n.get_mnist_data('test')[0].shape)"
    found = python("-I", "-B", "-c", f"import sys; sys.path.insert(0, {str(place)!r}); {say}", cwd=tmp_path)
    assert "größer" in found and "[10000, 784]" in found
    for path in place.rglob("*"):
        path.chmod(0o755)


TRAIN = """
from exp.nb_02 import *
from torch import nn
torch.set_num_threads(1)
set_seed(0)
x, y = (part[:10_000] for part in get_mnist_data())
model = Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
history = LiveCurve("from a script")
fit(DataLoader(Dataset(x, y), shuffle=True), model, cross_entropy_loss, SGD(model.parameters()), history=history)
assert history.plot().png().startswith(b"\\x89PNG")
print(history.losses[-1].hex(), plot_epochs(history), show_images(x[:3], y[:3]))
"""


def test_two_processes_at_once_train_alike_and_warn_of_nothing(package, tmp_path):
    own = {**os.environ, "PYTHONPATH": str(package)}
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
    command = [sys.executable, "-W", "error", "-c", TRAIN]
    both = [subprocess.Popen(command, cwd=tmp_path, env=own, **how) for _ in range(2)]
    first, second = (process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], first + second
    assert first == second and first.startswith("0x")
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_names_its_requirements(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(needed) == ["cloudpickle", "matplotlib", "torch"]
    assert "Requires-Python: >=3.10" in metadata
    assert "License-Expression: Apache-2.0 AND MIT AND CC-BY-SA-3.0" in metadata


# README

README = text_of(ROOT / "README.md")


def test_the_import_example_works_when_pasted(tmp_path):
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    said = python("-c", example, cwd=tmp_path)
    assert re.search(r"781 mini-batches, training loss 0\.\d+, validation accuracy 9\d", said)


@pytest.mark.all_chapters
def test_the_chapter_map_says_what_the_chapters_say():
    for chapter in chapters():
        [row] = [line for line in README.splitlines() if f"(nbs/{chapter.path.name})" in line]
        assert row.endswith(f"| {chapter.minutes} min | {chapter.seconds} s |"), row


@pytest.mark.all_chapters
def test_the_readme_counts_right():
    planted, solved = sum(len(bugs.table(c)) for c in chapters()), sum(len(c.exercises) for c in chapters())
    assert f"{planted} in all" in README and f"{solved} exercises" in README.replace("\n", " ")


def test_every_link_and_picture_in_the_readme_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_commands_of_the_readme_are_in_the_makefile():
    makefile = text_of(ROOT / "Makefile")
    for command in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
