"""The site: built without a warning, whole without a network, legible and usable for everybody."""

import functools
import http.server
import importlib
import json
import re
import threading
import time
from urllib.parse import unquote, urldefrag

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from sphinx.errors import ExtensionError

from docs._ext.chapters import rewrite
from docs._ext.loops import versions
from docs._ext.reference import parameters
from tests.conftest import CHAPTERS
from tools import bugs
from tools.chapters import ROOT

PAGES = [
    "index", "bench", "bugs", "live", "loops", "writing", "under_the_hood", "search", "genindex", "404",
    "exercises", "gallery", "glossary",
    *(f"{folder}/{name}" for c in CHAPTERS for folder, name in [("chapters", c.stem), ("reference", c.module)]),
    *(f"loops/{c.stem}" for c in CHAPTERS if versions(c)),
]  # fmt: skip
WIDTHS, THEMES = (1300, 390), ("light", "dark")
# What axe looks at, as it takes most of these tests' time: colours depend on the theme, structure on the width.
COLOURS, STRUCTURE = {"runOnly": ["color-contrast"]}, {"rules": {"color-contrast": {"enabled": False}}}
AXE = {(1300, "light"): {}, (1300, "dark"): COLOURS, (390, "light"): STRUCTURE}
THIN = (ROOT / "tests" / "programs" / "thin.js").read_text(encoding="utf-8")
# Click one fold after the other, all but the first; after each click, list those that are open.
UNFOLD = """folds => folds.map((fold, number) => {
    if (number) fold.querySelector("summary").click();
    return folds.flatMap((other, index) => other.open ? [index] : []);
})"""
# What has moved while the page was loaded, by the browser's own measure: above 0.1 it is felt.
SHIFT = """() => new Promise(done => {
    let sum = 0;
    new PerformanceObserver(list => list.getEntries().forEach(each => { sum += each.value; }))
        .observe({ type: "layout-shift", buffered: true });
    requestAnimationFrame(() => setTimeout(() => done(sum)));
})"""
each_page = pytest.mark.parametrize("name", PAGES)


@pytest.fixture(scope="module")
def soups(site):
    "Parse every page."
    pages = [p for p in site.rglob("*.html") if "_static" not in p.parts]
    return {p.relative_to(site).as_posix(): BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in pages}


@pytest.fixture(scope="module")
def address(site):
    "Serve the site; return its address."

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def open_page(browser, url, width=1300, theme="light", **options):
    "Open a page in a window of its own; return it and the list of its problems."
    page, problems = open_window(browser, url[: url.index("/", 8) + 1], width, theme, **options)
    visit(page, url)
    return page, problems


def open_window(browser, home, width=1300, theme="light", **options):
    "Open a window for the pages below an address; return it and the list of the problems that they will have."
    screen = {"viewport": {"width": width, "height": 1000}, "color_scheme": theme, "reduced_motion": "reduce"}
    page, problems = browser.new_context(**screen, **options).new_page(), []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    page.on("response", lambda answer: problems.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else 0)
    allowed = (home, "data:", "blob:")
    page.on("request", lambda r: problems.append(f"asked {r.url}") if not r.url.startswith(allowed) else None)
    return page, problems


def visit(page, url):
    "Go to a page, and wait until it is whole."
    page.goto(url)
    page.wait_for_load_state("load")
    page.locator("[aria-busy=true]").wait_for(state="detached")  # a page that is still being made says so


@pytest.fixture(scope="module")
def window(browser, address):
    "Open one window for all pages, as a window costs as much as all that is then looked at; each visit is a first one."
    page, problems = open_window(browser, address)
    page.context.new_cdp_session(page).send("Network.setCacheDisabled", {"cacheDisabled": True})
    yield page, problems
    page.context.close()


def until(page, condition, seconds=60):
    "Wait until a condition in JavaScript holds, by asking: Playwright's own waiting has been seen to stall."
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"timed out after {seconds} s waiting for {condition}"
        page.wait_for_timeout(50)


# What is built


def test_every_page_is_known_to_these_tests(soups):
    assert {f"{name}.html" for name in PAGES} == set(soups)


def test_no_page_or_style_names_something_on_another_host(site, soups):
    for name, soup in soups.items():
        loaded = [tag.get("src") for tag in soup.find_all(src=True)]
        loaded += [tag.get("href") for tag in soup.find_all("link") if tag.get("rel") != ["canonical"]]
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], name
    for style in site.rglob("*.css"):
        urls = re.findall(r"url\(([^)]*)\)|@import\s+([^;]+)", style.read_text(encoding="utf-8"))
        assert [u for u in urls if re.search(r"(https?:)?//", "".join(u)) and "data:" not in "".join(u)] == [], style


