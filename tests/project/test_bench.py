"""The bench: it runs, its figures follow from its records, it notices what disturbs it, its requirements are pinned."""

import ast
import json
import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from bench import (
    convolutions,
    data,
    driver,
    machine,
    normalisation,
    optimisers,
    peers,
    processes,
    report,
    results,
    speed,
    tables,
    variants,
)
from bench.clock import Clock
from tools.chapters import ROOT, chapter

BENCH = ROOT / "bench"


WAYS = ("slices", "unfold", "view", "by hand", "plain", "16 bits")


def record(name, seconds, threads=1, foreign=0.0, loss=0.16, accuracy=0.954, **more):
    "Make up what a run prints."
    base = {"name": name, "threads": threads, "batch_size": 64, "epochs": 1, "seconds": seconds, "cpu": seconds}
    return base | {"foreign": foreign, "loss": loss, "accuracy": accuracy, "versions": {}} | more


def made_up(foreign=0.0):
    "Make up the results of a whole run, as `gather` gives them."
    rounds = {}
    for threads in (1, 2):
        for i, name in enumerate(variants.VARIANTS):
            learned = {"loss": None, "accuracy": None} if name == "limit" else {}
            runs = [record(name, (1 + i) * s, threads, foreign, **learned) for s in (0.5, 0.6, 0.4)]
            rounds[name, threads, 64, 1] = runs
    times = {"median": 1.0, "low": 0.9, "high": 1.1}
    return {
        "machine": {"processor": "P", "cores": 2, "pinned": True, "vectors": "V", "blas": "B", "system": "S",
                    "python": "3", "date": "2026-01-01"},
        "versions": {"torch": "2.13.0"},
        "protocol": {"rounds": 3, "scaling_rounds": 3, "threads": [1, 2], "foreign": 0, "repeated": 1, "runs": 66},
        "timings": [results.row(runs, rounds) for runs in rounds.values()],
        "scaling": [results.row(rounds[name, 1, 64, 1], rounds) for name in ("fit", "idiom")],
        "targets": results.check_targets(rounds),
        "others": {"import": dict.fromkeys(("torch", "torch_and_exp", "exp"), times), "docs": 9.0,
                   "get_mnist_data": {"seconds": times, "peak_bytes": times, "tensor_bytes": 1},
                   "notebooks": {"02": 30.0}},
        "optimisers": {"SGD": {"ours": {"seconds": 4e-5, "to_default": 0.8},
                               "default": {"seconds": 5e-5, "to_default": 1.0}},
                       "Muon": {"ours": {"seconds": 2e-3, "to_default": None}}},
        "convolutions": {
            "layers": {"1 → 8": {way: {"seconds": 1e-3, "ratio": 2.5} for way in ("loops", "conv2d", *WAYS)}},
            "nets": {"MLP": {"seconds": 0.2, "ratio": 1.0}, "fast": {"seconds": 3.0, "ratio": 15.0}}},
        "speed": {"ladder": {"fitted": {"seconds": 0.4, "to_fit": 1.0, "to_limit": 3.0},
                             "fast_epoch": {"seconds": 0.16, "to_fit": 0.4, "to_limit": 1.2}},
                  "batches": {bits: {"64": 1.0, "256": 0.6} for bits in ("32", "16")},
                  "layouts": {"plain": 1.0, "channels last": 0.75}, "bytes": 1.5,
                  "workers": {"slow": {"0": 1.8, "1": 1.7}},
                  "threads": {"alone": {"1": 1.0, "2": 0.8}, "busy": {"1": 1.1, "2": 5.0}},
                  "target": {"ratio": 1.2, "at_most": 1.25, "met": True}},
        "processes": {"784–128–10": {way: {"seconds": 1e-3, "ratio": 3.5} for way in ("one", *processes.WAYS)}},
        "normalisation": {title: {"none": {"base": {"seconds": 1e-3, "ratio": 1.0}},
                                  name: {"ours": {"seconds": 2e-3, "ratio": 2.0},
                                         "PyTorch": {"seconds": 1.5e-3, "ratio": 1.5}}}
                          for title, name in (("norms", "BatchNorm"), ("activations", "gelu"))},
    }


# The statistics


def test_ratios_are_taken_within_rounds():
    rounds = {("fit", 1, 64, 1): [record("fit", s) for s in (0.5, 1.0, 0.6)],
              ("idiom", 1, 64, 1): [record("idiom", s) for s in (1.0, 2.0, 1.0)]}
    row = results.row(rounds["fit", 1, 64, 1], rounds)
    assert row["seconds"] == {"median": 0.6, "low": 0.5, "high": 1.0}
    assert row["to_idiom"] == {"median": 0.5, "low": 0.5, "high": 0.6}  # the machine was slow in round 2: no matter
    assert row["to_limit"] is None


