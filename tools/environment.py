"""Make `.venv` and install the project into it. Quick when there is nothing to do.

    python3 tools/environment.py lab     what a learner needs: the package, JupyterLab, nbdev
    python3 tools/environment.py dev     the same and the test tools
    python3 tools/environment.py pins    write constraints.txt: the versions that `.venv` holds

Plain Python, no package needed; old versions must be able to parse it, so that they can be told that they are too old.
A `.venv` that works is kept, with its Python and what you installed into it yourself (a CPU-only torch, for instance);
one that does not work, because its making was interrupted or its Python is gone, is made anew.
The variable CONSTRAINTS names the file of pinned versions, constraints.txt if it is not set; empty or `none`: no pins.
"""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

try:
    from tools.settings import read
except ImportError:  # as a script, which lies beside it
    from settings import read

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "installed.json")
PYTHON = os.path.join(VENV, *(["Scripts", "python.exe"] if os.name == "nt" else ["bin", "python"]))


def settings():
    "Return what settings.ini says, as a mapping of strings."
    return read(ROOT)


def min_python():
    "Return the oldest version that settings.ini admits, as a tuple of integers."
    return tuple(int(part) for part in settings()["min_python"].split("."))


def complaint(version, least, have_venv):
    "Return one line that says why this Python cannot be used and what to do, or None."
    if version[:2] < least:
        return ("Python {}.{} is too old, {}.{} or newer is needed: install one and name it, for example "
                "`make lab PYTHON=python3.12`").format(version[0], version[1], *least)
    if not have_venv:
        return ("This Python has no venv module: on Debian or Ubuntu run `apt install python{}.{}-venv`, "
                "then try again").format(version[0], version[1])
    return None


def has_venv():
    "Return whether this Python can make a virtual environment with pip in it."
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return False
    return True


def pinned():
    "Return the lines `name==version` of the file that CONSTRAINTS names; none where it names none."
    name = os.environ.get("CONSTRAINTS", "constraints.txt")
    if name in ("", "none"):
        return []
    try:
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except OSError:
        sys.exit("CONSTRAINTS: found no file {}, expected one of pinned versions; empty: none".format(name))
    return [line for line in lines if line and not line.startswith("#")]


