"""Run the notebooks from clean kernels, store their outputs, and show what changed.

    python tools/outputs.py              all chapters
    python tools/outputs.py 02           those whose name starts with 02
"""

import sys
import time

from notebooks import ROOT, chapters, code_cells, differences, figures, pictures, read, run, write

PICTURES = ROOT / "docs" / "_static"


def refresh(path):
    "Run one notebook, store it with its outputs, and report."
    stored, start = read(path), time.perf_counter()
    try:
        fresh = run(path)
    except RuntimeError as error:
        sys.exit(str(error))
    seconds = time.perf_counter() - start
    changes = differences(stored, fresh, path.name)
    if changes or figures(stored) != figures(fresh):
        write(fresh, path)
    print(f"{path.name}: {len(code_cells(fresh))} cells in {seconds:.1f} s, {len(changes)} differences")
    print(*(f"  {change}" for change in changes), sep="\n", end="\n" if changes else "")
    for name, png in pictures(read(path)).items():
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / name).write_bytes(png)


def main(starts):
    "Refresh the chapters whose file names start with one of `starts`; all, if none is given."
    for path in chapters():
        if not starts or path.name.startswith(tuple(starts)):
            refresh(path)


if __name__ == "__main__":
    main(sys.argv[1:])