def test_targets_are_checked_by_their_bounds():
    rounds = {("fit", 1, 64, 1): [record("fit", 0.7)], ("idiom", 1, 64, 1): [record("idiom", 1.0)]}
    for at_most, met in ((0.71, True), (0.69, False)):
        [found] = results.check_targets(rounds, [results.Target("fit", "idiom", 1, at_most)])
        assert found["met"] is met and found["ratio"] == pytest.approx(0.7) and not found["disturbed"]
    assert results.check_targets(rounds, [results.Target("fit", "idiom", 2, 1.0)]) == []  # was not timed


@pytest.mark.parametrize("loss, accuracy, agree", [(0.1615, 0.95, True), (0.162, 0.954, False), (0.16, 0.948, False),
                                                   (float("nan"), 0.954, False)])
def test_variants_must_learn_what_the_idiom_learns(loss, accuracy, agree):
    found = results.disagreements([record("idiom", 1.0), record("fit", 1.0, loss=loss, accuracy=accuracy)])
    assert (found == []) is agree and all("fit: loss" in line for line in found)


def test_what_is_shuffled_or_learns_nothing_need_not_agree():
    others = [record("fit-shuffled", 1.0, loss=0.2), record("limit", 1.0, loss=None, accuracy=None)]
    assert results.disagreements([record("idiom", 1.0), *others]) == []


def test_every_target_names_variants():
    names = {name for target in results.TARGETS for name in (target.name, target.against)}
    assert names <= set(variants.VARIANTS)
    assert results.Target("fit", "idiom", 1, 0.75) in results.TARGETS
    assert results.Target("fit", "idiom", 2, 0.65) in results.TARGETS


def test_rounds_are_interleaved():
    order = []
    found = driver.measure("abc", 3, lambda name: order.append(name) or len(order), lambda _: None)
    assert [sorted(order[i : i + 3]) for i in (0, 3, 6)] == [["a", "b", "c"]] * 3
    assert len({tuple(order[i : i + 3]) for i in (0, 3, 6)}) > 1  # not always in the same order
    assert all(len(runs) == 3 for runs in found.values())


# Disturbance


def test_busy_seconds_leave_waiting_out():
    text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 100 20 30 4000 500 6 7 8 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 5"
    ticks = machine.os.sysconf("SC_CLK_TCK")
    assert machine.busy_seconds([0], text) == pytest.approx(171 / ticks)
    assert machine.busy_seconds([0, 1], text) == pytest.approx(177 / ticks)
    assert machine.busy_seconds([7], text) is None and machine.busy_seconds(None, text) is None


def test_without_proc_it_cannot_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "STAT", tmp_path / "none")
    with (clock := Clock([0])):
        pass
    assert clock.foreign is None and results.disturbed(record("fit", 1.0, foreign=None)) is None
    found = made_up()
    found["protocol"]["foreign"] = None
    assert "cannot be told" in report.markdown(found)


@pytest.mark.skipif(not machine.STAT.exists() or not machine.own_cpus(), reason="this system has no /proc/stat")
def test_a_busy_process_is_noticed():
    cpu = machine.own_cpus()[0]
    burn = f"import os; os.sched_setaffinity(0, [{cpu}])\nprint('on', flush=True)\nwhile True: pass"
    burner = subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE)
    try:
        burner.stdout.readline()
        with (clock := Clock([cpu])):
            time.sleep(1)
    finally:
        burner.kill()
        burner.communicate()
    assert clock.foreign > 0.3 and results.disturbed(record("fit", clock.wall, foreign=clock.foreign))


def test_our_own_work_disturbs_nobody():
    assert not results.disturbed(record("fit", 1.0, foreign=0.02)) and not results.disturbed(record("fit", 0.1))
    assert results.disturbed(record("fit", 1.0, foreign=0.06))
    assert not results.disturbed(record("fit", 9.0, foreign=0.06))


def test_disturbed_runs_are_repeated_while_patience_is_left(monkeypatch):
    said, calls = [], iter([0.5, 0.4, 0.0, 0.7])
    patience = driver.Patience(100, said.append)
    monkeypatch.setattr(patience, "wait", lambda: None)
    assert patience.run(lambda: record("fit", 1.0, foreign=next(calls)))["foreign"] == 0.0
    assert patience.repeated == 2 and "0.50 s" in said[0]
    patience.left = 0
    assert patience.run(lambda: record("fit", 1.0, foreign=next(calls)))["foreign"] == 0.7  # kept, and marked


