"""Compare the stored outputs of a notebook with fresh ones.

Training is chaotic in its last digits, and another processor rounds differently. So marks say what may differ:

- `⏱ 12.3 ms`    a timing: stored as `⏱ … ms` and never compared;
- `≈2e-07`, `≈5`  a number that depends on the last digit of a float: its presence is compared, not its value;
- `≈0.187`       a number that training scatters: compared to one part in ten (`SCATTER`);
- `≈(4, 9)`      words that depend on it: their presence is compared.

All other numbers must agree to a relative tolerance of `RTOL`, percentages to `POINTS`, whole numbers exactly; words to
the letter. A figure is compared by its size, its alternative text, and what was drawn: for each line its name, its
number of points, and the means of ten equal parts, to a relative tolerance of `DRAWN`, or one unit where that is less.
What ledgers, verdicts and diffs say of themselves is compared as text, like the rest.
"""

import base64
import functools
import hashlib
import itertools
import json
import re
import struct

from tools.chapters import code_cells, code_lines

RTOL, POINTS, SCATTER, DRAWN = 5e-3, 0.2, 0.1, 0.05
NOTHING, CURVE = "(nothing)", "drawn: "
NUMBER = r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
TIMING = re.compile(rf"(⏱ *){NUMBER}")
LOOSE = re.compile(r"≈\([^)]*\)|≈ *[-+]?[\d,]+(?:\.?\d*e[-+]?\d+)?(?!\.?\d)")
SCATTERED = re.compile(rf"≈ *({NUMBER})")
PADDED = re.compile("≈# +")  # a column is as wide as its numbers


def agree(stored, fresh):
    "Return whether two lines of text agree: words to the letter, numbers as their marks allow."
    if stored == fresh:
        return True
    if stored.startswith(CURVE) and fresh.startswith(CURVE):
        return agree_curves(stored, fresh)
    stored, fresh = (LOOSE.sub("≈#", TIMING.sub(r"\1…", line)) for line in (stored, fresh))
    if not all_near(SCATTERED.findall(stored), SCATTERED.findall(fresh), SCATTER):
        return False
    stored, fresh = (PADDED.sub("≈# ", SCATTERED.sub("≈#", line)) for line in (stored, fresh))
    if re.split(NUMBER, stored) != re.split(NUMBER, fresh):
        return False
    pairs = zip(re.findall(f"{NUMBER}%?", stored), re.findall(f"{NUMBER}%?", fresh))
    return all(a == b or close(a, b) for a, b in pairs)


def agree_curves(stored, fresh):
    "Return whether two lines of a figure agree: name and number of points exactly, means to `DRAWN`."
    (stored, _, these), (fresh, _, those) = (line.rpartition(": ") for line in (stored, fresh))
    return stored == fresh and all_near(these.split(), those.split(), DRAWN, most=1.0)


def all_near(these, those, rtol, most=float("inf")):
    "Return whether two lists of written numbers agree to a relative tolerance, or to `most` where that is less."
    pairs = [(float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in zip(these, those)]
    return len(these) == len(those) and all(abs(a - b) <= min(rtol * abs(a), most) for a, b in pairs)


def close(a, b):
    "Return whether two written numbers agree: whole ones exactly, others as said above or to a unit of the last digit."
    if not re.search(r"[.e]", a + b):
        return False
    x, y = (float(number.strip("%").replace(",", "")) for number in (a, b))
    decimals, power = re.search(r"(?:\.(\d+))?(e.*)?$", a.strip("%")).groups(default="")
    unit = 10.0 ** -len(decimals) * float(f"1{power}")
    return abs(x - y) <= max(POINTS if a.endswith("%") else RTOL * abs(x), 1.01 * unit)


def describe(output):
    "Return what of an output is compared, as a list of lines."
    if output.output_type == "stream":
        return [f"{output.name}:", *output.text.splitlines()]
    if output.output_type == "error":
        return ["error:", f"{output.ename}: {output.evalue}"]
    lines = []
    for mime, content in sorted(output.data.items()):
        if mime == "image/png":
            width, height = struct.unpack(">II", base64.b64decode(content[:32])[16:24])
            about = output.metadata.get(mime, {})
            lines += ["image/png:", f"{width} by {height} pixels", about.get("alt", "no alternative text")]
            for line in about.get("drawn", []):
                lines.append(f"{CURVE}{line.name!r}, {line.points} points: {' '.join(map(str, line.get('means', [])))}")
        else:
            text = content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False)
            lines += [f"{mime}:", *text.splitlines()]
    return lines


@functools.cache
def digest(source):
    "Return eight digits that change with every change of a cell's source."
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def differences(stored, fresh, name):
    "List what differs between a notebook's stored outputs and fresh ones, a line of text each."
    found, ran = [], stored.metadata.get("ran", {})
    olds, news = code_cells(stored), code_cells(fresh)
    for index, (old, new) in enumerate(itertools.zip_longest(olds, news), 1):
        if old is not new and (old is None or new is None or old.source != new.source):
            found = [f"{first_line(cell)!r}" if cell else NOTHING for cell in (old, new)]
            return [f"{name}, code cell {index}, line 1: stored {found[0]}, run {found[1]}: other code than was run"]
    for index, (old, new) in enumerate(zip(olds, news), 1):
        edited = ran.get(old["id"]) != digest(old["source"])
        differ = old is not new and old.outputs != new.outputs
        if edited or differ:
            where = f"{name}, code cell {index} ({first_line(old)!r})"
            found += [f"{where}: was edited after it ran, or was never run"] if edited else []
            found += output_differences(old.outputs, new.outputs, where)
    return found


def output_differences(old, new, where):
    "List what differs between the outputs of one cell."
    found = [f"{where}: an output vanished: {describe(output)[:2]}" for output in new[len(old):]]
    found += [f"{where}: an output too many: {describe(output)[:2]}" for output in old[len(new):]]
    for stored, fresh in zip(map(describe, old), map(describe, new)):
        pairs = itertools.zip_longest(stored, fresh, fillvalue=NOTHING)
        lines = [
            f"{where}, line {number}: stored {a!r}, made {b!r}"
            for number, (a, b) in enumerate(pairs)
            if NOTHING in (a, b) or not agree(a, b)
        ]
        found += lines[:3] + ([f"{where}: and {len(lines) - 3} lines more"] if len(lines) > 3 else [])
    return found


def first_line(cell):
    "Return the first line of a cell that is no directive."
    return next(iter(code_lines(cell)), "")
