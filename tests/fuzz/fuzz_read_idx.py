"""Fuzz `read_idx`: whatever the bytes of a file, it gives the right tensor or a ValueError that names the file.

    make fuzz        a minute or 200,000 inputs, guided by coverage (atheris); new inputs are kept in tests/fuzz/corpus

The corpus is also read by `make test` (tests/project/test_fuzz.py), without atheris. The first byte of an input says
how it is used: even, the rest is the file; odd, the rest is compressed first, so that what lies behind gzip is reached
at once.
"""

import gzip
import math
import struct
import sys
import tempfile
import zlib
from pathlib import Path

MOST = 2**16  # bytes that a header may promise here


def file_of(data):
    "Turn an input into the bytes of a file."
    return gzip.compress(data[1:], mtime=0) if data[:1] and data[0] % 2 else data[1:]


def expected(content):
    "Say, by another way, what reading should give: (shape, values), or None for a file that must be refused."
    try:
        raw = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or not 1 <= raw[3] <= 8 or len(raw) < 4 + 4 * raw[3]:
        return None
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    values = raw[4 + 4 * raw[3] :]
    return (shape, values) if 1 <= math.prod(shape) <= MOST and len(values) == math.prod(shape) else None


def check(read_idx, data, path):
    "Write the file of an input to `path`, read it, compare; raise `AssertionError` if it is not as expected."
    content = file_of(data)
    path.write_bytes(content)
    right = expected(content)
    try:
        found = read_idx(path, max_bytes=MOST)
    except ValueError as error:
        assert right is None, f"refused, though sound: {error}"
        assert str(error).startswith(f"{path}: found ") and ", expected " in str(error), str(error)
    else:
        assert right is not None, "read, though unsound"
        assert tuple(found.shape) == right[0] and bytes(found.flatten().tolist()) == right[1]


def main():
    import atheris

    with atheris.instrument_imports(include=["exp.nb_01", "gzip", "_compression"]):
        from exp.nb_01 import read_idx
    memory = Path("/dev/shm")  # Linux keeps these files in memory
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        path = Path(folder) / "input.gz"
        atheris.Setup(sys.argv, lambda data: check(read_idx, data, path))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
