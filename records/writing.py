"""Chapter 15: a small language model on the text of the series: AdamW and Muon, three minutes each.

A step of Muon costs two or three of AdamW's here, for a processor without matrices of 16 bits has to emulate them; with
its inside in 32 bits it costs a fifth more than AdamW's. All have about the same time: three passes, one for Muon in 16
bits, each at the best of three rates after one pass. One of the models is what the chapter and the site let write: its
weights, rounded to 16 bits, are stored beside the text (`exp/data/text/writer.f16`). CPU seconds of a machine that did
other work, too: three passes of AdamW took 143 to 180.

`longer()` lists runs of about an hour each, by estimate; they were not made:
`python -m tools.records --longer writing` makes them.
"""

import hashlib
import math
import time

from exp.nb_15 import TEXT_RECIPE, Callback, Characters, get_text, held_out_bits, text_learner, text_losses, torch
from tools.chapters import ROOT

LOSSES, DIGITS, NEW = 50, 9, 16
SEEDS = {"AdamW": (0, 1, 2), "Muon": (0, 1, 2), "Muon, 32 bits": (0, 1, 2)}
BEST = {"AdamW": 0.012, "Muon": 0.02, "Muon, 32 bits": 0.02}
PASSES = {"AdamW": 3, "Muon": 1, "Muon, 32 bits": 3}
GRID = {"AdamW": (0.006, 0.012, 0.024), "Muon": (0.01, 0.02, 0.04), "Muon, 32 bits": (0.01, 0.02, 0.04)}
MARKS = 40  # means of so many equal parts of the training losses
WEIGHTS = ROOT / "exp" / "data" / "text" / "writer.f16"


def of(optimiser, epochs, seed, lr=None):
    "Return the setting of a run."
    return TEXT_RECIPE | {"optimiser": optimiser, "lr": lr or BEST[optimiser], "epochs": epochs, "seed": seed}


KEPT = of("AdamW", PASSES["AdamW"], 1)


def settings():
    "List all runs."
    runs = [of(kind, PASSES[kind], seed) for kind in BEST for seed in SEEDS[kind]]
    runs += [of(kind, 1, 0, lr) for kind, rates in GRID.items() for lr in rates]
    return [run for i, run in enumerate(runs) if run not in runs[:i]]


def longer():
    "List the runs that take an hour each: wider, deeper, windows of 128."
    return [of(kind, passes, seed) | {"width": 96, "layers": 4, "heads": 6, "window": 128}
            for kind, passes in (("Muon, 32 bits", 14), ("AdamW", 16)) for seed in range(3)]  # fmt: skip


class Clock(Callback):
    "Note the CPU seconds since the start at the end of each epoch, validation included."
    state_names = ()

    def before_fit(self, learner):
        self.began, self.seconds = time.process_time(), []

    def after_epoch(self, learner):
        self.seconds.append(round(time.process_time() - self.began, 1))


def held_out(setting):
    "Return the numbers of the held-out chapter's characters."
    texts = get_text()
    return Characters("".join(texts.values())).encode(texts[setting["held_out"]])


def packed(model):
    "Return the weights in the order of their names, rounded to 16 bits, as bytes."
    return b"".join(value.half().numpy().astype("<f2").tobytes() for value in model.state_dict().values())


def run(setting, steps=None):
    "Train with one setting, or only its first mini-batches; return losses, epochs and what else was measured."
    if steps is not None:
        return {"losses": text_losses(setting, steps)}
    learner, train, valid = text_learner(setting)
    metrics, clock = learner.callbacks[-1], Clock()
    learner.callbacks.append(clock)
    history = learner.fit(train, setting["epochs"], valid=valid)
    rows = zip(history.epochs, metrics.valid["accuracy"])
    epochs = [[row[1], row[3], acc] for row, acc in rows]
    each = len(history.losses) // MARKS
    course = [round(sum(history.losses[i * each : (i + 1) * each]) / each, 4) for i in range(MARKS)]
    ids = held_out(setting)
    found = {"losses": history.losses, "epochs": epochs, "clock": clock.seconds, "steps": len(history.losses),
             "course": course, "bits": round(history.valid_losses[-1] / math.log(2), 4),
             "sliding": round(held_out_bits(learner.model, ids, NEW), 4)}  # fmt: skip
    if setting == KEPT:
        WEIGHTS.write_bytes(packed(learner.model))
        found["weights"] = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    return found


def fingerprint(setting, steps):
    "Return the first losses in 64 bits."
    torch.set_num_threads(1)
    return text_losses(setting | {"bits": 64}, steps)


def proved(setting):
    "Tell which runs have a fingerprint: one of each but Muon, which has 16 bits inside, whatever it is given."
    return setting in [of(kind, PASSES[kind], 0) for kind in ("AdamW", "Muon, 32 bits")]


def choose(runs):
    "Return the rate of each optimiser that was best after one pass."
    found = {}
    for kind in GRID:
        after_one = {run["setting"]["lr"]: run["bits"] for run in runs
                     if run["setting"] == of(kind, 1, 0, run["setting"]["lr"])}  # fmt: skip
        found[kind] = min(after_one, key=after_one.get)
    return found


# What the chapter shows of it


def names_of(setting):
    "Return what the chapter calls a run."
    passes = f"{setting['epochs']} pass" + "es" * (setting["epochs"] > 1)
    return f"{setting['optimiser']} {setting['lr']:g}, {passes}"


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    kinds = {}
    for run in runs:
        kinds.setdefault(names_of(run["setting"]), []).append(run)

    def rows(what, form=".3f"):
        return [f"{name}: " + " ".join(f"{what(run):{form}}" for run in held) for name, held in kinds.items()]

    main = [names_of(of(kind, PASSES[kind], 0)) for kind in BEST]
    first = next(run for run in runs if proved(run["setting"]))
    kept = next(run for run in runs if run["setting"] == KEPT)
    return {"by_windows": rows(lambda run: run["bits"]), "sliding": rows(lambda run: run["sliding"]),
            "seconds": [row for row in rows(lambda run: run["clock"][-1], ".0f") if row.split(": ")[0] in main],
            "course": [" ".join(f"{loss / math.log(2):.2f}" for loss in kept["course"][i : i + 10])
                       for i in range(0, MARKS, 10)],
            "begun": ["64 bits: " + " ".join(repr(loss) for loss in first["fingerprint"][:3]),
                      "32 bits: " + " ".join(repr(loss) for loss in first["first"][:3])]}  # fmt: skip
