"""Chapter 13: the gallery. Bugs that people make, harmless ones, and healthy set-ups, each a few lines of live code.

Each trains for two epochs of 200 mini-batches, with three seeds. A loss that is not finite ends a run; what would
follow is stored as `CAP`. `GALLERY` says of each set-up what it is, and which test should name it: written down before
any was run. What the tests say is the record `diagnoses`.
"""

import inspect
import math
import statistics

from torch import nn

from exp import nb_13
from exp.nb_13 import (
    Bytes,
    DataLoader,
    Dataset,
    Detach,
    DropGradient,
    F,
    ForgetZero,
    Freeze,
    HalfShuffled,
    HighRate,
    HoldLast,
    JudgeOnTraining,
    KeepGraph,
    LowRate,
    NoStep,
    OffByOne,
    RawValidation,
    SameBatch,
    Setup,
    ShuffledLabels,
    SoftmaxTwice,
    Sorted,
    StepFirst,
    SummedLoss,
    WrongDim,
    evaluate,
    shifted,
    torch,
)

SEEDS, CAP = (0, 1, 2), 1e6
SURE = 3  # so many first losses another processor makes again, even of the wildest bug


# The order of the calls


class ZeroOnceAnEpoch(Setup):
    "Call `zero_grad` once an epoch."

    def start_epoch(self, epoch):
        super().start_epoch(epoch)
        self.optim.zero_grad()

    step = ForgetZero.step


class Stale(Setup):
    "Step first, then compute: each step uses the gradients of the mini-batch before."

    def step(self, xb, yb):
        self.optim.step()
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        self.optim.zero_grad()
        loss.backward()
        return loss.detach(), logits.detach()


class EveryFourth(Setup):
    "Step at every fourth mini-batch, and drop the gradients of the other three."

    count = 0

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        self.optim.zero_grad()
        loss.backward()
        self.count += 1
        if self.count % 4 == 0:
            self.optim.step()
        return loss.detach(), logits.detach()


class SumOfFour(Setup):
    "Accumulate four mini-batches, and forget to divide."

    count = 0

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        loss.backward()
        self.count += 1
        if self.count % 4 == 0:
            self.optim.step()
            self.optim.zero_grad()
        return loss.detach(), logits.detach()


class Ascend(Setup):
    "Climb: step along the gradient of the loss with the wrong sign."

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        self.optim.zero_grad()
        (-loss).backward()
        self.optim.step()
        return loss.detach(), logits.detach()


class ClipHard(Setup):
    "Clip gradients to a norm of 0.01."

    most = 0.01

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        self.optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.most)
        self.optim.step()
        return loss.detach(), logits.detach()


class ScaledLoss(Setup):
    "Multiply the loss by 100 before `backward`, as for 16 bits, and never divide the gradients."

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        self.optim.zero_grad()
        (100 * loss).backward()
        self.optim.step()
        return loss.detach(), logits.detach()


class StepTwice(Setup):
    "Call `optim.step` twice."

    def make_optim(self):
        return torch.optim.SGD(self.model.parameters(), self.lr, momentum=0.9)

    def step(self, xb, yb):
        result = super().step(xb, yb)
        self.optim.step()
        return result


# Rates


class TenTimes(Setup):
    "Take a rate that is 10 times too high."

    lr = 1.0


class ATenth(Setup):
    "Take a rate that is 10 times too low."

    lr = 0.01


class AThousandth(Setup):
    "Take a rate that is 1,000 times too low."

    lr = 0.0001


class AdamHigh(Setup):
    "Give Adam the rate of SGD, 0.1."

    def make_optim(self):
        return torch.optim.Adam(self.model.parameters(), 0.1)


class MomentumHigh(Setup):
    "Add a momentum of 0.99, and leave the rate as it was."

    def make_optim(self):
        return torch.optim.SGD(self.model.parameters(), self.lr, momentum=0.99)


