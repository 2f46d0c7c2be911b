"""The file reader against the fuzzer's corpus, and against files that Hypothesis makes up (see tests/fuzz/)."""

import gzip
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exp.nb_01 import read_idx
from tests.fuzz.fuzz_read_idx import check, expected, file_of
from tools.chapters import ROOT

CORPUS = sorted((ROOT / "tests" / "fuzz" / "corpus").iterdir())


def test_every_input_that_the_fuzzer_kept(tmp_path):
    for path in CORPUS:
        check(read_idx, path.read_bytes(), tmp_path / "input.gz")


def test_the_corpus_holds_sound_and_unsound_files():
    kinds = {expected(file_of(path.read_bytes())) is None for path in CORPUS}
    assert kinds == {True, False} and len(CORPUS) >= 20


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.binary(max_size=40), st.booleans())
@example([2, 3], bytes(6), True)
def test_headers_and_data_that_fit_or_do_not(tmp_path_factory, shape, values, packed):
    content = b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + values
    data = b"\1" + content if packed else b"\0" + gzip.compress(content)
    check(read_idx, data, tmp_path_factory.getbasetemp() / "made-up.gz")


@given(st.integers(0, 70), st.integers(0, 255))
def test_a_sound_file_with_one_changed_byte(tmp_path_factory, place, value):
    sound = bytearray(gzip.compress(struct.pack(">4B2I", 0, 0, 8, 2, 2, 3) + bytes(range(6)), mtime=0))
    sound[place % len(sound)] = value
    check(read_idx, b"\0" + bytes(sound), tmp_path_factory.getbasetemp() / "changed.gz")


def test_a_reader_that_is_wrong_is_found_out(tmp_path):
    def shifted(path, max_bytes):
        return read_idx(path, max_bytes).roll(1)

    sound = next(path.read_bytes() for path in CORPUS if len((expected(file_of(path.read_bytes())) or "  ")[1]) > 1)
    with pytest.raises(AssertionError):
        check(shifted, sound[:-1] + b"\xff" if sound[0] % 2 else sound, tmp_path / "input.gz")
