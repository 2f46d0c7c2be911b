"""The page that writes: its characters are PyTorch's, it says so only if they are, and everybody can use it."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from docs._ext import writing
from exp.nb_15 import extend, get_writer, softmax, torch
from tests.proofs.test_pages import AXE, COLOURS, THEMES, WIDTHS, open_page, until
from tools.chapters import ROOT

STATIC = ROOT / "docs" / "_static" / "writing"
# Bugs to plant in write.js: what is wrong, the code, the code instead.
BUGS = [
    ("the sign of a weight is lost", "word >> 15 ? -size : size", "size"),
    ("the bias is forgotten", "let sum = bias ? bias[i] : 0;", "let sum = 0;"),
    ("the norm forgets its mean", "(value - mean) / Math.sqrt", "value / Math.sqrt"),
    ("every place is the first", "const angle = place *", "const angle = 0 *"),
    ("queries are not turned", "const query = rotate(cut(0, head), place);", "const query = cut(0, head);"),
    ("scores are not divided", " / Math.sqrt(size)));", "));"),
    ("no activation", ".map((value) => Math.max(value, 0))", ""),
    ("no shortcut", 'x = plus(x, linear(mixed, at("attention.out.weight"), at("attention.out.bias")));',
     'x = linear(mixed, at("attention.out.weight"), at("attention.out.bias"));'),
    ("the window never moves", "Math.max(0, Math.ceil((length - T) / (T >> 1)) * (T >> 1))", "0"),
    ("the cache is not begun anew", "[from, model.newCache(), from]",
     "[from, cache ?? model.newCache(), seen ?? from]"),
]  # fmt: skip
BY_CHANCE = [
    ("top-k keeps one more", "[topK - 1]", "[topK]"),
    ("the temperature multiplies", "value / temperature", "value * temperature"),
    ("the seed is forgotten", "new Generator(seed)", "new Generator(7)"),
    ("the sum starts too late", "below = shares[0];", "below = 0;"),
]
# Write 200 characters with write.js, changed or not; return how many are PyTorch's.
TRY = """([source, index]) => {
    const { Writer, write } = new Function(source + "; return { Writer, write };")();
    const { prompt, text, temperature, top_k, seed } = trainedWriter.proof.texts[index];
    const steps = write(new Writer(trainedWriter), prompt, { temperature, topK: top_k ?? Infinity, seed });
    return [...text].filter((char) => steps.next().value.char === char).length;
}"""


@pytest.fixture
def visit(browser, site):
    "Return `visit(**options)`: open the page from its file; when the test ends, nothing may have gone wrong."
    opened = []

    def visit(alive=True, **options):
        page, problems = open_page(browser, (site / "writing.html").as_uri(), **options)
        opened.append((page, problems if alive else []))  # without scripts, their requests fail
        return page

    yield visit
    for page, problems in opened:
        page.context.close()
        assert problems == []


def words(page, name):
    "Return the text of a part of the page."
    return page.locator(f"#writing-{name}").inner_text()


def test_the_weights_are_light(site):
    folder = site / "_static" / "writing"
    assert (folder / "model.js").stat().st_size <= 500_000
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 520_000
    assert "static/writing" not in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.browser
def test_the_page_writes_what_pytorch_writes_and_no_planted_bug_does(visit):
    page, source, told = visit(), (STATIC / "write.js").read_text(encoding="utf-8"), {}
    texts = writing.proofs()
    assert texts[0]["temperature"] == 0 and all(len(each["text"]) == 200 for each in texts)
    assert [page.evaluate(TRY, [source, index]) for index in range(len(texts))] == [200] * len(texts)
    for bugs, indices in ((BUGS, (0, 1)), (BY_CHANCE, (1, 2))):
        for what, code, instead in bugs:
            assert source.count(code) == 1, f"{what}: found {source.count(code)} times"
            told[what] = min(page.evaluate(TRY, [source.replace(code, instead), index]) for index in indices)
    assert {what: equal for what, equal in told.items() if equal == 200} == {} and len(told) == 14


@pytest.mark.browser
def test_write_look_and_compare(visit):
    page = visit()
    sample = writing.proofs()[0]["text"]
    assert page.locator("#writing-text").text_content() == writing.PROMPT + sample
    assert words(page, "verdict") == "Identical to PyTorch: 200 of 200 characters are equal."
    model, letters = get_writer()
    ids, cache = letters.encode(writing.PROMPT), [[] for _ in model.blocks]
    for i in ids:
        logits = extend(model, int(i), cache)
    page.locator("#writing-at").fill(str(len(ids)))
    until(page, f"writing.shares.length === {len(ids)}")
    assert abs(sum(page.evaluate("writing.shares")) - 1) < 1e-9
    chance = softmax(logits).max().item()
    first = {" ": "␣", "\n": "↵"}.get(sample[0], sample[0])
    assert f"“{first}”" in words(page, "said")
    assert f"a chance of {100 * chance:.1f} %" in words(page, "said")
    means = page.evaluate("writing.shares")
    page.locator("#writing-head").select_option("5")
    assert page.evaluate("writing.shares") != means
    page.locator("#writing-text span").nth(150).click()
    assert page.locator("#writing-at").input_value() == "150" and "character 151" in words(page, "said")
    assert page.locator("#writing-text .chosen").count() == 1

    page.locator("#writing-more").click()
    assert page.evaluate("writing.written.length") == 400 and "200 of 200" in words(page, "verdict")
    page.locator("#writing-temperature").select_option("0.8")
    page.get_by_role("button", name="Write 200 characters").click()
    assert "Identical to PyTorch: 200 of 200" in words(page, "verdict")
    page.locator("#writing-seed").fill("12")
    page.locator("#writing-prompt").fill("def ")
    page.locator("#writing-prompt").press("Enter")
    assert "No text of PyTorch is stored" in words(page, "verdict")
    once = page.evaluate("writing.written")
    page.get_by_role("button", name="Write 200 characters").click()
    assert page.evaluate("writing.written") == once and len(once) == 200
    page.locator("#writing-prompt").fill("漢")
    page.locator("#writing-prompt").press("Enter")
    assert "This beginning cannot be read" in words(page, "said") and words(page, "verdict") == ""
    assert page.locator("#writing-more").is_disabled()
    page.evaluate("writing.proof.texts[0].text = 'x' + writing.proof.texts[0].text.slice(1)")
    page.locator("#writing-prompt").fill(writing.PROMPT)
    page.locator("#writing-temperature").select_option("0")
    page.get_by_role("button", name="Write 200 characters").click()
    assert words(page, "verdict") == "Different from PyTorch: 199 of 200 characters are equal."

    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844})
        for theme in THEMES:
            page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
            found = Axe().run(page, options={"preload": False} | AXE.get((width, theme), COLOURS))
            told = [(v["id"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]]
            assert told == [], (width, theme)


@pytest.mark.browser
def test_without_javascript_there_is_what_pytorch_wrote(visit):
    page = visit(alive=False, java_script_enabled=False)
    assert page.locator("pre.without-js").inner_text().startswith(writing.PROMPT)
    assert not page.locator("#writing-controls").is_visible()


def test_random_numbers_are_drawn_as_the_page_draws_them():
    "One 32-bit number of the Mersenne twister a draw, of which 24 bits count."
    chance, whole = (torch.Generator().manual_seed(3) for _ in range(2))
    one_by_one = [torch.rand((), generator=chance).item() for _ in range(5)]
    assert one_by_one == torch.rand(5, generator=whole).tolist()
    assert all(value * 2**24 == int(value * 2**24) for value in one_by_one)
