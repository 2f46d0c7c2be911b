"""Chapter 13: bugs that were written after `diagnose` was frozen, to judge it; two seeds each.

`UNSEEN` says of each which test should name it, as somebody would hope who knows what the tests are for; () where no
hope is. It was written down before any of them was run.
"""

import copy
from itertools import islice

from torch import nn

from exp.nb_13 import DataLoader, Dataset, F, Setup, diagnose, evaluate, torch
from records.debugging import CAP, SEEDS, SURE, capped, share  # noqa: F401


class TwiceEachBatch(Setup):
    "Indent a line too far: train on each mini-batch twice."

    def step(self, xb, yb):
        super().step(xb, yb)
        return super().step(xb, yb)


class NoSevens(Setup):
    "Lose one class of the training set."

    def data(self, x, y, x_valid, y_valid):
        keep = (y != 7).nonzero()[:, 0].repeat(2)[:12_800]
        return x[keep], y[keep], x_valid, y_valid


class TenthWrong(Setup):
    "Get a tenth of the labels wrong."

    def data(self, x, y, x_valid, y_valid):
        chance = torch.Generator().manual_seed(9)
        wrong = torch.rand(len(y), generator=chance) < 0.1
        return x, torch.where(wrong, torch.randint(0, 10, y.shape, generator=chance), y), x_valid, y_valid


class Transposed(Setup):
    "Exchange rows and columns of the validation images."

    def data(self, x, y, x_valid, y_valid):
        return x, y, x_valid.view(-1, 14, 14).transpose(1, 2).flatten(1), y_valid


class MeanTwice(Setup):
    "Divide the mean loss by the size of the mini-batch once more."

    def criterion(self, logits, yb):
        return F.cross_entropy(logits, yb) / len(yb)


class FrozenBias(Setup):
    "Freeze one bias."

    def make_model(self):
        model = super().make_model()
        model[0].bias.requires_grad_(False)
        return model


class ClampedLogits(Setup):
    "Clamp logits to -1 … 1 for safety."

    def make_model(self):
        return nn.Sequential(*super().make_model(), nn.Hardtanh())


class DropInputs(Setup):
    "Use `F.dropout` on the inputs, which does not know of `eval`."

    def make_model(self):
        class Dropping(nn.Sequential):
            def forward(self, x):
                return super().forward(F.dropout(x, 0.5))

        return Dropping(*super().make_model())


class EachPixel(Setup):
    "Normalise each pixel by its own deviation, which is nearly 0 at the border."

    def data(self, x, y, x_valid, y_valid):
        m, s = x.mean(0), x.std(0) + 1e-6
        return (x - m) / s, y, (x_valid - m) / s, y_valid


class NinesAreZeros(Setup):
    "Read class 9 as class 0, in training."

    def data(self, x, y, x_valid, y_valid):
        return x, y % 9, x_valid, y_valid


class HalfOfTheBatch(Setup):
    "Compute the loss of the first half of each mini-batch only."

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits[:32], yb[:32])
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        return loss.detach(), logits.detach()


class CopiedModel(Setup):
    "Train a copy, and look at the original."

    def make_optim(self):
        self.other = copy.deepcopy(self.model)
        return torch.optim.SGD(self.other.parameters(), self.lr)

    def step(self, xb, yb):
        logits = self.other(xb)
        loss = self.criterion(logits, yb)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        return loss.detach(), logits.detach()


class SigmoidLogits(Setup):
    "Put a sigmoid behind the last layer."

    def make_model(self):
        return nn.Sequential(*super().make_model(), nn.Sigmoid())


class DecayOfOne(Setup):
    "Take a weight decay of 1."

    def make_optim(self):
        return torch.optim.SGD(self.model.parameters(), self.lr, weight_decay=1.0)


class AveragedBack(Setup):
    "Average weights over time, and copy the average back into the model at every step."

    average = None

    def step(self, xb, yb):
        result = super().step(xb, yb)
        now = [p.detach().clone() for p in self.model.parameters()]
        self.average = [0.99 * a + 0.01 * b for a, b in zip(self.average or now, now)]
        with torch.no_grad():
            for p, mean in zip(self.model.parameters(), self.average):
                p.copy_(mean)
        return result


class ClipValues(Setup):
    "Clip each number of the gradient at 0.0001."

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        self.optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(self.model.parameters(), 1e-4)
        self.optim.step()
        return loss.detach(), logits.detach()


class FirstTwenty(Setup):
    "Train on the first twenty mini-batches again and again: a limit for a trial run that stayed."

    def make_batches(self):
        return list(islice(super().make_batches(), 20)) * 10


class FewToValidate(Setup):
    "Validate on the first ten images."

    def make_valid(self):
        return DataLoader(Dataset(self.x_valid[:10], self.y_valid[:10]), 10)


class OldModel(Setup):
    "Validate a copy of the model that was made before training."

    def evaluate(self):
        if not hasattr(self, "first"):
            self.first = Setup(0).model
        return evaluate(self.valid_dl, self.first.eval(), self.criterion)