def test_what_stays_disturbed_is_marked():
    found = made_up(foreign=0.9)
    assert all(target["disturbed"] for target in found["targets"]) and found["timings"][0]["disturbed"] == 3
    found["protocol"]["foreign"] = 66
    found["targets"][0]["met"] = True
    text = report.markdown(found)
    assert "66 of 66 runs in the figures are disturbed" in text and "met *" in text


# The reports


def test_reports_are_complete_and_follow_from_each_other(tmp_path):
    found = made_up()
    report.write(found, tmp_path, tmp_path / "chart.png")
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == report.markdown(stored)
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    for variant in variants.VARIANTS.values():
        assert report.markdown(stored).count(f"| {variant.title} |") >= 2 and variant.title in stored["chart"]["alt"]
    assert "**missed**" in report.markdown(stored | {"targets": [stored["targets"][0] | {"met": False}]})


def test_chapter_02_shows_the_stored_ratios():
    "Its cell with the tag `bench` holds the ratios to the idiom at one thread."
    [cell] = [cell for cell in chapter("02").code_cells if "bench" in cell.metadata.get("tags", [])]
    [times] = [node for node in ast.parse(cell.source).body if ast.unparse(node).startswith("times = ")]
    shown = ast.literal_eval(times.value)
    stored = json.loads((BENCH / "results.json").read_text(encoding="utf-8"))["timings"]
    ratios = {row["title"]: round(row["to_idiom"]["median"], 2) for row in stored if row["threads"] == 1}
    assert shown == {title: ratios[title] for title in shown}, "after `make bench`, write the new ratios into the cell"


def test_stored_results_agree_with_each_other():
    stored = json.loads((BENCH / "results.json").read_text(encoding="utf-8"))
    assert (BENCH / "results.md").read_text(encoding="utf-8") == report.markdown(stored)
    assert report.CHART.exists() and stored["chart"]["file"] == report.CHART.name and len(stored["chart"]["alt"]) > 20
    assert all(target["met"] for target in stored["targets"]) and stored["protocol"]["rounds"] >= 5
    for row in stored["timings"]:
        assert row["title"] == variants.VARIANTS[row["name"]].title
        assert row["seconds"] == results.summary(row["runs"])


def test_a_step_of_our_optimisers_costs_no_more_than_the_default_path():
    found = json.loads((BENCH / "results.json").read_text(encoding="utf-8"))["optimisers"]
    assert len(found) == 6 and all(by_path["ours"]["to_default"] <= 1 for by_path in found.values())
    assert "| SGD | 40 (0.80) | 50 (1.00) |  |  |" in report.markdown(made_up())
    assert "| Muon | 2000 |  |  |  |" in report.markdown(made_up())  # an older PyTorch has none


def test_steps_of_optimisers_are_timed_in_turns():
    found = optimisers.measure(turns=2, steps=2)
    assert set(found) == set(optimisers.makers()) and set(found["Adam"]) == {"ours", "default", "foreach", "fused"}
    assert set(found["RMSprop"]) == {"ours", "default", "foreach"} and set(found["Muon"]) == {"ours", "default"}
    assert all(time["seconds"] > 0 and time["to_default"] > 0 for each in found.values() for time in each.values())


def test_convolutions_are_timed_in_turns():
    found = convolutions.measure(turns=2, repeats=1, steps=2)
    assert set(found["layers"]) == set(convolutions.LAYERS) and set(found["nets"]) == set(convolutions.NETS)
    for by_way in found["layers"].values():
        assert set(by_way) == {"loops", "conv2d", *WAYS} and by_way["conv2d"]["ratio"] == 1
        assert all(each["seconds"] > 0 and each["ratio"] > 0 for each in by_way.values())
    assert found["nets"]["MLP"]["ratio"] == 1 and all(each["seconds"] > 0 for each in found["nets"].values())


def test_norms_and_activations_are_timed_in_turns():
    found = normalisation.measure(turns=2, steps=1)
    assert set(found) == set(normalisation.PAIRS)
    for title, by_name in found.items():
        assert set(by_name) == {"none", *normalisation.PAIRS[title]} and by_name["none"]["base"]["ratio"] == 1
        for name, each in by_name.items():
            assert set(each) == ({"base"} if name == "none" else {"ours", "PyTorch"})
            assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in each.values())


def test_norms_and_activations_have_their_tables():
    apart = {"normalisation": {"processor": "Q", "date": "2026-03-03"}}
    text = report.markdown(made_up() | {"apart": apart})
    assert "Measured apart from the rest, on 2026-03-03: Q." in text and "(1000 µs a mini-batch)" in text
    assert "| BatchNorm | 2.00 | 1.50 |" in text and "| gelu | 2.00 | 1.50 |" in text