@pytest.mark.all_chapters
def test_internal_links_and_anchors_lead_somewhere(site, soups):
    anchors = {name: {tag["id"] for tag in soup.find_all(id=True)} for name, soup in soups.items()}
    for name, soup in soups.items():
        for tag in soup.find_all("a", href=True):
            target, anchor = urldefrag(tag["href"])
            if re.match(r"[a-z]+:", target) or tag["href"] == "#":
                continue
            path = (site / name).parent / unquote(target) if target else site / name
            assert path.resolve().exists(), f"{name}: {tag['href']}"
            if anchor and path.suffix == ".html":
                page = path.resolve().relative_to(site.resolve()).as_posix()
                assert unquote(anchor) in anchors[page], f"{name}: {tag['href']}"


def test_ids_are_unique_and_links_and_buttons_have_names(soups):
    for name, soup in soups.items():
        ids = [tag["id"] for tag in soup.select("main [id]")]
        assert len(ids) == len(set(ids)), f"{name}: {[i for i in ids if ids.count(i) > 1][:3]}"
        for tag in soup.select("main a[href], main button, main summary"):
            named = tag.get_text(strip=True) or tag.get("aria-label") or tag.get("title") or tag.select("img[alt]")
            assert named, f"{name}: {tag}"


@pytest.mark.all_chapters
def test_every_image_says_what_it_shows(soups):
    for name, soup in soups.items():
        for image in soup.select("main img"):
            assert len(image.get("alt", "")) > 20, f"{name}: {image}"


def test_a_chapter_shows_its_code_and_offers_the_runnable_notebook(chapter, site, soups):
    soup, name = soups[f"chapters/{chapter.stem}.html"], chapter.path.name
    assert (site / "_sources" / "chapters" / name).read_bytes() == chapter.path.read_bytes()
    assert soup.find("a", href=re.compile(rf"_sources/chapters/{name}"))
    shown = "\n".join(block.get_text() for block in soup.select(".cell_input"))
    assert "#|" not in shown
    exported = [c for c in chapter.code_cells if "#| export" in c.source]
    for cell in exported:
        lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
        assert "#| hide" in cell.source or "\n".join(lines).strip() in shown
    marks = [mark.get_text() for mark in soup.select(".export-mark")]
    assert set(marks) == {f"saved in exp.{chapter.module}"}
    assert len(marks) == sum("#| hide" not in cell.source for cell in exported)


def test_every_directive_is_honoured():
    sources = ["#| default_exp nb_09", "#| export\nx = 1", "#| exports\ny = 1", "#| hide\nz", "#| echo: false\na",
               "#| output: false\nb", "#| code-fold: true\nc", "#| export\n#| hide\n_all_ = []"]  # fmt: skip
    cells = [{"cell_type": "code", "source": source, "outputs": [], "metadata": {}} for source in sources]
    cells.append({"cell_type": "markdown", "source": "::: {.callout-tip}\nwords\n:::", "metadata": {}})
    shown = [(c["source"], c["metadata"].get("tags")) for c in rewrite({"cells": cells})["cells"]]
    assert shown == [
        ("x = 1", ["exported", "exp-nb_09"]), ("y = 1", ["exported", "exp-nb_09"]), ("a", ["remove-input"]),
        ("b", ["remove-output"]), ("c", ["hide-input"]), (":::{tip}\nwords\n:::", None),
    ]  # fmt: skip


def test_names_in_backticks_lead_to_the_reference(soups):
    links = {tag["href"] for tag in soups["chapters/02_minibatch_training.html"].select("main a[href]")}
    assert {"../reference/nb_02.html#exp.nb_02.fit", "../reference/nb_00.html#exp.nb_00.same"} <= links


def test_the_reference_has_every_public_name_with_its_parameters(chapter, soups):
    module = importlib.import_module(f"exp.{chapter.module}")
    page = soups[f"reference/{chapter.module}.html"]
    assert f"../chapters/{chapter.stem}.html" in str(page)
    for name in module.__all__:
        thing = getattr(module, name)
        if getattr(thing, "__module__", "") == module.__name__:
            assert page.find(id=f"{module.__name__}.{name}"), name
            told = plain(page.find(id=f"{module.__name__}.{name}").parent.get_text())
            for parameter, comment in parameters(thing):
                assert plain(comment.replace("`", "")) in told, f"{name}: {parameter}"


