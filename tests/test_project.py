"""The project: every value in one file, nothing private, installable, importable without a trace, README true."""

import ast
import configparser
import os
import re
import subprocess
import sys
import zipfile

import notebooks
import pytest

ROOT = notebooks.ROOT
MODULES = sorted(path.stem for path in (ROOT / "exp").glob("nb_*.py"))


def python(*arguments, cwd=None):
    "Run Python; give what it prints, fail with what it says."
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings():
    "Read settings.ini."
    config = configparser.ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


# Values


def test_the_installed_version_is_that_of_settings():
    import exp

    assert exp.__version__ == settings()["version"]


def test_no_value_stands_in_two_files(files):
    found = [p.name for p in files if p.suffix in (".py", ".toml", ".cfg") and settings()["version"] in p.read_text()]
    assert found == []
    assert "[project]" not in (ROOT / "pyproject.toml").read_text()


# Privacy

PRIVATE = [
    r"(?<![\w.])/(?:work|root|tmp|opt|home|Users|farm)/[\w.-]",  # a machine's path
    r"[\w.+-]+@[\w-]+\.[a-z]{2,}",  # a mail address
    r"\b(?:pypi|files\.pythonhosted|download\.pytorch|registry\.npmjs|deb\.debian|conda\.anaconda)\.org",  # a registry
    r"\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+(?:\.\d+)?\b",  # a private address
]


def test_nothing_private_is_in_any_file(files):
    ours = [p for p in files if "katex" not in p.parts and p != ROOT / "tests" / "test_project.py"]
    texts = [p for p in ours if p.suffix not in (".gz", ".png") and "corpus" not in p.parts]
    found = [(p.name, match.group()) for p in texts for rule in PRIVATE for match in re.finditer(rule, p.read_text())]
    assert found == []


# Modules


@pytest.mark.parametrize("module", MODULES)
def test_importing_leaves_no_trace(module, tmp_path):
    watch = f"""
import sys, torch
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import exp.{module}
print("matplotlib.pyplot" in sys.modules, [p for p in opened if p.endswith((".gz", ".png", ".json", ".ipynb"))])
"""
    assert python("-W", "error", "-c", watch, cwd=tmp_path) == "False []\n"


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_downwards_only(module):
    tree = ast.parse((ROOT / "exp" / f"{module}.py").read_text())
    below = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    assert all(name < module for name in below) and len(below) == (module != "nb_00")


# Installation


def test_the_wheel_holds_the_data_and_its_attribution(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert sum(name.startswith("exp/data/mnist/") and name.endswith(".gz") for name in names) == 4
    assert "exp/data/mnist/README.md" in names and not any(name.startswith(("tests", "tools", "nbs")) for name in names)


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
x, y = get_mnist_data("test")
model = Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
history = LiveCurve("from a script")
fit(DataLoader(Dataset(x, y), shuffle=True), model, cross_entropy_loss, SGD(model.parameters()), history=history)
assert history.plot().png().startswith(b"\\x89PNG")
print(history.losses[-1].hex(), plot_epochs(history), show_images(x[:3], y[:3]))
"""


def test_two_processes_at_once_train_alike_and_warn_of_nothing(package, tmp_path):
    own = {**os.environ, "PYTHONPATH": str(package)}
    how = {"cwd": tmp_path, "env": own, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen([sys.executable, "-W", "error", "-c", TRAIN], **how) for _ in range(2)]
    first, second = (process.communicate()[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], first + second
    assert first == second and first.startswith("0x")
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_names_its_requirements(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(needed) == ["matplotlib", "torch"]
    assert "Requires-Python: >=3.10" in metadata and "License-Expression: Apache-2.0" in metadata


# README

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_import_example_works_when_pasted(tmp_path):
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    said = python("-c", example, cwd=tmp_path)
    assert re.search(r"782 mini-batches, training loss 0\.\d+, validation accuracy 9\d", said)


def test_the_chapter_map_says_what_the_chapters_say():
    for path in notebooks.chapters():
        text = notebooks.read(path).cells[0].source
        minutes, seconds = re.search(r"\*\*Takes\*\* (\d+) minutes to read, (\d+) seconds to run", text).groups()
        [row] = [line for line in README.splitlines() if f"(nbs/{path.name})" in line]
        assert row.endswith(f"| {minutes} min | {seconds} s |"), row


def test_every_link_and_picture_in_the_readme_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_commands_of_the_readme_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for command in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
