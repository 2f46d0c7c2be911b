"""What `make bench` writes: results.json (everything), results.md (the tables, from it) and the chart.

`python -m bench.report` writes the tables and the chart anew from the stored results.json.
"""

import json
from importlib import import_module
from pathlib import Path

from bench.tables import count, spread, table
from exp.nb_00 import COLORS, GREY, Picture, canvas

BENCH = Path(__file__).resolve().parent
CHART = BENCH / "chart.png"
GROUP_COLORS = {"ours": COLORS[1], "idiom": COLORS[0], "peer": GREY, "limit": COLORS[2]}
ALPHAS = {1: 1.0, 2: 0.55}
NUMBERS = {1: "one thread", 2: "two threads"}
CHAPTERS = ("optimisers", "normalisation", "convolutions", "speed", "processes")  # modules: what single chapters show


def timings(found, threads):
    "Make the table of one number of threads."
    rows = []
    for row in found["timings"]:
        if row["threads"] == threads:
            learned = ["", ""] if row["loss"] is None else [f"{row['loss']:.4f}", f"{row['accuracy']:.2%}"]
            to_limit = f"{row['to_limit']['median']:.1f}" if row["to_limit"] else ""
            to_idiom = spread(row["to_idiom"]) if row["to_idiom"] else ""
            mark = " *" if row["disturbed"] else ""
            seconds = spread(row["seconds"], ".3f") + mark
            rows.append([row["title"], seconds, to_idiom, to_limit, f"{row['cpu']:.2f}", *learned])
    head = ["variant", "seconds", "to the idiom", "to the limit", "CPU seconds", "validation loss", "accuracy"]
    return table(head, rows)


def scaling(found, key):
    "Make the table of how times grow with the batch size or the number of epochs."
    other, normal = ("epochs", 1) if key == "batch_size" else ("batch_size", 64)
    rows = [r for r in [*found["timings"], *found["scaling"]] if r["threads"] == 1 and r[other] == normal]
    steps = sorted({row[key] for row in rows})
    by_place = {(row["title"], row[key]): row for row in rows}
    titles = dict.fromkeys(row["title"] for row in found["scaling"])

    def cell(row):
        return "" if row is None else f"{row['seconds']['median']:.3f}" + (
            f" ({row['to_idiom']['median']:.2f})" if row["to_idiom"] else "")

    return table([key.replace("_", " "), *steps], [[t, *(cell(by_place.get((t, s))) for s in steps)] for t in titles])


def targets(found):
    "Make the table of what is demanded."
    rows = [[t["name"], t["against"], t["threads"], f"{t['ratio']:.3f}", f"{1 / t['ratio']:.2f}", f"{t['at_most']:.3f}",
             ("met" if t["met"] else "**missed**") + (" *" if t["disturbed"] else "")] for t in found["targets"]]
    return table(["the time of", "to that of", "threads", "ratio", "times as fast", "at most", "verdict"], rows)


def quiet(found):
    "Say what other processes did meanwhile."
    seen = found["protocol"]
    if seen["foreign"] is None:
        return "Whether other processes disturbed the runs cannot be told on this system (it has no /proc/stat)."
    again = f"{count(seen['repeated'], 'run was', 'runs were')} disturbed by other processes and repeated"
    if not seen["foreign"]:
        return f"{again}; no disturbed run is left in the figures."
    return (f"{again}; **{seen['foreign']} of {seen['runs']} runs in the figures are disturbed** (marked *): "
            "run it again on a quiet machine.")


def others(found):
    "Make the table of what else was measured."
    rest, mib = found["others"], 2**20
    data = rest["get_mnist_data"]
    rows = [
        ["`import torch`", f"{spread(rest['import']['torch'])} s"],
        ["`import torch`, then `import exp.nb_02`", f"{spread(rest['import']['torch_and_exp'])} s"],
        ["`import exp.nb_02` beyond torch's own import", f"{1000 * rest['import']['exp']['median']:.0f} ms"],
        ["`get_mnist_data()`", f"{spread(data['seconds'])} s"],
        ["its peak of memory, beyond what was in use", f"{data['peak_bytes']['median'] / mib:.0f} MiB"],
        ["the tensors that it gives", f"{data['tensor_bytes'] / mib:.0f} MiB"],
        *([f"`nbs/{name}.ipynb`, from start to end", f"{took:.1f} s"] for name, took in rest["notebooks"].items()),
        ["`make docs`, from nothing", f"{rest['docs']:.1f} s"],
    ]
    if rest.get("live"):
        rows.append(["an epoch of 10,000 images on the page *Train it here*, in Chromium", f"{spread(rest['live'])} s"])
    return table(["what", "takes"], rows)


