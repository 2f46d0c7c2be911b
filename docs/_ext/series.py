"""Where a reader is: the strip of the series and the loop as it stands, at the head of each chapter; *Next*.

`series.js` adds what depends on the reader: ticks, minutes left, and which version of the loop is the last proved one.
"""

import html
from functools import cache

from docs._ext.chapters import proved
from docs._ext.loops import versions
from tools.chapters import chapters

GROUPS = {"chapters": "series", "reference": "reference", "loops": "look"}
HOOD = {"chapters/00_workbench", "under_the_hood", "bugs"}


def steps(chapter):
    "Return the versions of a chapter's loop, none if the chapter does not show their verdicts one after the other."
    rows = versions(chapter)
    return rows if 2 * len(proved(chapter.notebook)) > len(rows) else []


@cache
def series():
    "List the chapters, read once: (stem, title, minutes, number of exercises, versions of the loop)."
    return [(c.stem, c.title, c.minutes, len(c.exercises), steps(c)) for c in chapters()]


def group(pagename):
    "Name the part of the site that a page belongs to, as the sidebar does."
    return "hood" if pagename in HOOD else GROUPS.get(pagename.partition("/")[0], "look")


def strip(stem):
    "Write the strip of the series, with this chapter marked."
    items, facts = [], ""
    for other, title, minutes, exercises, _ in series():
        here = ' aria-current="page"' if other == stem else ""
        words = html.escape(f"{title}: {minutes} minutes, {exercises} exercises", quote=True)
        items.append(
            f'<li><a href="{other}.html"{here} data-chapter="{other}" data-minutes="{minutes}" '
            f'title="{words}" aria-label="{words}">{title[:2]}</a></li>'
        )
        if here:
            facts = f"{minutes} minutes to read, {exercises} exercises"
    return (
        f'<nav class="series" aria-label="The series"><ol>{"".join(items)}</ol>'
        f'<p>{facts}<label class="js-only"><input type="checkbox" class="read"> read</label></p></nav>'
    )


def loop_now(app, rows, stem):
    "Write the folded panel with every version of the chapter's loop; without JavaScript it links to all of them."
    if not rows:
        return ""
    parts = []
    for number, row in enumerate(rows, 1):
        code = app.builder.highlighter.highlight_block(row["source"], "python")
        said = f", {row['verdict']}" if row["verdict"] else ""
        step = html.escape(row["step"], quote=True)
        parts.append(
            f'<div class="loop-state" data-version="{number}" hidden data-words="{step}" '
            f'data-facts="{row["lines"]} lines, version {number} of {len(rows)}{said}">{code}</div>'
        )
    return (
        f'<details class="loop-now"><summary>The loop now: <b>{html.escape(rows[0]["step"])}</b> '
        f"<span>version 1 of {len(rows)}</span></summary>"
        f'<div class="loop-states">{"".join(parts)}<p><a href="../loops/{stem}.html">All {len(rows)} versions, '
        "with what changed</a></p></div></details>"
    )


def place(app, pagename, templatename, context, doctree):
    "Put strip and panel below the title of a chapter; let previous and next stay within a part of the site."
    relations = app.builder.relations.get(pagename, [None] * 3)
    for key, other in zip(("prev", "next"), relations[1:]):
        if other and group(other) != group(pagename):
            context[key] = None
    stems = [stem for stem, *_ in series()]
    folder, _, stem = pagename.rpartition("/")
    if folder != "chapters" or "body" not in context:
        return
    if stem == stems[-2]:  # the last in order is the workbench
        title = series()[-1][1]
        context["next"] = {"link": f"{stems[-1]}.html", "title": title}
    rows = series()[stems.index(stem)][4]
    head, end, rest = context["body"].partition("</h1>")
    context["body"] = head + end + strip(stem) + loop_now(app, rows, stem) + rest


def know(app, config):
    "Write all pages anew when a chapter comes, goes, or changes its title, times or loop."
    series.cache_clear()
    config.series = [str(row[:4]) + str([(v["step"], v["source"]) for v in row[4]]) for row in series()]


def setup(app):
    app.add_config_value("series", [], "html")
    app.connect("config-inited", know)
    app.connect("html-page-context", place, priority=890)
    return {"parallel_read_safe": True}
