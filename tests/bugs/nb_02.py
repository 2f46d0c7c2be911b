"""Chapter 02: realistic bugs in preparing data, in the loss, and in each version of the training loop."""

from tools.bugs import Bug

BUGS = [
    # data
    Bug("validation images in the training set",
        "x_train, x_valid = x[:50_000], x[50_000:]", "x_train, x_valid = x[:50_000], x[:10_000]"),
    Bug("labels cut at another place than images",
        "y_train, y_valid = y[:50_000], y[50_000:]", "y_train, y_valid = y[10_000:], y[:10_000]"),
    Bug("normalised with the statistics of the validation set",
        "m, s = x_train.mean(), x_train.std()", "m, s = x_valid.mean(), x_valid.std()"),
    Bug("normalised with the statistics of all images, validation included",
        "m, s = x_train.mean(), x_train.std()", "m, s = x.mean(), x.std()"),
    Bug("the validation set normalised with its own statistics",
        "normalize(x_valid, m, s)", "normalize(x_valid, x_valid.mean(), x_valid.std())"),
    Bug("divided by the variance in place of the standard deviation",
        "    return (x - m) / s", "    return (x - m) / s**2"),
    # loss and accuracy
    Bug("sum over the mini-batch in place of the mean",
        "-logp.gather(-1, y[..., None]).mean()", "-logp.gather(-1, y[..., None]).sum()"),
    Bug("softmax over the wrong axis: images compared with each other",
        "    return z - z.exp().sum(dim=-1, keepdim=True).log()", "    return z - z.exp().sum(dim=0, keepdim=True).log()"),
    Bug("log_softmax in place: it changes the logits that it is given",
        "z = logits - logits.detach().amax(dim=-1, keepdim=True)  ",
        "z = logits.sub_(logits.detach().amax(dim=-1, keepdim=True))  "),
    Bug("softmax twice",
        "    return nll(log_softmax(logits), y)", "    return nll(log_softmax(log_softmax(logits).exp()), y)"),
    Bug("logarithm forgotten: probabilities given to nll",
        "    return nll(log_softmax(logits), y)", "    return nll(log_softmax(logits).exp(), y)"),
    Bug("the least likely digit taken for the answer",
        "    return logits.argmax(dim=-1) == y ", "    return logits.argmin(dim=-1) == y "),
    Bug("evaluate: mean over ⌊n/bs⌋ batches, the short one not counted",
        "    return loss / n, right / n", "    return loss / n, right / (n // len(xb) * len(xb))"),
    Bug("evaluate: batches averaged, large and small alike",
        "            loss += yb.numel() * criterion(logits, yb).item()\n"
        "            right += _hits(logits, yb).sum().item()\n            n += yb.numel()",
        "            loss += criterion(logits, yb).item()\n"
        "            right += accuracy(logits, yb).item()\n            n += 1"),
    Bug("evaluate: accuracy of the last batch",
        "            right += _hits(logits, yb).sum().item()\n            n += yb.numel()",
        "            n += yb.numel()\n            right = round(n * accuracy(logits, yb).item())"),
    # the first loop
    Bug("sign of the learning rate: uphill",
        "            model.l1.weight -= model.l1.weight.grad * lr\n", "            model.l1.weight += model.l1.weight.grad * lr\n"),
    Bug("the gradient of one layer is never applied",
        "            model.l2.weight -= model.l2.weight.grad * lr\n            model.l2.bias   -= model.l2.bias.grad   * lr\n",
        ""),
    Bug("one bias updated with the gradient of another",
        "model.l2.bias   -= model.l2.bias.grad   * lr", "model.l2.bias   -= model.l1.bias.grad[:10] * lr"),
    Bug("last, short batch dropped",
        "    for i in range(0, len(x), bs):", "    for i in range(0, len(x) - bs, bs):", "def loop_by_name"),
    Bug("batches overlap by one image",
        "        xb, yb = x[i:i+bs], y[i:i+bs]", "        xb, yb = x[i:i+bs+1], y[i:i+bs+1]", "def loop_by_name"),
    # refactors (a) to (c)
    Bug("activation lost in the rewrite",
        "self.l2(self.l1(xb).relu())               # [n, 10]", "self.l2(self.l1(xb))", "class MLP"),
    Bug("parameters() leaves out the last layer",
        "found = [p for layer in self._layers().values() for p in layer.parameters()]",
        "found = [p for layer in list(self._layers().values())[:-1] for p in layer.parameters()]"),
    Bug("a deleted layer is still listed",
        "        super().__delattr__(name)\n        self._layers().pop(name, None)", "        super().__delattr__(name)"),
    Bug("a model's own parameters are passed over",
        "list(dict.fromkeys(own + found))", "list(dict.fromkeys(found))"),
    Bug("labels shifted by one against the images",
        "        xb, yb = x[i:i+bs], y[i:i+bs]", "        xb, yb = x[i:i+bs], y.roll(1)[i:i+bs]", "def loop_parameters"),
    Bug("zero_grad forgotten",
        "        optim.zero_grad()\n", "", "def loop_sgd"),
    Bug("zero_grad between backward and step: nothing is learned",
        "            optim.zero_grad()\n            loss.backward()\n",
        "            loss.backward()\n            optim.zero_grad()\n", "def fit_slices"),
    Bug("step at the wrong end: each update one mini-batch late",
        """            logits = model(xb)
            loss = criterion(logits, yb)
            history.add(loss, accuracy(logits, yb), len(xb))
            optim.zero_grad()
            loss.backward()
            optim.step()
""", """            optim.step()
            logits = model(xb)
            loss = criterion(logits, yb)
            history.add(loss, accuracy(logits, yb), len(xb))
            optim.zero_grad()
            loss.backward()
""", "def fit_slices"),
    Bug("learning rate of the optimiser 1 % off",
        "            p -= p.grad * self.lr", "            p -= p.grad * self.lr * 0.99"),
    Bug("learning rate divided by the number of parameters",
        "p.add_(p.grad, alpha=-self.lr)", "p.add_(p.grad, alpha=-self.lr / len(self.parameters))"),
    Bug("an empty list of parameters accepted in silence",
        "        if not self.parameters:\n", "        if self.parameters is None:\n"),
    Bug("stale predictions in the report: accuracy of a global, not of this mini-batch",
        "            logits = model(xb)\n            loss = criterion(logits, yb)",
        "            preds = model(xb)\n            loss = criterion(preds, yb)", "def fit_slices"),
    Bug("stale predictions of the right size in the report",
        "history.add(loss, accuracy(logits, yb), len(xb))",
        "history.add(loss, accuracy(net(xb), yb), len(xb))", "def fit_slices"),
    Bug("every epoch ends after its first mini-batch",
        "        history.end_epoch()\n", "            history.end_epoch()\n", "def fit_slices"),
    # refactors (d) to (g)
    Bug("Sequential in reverse",
        "        for layer in self:\n", "        for layer in reversed(list(self)):\n"),
    Bug("Sequential leaves out the last layer",
        "        for layer in self:\n", "        for layer in list(self)[:-1]:\n"),
    Bug("the dataset gives the label of the next image",
        "        return self.x[i], self.y[i]", "        return self.x[i], self.y.roll(-1)[i]"),
    Bug("len of the loader rounded down",
        "        return whole + (rest > 0 and not self.drop_last)", "        return whole"),
    Bug("the loader drops the last, short batch",
        "        for i in range(0, len(self) * bs, bs):\n            yield", "        for i in range(0, n - n % bs, bs):\n            yield"),
    Bug("a slice of a network is a bare list",
        "        if not isinstance(i, slice):\n            return list(self)[i]", "        return list(self)[i]"),
    Bug("the state lacks what the model itself holds",
        "    held = {name: p.detach() for name, p in _own(self).items()}", "    held = {}"),
    Bug("the learning rate is not restored", '    self.lr = state["lr"]', '    state["lr"]'),
    Bug("inputs shuffled without their labels",
        "            yield self.dataset[order[i:i+bs] if self.shuffle else slice(i, i+bs)]",
        "            xb, yb = self.dataset[slice(i, i+bs)]\n"
        "            yield (self.dataset[order[i:i+bs]][0] if self.shuffle else xb), yb"),
    Bug("the same order in every epoch",
        "torch.randperm(n, generator=self.generator).tolist()",
        "torch.randperm(n, generator=torch.Generator().manual_seed(7)).tolist()"),
    Bug("drawn with replacement: some images twice, some never",
        "torch.randperm(n, generator=self.generator).tolist()",
        "torch.randint(n, (n,), generator=self.generator).tolist()"),
    Bug("shuffle has no effect",
        "            yield self.dataset[order[i:i+bs] if self.shuffle else slice(i, i+bs)]",
        "            yield self.dataset[slice(i, i+bs)]"),
    # fit
    Bug("validation on the training data",
        "evaluate(valid, model, criterion))\n    return history", "evaluate(dataloader, model, criterion))\n    return history"),
    Bug("the second epoch trained in evaluation mode",
        "    for _ in range(n_epochs):\n        model.train()\n", "    model.train()\n    for _ in range(n_epochs):\n", "def fit("),
    Bug("validation in training mode",
        "            model.eval()\n            history.validate", "            history.validate"),
    Bug("validation trains too",
        "            history.validate(*evaluate(valid, model, criterion))\n    return",
        "            history.validate(*evaluate(valid, model, criterion))\n"
        "            [optim.step() for xb, yb in valid]\n    return"),
]