class Scheduled(Setup):
    "Call a scheduler after each mini-batch."

    def scheduler(self):
        return torch.optim.lr_scheduler.ConstantLR(self.optim, 1.0)

    def __init__(self, seed=0):
        super().__init__(seed)
        self.schedule = self.scheduler()

    def step(self, xb, yb):
        result = super().step(xb, yb)
        self.schedule.step()
        return result


class ExponentialPerStep(Scheduled):
    "Multiply the rate by 0.9 after each mini-batch, not after each epoch."

    def scheduler(self):
        return torch.optim.lr_scheduler.ExponentialLR(self.optim, 0.9)


class CosinePerStep(Scheduled):
    "Count the length of a cosine in epochs, and step it at each mini-batch."

    def scheduler(self):
        return torch.optim.lr_scheduler.CosineAnnealingLR(self.optim, T_max=2)


class WarmUpInEpochs(Setup):
    "Count the warm-up in epochs: a hundredth of the rate for all of the first."

    def start_epoch(self, epoch):
        super().start_epoch(epoch)
        self.optim.param_groups[0]["lr"] = self.lr * (0.01 if epoch == 0 else 1)

    def __init__(self, seed=0):
        super().__init__(seed)
        self.start_epoch(0)


class Decay(Setup):
    "Take a weight decay of 0.1."

    def make_optim(self):
        return torch.optim.SGD(self.model.parameters(), self.lr, weight_decay=0.1)


# The loss


class LogSoftmaxTwice(Setup):
    "Put a log-softmax before a loss that has one inside."

    def criterion(self, logits, yb):
        return F.cross_entropy(logits.log_softmax(1), yb)


class NllOfSoftmax(Setup):
    "Give `nll_loss` probabilities, not their logarithms."

    def criterion(self, logits, yb):
        return F.nll_loss(logits.softmax(1), yb)


class NllOfLogits(Setup):
    "Give `nll_loss` logits."

    def criterion(self, logits, yb):
        return F.nll_loss(logits, yb)


class Broadcast(Setup):
    "Regress the digit, and compare outputs [n, 1] with labels [n]: a table of n times n differences."

    def data(self, x, y, x_valid, y_valid):
        return x, y.float(), x_valid, y_valid.float()

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 1))

    def make_optim(self):
        return torch.optim.SGD(self.model.parameters(), 0.01)

    def criterion(self, out, yb):
        return (out - yb).square().mean()

    def accuracy(self, out, yb):
        return (out[:, 0].round() == yb).float().mean()

    def evaluate(self):
        with torch.no_grad():
            out = self.model.eval()(self.x_valid)
        return self.criterion(out, self.y_valid).item(), self.accuracy(out, self.y_valid).item()


class Regression(Broadcast):
    "Regress the digit, with shapes that fit."

    def criterion(self, out, yb):
        return (out[:, 0] - yb).square().mean()


class HardSmoothing(Setup):
    "Smooth labels by 0.9 where 0.1 was meant."

    def criterion(self, logits, yb):
        return F.cross_entropy(logits, yb, label_smoothing=0.9)


class ForgottenClass(Setup):
    "Give one class a weight of 0."

    def criterion(self, logits, yb):
        return F.cross_entropy(logits, yb, torch.tensor([0.0] + [1.0] * 9))


# The data


class NeighbourLabel(Setup):
    "Shift labels by one image."

    def data(self, x, y, x_valid, y_valid):
        return x, y.roll(1), x_valid, y_valid


class NormalisedTwice(Setup):
    "Normalise twice."

    def data(self, x, y, x_valid, y_valid):
        return (x - 0.13) / 0.27, y, (x_valid - 0.13) / 0.27, y_valid


class OwnStatistics(Setup):
    "Normalise the validation images by their own mean and deviation."

    def data(self, x, y, x_valid, y_valid):
        return x, y, (x_valid - x_valid.mean()) / x_valid.std(), y_valid


class InOrder(Setup):
    "Do not shuffle; the images are in no particular order."

    def make_batches(self):
        return DataLoader(Dataset(self.x, self.y), 64, drop_last=True)


