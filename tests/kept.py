"""Make what is expensive once for all test processes, and keep what was proved while none of its inputs changes.

What is kept lies in `.proofs/`, which nobody commits: a fresh clone has none, so it proves everything, and so does CI.
A key is a hash of all that a result depends on: the bytes of the files that are named, every tool's version, and what
the processor can do.
"""

import functools
import hashlib
import importlib.metadata
import locale
import os
import platform
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

from filelock import FileLock, Timeout

from tools.chapters import ROOT, below

STORE = ROOT / ".proofs"
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]


# Keys

LEFT_BEHIND = {"__pycache__", ".venv", ".ipynb_checkpoints", "_modidx.py"}  # by tools, within our folders
RULING = ("ATEN_", "OMP_", "MKL_", "OPENBLAS_", "LC_", "LANG", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONWARNINGS")

def files_below(place):
    "List the files of a folder, or the file itself; what Python leaves behind is none."
    found = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return [path for path in found if not LEFT_BEHIND & set(path.parts)]


@functools.cache
def digest(path, size, changed):
    "Return the hash of a file; `size` and `changed` (ns) tell whether it is still the same."
    return hashlib.sha256(path.read_bytes()).hexdigest()


def processor():
    "Say what the processor is and can do: it decides how sums are rounded."
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        return [platform.processor(), platform.machine()]


@functools.cache
def facts():
    "List what every result depends on besides files: Python, all installed packages, the processor, the browser."
    packages = sorted({f"{d.metadata['Name']} {d.version}" for d in importlib.metadata.distributions()})
    ruling = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(RULING))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = [sys.version, platform.platform(), locale.getpreferredencoding(False), str(cores)]
    return [*system, *ruling, *packages, *processor(), browser_version()]


def browser_path():
    "Return the browser's path, or None."
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def browser_version():
    "Return what the browser says of itself."
    path = browser_path()
    if path is None:
        return "no browser"
    return subprocess.run([path, "--version"], capture_output=True, text=True, encoding="utf-8").stdout


def key(name, *inputs, root=ROOT):
    "Return a hash of a name and its inputs: files and folders (`Path`, by name and bytes), and words."
    words = [name, *facts()]
    for item in inputs:
        for path in files_below(item) if isinstance(item, Path) else ():
            stat = path.stat()
            words.append(f"{os.path.relpath(path, root)} {digest(path, stat.st_size, stat.st_mtime_ns)}")
        words += [] if isinstance(item, Path) else [str(item)]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]


# Inputs


def tools_of_proofs(root=ROOT):
    "List what all proofs depend on: the tools, the tests' own, the settings."
    names = ["tools", "tests/conftest.py", "tests/kept.py", "tests/unchanged.py", "Makefile"]
    return [root / name for name in [*names, "settings.ini", "pyproject.toml", "constraints.txt"]]


def inputs_of(chapter, root=ROOT):
    "List what the proofs of a chapter depend on: its notebook, the modules and the data below it, its bugs, the tools."
    modules = [root / "exp" / f"{name}.py" for name in below(chapter.module, root)]
    bugs = root / "tests" / "bugs" / f"{chapter.module}.py"
    return [chapter.path, root / "exp" / "__init__.py", *modules, root / "exp" / "data", bugs, *tools_of_proofs(root)]


def inputs_of_package(root=ROOT):
    "List what the wheel is made of."
    names = ["exp", "setup.py", "settings.ini", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
    return [root / name for name in names]


def inputs_of_site(root=ROOT):
    "List what the site is made of."
    own = [path for path in (root / "docs").iterdir() if path.name not in ("_build", "chapters", "loops", "reference")]
    names = ["nbs", "exp", "bench", "records", "tests/bugs"]
    return [*own, *(root / name for name in names), *tools_of_proofs(root)]


# Made once, kept


def made(folder, make, key=None):
    """Have `make(folder)` fill a folder, in one process only; the others wait. If it fails, all of them hear why.

    With `key`, a function, the folder is named by what it returns. It is asked again when all is made: where an input
    has changed meanwhile, the folder serves this run and no later one. Folders of other keys are dropped.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    failure, done = folder.with_suffix(".failed"), folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        run, _, why = failure.read_text(encoding="utf-8").partition("\n") if failure.exists() else ("", "", "")
        if run == run_name():
            raise RuntimeError(f"another test has found that this cannot be made:\n{why}")
        if not done.exists() or done.read_text(encoding="utf-8") not in ("", run_name()):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                make(folder)
            except BaseException:
                failure.write_text(f"{run_name()}\n{traceback.format_exc()}", encoding="utf-8")
                raise
            done.write_text("" if key is None or key() == folder.name else run_name(), encoding="utf-8")
            if key is not None:
                forget_others(folder)
    return folder


def run_name():
    "Name this run of the tests, the same in all of its processes."
    return os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))


def forget_others(folder):
    "Drop what is kept under other keys of the same name, unless a process is at work on it."
    for other in [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]:
        try:
            with FileLock(other.with_suffix(".lock"), timeout=0):
                other.with_suffix(".done").unlink(missing_ok=True)
                shutil.rmtree(other, ignore_errors=True)
        except Timeout:
            pass


def keeps():
    "Return whether results are kept: not in CI."
    return not os.environ.get("CI")
