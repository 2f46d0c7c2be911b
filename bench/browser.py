"""How long the page `docs/live.md` takes to train: an epoch of its 10,000 images, in headless Chromium."""

import os
import shutil
import time

from bench.results import summary

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
READY = "Boolean(window.live)"
EPOCH = """async () => {
    const run = live.run, before = run.ms, done = run.steps + run.perEpoch;
    live.trainOrPause();
    while (run.steps < done || !run.resting) await new Promise((resolve) => setTimeout(resolve, 20));
    return (run.ms - before) / 1000;
}"""


def epochs(page, rounds):
    "Time epochs on the page, after one as a rehearsal; None without a browser."
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        return None
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking"]
    quiet += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        tab = browser.new_page()
        tab.goto(page.as_uri())
        end = time.monotonic() + 60
        while not tab.evaluate(READY) and time.monotonic() < end:
            tab.wait_for_timeout(50)
        times = [tab.evaluate(EPOCH) for _ in range(rounds + 1)]
        browser.close()
    return summary(times[1:])