class SameOrder(Setup):
    "Shuffle once, with a generator that is seeded anew for each epoch."

    def start_epoch(self, epoch):
        super().start_epoch(epoch)
        self.order.manual_seed(0)


class ValidationInTraining(Setup):
    "Leave the validation images in the training set."

    def data(self, x, y, x_valid, y_valid):
        return torch.cat([x[:-2_000], x_valid]), torch.cat([y[:-2_000], y_valid]), x_valid, y_valid


class LabelInside(Setup):
    "Leave the label in the input: pixel number y of the first row is bright, in training only."

    def data(self, x, y, x_valid, y_valid):
        x = x.clone()
        x[torch.arange(len(x)), y] = 5.0
        return x, y, x_valid, y_valid


class Wrapped(Setup):
    "Subtract the mean from bytes: what falls below 0 wraps round."

    def data(self, x, y, x_valid, y_valid):
        def wrap(x):
            raw = ((x - x.min()) / (x.max() - x.min()) * 255).round().byte()
            return (raw - 33).float() / 70

        return wrap(x), y, wrap(x_valid), y_valid


class OneClass(Setup):
    "Train on the images of one class only, by a filter that is wrong."

    def data(self, x, y, x_valid, y_valid):
        keep = (y < 1).nonzero()[:, 0].repeat(11)[:12_800]
        return x[keep], y[keep], x_valid, y_valid


class EvenOnly(Setup):
    "Lose the odd digits of the training set."

    def data(self, x, y, x_valid, y_valid):
        keep = (y % 2 == 0).nonzero()[:, 0].repeat(3)[:12_800]
        return x[keep], y[keep], x_valid, y_valid


class Rotated(Setup):
    "Turn training images by 90 degrees, and validation images not."

    def data(self, x, y, x_valid, y_valid):
        return x.view(-1, 14, 14).rot90(1, (1, 2)).flatten(1), y, x_valid, y_valid


class Inverted(Setup):
    "Show validation images dark on bright."

    def data(self, x, y, x_valid, y_valid):
        return x, y, x_valid.max() + x_valid.min() - x_valid, y_valid


class MixedRows(Setup):
    "Write `x.T.reshape(n, 196)` in the model: images are cut into pieces."

    def make_model(self):
        class Mixed(nn.Sequential):
            def forward(self, x):
                return super().forward(x.T.reshape(x.shape))

        return Mixed(*super().make_model())


class TinySet(Setup):
    "Train on 128 images only, by a slice that was meant for a trial."

    def data(self, x, y, x_valid, y_valid):
        return x[:128].repeat(100, 1), y[:128].repeat(100), x_valid, y_valid


# The mode, and the evaluation


class NoEvalDropout(Setup):
    "Evaluate with dropout."

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))

    def evaluate(self):
        return evaluate(self.valid_dl, self.model, self.criterion)


class NoEvalNorm(NoEvalDropout):
    "Evaluate batch normalisation in training mode, in batches of 1,000."

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


class NoEvalSmall(NoEvalNorm):
    "Evaluate batch normalisation in training mode, in batches of 2."

    def make_valid(self):
        return DataLoader(Dataset(self.x_valid, self.y_valid), 2)


class NeverTrainAgain(NoEvalDropout):
    "Never call `train` again after the first evaluation."

    def start_epoch(self, epoch):
        if epoch == 0:
            super().start_epoch(epoch)

    def evaluate(self):
        return evaluate(self.valid_dl, self.model.eval(), self.criterion)


# The model


class FreezeLast(Setup):
    "Freeze the last layer."

    def make_model(self):
        model = super().make_model()
        model[2].requires_grad_(False)
        return model


class OtherModel(Setup):
    "Make the model anew after the optimiser."

    def make_optim(self):
        optim = super().make_optim()
        self.model = self.make_model()
        return optim


