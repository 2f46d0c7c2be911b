"""Chapter 09: realistic bugs in checkpoints, in the random numbers, in writing and loading files."""

from tools.bugs import Bug

BUGS = [
    Bug("the loader's own random numbers are not put back",
        "        generator.set_state(own)\n", "        pass\n"),
    Bug("the shuffling order is lost in the middle of an epoch",
        'set_random_state(state["rng_start"], self.generators)', 'set_random_state(state["rng_start"])'),
    Bug("the dropout of a resumed epoch starts again from its beginning",
        "        set_random_state(rng_state)\n", "        pass\n"),
    Bug("the last mini-batch before the checkpoint is trained on twice",
        "for self.batch, pair in enumerate(batches, 1):", "for self.batch, pair in enumerate(batches):"),
    Bug("the optimiser's memory is not restored",
        '        learner.optim.load_state_dict(state["optimiser"])\n', ""),
    Bug("the history is not restored", '        learner.history.load_state_dict(state["history"])\n', ""),
    Bug("callbacks start afresh after a resume", "            callback.load_state_dict(own)\n", "            pass\n"),
    Bug("the checkpoint is written over the old one",
        '    with open(f"{path}.part", "wb") as file:\n        file.write(data)\n        file.flush()\n'
        "        os.fsync(file.fileno())                          # on the disk, before the name\n"
        '    os.replace(f"{path}.part", path)\n',
        '    with open(path, "wb") as file:\n        file.write(data)\n        file.flush()\n'
        "        os.fsync(file.fileno())\n"),
    Bug("the new name before the bytes are on the disk",
        "        os.fsync(file.fileno())                          # on the disk, before the name\n", ""),
    Bug("damage is not noticed", "    if hashlib.sha256(body).digest() != checksum:\n", "    if not checksum:\n"),
    Bug("a checkpoint may run anything", 'map_location="cpu", weights_only=True)',
        'map_location="cpu", weights_only=False)'),
    Bug("a checkpoint of another model is taken", "        if a != b:\n            raise ValueError",
        "        if type(a) != type(b):\n            raise ValueError"),
]  # fmt: skip
