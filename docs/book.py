"""make book: the built site as one PDF, printed by Chromium: cover, contents, all pages, solutions, glossary.

All pages become one, with anchors of their own, and links between them stay links. The solutions of the exercises move
to the end. It is printed twice: where each heading fell the first time, the contents say the second time.
"""

import html
import os
import posixpath
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bs4 import BeautifulSoup  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from pypdf import PdfReader  # noqa: E402

from docs._ext.loops import versions  # noqa: E402
from tools.chapters import chapters  # noqa: E402
from tools.settings import read  # noqa: E402

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
DROPPED = ".headerlink, nav.series, .loop-now, .js-only, script, .page-links, .cell_input > div > button"
STYLES = ["styles/pydata-sphinx-theme.css", "pygments.css", "styles/sphinx-book-theme.css", "site.css", "formulas.css"]
CLIPPED = """() => [...document.querySelectorAll("pre, table, img, svg, math, p")]
    .filter(each => each.getBoundingClientRect().right > document.body.getBoundingClientRect().right + 2
                    || each.scrollWidth > each.clientWidth + 2 && each.matches("pre, table"))
    .map(each => each.textContent.slice(0, 80))"""


def parts():
    "List the parts of the book: (title, names of its pages)."
    found = chapters()
    loops = [f"loops/{each.stem}" for each in found if versions(each)]
    return [
        ("The series", [f"chapters/{each.stem}" for each in found]),
        ("Look and try", [*loops, "bench"]),
        ("Reference", [f"reference/{each.module}" for each in found]),
        ("Under the hood", ["under_the_hood", "bugs"]),
    ]


def key(name, anchor=""):
    "Return the anchor that a page, or a place on it, has in the book."
    return re.sub(r"\W", "-", name) + (f"--{anchor}" if anchor else "")


def article(site, name, wanted):
    "Return the article of a page, made fit for the book."
    soup = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser").find("article")
    for each in soup.select(DROPPED):
        each.decompose()
    for each in soup.find_all(id=True):
        each["id"] = key(name, each["id"])
    for link in soup.find_all("a", href=True):
        page, _, anchor = link["href"].partition("#")
        page = posixpath.normpath(posixpath.join(posixpath.dirname(name), page)) if page else f"{name}.html"
        if link["href"].startswith(("http:", "https:")):
            continue
        if page.removesuffix(".html") in wanted:
            link["href"] = f"#{key(page.removesuffix('.html'), anchor)}"
        else:
            link.unwrap()
    for image in soup.find_all("img"):
        path = (site / name).parent / image["src"]
        image["src"] = path.resolve().as_uri()
        del image["loading"]
    for fold in soup.find_all("details"):
        fold["open"] = ""
    return soup


def move_solutions(soup, name):
    "Take the solutions of a chapter's exercises out; return them, each below the title of its exercise."
    found = []
    for fold in soup.find_all("details"):
        if fold.summary and fold.summary.get_text().startswith("Solution"):
            title = fold.find_previous(["h3", "h2"])
            anchor = key(name, f"solution-{len(found) + 1}")
            note = f'<p><a href="#{anchor}">The solution stands at the end of the book.</a></p>'
            fold.replace_with(BeautifulSoup(note, "html.parser"))
            fold.name = "div"
            fold.summary.decompose()
            back = f'<a href="#{title.parent.get("id", key(name))}">{html.escape(title.get_text())}</a>'
            found.append(f'<section class="solution" id="{anchor}"><h3>{back}</h3>{fold}</section>')
    return "".join(found)


def contents(rows, numbers):
    "Write the contents: (depth, title, anchor); a dict says on which page each anchor is."
    lines = "".join(
        f'<li class="depth-{depth}"><a href="#{anchor}"><span>{html.escape(title)}</span>'
        f"<i>{numbers.get(anchor, 0) or '000'}</i></a></li>"
        for depth, title, anchor in rows
    )
    return f'<nav class="book-contents"><h1>Contents</h1><ul>{lines}</ul></nav>'


