"""Kill training runs at random places, resume them in new processes, and report as JSON whether they end alike.

    python tests/programs/killed_run.py FOLDER RUNS

Each run is killed four times: the process that resumes it is killed, too, and only the fifth may come to the end.

A place is a line of the `Learner` or of `exp/nb_09.py` that is about to run, counted from the start of the run: so it
is the same on a fast machine and on a slow one. Two of the four places are among all lines, one among those that write
a file, and at one the child tells its parent that it is there, and goes on until the parent's kill arrives.

The process imports PyTorch once and forks its children, so that a kill costs a fraction of a second.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path

from torch import nn

from exp.nb_09 import *


class Seen(Callback):
    "Record the samples of every mini-batch: the shuffling order."

    state_names = ("ids",)

    def before_fit(self, learner):
        self.ids = []

    def after_loss(self, learner):
        self.ids.append(learner.xb[:, 0].tolist())


CHECKPOINTS = sys.modules["exp.nb_09"].__file__
LOOP = {Learner.fit.__code__, Learner.one_epoch.__code__, Learner.validate.__code__}


def watch(counts, at, then):
    "Count the lines that run, all and those of a write; call `then` before the line `at`, such as `('all', 7)`."
    def line(frame, event, argument):
        if event == "line":
            counts["all"] += 1
            counts["write"] += (writes := frame.f_code is write_atomically.__code__)
            if (writes or at[0] == "all") and counts[at[0]] == at[1]:
                then()
        return line

    def start(frame, event, argument):
        return line if frame.f_code.co_filename == CHECKPOINTS or frame.f_code in LOOP else None

    sys.settrace(start)


def train(path, result):
    "Train from the start, or go on from the checkpoint at `path`; write what there is to compare to `result`."
    torch.set_num_threads(1)
    set_seed(3)
    x = torch.randn(110, 8)
    y = x[:, 1:4].argmax(1)
    x[:, 0] = torch.arange(110)
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
    order = torch.Generator().manual_seed(7)
    train_dl = DataLoader(Dataset(x[:90], y[:90]), 10, shuffle=True, generator=order)
    optim = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = Schedule(torch.optim.lr_scheduler.CosineAnnealingLR(optim, 40))
    seen, metrics, best = Seen(), Metrics(accuracy=accuracy), KeepBest()
    callbacks = [seen, metrics, LearningRates(), ClipGradient(0.5), best, schedule]
    learner = Learner(model, cross_entropy_loss, optim, [*callbacks, Checkpoint(path, every=2, resume=True)])
    history = learner.fit(train_dl, n_epochs=4, valid=[(x[90:], y[90:])])
    records = history.losses, history.accs, history.epoch_ends, history.valid_losses, history.valid_accs
    found = {"losses": records, "weights": model.state_dict(), "order": seen.ids, "optimiser": optim.state_dict(),
             "callbacks": [metrics.train, metrics.valid, best.epoch, best.weights, callbacks[3].norms]}  # fmt: skip
    torch.save(found, result)


def warm_up(path):
    "Do once what imports more of PyTorch, so that the children need not. No backward: no fork may follow it."
    p = nn.Parameter(torch.zeros(1))
    p.grad, optim = torch.zeros(1), torch.optim.Adam([p], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 40)
    optim.step()
    schedule.step()
    save_checkpoint(path, {"optimiser": optim.state_dict(), "state": random_state()})
    load_checkpoint(path)


def fork(path, result, prepare=None):
    "Start `train` in a child, after a call of `prepare`; return its process number."
    child = os.fork()
    if child == 0:
        if prepare:
            prepare()
        train(path, result)
        sys.settrace(None)
        os._exit(0)
    return child


def equal(a, b):
    "Compare nested lists, dictionaries, numbers and tensors, bit for bit."
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def count_lines(folder):
    "Run once without a kill; return how many lines have run: all, and those of a write."
    counts, told = {"all": 0, "write": 0}, folder / "lines.json"
    child = os.fork()
    if child == 0:
        watch(counts, ("all", 0), None)
        train(folder / "whole", folder / "whole.result")
        sys.settrace(None)
        told.write_text(json.dumps(counts), encoding="utf-8")
        os._exit(0)
    os.waitpid(child, 0)
    return json.loads(told.read_text(encoding="utf-8"))


def kill(folder, number, at, by_parent):
    "Go on with a run, and kill it at the line `at`; report where it is then."
    path, (hears, tells) = folder / f"{number}", os.pipe()
    before = len([*folder.glob("*.part")])

    def then():
        os.write(tells, b".") if by_parent else os.kill(os.getpid(), signal.SIGKILL)

    child = fork(path, folder / "never", lambda: watch({"all": 0, "write": 0}, at, then))
    os.close(tells)
    if by_parent:
        os.read(hears, 1)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(hears)
    state = load_checkpoint(path) if path.exists() else {"history": {"losses": []}, "marks": []}
    return {"run": number, "killed": os.WIFSIGNALED(status), "at": at, "batches": len(state["history"]["losses"]),
            "in the epoch": len(state["marks"]), "in a write": len([*folder.glob("*.part")]) > before}  # fmt: skip


def end(folder, number, whole):
    "Go on with a run to its end; report whether it has ended like the `whole` one."
    os.waitpid(fork(folder / f"{number}", folder / f"{number}.result"), 0)
    found = torch.load(folder / f"{number}.result", weights_only=True)
    return {part: equal(found[part], whole[part]) for part in whole}


def main(folder, runs):
    "Run once without a kill, then `runs` times with four kills each."
    torch.set_num_threads(1)
    warm_up(folder / "warm")
    lines, chance, kills, ends = count_lines(folder), random.Random(20), [], []
    whole = torch.load(folder / "whole.result", weights_only=True)
    for number in range(runs):
        for part, by_parent in (("all", False), ("write", False), ("all", True), ("all", False)):
            at = part, 1 + int(lines[part] * chance.uniform(0.02, 0.28))
            kills.append(kill(folder, number, at, by_parent))
        ends.append(end(folder, number, whole))
    print(json.dumps({"batches": len(whole["order"]), "lines": lines, "kills": kills, "ends": ends}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
