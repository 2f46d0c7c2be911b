"""Chapter 15: realistic bugs in counting, windows, attention, the model, its training, and in writing."""

from tools.bugs import Bug

BUGS = [
    # text and characters
    Bug("a damaged file is read all the same", "    if found != files[name]:\n", "    if False:\n"),
    Bug("chapters are named by the wrong signs", "return {text[2:4]: text for text in", "return {text[:2]: text for text in"),
    Bug("unknown characters are dropped in silence", "torch.tensor([self.numbers[char] for char in text], dtype=torch.int64)", "torch.tensor([self.numbers[char] for char in text][1:], dtype=torch.int64)"),
    Bug("an empty text is taken", "        if not text:\n", "        if False:\n"),
    # yardsticks
    Bug("bits and nats are mixed up", "    return nats / math.log(2)", "    return nats * math.log(2)"),
    Bug("Witten-Bell: each context counts one follower", "self.seen // classes, return_inverse=True, return_counts=True)", "self.seen // classes, return_inverse=True, return_counts=True)\n        self.kinds = torch.ones_like(self.kinds)"),
    Bug("Witten-Bell: the shorter context looks at the wrong window", "below = self.shorter(ids[1:]) if self.shorter else 1 / self.classes", "below = self.shorter(ids[:-1]) if self.shorter else 1 / self.classes"),
    Bug("Witten-Bell: the shares do not sum to 1", "mixed = (count + kinds * below) / (total + kinds)", "mixed = (count + below) / (total + kinds)"),
    Bug("Witten-Bell: an unseen context has no chance at all", "return torch.where(total > 0, mixed, below)", "return torch.where(total > 0, mixed, 0)"),
    Bug("a key that was never seen gets its neighbour's count", "return torch.where(known[at] == keys, values[at], 0)", "return values[at]"),
    Bug("windows are numbered from the wrong end", "powers = self.classes ** torch.arange(self.n - 1, -1, -1)", "powers = self.classes ** torch.arange(self.n)"),
    Bug("tables whose numbers overflow are taken", "        if n < 1 or classes ** n >= 2 ** 63 or len(ids) < n:\n", "        if n < 1 or len(ids) < n:\n"),
    # windows
    Bug("the labels are the characters themselves", "return held[..., :-1], held[..., 1:]             # [T]", "return held[..., :-1], held[..., :-1]             # [T]"),
    Bug("windows overlap by one character", "self.ids, self.T, self.stride = ids, T, T if stride is None else stride", "self.ids, self.T, self.stride = ids, T, T - 1 if stride is None else stride"),
    Bug("the last whole window is forgotten", "return (len(self.ids) - self.T - 1) // self.stride + 1", "return (len(self.ids) - self.T - 1) // self.stride"),
    Bug("a text shorter than a window is taken", "        if T < 1 or self.stride < 1 or ids.dim() != 1 or len(ids) <= T:\n", "        if False:\n"),
    # attention
    Bug("loops: the scores are not divided by the root of c", "scores = [sum(q[i, d] * k[j, d] for d in range(q.shape[1])) / math.sqrt(q.shape[1])", "scores = [sum(q[i, d] * k[j, d] for d in range(q.shape[1]))"),
    Bug("the mask is off by one: the next place is seen", "later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)\n    return scores.masked_fill(later, -math.inf).softmax(-1) @ v", "later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(2)\n    return scores.masked_fill(later, -math.inf).softmax(-1) @ v"),
    Bug("no mask", "return scores.masked_fill(later, -math.inf).softmax(-1) @ v", "return scores.softmax(-1) @ v", "see `scaled_dot_product_attention`"),
    Bug("softmax over the queries", "return scores.masked_fill(later, -math.inf).softmax(-1) @ v", "return scores.masked_fill(later, -math.inf).softmax(-2) @ v", "see `scaled_dot_product_attention`"),
    Bug("the mask hides what came before", "return scores.masked_fill(later, -math.inf).softmax(-1) @ v", "return scores.masked_fill(later.T, -math.inf).softmax(-1) @ v", "see `scaled_dot_product_attention`"),
    Bug("softmax without its largest score", "powers = (scores - scores.detach().amax(-1, keepdim=True)).exp()", "powers = (scores - 2 * scores.detach().amax(-1, keepdim=True)).exp() / 2 + 1e-3"),
    Bug("flash attention sees everything", "return F.scaled_dot_product_attention(q, k, v, is_causal=True)", "return F.scaled_dot_product_attention(q, k, v)", "by PyTorch's default path"),
    Bug("heads are joined in the wrong order", "return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))", "return self.out(self.attend(q, k, v).flatten(2).view_as(x))"),
    Bug("keys and values change places", "q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)", "q, v, k = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)"),
    Bug("heads that do not divide the width are taken", "        if heads < 1 or width % heads or rotary and width // heads % 2:\n", "        if heads < 1 or rotary and width // heads % 2:\n"),
    Bug("rotary: both parts turn the same way", "return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)", "return torch.cat([a * cos + b * sin, a * sin + b * cos], dim=-1)"),
    Bug("rotary: all places have the angle of the first", "cos, sin = (each[first:] for each in turns)          # [places, c / 2]", "cos, sin = (each[first:first + 1] for each in turns)"),
    Bug("rotary: only the queries are turned", "            q, k = rotate(q), rotate(k)\n        return self.out(", "            q = rotate(q)\n        return self.out("),
    Bug("one query and many keys: the mask starts at the first", "    _as_many(q, k)\n", "", "by PyTorch's default path"),
    # block and model
    Bug("the block has no shortcut around its MLP", "return x + self.down(self.up(self.norm2(x)).relu())", "return self.down(self.up(self.norm2(x)).relu())"),
    Bug("the block normalises after the sum", "x = x + self.attention(self.norm1(x))\n        return", "x = self.norm1(x + self.attention(x))\n        return"),
    Bug("the MLP has no activation", "return x + self.down(self.up(self.norm2(x)).relu())", "return x + self.down(self.up(self.norm2(x)))"),
    Bug("windows longer than the model's are taken", "        if ids.dim() != 2 or ids.shape[1] > self.T:\n", "        if ids.dim() != 2:\n"),
    Bug("first weights of the wrong size", "p.copy_((even * 2 - 1) * std * math.sqrt(3))", "p.copy_((even * 2 - 1) * std)"),
    Bug("the check for leaks changes the past, too", "other[:, at:] = (other[:, at:] + 1) % max(int(ids.max()) + 1, 2)", "other[:, at - 1:] = (other[:, at - 1:] + 1) % max(int(ids.max()) + 1, 2)"),
    Bug("the check for leaks changes nothing", "other[:, at:] = (other[:, at:] + 1) % max(int(ids.max()) + 1, 2)", "other[:, at:] = other[:, at:] % max(int(ids.max()) + 1, 2)"),
    Bug("the check for leaks takes a place behind the last, and says right", "    if not 0 <= at < ids.shape[1]:\n", "    if False:\n"),
    # the engine
    Bug("engine: the norm forgets its mean", "centred = x - x.mean(-1, keepdim=True)", "centred = x"),
    Bug("engine: the turn has the wrong sign", "swap[range(half, 2 * half), range(half)] = -1.0", "swap[range(half, 2 * half), range(half)] = 1.0"),
    Bug("engine: no shortcut around the attention", "x = x + node_attention(before, p, self.heads)", "x = node_attention(before, p, self.heads)"),
    # training and evaluation
    Bug("a misspelt name of a recipe is taken", "    if odd := \", \".join(sorted(set(recipe) ^ set(TEXT_RECIPE))):\n", "    if odd := \", \".join(sorted(set(TEXT_RECIPE) - set(recipe))):\n"),
    Bug("the held-out chapter is trained on", "Characters(\"\".join(texts.values())), texts.pop(recipe[\"held_out\"])", "Characters(\"\".join(texts.values())), texts[recipe[\"held_out\"]]"),
    Bug("the seed does not reach the first weights", "chance = torch.Generator().manual_seed(recipe[\"seed\"])", "chance = torch.Generator().manual_seed(0)"),
    Bug("the wide Muon forgets how long a matrix is", "alpha=-lr * math.sqrt(max(1, p.shape[0] / p.shape[1])))", "alpha=-2 * lr)"),
    Bug("the wide Muon pushes four times only", "    for _ in range(5):\n        square = wide @ wide.T", "    for _ in range(4):\n        square = wide @ wide.T"),
    Bug("an unknown optimiser is Muon", "    if name not in _MUONS:\n", "    name = name if name in _MUONS else \"Muon\"\n    if False:\n"),
    Bug("weight decay is forgotten", "name, settings = recipe[\"optimiser\"], dict(weight_decay=recipe[\"weight_decay\"])", "name, settings = recipe[\"optimiser\"], {}"),
    Bug("gradients are not clipped", "callbacks = [Rate(warm_up_cosine(steps, steps // 20)), ClipGradient(1.0),\n                 Metrics(accuracy=accuracy)]", "callbacks = [Rate(warm_up_cosine(steps, steps // 20)),\n                 Metrics(accuracy=accuracy)]"),
    Bug("the held-out loss is a mean of means", "loss += cross_entropy_loss(model(xb)[:, -new:], yb[:, -new:]).item() * len(xb)\n        n += len(xb)", "loss += cross_entropy_loss(model(xb)[:, -new:], yb[:, -new:]).item()\n        n += len(xb) / 200"),
    # writing
    Bug("the temperature multiplies", "return softmax((logits - logits.max()) / temperature)", "return softmax((logits - logits.max()) * temperature)"),
    Bug("top-k keeps one too few", "logits.topk(top_k).values[-1], -math.inf)", "logits.topk(max(1, top_k - 1)).values[-1], -math.inf)"),
    Bug("a temperature below 0 is taken", "    if not 0 <= temperature < math.inf or top_k is not None and top_k < 1:\n", "    if top_k is not None and top_k < 1:\n"),
    Bug("the weights are read in another order", "numbers = torch.frombuffer(held, dtype=torch.float16).double()", "numbers = torch.frombuffer(held, dtype=torch.float16).double().flip(0)"),
    Bug("cache: one list for all blocks is taken", "    if not n == len(cache) == different:", "    if n != len(cache):"),
    Bug("cache: every place is the first", "heads, place = block.attention.heads, held[0].shape[1] if held else 0", "heads, place = block.attention.heads, 0"),
    Bug("cache: only the newest key is kept", "            k, v = torch.cat([held[0], k], 1), torch.cat([held[1], v], 1)\n", "            v = torch.cat([held[1], v], 1)[:, -1:]\n"),
    Bug("cache: it is not begun anew when the window moves", "        if seen is None or window[:len(seen)] != seen:\n", "        if seen is None:\n"),
]
