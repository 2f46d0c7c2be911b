"""Samplers, collate functions and loaders against PyTorch's, and workers."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import data

from exp.nb_10 import *
from tests.chapters.test_nb_04 import identical, problem, run
from tests.chapters.test_nb_09 import InterruptAfter


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 99))
def test_the_sample_loader_is_the_data_loader(n, batch_size, seed):
    x, y = problem(n)
    ours = DataLoader(Dataset(x, y), batch_size, shuffle=True, generator=torch.Generator().manual_seed(seed))
    sampler = ShuffleSampler(n, torch.Generator().manual_seed(seed))
    by_hand = SampleLoader(Dataset(x, y), sampler, batch_size)
    theirs = data.DataLoader(
        data.TensorDataset(x, y),
        batch_size,
        sampler=data.RandomSampler(range(n), generator=torch.Generator().manual_seed(seed)),
    )
    assert len(ours) == len(by_hand) == len(theirs) and len(sampler) == n
    for loaders in zip(ours, by_hand, theirs, strict=True):
        for parts in zip(*loaders):
            assert all(torch.equal(part, parts[0]) and part.dtype == parts[0].dtype for part in parts)


def test_collate_takes_numbers_for_labels():
    samples = [(torch.ones(2), 1), (torch.zeros(2), 0)]
    assert all(torch.equal(a, b) for a, b in zip(collate(samples), data.default_collate(samples)))
    with pytest.raises(ValueError, match=r"shapes \[\(2,\), \(3,\)\], expected one shape"):
        collate([(torch.ones(2), 1), (torch.zeros(3), 0)])


def test_workers_under_spawn_give_the_same_training():
    x, y = problem()
    slow = SlowDataset(x, y, seconds=0.0)

    def loader(workers):
        how = dict(num_workers=1, multiprocessing_context="spawn", persistent_workers=True) if workers else {}
        own = torch.Generator().manual_seed(1)
        parts = dict(sampler=ShuffleSampler(70, own), collate_fn=collate, generator=torch.Generator())
        return lambda x, y: data.DataLoader(slow, 16, **parts, **how)

    assert identical(run(loader=loader(True)), run(loader=loader(False)))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="n: found 0, expected 1 or more"):
        ShuffleSampler(0)
    with pytest.raises(ValueError, match="batch_size: found 0, expected 1 or more"):
        SampleLoader([1], [0], batch_size=0)


@pytest.mark.parametrize("after", [1, 5, 8])
def test_a_run_that_is_fed_by_hand_resumes(after, tmp_path):
    def by_hand(x, y):
        return SampleLoader(Dataset(x, y), ShuffleSampler(70, torch.Generator().manual_seed(1)), 16)

    def checkpointed(*others):
        return run([*others, Checkpoint(tmp_path / "c", every=2, resume=True)], loader=by_hand)

    with pytest.raises(KeyboardInterrupt):
        checkpointed(InterruptAfter(after))
    assert identical(checkpointed(), run(loader=by_hand))


def test_importing_brings_all_chapters_and_warns_of_nothing():
    words = "from exp.nb_10 import *; Learner, Checkpoint, SampleLoader"
    subprocess.run([sys.executable, "-W", "error", "-c", words], check=True)
