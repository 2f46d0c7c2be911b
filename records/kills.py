"""Chapter 12: ten times, one of two processes under torchrun is killed at a random moment. Is the run the same?

The chapter's program trains an MLP on 3,200 images, 4 epochs, and saves every 10 mini-batches. Seed by seed, a rank
and a moment between the start of training and its end are drawn; that process gets SIGKILL, torchrun starts both
anew, and what came of it is compared with the run that nobody disturbs: all 200 losses and validations, bit for bit.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from exp.nb_12 import History, Workers, load_checkpoint, main, same

WORDS = ["--samples", "3200", "--epochs", "4", "--every", "10", "--quiet"]
ROOT = Path(__file__).resolve().parent.parent


def settings():
    "List the runs."
    how = {"optimiser": "SGD, momentum 0.9", "rate": "constant", "lr": 0.05}
    return [{**how, "seed": seed, "epochs": 4} for seed in range(1, 11)]


def undisturbed_run():
    "Return the history of two processes that nobody kills."
    with Workers(2) as two:
        return two(main, WORDS)[0]


def started(folder):
    "Start the program under torchrun; return the process."
    files = ["--checkpoint", str(folder / "run.pt"), "--history", str(folder / "history.json")]
    start = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, *start, "--max-restarts", "3", "-m", "exp.nb_12", *WORDS, *files]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
    return subprocess.Popen(command, env=own, start_new_session=True, **how)


def killed_run(rank, share, folder, limit=300):
    """Kill `rank` when `share` of the run is done; return the history, the saved mini-batches then, and the restarts.

    The share is of the checkpoints that a run writes, so that a slow machine does not change where it falls; from
    there, some milliseconds decide what is being done: computing, sending, or writing the next one.
    """
    process = started(folder)
    timer = threading.Timer(limit, lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.start()
    try:
        pids, attempts = {}, 0
        while len(pids) < 2:
            found = re.match(r"rank (\d) of 2, process (\d+)", process.stdout.readline())
            pids |= {int(found[1]): int(found[2])} if found else {}
        while share > 0 and saved(folder) < 200 * share - 10 and process.poll() is None:
            time.sleep(0.002)
        time.sleep(0.03 * share)
        step = saved(folder)
        os.kill(pids[rank], signal.SIGKILL)
        attempts = len(re.findall(r"rank 0 of 2, process", process.stdout.read()))
        assert process.wait() == 0, "the run did not survive"
    finally:
        timer.cancel()
        process.stdout.close()
    history = History("killed")
    history.load_state_dict(json.loads((folder / "history.json").read_text(encoding="utf-8")))
    return history, step, attempts


def saved(folder):
    "Return after how many mini-batches the checkpoint was written; 0 if there is none."
    try:
        return load_checkpoint(folder / "run.pt")["step"]
    except FileNotFoundError:
        return 0


def rows(runs):
    "Return the lines that chapter 12 shows."
    return [f"{r['setting']['seed']} {r['killed']} {r['saved']} {r['restarts']} {r['verdict']}" for r in runs]


def run(setting, steps=None):
    "Train; kill a process on the way, unless only the first mini-batches are asked for."
    whole = undisturbed_run()
    found, more = whole, {}
    if steps is None:
        chance = random.Random(setting["seed"])
        rank, share = chance.randrange(2), chance.random()
        with tempfile.TemporaryDirectory() as folder:
            found, step, attempts = killed_run(rank, share, Path(folder))
        verdict = same(found, whole).word
        more = {"killed": rank, "saved": step, "restarts": attempts, "verdict": verdict}
    epochs = [[loss, valid_loss, acc] for _, loss, _, valid_loss, acc in found.epochs]
    return {"losses": found.losses[:steps], "epochs": epochs, **more}