def fingerprint():
    "Return a hash of what an installation depends on: the settings, the pins, and where the project lies."
    digest = hashlib.sha256("\n".join([ROOT] + pinned()).encode("utf-8"))
    for name in ("settings.ini", "setup.py", "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def installed():
    "Return {extra: fingerprint} of what was installed to the end; empty after an interruption."
    try:
        with open(STAMP, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def state():
    "Return what `.venv` is: 'sound', 'without pip', 'moved' (its scripts name another folder), 'old' or 'broken'."
    question = "import sys; print(sys.version_info >= {}); import pip".format(min_python())
    try:
        answer = subprocess.run([PYTHON, "-c", question], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return "broken"
    if not answer.stdout.strip():
        return "broken"
    if answer.stdout.strip() != b"True":
        return "old"
    if answer.returncode:
        return "without pip"
    try:
        with open(os.path.join(os.path.dirname(PYTHON), "activate"), encoding="utf-8", errors="replace") as file:
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


def attempt(*command):
    "Run a command and return its exit code."
    return subprocess.call(command, cwd=ROOT)


def stop(code):
    "Stop with one line that says what to do."
    sys.exit("The set-up stopped (exit code {}). The reason stands above; once it is gone (network, disk space), "
             "the same command goes on from here.".format(code))


def run(*command):
    "Run a command; on failure stop with one line that says what to do."
    code = attempt(*command)
    if code:
        stop(code)


def ask(*command):
    "Return what a command prints, warnings included; '' where it fails."
    try:
        return subprocess.check_output(command, cwd=ROOT, stderr=subprocess.STDOUT).decode("utf-8", "replace")
    except (OSError, subprocess.CalledProcessError):
        return ""


def torch_here():
    "Return the version of PyTorch in `.venv`, '' where there is none."
    question = "from importlib.metadata import version; print('torch', version('torch'))"
    found = re.search(r"^torch (\S+)", ask(PYTHON, "-c", question), re.MULTILINE)
    return found.group(1) if found else ""


def missing(log):
    """Return the first pin that does not exist for this Python, '' where there is none, by what pip logged.

    pip says the same of a version that is not there and of a page that it could not fetch, so its index is asked again.
    """
    for name, version in re.findall(r"\(constraint\) ([\w.-]+)==(\S+)", log):
        said = ask(PYTHON, "-m", "pip", "index", "versions", "--disable-pip-version-check", name)
        others = re.search("Available versions: (.+)", said)
        if others and "Retrying" not in said and version not in re.split(r"[+,\s]+", others.group(1)):
            return name + "==" + version
    unfit = re.search("Package '(.+?)' requires a different Python", log)
    return unfit.group(1) if unfit else ""


def install_pinned(command, pins):
    "Return whether `command` could be run with the pins; False where one does not exist for this Python, else stop."
    names, log = os.path.join(VENV, "constraints.txt"), os.path.join(VENV, "pip.log")
    for path, text in ((names, "\n".join(pins) + "\n"), (log, "")):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    code = attempt(*(command + ["--constraint", names, "--log", log]))
    with open(log, encoding="utf-8", errors="replace") as file:
        gone = missing(file.read()) if code else ""
    os.remove(log)  # some 30 MB
    if gone:
        print("{} does not exist for this Python: going on without the pinned versions.".format(gone), flush=True)
    elif code:
        stop(code)
    return not gone


def install(extra):
    "Install the project with an extra, in the pinned versions where they exist for this Python."
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--editable", ".[{}]".format(extra)]
    command += ["--no-compile"]  # half of what is installed is never imported; Python compiles the rest when it is
    pins, torch = pinned(), torch_here()
    if "+" in torch:  # 2.14.1+cpu, for example: chosen by hand, since what pip takes by itself has no label
        print("PyTorch {} lies in .venv and stays.".format(torch), flush=True)
        pins = ["torch==" + torch if pin.startswith("torch==") else pin for pin in pins]
    elif not torch and sys.platform == "linux" and not shutil.which("nvidia-smi"):
        print("PyTorch for Linux can bring gigabytes for NVIDIA cards: README.md says how to do without.", flush=True)
    if not pins or not install_pinned(command, pins):
        run(*command)


HEADER = """\
# The versions with which the stored outputs and the tests were made, from a `.venv` of Python {}.
# `make` installs them; `make lab CONSTRAINTS=` installs the newest instead.
# To make this file anew, in a fresh clone: make test CONSTRAINTS=; python3 tools/environment.py pins; make outputs.
"""


def pin():
    "Write constraints.txt: what `.venv` holds, sorted, without pip, the project itself, and labels such as +cpu."
    said = ask(PYTHON, "-m", "pip", "list", "--format=freeze", "--exclude-editable", "--exclude=pip")
    found = re.findall(r"^([\w.-]+)==([^\s+]+)", said, re.MULTILINE)
    if not found:
        sys.exit("found no packages in {}, expected what `make test` installs".format(VENV))
    pins = sorted((re.sub("[-_.]+", "-", name).lower(), version) for name, version in found)
    version = ask(PYTHON, "-c", "import sys; print('{}.{}'.format(*sys.version_info))").strip()
    with open(os.path.join(ROOT, "constraints.txt"), "w", encoding="utf-8", newline="\n") as file:
        file.write(HEADER.format(version) + "".join("{}=={}\n".format(*pin) for pin in pins))


def quieten():
    "Tell this environment's JupyterLab not to ask for news and updates: it may have no network, and it has work to do."
    folder = os.path.join(VENV, "share", "jupyter", "lab", "settings")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "overrides.json"), "w", encoding="utf-8") as file:
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
    install(extra)
    quieten()
    with open(STAMP + ".new", "w", encoding="utf-8") as file:
        json.dump({extra: want}, file)
    os.replace(STAMP + ".new", STAMP)


if __name__ == "__main__":
    if sys.argv[1:] not in [[word] for word in EXTRAS + ["pins"]]:
        sys.exit("usage: python3 tools/environment.py lab|dev|fuzz|pins")
    try:
        pin() if sys.argv[1] == "pins" else main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit("Interrupted; the same command goes on from here.")