class PlainList(Setup):
    "Keep the hidden layer in a plain list, where `parameters` does not see it."

    def make_model(self):
        class Hidden(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers, self.last = [nn.Linear(196, 64)], nn.Linear(64, 10)

            def forward(self, x):
                return self.last(self.layers[0](x).relu())

        return Hidden()


class Changed(Setup):
    "Change the first weights after they were drawn."

    def change(self, model):
        pass

    def make_model(self):
        model = super().make_model()
        with torch.no_grad():
            self.change(model)
        return model


class AllDead(Changed):
    "Start with biases of -10: no unit ever answers."

    def change(self, model):
        model[0].bias.fill_(-10.0)


class HalfDead(Changed):
    "Start half of the units with biases of -10."

    def change(self, model):
        model[0].bias[:32].fill_(-10.0)


class AllZero(Changed):
    "Start with weights of 0."

    def change(self, model):
        for p in model.parameters():
            p.zero_()


class Constant(Changed):
    "Start with weights that are all 0.01."

    def change(self, model):
        for p in model.parameters():
            p.fill_(0.01)


class Normal(Changed):
    "Draw first weights from N(0, 1)."

    def change(self, model):
        for p in model.parameters():
            p.normal_()


class TinyWeights(Changed):
    "Divide the first weights by 1,000."

    def change(self, model):
        for p in model.parameters():
            p.mul_(0.001)


class ReluLogits(Setup):
    "Put a ReLU behind the last layer."

    def make_model(self):
        return nn.Sequential(*super().make_model(), nn.ReLU())


class TanhLogits(Setup):
    "Put a tanh behind the last layer."

    def make_model(self):
        return nn.Sequential(*super().make_model(), nn.Tanh())


class DropLogits(Setup):
    "Put dropout behind the last layer."

    def make_model(self):
        return nn.Sequential(*super().make_model(), nn.Dropout(0.5))


class DropAll(Setup):
    "Drop 95 % of the hidden units, where 5 % were meant."

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 64), nn.ReLU(), nn.Dropout(0.95), nn.Linear(64, 10))


class NoActivation(Setup):
    "Forget the ReLU between the layers."

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 64), nn.Linear(64, 10))


class SixSigmoids(Setup):
    "Stack six layers of sigmoids."

    def make_model(self):
        hidden = [part for _ in range(5) for part in (nn.Linear(64, 64), nn.Sigmoid())]
        return nn.Sequential(nn.Linear(196, 64), nn.Sigmoid(), *hidden, nn.Linear(64, 10))


class Narrow(Setup):
    "Leave one unit in the hidden layer, by a number in the wrong place."

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 1), nn.ReLU(), nn.Linear(1, 10))


class ModelAnew(Setup):
    "Draw the weights anew at the start of each epoch."

    def start_epoch(self, epoch):
        super().start_epoch(epoch)
        for layer in (self.model[0], self.model[2]):
            layer.reset_parameters()


class ThroughNumpy(Setup):
    "Take the logits through NumPy and back: the graph ends there."

    def criterion(self, logits, yb):
        return F.cross_entropy(torch.tensor(logits.detach().numpy(), requires_grad=True), yb)


class SixteenBits(Setup):
    "Hold weights and inputs in bfloat16."

    def data(self, x, y, x_valid, y_valid):
        return x.bfloat16(), y, x_valid.bfloat16(), y_valid

    def make_model(self):
        return super().make_model().bfloat16()


# Healthy


class Healthy(Setup):
    "Do nothing wrong."


class WithMomentum(Setup):
    "Use momentum."

    def make_optim(self):
        return torch.optim.SGD(self.model.parameters(), 0.02, momentum=0.9)


class WithAdam(Setup):
    "Use Adam."

    def make_optim(self):
        return torch.optim.Adam(self.model.parameters(), 0.001)


class WithAdamW(Setup):
    "Use AdamW."

    def make_optim(self):
        return torch.optim.AdamW(self.model.parameters(), 0.002)


class WithBatchNorm(NoEvalNorm):
    "Use batch normalisation."

    evaluate = Setup.evaluate


class WithDropout(NoEvalDropout):
    "Use dropout."

    evaluate = Setup.evaluate


class WithLayerNorm(Setup):
    "Use layer normalisation."

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 10))


