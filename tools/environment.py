"""Make `.venv` and install the project into it. Quick when there is nothing to do.

    python3 tools/environment.py lab     what a learner needs: the package, JupyterLab, nbdev
    python3 tools/environment.py dev     the same and the test tools

Plain Python, no package needed; old versions must be able to parse it, so that they can be told that they are too old.
A `.venv` that works is kept (with what you installed into it yourself, a CPU-only torch for instance);
one that does not, because an installation was interrupted or the folder was moved, is made anew.
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
    "Hash what an installation depends on: the settings, the Python that was used, and where the project lies."
    digest = hashlib.sha256((sys.version + ROOT).encode("utf-8"))
    for name in ("settings.ini", "setup.py", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def installed():
    "Give {extra: fingerprint} of what was installed to the end; empty after an interruption."
    try:
        with open(STAMP) as file:
            return dict(json.load(file))
    except (OSError, ValueError):
        return {}


def works(python):
    "Tell whether the virtual environment can run Python, has pip, and is ours (a moved one names another folder)."
    ask = "import pip, sys; print(sys.prefix)"
    try:
        answer = subprocess.run([python, "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    prefix = answer.stdout.decode("utf-8", "replace").strip()
    return answer.returncode == 0 and os.path.realpath(prefix) == os.path.realpath(VENV)


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


def main(extra):
    "Make sure that `extra` is installed."
    found = complaint(sys.version_info, min_python(), has_venv())
    if found:
        sys.exit(found)
    want = fingerprint()
    done = installed()
    if want in (done.get("dev"), done.get(extra)) and os.path.exists(PYTHON):
        return
    print("Setting up .venv: once, and a few minutes, most of it for PyTorch.", flush=True)
    if not works(PYTHON):
        run(sys.executable, "-m", "venv", "--clear", VENV)
    if os.path.exists(STAMP):
        os.remove(STAMP)
    run(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--editable", ".[{}]".format(extra))
    quieten()
    with open(STAMP, "w") as file:
        json.dump({extra: want}, file)


if __name__ == "__main__":
    if sys.argv[1:] not in (["lab"], ["dev"]):
        sys.exit("usage: python3 tools/environment.py lab|dev")
    main(sys.argv[1])
