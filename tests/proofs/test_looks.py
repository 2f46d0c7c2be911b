"""How the site looks: code fits, what differs looks different, both themes can be read, and paper loses nothing."""

import io
import re

import pytest
from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb
from PIL import Image

from exp.nb_00 import COLORS, GREY, Diff, History, same
from tests.conftest import CHAPTERS
from tools.chapters import ROOT

pytestmark = pytest.mark.browser
FONTS = ROOT / "docs" / "_static" / "fonts"
OLD = ["def f(x):", *(f"    line_{i} = x" for i in range(20)), "    return 'a'  # why"]
NEW = [*OLD[:3], "    with no_grad():", "        loss = 2.5", *OLD[5:-1], "        return 'a'  # why"]
# What a chapter shows of a verdict and a diff, as nb_00 writes it now, whatever its stored outputs are.
SHOWN = '<div class="cell docutils container"><div class="cell_output docutils container">{}</div></div>'
OUTPUT = '<div class="output text_html">{}</div>'

# Of the boxes that match and are shown: how many there are, and those of which a part is cut off.
CUT = """selector => {
    const shown = [...document.querySelectorAll(selector)].filter(box => box.checkVisibility() && box.clientWidth);
    const cut = shown.filter(box => box.scrollWidth > box.clientWidth + 1);
    const lines = shown.flatMap(box => box.textContent.trimEnd().split("\\n")).length;
    return {blocks: shown.length, cut: cut.map(box => box.textContent.slice(0, 200))};
}"""
# The long lines of code that take more than one row.
WRAPPED = """() => [...document.querySelectorAll(".cell_input pre > span[style]")]
    .filter(line => line.checkVisibility() && line.offsetHeight > 1.5 * parseFloat(getComputedStyle(line).lineHeight))
    .map(line => line.textContent)"""
# What somebody gets who selects the first match and copies it.
COPY = """selector => {
    getSelection().selectAllChildren(document.querySelector(selector));
    return getSelection().toString();
}"""
PUT = "html => document.querySelector('section > section').insertAdjacentHTML('afterbegin', html)"
UNFOLD = "document.querySelectorAll('div.cell details').forEach(fold => { fold.open = true; })"
# The figures that are drawn smaller than they were made, so that their words are smaller than 11 pixels.
SHRUNK = """() => [...document.querySelectorAll(".cell_output img")]
    .filter(image => 2 * image.clientWidth < image.naturalWidth - 2).map(image => image.alt)"""
INKS = """() => [...new Set([...document.querySelectorAll("main :is(h1, h2, h3, p, li, td, pre, pre span)")]
    .map(element => getComputedStyle(element).color))]"""
BEYOND = """() => [...document.querySelectorAll("main :is(pre, img, table, p)")]
    .filter(box => box.getBoundingClientRect().right > innerWidth + 1).map(box => box.outerHTML.slice(0, 200))"""
FURNITURE = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-area, .copybtn, .stepper"
ASKED_FOR_FONTS = """() => performance.getEntriesByType("resource").map(each => each.name)
    .filter(name => name.includes("_static/fonts/"))"""
STYLE = "([selector, name]) => getComputedStyle(document.querySelector(selector))[name]"


@pytest.fixture
def open_page(browser, site):
    "Return `open_page(name, width, theme)`, which opens a page of the site as a file."
    contexts = []

    def open_page(name, width=1300, theme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=theme, **options)
        contexts.append(context)
        page = context.new_page()
        page.goto((site / f"{name}.html").as_uri())
        page.evaluate("document.fonts.ready")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def dressed(open_page):
    "Return `dressed(theme)`: a page that shows both verdicts and a diff, as the notebooks write them now."

    def dressed(theme):
        new, old = History("new"), History("old")
        for history in (new, old):
            for step in range(30):
                history.add(1 / (step + 1), 0.5, 64)
        verdicts = [same(new, old)._repr_html_()]
        new.losses[5] += 1e-7
        pieces = [*verdicts, same(new, old)._repr_html_(), Diff(OLD, NEW, "f → f")._repr_html_()]
        page = open_page("chapters/01_data", theme=theme)
        shown = SHOWN.format("".join(map(OUTPUT.format, pieces)))
        page.evaluate(PUT, shown)
        return page

    return dressed


