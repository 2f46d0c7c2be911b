"""The ways to train that `make bench` compares. `python -m bench.variants NAME` runs one and prints a line of JSON.

A variant is a function of the `Work`: it prepares itself, trains between `clock.start` and `clock.stop`, and gives the
trained model. It is called twice in a process of its own: for a rehearsal of five batches, then for the whole work.

One more is a decorated function here, and a line in `TARGETS` of `results.py` if something is demanded of it.
"""

import argparse
import json
import os
from dataclasses import dataclass
from importlib.metadata import version

from bench import clock, data, machine

VARIANTS = {}


@dataclass
class Variant:
    "A way to train, and what is known about it."

    name: str
    title: str
    group: str  # "ours", "idiom", "peer" or "limit"
    function: object
    library: str = None  # whose version is reported
    shuffled: bool = False  # then the losses are its own
    scaled: bool = False  # also timed with other batch sizes and numbers of epochs

    @property
    def comparable(self):
        "Return whether it has to end with the loss and accuracy of the idiom."
        return self.group != "limit" and not self.shuffled


def variant(name, title, group, **facts):
    "Enter a function into `VARIANTS`."

    def enter(function):
        VARIANTS[name] = Variant(name, title, group, function, **facts)
        return function

    return enter


# Ours


@variant("first", "ours: the first loop", "ours")
def first(work):
    "Every line spelled out: `loop_by_name` of chapter 02, as it stands in the notebook."
    Net, loop_by_name = data.from_notebook("02", "Net", "loop_by_name")
    model = Net()
    model.l1, _, model.l2 = work.layers()
    with work.clock:
        for _ in range(work.epochs):
            loop_by_name(model, work.x, work.y, lr=work.lr, bs=work.batch_size)
    return model


@variant("fit", "ours: fit", "ours", scaled=True)
def fit(work, shuffle=False):
    "Where chapter 02 ends: `fit` with our loader, model, loss and optimiser."
    from exp import nb_02

    loader = nb_02.DataLoader(nb_02.Dataset(work.x, work.y), batch_size=work.batch_size, shuffle=shuffle)
    model = nb_02.Sequential(*work.layers())
    optim = nb_02.SGD(model.parameters(), lr=work.lr)
    with work.clock:
        nb_02.fit(loader, model, nb_02.cross_entropy_loss, optim, n_epochs=work.epochs)
    return model


@variant("fit-shuffled", "ours: fit, shuffled", "ours", shuffled=True)
def fit_shuffled(work):
    "The same, in another order every epoch."
    return fit(work, shuffle=True)


@variant("engine", "ours: fit on our own engine", "ours")
def engine(work):
    "The `fit` of chapter 02 on the engine of chapter 03: PyTorch's autograd takes no part."
    from exp import nb_02, nb_03

    loader = nb_02.DataLoader(nb_02.Dataset(work.x, work.y), batch_size=work.batch_size)
    model = nb_03.NodeMLP()
    for ours, theirs in zip((model.l1, model.l2), work.layers()[::2]):
        ours.weight, ours.bias = theirs.weight.detach(), theirs.bias.detach()
    optim = nb_02.SGD(model.parameters(), lr=work.lr)
    with work.clock:
        nb_02.fit(loader, model, nb_02.cross_entropy_loss, optim, n_epochs=work.epochs)
    return lambda xb: model(xb).detach()


@variant("learner", "ours: Learner", "ours")
def learner(work):
    "The `Learner` of chapter 04, nobody listening: what does it cost beyond `fit`?"
    from exp import nb_02, nb_04

    loader = nb_02.DataLoader(nb_02.Dataset(work.x, work.y), batch_size=work.batch_size)
    model = nb_02.Sequential(*work.layers())
    optim = nb_02.SGD(model.parameters(), lr=work.lr)
    with work.clock:
        nb_04.Learner(model, nb_02.cross_entropy_loss, optim).fit(loader, n_epochs=work.epochs)
    return model


# What a learner would otherwise pick


