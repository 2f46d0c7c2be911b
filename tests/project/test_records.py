"""The records: complete, made as they say, shown as they are; their first mini-batches can be had again."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tools import records
from tools.chapters import ROOT, chapter

NAMES = records.names()
PROVED = [name for name in NAMES if hasattr(records.module(name), "fingerprint")]
SHOWN = {"optimisers": "05", "convolutions": "07", "depth": "08", "augmentation": "08", "fashion": "08",
         "farther": "08", "speed": "11", "compiler": "11", "debugging": "13", "diagnoses": "13",
         "unseen": "13", "learning": "14", "writing": "15"}  # fmt: skip
COUNTED = [name for name in SHOWN if name not in ("fashion", "farther", "compiler")]  # many runs: the chapter says so
NEAR, STEPS = 1e-9, 5  # so far apart a fingerprint may be on another processor; so many mini-batches of it are made


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_every_run_and_no_other(name):
    record, stored = records.module(name), records.stored(name)
    assert [run["setting"] for run in stored["runs"]] == record.settings()
    assert set(stored["made"]) - {"instructions"} == {"processor", "threads", "python", "torch"}  # older ones lack it
    assert stored["made"]["threads"] == 1
    for run in stored["runs"]:
        assert len(run["first"]) == records.first_of(record)[0] and len(run["epochs"]) == run["setting"]["epochs"]
        assert run["seconds"] > 0 and all(0 < acc < 1 for _, _, acc in run["epochs"])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PROVED])
def test_its_first_mini_batches_can_be_had_again(name):
    "One run of each set-up, model, optimiser and kind of rate: another processor may round otherwise."
    record, seen = records.module(name), set()
    sure = getattr(record, "SURE", records.FIRST)
    for run in records.stored(name)["runs"]:
        setting = run["setting"]
        kind = *(setting.get(name) for name in ("setup", "model", "shift")), setting["optimiser"], setting["rate"]
        if kind not in seen:
            seen.add(kind)
            losses = record.run(setting, steps=sure)["losses"]
            assert losses == pytest.approx(run["first"][:sure], rel=5e-3), setting


@pytest.mark.parametrize("name", PROVED)
def test_its_fingerprints_can_be_had_again_on_every_processor(name):
    record, runs = records.module(name), records.stored(name)["runs"]
    proved = [setting for setting in record.settings() if record.proved(setting)]
    assert [run["setting"] for run in runs if "fingerprint" in run] == proved
    for run in runs:
        if "fingerprint" in run:
            assert len(run["fingerprint"]) == records.first_of(record)[0]
            found = record.fingerprint(run["setting"], STEPS)
            assert found == pytest.approx(run["fingerprint"][:STEPS], rel=0, abs=NEAR), run["setting"]
            other = record.fingerprint(run["setting"] | {"seed": run["setting"]["seed"] + 1}, 1)
            assert abs(other[0] - found[0]) > NEAR, "found the same loss from another seed"


@pytest.mark.parametrize("name", PROVED)
def test_a_run_of_fewer_bits_begins_as_its_fingerprint(name):
    "What a record keeps of the run itself stays near the same recipe in 64 bits, for a while."
    for run in records.stored(name)["runs"]:
        if "fingerprint" in run:
            assert run["first"][:2] == pytest.approx(run["fingerprint"][:2], rel=1e-2), run["setting"]


@pytest.mark.parametrize("name", ["optimisers", "convolutions", "depth", "writing"])
def test_the_rates_of_a_chapter_are_those_of_the_grid(name):
    record = records.module(name)
    found = record.choose(records.stored(name)["runs"])
    assert found == {kind: lr for kind, lr in record.BEST.items() if kind in getattr(record, "GRID", record.BEST)}


@pytest.mark.parametrize("name, number", SHOWN.items())
def test_a_chapter_shows_what_is_stored(name, number):
    record, shown = records.module(name), chapter(number)
    sources = [cell.source for cell in shown.code_cells]
    for text, rows in record.texts(records.stored(name)["runs"]).items():
        held = '"""\n' + "\n".join(rows) + '\n"""'
        assert sum(held in source for source in sources) == 1, f"{text}: the chapter shows other numbers"


@pytest.mark.parametrize("name", COUNTED)
def test_a_chapter_says_how_many_runs_there_are(name):
    words = "".join(cell.source for cell in chapter(SHOWN[name]).cells)
    assert f"{len(records.module(name).settings())} runs" in words


def test_a_compiler_drops_alpha_and_others_keep_it():
    [forms] = [run["forms"] for run in records.stored("compiler")["runs"] if "forms" in run]
    assert [form for form, (right, _) in forms.items() if right > 1] == [*records.module("compiler").FORMS][:2]


def test_the_compiler_of_this_machine_drops_alpha_too(tmp_path):
    "The check of chapter 11, and a compiler that is really there: with other versions it may be mended."
    import torch

    made = records.stored("compiler")["made"]["torch"].partition("+")[0]
    if shutil.which("g++") is None or " " in sys.prefix:
        pytest.skip("there is no g++, or PyTorch lies in a folder with a space in its name: nothing can be compiled")
    if torch.__version__.partition("+")[0] != made:
        pytest.skip(f"the record was made with PyTorch {made}, here is {torch.__version__}")
    [check] = [cell.source for cell in chapter("11").code_cells if "def keeps_alpha" in cell.source]
    tried = """