def markdown(found):
    "Word the results, as results.md."
    machine, protocol = found["machine"], found["protocol"]
    versions = ", ".join(f"{name} {text}" for name, text in found["versions"].items())
    pinned = "pinned to as many cores" if machine["pinned"] else "not pinned (this system cannot)"
    parts = [
        "# The loops, timed",
        "One epoch of MNIST (50,000 images, 784–128–10, batches of 64, learning rate 0.1) from the same weights, in "
        "the same order unless shuffled; each notes loss and accuracy of its training. Seconds of the training alone, "
        "after a rehearsal of five batches in the same process. Each run has a process of its own; "
        f"{count(protocol['rounds'], 'round')}, interleaved; median (lowest to highest). A ratio is the median of the "
        "ratios within each round. The two workers may use both cores even where the loop itself has one. "
        f"Written by `make bench` on {machine['date']}.",
        f"{machine['processor']}, {count(machine['cores'], 'core')}, {machine['vectors']}; {machine['system']}; "
        f"{machine['blas']}; Python {machine['python']}, {versions}.",
        quiet(found),
    ]
    for threads in protocol["threads"]:
        parts += [f"## {NUMBERS[threads].capitalize()}, {pinned}", timings(found, threads)]
    if found["targets"]:
        parts += ["## Targets", targets(found)]
    if found["scaling"]:
        about = f"Seconds of the whole run (to the idiom), one thread, {count(protocol['scaling_rounds'], 'round')}."
        parts += ["## With the batch size", about, scaling(found, "batch_size")]
        parts += ["## With the number of epochs", about, scaling(found, "epochs")]
    for name in CHAPTERS:
        if name in found:
            parts += import_module(f"bench.{name}").markdown(found[name])
            if apart := found.get("apart", {}).get(name):
                parts.append(f"Measured apart from the rest, on {apart['date']}: {apart['processor']}.")
    if "others" in found:
        date = found["others"].get("date")
        parts += ["## What else takes time", *([f"Measured on {date}."] if date else []), others(found)]
    return "\n\n".join(parts) + "\n"


def chart(found):
    "Draw the seconds of each variant, a bar for each number of threads; return the `Picture`."
    threads = found["protocol"]["threads"]
    titles = list(dict.fromkeys(row["title"] for row in found["timings"]))
    fig, [ax] = canvas(width=9, height=0.9 + 0.42 * len(titles))
    thick = 0.8 / len(threads)
    for row in found["timings"]:
        place = titles.index(row["title"]) + (threads.index(row["threads"]) - (len(threads) - 1) / 2) * thick
        time = row["seconds"]
        ends = [[time["median"] - time["low"]], [time["high"] - time["median"]]]
        ax.barh(place, time["median"], 0.9 * thick, color=GROUP_COLORS[row["group"]], alpha=ALPHAS[row["threads"]])
        ax.errorbar(time["median"], place, xerr=ends, color=GREY, linewidth=1, capsize=2)
        label = f"{time['median']:.2f} s" + (f", {row['to_idiom']['median']:.2f} ×" if row["to_idiom"] else "")
        ax.text(time["high"] + 0.01 * widest(found), place, label, va="center", color=GREY, fontsize=8)
    ax.set(yticks=range(len(titles)), yticklabels=titles, xlim=(0, 1.15 * widest(found)))
    ax.set_xlabel("seconds for one epoch (and how many times those of the PyTorch idiom)")
    ax.invert_yaxis()
    for t in threads:
        ax.bar(0, 0, color=GREY, alpha=ALPHAS[t], label=NUMBERS[t])
    ax.legend(frameon=False, labelcolor=GREY, loc="lower right")
    return Picture(fig, in_words(found))


def widest(found):
    "Return the longest time on the chart."
    return max(row["seconds"]["high"] for row in found["timings"])


def in_words(found):
    "Say what the chart shows."
    said = []
    for threads in found["protocol"]["threads"]:
        rows = [row for row in found["timings"] if row["threads"] == threads]
        each = ", ".join(f"{row['title']} {row['seconds']['median']:.2f}" for row in rows)
        said.append(f"With {NUMBERS[threads]}: {each}.")
    return "Bar chart of the seconds that one epoch takes. " + " ".join(said)


def write(found, folder, picture):
    "Write results.json and results.md into `folder`, and the chart to the path `picture`."
    drawn = chart(found)
    found = found | {"chart": {"file": picture.name, "alt": drawn.alt}}
    folder.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(drawn.png())
    (folder / "results.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    write(json.loads((BENCH / "results.json").read_text(encoding="utf-8")), BENCH, CHART)