@pytest.fixture(scope="module")
def chapters(site):
    "List (chapter, its page)."
    pages = [(site / "chapters" / f"{chapter.stem}.html").read_text(encoding="utf-8") for chapter in CHAPTERS]
    return [(chapter, BeautifulSoup(page, "html.parser")) for chapter, page in zip(CHAPTERS, pages)]


def contrast(one, other):
    "Return the contrast of two colours, (r, g, b) from 0 to 255, as WCAG defines it."
    linear = [[c / 3294.6 if c <= 10.3 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb] for rgb in (one, other)]
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light + 0.05) / (dark + 0.05)


def rgb(text):
    "Read a computed colour that is opaque."
    numbers = [float(number) for number in re.findall(r"[\d.]+", text)]
    assert len(numbers) == 3 or numbers[3] == 1, text
    return numbers[:3]


# Code fits


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_code_fits(chapter, open_page):
    page = open_page(f"chapters/{chapter.stem}")
    page.evaluate(UNFOLD)
    for width in (1300, 1440):
        page.set_viewport_size({"width": width, "height": 1000})
        found = page.evaluate(CUT, "main pre")
        assert found["cut"] == [] and found["blocks"] > 100
        assert page.evaluate(WRAPPED) == [], f"{width} px"
    page.set_viewport_size({"width": 390, "height": 1000})
    code = page.evaluate(CUT, "main .cell_input pre, main .highlight-python pre")
    assert code["cut"] == [] and page.evaluate(WRAPPED) != []
    for width in (390, 1300):
        page.set_viewport_size({"width": width, "height": 1000})
        assert page.evaluate(SHRUNK) == [], f"{width} px"


def test_prose_has_65_to_75_characters_a_line_and_code_has_more_room(open_page):
    page = open_page("chapters/02_minibatch_training")
    characters = page.evaluate("""() => [...document.querySelectorAll("section > p:not(:has(.math))")].map(p => {
        const rows = p.clientHeight / parseFloat(getComputedStyle(p).lineHeight);
        return rows > 3 ? p.textContent.length / (rows - 0.5) : null;  // the last row is shorter
    }).filter(Boolean)""")
    assert len(characters) > 10 and 60 < sum(characters) / len(characters) < 75
    prose, code = (page.evaluate(STYLE, [name, "width"]) for name in ("section > p", ".cell_input"))
    assert float(code[:-2]) > 1.3 * float(prose[:-2])
    weights = [page.evaluate(STYLE, [f".bd-article {name}", "fontWeight"]) for name in ("h1", "h2", "h3")]
    assert weights == ["600"] * 3
    row, size = (page.evaluate(STYLE, [".cell_input pre", name]) for name in ("lineHeight", "fontSize"))
    assert float(row[:-2]) == pytest.approx(1.45 * float(size[:-2]), rel=0.01)


def test_copied_code_is_the_code(open_page):
    page = open_page("chapters/02_minibatch_training", 390, has_touch=True)
    long = ".cell_input:has(span[style]) pre"
    copied, source = page.evaluate(COPY, long), page.locator(long).first.text_content()
    assert copied.strip() == source.strip() and "\n" in copied
    buttons = page.locator("button.copybtn").evaluate_all(
        "buttons => buttons.map(b => [getComputedStyle(b).opacity, Boolean(b.closest('.cell_output')), b.offsetWidth])"
    )
    assert len(buttons) > 100 and {(seen, output) for seen, output, _ in buttons} == {("1", False)}
    assert min(width for _, _, width in buttons) >= 24


def test_every_exported_cell_links_to_its_reference(chapters):
    for chapter, page in chapters:
        links = [mark.a["href"] for mark in page.select(".export-mark")]
        assert links and all(link.startswith(f"../reference/{chapter.module}.html") for link in links)
        assert any("#exp." in link for link in links)