@variant("idiom", "PyTorch idiom", "idiom", scaled=True)
def idiom(work, **options):
    "The loop of PyTorch's own tutorials; it notes loss and accuracy of each batch, as ours do."
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(work.x, work.y), **{"batch_size": work.batch_size} | options)
    model = torch.nn.Sequential(*work.layers())
    optim = torch.optim.SGD(model.parameters(), lr=work.lr)
    losses, accs = [], []
    with work.clock:
        for _ in range(work.epochs):
            model.train()
            for xb, yb in loader:
                logits = model(xb)
                loss = F.cross_entropy(logits, yb)
                losses.append(loss.item())
                accs.append((logits.argmax(dim=1) == yb).float().mean().item())
                optim.zero_grad()
                loss.backward()
                optim.step()
    return model


@variant("idiom-shuffled", "PyTorch idiom, shuffled", "peer", shuffled=True)
def idiom_shuffled(work):
    "The same, in another order every epoch."
    return idiom(work, shuffle=True)


@variant("idiom-whole", "PyTorch idiom, whole batches", "peer")
def idiom_whole(work, kind="SequentialSampler"):
    "The same; a batch sampler asks the dataset for a whole batch at once, as chapter 02 shows after its bars."
    from torch.utils import data as torch_data

    order = getattr(torch_data, kind)(range(len(work.x)))
    return idiom(work, sampler=torch_data.BatchSampler(order, work.batch_size, drop_last=False), batch_size=None)


@variant("idiom-whole-shuffled", "PyTorch idiom, whole batches, shuffled", "peer", shuffled=True)
def idiom_whole_shuffled(work):
    "The same, in another order every epoch."
    return idiom_whole(work, "RandomSampler")


@variant("idiom-workers", "PyTorch idiom, two workers", "peer")
def idiom_workers(work):
    "The same; two processes get the batches ready. They may use the other core even when the loop has only one."

    def spread(_):
        if work.cpus:
            os.sched_setaffinity(0, work.cpus)

    return idiom(work, num_workers=2, worker_init_fn=spread)


@variant("fastai", "fastai Learner", "peer", library="fastai", scaled=True)
def fastai(work, by_hand=False):
    "As fastai's tutorial on moving from pure PyTorch; training loss and accuracy are its Recorder's."
    import torch
    import torch.nn.functional as F
    from fastai.basics import SGD, Callback, DataLoaders, Learner, accuracy
    from torch.utils.data import DataLoader, TensorDataset

    class Timed(Callback):
        def before_train(self):
            work.clock.start()

        def after_train(self):
            work.clock.stop()

    class Notes(Callback):
        def before_fit(self):
            self.accs = []

        def after_loss(self):
            if self.training:
                self.accs.append((self.pred.argmax(dim=1) == self.y).float().mean().item())

    train = DataLoader(TensorDataset(work.x, work.y), batch_size=work.batch_size)
    valid = DataLoader(TensorDataset(work.x_valid, work.y_valid), batch_size=1_000)
    model = torch.nn.Sequential(*work.layers())
    learner = Learner(DataLoaders(train, valid, device="cpu"), model, F.cross_entropy, SGD, metrics=accuracy)
    learner.recorder.train_metrics = not by_hand
    learner.add_cbs([Timed(), Notes()] if by_hand else [Timed()])
    with learner.no_logging():
        learner.fit(work.epochs, lr=work.lr)
    return model


@variant("fastai-by-hand", "fastai Learner, accuracy by hand", "peer", library="fastai")
def fastai_by_hand(work):
    "The same with a callback of a few lines in place of its training metrics: the fastest way that we found."
    return fastai(work, by_hand=True)