class WithTanh(Setup):
    "Use tanh."

    def make_model(self):
        return nn.Sequential(nn.Linear(196, 64), nn.Tanh(), nn.Linear(64, 10))


class RawInputs(Setup):
    "Use pixels from 0 to 1."

    def data(self, x, y, x_valid, y_valid):
        low, high = x.min(), x.max()
        return (x - low) / (high - low), y, (x_valid - low) / (high - low), y_valid


class ZeroHead(Changed):
    "Start the last layer with 0."

    def change(self, model):
        model[2].weight.zero_()
        model[2].bias.zero_()


class SixLayers(Setup):
    "Stack six layers as PyTorch draws them."

    def make_model(self):
        hidden = [part for _ in range(4) for part in (nn.Linear(64, 64), nn.ReLU())]
        return nn.Sequential(nn.Linear(196, 64), nn.ReLU(), *hidden, nn.Linear(64, 10))


class SixKaiming(SixLayers):
    "Stack six layers as Kaiming draws them."

    def make_model(self):
        model = super().make_model()
        for layer in model[::2]:
            nn.init.kaiming_normal_(layer.weight)
        return model


class TenNormed(Setup):
    "Stack ten layers with batch normalisation."

    def make_model(self):
        sizes = [196] + [64] * 9
        pairs = [(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in zip(sizes, sizes[1:])]
        return nn.Sequential(*(part for pair in pairs for part in pair), nn.Linear(64, 10))


class SmallCNN(Setup):
    "Use convolutions."

    def make_model(self):
        return nn.Sequential(nn.Unflatten(1, (1, 14, 14)), nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(),
                             nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))  # fmt: skip


class OneLayer(Setup):
    "Use a linear model of one layer."

    def make_model(self):
        return nn.Linear(196, 10)

    def make_optim(self):
        return torch.optim.SGD(self.model.parameters(), 0.02)


class Moved(Setup):
    "Move each mini-batch by a pixel at random."

    def make_batches(self):
        inner, chance = super().make_batches(), self.order

        class Loader:
            def __init__(self):
                self.generator = chance

            def __len__(self):
                return len(inner)

            def __iter__(self):
                for xb, yb in inner:
                    down, right = (torch.randint(-1, 2, (2,), generator=chance)).tolist()
                    yield shifted(xb.view(-1, 14, 14), down, right).flatten(1), yb

        return Loader()


class SmallDecay(Setup):
    "Use a small weight decay."

    def make_optim(self):
        return torch.optim.SGD(self.model.parameters(), self.lr, weight_decay=1e-4)


class Smoothed(Setup):
    "Smooth labels by 0.1."

    def criterion(self, logits, yb):
        return F.cross_entropy(logits, yb, label_smoothing=0.1)


class Clipped(ClipHard):
    "Clip gradients to a norm of 1."

    most = 1.0


class MeanOfFour(SumOfFour):
    "Accumulate four mini-batches, and divide."

    def step(self, xb, yb):
        logits = self.model(xb)
        loss = self.criterion(logits, yb)
        (loss / 4).backward()
        self.count += 1
        if self.count % 4 == 0:
            self.optim.step()
            self.optim.zero_grad()
        return loss.detach(), logits.detach()


class CosineOverAll(Scheduled):
    "Let the rate fall on a cosine over all mini-batches."

    def scheduler(self):
        return torch.optim.lr_scheduler.CosineAnnealingLR(self.optim, T_max=400)


BUG, HARMLESS, HEALTHY = "bug", "harmless", "healthy"