def test_two_processes_are_timed_in_turns():
    found = processes.measure(turns=1, n=2)
    assert set(found) == set(processes.HIDDEN)
    for by_way in found.values():
        assert set(by_way) == {"one", *processes.WAYS} and by_way["one"]["ratio"] == 1
        assert all(each["seconds"] > 0 and each["ratio"] > 0 for each in by_way.values())
    assert "| 784–128–10 | 1.00 ms | 3.50 | 3.50 | 3.50 |" in report.markdown(made_up())


def test_convolutions_have_their_tables():
    text = report.markdown(made_up())
    assert "| 1 → 8 | 1.00 ms | 2.5 | 2.5 |" in text and "| fast | 3.00 | 15.0 |" in text


def test_chapter_07_shows_the_stored_ratios():
    "Its cells with the tag `bench` hold the ratios by layer, and those of the nets."
    cells = [cell.source for cell in chapter("07").code_cells if "bench" in cell.metadata.get("tags", [])]
    stored = json.loads((BENCH / "results.json").read_text(encoding="utf-8"))["convolutions"]
    ways = ("loops", "slices", "unfold", "view", "by hand", "plain", "16 bits")
    rows = [f"{title}: " + " ".join(tables.times(by_way[way]["ratio"]) for way in ways)
            for title, by_way in stored["layers"].items()]  # fmt: skip
    rows += [f"{title}: {tables.times(each['ratio'])}" for title, each in stored["nets"].items()]
    shown = [line for source in cells for text in source.split('"""')[1::2] for line in text.strip().splitlines()]
    assert shown == rows, "after `make bench`, write the new ratios into the cells"


def test_speed_is_timed_in_turns():
    found = speed.measure(turns=1, work=replace(data.load().rehearsal(batches=2)))
    assert set(found["ladder"]) == {*speed.CLIMB, *speed.NOTHING, "idiom", "limit", "limit, turned"}
    assert found["ladder"]["fitted"]["to_fit"] == found["ladder"]["limit"]["to_limit"] == 1
    assert found["batches"]["32"]["64"] == found["layouts"]["plain"] == 1
    assert found["target"]["met"] is (found["target"]["ratio"] <= 1.25)
    assert set(found["workers"]["slow"]) == {str(n) for n in speed.WORKERS}
    assert found["threads"]["alone"]["1"] == 1 and set(found["threads"]["busy"]) == {"1", "2"}
    import torch

    assert torch.get_num_threads() == 1


def test_speed_has_its_tables_and_its_target():
    text = report.markdown(made_up())
    assert "| `fast_epoch` | 0.160 | 0.40 | 1.20 |" in text and "Found 1.20: met." in text
    assert "| slow | 1.80 s | 1.70 s |" in text and "| busy | 1.10 | 5.00 |" in text
    missed = made_up()
    missed["speed"]["target"] |= {"ratio": 1.3, "met": False}
    assert "**missed**" in report.markdown(missed)
    assert driver.near_the_limit(made_up()) and not driver.near_the_limit(missed) and driver.near_the_limit({})


def test_chapter_11_shows_the_stored_ratios():
    "Its cells with the tag `bench` hold the ladder and what else was timed; the target is met."
    stored = json.loads((BENCH / "results.json").read_text(encoding="utf-8"))["speed"]
    assert stored["target"]["met"] and stored["target"]["at_most"] == speed.MOST == 1.25
    cells = {cell.source for cell in chapter("11").code_cells if "bench" in cell.metadata.get("tags", [])}
    wanted = {f'{name} = """\n' + "\n".join(rows) + '\n"""' for name, rows in speed.texts(stored).items()}
    assert cells == wanted, "after `make bench`, write the new ratios into the cells"