try:
    torch.compile(lambda x: x + 1)(torch.ones(3))
except Exception as error:
    print("nothing can be compiled:", str(error).splitlines()[0])
    raise SystemExit
"""
    asked = "print(keeps_alpha(torch.compile), keeps_alpha(lambda update: update))"
    code = f"from exp.nb_11 import *\n{check}\n{tried}\n{asked}"
    folder = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=folder, cwd=ROOT)
    if said.stdout.startswith("nothing"):
        pytest.skip(said.stdout)
    assert said.stdout.split() == ["False", "True"], said.stderr


def test_the_gallery_holds_what_chapter_13_says():
    gallery = records.module("debugging")
    kinds = [what for what, _ in gallery.GALLERY.values()]
    assert [kinds.count(each) for each in (gallery.BUG, gallery.HARMLESS, gallery.HEALTHY)] == [76, 5, 22]
    assert len(records.module("unseen").UNSEEN) == 26


def test_what_was_diagnosed_is_what_was_trained():
    def first(name):
        runs, cap = records.stored(name)["runs"], records.module("debugging").CAP
        return {(r["setting"]["setup"], r["setting"]["seed"]): [min(loss, cap) for loss in r["first"]] for r in runs}

    trained, diagnosed = first("debugging"), first("diagnoses")
    assert len(diagnosed) == 206 and all(trained[key] == losses for key, losses in diagnosed.items())


@pytest.fixture
def small(tmp_path, monkeypatch):
    "Return a record of two runs, in a folder of its own."
    class Small:
        asked = []

        @staticmethod
        def settings():
            return [{"optimiser": "none", "seed": seed, "epochs": 1} for seed in (1, 2)]

        @classmethod
        def run(cls, setting, steps=None):
            cls.asked.append(setting["seed"])
            return {"losses": [0.123456789] * 30, "epochs": [[1.0, 0.5, 0.9]], "more": [3]}

    monkeypatch.setattr(records, "FOLDER", tmp_path)
    monkeypatch.setattr(records, "module", lambda name: Small)
    return Small


def test_a_record_goes_on_where_it_was_stopped(small, tmp_path):
    assert records.make("small", say=lambda *_, **__: None) == 2 and small.asked == [1, 2]
    kept = json.loads((tmp_path / "small.json").read_text(encoding="utf-8"))
    assert kept["runs"][0]["first"] == [0.123457] * records.FIRST and kept["runs"][0]["more"] == [3]
    assert kept["made"] == records.made()
    kept["runs"].pop()
    records.write("small", kept)
    assert records.make("small", say=lambda *_, **__: None) == 2 and small.asked == [1, 2, 2]
    assert records.make("small", anew=True, say=lambda *_, **__: None) == 2 and small.asked == [1, 2, 2, 1, 2]


def test_longer_runs_are_made_only_when_asked_for_and_kept_apart(small, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="small: found no longer runs"):
        records.make("small", longer=True)
    monkeypatch.setattr(small, "longer", lambda: [{"optimiser": "none", "seed": 3, "epochs": 1}], raising=False)
    assert records.make("small", say=lambda *_, **__: None) == 2 and small.asked == [1, 2]
    assert records.make("small", longer=True, say=lambda *_, **__: None) == 1 and small.asked == [1, 2, 3]
    assert len(records.stored("small")["runs"]) == 2 and len(records.stored("small_longer")["runs"]) == 1


def test_runs_of_two_machines_are_not_mixed(small, tmp_path):
    records.write("small", {"made": records.made() | {"torch": "1.0"}, "runs": []})
    with pytest.raises(ValueError, match="--anew makes all again"):
        records.make("small")


def test_a_record_that_is_not_there():
    with pytest.raises(ValueError, match="record: found 'nothing', expected one of .*optimisers"):
        records.module("nothing")