GALLERY = {  # set-up: (what it is, the tests that should name it)
    Healthy: (HEALTHY, ()),
    WithMomentum: (HEALTHY, ()),
    WithAdam: (HEALTHY, ()),
    WithAdamW: (HEALTHY, ()),
    WithBatchNorm: (HEALTHY, ()),
    WithDropout: (HEALTHY, ()),
    WithLayerNorm: (HEALTHY, ()),
    WithTanh: (HEALTHY, ()),
    RawInputs: (HEALTHY, ()),
    ZeroHead: (HEALTHY, ()),
    SixLayers: (HEALTHY, ()),
    SixKaiming: (HEALTHY, ()),
    TenNormed: (HEALTHY, ()),
    SmallCNN: (HEALTHY, ()),
    OneLayer: (HEALTHY, ()),
    Moved: (HEALTHY, ()),
    SmallDecay: (HEALTHY, ()),
    Smoothed: (HEALTHY, ()),
    Clipped: (HEALTHY, ()),
    MeanOfFour: (HEALTHY, ()),
    CosineOverAll: (HEALTHY, ()),
    Regression: (HEALTHY, ()),
    NoStep: (BUG, ("gradient",)),
    StepFirst: (BUG, ("gradient",)),
    DropGradient: (BUG, ("gradient",)),
    ForgetZero: (BUG, ("gradient",)),
    ZeroOnceAnEpoch: (BUG, ("gradient",)),
    Stale: (BUG, ("gradient",)),
    EveryFourth: (BUG, ("gradient",)),
    SumOfFour: (BUG, ("gradient",)),
    Ascend: (BUG, ("gradient",)),
    ClipHard: (BUG, ("gradient",)),
    ScaledLoss: (BUG, ("gradient",)),
    StepTwice: (BUG, ("gradient",)),
    KeepGraph: (BUG, ("memory",)),
    HighRate: (BUG, ("updates",)),
    TenTimes: (BUG, ("updates",)),
    ATenth: (BUG, ("updates",)),
    LowRate: (BUG, ("updates",)),
    AThousandth: (BUG, ("updates",)),
    AdamHigh: (BUG, ("updates",)),
    MomentumHigh: (BUG, ("updates",)),
    ExponentialPerStep: (BUG, ("rate",)),
    CosinePerStep: (BUG, ("rate",)),
    WarmUpInEpochs: (BUG, ("updates", "rate")),
    Decay: (BUG, ("updates",)),
    SoftmaxTwice: (BUG, ("criterion",)),
    SummedLoss: (BUG, ("criterion",)),
    WrongDim: (BUG, ("criterion",)),
    NllOfSoftmax: (BUG, ("criterion",)),
    NllOfLogits: (BUG, ("criterion",)),
    Broadcast: (BUG, ("criterion",)),
    HardSmoothing: (BUG, ("criterion",)),
    ForgottenClass: (BUG, ("criterion",)),
    Sorted: (BUG, ("labels", "order")),
    SameBatch: (BUG, ("order",)),
    SameOrder: (HARMLESS, ()),
    InOrder: (HARMLESS, ()),
    ShuffledLabels: (BUG, ("learning",)),
    HalfShuffled: (BUG, ("learning",)),
    NeighbourLabel: (BUG, ("learning",)),
    OffByOne: (BUG, ("learning",)),
    LabelInside: (BUG, ("learning",)),
    OneClass: (BUG, ("labels",)),
    EvenOnly: (BUG, ("labels", "learning")),
    TinySet: (BUG, ("order", "learning")),
    Bytes: (BUG, ("inputs",)),
    NormalisedTwice: (BUG, ("inputs",)),
    Wrapped: (BUG, ("inputs",)),
    MixedRows: (BUG, ("mixing",)),
    Rotated: (BUG, ("learning",)),
    Inverted: (BUG, ("learning",)),
    RawValidation: (BUG, ("learning",)),
    JudgeOnTraining: (BUG, ("overlap",)),
    ValidationInTraining: (BUG, ("overlap",)),
    OwnStatistics: (HARMLESS, ()),
    NoEvalDropout: (BUG, ("evaluation",)),
    NoEvalNorm: (BUG, ("evaluation",)),
    NoEvalSmall: (BUG, ("evaluation",)),
    NeverTrainAgain: (BUG, ("evaluation",)),
    Detach: (BUG, ("reach",)),
    Freeze: (BUG, ("optimiser",)),
    FreezeLast: (BUG, ("optimiser",)),
    HoldLast: (BUG, ("optimiser",)),
    OtherModel: (BUG, ("optimiser",)),
    PlainList: (BUG, ("optimiser",)),
    ThroughNumpy: (BUG, ("reach",)),
    AllDead: (BUG, ("reach",)),
    HalfDead: (BUG, ("reach",)),
    AllZero: (BUG, ("reach",)),
    Constant: (BUG, ("reach", "logits")),
    Normal: (BUG, ("first loss",)),
    TinyWeights: (BUG, ("updates",)),
    ReluLogits: (BUG, ("logits",)),
    TanhLogits: (BUG, ("logits",)),
    DropLogits: (BUG, ("first loss",)),
    DropAll: (BUG, ("one batch",)),
    NoActivation: (BUG, ("logits",)),
    SixSigmoids: (BUG, ("updates", "one batch")),
    Narrow: (BUG, ("one batch",)),
    ModelAnew: (BUG, ("learning",)),
    LogSoftmaxTwice: (HARMLESS, ()),
    SixteenBits: (HARMLESS, ()),
}
SETUPS = {kind.__name__: kind for kind in GALLERY}


