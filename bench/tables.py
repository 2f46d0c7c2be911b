"""Words and tables of what was measured. Nothing here imports torch: a clock may have to settle first."""


def table(head, rows):
    "Return a Markdown table; the first column is text, the others are figures."
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(found, form=".2f"):
    "Write a median with its ends."
    return f"{found['median']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def count(n, one, many=None):
    "Write a number with its noun."
    return f"{n} {one if n == 1 else many or one + 's'}"


def times(ratio):
    "Write how many times as long something takes."
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.1f}"