@pytest.mark.all_chapters
def test_the_reference_shows_defaults_by_name(soups):
    assert "activation=ReLU" in soups["reference/nb_06.html"].get_text()
    for chapter in CHAPTERS:
        assert not re.search(r"=<\w+|\bat 0x", soups[f"reference/{chapter.module}.html"].get_text()), chapter.module


def plain(text):
    "Return a text without what typography does to it: spaces, quotes, dashes, dots."
    return re.sub(r"[^\w]", "", text)


def test_classes_say_what_their_arguments_are(soups):
    import exp.nb_02

    known = dict(parameters(exp.nb_02.DataLoader))
    assert {"batch_size", "shuffle", "generator"} <= set(known)
    told = plain(soups["reference/nb_02.html"].find(id="exp.nb_02.DataLoader").parent.get_text())
    assert all(plain(comment.replace("`", "")) in told for comment in known.values())


@pytest.mark.all_chapters
def test_weights(site, soups):
    def weight(name):
        own = {tag["src"] for tag in soups[name].select("main img")}
        images = [(site / name).parent / source for source in own]
        return sum(path.stat().st_size for path in [site / name, *images])

    assert weight("index.html") <= 300_000
    for chapter in CHAPTERS:
        assert weight(f"chapters/{chapter.stem}.html") <= 800_000


@pytest.mark.all_chapters
def test_the_table_of_planted_bugs_is_whole(soups):
    rows = soups["bugs.html"].select(".planted tbody tr")
    count = sum(len(bugs.table(chapter)) for chapter in CHAPTERS)
    assert len(rows) == count and f"{count} bugs planted, {count} caught." in soups["bugs.html"].get_text()
    assert all(row.find("details") and row.find("a", href=re.compile(r"chapters/.*#")) for row in rows)


@pytest.mark.all_chapters
def test_every_chapter_with_a_ledger_has_its_loops(soups):
    with_loops = [chapter for chapter in CHAPTERS if versions(chapter)]
    assert {"02", "03", "04"} <= {chapter.number for chapter in with_loops}
    for chapter in with_loops:
        page, rows = soups[f"loops/{chapter.stem}.html"], versions(chapter)
        shown = page.select(".loop-version")
        assert len(shown) == len(rows) and all(section.find("pre") for section in shown)
        for section, row in zip(shown, rows):
            text = section.get_text().replace("’", "'")  # typographers' apostrophes in titles
            assert row["step"] in text and row["source"].splitlines()[0] in text
            assert row["said"] in text and (row["said"].startswith(row["verdict"] or "the first"))
        changed = [section for section, row in zip(shown, rows) if row["diffs"]]
        assert all(section.select("ins, del") for section in changed) and (changed or chapter.number > "04")
        assert soups["loops.html"].find("a", href=f"loops/{chapter.stem}.html")


def test_the_bench_page_has_its_chart_its_machine_and_all_tables(soups):
    stored = json.loads((ROOT / "bench" / "results.json").read_text(encoding="utf-8"))
    page = soups["bench.html"]
    assert page.find("img", alt=stored["chart"]["alt"]) and stored["machine"]["processor"] in page.get_text()
    shown = page.get_text(" ", strip=True)
    assert all(shown.count(row["title"]) >= 2 for row in stored["timings"]) and "Targets" in shown


def test_a_figure_without_a_description_ends_the_build():
    figure = {"output_type": "display_data", "data": {"image/png": "", "text/plain": "loops.png"}, "metadata": {}}
    cell = {"cell_type": "code", "source": "history.plot()", "outputs": [figure], "metadata": {}}
    with pytest.raises(ExtensionError, match="chapters/09: found a figure with the description ''"):
        rewrite({"cells": [cell]}, "chapters/09")


# In the browser


def shown_by(site, name):
    "List the files that decide how a page looks: its HTML, its images, all styles and scripts."
    page = site / f"{name}.html"
    images = re.findall(r'<img[^>]* src="([^":]+)"', page.read_text(encoding="utf-8"))
    return [page, *((page.parent / unquote(image)).resolve() for image in images), site / "_static"]


@pytest.mark.browser
@each_page
def test_a_page_is_sound_on_every_screen(name, site, request, proved):
    if proved(*shown_by(site, name)):
        return
    (page, problems), address = map(request.getfixturevalue, ("window", "address"))
    problems.clear()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1000})
        visit(page, f"{address}{name}.html")
        assert page.evaluate("document.querySelectorAll('.math:not(:has(math))').length") == 0
        assert page.evaluate(SHIFT) < 0.1, f"{width} px: what is read jumps while the page is loaded"
        for theme in THEMES:
            page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)  # as its script does
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{width} px, {theme}: {wide} px too wide"
            found = look(page, AXE[width, theme]) if (width, theme) in AXE else []
            assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == [], f"{width} px, {theme}"
        assert problems == []


