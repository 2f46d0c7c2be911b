"""Make `bench/.venv` with what `requirements.txt` pins, for `make bench` alone.

PyTorch first, with what it needs; then the peers without what they ask for: they would bring a torchvision that need
not load with this PyTorch, and then breaks them. All that they do need is in the list.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

BENCH = Path(__file__).resolve().parent
FOLDER = BENCH / ".venv"
REQUIREMENTS = BENCH / "requirements.txt"
CHECK = """
import importlib.util, torch
assert torch.__version__.split("+")[0] == {torch!r}, f"found torch {{torch.__version__}}, expected {torch}"
assert importlib.util.find_spec("torchvision") is None, "torchvision is installed, and must not be"
"""


def pins(text=None):
    "Return {package: version} of the requirements."
    lines = (REQUIREMENTS.read_text(encoding="utf-8") if text is None else text).splitlines()
    rules = [line.split(";")[0].split("#")[0].strip() for line in lines]
    return dict(rule.split("==") for rule in rules if rule)


def python():
    "Make sure that the environment is there and as pinned; return its Python."
    place = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp, want = FOLDER / "installed", hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == want):
        print("Setting up bench/.venv: once, and a few minutes.", flush=True)
        venv.create(FOLDER, clear=True, with_pip=True)
        pip = [place, "-m", "pip", "install", "--disable-pip-version-check", "-qq"]
        subprocess.run([*pip, f"torch=={pins()['torch']}", "--constraint", REQUIREMENTS], check=True)
        subprocess.run([*pip, "--no-deps", "--requirement", REQUIREMENTS], check=True)
        stamp.write_text(want, encoding="utf-8")
    subprocess.run([place, "-c", CHECK.format(torch=pins()["torch"])], check=True)
    return place
