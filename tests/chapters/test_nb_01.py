"""The data: any bytes at all give an error or a tensor; MNIST is what everybody has."""

import gzip
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import exp.nb_01
from exp.nb_01 import *

FOLDER = exp.nb_01._DATA / "mnist"


def idx(shape, data, magic=None):
    "Write an IDX file, not compressed."
    magic = bytes([0, 0, 8, len(shape)]) if magic is None else magic
    return magic + struct.pack(f">{len(shape)}I", *shape) + bytes(data)


def refusal(tmp_path, content, error=ValueError):
    "Write a file, see `read_idx` refuse it, give the message."
    path = tmp_path / "the-file.gz"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        read_idx(path)
    assert str(path) in str(caught.value) and "found" in str(caught.value) and "expected" in str(caught.value)
    return str(caught.value)


# read_idx


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms())
def test_every_sound_file_comes_back(tmp_path_factory, shape, random):
    generator = torch.Generator().manual_seed(random.getrandbits(32))
    tensor = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    path = tmp_path_factory.mktemp("idx") / "x.gz"
    path.write_bytes(gzip.compress(idx(shape, tensor.flatten().tolist())))
    back = read_idx(path)
    assert back.dtype == torch.uint8 and torch.equal(back, tensor)


def test_several_gzip_members_are_one_file(tmp_path):
    content = idx([4], [1, 2, 3, 4])
    (tmp_path / "x.gz").write_bytes(gzip.compress(content[:9]) + gzip.compress(content[9:]))
    assert read_idx(str(tmp_path / "x.gz")).tolist() == [1, 2, 3, 4]


good = gzip.compress(idx([2, 3], range(6)))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.gz: found no file, expected a \.gz file\. Check the name"):
        read_idx(tmp_path / "nowhere.gz")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "0 bytes|magic number .nothing|cut off"),
        (b"GIF89a", "no sound gzip"),
        (good[:-1], "cut off"),
        (good[: len(good) // 2], "cut off"),
        (good[:-8] + b"\0\0\0\0" + good[-4:], "no sound gzip.*CRC"),
        (good + b"rubbish", "no sound gzip"),
        (gzip.compress(b"\0\0"), "magic number 0000,"),
        (gzip.compress(idx([2], [1, 2], magic=b"\0\0\x0d\1")), "magic number 00000d01"),
        (gzip.compress(b"\0\0\x08\0" + b"x"), "magic number 00000800"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "2 bytes of sizes, expected 12"),
        (gzip.compress(idx([7], range(6))), "6 bytes of data, expected 7"),
        (gzip.compress(idx([5], range(6))), "more than 5 bytes of data, expected 5"),
        (gzip.compress(idx([0, 5], [])), "promises 0 bytes.*The file is empty"),
        (gzip.compress(idx([2**32 - 1] * 8, [1])), "promises [0-9,]{60,} bytes"),
    ],
    ids=range(14),
)
def test_every_unsound_file_is_refused(tmp_path, content, words):
    import re

    message = refusal(tmp_path, content)
    assert re.search(words, message), message


