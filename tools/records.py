"""Make the records: long runs that a notebook shows and cannot repeat.

    python -m tools.records                    all: make the runs that are missing
    python -m tools.records optimisers         this one
    python -m tools.records --anew optimisers  from nothing
    python -m tools.records --longer writing   the runs of hours that a record only describes: its `longer()`

A record is a module `records/NAME.py` with `settings()`, a list of dictionaries of numbers and words, and
`run(setting, steps=None)`, which trains with one of them, or only its first mini-batches, and returns the losses of
mini-batches, [training loss, validation loss, accuracy] of each epoch, and whatever else there is to say. The results
stand in `records/NAME.json`, a line for each run: setting, CPU seconds, the first losses, the epochs. A run that is
there already is not made again, so a record can be stopped and gone on with. Runs of hours, which nobody waits for, are
no part of it: a record may list them in `longer()`, and they go to `records/NAME_longer.json`.

A record whose runs others should be able to prove has three things more: `LOSSES` and `DIGITS`, how many first losses
are kept, and with how many digits; `proved(setting)`, whether a run gets a fingerprint; and `fingerprint(setting, n)`,
the first n losses in 64 bits (chapter 08), which are the same to a billionth on every processor. Where some runs are
chaos, as those of bugs (chapter 13), `SURE` says how many first losses another processor makes again all the same.
"""

import importlib
import json
import os
import platform
import sys

import torch

from bench.machine import processor
from tools.chapters import ROOT

FOLDER = ROOT / "records"
FIRST, DIGITS = 20, 6  # so many losses of the first mini-batches are kept, with so many digits


def names():
    "List the records."
    return sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def module(name):
    "Return the module of a record. Raise `ValueError` if there is none."
    if name not in names():
        raise ValueError(f"record: found {name!r}, expected one of {', '.join(names())}")
    return importlib.import_module(f"records.{name}")


def stored(name):
    "Return what is stored of a record: {made, runs}."
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"made": made(), "runs": []}


def made():
    "Say with what runs are made."
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    own = {"processor": processor(), "instructions": torch.backends.cpu.get_cpu_capability()}
    return {**own, "threads": torch.get_num_threads(), **versions}


def write(name, record):
    "Store a record: one run a line."
    lines = ",\n  ".join(json.dumps(run, ensure_ascii=False) for run in record["runs"])
    text = f'{{\n "made": {json.dumps(record["made"], ensure_ascii=False)},\n "runs": [\n  {lines}\n ]\n}}\n'
    path = FOLDER / f"{name}.json"
    path.with_suffix(".part").write_text(text, encoding="utf-8", newline="\n")
    os.replace(path.with_suffix(".part"), path)


def first_of(record):
    "Return how many losses of the first mini-batches a record keeps, and with how many digits."
    return getattr(record, "LOSSES", FIRST), getattr(record, "DIGITS", DIGITS)


def rounded(number, digits=DIGITS):
    "Return a number with so many digits."
    return float(f"{number:.{digits}g}")


def cpu_seconds():
    "Return the CPU seconds of this process and of those that it has started and seen end."
    return sum(os.times()[:4])


def one(record, setting):
    "Make one run; return its line."
    began = cpu_seconds()
    found = dict(record.run(setting))
    seconds, (count, digits) = cpu_seconds() - began, first_of(record)
    first = [rounded(loss, digits) for loss in found.pop("losses")[:count]]
    epochs = [[rounded(number) for number in epoch] for epoch in found.pop("epochs")]
    if hasattr(record, "fingerprint") and record.proved(setting):
        found["fingerprint"] = record.fingerprint(setting, count)
    return {"setting": setting, "seconds": round(seconds, 1), "first": first, "epochs": epochs, **found}


def make(name, anew=False, longer=False, say=print):
    "Make the runs of a record that are missing, or its longer ones; return how many there are in all."
    torch.set_num_threads(1)
    record = module(name)
    if longer and not hasattr(record, "longer"):
        raise ValueError(f"{name}: found no longer runs, expected a function `longer` in records/{name}.py")
    settings, name = (record.longer, f"{name}_longer") if longer else (record.settings, name)
    kept = {"made": made(), "runs": []} if anew else stored(name)
    if kept["made"] != made():
        raise ValueError(f"{name}: found runs made with {kept['made']}, here it is {made()}: --anew makes all again")
    done = [run["setting"] for run in kept["runs"]]
    missing = [setting for setting in settings() if setting not in done]
    kept["runs"] = [run for run in kept["runs"] if run["setting"] in settings()]
    for number, setting in enumerate(missing, 1):
        kept["runs"].append(one(record, setting))
        write(name, kept)
        say(f"{name}, {number} of {len(missing)}: {setting} {kept['runs'][-1]['epochs'][-1:]}", flush=True)
    order = settings()
    kept["runs"].sort(key=lambda run: order.index(run["setting"]))
    write(name, kept)
    return len(kept["runs"])


def main(words):
    "Make the records that are named, or all."
    anew, longer = "--anew" in words, "--longer" in words
    for name in [word for word in words if word not in ("--anew", "--longer")] or names():
        print(f"{name}: {make(name, anew, longer)} runs")


if __name__ == "__main__":
    main(sys.argv[1:])