# What differs looks different


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_code_outputs_verdicts_and_diffs_are_four_things(theme, dressed):
    page = dressed(theme)
    output = ".cell_output .highlight pre"
    assert page.evaluate(STYLE, [output, "backgroundColor"]) == "rgba(0, 0, 0, 0)"
    names = ["body", ".cell_input", "del", "ins", ".moved", ".verdict b"]
    ground = {name: rgb(page.evaluate(STYLE, [name, "backgroundColor"])) for name in names}
    assert len({tuple(colour) for colour in ground.values()}) == len(names)
    for name, on in [*zip(names, names), ("del b", "del"), ("ins b", "ins"), (output, "body")]:
        assert contrast(rgb(page.evaluate(STYLE, [name, "color"])), ground[on]) >= 4.5, name
    tokens = page.locator(".diff > :is(del, ins, .moved) span").evaluate_all(
        "spans => spans.map(s => [getComputedStyle(s).color, getComputedStyle(s.parentElement).backgroundColor])"
    )
    assert len({colour for colour, _ in tokens}) >= 3
    assert all(contrast(rgb(colour), rgb(on)) >= 4.5 for colour, on in tokens)
    badges = page.locator(".verdict b").evaluate_all(
        "all => all.map(badge => [badge.textContent, getComputedStyle(badge).backgroundColor])"
    )
    assert [words for words, _ in badges] == ["✓ identical", "≈ close"] and badges[0][1] != badges[1][1]
    rows = page.locator(".diff:visible > *")
    assert set(rows.evaluate_all("rows => rows.map(row => row.offsetWidth - row.parentElement.offsetWidth)")) == {0}
    assert page.locator("details.folded:not([open])").count() == 1
    copied = page.evaluate(COPY, "pre.diff").splitlines()
    assert copied == [*OLD[:5], *NEW[3:5], *OLD[5:8]]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("sight", ["deuteranopia", "protanopia", "tritanopia"])
def test_went_and_came_can_be_told_apart_by_everybody(theme, sight, dressed):
    page = dressed(theme)
    page.context.new_cdp_session(page).send("Emulation.setEmulatedVisionDeficiency", {"type": sight})
    went, came = (seen(page, name) for name in ("del", "ins"))
    assert apart(went, came) >= 40, (went, came)
    if sight == "deuteranopia" and theme == "light":  # what it was before: red and green
        for name, colour in (("del", "rgba(229, 83, 75, 0.22)"), ("ins", "rgba(46, 160, 67, 0.22)")):
            page.add_style_tag(content=f".bd-article .diff {name} {{ background: {colour} !important }}")
        assert apart(seen(page, "del"), seen(page, "ins")) < 40