def test_what_a_header_claims_is_never_reserved(tmp_path):
    path = tmp_path / "claims.gz"
    path.write_bytes(gzip.compress(idx([2**30], [1, 2, 3])))
    tracemalloc.start()
    with pytest.raises(ValueError, match="found 3 bytes of data, expected 1,073,741,824"):
        read_idx(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


def test_a_small_file_that_unpacks_to_much_is_left_early(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx([9], bytes(10**8)), compresslevel=9))
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than 9 bytes of data, expected 9 bytes"):
        read_idx(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


def test_the_limit_can_be_moved(tmp_path):
    (tmp_path / "x.gz").write_bytes(good)
    with pytest.raises(ValueError, match="max_bytes"):
        read_idx(tmp_path / "x.gz", max_bytes=5)
    assert read_idx(tmp_path / "x.gz", max_bytes=6).shape == (2, 3)


@settings(max_examples=400)
@given(st.binary(max_size=60), st.booleans(), st.integers(0, 40))
@example(b"\0\0\x08\x08" + b"\0\0\0\1" * 8 + b"z", True, 0)
def test_any_bytes_give_a_tensor_or_an_error(tmp_path_factory, content, compress, cut):
    content = gzip.compress(b"\0\0\x08" + content if cut % 2 else content) if compress else content
    path = tmp_path_factory.mktemp("any") / "x.gz"
    path.write_bytes(content[: len(content) - cut] if cut > 20 else content)
    try:
        assert read_idx(path).dtype == torch.uint8
    except ValueError as error:
        assert "expected" in str(error)


# get_mnist_data


def test_training_data():
    x, y = get_mnist_data()
    assert x.shape == (60_000, 784) and x.dtype == torch.float32 and (x.min(), x.max()) == (0, 1)
    assert y.shape == (60_000,) and y.dtype == torch.int64
    assert torch.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_test_data():
    x, y = get_mnist_data("test")
    assert x.shape == (10_000, 784) and x.dtype == torch.float32 and (x.min(), x.max()) == (0, 1)
    assert torch.bincount(y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_data_of_two_calls_is_not_shared():
    first, _ = get_mnist_data("test")
    first.zero_()
    assert get_mnist_data("test")[0].max() == 1


@pytest.mark.parametrize("split", ["valid", "", None, 3, ["train"]])
def test_unknown_split(split):
    with pytest.raises(ValueError, match="expected 'train' or 'test'"):
        get_mnist_data(split)


def test_wrong_checksum_and_missing_file_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(exp.nb_01, "_DATA", tmp_path)
    (tmp_path / "mnist").mkdir()
    with pytest.raises(FileNotFoundError, match=r"t10k-images.*no such file.*Install the package again"):
        get_mnist_data("test")
    for name in exp.nb_01._MNIST["test"]:
        (tmp_path / "mnist" / name).write_bytes((FOLDER / name).read_bytes())
    damaged = bytearray((tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    damaged[1000] ^= 1
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz: found SHA-256 \w{64}, expected 8d422c7b"):
        get_mnist_data("test")


MEMORY = """
import resource, torch
from exp.nb_01 import get_mnist_data
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
get_mnist_data()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in Linux's unit")
def test_peak_memory():
    mib = float(subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout)
    assert mib <= 300


# show_images


@pytest.mark.parametrize("shape", [(3, 784), (3, 28, 28), (3, 1, 28, 28), (1, 4)])
def test_show_images_takes_every_layout(shape):
    picture = show_images(torch.rand(shape), labels=torch.arange(shape[0]))
    assert picture.alt == f"{shape[0]} images in a grid: {', '.join(map(str, range(shape[0])))}."
    assert picture.png().startswith(b"\x89PNG")


def test_show_images_puts_each_image_where_its_label_is():
    x = torch.stack([torch.full((4,), value) for value in (0.1, 0.5, 0.9)])
    [ax] = show_images(x, labels="abc", cols=2).fig.axes
    sheet = ax.get_images()[0].get_array()
    where = {text.get_text(): text.get_position() for text in ax.texts}
    for label, value in zip("abc", (0.1, 0.5, 0.9)):
        left, top = where[label]
        assert near(float(sheet[int(top) + 2, int(left)]), value)


def test_show_images_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="expected square images"):
        show_images(torch.rand(2, 7))
    for shape in ((5, 4, 8, 8), (3, 2, 8), (0, 9), (9,)):
        with pytest.raises(ValueError, match="expected square images"):
            show_images(torch.rand(shape))
    with pytest.raises(ValueError, match="3 labels"):
        show_images(torch.rand(2, 9), labels=[1, 2, 3])


def test_the_attribution_lies_beside_the_data():
    text = Path(FOLDER / "README.md").read_text(encoding="utf-8")
    assert "CC BY-SA 3.0" in text and "LeCun" in text
    for files in exp.nb_01._MNIST.values():
        assert all(name in text and sha256 in text for name, sha256 in files.items())
