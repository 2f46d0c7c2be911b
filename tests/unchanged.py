"""Leave out the tests that passed before on this very tree: nothing has changed, so they would pass again.

A proof that names its inputs is kept while those hold (`proved`, `once`). The others depend on who knows what, so their
input is everything: each file of the project, the commit, all packages, the processor. In CI nothing is left out.
"""

import hashlib
import shutil
import subprocess

import pytest

from tests import kept
from tools.chapters import ROOT

NEVER = ("test_kept", "test_unchanged")  # these test what leaves tests out


def git(*words):
    "Return what git answers about the project, or None without git."
    asked = {"cwd": ROOT, "capture_output": True, "text": True, "encoding": "utf-8", "check": True}
    try:
        return subprocess.run(["git", *words], **asked).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def tree():
    "Return a hash of all that a test may depend on, or None where that cannot be known."
    names, commit = git("ls-files", "-z", "--cached", "--others", "--exclude-standard"), git("rev-parse", "HEAD")
    if names is None or commit is None:
        return None
    paths = [ROOT / name for name in sorted(set(names.split("\0")) - {""})]
    return kept.key("everything", commit, *paths)


class Unchanged:
    "A pytest plugin: leave out what is known to pass; when all is done, write down what passed."

    def __init__(self, store, tree=tree):
        self.store, self.tree, self.key = store, tree, tree()
        self.passed, self.failed, self.count = set(), set(), 0

    @pytest.hookimpl(trylast=True)  # when the chapters have been chosen
    def pytest_collection_modifyitems(self, config, items):
        known = self.known()
        left_out = [item for item in items if item.nodeid in known and item.path.stem not in NEVER]
        left_out = left_out[: len(items) - 1]  # pytest takes a run without a test for a failure
        ids = {item.nodeid for item in left_out}
        self.count, items[:] = len(left_out), [item for item in items if item.nodeid not in ids]
        config.hook.pytest_deselected(items=left_out)
        if hasattr(config, "workeroutput"):
            config.workeroutput["left out"] = self.count

    def known(self):
        "Return the tests that have passed on this tree."
        files = sorted((self.store / self.key).glob("*.txt")) if self.key else []
        return {line for file in files for line in file.read_text(encoding="utf-8").splitlines()}

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.passed and report.when == "call":
            self.passed.add(report.nodeid)

    def pytest_sessionfinish(self, session):
        "Write down what passed, in each process that runs tests, unless a file has changed meanwhile."
        lines = sorted(self.passed - self.failed)
        gathers = session.config.pluginmanager.hasplugin("dsession")  # what others have run
        if lines and not gathers and self.key and self.tree() == self.key:
            folder, text = self.store / self.key, "\n".join(lines) + "\n"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt").write_text(text, encoding="utf-8")
            for other in self.store.iterdir():
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.count = max(self.count, getattr(node, "workeroutput", {}).get("left out", 0))

    def pytest_terminal_summary(self, terminalreporter):
        if self.count:
            words = "tests passed before on this very tree and were left out (delete .proofs to run all)"
            terminalreporter.write_line(f"{self.count} {words}")
