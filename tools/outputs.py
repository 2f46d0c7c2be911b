"""Run the notebooks from clean kernels, store their outputs, and show what changed.

    python -m tools.outputs              all chapters
    python -m tools.outputs 02 04        these
"""

import sys
import time

from tools.chapters import ROOT, Chapter, chosen, figures
from tools.compare import differences
from tools.run import run, tidy, write

PICTURES = ROOT / "docs" / "_static"


def refresh(chapter):
    "Run one notebook, store it with its outputs, and report."
    stored, start = chapter.notebook, time.perf_counter()
    try:
        fresh = run(chapter.path)
    except RuntimeError as error:
        sys.exit(str(error))
    seconds = time.perf_counter() - start
    changes = differences(stored, fresh, chapter.path.name)
    if not changes and figures(stored) == figures(fresh):
        fresh = tidy(stored)  # what JupyterLab has added to it goes, nothing else changes
    write(fresh, chapter.path)
    print(f"{chapter.path.name}: {len(chapter.code_cells)} cells in {seconds:.1f} s, {len(changes)} differences")
    print(*(f"  {change}" for change in changes), sep="\n", end="\n" if changes else "")
    for name, png in Chapter(chapter.path).pictures.items():
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / name).write_bytes(png)


if __name__ == "__main__":
    for each in chosen(sys.argv[1:]):
        refresh(each)
