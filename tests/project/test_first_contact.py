"""First contact: what goes wrong on a learner's machine meets what works, or one line that says what to do."""

import ast
import http.server
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import venv
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement

from tools import environment
from tools.chapters import ROOT


@pytest.fixture
def tool():
    "Return tools/environment.py as it is when it starts."
    return importlib.reload(environment)


def make(*arguments, **variables):
    "Run make; return its exit code and all that it prints."
    env = {**os.environ, **variables}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8")
    return done.returncode, done.stdout + done.stderr


def test_an_old_python_is_told_what_to_do(tool):
    assert tool.min_python() == (3, 10)
    words = tool.complaint((3, 9, 1), tool.min_python(), True)
    assert "3.9 is too old" in words and "3.10 or newer" in words and "make lab PYTHON=" in words and "\n" not in words
    assert tool.complaint((3, 10, 0), tool.min_python(), True) is None
    assert tool.complaint((3, 14, 0), tool.min_python(), True) is None


def test_the_scripts_syntax_is_old_enough():
    ast.parse((ROOT / "tools" / "environment.py").read_text(encoding="utf-8"), feature_version=(3, 4))


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
    for name in ("settings.ini", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    commands = []

    def attempt(*command):
        commands.append(command)
        if "venv" in command:
            venv.create(command[-1], clear=True, with_pip=False, symlinks=True)
        return 0

    monkeypatch.delenv("CONSTRAINTS", raising=False)
    monkeypatch.setattr(tool, "ROOT", str(folder))
    monkeypatch.setattr(tool, "VENV", str(folder / ".venv"))
    monkeypatch.setattr(tool, "STAMP", str(folder / ".venv" / "installed.json"))
    monkeypatch.setattr(tool, "PYTHON", str(folder / ".venv" / "bin" / "python"))
    monkeypatch.setattr(tool, "attempt", attempt)
    return folder, commands


def test_a_fresh_folder_gets_an_environment_and_a_stamp(tool, place):
    folder, commands = place
    tool.main("lab")
    assert [command[2] for command in commands] == ["venv", "pip"] and ".[lab]" in commands[1]
    stamp = (folder / ".venv" / "installed.json").read_text(encoding="utf-8")
    assert json.loads(stamp) == {"lab": tool.fingerprint()}


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
    (folder / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
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
    (folder / ".venv" / "installed.json").write_text(content, encoding="utf-8")
    assert tool.installed() == {}


def test_new_requirements_are_installed(tool, place):
    folder, commands = place
    tool.main("lab")
    with open(folder / "settings.ini", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    done = len(commands)
    tool.main("lab")
    assert commands[-1][2] == "pip" and len(commands) > done


INTERRUPTIBLE = """#!/bin/sh
case "$*" in
  *"-m pip install"*) touch pip-has-begun; exec sleep 60 ;;
  *) echo True ;;
esac
"""


def script(folder, before):
    "Start the copy of the script that lies in a folder, in a process group of its own, after some other code."
    code = f"import runpy, signal, sys; {before}; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, folder / "tools" / "environment.py", "lab"]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen(command, **how)


def test_an_interruption_by_the_keyboard_says_how_to_go_on(place):
    folder, _ = place
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").write_text(INTERRUPTIBLE, encoding="utf-8")
    (folder / ".venv" / "bin" / "python").chmod(0o755)
    with script(folder, "signal.signal(signal.SIGINT, signal.default_int_handler)") as process:
        limit = time.monotonic() + 60
        while not (folder / "pip-has-begun").exists() and time.monotonic() < limit:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate()[1] == "Interrupted; the same command goes on from here.\n"
    assert process.returncode == 1 and not (folder / ".venv" / "installed.json").exists()


def test_without_the_venv_module_nothing_is_begun(place):
    folder, _ = place
    with script(folder, "sys.modules['ensurepip'] = None") as process:
        said, wrong = process.communicate()
    assert process.returncode == 1 and said == "" and "has no venv module" in wrong and wrong.count("\n") == 1
    assert not (folder / ".venv").exists()


def test_a_port_in_use_is_stepped_over(tmp_path):
    (tmp_path / "nbs").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _, said = make("-n", "lab", f"ARGS=--no-browser --port {port}")
        [line] = [line for line in said.splitlines() if "-m jupyterlab" in line]
        command = shlex.split(line.replace(".venv/bin/python", shlex.quote(sys.executable)))
        own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
        how = {"cwd": tmp_path, "env": {**os.environ, **own}, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **how) as process:
            found = next((line for line in process.stderr if "http://127.0.0.1" in line), "it ended")
            process.terminate()
    assert re.search(r"127\.0\.0\.1:(\d+)/lab", found) and f":{port}/" not in found


# Versions: those of constraints.txt, the newest if one asks for them or if this Python has no others


def lines(path):
    "Return the lines of a file of constraints, without comments."
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def test_the_pinned_versions_are_installed(tool, place):
    folder, commands = place
    tool.main("lab")
    given = folder / ".venv" / "constraints.txt"
    assert commands[-1][commands[-1].index("--constraint") + 1] == str(given)
    assert lines(given) == lines(ROOT / "constraints.txt")


@pytest.mark.parametrize("nothing", ["", "none"])
def test_without_constraints_the_newest_are_installed(tool, place, monkeypatch, nothing):
    _, commands = place
    monkeypatch.setenv("CONSTRAINTS", nothing)
    tool.main("lab")
    assert commands[-1][2] == "pip" and "--constraint" not in commands[-1]
    done = len(commands)
    tool.main("lab")
    assert len(commands) == done
    monkeypatch.delenv("CONSTRAINTS")
    tool.main("lab")  # back to the pinned ones
    assert "--constraint" in commands[-1]


def test_changed_pins_are_installed(tool, place):
    folder, commands = place
    tool.main("lab")
    done = len(commands)
    with open(folder / "constraints.txt", "a", encoding="utf-8") as file:
        file.write("# a comment changes nothing\n")
    tool.main("lab")
    assert len(commands) == done
    with open(folder / "constraints.txt", "a", encoding="utf-8") as file:
        file.write("another==1.0\n")
    tool.main("lab")
    assert len(commands) > done and lines(folder / ".venv" / "constraints.txt")[-1] == "another==1.0"


def test_a_file_of_pins_that_is_not_there_is_named(tool, place, monkeypatch):
    monkeypatch.setenv("CONSTRAINTS", "nowhere.txt")
    with pytest.raises(SystemExit, match="^CONSTRAINTS: found no file nowhere.txt, expected .*$"):
        tool.main("lab")


@pytest.mark.parametrize("word, expected", [("", "constraints.txt"), ("CONSTRAINTS=", ""), ("CONSTRAINTS=my", "my")])
def test_make_hands_the_choice_over(tmp_path, monkeypatch, word, expected):
    monkeypatch.delenv("CONSTRAINTS", raising=False)
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\necho "asked for <$CONSTRAINTS> by $*"\n', encoding="utf-8")
    stub.chmod(0o755)
    said = make("lab-env", f"PYTHON={stub}", *word.split())[1]
    assert f"asked for <{expected}> by tools/environment.py lab" in said


def test_a_pytorch_chosen_by_hand_stays(tool, place, monkeypatch, capsys):
    folder, _ = place
    monkeypatch.setattr(tool, "torch_here", lambda: "2.99.0+cpu")
    tool.main("lab")
    [torch] = [line for line in lines(folder / ".venv" / "constraints.txt") if line.startswith("torch==")]
    assert torch == "torch==2.99.0+cpu" and "PyTorch 2.99.0+cpu lies in .venv and stays.\n" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch comes without the libraries for NVIDIA cards")
@pytest.mark.parametrize("card, torch, warned", [(None, "", True), ("nvidia-smi", "", False), (None, "2.13.0", False)])
def test_gigabytes_for_a_card_that_is_not_there_are_announced(tool, place, monkeypatch, capsys, card, torch, warned):
    monkeypatch.setattr(tool.shutil, "which", lambda name: card)
    monkeypatch.setattr(tool, "torch_here", lambda: torch)
    tool.main("lab")
    assert ("gigabytes for NVIDIA cards: README.md says" in capsys.readouterr().out) == warned


class Index(http.server.BaseHTTPRequestHandler):
    "A package index with one package: version 1.0 for every Python, 2.0 for one that does not exist."

    def do_GET(self):
        "Answer with the page of the package, or with its wheel; with an error where the index is out of order."
        self.server.asked.append(self.path)
        page = b'<a href="/thing-1.0-py3-none-any.whl">thing-1.0-py3-none-any.whl</a>'
        page += page.replace(b"<a", b'<a data-requires-python="&gt;=3.99"').replace(b"1.0", b"2.0")
        self.send_response(self.server.code)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.server.wheel if self.path.endswith(".whl") else page)

    def log_message(self, *_):
        "Print nothing."


@pytest.fixture
def index(tool, place, tmp_path, monkeypatch):
    "Let the real pip try an installation, from an index of our own, of a project that needs one package."
    folder, commands = place
    (folder / ".venv").mkdir()
    (folder / "pyproject.toml").write_text("", encoding="utf-8")
    project = "setup(name='p', py_modules=[], install_requires=['thing'], extras_require={'lab': []})"
    (folder / "setup.py").write_text(f"from setuptools import setup\n{project}\n", encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "wheel", "w") as wheel:
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.asked, server.code, server.wheel = [], 200, (tmp_path / "wheel").read_bytes()
    options = {"CONFIG_FILE": os.devnull, "RETRIES": "0", "DRY_RUN": "1", "NO_BUILD_ISOLATION": "0"}
    options |= {"NO_CACHE_DIR": "1", "DISABLE_PIP_VERSION_CHECK": "1", "INDEX_URL": f"http://127.0.0.1:{server.server_port}/"}
    for name, value in options.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(tool, "PYTHON", sys.executable)
    monkeypatch.setattr(tool, "torch_here", lambda: "2.13.0")
    monkeypatch.setattr(tool, "attempt", lambda *c: commands.append(c) or subprocess.call(c, cwd=folder))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server, folder, commands
    server.shutdown()
    server.server_close()


def test_a_pin_that_exists_is_taken(tool, index, capfd):
    _, folder, commands = index
    (folder / "constraints.txt").write_text("thing==1.0\n", encoding="utf-8")
    tool.install("lab")
    assert "thing-1.0" in capfd.readouterr().out.splitlines()[-1] and len(commands) == 1


def test_without_a_pin_for_this_python_it_goes_on_and_says_so_in_one_line(tool, index, capfd):
    _, folder, commands = index
    (folder / "constraints.txt").write_text("thing==2.0\n", encoding="utf-8")
    tool.install("lab")
    said = capfd.readouterr().out
    assert "\nthing==2.0 does not exist for this Python: going on without the pinned versions.\n" in said
    assert "thing-1.0" in said.splitlines()[-1]
    assert ["--constraint" in command for command in commands] == [True, False]


def test_a_network_that_fails_costs_no_pin(tool, index, capfd):
    server, folder, commands = index
    (folder / "constraints.txt").write_text("thing==2.0\n", encoding="utf-8")
    server.code = 503
    with pytest.raises(SystemExit, match=r"^The set-up stopped \(exit code 1\).* goes on from here\.$"):
        tool.install("lab")
    assert "does not exist for this Python" not in capfd.readouterr().out and len(commands) == 1
    assert server.asked == ["/thing/"] * 2  # by pip, and again


# What the real pip prints and logs where a version is gone. It prints the same where a page could not be fetched.
CONFLICT = """The conflict is caused by:
    p 0.0.0 depends on thing
    The user requested (constraint) thing==2.0
"""


@pytest.mark.parametrize(
    "said, gone",
    [
        ("thing (1.0)\nAvailable versions: 1.0, 0.9\n", "thing==2.0"),
        ("thing (2.0)\nAvailable versions: 2.0, 1.0\n", ""),
        ("thing (2.0)\nAvailable versions: 2.0+cpu, 1.0\n", ""),
        ("WARNING: Retrying (Retry(total=4)) after connection broken\nAvailable versions: 1.0\n", ""),
        ("", ""),
    ],
)
def test_only_an_index_that_answers_can_say_that_a_pin_is_gone(tool, monkeypatch, said, gone):
    asked = []
    monkeypatch.setattr(tool, "ask", lambda *command: asked.append(command[-1]) or said)
    assert tool.missing(CONFLICT) == gone and asked == ["thing"]
    assert tool.missing("ERROR: Could not find a version that satisfies the requirement thing") == ""


LISTED = ["Zope.Interface_X==7.0", "torch==2.13.0+cpu", "WARNING: a newer pip is there", "attrs==26.1.0"]


def test_two_runs_pin_the_same(tool, place, monkeypatch):
    folder, _ = place
    monkeypatch.setattr(tool, "ask", lambda *command: "\n".join(LISTED) if "list" in command else "3.11\n")
    tool.pin()
    once = (folder / "constraints.txt").read_bytes()
    assert lines(folder / "constraints.txt") == ["attrs==26.1.0", "torch==2.13.0", "zope-interface-x==7.0"]
    monkeypatch.setattr(tool, "ask", lambda *command: "\r\n".join(LISTED[::-1]) if "list" in command else "3.11\r\n")
    tool.pin()
    assert (folder / "constraints.txt").read_bytes() == once
    monkeypatch.setattr(tool, "ask", lambda *command: "")
    with pytest.raises(SystemExit, match="found no packages in .*, expected what `make test` installs"):
        tool.pin()


def test_pins_are_exact_sorted_and_within_the_settings(tool):
    pins = dict(line.split("==") for line in lines(ROOT / "constraints.txt"))
    assert list(pins) == sorted(pins) and all(re.fullmatch(r"[\d.]+(\.post\d+)?", v) for v in pins.values())
    settings = tool.settings()
    for kind in ("requirements", "lab_requirements", "dev_requirements"):
        for need in map(Requirement, settings[kind].split()):
            assert need.specifier.contains(pins[need.name]), need


def test_no_upper_bound_lies_below_the_next_major_release(tool):
    pins = dict(line.split("==") for line in lines(ROOT / "constraints.txt"))
    settings = tool.settings()
    for kind in [name for name in settings if name.endswith("requirements")]:
        for need in map(Requirement, settings[kind].split()):
            bounds = {bound.operator: bound.version for bound in need.specifier}
            assert bounds.keys() in ({">="}, {">=", "<"}), need
            assert bounds.get("<", "next") in ("next", str(int(pins.get(need.name, "0").split(".")[0]) + 1)), need


# The workflows

FILES = (ROOT / ".github" / "workflows").glob("*.yml")
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES}


def steps():
    "Return what every workflow runs, line by line."
    jobs = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
    return sorted({line for job in jobs for step in job.get("steps", []) for line in step.get("run", "").splitlines()})


def test_the_workflows_name_commands_that_are_there(pytestconfig):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in steps():
        program, *words = shlex.split(line)
        if program == "make":
            assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words), line
        elif program != "python":
            assert program in ("echo", "cygpath") or os.access(ROOT / program, os.X_OK), line
        elif words[0] == "-m":
            assert words[1] == "pytest" and (ROOT / words[2]).exists(), line
            options = [word for word in words[3:] if word.startswith("-")]
            assert all(pytestconfig.getoption(option, "unknown") != "unknown" for option in options), line
        else:
            assert words == ["tools/environment.py", "dev"] and (ROOT / words[0]).exists(), line


