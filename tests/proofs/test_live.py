"""The page that trains: its losses are PyTorch's, it says so only if they are, and everybody can use it."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from docs._ext import live
from docs.live import runs
from exp.nb_02 import History, get_mnist_data, near, normalize, same, torch
from tests.proofs.test_pages import AXE, COLOURS, THEMES, WIDTHS, open_page, until
from tools.chapters import ROOT

STATIC = ROOT / "docs" / "_static" / "live"
STEPS = 12  # mini-batches of each run that are made anew, fewer of large ones; of the chapter's own, the whole epoch
FUSES = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")  # else PyTorch rounds weights twice
# Bugs to plant in train.js: what is wrong, the code, the code instead.
LOGIC = [
    ("the gradient is a sum, not a mean", "(j === this.y[i] ? 1 : 0)) / g.rows", "(j === this.y[i] ? 1 : 0))"),
    ("the gradient forgets the label", "Math.exp(logp) - (j === this.y[i] ? 1 : 0)", "Math.exp(logp)"),
    ("the ReLU lets every gradient pass", "this.x.data[i] > 0 ? value : 0", "value"),
    ("the bias does not learn", "matmul(ones, g, this.bias.grad);", ""),
    ("twice the learning rate", "data[i] -= lr * velocity[i]", "data[i] -= 2 * lr * velocity[i]"),
    ("the twister shifts too far", "bits ^= bits >>> 11", "bits ^= bits >>> 12"),
    ("each image is the next one's", "bytes[784 * order[row] + p]", "bytes[784 * (order[row] + 1) + p]"),
    ("the layers go back from first to last", "let i = this.layers.length - 1; i >= 0; i--",
     "let i = 0; i < this.layers.length; i++"),
    ("the last rows of a batch are left out", "i < a.rows; i += 2", "i < a.rows - 2; i += 2"),
    ("momentum where none was asked for", "Math.fround(momentum * velocity[i])", "0.1 * velocity[i]"),
    ("the loss forgets its logarithm", "value - largest - log)", "value - largest)"),
]  # fmt: skip
ROUNDING = [
    ("the learning rate has 64 bits", "this.lr = Math.fround(lr)", "this.lr = lr"),
    ("the update is rounded twice", "data[i] -= lr * velocity[i]", "data[i] -= Math.fround(lr * velocity[i])"),
    ("weights are drawn with two roundings", "Math.fround(part * Math.fround(high - low) + low)",
     "Math.fround(Math.fround(part * Math.fround(high - low)) + low)"),
    ("sums have 32 bits", "p1 += x * w1;", "p1 = Math.fround(p1 + x * w1);"),
    ("the bias is added after rounding", "new Matrix(x.rows, this.weight.rows), this.bias.data)",
     "new Matrix(x.rows, this.weight.rows)).plus(this.bias.data)"),  # `plus` is in TRY
]  # fmt: skip
# Where a program is wider than its box, the keyboard can reach it: the theme looks again when the width changes.
REACHED = """[...document.querySelectorAll(".live-program pre")]
    .every(box => box.scrollWidth <= box.clientWidth || box.tabIndex === 0)"""
# Run train.js, changed or not, with stored settings; return the verdict on its losses.
TRY = """async ([source, index, steps]) => {
    const { Matrix, prepare } = new Function(source + "; return { Matrix, prepare };")();
    Matrix.prototype.plus = function (row) {
        this.data.forEach((value, i) => { this.data[i] = value + row[i % row.length]; });
        return this;
    };
    const { settings, wide } = runs.runs[index], theirs = floats(wide), losses = [], sizes = [];
    try {
        for (const { loss, n } of prepare(settings, live.train).run) {
            losses.push(loss);
            sizes.push(n);
            if (losses.length === Math.min(steps, theirs.length)) break;
        }
    } catch (error) {
        return { word: "raises", says: String(error) };
    }
    return verdict(losses, theirs, sizes);
}"""
# Draw 300 validation images on a pad and bring them back. How many does the network read right, before and after?
ROUND_TRIP = """async () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 280, height: 280 });
    const pad = new Pad(canvas, document.createElement("span"), () => {}), { bytes, y, normalized } = live.valid;
    const read = (image) => new Promise((resolve) => {
        live.showGuess = (p) => resolve(p.indexOf(Math.max(...p)));
        live.send("read", { drawing: Float32Array.from(image, (byte) => normalized[byte]) });
    });
    let [before, after] = [0, 0];
    for (let i = 0; i < 300; i++) {
        const image = bytes.subarray(784 * i, 784 * i + 784);
        pad.show(image);
        before += (await read(image)) === y[i];
        after += (await read(pad.image())) === y[i];
    }
    delete live.showGuess;
    return [before, after];
}"""


# What the trained net of chapter 14 makes of 40 images: its logits, and how many of 300 it has right.
EXAM = """() => {
    const { bytes, y } = live.valid, image = (i) => bytes.subarray(784 * i, 784 * i + 784), net = live.exam;
    const read = (i) => net.logits(image(i)), best = (row) => row.indexOf(Math.max(...row));
    const right = Array.from({ length: 300 }, (_, i) => best(read(i)) === y[i]).filter(Boolean).length;
    return { logits: Array.from({ length: 40 }, (_, i) => [...read(i)]), right };
}"""


# In PyTorch


def few(settings):
    "Return how many mini-batches of a run are made anew."
    return max(4, min(STEPS, 1600 // settings["batch"]))


def history(losses):
    "Make a history of losses."
    made = History("losses")
    for loss in losses:
        made.add(loss, None, 1)
    return made


def test_pytorch_makes_the_stored_losses_again(proved):
    if proved(ROOT / "docs" / "live", ROOT / "exp"):
        return
    x, y, m, s = runs.data()
    stored = runs.stored()
    assert near([stored["mean"], stored["deviation"]], [m, s]) and len(stored["runs"]) == len(runs.CHANGES) >= 15
    for run, change in zip(stored["runs"], runs.CHANGES):
        assert run["settings"] == runs.CHAPTER | change
        steps = few(run["settings"]) if change else None
        both = {kind: runs.train(kind, x, y, **run["settings"], steps=steps)[0] for kind in runs.KINDS}
        wide, plain = (found.losses for found in both.values())
        theirs = {kind: runs.unpack(run[kind])[: len(wide)] for kind in runs.KINDS}
        found = same(history(torch.tensor(wide).tolist()), history(theirs["wide"]))  # a tensor: in 32 bits
        assert found.word == "identical" or not FUSES, (change, found)
        assert near(plain[:3], theirs["plain"][:3], rtol=1e-4), change  # later steps may enlarge the difference
        if not change:
            same(history(plain), history(theirs["plain"]))
            assert near(both["wide"].valid_losses[0], run["valid_loss"], atol=1e-3)
            assert abs(both["wide"].valid_accs[0] - run["valid_acc"]) < 0.002


# What is built


def test_the_weight_of_the_page(site):
    folder = site / "_static" / "live"
    sizes = {path.name: path.stat().st_size for path in [site / "live.html", *folder.iterdir()]}
    assert sizes["net.js"] <= 300_000  # the trained net
    data = sizes["digits.js"] + sizes["runs.js"] + sizes["net.js"]
    assert sum(sizes.values()) <= 2_850_000 and sum(sizes.values()) - data <= 120_000
    assert "static/live" not in (site / "index.html").read_text(encoding="utf-8")


def test_every_line_of_both_loops_is_shown(monkeypatch):
    assert live.loop().count("<li>") == len(live.LOOP)
    for missing in (0, 4, 9):
        monkeypatch.setattr(live, "LOOP", [pair for i, pair in enumerate(live.LOOP) if i != missing])
        with pytest.raises(ValueError, match="does not hold the lines of fit"):
            live.loop()
        monkeypatch.undo()


# In the browser


@pytest.fixture
def visit(browser, site):
    "Return `visit(address, **options)`: open the page from its file; when the test ends, nothing may have gone wrong."
    opened = []

    def visit(address="", alive=True, **options):
        page, problems = open_page(browser, (site / "live.html").as_uri() + address, **options)
        opened.append((page, problems if alive else []))  # without scripts, their requests fail
        return page

    yield visit
    for page, problems in opened:
        page.context.close()
        assert problems == []


def words(page, name):
    "Return the text of a part of the page."
    return page.locator(f"#live-{name}").inner_text()


def press(page, name):
    "Press a button that trains; wait until the run rests and is judged."
    page.evaluate("() => { live.run.judged = false; }")
    page.locator(f"#live-{name}").click()
    judged(page)


def judged(page):
    until(page, "live.run.judged && live.run.resting", 120)


@pytest.mark.browser
def test_all_stored_settings_are_identical_and_no_planted_bug_is(visit):
    page, source, told = visit(), (STATIC / "train.js").read_text(encoding="utf-8"), {}
    for index, change in enumerate(runs.CHANGES):
        steps = few(runs.CHAPTER | change)  # the chapter's own, the whole epoch: the test below
        found = page.evaluate(TRY, [source, index, steps])
        assert found["word"] == "identical" and found["n"] == found["equal"] == steps, (change, found)
    for what, code, instead in [*LOGIC, *ROUNDING]:
        assert source.count(code) == 1, f"{what}: found {source.count(code)} times"
        told[what] = page.evaluate(TRY, [source.replace(code, instead), 0, STEPS])
    wrong = [(what, told[what]) for what, *_ in LOGIC if told[what]["word"] not in ("different", "raises")]
    wrong += [(what, told[what]) for what, *_ in ROUNDING if told[what]["word"] != "close"]
    assert wrong == [] and len(told) == 16


@pytest.mark.browser
def test_train_draw_and_look(visit):
    page = visit(has_touch=True)
    assert "Not trained yet" in words(page, "said") and page.locator("#live-verdict").is_hidden()
    press(page, "step")
    assert words(page, "batches") == "1" and "1 of 1 losses" in words(page, "wide-figures")
    assert words(page, "go") == "Go on"
    press(page, "go")
    assert words(page, "batches") == "157" and words(page, "go") == "One more epoch"
    assert words(page, "accuracy") == "90.2%"
    assert "identical to PyTorch with 64-bit sums: 157 of 157 losses are equal, bit for bit." in words(page, "verdict")
    assert "close to PyTorch as one calls it: 5" in words(page, "verdict")
    assert "from 2.30 to 0.18" in page.locator("#live-chart svg").get_attribute("aria-label")
    assert page.locator("#live-units li:visible").count() == 16
    assert page.locator("#live-mistakes li:visible").count() == 12
    assert all("read as a" in each.get_attribute("aria-label") for each in page.locator("#live-mistakes canvas").all())
    before, after = page.evaluate(ROUND_TRIP)
    assert before > 260 and after >= before, (before, after)

    pad = page.get_by_role("application", name="Drawing pad")  # by keyboard: a 1
    pad.focus()
    for keys in (["ArrowUp"] * 9, ["Space"], ["ArrowDown"] * 18, ["Space"]):
        for key in keys:
            page.keyboard.press(key)
    until(page, "document.getElementById('live-reads').textContent.startsWith('It reads a 1')")
    page.keyboard.press("Delete")
    until(page, "document.getElementById('live-reads').textContent === 'Draw a digit.'")
    box = pad.bounding_box()  # by mouse: a 0
    page.mouse.move(box["x"] + 190, box["y"] + 140)
    page.mouse.down()
    for k in range(25):
        angle = torch.tensor(2 * torch.pi * k / 24)
        page.mouse.move(box["x"] + 140 + 50 * angle.cos().item(), box["y"] + 140 + 80 * angle.sin().item())
    page.mouse.up()
    until(page, "document.getElementById('live-reads').textContent.startsWith('It reads a 0')")
    page.locator("#live-clear").click()
    until(page, "document.getElementById('live-reads').textContent === 'Draw a digit.'")
    touch, y = page.context.new_cdp_session(page), page.evaluate("scrollY")  # by touch: a 7
    places = [(80, 60), (140, 60), (200, 60), (180, 110), (160, 160), (145, 220)]
    for kind, (left, top) in zip(["touchStart"] + ["touchMove"] * 5, places):
        at = [{"x": box["x"] + left, "y": box["y"] + top}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    until(page, "document.getElementById('live-reads').textContent.startsWith('It reads a 7')")
    assert page.evaluate("scrollY") == y
    page.locator("#live-sample").click()
    until(page, "document.getElementById('live-reads').textContent.startsWith('It reads a 3')")

    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("document.getElementById('live-train').scrollIntoView()")  # at 390 px: seen together
    places = [page.locator(f"#live-{name}").bounding_box() for name in ("go", "chart", "verdict")]
    assert all(56 <= box["y"] and box["y"] + box["height"] <= 844 for box in places), places
    assert page.evaluate("getComputedStyle(document.querySelector('#live-bars span')).transitionDuration") == "0s"
    page.evaluate("document.querySelector('.bd-main details, details').open = true")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844})
        until(page, REACHED)
        for theme in THEMES:
            page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
            found = Axe().run(page, options={"preload": False} | AXE.get((width, theme), COLOURS))
            told = [(v["id"], v["nodes"][0]["html"][:200]) for v in found.response["violations"]]
            assert told == [], (width, theme)


@pytest.mark.browser
def test_the_trained_net_reads_as_pytorch_does(visit):
    from exp.nb_14 import digits_net, exam_data, logits_of

    page = visit()
    found = page.evaluate(EXAM)
    model, about = digits_net()
    x, y = get_mnist_data()
    x = normalize(x[runs.VALID][:300], float(about["mean"]), float(about["std"])).view(-1, 1, 28, 28)
    logits = logits_of(model, x)
    assert near(torch.tensor(found["logits"]), logits[:40], rtol=1e-3, atol=1e-3)
    right = (logits.argmax(1) == y[runs.VALID][:300]).sum().item()
    assert found["right"] == right > 290
    reader = page.get_by_role("combobox", name="Who reads it", exact=True)
    assert f"{exam_data('test')['record CNN, int8']['acc']:.2%} of the test images right" in reader.inner_text()
    page.locator("#live-sample").click()
    until(page, "document.getElementById('live-reads').textContent.endsWith('But it is not trained yet.')")
    reader.select_option("exam")
    until(page, "/^It reads a 3 .*%\\)\\.$/.test(document.getElementById('live-reads').textContent)")
    press(page, "step")  # what the other net says is not shown meanwhile
    assert words(page, "reads").startswith("It reads a 3")
    page.locator("#live-clear").click()
    until(page, "document.getElementById('live-reads').textContent === 'Draw a digit.'")


@pytest.mark.browser
def test_settings_the_address_the_program_and_the_end_of_a_run(visit):
    page = visit("#lr=1000&images=3000")
    assert page.locator("#live-lr").input_value() == "1000" and page.locator("#live-images").input_value() == "3000"
    assert page.locator("#live-no-proof").is_visible()
    press(page, "go")
    assert words(page, "said") == ("The loss is nan at epoch 1, mini-batch 21: training diverged. "
                                   "A smaller learning rate is the usual cure.")  # fmt: skip
    assert page.locator("#live-go").is_disabled() and page.locator("#live-above").is_visible()

    assert page.evaluate("smooth([2, 1e36, 500, 400], 0)") == [2, 1e36, 500, 400]  # a loss after it is not lost
    assert page.evaluate("smooth([0, 3, 0, 9], 1)") == [0, 1, 4, 4.5]
    page.evaluate("() => { location.hash = 'batch=99999&hidden=-3&images=500&lr=7&order=odd&seed=x&drop=true'; }")
    until(page, "live.run.settings.images === 500")
    asked = page.evaluate("live.run.settings")
    assert asked == runs.CHAPTER | {"batch": 500, "hidden": 1, "images": 500, "drop": True}
    page.locator("#live-chapter").click()
    assert page.evaluate("live.run.settings") == runs.CHAPTER and "#" not in page.url
    static = page.locator(".live-program pre").text_content()
    assert static.strip() in (ROOT / "docs" / "live.md").read_text(encoding="utf-8")

    changes = [{"order": "sorted", "images": 700, "momentum": 0.5, "scale": 3, "batch": 100},
               {"order": "shuffled", "drop": True, "images": 900, "hidden": 20, "seed": 7}]  # fmt: skip
    for change in changes:
        for name, value in change.items():
            control = page.locator(f"#live-{name}")
            if name == "drop":
                control.check()
            elif name in ("order", "momentum", "scale"):
                control.select_option(str(value))
            else:
                control.fill(str(value))
                control.blur()
        press(page, "go")
        assert all(f"{name}={str(value).lower()}" in page.url for name, value in change.items())
        program = page.locator(".live-program pre").text_content()
        assert f"run.losses[:{min(10, page.evaluate('live.run.steps'))}]" in program
        exec(program, {})  # its last assertion compares the losses of both
        page.locator("#live-chapter").click()

    page.get_by_role("button", name="this one image").click()  # what to try: it sets the controls and trains
    judged(page)
    assert page.evaluate("live.run.steps") == 34 and words(page, "wide-word") == "identical to"
    assert "65.6% of 2,000" in words(page, "said") and page.evaluate("document.activeElement.id") == "live-go"
    name = page.get_by_role("button", name="What is each line called?")
    assert page.locator("#live-loop .name").first.is_hidden()
    name.click()
    assert page.locator("#live-loop .name").first.is_visible() and name.get_attribute("aria-pressed") == "true"
    assert page.locator("#live-fit").text_content() == page.evaluate("String(fit)")


@pytest.mark.browser
def test_without_a_worker_without_javascript_and_in_an_old_browser(visit, browser, site):
    page = visit("?worker=no")
    for _ in range(3):
        press(page, "step")
    assert "3 of 3 losses are equal" in words(page, "wide-figures")
    assert "page itself" in page.locator("#live-where").text_content()
    page.evaluate("delete document.documentElement.dataset.theme")  # which the theme's script sets
    strokes = page.locator("#live-chart :is(.theirs, .frame, .guessing)").evaluate_all(
        "lines => lines.map((line) => getComputedStyle(line).stroke)")
    assert len(strokes) == 3 and "none" not in strokes
    page = visit(alive=False, java_script_enabled=False)
    assert "from 2.30 to 0.18" in page.locator("#live-chart svg").get_attribute("aria-label")
    assert "set_seed(42)" in page.locator(".live-program").inner_text()
    assert page.locator("#live-loop .name").first.is_visible()
    assert page.locator(".without-js:visible").count() == 4 and page.locator(".with-js:visible").count() == 0
    context = browser.new_context()
    context.add_init_script("delete window.DecompressionStream;")
    page = context.new_page()
    page.goto((site / "live.html").as_uri())
    until(page, "document.getElementById('live-missing').textContent.includes('lacks DecompressionStream')")
    context.close()


@pytest.mark.browser
def test_the_names_and_roles_that_a_screen_reader_says(visit):
    page = visit()
    for name in ("learning rate", "momentum", "initial weights", "order"):
        assert page.get_by_role("combobox", name=name, exact=True).count() == 1
    for name in ("batch size", "hidden units", "images", "seed"):
        assert page.get_by_role("spinbutton", name=name, exact=True).count() == 1
    for name in ("Train", "One step", "Start again", "The chapter's settings", "Clear", "Show it one of MNIST's"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    assert page.get_by_role("checkbox", name="leave out a short last batch").count() == 1
    assert page.get_by_role("table", name="Probability of each digit").get_by_role("row").count() == 10
    page.evaluate("""() => {
        window.told = [];
        for (const region of document.querySelectorAll("[role=status]")) {
            const watcher = new MutationObserver(() => told.push(region.innerText));
            watcher.observe(region, { subtree: true, childList: true, characterData: true });
        }
    }""")
    page.locator("#live-images").fill("3200")
    page.locator("#live-images").blur()
    press(page, "go")
    told = page.evaluate("told")
    assert page.evaluate("live.run.steps") == 50 and len(told) <= 4 and "of 2,000 unseen images right" in told[-1]
