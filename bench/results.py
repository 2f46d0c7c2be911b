"""What the timings say: medians, ratios, whether all variants learned the same, whether the targets are met.

A record is what one run of a variant printed. A *case* is (variant, threads, batch size, epochs); its row sums up
the records of all rounds. Ratios are taken within each round, and the median of them is given: what slows the machine
down for a while slows down both.
"""

from dataclasses import dataclass
from statistics import median

from bench.variants import VARIANTS

FOREIGN_SHARE, FOREIGN_SECONDS = 0.05, 0.03  # other processes' CPU time: more than both of these disturbs a run


@dataclass(frozen=True)
class Target:
    "What is demanded: with this many `threads`, time(`name`) ≤ `at_most` × time(`against`)."

    name: str
    against: str
    threads: int
    at_most: float


TARGETS = [
    Target("fit", "idiom", 1, 0.75),
    Target("fit", "idiom", 2, 0.65),
    Target("fit", "fastai", 1, 1 / 2.4),
    Target("fit", "fastai", 2, 1 / 2.4),
    Target("fit", "fastai-by-hand", 1, 1 / 2.4),
    Target("fit", "fastai-by-hand", 2, 1 / 2.4),
    Target("learner", "fit", 1, 1.05),
    Target("learner", "fit", 2, 1.05),
]


def summary(values):
    "Return the median and the ends of a list of numbers."
    return {"median": median(values), "low": min(values), "high": max(values)}


def disturbed(record):
    "Return whether other processes took CPU time that matters during a run; None: can't tell."
    if record["foreign"] is None:
        return None
    return record["foreign"] > max(FOREIGN_SECONDS, FOREIGN_SHARE * record["seconds"])


def case(record):
    "Return what was run, without the times."
    return record["name"], record["threads"], record["batch_size"], record["epochs"]


def row(records, rounds):
    "Sum up one case: `records` are its runs, in rounds; `rounds` maps each case to its runs."
    name, *setting = case(records[0])
    found = dict(zip(("name", "threads", "batch_size", "epochs"), case(records[0])))
    found |= {"title": VARIANTS[name].title, "group": VARIANTS[name].group}
    found |= {"seconds": summary([r["seconds"] for r in records]), "cpu": median(r["cpu"] for r in records)}
    for key, other in (("to_idiom", "idiom"), ("to_limit", "limit")):
        against = rounds.get((other, *setting))
        found[key] = summary(ratios(records, against)) if against else None
    found |= {"loss": records[0]["loss"], "accuracy": records[0]["accuracy"], "runs": [r["seconds"] for r in records]}
    return found | {"disturbed": sum(bool(disturbed(r)) for r in records)}


def ratios(records, against):
    "Return the ratio of the times of two variants in each round."
    return [a["seconds"] / b["seconds"] for a, b in zip(records, against, strict=True)]


def disagreements(records):
    "List the comparable runs that did not end where the idiom did: loss within 1 %, accuracy within half a point."
    found = []
    standard = {case(r)[1:]: r for r in records if r["name"] == "idiom"}
    for record in records:
        base = standard.get(case(record)[1:])
        if base is None or not VARIANTS[record["name"]].comparable:
            continue
        near = abs(record["loss"] - base["loss"]) <= 0.01 * base["loss"]
        if not (near and abs(record["accuracy"] - base["accuracy"]) <= 0.005):  # so that NaN is caught too
            pair = [f"{r['name']}: loss {r['loss']:.4f}, accuracy {r['accuracy']:.2%}" for r in (record, base)]
            found.append(" ≠ ".join(pair) + " with {} threads, batch size {}, epochs {}".format(*case(record)[1:]))
    return found


def check_targets(rounds, targets=TARGETS, batch_size=64, epochs=1):
    "Measure each target whose two variants were timed."
    found = []
    for target in targets:
        setting = target.threads, batch_size, epochs
        ours, theirs = (rounds.get((name, *setting)) for name in (target.name, target.against))
        if ours and theirs:
            ratio = median(ratios(ours, theirs))
            found.append(vars(target) | {"ratio": ratio, "met": ratio <= target.at_most,
                                         "disturbed": any(map(disturbed, ours + theirs))})
    return found
