"""Chapter 13: what `diagnose` says of every set-up of the gallery, before training; two seeds each.

The losses are those of the first mini-batches of the same set-up, made anew.
"""

from exp.nb_13 import TESTS, diagnose
from records.debugging import BUG, GALLERY, HARMLESS, HEALTHY, SEEDS, SETUPS, SURE  # noqa: F401


def setting(name, seed):
    "Return a setting as it is stored."
    common = {"model": "MLP", "optimiser": "SGD", "rate": "constant", "epochs": 0}
    return {"setup": name, "seed": seed, **common}


def settings():
    "List all runs."
    return [setting(name, seed) for seed in SEEDS[:2] for name in SETUPS]


def run(setting, steps=None):
    "Diagnose one set-up; train the first mini-batches of another that is like it."
    setup = SETUPS[setting["setup"]](setting["seed"])
    if steps is not None:
        return {"losses": setup.run(steps).losses}
    parts = setup.step, setup.model, setup.criterion, setup.optim, setup.batches
    report = diagnose(*parts, setup.evaluate, setup.valid_dl)
    losses = SETUPS[setting["setup"]](setting["seed"]).run(20).losses
    return {"losses": losses, "epochs": [], "found": report.found, "not_looked": list(report.not_looked)}


# What the chapter shows of it

ALL = list(TESTS)


def verdicts(runs, expected):
    "Count the bugs that were named by the first finding, by any, and caught at all, in every seed: {name: (…)}."
    found = {}
    for run in runs:
        name, said = run["setting"]["setup"], list(run["found"])
        hopes = expected[name]
        now = (bool(said) and said[0] in hopes, any(test in hopes for test in said), bool(said))
        found[name] = tuple(a and b for a, b in zip(found.get(name, (True,) * 3), now))
    return found


def counted(found):
    "Return the line of a table: named by the first finding, by any, caught, of how many."
    return " ".join(str(sum(each[i] for each in found.values())) for i in range(3)) + f" {len(found)}"


def names_of(kind):
    "List the names of the bugs, the harmless ones, or the healthy set-ups."
    return [name for name, each in SETUPS.items() if GALLERY[each][0] == kind]


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    by_name = {}
    for run in runs:
        by_name.setdefault(run["setting"]["setup"], []).append(run["found"])
    bugs, well = names_of(BUG), [*names_of(HEALTHY), *names_of(HARMLESS)]
    expected = {name: GALLERY[SETUPS[name]][1] for name in bugs}
    found = verdicts([run for run in runs if run["setting"]["setup"] in bugs], expected)
    alarms = [f"{name}: {', '.join(sorted({test for each in by_name[name] for test in each}, key=ALL.index))}"
              for name in well if any(by_name[name])]  # fmt: skip
    spoke = []
    for test in ALL:
        caught = [name for name in bugs if all(test in each for each in by_name[name])]
        only = [name for name in caught if all(len(each) == 1 for each in by_name[name])]
        false = [name for name in well if any(test in each for each in by_name[name])]
        spoke.append(f"{test}: {len(caught)} {len(only)} {len(false)}")
    missed = [name for name in bugs if not any(by_name[name])]
    return {
        "judged": [f"gallery: {counted(found)}"],
        "alarms": alarms,
        "spoke": spoke,
        "missed": [" ".join(missed[:5]), " ".join(missed[5:])],
    }
