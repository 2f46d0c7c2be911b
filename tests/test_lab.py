"""The learner's path in a real browser: `make lab`, open a chapter, *Run All*, and see what is stored."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import exercises
import notebooks
import pytest

pytestmark = pytest.mark.browser


def wait_for(what, seconds, words):
    "Wait until `what()` is true; fail after so many seconds."
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"waited {seconds} s in vain for {words}"
        time.sleep(0.3)
    return found


def answers(url):
    "Tell whether a server answers there."
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "Start JupyterLab with the command of `make lab`, on a copy of the notebooks; give (folder, address with token)."
    folder = tmp_path_factory.mktemp("a learner's folder")
    shutil.copytree(notebooks.ROOT / "nbs", folder / "nbs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --port={port} --ServerApp.port_retries=0 --IdentityProvider.token=learner"
    said = subprocess.run(["make", "-n", "lab", f"ARGS={options}"], cwd=notebooks.ROOT, capture_output=True, text=True)
    [command] = [line for line in said.stdout.splitlines() if "-m jupyterlab" in line]
    command = command.replace(".venv/bin/python", f'exec "{sys.executable}"')
    own = {name: str(folder / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_WORKSPACES_DIR")}
    how = {"shell": True, "cwd": folder, "env": {**os.environ, **own}, "start_new_session": True}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, **how)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/api?token=learner"), 60, "JupyterLab")
        yield folder, f"http://127.0.0.1:{port}/lab/tree/{{}}?token=learner&reset"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


COUNT_BUSY = "() => [...document.querySelectorAll('.jp-InputPrompt')].filter(e => e.textContent.includes('*')).length"
CELLS = ".jp-Notebook .jp-Cell"
IMAGES = f"index => [...document.querySelectorAll('{CELLS}')[index].querySelectorAll('img')].map(image => image.src)"
OPEN = "() => [...document.querySelectorAll('.jp-Notebook details')].map(details => details.open)"


def choose(page, menu, item):
    "Choose an item of a menu."
    page.click(f".lm-MenuBar-itemLabel:text-is('{menu}')")
    page.click(f".lm-Menu-itemLabel:text-is('{item}')")


def idle(page):
    "Tell whether the status bar says that the kernel has nothing to do."
    return "Idle" in page.inner_text(".jp-StatusBar-Widget")


def run_all(page, watch):
    "Choose Run → Run All Cells, and wait for the last cell; call `watch()` all the while."
    choose(page, "Run", "Run All Cells")
    time.sleep(1)
    wait_for(lambda: (watch(), page.evaluate(COUNT_BUSY) == 0 and idle(page))[1], 180, "the run")


def open_chapter(browser, address, path):
    "Open a chapter in a new window, with all of its cells; give the page and the list of its problems."
    page, problems = browser.new_page(viewport={"width": 1300, "height": 1000}), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address.format(path.name))
    page.wait_for_selector(CELLS, timeout=60_000)
    wait_for(lambda: page.locator(CELLS).count() == len(notebooks.read(path).cells), 60, "all cells")
    wait_for(lambda: idle(page), 60, "the kernel")
    return page, problems


def live_cells(path):
    "List the numbers of the cells that train or record under a live curve."
    cells = enumerate(notebooks.read(path).cells)
    return [i for i, cell in cells if cell.cell_type == "code" and re.search(r"(?<!class )LiveCurve\(", cell.source)]


def save(page, copy):
    "Save the notebook; give it as it lies on the disk."
    before = copy.stat().st_mtime_ns
    choose(page, "File", "Save Notebook")
    wait_for(lambda: copy.stat().st_mtime_ns != before, 30, "the notebook to be saved")
    return notebooks.tidy(notebooks.read(copy))


def unfold_one_by_one(page, path):
    "Unfold every hint, mistake and solution of a chapter: each click opens that one and no other."
    summaries = page.locator(".jp-Notebook details > summary")
    assert summaries.count() >= 4 * len(exercises.find(notebooks.read(path)))
    assert not any(page.evaluate(OPEN))
    for number in range(summaries.count()):
        summaries.nth(number).click()
        assert [i for i, is_open in enumerate(page.evaluate(OPEN)) if is_open] == list(range(number + 1))


def interrupt_and_run_again(page, index, path, copy):
    "Run a cell that trains, interrupt the kernel when its curve has moved, run the cell again: as if nothing had been."
    old = page.evaluate(IMAGES, index)
    page.locator(CELLS).nth(index).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    wait_for(lambda: set(page.evaluate(IMAGES, index)) - set(old), 60, "the curve to move")
    choose(page, "Kernel", "Interrupt Kernel")
    wait_for(lambda: page.evaluate(COUNT_BUSY) == 0 and idle(page), 30, "the kernel to stop")
    assert "KeyboardInterrupt" in page.locator(CELLS).nth(index).inner_text()
    page.locator(CELLS).nth(index).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    time.sleep(1)
    wait_for(lambda: page.evaluate(COUNT_BUSY) == 0 and idle(page), 120, "the run")
    outputs = save(page, copy).cells[index].outputs
    assert len(page.evaluate(IMAGES, index)) == 1
    assert notebooks.output_differences(notebooks.read(path).cells[index].outputs, outputs, path.name) == []


@pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
def test_a_learner_unfolds_hints_runs_all_interrupts_and_goes_on(path, lab, browser):
    page, problems = open_chapter(browser, lab[1], path)
    unfold_one_by_one(page, path)
    assert "Jupyter news" not in page.inner_text("body")
    seen = {index: set() for index in live_cells(path)}
    run_all(page, lambda: [seen[index].update(page.evaluate(IMAGES, index)) for index in seen])
    for index, images in seen.items():
        assert len(images) >= 2 and len(page.evaluate(IMAGES, index)) == 1, "a curve that moves, one that remains"
    copy = lab[0] / "nbs" / path.name
    ran = save(page, copy)
    for index in live_cells(path):
        if "fit(" in notebooks.read(path).cells[index].source:
            interrupt_and_run_again(page, index, path, copy)
    page.close()
    assert [o for cell in notebooks.code_cells(ran) for o in cell.outputs if o.output_type == "error"] == []
    assert notebooks.differences(notebooks.read(path), ran, path.name) == []
    assert problems == []


def test_the_printed_address_leads_to_the_first_chapter(lab, browser):
    folder, _ = lab
    address = re.search(r"http://127\.0\.0\.1:\d+/lab/tree/01_data\.ipynb\?token=", (folder / "log").read_text())
    page = browser.new_page()
    page.goto(address.group() + "learner")
    page.wait_for_selector("h1:has-text('01 · Data')", timeout=60_000)
    page.close()
