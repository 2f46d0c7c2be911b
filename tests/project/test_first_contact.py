"""First contact: what goes wrong on a learner's machine meets what works, or one line that says what to do."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import venv

import pytest

from tools import environment
from tools.chapters import ROOT


@pytest.fixture
def tool():
    "Give tools/environment.py as it is when it starts."
    return importlib.reload(environment)


def make(*arguments, **variables):
    "Run make; give its exit code and all that it prints."
    env = {**os.environ, **variables}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_an_old_python_is_told_what_to_do(tool):
    assert tool.min_python() == (3, 10)
    words = tool.complaint((3, 9, 1), tool.min_python(), True)
    assert "3.9 is too old" in words and "3.10 or newer" in words and "make lab PYTHON=" in words and "\n" not in words
    assert tool.complaint((3, 10, 0), tool.min_python(), True) is None
    assert tool.complaint((3, 14, 0), tool.min_python(), True) is None


def test_the_scripts_syntax_is_old_enough():
    ast.parse((ROOT / "tools" / "environment.py").read_text(), feature_version=(3, 4))


def test_a_python_without_venv_is_told_what_to_do(tool):
    words = tool.complaint((3, 11, 2), (3, 10), False)
    assert "apt install python3.11-venv" in words and "\n" not in words


def test_a_python_that_is_not_there_is_named():
    code, said = make("lab-env", "PYTHON=python-that-is-not-there")
    assert code != 0 and "python-that-is-not-there was not found" in said


def test_root_is_allowed_and_only_root():
    _, said = make("-n", "lab")
    assert ("--allow-root" in said) == (os.geteuid() == 0)
    assert "/lab/tree/01_data.ipynb" in said


@pytest.fixture
def place(tool, tmp_path, monkeypatch):
    "Let the script work in a folder whose name has spaces, and record its commands instead of running them."
    folder = tmp_path / "a folder with spaces"
    shutil.copytree(ROOT / "tools", folder / "tools")
    for name in ("settings.ini", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    commands = []

    def run(*command):
        commands.append(command)
        if "venv" in command:
            venv.create(command[-1], clear=True, with_pip=False, symlinks=True)

    monkeypatch.setattr(tool, "ROOT", str(folder))
    monkeypatch.setattr(tool, "VENV", str(folder / ".venv"))
    monkeypatch.setattr(tool, "STAMP", str(folder / ".venv" / "installed.json"))
    monkeypatch.setattr(tool, "PYTHON", str(folder / ".venv" / "bin" / "python"))
    monkeypatch.setattr(tool, "run", run)
    return folder, commands


def test_a_fresh_folder_gets_an_environment_and_a_stamp(tool, place):
    folder, commands = place
    tool.main("lab")
    assert [command[2] for command in commands] == ["venv", "pip"] and commands[1][-1] == ".[lab]"
    assert json.loads((folder / ".venv" / "installed.json").read_text()) == {"lab": tool.fingerprint()}


def test_a_second_run_installs_nothing(tool, place):
    folder, commands = place
    tool.main("dev")
    done = len(commands)
    tool.main("dev")
    tool.main("lab")
    assert len(commands) == done
    tool.main("fuzz")  # needs more than dev has
    assert ".[fuzz]" in commands[-1]


def make_environment(folder, **options):
    "Make a real virtual environment, quickly."
    venv.create(folder / ".venv", symlinks=True, **options)
    return folder / ".venv" / "bin"


def test_a_half_made_environment_is_made_anew(tool, place):
    folder, commands = place
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    assert tool.state() == "broken"
    tool.main("lab")
    assert "--clear" in commands[0]


def test_an_interrupted_installation_is_finished(tool, place):
    folder, commands = place
    make_environment(folder, system_site_packages=True)
    assert tool.state() == "sound"
    tool.main("dev")
    assert [command[2] for command in commands] == ["pip"]


def test_an_environment_of_another_tool_gets_pip_and_keeps_its_packages(tool, place):
    folder, commands = place
    make_environment(folder)
    assert tool.state() == "without pip"
    tool.main("lab")
    assert [command[2] for command in commands] == ["ensurepip", "pip"]


def test_a_moved_folder_is_mended_and_keeps_its_packages(tool, place):
    folder, commands = place
    other = folder.parent / "where it was made"
    other.mkdir()
    make_environment(other, system_site_packages=True)
    (other / ".venv").rename(folder / ".venv")
    assert tool.state() == "moved"
    tool.main("lab")
    assert commands[0][2] == "venv" and "--clear" not in commands[0]


def test_an_environment_with_an_old_python_is_made_anew(tool, place, monkeypatch):
    folder, commands = place
    make_environment(folder, system_site_packages=True)
    monkeypatch.setattr(tool, "min_python", lambda: (3, 99))
    assert tool.state() == "old"


@pytest.mark.parametrize("content", ["", "5", "null", "[1]", "{"])
def test_a_stamp_that_makes_no_sense_is_no_stamp(tool, place, content):
    folder, _ = place
    (folder / ".venv").mkdir()
    (folder / ".venv" / "installed.json").write_text(content)
    assert tool.installed() == {}


def test_new_requirements_are_installed(tool, place):
    folder, commands = place
    tool.main("lab")
    with open(folder / "settings.ini", "a") as file:
        file.write("# changed\n")
    tool.main("lab")
    assert commands[-1][2] == "pip" and len(commands) >= 3