@variant("lightning", "Lightning Trainer", "peer", library="lightning")
def lightning(work, by_hand=False):
    "As Lightning's introduction; loss and accuracy go through its `log`. No files, no bars, no sanity check."
    import logging
    import warnings

    import lightning as L
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, TensorDataset

    warnings.filterwarnings("ignore")  # it advises to use more workers, which are slower here
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    notes = {"loss": [], "accuracy": []}

    def note(module, name, value):
        if by_hand:
            notes[name].append(value.item())
        else:
            module.log(name, value)

    class Classifier(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Sequential(*work.layers())

        def training_step(self, batch, _):
            xb, yb = batch
            logits = self.model(xb)
            loss = F.cross_entropy(logits, yb)
            note(self, "loss", loss)
            note(self, "accuracy", (logits.argmax(dim=1) == yb).float().mean())
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=work.lr)

    class Timed(L.Callback):
        def on_train_epoch_start(self, *_):
            work.clock.start()

        def on_train_epoch_end(self, *_):
            work.clock.stop()

    classifier = Classifier()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False}
    trainer = L.Trainer(max_epochs=work.epochs, accelerator="cpu", devices=1, callbacks=[Timed()], **quiet)
    trainer.fit(classifier, DataLoader(TensorDataset(work.x, work.y), batch_size=work.batch_size))
    return classifier.model


@variant("lightning-by-hand", "Lightning Trainer, notes by hand", "peer", library="lightning")
def lightning_by_hand(work):
    "The same with loss and accuracy appended to lists, as the idiom does: the fastest way that we found."
    return lightning(work, by_hand=True)


@variant("keras", "Keras 3 on torch", "peer", library="keras", scaled=True)
def keras(work):
    "As Keras's introduction, with its torch backend; loss and accuracy are its own metrics."
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    class Timed(keras.callbacks.Callback):
        def on_epoch_begin(self, *_):
            work.clock.start()

        def on_epoch_end(self, *_):
            work.clock.stop()

    hidden, out = keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)
    model = keras.Sequential([keras.Input((784,)), hidden, out])
    for ours, theirs in zip(work.layers()[::2], (hidden, out)):
        theirs.set_weights([ours.weight.detach().numpy().T, ours.bias.detach().numpy()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(learning_rate=work.lr), loss, metrics=["accuracy"])
    options = {"batch_size": work.batch_size, "epochs": work.epochs, "shuffle": False, "verbose": 0}
    model.fit(work.x.numpy(), work.y.numpy(), callbacks=[Timed()], **options)
    return model


# The limit


@variant("limit", "the limit: five matrix products", "limit", scaled=True)
def limit(work):
    "Only the matrix products of each step, into tensors made before: two forwards, three backwards. Trains nothing."
    import torch

    layer_1, _, layer_2 = work.layers()
    w1, w2 = layer_1.weight.detach(), layer_2.weight.detach()
    g1, g2 = torch.empty_like(w1), torch.empty_like(w2)
    buffers = [torch.empty(work.batch_size, n) for n in (128, 128, 10)]
    steps = [(xb, *(buffer[: len(xb)] for buffer in buffers)) for xb in work.x.split(work.batch_size)]
    work.runs = max(1, 5 // work.epochs)  # one is over too soon to be timed well
    with work.clock:
        for _ in range(work.runs * work.epochs):
            for xb, hidden, d_hidden, logits in steps:
                torch.mm(xb, w1.T, out=hidden)
                torch.mm(hidden, w2.T, out=logits)
                torch.mm(logits.T, hidden, out=g2)
                torch.mm(logits, w2, out=d_hidden)
                torch.mm(d_hidden.T, xb, out=g1)


def main(arguments=None):
    "Run a variant; print what came of it as a line of JSON."
    parser = argparse.ArgumentParser(description="Time one variant.")
    parser.add_argument("name", choices=VARIANTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args(arguments)
    chosen, cpus = VARIANTS[options.name], machine.own_cpus()
    clock.settle(options.threads, cpus)
    work = data.load(cpus, batch_size=options.batch_size, epochs=options.epochs)
    chosen.function(work.rehearsal())
    model = chosen.function(work)
    loss, accuracy = (None, None) if model is None else data.evaluate(model, work)
    times = work.clock.each(work.runs)
    versions = {name: version(name) for name in ("torch", chosen.library) if name}
    print(json.dumps(vars(options) | times | {"loss": loss, "accuracy": accuracy, "versions": versions}))


if __name__ == "__main__":
    main()
