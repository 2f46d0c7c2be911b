"""Chapter 12: what a model of the network predicts, and what two "hosts" measure that are joined by a slow line.

The hosts are two network namespaces of Linux (root is needed), the line is a pair of virtual cards whose rate is
limited by `tc … tbf`. Predicted is a gradient's all-reduce, and a step of an MLP with one bucket: the time of a step
that does not talk, and of the all-reduce. Latency is what four bytes take on the same line. Times are the shortest
tenth of the repetitions, in milliseconds: the machine has other things to do, too.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from exp.nb_12 import SGD, Workers, average_gradients, cross_entropy_loss, ring_time, set_seed
from exp.nb_12 import _meet as meet

ROOT = Path(__file__).resolve().parent.parent
RATES = {"1 Gbit/s": 1e9, "100 Mbit/s": 1e8}
BURSTS = {"1 Gbit/s": "80kb", "100 Mbit/s": "32kb"}  # so much passes unlimited after a pause; the fast line needs more
SIZES = {"0.4 MB": 407_080, "1.6 MB": 1_628_200, "4 MB": 4_000_000}
HIDDEN = {"0.4 MB": 128, "1.6 MB": 512}  # the MLPs with gradients of these sizes
HOSTS = [("host-a", "card-a", "192.0.2.1"), ("host-b", "card-b", "192.0.2.2")]
PAYLOAD = 1448 / 1514  # of a packet; the rest are addresses


def settings():
    "List the runs."
    return [{"optimiser": "SGD", "rate": rate, "lr": 0.1, "seed": 42, "epochs": 0} for rate in RATES]


def short(do, repeat=30):
    "Return the time of a call in milliseconds, the shortest tenth; both hosts begin together."
    times = []
    for _ in range(repeat + 3):
        dist.barrier()
        start = time.perf_counter()
        do()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[3:])[repeat // 10]


def stepper(hidden, average=average_gradients):
    "Return a function that takes a step of an MLP on this rank's share, and returns its loss."
    set_seed(42)
    model = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optim, (x, y) = SGD(model.parameters(), lr=0.1), (torch.rand(64, 784), torch.arange(64) % 10)
    xs, ys = x[dist.get_rank() :: 2], y[dist.get_rank() :: 2]

    def step():
        loss = cross_entropy_loss(model(xs), ys)
        loss.backward()
        average(model)
        optim.step()
        optim.zero_grad()
        return loss.item()

    return step


def losses(steps=20):
    "Return the mean losses of both ranks in the first steps."
    step, found = stepper(128), []
    for _ in range(steps):
        loss = torch.tensor(step(), dtype=torch.float64)
        dist.all_reduce(loss)
        found.append(loss.item() / 2)
    return found


def measure():
    "Return what this line takes for all-reduces and steps, in ms."
    found = {"latency": short(lambda: dist.all_reduce(torch.zeros(1)))}
    for name, size in SIZES.items():
        values = torch.zeros(size // 4)
        found[f"all_reduce {name}"] = short(lambda values=values: dist.all_reduce(values))
    for name, hidden in HIDDEN.items():
        found[f"compute {name}"] = short(stepper(hidden, lambda model: None))
        found[f"step {name}"] = short(stepper(hidden))
    return found


def predict(measured, rate):
    "Return what the model says of the same, from the latency, the rate of the line and the time to compute."
    latency, bandwidth = measured["latency"] / 2, PAYLOAD * RATES[rate] / 8 / 1e3  # ms; bytes a ms
    found = {f"all_reduce {name}": ring_time(2, size, latency, bandwidth) for name, size in SIZES.items()}
    found |= {f"step {name}": measured[f"compute {name}"] + found[f"all_reduce {name}"] for name in HIDDEN}
    return found


def sh(*words, check=True):
    "Run a command of the system."
    subprocess.run([*words], check=check, capture_output=True)


def work(rank, folder):
    "Measure as one of the two hosts."
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = HOSTS[rank][1]
    meet(dist.FileStore(f"{folder}/store", 2), rank, 2, 120)
    found = {"losses": losses(), **measure()}
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()


def over_the_line(rate):
    "Set up two hosts and a line, measure, and take all down again."
    (a, card_a, _), (b, card_b, _) = HOSTS
    try:
        for host, _, _ in HOSTS:
            sh("ip", "netns", "add", host)
        sh("ip", "link", "add", card_a, "netns", a, "type", "veth", "peer", "name", card_b, "netns", b)
        for host, card, address in HOSTS:
            inside = ["ip", "netns", "exec", host]
            sh(*inside, "ip", "address", "add", f"{address}/24", "dev", card)
            sh(*inside, "ip", "link", "set", card, "up")
            limit = ["rate", f"{RATES[rate]:.0f}bit", "burst", BURSTS[rate], "latency", "100ms"]
            sh(*inside, "tc", "qdisc", "add", "dev", card, "root", "tbf", *limit)
        with tempfile.TemporaryDirectory() as folder:
            own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
            workers = [
                subprocess.Popen(
                    ["ip", "netns", "exec", host, sys.executable, "-m", "records.network", str(rank), folder], env=own
                )
                for rank, (host, _, _) in enumerate(HOSTS)
            ]
            assert [worker.wait(timeout=900) for worker in workers] == [0, 0]
            return json.loads(Path(folder, "0.json").read_text(encoding="utf-8"))
    finally:
        for host, _, _ in HOSTS:
            sh("ip", "netns", "delete", host, check=False)


def rows(runs):
    "Return the lines that chapter 12 shows: line and what, predicted, measured."
    found = [(r["setting"]["rate"], name, p, r["measured"][name]) for r in runs for name, p in r["predicted"].items()]
    return [f"{rate}, {name} {predicted:.1f} {measured:.1f}" for rate, name, predicted, measured in found]


def run(setting, steps=None):
    "Train and measure over a slow line; only the first mini-batches need none."
    if steps is not None:
        with Workers(2) as two:
            return {"losses": two(losses, steps)[0], "epochs": []}
    measured = over_the_line(setting["rate"])
    found = measured.pop("losses")
    predicted = predict(measured, setting["rate"])
    shown = {"measured": measured, "predicted": predicted}
    ms = {kind: {name: round(value, 3) for name, value in values.items()} for kind, values in shown.items()}
    return {"losses": found, "epochs": [], **ms}


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
