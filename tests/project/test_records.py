"""The records: complete, made as they say, shown as they are; their first mini-batches can be had again."""

import json

import pytest

from tools import records
from tools.chapters import chapter

NAMES = records.names()
each_record = pytest.mark.parametrize("name", NAMES)


@each_record
def test_it_holds_every_run_and_no_other(name):
    record, stored = records.module(name), records.stored(name)
    assert [run["setting"] for run in stored["runs"]] == record.settings()
    assert set(stored["made"]) == {"processor", "threads", "python", "torch"} and stored["made"]["threads"] == 1
    for run in stored["runs"]:
        assert len(run["first"]) == records.FIRST and len(run["epochs"]) == run["setting"]["epochs"]
        assert run["seconds"] > 0 and all(0 < acc < 1 for _, _, acc in run["epochs"])


@each_record
def test_its_first_mini_batches_can_be_had_again(name):
    "One run of each model, optimiser and kind of rate: another processor may round otherwise."
    record, seen = records.module(name), set()
    for run in records.stored(name)["runs"]:
        setting = run["setting"]
        kind = (setting.get("model"), setting["optimiser"], setting["rate"], setting.get("images"), setting.get("bits"))
        if kind not in seen:
            seen.add(kind)
            losses = record.run(setting, steps=records.FIRST)["losses"]
            assert losses == pytest.approx(run["first"], rel=5e-3), setting


def test_the_rates_of_chapter_05_are_those_of_the_grid():
    record = records.module("optimisers")
    assert record.choose(records.stored("optimisers")["runs"]) == record.BEST


def test_chapter_05_shows_what_is_stored():
    record = records.module("optimisers")
    sources = [cell.source for cell in chapter("05").code_cells]
    for name, rows in record.texts(records.stored("optimisers")["runs"]).items():
        text = '"""\n' + "\n".join(rows) + '\n"""'
        assert sum(text in source for source in sources) == 1, f"{name}: the chapter shows other numbers"
    assert f"{len(record.settings())} runs" in "".join(cell.source for cell in chapter("05").cells)


def test_the_rates_of_chapter_07_are_those_of_the_grid():
    record = records.module("convolutions")
    assert record.choose(records.stored("convolutions")["runs"]) == {name: record.BEST[name] for name in record.GRID}


def test_chapter_07_shows_what_is_stored():
    record = records.module("convolutions")
    sources = [cell.source for cell in chapter("07").code_cells]
    for name, rows in record.texts(records.stored("convolutions")["runs"]).items():
        text = f'{name} = """\n' + "\n".join(rows) + '\n"""'
        assert sum(text in source for source in sources) == 1, f"{name}: the chapter shows other numbers"
    assert f"{len(record.settings())} runs" in "".join(cell.source for cell in chapter("07").cells)


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


def test_runs_of_two_machines_are_not_mixed(small, tmp_path):
    records.write("small", {"made": records.made() | {"torch": "1.0"}, "runs": []})
    with pytest.raises(ValueError, match="--anew makes all again"):
        records.make("small")


def test_a_record_that_is_not_there():
    with pytest.raises(ValueError, match="record: found 'nothing', expected one of .*optimisers"):
        records.module("nothing")