def setting(name, seed):
    "Return a setting as it is stored."
    common = {"model": "MLP", "optimiser": "SGD", "rate": "constant", "epochs": 2}
    return {"setup": name, "seed": seed, **common}


def settings():
    "List all runs."
    return [setting(name, seed) for name in SETUPS for seed in SEEDS]


def capped(number):
    "Return a number that JSON knows: NaN and what is beyond `CAP` become `CAP`."
    return max(-CAP, min(CAP, number)) if number == number else CAP


def share(setup):
    "Return the validation accuracy, also of a model whose loss is not finite; never quite 0 or 1."
    with torch.no_grad():
        out = setup.model.eval()(setup.x_valid)
        return min(max(float(setup.accuracy(out, setup.y_valid)), 1e-4), 1 - 1e-4)


def numbers(setup):
    "Return cosine and length of the gradient that is used beside a fresh one, and the least and the most update."
    case, found = nb_13.Case(setup.step, setup.model, setup.criterion, setup.optim, setup.batches), []
    for measure in (nb_13.used_and_fresh, nb_13.update_sizes):
        try:
            with nb_13.put_back(case):
                setup.model.train()
                found.append(measure(case))
        except (RuntimeError, FloatingPointError):
            found.append(None)
    pairs, sizes = found[0] or [(None, None)], found[1] or {}
    used, fresh = pairs[-1]
    cosine = times = 0.0
    if isinstance(used, torch.Tensor):
        cosine = F.cosine_similarity(used, fresh, dim=0).item()
        times = (used.norm() / fresh.norm().clamp(min=1e-12)).item()
    values = (cosine, times, min(sizes.values(), default=0.0), max(sizes.values(), default=0.0))
    return [float(f"{capped(value):.4g}") for value in values]


def run(setting, steps=None):
    "Train one set-up, or only its first mini-batches; return what was recorded, and a few numbers of the first steps."
    kind = SETUPS[setting["setup"]]
    if steps is not None:
        return {"losses": kind(setting["seed"]).run(steps).losses}
    setup = kind(setting["seed"])
    history = setup.run()
    losses, ends = [capped(loss) for loss in history.losses], len(history.losses)
    losses += [CAP] * (400 - ends)
    trained = [statistics.mean(losses[:200]), statistics.mean(losses[200:])]
    valid = list(zip(history.valid_losses, history.valid_accs))
    valid += [(CAP, share(setup))] * (2 - len(valid))
    accs = [acc for acc in history.accs if acc is not None]
    return {
        "losses": losses,
        "epochs": [[a, capped(b), min(max(acc, 1e-4), 1 - 1e-4)] for a, (b, acc) in zip(trained, valid)],
        "ends": ends,
        "curve": [float(f"{statistics.mean(losses[i : i + 10]):.4g}") for i in range(0, 400, 10)],
        "noise": float(f"{statistics.pstdev(losses[350:]):.3g}"),
        "train": round(statistics.mean(accs[-100:]), 4),
        "numbers": numbers(kind(setting["seed"])),
    }