class MostlyOnes(Setup):
    "Train on a set of which nine tenths are ones."

    def data(self, x, y, x_valid, y_valid):
        ones, others = (y == 1).nonzero()[:, 0].repeat(9)[:11_520], (y != 1).nonzero()[:1_280, 0]
        keep = torch.cat([ones, others])
        return x[keep], y[keep], x_valid, y_valid


class Mirrored(Setup):
    "Mirror half of the training images, as one does with photographs."

    def data(self, x, y, x_valid, y_valid):
        images = x.view(-1, 14, 14)
        return torch.cat([images[::2].flip(2), images[1::2]]).flatten(1), torch.cat([y[::2], y[1::2]]), x_valid, y_valid


class NoGradHidden(Setup):
    "Compute the hidden layer under `torch.no_grad`."

    def make_model(self):
        class Half(nn.Sequential):
            def forward(self, x):
                with torch.no_grad():
                    hidden = self[1](self[0](x))
                return self[2](hidden)

        return Half(*super().make_model())


class WeightedByLabel(Setup):
    "Multiply the loss of each image by its label."

    def criterion(self, logits, yb):
        return (F.cross_entropy(logits, yb, reduction="none") * yb).mean()


class RateOfZero(Setup):
    "Give the first layer a rate of 0, by a group that was forgotten."

    def make_optim(self):
        groups = [{"params": self.model[0].parameters(), "lr": 0.0}, {"params": self.model[2].parameters()}]
        return torch.optim.SGD(groups, self.lr)


class AlwaysEval(Setup):
    "Train a net with batch normalisation in evaluation mode."

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)).eval()

    def start_epoch(self, epoch):
        self.model.eval()

    def step(self, xb, yb):
        self.model.eval()
        return super().step(xb, yb)


class ZeroLastOnly(Setup):
    "Drop the gradients of the last layer only."

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        self.model[2].zero_grad()
        loss.backward()
        self.optim.step()
        return loss.detach(), logits.detach()


UNSEEN = {  # the tests that should name it
    TwiceEachBatch: ("gradient",),
    NoSevens: ("labels",),
    TenthWrong: ("learning",),
    Transposed: ("learning",),
    MeanTwice: ("criterion",),
    FrozenBias: ("optimiser",),
    ClampedLogits: ("logits", "criterion"),
    DropInputs: ("evaluation",),
    EachPixel: ("inputs",),
    NinesAreZeros: ("learning", "labels"),
    HalfOfTheBatch: ("gradient",),
    CopiedModel: ("optimiser",),
    SigmoidLogits: ("logits",),
    DecayOfOne: ("updates",),
    AveragedBack: ("updates",),
    ClipValues: ("gradient",),
    FirstTwenty: ("order",),
    FewToValidate: (),
    OldModel: ("learning",),
    MostlyOnes: ("labels", "learning"),
    Mirrored: ("learning",),
    NoGradHidden: ("reach",),
    WeightedByLabel: ("criterion",),
    RateOfZero: ("updates", "optimiser"),
    AlwaysEval: (),
    ZeroLastOnly: ("gradient",),
}
SETUPS = {kind.__name__: kind for kind in UNSEEN}


def setting(name, seed):
    "Return a setting as it is stored."
    common = {"model": "MLP", "optimiser": "SGD", "rate": "constant", "epochs": 2}
    return {"setup": name, "seed": seed, **common}


def settings():
    "List all runs."
    return [setting(name, seed) for seed in SEEDS[:2] for name in SETUPS]


def run(setting, steps=None):
    "Diagnose one set-up, then train it; or train only its first mini-batches."
    kind, seed = SETUPS[setting["setup"]], setting["seed"]
    if steps is not None:
        return {"losses": kind(seed).run(steps).losses}
    other, setup = kind(seed), kind(seed)
    parts = other.step, other.model, other.criterion, other.optim, other.batches
    report, history = diagnose(*parts, other.evaluate, other.valid_dl), setup.run()
    losses = [capped(loss) for loss in history.losses]
    losses += [CAP] * (400 - len(losses))
    valid = list(zip(history.valid_losses, history.valid_accs))
    valid += [(CAP, share(setup))] * (2 - len(valid))
    trained = [sum(losses[:200]) / 200, sum(losses[200:]) / 200]
    epochs = [[a, capped(b), min(max(acc, 1e-4), 1 - 1e-4)] for a, (b, acc) in zip(trained, valid)]
    return {"losses": losses, "epochs": epochs, "found": report.found, "not_looked": list(report.not_looked)}


# What the chapter shows of it


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    from records.diagnoses import counted, verdicts

    found = verdicts(runs, {kind.__name__: hopes for kind, hopes in UNSEEN.items()})
    signs = {(True, True, True): "first", (False, True, True): "named", (False, False, True): "caught"}
    rows = []
    for name, each in found.items():
        acc = [run["epochs"][-1][2] for run in runs if run["setting"]["setup"] == name]
        said = next(list(run["found"]) for run in runs if run["setting"]["setup"] == name)
        rows.append(
            f"{name}: {signs.get(each, 'missed')}; {100 * sum(acc) / len(acc):.0f}; {', '.join(said) or 'none'}"
        )
    return {"judged_unseen": [f"unseen: {counted(found)}"], "unseen_1": rows[:13], "unseen_2": rows[13:]}
