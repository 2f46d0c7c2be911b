// What the page says: the verdict of chapter 00, how a run ended, and the same run as a program.

// Compare losses with those of PyTorch, by the rules of `same` in chapter 00: identical, close, or different.
function verdict(ours, theirs, sizes) {
  const n = Math.min(ours.length, theirs.length), gaps = [];
  for (let i = 0; i < n; i++) {
    const gap = Math.abs(ours[i] - theirs[i]) / Math.max(Math.abs(theirs[i]), 1);
    gaps.push(Object.is(ours[i], theirs[i]) ? 0 : Number.isNaN(gap) ? Infinity : gap);
  }
  const first = gaps.findIndex((gap) => gap > 0), equal = gaps.filter((gap) => gap === 0).length;
  const largest = Math.max(0, ...gaps), born = first < 0 ? 0 : Math.max(...gaps.slice(first, first + 10));
  const mean = (losses) => losses.slice(0, n).reduce((sum, loss, i) => sum + loss * sizes[i], 0);
  const apart = Math.abs(mean(ours) / mean(theirs) - 1);
  let top = 1e-6, jumps = false;
  for (const gap of gaps) {
    jumps ||= gap > 1000 * top;
    top = Math.max(top, gap);
  }
  const different = born > 5e-6 || apart > 0.1 || jumps;
  return { word: first < 0 ? "identical" : different ? "different" : "close", n, equal, first: first + 1, born, largest, apart };
}

function verdictInWords({ word, n, equal, first, largest }) {
  if (word === "identical") return `${n} of ${n} losses are equal, bit for bit`;
  return `${equal} of ${n} losses are equal, the first difference is at mini-batch ${first}, the largest is ${largest.toExponential(0)}`;
}

const CURE = "A smaller learning rate is the usual cure.";

// Say how a run stands, in the words of `History` where it diverged. Guessing gives ln 10.
function standing({ losses, epoch, inEpoch, perEpoch, judged }) {
  const last = losses.at(-1), python = { NaN: "nan", Infinity: "inf", "-Infinity": "-inf" };
  if (!Number.isFinite(last)) {
    return `The loss is ${python[last]} at epoch ${epoch}, mini-batch ${inEpoch}: training diverged. ${CURE}`;
  }
  const words = `Validation loss ${judged.loss.toFixed(3)}, ${percent(judged.acc)} of 2,000 unseen images right.`;
  if (losses.length < perEpoch || judged.loss < 2.31) return words;
  const late = losses.slice(-Math.ceil(perEpoch / 10)), training = late.reduce((a, b) => a + b) / late.length;
  if (training > 2.31) return `${words} That is worse than guessing (2.303): training diverged. ${CURE}`;
  return `${words} That is worse than guessing (2.303), though the training loss is ${training.toFixed(3)}.`;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;

// The same run in the series' own pieces, to paste into a notebook; `found` are the first losses of this page.
function program({ lr, batch, hidden, momentum, scale, images, order, drop, seed }, found) {
  const lines = [
    "from exp.nb_02 import *",
    "from torch import nn",
    "",
    "x, y = get_mnist_data()",
    "x = normalize(x, x[:50_000].mean(), x[:50_000].std())",
    `x, y = x[:${images}], y[:${images}]`,
    ...(order === "sorted" ? ["by_digit = y.argsort(stable=True)", "x, y = x[by_digit], y[by_digit]"] : []),
    "",
    `set_seed(${seed})`,
    `model = Sequential(nn.Linear(784, ${hidden}), nn.ReLU(), nn.Linear(${hidden}, 10))`,
    ...(scale === 1 ? [] : ["with torch.no_grad():", "    for p in model.parameters():", `        p.mul_(${scale})`]),
    momentum ? `optim = torch.optim.SGD(model.parameters(), lr=${lr}, momentum=${momentum})` : `optim = SGD(model.parameters(), lr=${lr})`,
    ...(order === "shuffled" ? [`generator = torch.Generator().manual_seed(${seed})`] : []),
    `dataloader = DataLoader(Dataset(x, y), ${batch}${order === "shuffled" ? ", shuffle=True, generator=generator" : ""}${drop ? ", drop_last=True" : ""})`,
    "run = fit(dataloader, model, cross_entropy_loss, optim)",
  ];
  if (found.length) lines.push("", "here = [" + found.map((loss) => loss.toPrecision(7)).join(", ") + "]",
    `assert near(torch.tensor(run.losses[:${found.length}]), torch.tensor(here))`);
  return [...lines, "run.plot()"].join("\n");
}