def test_others_are_renewed_and_the_timings_stay(monkeypatch, tmp_path):
    report.write(made_up(), tmp_path, tmp_path / "chart.png")
    monkeypatch.setattr(driver, "BENCH", tmp_path)
    monkeypatch.setattr(report, "CHART", tmp_path / "chart.png")
    new = made_up()["others"] | {"docs": 7.0}
    monkeypatch.setattr(driver.costs, "measure", lambda *_: new)
    steps = {"SGD": {"ours": {"seconds": 1e-5, "to_default": 0.5}}}
    layers = made_up()["convolutions"] | {"nets": {}}
    norms = {title: {"none": by_name["none"]} for title, by_name in made_up()["normalisation"].items()}
    chapters = made_up() | {"optimisers": steps, "convolutions": layers, "normalisation": norms}
    monkeypatch.setattr(driver.costs, "chapter", lambda name, *_: chapters[name])
    here = {"processor": "P", "date": "2026-02-02"}
    monkeypatch.setattr(driver.machine, "machine", lambda *_: here)
    before = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert driver.main(["--others"]) == 0
    after = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert after.pop("others") == new | {"date": "2026-02-02"} and after.pop("optimisers") == steps
    assert before.pop("others") and before.pop("optimisers") and after.pop("convolutions") == layers
    assert before.pop("convolutions") != layers and after.pop("normalisation") == norms
    assert before.pop("normalisation") != norms and after.pop("apart") == {}
    assert after == before
    assert "Measured on 2026-02-02." in (tmp_path / "results.md").read_text(encoding="utf-8")
    here["processor"] = "another"
    assert driver.main(["--others"]) == 2


def test_what_a_chapter_shows_is_renewed_alone_and_says_so(monkeypatch, tmp_path):
    report.write(made_up(), tmp_path, tmp_path / "chart.png")
    monkeypatch.setattr(driver, "BENCH", tmp_path)
    monkeypatch.setattr(report, "CHART", tmp_path / "chart.png")
    layers = made_up()["convolutions"] | {"nets": {}}
    monkeypatch.setattr(driver.costs, "chapter", lambda name, *_: {"convolutions": layers}[name])
    monkeypatch.setattr(driver.machine, "machine", lambda *_: {"processor": "Q", "date": "2026-03-03", "cores": 2})
    before = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert driver.main(["--chapter", "convolutions"]) == 0
    after = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    apart = {"convolutions": {"processor": "Q", "date": "2026-03-03"}}
    assert after == before | {"convolutions": layers, "apart": apart}
    assert "on 2026-03-03: Q." in (tmp_path / "results.md").read_text(encoding="utf-8")


# The variants


def test_the_first_loop_is_the_notebooks_own():
    import exp.nb_02 as nb_02

    Net, loop = data.from_notebook("02", "Net", "loop_by_name")
    assert loop.__code__.co_filename == "02_minibatch_training.ipynb"
    x = nb_02.torch.randn(100, 784)
    assert len(loop(Net(), x, nb_02.torch.zeros(100, dtype=nb_02.torch.int64)).losses) == 2
    with pytest.raises(ValueError, match="expected each of"):
        data.from_notebook("02", "no_such_loop")


def test_requirements_are_pinned_and_leave_torchvision_out():
    text = peers.REQUIREMENTS.read_text(encoding="utf-8")
    rules = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", rule) for rule in rules)
    pins = peers.pins()
    assert pins["torch"] == "2.13.0" and "torchvision" not in pins
    assert {"fastai", "lightning"} <= set(pins) and pins["keras"].startswith("3.")
    libraries = {variant.library for variant in variants.VARIANTS.values()} - {None}
    assert libraries <= set(pins)


def test_every_variant_without_a_library_learns_what_the_idiom_learns():
    work, found = data.load().rehearsal(batches=100), []
    for name, variant in variants.VARIANTS.items():
        if variant.library is None:
            model = variant.function(replace(work, clock=Clock()))
            loss, accuracy = (None, None) if variant.group == "limit" else data.evaluate(model, work)
            found.append(record(name, 1.0, loss=loss, accuracy=accuracy))
    assert len(found) >= 10 and results.disagreements(found) == []
    learned = [each for each in found if each["name"] != "limit"]
    assert all(each["loss"] < 0.5 and each["accuracy"] > 0.85 for each in learned), learned


def test_the_smoke_test_runs_and_writes_nothing(files, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in files}
    command = [sys.executable, "-m", "bench.driver", "--quick", "--only", "fit", "idiom"]
    how = {"env": driver.environment(1), "capture_output": True, "text": True, "encoding": "utf-8"}
    done = subprocess.run(command, cwd=tmp_path, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, variant in variants.VARIANTS.items():
        assert (f"| {variant.title} |" in done.stdout) is (name in ("fit", "idiom"))
    assert {path: path.stat().st_mtime_ns for path in files} == before and not list(tmp_path.iterdir())


def test_quick_times_ours_and_the_idiom(monkeypatch):
    timed = []
    monkeypatch.setattr(driver, "run", lambda python, name, *how: timed.append((name, how)) or record(name, 1.0))
    driver.main(["--quick"])
    wanted = [name for name, variant in variants.VARIANTS.items() if variant.group in ("ours", "idiom")]
    assert sorted(timed) == sorted((name, (1, 64, 1)) for name in wanted)
