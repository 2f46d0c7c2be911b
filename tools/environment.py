"""Make `.venv` and install the project into it. Quick when there is nothing to do.

    python3 tools/environment.py lab     what a learner needs: the package, JupyterLab, nbdev
    python3 tools/environment.py dev     the same and the test tools

Plain Python, no package needed; old versions must be able to parse it, so that they can be told that they are too old.
A `.venv` that works is kept, with its Python and what you installed into it yourself (a CPU-only torch, for instance);
one that does not work, because its making was interrupted or its Python is gone, is made anew.
"""
import configparser
import hashlib
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "installed.json")
PYTHON = os.path.join(VENV, *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))


def min_python():
    "Give the oldest version that settings.ini admits, as a tuple of integers."
    config = configparser.ConfigParser()
    config.read(os.path.join(ROOT, "settings.ini"))
    return tuple(int(part) for part in config.get("DEFAULT", "min_python").split("."))


def complaint(version, least, have_venv):
    "Say in one line why this Python cannot be used and what to do, or give None."
    if version[:2] < least:
        return ("Python {}.{} is too old, {}.{} or newer is needed: install one and name it, for example "
                "`make lab PYTHON=python3.12`").format(version[0], version[1], *least)
    if not have_venv:
        return ("This Python has no venv module: on Debian or Ubuntu run `apt install python{}.{}-venv`, "
                "then try again").format(version[0], version[1])
    return None


def has_venv():
    "Tell whether this Python can make a virtual environment with pip in it."
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return False
    return True


def fingerprint():
    "Hash what an installation depends on: the settings, and where the project lies."
    digest = hashlib.sha256(ROOT.encode("utf-8"))
    for name in ("settings.ini", "setup.py", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def installed():
    "Give {extra: fingerprint} of what was installed to the end; empty after an interruption."
    try:
        with open(STAMP) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def state():
    "Say what `.venv` is: 'sound', 'without pip', 'moved' (its scripts name another folder), 'old' or 'broken'."
    ask = "import sys; print(sys.version_info >= {}); import pip".format(min_python())
    try:
        answer = subprocess.run([PYTHON, "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return "broken"
    if not answer.stdout.strip():
        return "broken"
    if answer.stdout.strip() != b"True":
        return "old"
    if answer.returncode:
        return "without pip"
    try:
        with open(os.path.join(os.path.dirname(PYTHON), "activate")) as file:
            return "sound" if VENV in file.read() else "moved"
    except OSError:
        return "sound"


def prepare():
    "Make `.venv`, or mend it; one that is sound stays as it is, with whatever Python it has."
    found = state()
    if found in ("broken", "old"):
        run(sys.executable, "-m", "venv", "--clear", VENV)
    elif found == "moved":
        run(sys.executable, "-m", "venv", VENV)
    elif found == "without pip":
        run(PYTHON, "-m", "ensurepip")


def run(*command):
    "Run a command; on failure stop with one line that says what to do."
    code = subprocess.call(command, cwd=ROOT)
    if code:
        sys.exit("The set-up stopped (exit code {}). The reason stands above; once it is gone (network, disk space), "
                 "the same command goes on from here.".format(code))


def quieten():
    "Tell this environment's JupyterLab not to ask for news and updates: it may have no network, and it has work to do."
    folder = os.path.join(VENV, "share", "jupyter", "lab", "settings")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "overrides.json"), "w") as file:
        notices = {"checkForUpdates": False, "fetchNews": "false"}
        json.dump({"@jupyterlab/apputils-extension:notification": notices}, file)


EXTRAS = ["lab", "dev", "fuzz"]  # each includes those before it


def main(extra):
    "Make sure that `extra` is installed."
    found = complaint(sys.version_info, min_python(), has_venv())
    if found:
        sys.exit(found)
    want, done = fingerprint(), installed()
    if want in [done.get(name) for name in EXTRAS[EXTRAS.index(extra):]] and os.path.exists(PYTHON):
        return
    print("Setting up .venv: once, and a few minutes, most of it for PyTorch.", flush=True)
    prepare()
    run(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--editable", ".[{}]".format(extra))
    quieten()
    with open(STAMP + ".new", "w") as file:
        json.dump({extra: want}, file)
    os.replace(STAMP + ".new", STAMP)


if __name__ == "__main__":
    if sys.argv[1:] not in [[extra] for extra in EXTRAS]:
        sys.exit("usage: python3 tools/environment.py lab|dev|fuzz")
    main(sys.argv[1])
