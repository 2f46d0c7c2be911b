"""What all tests share: one thread, repeatable random numbers, a browser, and what is made once for all processes."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
import torch
from hypothesis import settings

from tests import kept, unchanged
from tools import bugs, run
from tools.chapters import ROOT, Chapter, chapters, chosen

settings.register_profile("ours", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("ours")
torch.set_num_threads(1)

CHAPTERS = chapters()
LONG = ["test_every_planted_bug", "test_stored_outputs", "test_a_learner", "test_a_page_is_sound"]


# Which tests run, and in which order


def pytest_addoption(parser):
    words = "prove this chapter only, by its number; may be given more than once"
    parser.addoption("--chapter", action="append", default=[], metavar="NN", help=words)


def pytest_configure(config):
    if kept.keeps():
        config.pluginmanager.register(unchanged.Unchanged(kept.STORE / "whole"), "unchanged")


def belongs(item, numbers):
    "Return whether a test proves one of the chapters."
    params = item.callspec.params if hasattr(item, "callspec") else {}
    words = [params["chapter"].stem] if isinstance(params.get("chapter"), Chapter) else []
    words += [str(params.get("name", "")).rpartition("/")[2], item.path.stem.removeprefix("test_")]
    ours = {word for chapter in chosen(numbers) for word in (chapter.stem, chapter.module)}
    return bool(ours & set(words)) or item.get_closest_marker("all_chapters") is not None


def pytest_collection_modifyitems(config, items):
    "Keep the tests of the chosen chapters, and begin with those that take long."
    if numbers := config.getoption("chapter"):
        try:
            chosen(numbers)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        wanted = [item for item in items if belongs(item, numbers)]
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = wanted
    items.sort(key=lambda item: [*(not item.name.startswith(name) for name in LONG), -seconds(item)])


def seconds(item):
    "Return how long the chapter of a test runs, or 0."
    chapter = item.callspec.params.get("chapter") if hasattr(item, "callspec") else None
    return chapter.seconds if isinstance(chapter, Chapter) else 0


def pytest_make_parametrize_id(val):
    return val.stem if isinstance(val, Chapter) else None


def pytest_generate_tests(metafunc):
    "Give every test that takes a `chapter` one after the other."
    if "chapter" in metafunc.fixturenames and not any(
        "chapter" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    ):
        metafunc.parametrize("chapter", CHAPTERS)


@pytest.fixture(autouse=True)
def seeded():
    "Start every test from the same random numbers."
    torch.manual_seed(0)


# Made once, kept while nothing changes


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Return `once(name, make, inputs=None)`: the folder that `make(folder)` fills, once for all processes.

    With inputs the folder is kept under their hash, and used again by a later run.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"

    def once(name, make, inputs=None):
        if inputs is None or not kept.keeps():
            return kept.made(shared / name, make)
        return kept.made(kept.STORE / name / kept.key(name, *inputs), make, lambda: kept.key(name, *inputs))

    return once


@pytest.fixture
def proved(request, record_property):
    """Return `proved(*inputs)`: whether this test passed before with the same inputs.

    Its file, and what it depends on at any rate, are inputs without being named.
    """
    found = {}

    def proved(*inputs):
        given = [request.node.path, *kept.tools_of_proofs(), *inputs]
        mark = kept.STORE / "passed" / kept.key(request.node.nodeid, *given)
        if kept.keeps() and mark.exists():
            record_property("kept", 1)
            return True
        found.update(mark=mark, key=lambda: kept.key(request.node.nodeid, *given))
        return False

    yield proved
    report = request.node.stash.get(REPORT, None)
    if "mark" in found and kept.keeps() and report and report.passed and found["key"]() == found["mark"].name:
        found["mark"].parent.mkdir(parents=True, exist_ok=True)
        found["mark"].touch()


REPORT = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report


def pytest_terminal_summary(terminalreporter):
    "Say how many proofs were not made anew, so that nobody takes them for fresh ones."
    passed = terminalreporter.stats.get("passed", [])
    count = sum(("kept", 1) in report.user_properties for report in passed)
    if count:
        words = "proofs of an earlier run hold, as none of their inputs has changed (delete .proofs to prove all anew)"
        terminalreporter.write_line(f"{count} {words}")


# The package


@pytest.fixture(scope="session")
def files():
    "List the project's own files: what git tracks, and what it would."
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def copy_project(files):
    "Return `copy_project(folder, without=())`: copy the project's files, but none whose path contains such a part."

    def copy(folder, without=()):
        for path in files:
            name = path.relative_to(ROOT)
            if not any(part in name.as_posix() for part in without):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, folder / name)
        return folder

    return copy


@pytest.fixture(scope="session")
def wheel(once, copy_project, tmp_path_factory):
    "Build a wheel from a copy of the project."

    def make(folder):
        copy = copy_project(tmp_path_factory.mktemp("copy"), without=["docs/", "tests/", "bench/"])
        pip("wheel", str(copy), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))

    [made] = once("wheel", make, kept.inputs_of_package()).glob("*.whl")
    return made


@pytest.fixture(scope="session")
def package(once, wheel):
    "Install the wheel into a folder of its own, away from the project; return the folder."

    def make(folder):
        pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(folder))

    return once("package", make, kept.inputs_of_package())


def pip(*arguments):
    "Run pip; fail with what it says."
    command = [sys.executable, "-m", "pip", *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


# The chapters, executed


def answers(exercise):
    "List the answers to an exercise that are tried: (kind, source)."
    mistakes = [(f"mistake {number}", source) for number, source in enumerate(exercise.mistakes, 1)]
    return [*mistakes, ("solution", exercise.solution)]


def execute(chapter, package, folder):
    """Run a chapter, each cell twice, with its planted bugs and the answers to its exercises; store what came of it.

    Without `os.fork`, on Windows, each cell runs once, and no bug is planted.
    """
    asked = [(e, *answer) for e in chapter.exercises for answer in answers(e)]
    code = [f"{source}\n_ = {e.check}({e.name}); print(_.solved, _.message)" for e, _, source in asked]
    epilogue = [*code, "import exp; print(exp.__file__)"]
    if hasattr(os, "fork"):
        fresh, said, caught, again = bugs.find(chapter, epilogue=epilogue, package=package)
    else:
        (fresh, said), caught, again = run.run(chapter.path, epilogue, package), None, None
    assert said.pop().startswith(str(package)), "the notebook did not import the package from its wheel"
    run.write(fresh, folder / chapter.path.name)
    told = [[e.title, kind, words] for (e, kind, _), words in zip(asked, said, strict=True)]
    (folder / "said.json").write_text(json.dumps([told, caught, again]), encoding="utf-8")


@pytest.fixture(scope="session")
def ran(once, package):
    """Return a function: chapter → (fresh notebook, what the checks of its exercises said, bugs, cells to complain of).

    A notebook runs alone: in a new kernel, in an empty folder, with the package as its wheel installs it. One run is
    enough for all of these proofs, as it is what most of the tests' time goes to.
    """

    def ran(chapter):
        inputs = [*kept.inputs_of(chapter), *kept.inputs_of_package()]
        folder = once(f"run-{chapter.number}", lambda folder: execute(chapter, package, folder), inputs)
        fresh = nbformat.read(folder / chapter.path.name, as_version=4)
        return fresh, *json.loads((folder / "said.json").read_text(encoding="utf-8"))

    return ran


@pytest.fixture(scope="session")
def executed(ran):
    "Return a function: chapter → (fresh notebook, {(title of exercise, kind of answer): what its check said})."

    def executed(chapter):
        fresh, told, *_ = ran(chapter)
        return fresh, {(title, kind): words for title, kind, words in told}

    return executed


@pytest.fixture(scope="session")
def planted(ran):
    "Return a function: chapter → what caught each of its planted bugs, and which cells cannot be run twice."
    return lambda chapter: ran(chapter)[2:]


# The site and the browser


def build_site(root, out):
    "Build the site of the project at `root` into `out/html`, with warnings as errors."
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "doctrees")]
    own = {**os.environ, "PYTHONPATH": str(root)}
    places = [str(root / "docs"), str(out / "html")]
    done = subprocess.run([*command, *places], cwd=root, env=own, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


@pytest.fixture(scope="session")
def site(once):
    "Build the site; return its folder."
    return once("site", lambda folder: build_site(ROOT, folder), kept.inputs_of_site()) / "html"


@pytest.fixture(scope="session")
def browser():
    "Start Chromium. Without one: a failure in CI, a skip with the reason elsewhere."
    path = kept.browser_path()
    if path is None:
        reason = "no Chromium on this machine: the browser tests need one (Debian: apt install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync"] + (["--no-sandbox"] if os.geteuid() == 0 else [])
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=quiet)
