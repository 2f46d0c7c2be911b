"""Freeze the series' own prose and code into the one file that chapter 15 trains on.

    python -m tools.corpus           check the file against what its README says, and its text against the commit
    python -m tools.corpus --anew    make it anew, of the chapters as the last commit has them

The file must not follow every edit of a chapter: all of chapter 15's numbers hang on it. So it is made on purpose only,
from a commit and not from the working tree, and the commit stands in the README beside it, with the checksum. After
that, write the checksum into the notebook, and make its outputs and its record anew.

A chapter's text is its Markdown and code cells, joined by empty lines. Chapter 15 is not among them: a text that holds
its own statistics would never come to rest.
"""

import hashlib
import json
import lzma
import re
import subprocess
import sys

from tools.chapters import ROOT

FOLDER, NAME, OWN = ROOT / "exp" / "data" / "text", "series.txt.xz", "15"
ABOUT = """# The text of the series, frozen

The Markdown and the code of the chapters of *Training, refactored*, as they stood at one commit: what chapter 15 trains
a language model on. Written by its authors, under the licence of the project, Apache-2.0.

The text is UTF-8, compressed with `xz`. A form feed stands between two chapters; each begins with its title. Chapter 15
is not among them. `python -m tools.corpus` checks the file, `python -m tools.corpus --anew` makes it anew, on purpose;
`exp.nb_15.get_text` checks the SHA-256 whenever it reads it. Beside it lies `writer.f16`: the weights of a model that
was trained on it, as 16-bit floats, made by `records/writing.py`.

| | |
|---|---|
"""


def git(*words):
    "Return what a git command prints."
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return done.stdout


def text_at(commit):
    "Return the text of all chapters but chapter 15, as a commit has them."
    names = [name for name in git("ls-tree", "--name-only", commit, "nbs/").split() if name.endswith(".ipynb")]
    found = []
    for name in sorted(names):
        if not name.startswith(f"nbs/{OWN}_"):
            cells = json.loads(git("show", f"{commit}:{name}"))["cells"]
            found.append("\n\n".join("".join(cell["source"]) for cell in cells))
    if any("\f" in text for text in found):
        raise ValueError("found a form feed in a chapter, expected none: it divides the chapters")
    return "\f".join(found)


def told():
    "Return what the README says: {what: value}."
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([\w-]+) \| ([\w.,]+) \|$", readme, re.MULTILINE))


def check():
    "Compare file, README and commit; return the lines to print. Raise `ValueError` if they do not agree."
    packed, said = (FOLDER / NAME).read_bytes(), told()
    found = hashlib.sha256(packed).hexdigest()
    if found != said["SHA-256"]:
        raise ValueError(f"{NAME}: found SHA-256 {found}, expected {said['SHA-256']}: was it changed by hand?")
    lines = [f"{NAME}: sha256 ok, {said['characters']} characters"]
    try:
        same = lzma.decompress(packed).decode() == text_at(said["commit"])
    except (OSError, subprocess.CalledProcessError):
        return [*lines, "its commit is not here to compare with"]
    if not same:
        raise ValueError(f"{NAME}: found another text than that of commit {said['commit']}")
    return [*lines, f"it is the text of commit {said['commit'][:10]}"]


def make():
    "Make the file anew from the last commit; return the lines to print."
    commit = git("rev-parse", "HEAD").strip()
    text = text_at(commit)
    packed = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)
    sha256 = hashlib.sha256(packed).hexdigest()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / NAME).write_bytes(packed)
    rows = {"file": NAME, "commit": commit, "chapters": text.count("\f") + 1, "characters": f"{len(text):,}",
            "bytes": f"{len(packed):,}", "SHA-256": sha256}  # fmt: skip
    table = "".join(f"| {what} | {value} |\n" for what, value in rows.items())
    (FOLDER / "README.md").write_text(ABOUT + table, encoding="utf-8", newline="\n")
    return [f"{NAME}: {len(text):,} characters of commit {commit[:10]}", f"SHA-256: {sha256}",
            "now: the checksum in nbs/15_writing.ipynb, then its outputs, bugs and record"]  # fmt: skip


def main(words):
    "Check the file, or make it anew."
    print("\n".join(make() if words == ["--anew"] else check()))


if __name__ == "__main__":
    main(sys.argv[1:])