def assemble(site, chosen):
    "Return the body of the book without its contents, and the rows of the contents."
    wanted = {name for _, names in chosen for name in names}
    rows, body, solutions = [], [], []
    for title, names in chosen:
        rows.append((0, title, key(title)))
        body.append(f'<div class="part" id="{key(title)}"><h1>{title}</h1></div>')
        for name in names:
            soup = article(site, name, wanted)
            rows.append((1, soup.h1.get_text().strip(), key(name)))
            if name.startswith("chapters/"):
                for heading in soup.find_all("h2"):
                    rows.append((2, heading.get_text().strip(), heading.parent["id"]))
                if found := move_solutions(soup, name):
                    solutions.append((soup.h1.get_text(), key(name, "solutions"), found))
            body.append(f'<div class="page" id="{key(name)}">{soup.decode_contents()}</div>')
    if solutions:
        rows.append((0, "Solutions", "solutions"))
        body.append('<div class="part" id="solutions"><h1>Solutions</h1></div>')
    for title, anchor, found in solutions:
        rows.append((1, title, anchor))
        body.append(f'<div class="page" id="{anchor}"><h1>{html.escape(title)}</h1>{found}</div>')
    if (site / "glossary.html").exists():
        rows.append((0, "Glossary", "glossary"))
        body.append(f'<div class="page" id="glossary">{article(site, "glossary", wanted).decode_contents()}</div>')
    return "\n".join(body), rows


def document(site, settings, body, listed):
    "Write the whole book as one page."
    styles = "".join(f'<link rel="stylesheet" href="{(site / "_static" / name).as_uri()}">' for name in STYLES)
    styles += f'<link rel="stylesheet" href="{(ROOT / "docs" / "book.css").as_uri()}">'
    cover = (
        f'<header class="cover"><h1>{html.escape(settings["title"])}</h1><p>{html.escape(settings["description"])}.</p>'
        f'<img src="{(site / "_static" / "loops.png").as_uri()}" alt="">'
        f"<p>{html.escape(settings['author'])}<br>Version {settings['version']}</p></header>"
    )
    head = f'<meta charset="utf-8"><title>{html.escape(settings["title"])}</title>{styles}'
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head>{head}</head>'
        f'<body><main class="bd-content"><div class="bd-article-container"><article class="bd-article">'
        f"{cover}{listed}{body}</article></div></main></body></html>"
    )


def make(site, out, chosen=None, settings=None):
    "Print the book to `out`; return the number of its pages. Raise `ValueError` if something on a page is cut off."
    body, rows = assemble(site, chosen or parts())
    settings = settings or read()
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        raise FileNotFoundError(f"the book is printed by Chromium: found none of {', '.join(BROWSERS)}")
    source, numbers, length = out.with_suffix(".html"), {}, 0
    with sync_playwright() as playwright:
        args = ["--disable-gpu"] + (["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])
        browser = playwright.chromium.launch(executable_path=browser_path, args=args)
        page = browser.new_page(viewport={"width": 690, "height": 1000})  # the width of the text on A4
        page.emulate_media(media="print", color_scheme="light")
        for again in (False, True):
            source.write_text(document(site, settings, body, contents(rows, numbers)), encoding="utf-8")
            page.goto(source.as_uri(), timeout=120_000)
            if not again and (cut := page.evaluate(CLIPPED)):
                raise ValueError(f"{len(cut)} pieces are cut off, the first: {cut[0]!r}")
            page.pdf(path=out, prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
            reader = PdfReader(out)
            if again and len(reader.pages) != length:
                raise ValueError(f"found {length} pages at first, then {len(reader.pages)}: the contents are wrong")
            length = len(reader.pages)
            places = reader.named_destinations
            numbers = {
                anchor: reader.get_destination_page_number(places[f"/{anchor}"]) + 1
                for *_, anchor in rows
                if f"/{anchor}" in places
            }
        browser.close()
    source.unlink()
    return length


if __name__ == "__main__":
    built = ROOT / "docs" / "_build" / "html"
    book = built / "book.pdf"
    count = make(built, book)
    print(f"The book: {book.relative_to(ROOT)}, {count} pages, {book.stat().st_size / 1e6:.1f} MB")
