"""Time the convolutions of chapter 07 beside `F.conv2d`, layer by layer, and its nets beside an MLP.

    python -m bench.convolutions     measure, and print it as JSON; `make bench` stores it

A mini-batch of 64 images; forward and backward together. One thread. The ways of a layer take turns, and each ratio is
the median of the ratios within the turns; so do the nets, on 100 mini-batches of 128. CPU seconds: other processes
take time, but none of these. The loops convolve one image, forward only, and their seconds are taken 64 times; their
ratio is to the forward pass of `F.conv2d`.
"""

import json
import statistics
import time
from contextlib import nullcontext

from bench import clock, machine
from bench.tables import table, times

TURNS, BATCH = 9, 64
LAYERS = {  # what it is called: channels, kernels, size, stride, padding, pixels
    "1 → 8, 5 × 5, stride 2, on 28 × 28": (1, 8, 5, 2, 2, 28),
    "8 → 16, 3 × 3, stride 2, on 14 × 14": (8, 16, 3, 2, 1, 14),
    "16 → 32, 3 × 3, on 14 × 14": (16, 32, 3, 1, 1, 14),
    "32 → 64, 3 × 3, on 14 × 14": (32, 64, 3, 1, 1, 14),
}
NETS = ("MLP", "small CNN", "CNN", "fast", "fast, 16 bits", "fast, channels_last")


def ways():
    "Return {way: (function, a context to run it in)}; each takes what `F.conv2d` takes."
    import torch
    from torch.nn.functional import conv2d

    from exp import nb_07

    def half():
        return torch.autocast("cpu", dtype=torch.bfloat16)

    return {
        "conv2d": (conv2d, nullcontext),
        "slices": (nb_07.conv_slices, nullcontext),
        "unfold": (nb_07.conv_unfold, nullcontext),
        "view": (nb_07.conv_strided, nullcontext),
        "by hand": (nb_07.conv_by_hand, nullcontext),
        "plain": (conv2d, nb_07.plain_kernels),
        "16 bits": (conv2d, half),
    }


def layer(sizes, turns, repeats):
    "Return {way: {seconds, ratio}} of one layer."
    import torch

    from exp.nb_07 import conv_loops

    n_in, n_out, k, stride, padding, side = sizes
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, n_in, side, side, generator=chance, requires_grad=True)
    w = torch.randn(n_out, n_in, k, k, generator=chance, requires_grad=True)
    b = torch.randn(n_out, generator=chance, requires_grad=True)

    def there_and_back(function, context):
        def work():
            for _ in range(repeats):
                with context():
                    out = function(x, w, b, stride, padding)
                out.backward(torch.ones_like(out))
        return work

    each_way = {name: there_and_back(*way) for name, way in ways().items()}
    found = clock.summed_up(clock.in_turns(each_way, turns), "conv2d")
    found = {name: {"seconds": each["seconds"] / repeats, "ratio": each["ratio"]} for name, each in found.items()}
    with torch.no_grad():
        began = time.process_time()
        conv_loops(x[:1], w, b, stride, padding)
        loops = BATCH * (time.process_time() - began)
        library = ways()["conv2d"][0]
        forward = clock.in_turns({"conv2d": lambda: [library(x, w, b, stride, padding) for _ in range(20)]}, turns)
    base = statistics.median(forward["conv2d"]) / 20
    return {"loops": {"seconds": loops, "ratio": loops / base}} | found


def epochs(turns, steps):
    "Return {net: {seconds, ratio}} of so many mini-batches of 128, ratios to the MLP."
    from torch import channels_last, float32, nn

    from exp.nb_07 import AdamW, cross_entropy_loss
    from records import convolutions

    x, y = convolutions.data()

    def train(name):
        title, _, how = name.partition(", ")
        model = nn.Sequential(*convolutions.MODELS[title]())
        model = model.to(memory_format=channels_last) if how == "channels_last" else model
        optim = AdamW(model.parameters(), 0.005)
        kind = convolutions.Half if how == "16 bits" else convolutions.Learner
        given = x.to(float32, memory_format=channels_last) if how == "channels_last" else x
        batches = [(given[i : i + 128], y[i : i + 128]) for i in range(0, 128 * steps, 128)]
        return lambda: kind(model, cross_entropy_loss, optim).fit(batches)

    return clock.summed_up(clock.in_turns({name: train(name) for name in NETS}, turns), "MLP")


def measure(turns=TURNS, repeats=5, steps=100):
    "Return {layers: {layer: {way: {seconds, ratio}}}, nets: {net: {seconds, ratio}}}."
    layers = {title: layer(sizes, turns, repeats) for title, sizes in LAYERS.items()}
    return {"layers": layers, "nets": epochs(max(1, turns // 2), steps)}


def markdown(found):
    "Return what results.md says of it."
    about = ("CPU seconds of a layer of chapter 07 on 64 images, forward and backward, one thread, and how many "
             "times as long other ways take: medians, the ratios within 9 turns. (Loops: one image, forward, "
             "against the forward pass.)")
    called = {"loops": "loops", "slices": "slices", "unfold": "unfold", "view": "view", "by hand": "by hand",
              "plain": "`F.conv2d` without libraries", "16 bits": "with 16 bits"}  # fmt: skip
    rows = [[title, f"{1000 * by_way['conv2d']['seconds']:.2f} ms", *(times(by_way[way]["ratio"]) for way in called)]
            for title, by_way in found["layers"].items()]  # fmt: skip
    nets = [[title, f"{each['seconds']:.2f}", times(each["ratio"])] for title, each in found["nets"].items()]
    return ["## A convolution", about, table(["layer", "`F.conv2d`", *called.values()], rows),
            "CPU seconds of its nets on 100 mini-batches of 128 images: medians, the ratios within 4 turns.",
            table(["net", "seconds", "to the MLP"], nets)]  # fmt: skip


def main():
    "Measure, and print it."
    clock.settle(1, machine.own_cpus())
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
