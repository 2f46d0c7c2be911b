"""`make bench`: time every variant in interleaved rounds, write results.md, results.json and the chart.

`--quick` is a smoke test: one round of our variants and the idiom, with this Python, and nothing is written.
Exit code 0: all targets are met; 1: some are not; 2: the variants did not learn the same, or one of them broke.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from bench import costs, machine, peers, report, results
from bench.variants import VARIANTS
from tools.chapters import ROOT

BENCH = report.BENCH


class Patience:
    "Wait for a quiet machine, and repeat what was disturbed, for so many seconds in all."

    def __init__(self, seconds, say=print):
        self.left, self.say, self.repeated = seconds, say, 0

    def run(self, once):
        "Return the record that `once` makes; make it again while it is disturbed and patience is left."
        record = once()
        while results.disturbed(record) and self.left > 0:
            self.repeated += 1
            self.say(f"  {record['name']}: other processes took {record['foreign']:.2f} s of CPU time: again")
            began = time.perf_counter()
            self.wait()
            record = once()
            self.left -= time.perf_counter() - began
        return record

    def wait(self, window=0.5, at_most=10.0):
        "Return when the machine has been quiet for a moment, or after a while."
        cpus = machine.own_cpus()
        for _ in range(int(at_most / window)):
            began = machine.busy_seconds(cpus)
            time.sleep(window)
            if began is None or machine.busy_seconds(cpus) - began < 0.1 * window:
                return


def run(python, name, threads, batch_size, epochs):
    "Run a variant in a process of its own; return its record."
    command = [python, "-m", "bench.variants", name, "--threads", threads, "--batch-size", batch_size]
    command = [str(word) for word in [*command, "--epochs", epochs]]
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"{name} broke:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def environment(threads):
    "Return the environment of a run: our modules, and as many threads in every library that has its own idea of it."
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    return os.environ | limits | {"PYTHONPATH": str(ROOT)}


def cases(names, threads, scaling):
    "List what is timed in each round, and what in each round of scaling."
    main = [(name, t, 64, 1) for t in threads for name in names]
    scaled = [name for name in names if VARIANTS[name].scaled] if scaling else []
    sizes = [(name, 1, size, 1) for size in (256, 1024) for name in scaled]
    return main, sizes + [(name, 1, 64, epochs) for epochs in (2, 4) for name in scaled]


def measure(listed, rounds, once, say):
    "Time the cases in interleaved rounds, each in another order; return {case: its records, one a round}."
    found, chance = {entry: [] for entry in listed}, random.Random(1)
    for number in range(1, rounds + 1 if listed else 1):
        began = time.perf_counter()
        for entry in chance.sample(listed, len(listed)):
            found[entry].append(once(*entry))
        say(f"round {number} of {rounds}: {len(listed)} runs, {time.perf_counter() - began:.0f} s")
    return found


def gather(options, python, say):
    "Measure everything; return the results."
    groups = ("ours", "idiom") if options.quick else ("ours", "idiom", "peer", "limit")
    names = options.only or [name for name, variant in VARIANTS.items() if variant.group in groups]
    cpus = machine.own_cpus()
    threads = [t for t in ([1] if options.quick else [1, 2]) if cpus is None or t <= len(cpus)]
    main, scaling = cases(names, threads, not options.quick and options.scaling_rounds)
    patience = Patience(0 if options.quick else options.patience, say)

    def once(*entry):
        return patience.run(lambda: run(python, *entry))

    rounds = measure(main, options.rounds, once, say)
    scaled = measure(scaling, options.scaling_rounds, once, say)
    records = [record for runs in (rounds | scaled).values() for record in runs]
    if wrong := results.disagreements(records):
        raise RuntimeError("the variants did not learn the same:\n" + "\n".join(wrong))
    unknown = any(record["foreign"] is None for record in records)
    found = {
        "machine": machine.machine(python, cpus),
        "versions": {name: text for record in records for name, text in record["versions"].items()},
        "protocol": {
            "rounds": options.rounds, "scaling_rounds": options.scaling_rounds, "threads": threads,
            "foreign": None if unknown else sum(bool(results.disturbed(record)) for record in records),
            "repeated": patience.repeated, "runs": len(records),
        },
        "timings": [results.row(runs, rounds) for runs in rounds.values()],
        "scaling": [results.row(runs, scaled) for runs in scaled.values()],
        "targets": results.check_targets(rounds),
    }
    if options.quick:
        return found
    chapters = by_chapter(python)
    return found | chapters | {"others": costs.measure(python, options.rounds, environment(1), say)}


def by_chapter(python, names=report.CHAPTERS):
    "Measure what single chapters show."
    return {name: costs.chapter(name, python, environment(1)) for name in names}


def renew_chapters(names):
    "Measure anew what these chapters show; store it, with the machine, beside the rest; return the exit code."
    stored = json.loads((BENCH / "results.json").read_text(encoding="utf-8"))
    here = machine.machine(sys.executable, machine.own_cpus())
    apart = stored.get("apart", {}) | {name: {key: here[key] for key in ("processor", "date")} for name in names}
    measured = by_chapter(sys.executable, names)
    report.write(stored | measured | {"apart": apart}, BENCH, report.CHART)
    return 0 if near_the_limit(measured) else 1


def near_the_limit(found):
    "Return whether the fastest loop of chapter 11 is as near to the limit as is demanded, where it was measured."
    return found.get("speed", {}).get("target", {}).get("met", True)


def renew_others(options, say):
    "Measure anew what else takes time, and store it with its date beside the timings that are there; return 0."
    stored = json.loads((BENCH / "results.json").read_text(encoding="utf-8"))
    here = machine.machine(sys.executable, machine.own_cpus())
    if here["processor"] != stored["machine"]["processor"]:
        raise RuntimeError(f"found {here['processor']}, expected {stored['machine']['processor']}, as for the timings")
    chapters = by_chapter(sys.executable) | {"apart": {}}
    measured = costs.measure(sys.executable, options.rounds, environment(1), say) | {"date": here["date"]}
    report.write(stored | chapters | {"others": measured}, BENCH, report.CHART)
    return 0


def main(arguments=None):
    "Run the bench; return the exit code."
    parser = argparse.ArgumentParser(description="Time our loops beside the tools that a learner would otherwise pick.")
    parser.add_argument("--quick", action="store_true", help="one round of our variants and the idiom, without peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scaling-rounds", type=int, default=3, help="0: leave scaling out")
    parser.add_argument("--patience", type=float, default=300, help="seconds for repeating what was disturbed")
    parser.add_argument("--others", action="store_true", help="only what else takes time (5 minutes); keep the rest")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="time these variants only")
    parser.add_argument("--chapter", nargs="+", choices=report.CHAPTERS, help="only what these show; keep the rest")
    parser.add_argument("--out", type=Path, help="write the reports into this folder, not into the repository")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.scaling_rounds = 1, 0
    began = time.perf_counter()

    def say(text):
        print(text, flush=True)

    try:
        if options.others:
            return renew_others(options, say)
        if options.chapter:
            return renew_chapters(options.chapter)
        python = sys.executable if options.quick else peers.python()
        found = gather(options, python, say)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        say(f"make bench: {error}")
        return 2
    say("\n" + report.markdown(found))
    partial = options.quick or options.only
    if options.out or not partial:
        folder = options.out or BENCH
        report.write(found, folder, folder / report.CHART.name if options.out else report.CHART)
        say(f"Written: results.md, results.json and {report.CHART.name}.")
    say(f"{time.perf_counter() - began:.0f} s in all.")
    met = all(target["met"] for target in found["targets"]) and near_the_limit(found)
    return 0 if options.quick or met else 1


if __name__ == "__main__":
    sys.exit(main())