@pytest.mark.browser
@pytest.mark.parametrize("theme", THEMES)
def test_a_page_takes_the_readers_theme(theme, browser, address):
    page, _ = open_page(browser, f"{address}index.html", 1300, theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.context.close()


def look(page, options):
    "Have axe look at a page, at one element of each kind; list what it finds."
    page.evaluate(THIN)
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations", "incomplete"]} | options).response
    open_points = [node for rule in found["incomplete"] for node in rule["nodes"]]
    unjudged = [node["html"] for node in open_points if "Gradient" in json.dumps(node)]
    assert unjudged == [], "axe judges no colour on a gradient"
    return found["violations"]


@pytest.mark.browser
@pytest.mark.parametrize("theme, block", [("light", "main td"), ("dark", "main details > summary")])
def test_a_bad_colour_in_one_kind_of_element_is_found(theme, block, browser, address, site, proved):
    "One kind among thousands of tokens, and of blocks, gets a colour that cannot be read: the thinned page shows both."
    name = "chapters/02_minibatch_training"
    if proved(theme, *shown_by(site, name)):
        return
    page, _ = open_page(browser, f"{address}{name}.html", 1300, theme)
    kinds = page.evaluate("() => [...new Set([...document.querySelectorAll('.highlight pre span[class]')]"
                          ".map(token => token.className))]")
    token = f'.highlight pre span[class="{kinds[len(kinds) // 2]}"]'
    page.add_style_tag(content=f"{token}, {block} {{ color: rgba(128, 128, 128, 0.15) !important }}")
    [found] = look(page, COLOURS)
    assert found["id"] == "color-contrast"
    blamed = [node["html"] for node in found["nodes"]]
    assert any(kinds[len(kinds) // 2] in html for html in blamed)
    assert any(re.match(rf"<{re.findall('[a-z]+', block)[-1]}[ >]", html) for html in blamed)
    before, after = page.evaluate(THIN)
    assert before < 3_000, "the page was not thinned"
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("word, page_found", [("handwritten", "01 · Data"), ("cross_entropy_loss", "exp.nb_02")])
def test_search_finds_prose_and_functions(word, page_found, browser, address):
    page, _ = open_page(browser, f"{address}search.html?q={word}")
    page.locator("#search-results li a").first.wait_for(timeout=20_000)
    assert page_found in page.locator("#search-results").inner_text()
    page.context.close()


@pytest.mark.browser
def test_the_loops_are_stepped_through_with_the_keyboard(browser, address):
    page, _ = open_page(browser, f"{address}loops/02_minibatch_training.html")
    seen = page.locator(".loop-version:visible h2")
    assert seen.all_inner_texts()[0].startswith("1. by name") and seen.count() == 1
    page.keyboard.press("ArrowRight")
    assert "(a) parameters()" in seen.inner_text()
    assert "identical: 782" in page.locator(".loop-version:visible").inner_text()
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="next").click()
    assert page.get_by_role("status").inner_text() == "version 2 of 10"
    page.context.close()


@pytest.mark.browser
def test_hints_unfold_one_by_one(chapter, site, request, proved):
    if proved(*shown_by(site, f"chapters/{chapter.stem}")):
        return
    browser, address = map(request.getfixturevalue, ("browser", "address"))
    page, _ = open_page(browser, f"{address}chapters/{chapter.stem}.html")
    page.locator("main details > summary").first.click()  # by hand; the others as a script clicks
    opened = page.locator("main details:has(> summary)").evaluate_all(UNFOLD)
    assert len(opened) >= 4 * len(chapter.exercises)
    assert opened == [list(range(number + 1)) for number in range(len(opened))]
    page.context.close()


@pytest.mark.browser
def test_without_javascript_everything_is_there(browser, address):
    page, _ = open_page(browser, f"{address}loops/02_minibatch_training.html", java_script_enabled=False)
    assert page.locator(".loop-version:visible").count() == 10
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["index", "live", "loops/02_minibatch_training", "chapters/01_data"])
def test_keyboard_focus_is_visible(name, browser, address):
    page, _ = open_page(browser, f"{address}{name}.html")
    for _ in range(25):
        page.keyboard.press("Tab")
        mark = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement); "
            "return [document.activeElement.tagName, s.outlineStyle, s.outlineWidth, s.boxShadow]; })()"
        )
        assert mark[0] == "BODY" or (mark[1] != "none" and mark[2] != "0px") or mark[3] != "none", mark
    page.context.close()
