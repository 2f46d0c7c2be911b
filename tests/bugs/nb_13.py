"""Chapter 13: realistic bugs in the set-up, in the tests, in what puts things back, and in the diagnosis."""

from tools.bugs import Bug

BUGS = [
    # the set-up
    Bug("set-up: the validation images are training images", "torch.arange(50_000, 50_000 + m)", "torch.arange(m)"),
    Bug("set-up: zero_grad is forgotten", "        self.optim.zero_grad()\n        loss.backward()\n        self.optim.step()\n        return loss.detach(), logits.detach()\n\n    def start_epoch",
        "        loss.backward()\n        self.optim.step()\n        return loss.detach(), logits.detach()\n\n    def start_epoch"),
    Bug("set-up: the order is not seeded", "        self.order = torch.Generator().manual_seed(seed)\n", "        self.order = torch.Generator().manual_seed(seed + 1)\n"),
    Bug("set-up: accuracy over the wrong dimension", "return (logits.argmax(1) == yb).float().mean()", "return (logits.argmax(0)[0] == yb).float().mean()"),
    Bug("run: the rate falls a little with each epoch", "self.start_epoch(epoch)\n            left", "self.start_epoch(epoch)\n            self.optim.param_groups[0]['lr'] *= 0.99\n            left"),
    # the case
    Bug("case: what is no function is taken as a step", "if not (callable(step) and callable(criterion)):", "if False:"),
    Bug("case: no mini-batch is taken as a loader", "        if not list(self.first(1)):\n", "        if False:\n"),
    Bug("endless: stops with the loader", "    while done < n:\n", "    if done < n:\n"),
    Bug("put back: the weights stay changed", "            model.load_state_dict(kept[0])\n", ""),
    Bug("put back: the optimiser remembers", "            optim.load_state_dict(kept[1])\n", ""),
    Bug("put back: gradients stay", "                p.grad = grad\n", "                pass\n"),
    Bug("put back: one mode for all layers", "                part.training = mode", "                part.training = modes[0]"),
    Bug("put back: random numbers go on", "    with _chance(case, case.batches, case.valid), _kept(loose):\n", "    with _kept(loose):\n"),
    Bug("put back: what is kept is no copy", "kept = copy.deepcopy((model.state_dict(), optim.state_dict()))", "kept = model.state_dict(), optim.state_dict()"),
    Bug("case: a label beyond the classes is fine", "yb.max() >= self.n_classes:", "yb.max() >= 100 * self.n_classes:"),
    # tests of data and criterion
    Bug("inputs: only NaN counts", "    if abs(mean) > 1 or not 0.2 < spread < 2:\n", "    if False:\n"),
    Bug("inputs: raw bytes are the expectation", "    if abs(mean) > 1 or not 0.2 < spread < 2:\n", "    if abs(mean) < 1 or not 0.2 < spread < 200:\n"),
    Bug("labels: two classes are enough", "    if n < min(case.n_classes, len(y)) / 2:\n", "    if n < min(case.n_classes, len(y)) / 20:\n"),
    Bug("order: a mini-batch is compared with itself", "any(torch.equal(x1, x2) for x2, _ in more)", "any(torch.equal(x2, x2) for x2, _ in more)"),
    Bug("order: epochs are not compared", "    if torch.equal(x3, x4):\n", "    if False:\n"),
    Bug("criterion: ln of the size of the mini-batch", "    if abs(equal - math.log(n)) > 0.05:\n", "    if abs(equal - math.log(len(yb))) > 0.05:\n"),
    Bug("criterion: perfect logits are not tried", "    if abs(best) > 0.05:\n", "    if False:\n"),
    Bug("first loss: bounds that nothing passes", "    if not loss < math.log(case.n_classes) + 1:\n", "    if not loss < math.log(case.n_classes) + 1_000:\n"),
    Bug("mixing: the outputs are not turned back", "out, turned = model(xb), model(xb.flip(0)).flip(0)", "out, turned = model(xb), model(xb.flip(0))"),
    Bug("logits: a ReLU at the end is fine", "    if classes and out.min() >= 0 and out.any():\n", "    if False:\n"),
    Bug("logits: bent by rounding", "    if layers > 1 and bend < 1e-4:\n", "    if layers > 1 and bend < 1e-12:\n"),
    # three steps
    Bug("optimiser: one parameter held is enough", "    lost = [name for p, name in names.items() if p not in held]\n", "    lost = [] if held & set(names) else [*names.values()]\n"),
    Bug("optimiser: frozen parameters are fine", "if not p.requires_grad]\n", "if p.requires_grad is None]\n"),
    Bug("the spy stays", "            del optim.step\n", "            pass\n"),
    Bug("the spy forgets to step", "        return step(*given, **named)\n    optim.step = spied", "        return None\n    optim.step = spied"),
    Bug("fresh gradients: other random numbers", "    with _chance(case), _kept(_buffers(case.model)):\n", "    with _kept(_buffers(case.model)):\n"),
    Bug("reach: what the optimiser holds counts", "    lost = [name for p, name in _names(case.model).items() if p not in reached]\n", "    lost = [name for p, name in _names(case.model).items() if p not in reached and p.grad is None and False]\n"),
    Bug("gradient: the first step only", "    used, fresh = pairs[-1]\n", "    used, fresh = pairs[0]\n"),
    Bug("gradient: about the same direction will do", "    if not cosine > 0.99:\n", "    if not cosine > 0.5:\n"),
    Bug("gradient: length does not count", "    if not 0.9 < times < 1.1:\n", "    if False:\n"),
    Bug("gradient: a step that is never made is fine", "    if used is None:\n", "    if used is None:\n        return None\n    if False:\n"),
    # ten steps and more
    Bug("updates: not relative to the weights", " / before[p].norm().clamp(min=1e-9)\n", "\n"),
    Bug("updates: too low is fine", "    if high < 0.002:\n", "    if high < 0.0:\n"),
    Bug("updates: too high is fine", "    if not low < 0.12:\n", "    if False:\n"),
    Bug("rate: three steps, not thirty", "        for xb, yb in case.endless(30):\n", "        for xb, yb in case.endless(3):\n"),
    Bug("memory: the box holds the graph", "        self.tensor = tensor.detach()\n", "        self.tensor = tensor\n"),
    Bug("memory: the note keeps the box alive", "        boxes.append(weakref.ref(box))\n", "        boxes.append(lambda: box)\n"),
    Bug("by heart: each step sees another mini-batch", "    for _ in range(n):\n        case.step(xb, yb)\n", "    for xb, yb in case.endless(n):\n        case.step(xb, yb)\n"),
    Bug("one batch: any progress will do", "    if not after < 0.1 * before:\n", "    if not after < before:\n"),
    # evaluation and sets
    Bug("evaluation: both with the same random numbers", "        torch.manual_seed(2)                             # dropout would draw others\n", "        torch.manual_seed(1)\n"),
    Bug("evaluation: buffers are not looked at", "    if moved:\n        return f\"changes", "    if False:\n        return f\"changes"),
    Bug("overlap: more than all", "    if sum(rows) > 0.01 * len(rows):\n", "    if sum(rows) > len(rows):\n"),
    Bug("overlap: the same shape is the same image", "    return row.detach().float().cpu().numpy().tobytes()\n", "    return row.shape\n"),
    Bug("learning: validation above training is fine", "    if valid > train + 0.1:\n", "    if valid > train + 1.1:\n"),
    Bug("learning: the untrained model is judged", "    for xb, yb in case.endless(n):\n        case.step(xb, yb)\n        last", "    for xb, yb in case.endless(n):\n        last"),
    # the diagnosis
    Bug("diagnosis: a test that did not look has passed", "            report.not_looked[name] = str(why)\n", "            report.passed.append(name)\n"),
    Bug("diagnosis: a step that raises has passed", "        report.found[name] = words\n", "        report.passed.append(name)\n"),
    Bug("diagnosis: the last finding only", "            report.found |= {name: words} if words else {}\n", "            report.found = {name: words} if words else {}\n"),
    Bug("diagnosis: what a test's own call raises is blamed on the step", "    if getattr(error, \"is_yours\", False):\n", "    if True:\n"),
    Bug("diagnosis: an error of the step is not told from others", "                error.is_yours = True\n", "                pass\n"),
    # numerics
    Bug("first NaN: the inputs are trusted", "    if not xb.isfinite().all():\n        return \"the inputs\"\n", ""),
    Bug("first NaN: the criterion is trusted", "    if not loss.isfinite():\n", "    if False:\n"),
    Bug("first NaN: backward, the layer before is blamed", "            return f\"{behind}, backward\"\n", "            return f\"{place}, backward\"\n"),
]
