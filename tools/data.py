"""Check every file of the datasets against its checksum, and say so.

    python -m tools.data
"""

import sys

from exp import nb_01, nb_15

SETS = {"mnist": nb_01._MNIST, "fashion_mnist": nb_01._FASHION}  # folder → split → file → SHA-256


def files():
    "List the files of all datasets: (path, SHA-256)."
    return [(nb_01._DATA / folder / name, sha256) for folder, splits in SETS.items()
            for split in splits.values() for name, sha256 in split.items()] + [
        (nb_15._TEXTS / name, sha256) for name, sha256 in nb_15._FILES.items()]  # fmt: skip


def main():
    "Check each file, print a line for each; return 1 if one is damaged or missing, else 0."
    damaged = 0
    for path, sha256 in files():
        try:
            size = nb_01._checked(path, sha256).stat().st_size
            print(f"{path.parent.name + '/' + path.name:40} {size:10,} bytes  sha256 ok")
        except (FileNotFoundError, ValueError) as error:
            damaged += 1
            print(error)
    print(f"{len(files()) - damaged} of {len(files())} files are sound")
    return int(damaged > 0)


if __name__ == "__main__":
    sys.exit(main())
