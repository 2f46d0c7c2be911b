"""Write the modules of `exp/` from the notebooks of `nbs/`, with nbdev."""

from nbdev.export import nb_export
from notebooks import ROOT, chapters


def main(lib_path=ROOT / "exp"):
    "Export every chapter."
    for path in chapters():
        nb_export(path, lib_path=lib_path)


if __name__ == "__main__":
    main()
