"""What all tests share: one thread, repeatable random numbers, a browser, the executed notebooks."""

import os
import shutil
import subprocess
import sys

import exercises
import notebooks
import pytest
import torch
from hypothesis import settings

settings.register_profile("ours", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("ours")
torch.set_num_threads(1)


LONG = ["test_every_planted_bug", "test_a_page_is_sound"]  # the first words of tests that take long


def pytest_collection_modifyitems(items):
    "Where tests run in two processes: begin with the long ones, and keep together those that share what is dear."

    def rank(item):
        dear = [name in item.fixturenames for name in ("lab", "executed")]
        return [not found for found in (*dear, *map(item.name.startswith, LONG))]

    items.sort(key=rank)
    for item in items:
        for fixture in ("executed", "lab"):
            if fixture in item.fixturenames:
                item.add_marker(pytest.mark.xdist_group(fixture))


@pytest.fixture(autouse=True)
def seeded():
    "Start every test from the same random numbers."
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, files):
    "Build a wheel from a copy of the project."
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for path in files:
        target = copy / path.relative_to(notebooks.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    pip("wheel", str(copy), "--no-deps", "--no-build-isolation", "--wheel-dir", str(out))
    [made] = out.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def package(wheel, tmp_path_factory):
    "Install the wheel into a folder of its own, away from the project; give the folder."
    folder = tmp_path_factory.mktemp("installed")
    pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(folder))
    return folder


def pip(*arguments):
    "Run pip; fail with what it says."
    done = subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def executed(package):
    """Give a function: path → (fresh notebook, {(title of exercise, 'mistake' or 'solution'): what its check said}).

    A notebook runs alone: in a new kernel, in an empty folder, with the package as its wheel installs it.
    """
    done = {}

    def execute(path):
        if path not in done:
            found = exercises.find(notebooks.read(path))
            asked = [(e, kind) for e in found for kind in ("mistake", "solution")]
            code = [f"{getattr(e, kind)}\n_ = {e.check}({e.name}); print(_.solved, _.message)" for e, kind in asked]
            fresh, said = notebooks.run(path, [*code, "import exp; print(exp.__file__)"], package)
            assert said.pop().startswith(str(package)), "the notebook did not import the package from its wheel"
            done[path] = fresh, dict(zip([(e.title, kind) for e, kind in asked], said))
        return done[path]

    return execute


@pytest.fixture(scope="session")
def files():
    "List the project's own files: what git tracks, and what it would."
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=notebooks.ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [notebooks.ROOT / name for name in listed if (notebooks.ROOT / name).is_file()]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "Build the site, with warnings as errors; give its folder."
    out = tmp_path_factory.mktemp("site")
    return build_site(notebooks.ROOT, out)


def build_site(root, out):
    "Build the site of the project at `root` into `out/html`."
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "doctrees")]
    done = subprocess.run([*command, str(root / "docs"), str(out / "html")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


@pytest.fixture(scope="session")
def browser():
    "Start Chromium. Without one: a failure in CI, a skip with the reason elsewhere."
    path = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if path is None:
        reason = "no Chromium on this machine: the browser tests need one (Debian: apt install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync"] + (["--no-sandbox"] if os.geteuid() == 0 else [])
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=quiet)