# What the chapter shows of it

NAMED = [name for name, kind in SETUPS.items() if GALLERY[kind][0] == BUG or kind is Healthy]
VIEWS = {"training curve": 1, "and validation": 2, "and numbers of the first steps": 3}


def parts(run):
    "Return what a reader sees of a run, in three parts, each a list of numbers of moderate size."
    curve = [math.asinh(loss) for loss in run["curve"]]
    seen = [*curve, math.asinh(run["noise"]), run["train"]]
    valid = [number for _, loss, acc in run["epochs"] for number in (math.asinh(loss), acc)]
    cosine, times, low, high = run["numbers"]
    return [seen, valid, [cosine, *(math.log10(max(abs(value), 1e-6)) for value in (times, low, high))]]


def nearest(table, judged, known):
    "Return the name of the known run that is nearest to a judged one: {(name, seed): numbers}."

    def distance(a, b):
        return sum((x - y) ** 2 for x, y in zip(table[a], table[b]))

    return min(known, key=lambda other: distance(judged, other))[0]


def standardised(by_run, n_parts):
    "Return one list of numbers for each run: parts count alike, however many numbers they have."
    columns = []
    for part in range(n_parts):
        rows = [each[part] for each in by_run.values()]
        for column in zip(*rows):
            m, s = statistics.mean(column), statistics.pstdev(column) or 1.0
            columns.append([(value - m) / s / len(rows[0]) ** 0.5 for value in column])
    return dict(zip(by_run, zip(*columns)))


def told_apart(runs, n_parts):
    "Return {name: in how many of three seeds the nearest run of the two other seeds was of the same set-up}."
    by_run = {(run["setting"]["setup"], run["setting"]["seed"]): parts(run) for run in runs}
    table = standardised({key: value for key, value in by_run.items() if key[0] in NAMED}, n_parts)
    right = dict.fromkeys(NAMED, 0)
    for key in table:
        known = [other for other in table if other[1] != key[1]]
        right[key[0]] += nearest(table, key, known) == key[0]
    return right


def words(name):
    "Return what a set-up does, as its docstring says."
    return inspect.getdoc(SETUPS[name])


def short(number):
    "Write a number in little room."
    return "over" if abs(number) >= CAP else f"{number:.0f}" if abs(number) >= 100 else f"{number:.2f}"


def row(name, runs):
    "Return the line of a set-up: losses at the start, after 100 mini-batches, at the end; validation in percent."
    some = [run for run in runs if run["setting"]["setup"] == name]
    at = [statistics.median(run["curve"][i] for run in some) for i in (0, 10, 39)]
    acc = statistics.median(run["epochs"][-1][2] for run in some)
    return f"{name}: {' '.join(map(short, at))} {100 * acc:.0f}"


def texts(runs):
    "Return what the chapter's cells hold of the record, by the names that they have there."
    shares = []
    for view, n in VIEWS.items():
        right = told_apart(runs, n)
        percent = 100 * sum(right.values()) / len(right) / len(SEEDS)
        shares.append(f"{view}: {percent:.0f} {sum(count == len(SEEDS) for count in right.values())}")
    rows = [row(name, runs) for name, kind in SETUPS.items() if GALLERY[kind][0] != HEALTHY]
    healthy = [row(name, runs) for name, kind in SETUPS.items() if GALLERY[kind][0] == HEALTHY]
    sizes = [run["numbers"][2:] for run in runs if GALLERY[SETUPS[run["setting"]["setup"]]][0] == HEALTHY]
    kept = sum(3e-4 <= low and high <= 3e-3 for low, high in sizes)
    shares.append(f"healthy runs with updates of 0.0003 to 0.003: {kept} {len(sizes)}")
    return {"shares": shares, "rows_1": rows[:22], "rows_2": rows[22:44], "rows_3": rows[44:66], "rows_4": rows[66:],
            "healthy_rows": healthy}  # fmt: skip
