"""Where am I: home, contents, the strip of the series, search, glossary, weight."""

import ast
import functools
import json
import re
import subprocess
import sys
import unicodedata

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

from docs._ext.cases import found
from docs._ext.exercises import takes
from docs._ext.formulas import mathml
from docs._ext.home import laid_over, shown
from docs._ext.loops import versions
from docs._ext.sharing import links
from tests import kept
from tests.conftest import CHAPTERS
from tools import bugs
from tools.chapters import ROOT, chapter

READ = [each for each in CHAPTERS if each.number != "00"]  # in the order of the series


@pytest.fixture(scope="module")
def text(site):
    "Return a function: name of a page → its HTML."
    return functools.cache(lambda name: (site / f"{name}.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(text):
    "Return a function: name of a page → its parsed HTML, each parsed once. (A chapter takes a second: use `part`.)"
    return functools.cache(lambda name: BeautifulSoup(text(name), "html.parser"))


@pytest.fixture(scope="module")
def part(text):
    "Return a function: name of a page, first and last words → what is between, parsed."

    def part(name, start, end):
        at = text(name).index(start)
        return BeautifulSoup(text(name)[at : text(name).index(end, at) + len(end)], "html.parser")

    return part


@pytest.fixture(scope="module")
def visit(browser, site):
    "Return a function that opens a page from its file, for one test after the other; what goes wrong is raised."
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    view, problems = context.new_page(), []
    view.on("pageerror", lambda error: problems.append(str(error)))

    def visit(address):
        view.goto(f"{site.as_uri()}/{address}")
        assert problems == [], address
        return view

    yield visit
    context.close()


# Weight


def loaded(site, name, html):
    "Return the bytes that a page loads at once: {kind: bytes}; fonts besides."
    place = (site / f"{name}.html").parent

    def size(pattern):
        files = {place / address.partition("?")[0] for address in re.findall(pattern, html)}
        texts = [path.resolve().read_bytes() for path in files]
        return sum(len(re.sub(rb"url\(data:font[^)]*\)", b"", text)) for text in texts)

    return {
        "html": len(html.encode()),
        "script": size(r'<script[^>]* src="([^"]+)"'),
        "style": size(r'<link[^>]*href="([^"]+\.css[^"]*)"'),
        "image": size(r'<img[^>]* src="([^"]+)"'),
    }


@pytest.mark.all_chapters
def test_what_a_page_loads_has_a_limit_scripts_counted(site, text):
    icons = (site / "_static" / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.woff2").stat().st_size
    home = loaded(site, "index", text("index"))
    assert min(home.values()) > 20_000 and sum(home.values()) + icons <= 900_000, home
    for name in ["index", "search", *(f"chapters/{each.stem}" for each in CHAPTERS)]:
        found = loaded(site, name, text(name))
        assert found["script"] <= (500_000 if name != "search" else 1_500_000), (name, found)
        assert "fontawesome.js" not in text(name)
        assert ("search-sections" in text(name)) == (name == "search")


@pytest.mark.all_chapters
def test_each_image_has_its_size_before_it_is_loaded(site, text):
    names = [path.relative_to(site).with_suffix("").as_posix() for path in site.glob("**/*.html")]
    images = [image for name in names for image in re.findall(r"<img[^>]*>", text(name))]
    assert len(images) > 50
    assert [image for image in images if not (' width="' in image and ' height="' in image)] == []


@pytest.mark.all_chapters
def test_formulas_are_no_tex(text):
    pattern = r'class="math"[^>]*>(.*?)</(?:span|div)>'
    found = [math for each in CHAPTERS for math in re.findall(pattern, text(f"chapters/{each.stem}"))]
    assert len(found) > 100
    assert [math for math in found if not math.startswith("<math") or re.search(r"\\\w|\$", math)] == []


# Places


def test_what_a_cell_defines_and_each_solution_can_be_linked_to(chapter, text):
    html = text(f"chapters/{chapter.stem}")
    ids = re.findall(r'<\w+[^>]* id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    exported = [cell for cell in chapter.code_cells if "#| export" in cell.source]
    nodes = [node for cell in exported for node in ast.parse(cell.source).body]
    names = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert {f"def-{name}" for name in names} <= set(ids) and names
    assert sum(each.endswith("-solution") for each in ids) == len(chapter.exercises)


@pytest.mark.all_chapters
def test_each_planted_bug_can_be_linked_to(text):
    places = re.findall(r'id="(bug-nb-[^"]+)"', text("bugs"))
    assert len(places) == len(set(places)) == sum(len(bugs.table(each)) for each in CHAPTERS)


def test_a_command_that_is_not_known_ends_the_build():
    assert "<mfrac>" in mathml(r"\frac{1}{2}") and ">log<" in mathml(r"\log p")
    with pytest.raises(Exception, match=r"\\foo is not known"):
        mathml(r"x + \foo")


# Heads, contents, order


@pytest.mark.all_chapters
def test_each_head_says_once_what_the_page_is(site, text, part):
    for path in [path for path in site.glob("**/*.html") if "_static" not in path.parts]:
        name = path.relative_to(site).with_suffix("").as_posix()
        head = part(name, "<head>", "</head>")
        assert len(head.select("meta[name=viewport]")) == 1, path
        [told] = head.select("meta[name=description]")
        assert 50 <= len(told["content"]) <= 160, (path, told)
        assert head.title.get_text().count("Training, refactored") == 1, path
        assert not head.select("link[rel=canonical], meta[property='og:image']"), path  # no address yet
        assert 'class="page-links"' not in text(name), path
    assert not (site / "sitemap.xml").exists()


def test_the_sidebar_is_in_groups_and_next_leads_to_the_next_chapter(page, text):
    captions = [each.get_text(strip=True) for each in page("index").select("nav.bd-links .caption")]
    assert captions == ["The series", "Look and try", "Reference", "Under the hood"]
    assert "N versions" not in page("loops").get_text()
    for one, two in zip(READ, [*READ[1:], chapter("00")]):
        following = re.findall(r'<a class="right-next"\s+href="([^"]+)"', text(f"chapters/{one.stem}"))
        assert following == [f"{two.stem}.html"]
    assert not page("bench").select("a.right-next[href*=reference]")


def test_the_strip_marks_the_chapter(chapter, part):
    strip = part(f"chapters/{chapter.stem}", '<nav class="series"', "</nav>")
    assert [link["data-chapter"] for link in strip.select("a")] == [each.stem for each in CHAPTERS]
    [here] = strip.select("[aria-current=page]")
    assert here["data-chapter"] == chapter.stem
    assert f"{chapter.minutes} minutes to read, {len(chapter.exercises)} exercises" in strip.get_text()


def test_the_loop_now_has_every_version_of_a_refactored_loop(chapter, text, part):
    name, rows = f"chapters/{chapter.stem}", versions(chapter)
    if "loop-now" not in text(name):
        assert chapter.number not in ("02", "03", "04")
        return
    states = part(name, '<details class="loop-now">', "</details>").select(".loop-state")
    for state, row in zip(states, rows, strict=True):
        assert state["data-words"] == row["step"] and state.pre.get_text().strip() == row["source"].strip()
    shown = set(re.findall(r"tag_version-(\d+)", text(name)))
    assert 2 * len(shown) > len(rows), "the verdicts on most versions stand in the chapter"


# Home


@pytest.mark.all_chapters
def test_home_counts_what_the_chapters_hold(page):
    numbers = [int(each.get_text()) for each in page("index").select(".numbers b")]
    assert numbers == [
        sum(len(versions(each)) for each in CHAPTERS),
        sum(len(bugs.table(each)) for each in CHAPTERS),
        sum(len(each.exercises) for each in CHAPTERS),
    ]
    cards = page("index").select(".chapter-cards > li")
    for each, card in zip(CHAPTERS, cards, strict=True):
        assert "`" not in card.get_text() and card.img and f"{each.minutes} minutes" in card.get_text()
        assert len(card.select(".will > li")) >= 1


def test_versions_laid_over_each_other_can_be_taken_apart():
    texts = [shown(row["source"]) for row in versions(chapter("02"))]
    rows = laid_over(texts)
    for number, text in enumerate(texts):
        assert [(d[number], line) for line, d in rows if d[number] is not None] == text
    assert len(rows) < sum(map(len, texts)) / 2, "what stays is one row"


def test_home_shows_first_and_last_version_without_javascript(browser, site):
    context = browser.new_context(java_script_enabled=False)
    view = context.new_page()
    view.goto(f"{site.as_uri()}/index.html")
    assert view.locator(".loop-ends pre:visible").count() == 2 and not view.locator(".the-loop").is_visible()
    assert "loop_by_name" in view.locator(".loop-ends pre").first.inner_text()
    context.close()


@pytest.mark.browser
def test_the_slider_changes_the_lines_and_not_the_curve(visit):
    view = visit("index.html")
    rows = versions(chapter("02"))
    state = """() => ({
        text: [...document.querySelectorAll(".code-row:not([data-gone])")].map(row => row.textContent.trim()),
        told: document.querySelector(".loop-step").textContent,
        curve: document.querySelector(".curve .this.now").getAttribute("points"),
        shown: document.querySelectorAll(".curve .this.now").length,
    })"""
    view.locator(".the-loop input").focus()
    first = view.evaluate(state)
    for number, row in enumerate(rows, 1):
        now = view.evaluate(state)
        assert now["text"] == [line for _, line in shown(row["source"])]
        assert f"{row['lines']} lines" in now["told"]
        assert f"version {number} of {len(rows)}: {row['step']}" in now["told"]
        assert now["shown"] == 1 and now["curve"] == first["curve"]  # to a hundredth of a pixel
        if row["verdict"] == "identical":
            assert "identical · 782 of 782" in now["told"]
        view.keyboard.press("ArrowRight")


# In a chapter


@pytest.mark.browser
def test_contents_ticks_and_loop_follow_the_reader(visit):
    view = visit("chapters/04_learner.html")
    told = """share => new Promise(done => {
        scrollTo({ top: share * document.documentElement.scrollHeight, behavior: "instant" });
        requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(() => {
            const marked = [...document.querySelectorAll(".bd-toc a[aria-current]")];
            const at = marked[0]?.getBoundingClientRect();
            const headings = [...document.querySelectorAll("article section > :is(h2, h3)")];
            const last = headings.findLast(heading => heading.getBoundingClientRect().top <= innerHeight * 0.3);
            done({ marked: marked.map(link => link.hash.slice(1)), last: last?.parentElement.id,
                   seen: Boolean(at && at.top >= 0 && at.bottom <= innerHeight),
                   loop: document.querySelector(".loop-now summary").textContent,
                   left: parseInt(document.querySelector(".minutes-left").textContent) });
        })));
    })"""
    seen = [view.evaluate(told, share) for share in (0.25, 0.5, 0.75, 0.95)]
    for each in seen:
        assert each["marked"] == [each["last"]] and each["seen"], each
    left = [each["left"] for each in seen]
    assert left == sorted(left, reverse=True) and 140 > left[0] > left[-1]
    assert len({each["loop"] for each in seen}) >= 2 and "PyTorch's pieces" in seen[-1]["loop"]
    view.evaluate(told, 1)
    assert view.locator(".series input.read").is_checked(), "the end of the chapter was reached"
    view.locator("input.solved").first.check()
    assert "read" in visit("chapters/01_data.html").locator("a[data-chapter='04_learner']").get_attribute("aria-label")
    assert not view.locator(".series input.read").is_checked()
    assert view.locator("a.done").count() == 1
    solved = visit("exercises.html").locator("input.solved:checked")
    assert solved.count() == 1 and solved.get_attribute("value") == "04/1"
    go_on = visit("index.html").locator("a.continue")
    assert "04 · Validation" in go_on.inner_text() and "chapters/04_learner.html#" in go_on.get_attribute("href")


@pytest.mark.browser
def test_without_storage_a_chapter_works(browser, site):
    context = browser.new_context()
    context.add_init_script("for (const name of ['getItem', 'setItem']) Storage.prototype[name] = function (key) {"
                            "if (key === 'training-refactored') throw new Error('no storage'); return null; };")
    view, problems = context.new_page(), []
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.goto(f"{site.as_uri()}/chapters/01_data.html")
    view.locator(".series input.read").check()
    assert view.locator("a.done").count() == 1 and problems == []
    context.close()


@pytest.mark.browser
def test_the_address_follows_the_version_of_the_loop(visit):
    view = visit("loops/02_minibatch_training.html")
    for _ in range(3):
        view.keyboard.press("ArrowRight")
    assert view.evaluate("location.hash") == "#version-4"  # Playwright hears of it later
    view.reload()
    assert view.get_by_role("status").inner_text() == "version 4 of 10"
    assert view.locator(".loop-version:visible").count() == 1
    assert view.locator(".bd-toc a[aria-current]").all_inner_texts() == ["4. (b) SGD, rounded once"]
    view.goto(view.evaluate("location.href").replace("#version-4", "#version-7"))
    assert view.get_by_role("status").inner_text() == "version 7 of 10"


# Finding


@pytest.mark.browser
def test_what_search_shows_has_no_tags(site):
    text = (site / "search-sections.js").read_text(encoding="utf-8")
    rows = json.loads(text[text.index("[") : text.rindex("]") + 1])
    said = [row[-1] for row in rows if not row[0].startswith("chapters/")]  # chapters show code
    assert len(said) > 100
    assert [words for words in said if re.search(r"</?(button|span|p|input|label|div)\b", words)] == []


def test_search_leads_to_sections_with_summaries_from_a_file(visit):
    view = visit("search.html?q=smoothing")
    results = view.locator("#search-results li")
    first = results.first
    assert "Label smoothing" in first.inner_text() and first.locator("mark").count() >= 1
    assert first.locator("a").get_attribute("href") == "chapters/02_minibatch_training.html#label-smoothing"
    everything = view.locator("#search-results").inner_text()
    assert "Contents" not in everything and "Previous" not in everything
    field = view.locator(".bd-search-container input")
    field.fill("leraner")
    assert "learner" in view.locator("#search-status").inner_text().lower() and results.count() > 3
    field.fill("zzzzzzzzzzzz")
    assert "No sections" in view.locator("#search-status").inner_text() and results.count() == 0


@pytest.mark.all_chapters
def test_the_glossary_leads_to_each_definition(page, text):
    terms = page("glossary").select(".glossary-of-chapters dt")
    names = [term.get_text().rstrip("#") for term in terms]
    assert {"epoch", "mini-batch", "learning rate", "callback", "standard error", "overfitting"} <= set(names)
    assert not {"you will", "whole set", "born tiny", "problem"} & set(names)
    for term, said in zip(names, page("glossary").select(".glossary-of-chapters dd"), strict=True):
        target, _, anchor = said.select("a")[-1]["href"].partition("#")
        defined = re.search(rf'<strong id="{anchor}">(.*?)</strong>', text(target.removesuffix(".html")))
        assert defined[1].lower() == term.lower()
        assert term.lower() in said.get_text().lower()
    for each in CHAPTERS:
        first = re.findall(r'<a class="[^"]*term-link[^"]*" href="([^"]+)"', text(f"chapters/{each.stem}"))
        assert len(first) == len(set(first)), "linked at its first use only"
    assert "02_minibatch_training.html#term-epoch" in text("chapters/04_learner")


def test_the_gallery_is_filtered_by_what_one_sees(visit):
    page = visit("gallery.html")
    shown = "() => [...document.querySelectorAll('.gallery-card')].filter(card => card.checkVisibility()).length"
    status = "() => document.querySelector('.gallery-form [role=status]').textContent"
    assert page.evaluate(shown) == 103 and page.evaluate(status) == "103 of 103 set-ups"
    page.select_option("select[name=curve]", "is flat")
    flat = page.evaluate(shown)
    assert 10 < flat < 30 and page.evaluate(status) == f"{flat} of 103 set-ups"
    page.select_option("select[name=valid]", "as in a healthy run")
    assert page.evaluate(shown) == 0
    page.select_option("select[name=curve]", "")
    assert page.evaluate(shown) > 30


def test_the_cases_of_find_the_bug_unfold_their_answers(page):
    "Without JavaScript: the folds are the browser's own. Candidates stand in another order than their letters."
    cards, cases = page("gallery").select(".case-card"), found()
    assert len(cards) == len(cases) == 8 and [most for *_, most in cases] == [1, 0, 0, 200, 3, 200, 10, 20]
    for card, (exercise, names, _) in zip(cards, cases):
        answer = card.find("details").extract()
        assert card.h3.get_text() == exercise.title and len(card.select("polyline")) == len(names)
        assert [li.code.get_text() for li in card.select("li")] == sorted(names)
        assert len(card.select("tbody tr")) == len(names) and "def " not in card.get_text()
        told = [li.get_text() for li in answer.select("ul")[0].find_all("li", recursive=False)]
        said = {line[0]: line.split()[2].rstrip(".") for line in (text.split(".")[0] for text in told)}
        assert list(said) == list("ABCD")[: len(names)] and sorted(said.values()) == sorted(names)
        assert list(said.values()) != sorted(names)
        assert answer.pre.get_text().strip() == exercise.solution.strip()


@pytest.mark.all_chapters
def test_the_index_has_every_exercise_with_difficulty_and_minutes(page, text):
    for each in CHAPTERS:
        for exercise in each.exercises:
            level, minutes = takes(each, exercise.title)
            assert re.fullmatch("●{1,3}○{0,2}", level) and 0 < minutes <= 60
    items = page("exercises").select(".exercise-list > li")
    assert len(items) == sum(len(each.exercises) for each in CHAPTERS)
    for item in items:
        target, _, anchor = item.a["href"].partition("#")
        assert f'id="{anchor}"' in text(target.removesuffix(".html")) and item.find("input", value=True)


# The book


@pytest.mark.browser
def test_the_book_has_contents_that_are_right_and_its_solutions_at_the_end(site, tmp_path):
    "The book of one chapter: what is said of its pages holds on them. It starts a browser of its own."
    if kept.browser_path() is None:
        pytest.skip("no Chromium on this machine")
    first = chapter("01")
    made = "import sys; from pathlib import Path; from docs.book import make; site, out, name = sys.argv[1:]"
    made += "; print(make(Path(site), Path(out), [('The series', [name])]))"
    command = [sys.executable, "-c", made, str(site), str(tmp_path / "book.pdf"), f"chapters/{first.stem}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr  # it ends with an error where something is cut off
    reader = PdfReader(tmp_path / "book.pdf")
    pages = [plain(each.extract_text()) for each in reader.pages]
    assert int(done.stdout) == len(pages) and plain(first.title) in pages[1]
    listed = dict(re.findall(r"^(.+?) (\d+)$", reader.pages[1].extract_text(), re.MULTILINE))
    for title in ("Look at it", "Why a validation set exists", "Where you are"):
        assert plain(title) in pages[int(listed[title]) - 1], title
    [at] = [number for number, text in enumerate(pages) if text.strip("0123456789") == "Solutions"]
    for exercise in first.exercises:
        line = plain(exercise.solution.splitlines()[0])
        assert line in "".join(pages[at:]) and plain(exercise.title) in "".join(pages[at:])


def plain(text):
    "Return a text without spaces and ligatures."
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text))


# With an address


def test_what_needs_an_address_is_there_when_settings_name_one(tmp_path):
    "A site of two pages, with our head and sharing, an address and a repository."
    source, out = tmp_path / "docs", tmp_path / "html"
    source.mkdir()
    (source / "index.md").write_text("# Home\n\nA page.\n\n```{toctree}\nother\n```\n", encoding="utf-8")
    (source / "other.md").write_text("# Other\n\nAnother page.\n", encoding="utf-8")
    (source / "_static").mkdir()
    (source / "_static" / "loops.png").write_bytes((ROOT / "docs" / "_static" / "loops.png").read_bytes())
    sharing = {"description": "Words of fifty characters or more that say what the site is",
               "address": "https://example.org/site/", "repository": "https://github.com/some/body"}  # fmt: skip
    conf = f"""project = "Some"
extensions = ["myst_parser", "docs._ext.head", "docs._ext.sharing"]
html_theme, html_static_path = "sphinx_book_theme", ["_static"]
templates_path = [{str(ROOT / "docs" / "_templates")!r}]
html_theme_options = {{"article_footer_items": ["page-links.html"]}}
html_baseurl, sharing = {sharing["address"]!r}, {sharing!r}
"""
    (source / "conf.py").write_text(conf, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(source), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    soup = BeautifulSoup((out / "other.html").read_text(encoding="utf-8"), "html.parser")
    assert soup.find("link", rel="canonical")["href"] == "https://example.org/site/other.html"
    assert soup.find("meta", property="og:url")["content"] == "https://example.org/site/other.html"
    assert soup.find("meta", property="og:image")["content"] == "https://example.org/site/_static/card.png"
    assert (out / "_static" / "card.png").read_bytes()[16:24] == bytes.fromhex("000004b000000276")  # 1200 by 630
    assert "<loc>https://example.org/site/other.html</loc>" in (out / "sitemap.xml").read_text(encoding="utf-8")
    assert "sitemap.xml" in (out / "robots.txt").read_text(encoding="utf-8")
    [edit, wrong] = soup.select(".page-links a")
    assert edit["href"] == "https://github.com/some/body/edit/main/docs/other.md"
    assert wrong["href"].startswith("https://github.com/some/body/issues/new?title=Other")


def test_links_to_the_source_name_the_notebook_of_a_chapter():
    found = dict(links("chapters/02_minibatch_training", "02", "https://github.com/some/body"))
    assert found["Edit this page"].endswith("/edit/main/nbs/02_minibatch_training.ipynb")
    colab = "https://colab.research.google.com/github/some/body/blob/main/nbs/02_minibatch_training.ipynb"
    assert found["Run it in Colab"] == colab
    assert links("chapters/02_minibatch_training", "02", "") == [] == links("genindex", "Index", "https://x.org/y")
