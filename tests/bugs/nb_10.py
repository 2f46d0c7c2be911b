"""Chapter 10: realistic bugs in samplers, in collate and in the loader that joins them."""

from tools.bugs import Bug

BUGS = [
    Bug("the same order in every epoch",
        "yield from torch.randperm(self.n, generator=self.generator).tolist()",
        "yield from torch.randperm(self.n, generator=torch.Generator().manual_seed(0)).tolist()"),
    Bug("len leaves out the short last mini-batch",
        "return -(-len(self.sampler) // self.batch_size)", "return len(self.sampler) // self.batch_size"),
    Bug("samples drawn with repetition",
        "torch.randperm(self.n, generator=self.generator)",
        "torch.randint(self.n, (self.n,), generator=self.generator)"),
    Bug("the sampler ignores its generator", "torch.randperm(self.n, generator=self.generator)", "torch.randperm(self.n)"),
    Bug("no shuffling at all",
        "yield from torch.randperm(self.n, generator=self.generator).tolist()", "yield from range(self.n)"),
    Bug("the last sample is never drawn", "torch.randperm(self.n, generator=self.generator)",
        "torch.randperm(self.n - 1, generator=self.generator)"),
    Bug("the sampler does not know its length", "return self.n\n\n    def __iter__(self):\n        yield", "return self.n - 1\n\n    def __iter__(self):\n        yield"),
    Bug("mini-batches one sample too large", "islice(indices, self.batch_size)", "islice(indices, self.batch_size + 1)"),
    Bug("each mini-batch starts the order again",
        "        while some := list(islice(indices, self.batch_size)):",
        "        while some := list(islice(iter(list(indices)), self.batch_size)):"),
    Bug("the loader has a collate of its own", "yield self.collate([", "yield collate(["),
    Bug("labels in another order than inputs", "    xs, ys = zip(*samples)\n",
        "    xs, ys = zip(*samples)\n    ys = ys[::-1]\n"),
    Bug("labels become floats", "torch.stack([torch.as_tensor(y) for y in ys])",
        "torch.stack([torch.as_tensor(y) for y in ys]).float()"),
    Bug("the slow dataset is not slow", "        time.sleep(self.seconds)\n        return super()", "        return super()"),
]  # fmt: skip
