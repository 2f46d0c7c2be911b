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


def run_all(page):
    "Choose Run → Run All Cells, and wait for the last cell."
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
    time.sleep(2)
    wait_for(lambda: page.evaluate(COUNT_BUSY) == 0 and idle(page), 120, "the run")


def idle(page):
    "Tell whether the status bar says that the kernel has nothing to do."
    return "Idle" in page.inner_text(".jp-StatusBar-Widget")


@pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
def test_run_all_gives_what_is_stored(path, lab, browser):
    folder, address = lab
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address.format(path.name))
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    wait_for(lambda: idle(page), 60, "the kernel")
    assert "Jupyter news" not in page.inner_text("body")
    run_all(page)
    page.keyboard.press("Control+s")
    copy = folder / "nbs" / path.name
    wait_for(lambda: copy.read_bytes() != path.read_bytes(), 30, "the notebook to be saved")
    page.close()
    ran = notebooks.tidy(notebooks.read(copy))
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