def seen(page, selector):
    "Return the colour of the right end of the first match, as it is drawn."
    image = Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB")
    return image.getpixel((image.width - 3, image.height // 2))


def apart(one, other):
    "Return how far two drawn colours are apart in their most different channel, 0 to 255."
    return max(abs(a - b) for a, b in zip(one, other))


def test_words_in_figures_can_be_read_in_the_dark(open_page):
    page = open_page("chapters/02_minibatch_training", theme="dark")
    lighter = float(re.fullmatch(r"brightness\(([\d.]+)\)", page.evaluate(STYLE, [".cell_output img", "filter"]))[1])
    ground = rgb(page.evaluate(STYLE, ["body", "backgroundColor"]))
    for colour in [*COLORS, GREY]:
        assert contrast([min(255, 255 * lighter * part) for part in to_rgb(colour)], ground) >= 4.5, colour
    page = open_page("index")
    assert page.evaluate(STYLE, ["figcaption", "fontWeight"]) == "400"


def test_a_refactor_is_one_block_with_what_changed_and_whether_it_is_the_same(chapters, open_page):
    count = 0
    for _, page in chapters:
        titles = [title for title in page.select("h2, h3") if title.get_text().startswith("Refactor (")]
        blocks = page.select("section > div.refactor")
        assert len(blocks) == len(titles)
        assert all(block.find_previous_sibling().name in ("h2", "h3") for block in blocks)
        count += len(blocks)
    assert count >= 15
    label = "name => getComputedStyle(document.querySelector(`.refactor > .cell:has(${name})`), '::before').content"
    page = open_page("chapters/02_minibatch_training")
    said = [page.evaluate(label, name) for name in (".export-mark", ".diff", ".verdict")]
    assert said == ['"The new piece"', '"What changed"', '"Is it the same?"']


def test_exercises_are_framed_and_traps_have_a_sign(chapters):
    traps = 0
    for chapter, page in chapters:
        framed = page.select("section.exercise")
        assert len(framed) == len(chapter.exercises)
        for exercise in framed:
            assert re.fullmatch(r"difficulty [123] of 3", exercise.select_one(".effort .dots")["aria-label"])
            assert re.fullmatch(r"[●○]{3} \d+ minutes", exercise.select_one(".effort").get_text())
            assert exercise.find_all(recursive=False)[-1].name == "details" and len(exercise.select("summary")) >= 3
        trapped = [section.find(re.compile("h[23]")).get_text() for section in page.select("section.trap")]
        assert all("trap" in title.lower() for title in trapped)
        traps += len(trapped)
    assert traps >= 10


# Type


def test_the_fonts_are_ours_and_light(open_page):
    files = list(FONTS.glob("*.woff2"))
    assert sum(path.stat().st_size for path in files) <= 100_000
    families = {path.stem.rstrip("-0123456789italc") for path in files}
    assert len(list(FONTS.glob("LICENSE-*.txt"))) == len(families) == 6, families
    page = open_page("chapters/02_minibatch_training")
    assert page.evaluate(ASKED_FOR_FONTS) == []  # the styles hold them: nothing moves when one arrives
    loaded = page.evaluate("""async () => {
        const asked = ["16px Prose", "italic 16px Prose", "600 16px Prose", "16px Menu", "600 16px Menu", "16px Code"];
        const found = await Promise.all(asked.map(font => document.fonts.load(font)));
        const signs = await Promise.all([..."→≈─●○✓β⏱"].map(sign => document.fonts.load("16px Signs", sign)));
        return [...found, ...signs].map(faces => faces.filter(face => face.status === "loaded").length);
    }""")  # fmt: skip
    assert loaded == [1] * 14
    used = [page.evaluate(STYLE, [f".bd-article {name}", "fontFamily"]) for name in ("p", "h2", "pre", "summary")]
    assert [families.split(",")[0] for families in used] == ["Prose", "Prose", "Code", "Menu"]
    arrow, letter = page.evaluate("""() => {
        const pre = document.querySelector(".cell_input pre");
        return ["──→≈", "none"].map(text => {
            const span = pre.appendChild(Object.assign(document.createElement("span"), {textContent: text}));
            return span.getBoundingClientRect().width;
        });
    }""")
    assert arrow == pytest.approx(letter, rel=0.01)  # signs keep columns in line


# Paper


PAPER = {"width": 680, "height": 960}  # A4 without its margins, in CSS pixels


@pytest.mark.parametrize("name", ["chapters/02_minibatch_training", "loops/02_minibatch_training", "index"])
def test_paper_loses_nothing_whatever_the_theme(name, open_page):
    page = open_page(name, theme="dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    closed = page.locator("details:not([open])").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.set_viewport_size(PAPER)
    assert page.locator("details:not([open])").count() == 0
    ground = rgb(page.evaluate(STYLE, ["body", "backgroundColor"]))
    assert ground == [255, 255, 255]
    inks = page.evaluate(INKS)
    assert inks and all(contrast(rgb(ink), ground) >= 4.5 for ink in inks)
    assert contrast(rgb(page.evaluate(STYLE, ["h1", "color"])), ground) > 7
    clipped = page.evaluate(CUT, "main :is(pre, table, figure, .cell_output)")
    assert clipped["cut"] == []
    assert page.evaluate(BEYOND) == []
    furniture = page.locator(FURNITURE)
    assert furniture.count() and not any(furniture.evaluate_all("all => all.map(box => box.checkVisibility())"))
    versions = page.locator(".loop-version").evaluate_all("all => all.map(version => version.checkVisibility())")
    assert all(versions) and (len(versions) == 10) == name.startswith("loops/")
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == closed
