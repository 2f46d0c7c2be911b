"""Write the modules of `exp/` from the notebooks of `nbs/`, with nbdev."""

from nbdev.export import nb_export
from notebooks import ROOT, chapters


def main(root=ROOT):
    "Export every chapter of `root/nbs` to `root/exp`."
    for path in chapters(root):
        nb_export(path, lib_path=root / "exp")


if __name__ == "__main__":
    main()
