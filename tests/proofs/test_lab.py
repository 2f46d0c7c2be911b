"""The learner's path in a real browser: `make lab`, open a chapter, unfold, run, interrupt, and see what is stored.

Every chapter is opened, rendered and unfolded; those that show something that moves, and the first one, are run; in one
a training is interrupted and run again.

For the chapters that are run JupyterLab stands as it comes. For the others it is told to render all cells at once: left
alone, it adds one after the other while nothing else happens, which costs the browser twice as much.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
from nbformat import read
from nbformat.reader import NotJSONError

from tests import kept
from tests.proofs.test_pages import UNFOLD
from tools.chapters import ROOT, code_cells
from tools.compare import differences, output_differences
from tools.run import tidy

pytestmark = pytest.mark.browser
RUN = ("01", "04")  # the first, and the one with progress bars, which move, too
INTERRUPTED = "02"  # the chapter in which a training is interrupted and run again


def wait_for(what, seconds, words):
    "Wait until `what()` is true; fail after so many seconds."
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"timed out after {seconds} s waiting for {words}"
        time.sleep(0.2)
    return found


def answers(url):
    "Return whether a server answers there."
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "Return a function that starts JupyterLab, once, and returns (folder, address with token)."
    started = []

    def start():
        if not started:
            started.extend(start_lab(tmp_path_factory.mktemp("a learner's folder")))
            wait_for(lambda: answers(f"{started[1]}/api?token=learner"), 120, "JupyterLab")
        return started[0], f"{started[1]}/lab/tree/{{}}?token=learner&reset"

    yield start
    if started:
        stop(started[2])


def stop(server):
    "End a server and its kernels at once: asked to, it waits for each in turn."
    for process in [*psutil.Process(server.pid).children(recursive=True), server]:
        process.kill()
    server.wait()


def start_lab(folder):
    "Start JupyterLab with the command of `make lab`, on a copy of the notebooks; return (folder, address, process)."
    shutil.copytree(ROOT / "nbs", folder / "nbs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --port={port} --ServerApp.port_retries=0 --IdentityProvider.token=learner"
    asked = ["make", "-n", "lab", f"ARGS={options}"]
    said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    [command] = [line for line in said.stdout.splitlines() if "-m jupyterlab" in line]
    command = command.replace(".venv/bin/python", f'exec "{sys.executable}"')
    own = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR")}
    how = {"shell": True, "cwd": folder, "env": {**os.environ, **own}, "start_new_session": True}
    with open(folder / "log", "w", encoding="utf-8") as log:
        return folder, f"http://127.0.0.1:{port}", subprocess.Popen(command, stdout=log, stderr=log, **how)


CELLS = ".jp-Notebook .jp-Cell"
COUNT = f"() => document.querySelectorAll('{CELLS}').length"
# The last characters of an image hold a checksum of it: enough to tell one drawing from the next.
IMAGES = f"""index => [...document.querySelectorAll('{CELLS}')[index].querySelectorAll('img')].map(
    image => image.src.slice(-80))"""
PROMPTS = f"""() => [...document.querySelectorAll('{CELLS}')].map(
    cell => cell.querySelector('.jp-InputPrompt')?.textContent ?? "")"""


def choose(page, menu, item):
    "Choose an item of a menu."
    page.click(f".lm-MenuBar-itemLabel:text-is('{menu}')")
    page.click(f".lm-Menu-itemLabel:text-is('{item}')")


def idle(page):
    "Return whether the status bar says that the kernel has nothing to do."
    return "Idle" in page.text_content(".jp-StatusBar-Widget")  # where the inner text has the page laid out anew


def finished(page, cells):
    "Return whether these cells, by number, have run and the kernel has nothing more to do."
    prompts = page.evaluate(PROMPTS)
    return all(re.search(r"\d", prompts[index]) for index in cells) and idle(page)


def run_all(page, chapter, watch):
    "Choose Run → Run All Cells, and wait for the last cell; call `watch()` all the while."
    choose(page, "Run", "Run All Cells")
    code = [i for i, cell in enumerate(chapter.cells) if cell.cell_type == "code" and cell.source.strip()]
    wait_for(lambda: (watch(), finished(page, code))[1], 400, "the run")


@pytest.fixture(scope="module")
def window(browser):
    "Open one window for all chapters: JupyterLab's megabytes of scripts are read once."
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    yield context
    context.close()


def render_all_at_once(folder, at_once):
    "Tell JupyterLab so, by the file of the user's settings; or leave it as it comes."
    told = folder / "jupyter_config_dir/lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    told.unlink(missing_ok=True)
    if at_once:
        told.parent.mkdir(parents=True, exist_ok=True)
        told.write_text(json.dumps({"windowingMode": "none"}), encoding="utf-8")


def open_chapter(window, address, chapter):
    "Open a chapter in a new tab, with all of its cells; return the page and the list of its problems."
    page, problems = window.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address.format(chapter.path.name))
    page.wait_for_selector(CELLS, timeout=120_000)
    wait_for(lambda: page.evaluate(COUNT) == len(chapter.cells), 120, "all cells")
    wait_for(lambda: idle(page), 120, "the kernel")
    return page, problems


def live_cells(chapter):
    "List the numbers of the cells that train or record under a live curve, and so show something that moves."
    cells = enumerate(chapter.cells)
    return [i for i, cell in cells if cell.cell_type == "code" and re.search(r"(?<!class )LiveCurve\(", cell.source)]


def save(page, copy):
    "Save the notebook; return it as it lies on the disk."
    before = copy.stat().st_mtime_ns
    choose(page, "File", "Save Notebook")
    return tidy(wait_for(lambda: copy.stat().st_mtime_ns != before and whole(copy), 60, "the notebook to be saved"))


def whole(path):
    "Return the notebook in a file, or None while it is being written."
    try:
        return read(path, as_version=4)
    except NotJSONError:
        return None


def unfold_one_by_one(page, chapter):
    "Unfold every hint, mistake and solution of a chapter: each click opens that one and no other."
    folds = page.locator(".jp-Notebook details:has(> summary)")
    assert not any(folds.evaluate_all("folds => folds.map(fold => fold.open)"))
    folds.first.locator("summary").click()  # by hand; the others as a script clicks
    opened = folds.evaluate_all(UNFOLD)
    assert len(opened) >= 4 * len(chapter.exercises)
    assert opened == [list(range(number + 1)) for number in range(len(opened))]


def run_cell(page, index):
    "Put the cursor into a cell and run it; wait until it is running."
    before = page.evaluate(PROMPTS)[index]
    page.locator(CELLS).nth(index).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    wait_for(lambda: page.evaluate(PROMPTS)[index] != before, 60, "the cell to start")


def interrupt_and_run_again(page, index, chapter, copy):
    "Run a cell that trains, interrupt the kernel when its curve has moved, run the cell again: as if nothing had been."
    old = page.evaluate(IMAGES, index)
    run_cell(page, index)
    wait_for(lambda: set(page.evaluate(IMAGES, index)) - set(old), 120, "the curve to move")
    choose(page, "Kernel", "Interrupt Kernel")
    wait_for(lambda: finished(page, [index]), 60, "the kernel to stop")
    assert "KeyboardInterrupt" in page.locator(CELLS).nth(index).inner_text()
    run_cell(page, index)
    wait_for(lambda: finished(page, [index]), 300, "the run")
    outputs = save(page, copy).cells[index].outputs
    assert len(page.evaluate(IMAGES, index)) == 1
    assert output_differences(chapter.cells[index].outputs, outputs, chapter.path.name) == []


def run_and_compare(page, chapter, copy):
    "Run all cells: curves move, one figure of each remains, and what is saved is what is stored."
    seen = {index: set() for index in live_cells(chapter)}
    run_all(page, chapter, lambda: [seen[index].update(page.evaluate(IMAGES, index)) for index in seen])
    for index, images in seen.items():
        assert len(images) >= 2 and len(page.evaluate(IMAGES, index)) == 1, "a curve that moves, one that remains"
    ran = save(page, copy)
    assert [o for cell in code_cells(ran) for o in cell.outputs if o.output_type == "error"] == []
    assert differences(chapter.notebook, ran, chapter.path.name) == []


def test_a_learner_unfolds_hints_runs_all_interrupts_and_goes_on(chapter, lab, request, proved):
    if proved(*kept.inputs_of(chapter)):
        return
    folder, address = lab()
    runs = live_cells(chapter) or chapter.number in RUN
    render_all_at_once(folder, not runs)
    page, problems = open_chapter(request.getfixturevalue("window"), address, chapter)
    unfold_one_by_one(page, chapter)
    assert "Jupyter news" not in page.inner_text("body")
    copy = folder / "nbs" / chapter.path.name
    if runs:
        run_and_compare(page, chapter, copy)
    if chapter.number == INTERRUPTED:
        [*_, trains] = [index for index in live_cells(chapter) if "fit(" in chapter.cells[index].source]
        interrupt_and_run_again(page, trains, chapter, copy)
    page.close()
    assert problems == []


def test_the_printed_address_leads_to_the_first_chapter(lab, request, proved):
    if proved(ROOT / "nbs" / "01_data.ipynb"):
        return
    folder, _ = lab()
    text = (folder / "log").read_text(encoding="utf-8")
    address = re.search(r"http://127\.0\.0\.1:\d+/lab/tree/01_data\.ipynb\?token=", text)
    page = request.getfixturevalue("window").new_page()
    page.goto(address.group() + "learner")
    page.wait_for_selector("h1:has-text('01 · Data')", timeout=120_000)
    page.close()
