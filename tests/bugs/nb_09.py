"""Chapter 09: realistic bugs in checkpoints, in the random numbers, in writing and loading files."""

from tools.bugs import Bug

BUGS = [
    Bug("the loader's own random numbers are not put back",
        "        put_back(own)\n", "        pass\n"),
    Bug("the shuffling order is lost in the middle of an epoch",
        'set_random_state(state["rng_start"], self.sources)', 'set_random_state(state["rng_start"])'),
    Bug("the dropout of a resumed epoch starts again from its beginning",
        "        set_random_state(rng_state, sources)\n", "        pass\n"),
    Bug("the last mini-batch before the checkpoint is trained on twice",
        "for _ in islice(batches, n):", "for _ in islice(batches, max(n - 1, 0)):"),
    Bug("nobody looks at what is skipped", "        if marks[-1] != expected[len(marks) - 1]:\n", "        if False:\n"),
    Bug("the marks do not see the order of the labels",
        "return zlib.crc32(numbers.view(torch.uint8).numpy())", "return int(numbers.double().sum())"),
    Bug("the end of a run that was cancelled is not written",
        "        if self.saved != self.place(learner) and (over or learner.step > self.stepped):\n", "        if False:\n"),
    Bug("another learning rate is taken without a word", '            "learning rates": _rates(learner.optim),\n', ""),
    Bug("the optimiser's memory is not restored",
        '        learner.optim.load_state_dict(state["optimiser"])\n', ""),
    Bug("the history is not restored", '        learner.history.load_state_dict(state["history"])\n', ""),
    Bug("callbacks start afresh after a resume", "            callback.load_state_dict(own)\n", "            pass\n"),
    Bug("the checkpoint is written over the old one",
        '    part = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.part"        # nobody else\'s\n    try:\n'
        '        with open(part, "xb") as file:',
        '    part = path\n    try:\n        with open(part, "wb") as file:'),
    Bug("one temporary name for everybody",
        '    part = f"{path}.{os.getpid()}-{os.urandom(4).hex()}.part"        # nobody else\'s\n    try:\n'
        '        with open(part, "xb") as file:',
        '    part = f"{path}.part"\n    try:\n        with open(part, "wb") as file:'),
    Bug("half a file stays on the disk", "            os.unlink(part)\n", "            pass\n"),
    Bug("the new name before the bytes are on the disk",
        "            os.fsync(file.fileno())                      # on the disk, before the name\n", ""),
    Bug("the older files are given away", "    if keep > 1 and os.path.exists(path):\n", "    if False:\n"),
    Bug("damage is not noticed", "    if hashlib.sha256(body).digest() != checksum:\n", "    if not checksum:\n"),
    Bug("a checkpoint may run anything", 'map_location="cpu", weights_only=True)',
        'map_location="cpu", weights_only=False)'),
    Bug("a checkpoint of another model is taken", "        if a != b:\n            raise ValueError",
        "        if type(a) != type(b):\n            raise ValueError"),
]  # fmt: skip