def test_the_workflows_cover_every_machine_and_may_change_nothing_but_the_site(tool):
    matrix = WORKFLOWS["machines"]["jobs"]["test"]["strategy"]
    assert matrix["fail-fast"] is False
    assert [name.split("-")[0] for name in matrix["matrix"]["system"]] == ["ubuntu", "macos", "windows"]
    assert [int(v.split(".")[1]) for v in matrix["matrix"]["python"]] == list(range(tool.min_python()[1], 15))
    assert all(workflow["permissions"] == {"contents": "read"} for workflow in WORKFLOWS.values())
    jobs = {name: job for workflow in WORKFLOWS.values() for name, job in workflow["jobs"].items()}
    more = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    assert more == {"publish": {"pages": "write", "id-token": "write"}}


def test_the_weekly_run_takes_the_newest_versions(tool, monkeypatch):
    weekly, machines = WORKFLOWS["weekly"], WORKFLOWS["machines"]
    assert weekly[True]["schedule"] and "schedule" not in machines[True]  # YAML reads `on` as True
    assert weekly["jobs"]["machines"]["uses"] == "./.github/workflows/machines.yml"
    assert weekly["jobs"]["machines"]["with"] == {"newest": True}
    assert machines[True]["workflow_call"]["inputs"]["newest"]["type"] == "boolean"
    monkeypatch.setenv("CONSTRAINTS", weekly["jobs"]["proof"]["env"]["CONSTRAINTS"])
    assert tool.pinned() == [] and f"newest && '{os.environ['CONSTRAINTS']}'" in machines["env"]["CONSTRAINTS"]
