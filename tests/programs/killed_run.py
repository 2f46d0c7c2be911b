"""Kill training runs at random times, resume each in a new process, and report as JSON whether they end alike.

    python tests/programs/killed_run.py FOLDER KILLS

The process imports PyTorch once and forks its children, so that a kill costs half a second.
"""

import json
import os
import random
import signal
import sys
import time
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


def slow_down():
    "Let every mini-batch and every write take a little longer, so that a kill can hit both."
    fsync, sleep = os.fsync, time.sleep
    os.fsync = lambda number: (sleep(0.001), fsync(number), sleep(0.001))
    return type("SlowDown", (Callback,), {"after_loss": lambda self, learner: sleep(0.002)})()


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
    callbacks = [seen, metrics, LearningRates(), ClipGradient(0.5), best, schedule, slow_down()]
    learner = Learner(model, cross_entropy_loss, optim, [*callbacks, Checkpoint(path, every=2, resume=True)])
    history = learner.fit(train_dl, n_epochs=6, valid=[(x[90:], y[90:])])
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


def fork(path, result):
    "Start `train` in a child; return its process number."
    child = os.fork()
    if child == 0:
        train(path, result)
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


def kill_and_resume(folder, number, delay, whole):
    "Kill a run after `delay` seconds and resume it; report where, and whether it ended like the `whole` one."
    path, result = folder / f"{number}", folder / f"{number}.result"
    child = fork(path, result)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    state = load_checkpoint(path) if path.exists() else {"history": {"losses": []}, "marks": []}
    report = {"killed": os.WIFSIGNALED(status), "delay": delay, "batches": len(state["history"]["losses"]),
              "in the epoch": len(state["marks"]), "in a write": any(folder.glob(f"{number}.*.part"))}  # fmt: skip
    os.waitpid(fork(path, result), 0)
    resumed = torch.load(result, weights_only=True)
    return report | {part: equal(resumed[part], whole[part]) for part in whole}


def main(folder, kills):
    "Run once without a kill, then with `kills` of them, spread over the time that a run takes."
    torch.set_num_threads(1)
    warm_up(folder / "warm")
    begin = time.perf_counter()
    os.waitpid(fork(folder / "whole", folder / "whole.result"), 0)
    took, whole = time.perf_counter() - begin, torch.load(folder / "whole.result", weights_only=True)
    chance = random.Random(20)
    delays = [took * (number + chance.random()) / kills for number in range(kills)]
    found = [kill_and_resume(folder, number, delay, whole) for number, delay in enumerate(delays)]
    print(json.dumps({"batches": len(whole["order"]), "seconds": took, "kills": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
