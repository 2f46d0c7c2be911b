"""Samplers, collate functions and loaders against PyTorch's, files that are mapped, augmentation, and workers."""

import pickle
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


@given(st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_the_sampler_is_the_random_sampler_in_every_pass(n, seed, own):
    "With a generator and without one; and what is drawn next is the same."

    def four_passes(make):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed) if own else None
        sampler = make(generator)
        left = [list(sampler) for _ in range(4)], torch.rand(3).tolist()
        return left, torch.rand(3, generator=generator).tolist()

    ours, theirs = (lambda g: ShuffleSampler(n, g)), (lambda g: data.RandomSampler(range(n), generator=g))
    assert four_passes(ours) == four_passes(theirs)


@pytest.mark.parametrize("own", [True, False])
def test_three_epochs_are_fed_alike(own):
    x, y = problem(50)

    def seen(make_sampler, make_loader):
        torch.manual_seed(3)
        loader = make_loader(make_sampler(torch.Generator().manual_seed(1) if own else None))
        return [torch.cat([yb for _, yb in loader]).tolist() for _ in range(3)]

    ours = seen(lambda g: ShuffleSampler(50, g), lambda s: SampleLoader(Dataset(x, y), s, 16))
    spent = torch.Generator()  # for the seed of the workers that it has not
    loader = lambda s: data.DataLoader(Dataset(x, y), 16, sampler=s, generator=spent)  # noqa: E731
    assert ours == seen(lambda g: data.RandomSampler(range(50), generator=g), loader)
    assert ours == seen(lambda g: ShuffleSampler(50, g), loader) and ours[0] != ours[1] != ours[2]


def test_whole_mini_batches_by_a_batch_sampler_train_alike():
    x, y = problem()

    def loader(whole):
        def make(x, y):
            sampler, spent = ShuffleSampler(70, torch.Generator().manual_seed(1)), torch.Generator()
            if not whole:
                return SampleLoader(Dataset(x, y), sampler, 16)
            batches = data.BatchSampler(sampler, 16, drop_last=False)
            return data.DataLoader(Dataset(x, y), sampler=batches, batch_size=None, generator=spent)

        return make

    assert identical(run(loader=loader(True)), run(loader=loader(False)))


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


@pytest.fixture
def mapped(tmp_path):
    "Return a dataset over a file of bytes, and the bytes."
    values = torch.randint(256, (70, 2, 3), dtype=torch.uint8)
    (tmp_path / "values").write_bytes(values.numpy().tobytes())
    return MappedDataset(tmp_path / "values", torch.arange(70), [2, 3], torch.Tensor.float), values


def test_a_mapped_file_is_the_dataset(mapped):
    ds, values = mapped
    memory = Dataset(values.float(), torch.arange(70))
    for where in (0, -1, 69, slice(3, 20), slice(None, None, 7), [5, 5, 2], torch.tensor([1, 0])):
        for ours, expected in zip(ds[where], memory[where], strict=True):
            assert torch.equal(ours, expected) and ours.dtype == expected.dtype
    assert len(ds) == 70
    with pytest.raises(IndexError):
        ds[70]


def test_a_mapped_file_is_not_written_to(mapped):
    ds, values = mapped
    ds.values[:9] += 1
    again = MappedDataset(ds.path, ds.y, ds.shape)
    assert torch.equal(again.values, values) and torch.equal(again[3][0], values[3])


def test_a_mapped_file_travels_as_its_path(mapped):
    ds, values = mapped
    ds.prepare = None
    sent = pickle.dumps(ds)
    assert values.numpy().tobytes()[:60] not in sent and torch.equal(pickle.loads(sent).values, values)


def test_workers_under_spawn_read_the_same_file(tmp_path):
    values = torch.randint(256, (40, 6), dtype=torch.uint8)
    (tmp_path / "values").write_bytes(values.numpy().tobytes())
    ds = MappedDataset(tmp_path / "values", torch.arange(40), [6])
    loader = data.DataLoader(ds, 10, num_workers=2, multiprocessing_context="spawn", collate_fn=collate)
    assert torch.equal(torch.cat([xb for xb, _ in loader]), values)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 4), st.integers(0, 99))
def test_shift_moves_each_image_by_whole_pixels(n, h, w, reach, seed):
    images = torch.rand(n, h, w)
    before = images.clone()
    moved = shift(images, reach, torch.Generator().manual_seed(seed))
    corners = torch.randint(2 * reach + 1, (n, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    for image, result, (top, left) in zip(before, moved, corners, strict=True):
        for row in range(h):
            for col in range(w):
                i, j = row + top - reach, col + left - reach
                expected = image[i, j] if 0 <= i < h and 0 <= j < w else 0
                assert result[row, col] == expected
    assert torch.equal(images, before)


def test_shift_takes_bytes_and_global_random_numbers():
    images = torch.randint(256, (5, 6, 6), dtype=torch.uint8)
    torch.manual_seed(1)
    first, second = shift(images), shift(images)
    assert first.dtype == torch.uint8 and not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(shift(images), first)


class AddsOne(Callback):
    "Add to the inputs: in place, or not."

    def __init__(self, in_place):
        self.in_place = in_place

    def before_batch(self, learner):
        learner.xb = learner.xb.add_(1) if self.in_place else learner.xb + 1


def test_untouched_notices_what_is_changed_in_place():
    def in_order(seen):
        def make(x, y):
            seen.append(Dataset(x.clone(), y))
            return DataLoader(seen[0], 16)

        return make

    class Watch(Callback):
        "Watch the data of the loader that is trained with."

        def before_fit(self, learner):
            self.guard = Untouched(learner.dataloader.dataset.x)
            self.guard.before_fit(learner)

        def after_batch(self, learner):
            self.guard.after_batch(learner)

    with pytest.raises(RuntimeError, match="mini-batch 1: the data were changed in place, expected a new tensor"):
        run([AddsOne(True), Watch()], loader=in_order([]))
    run([AddsOne(False), Watch()], loader=in_order([]))


def test_what_cannot_be_is_refused(tmp_path):
    for n in (0, 2.5):
        with pytest.raises(ValueError, match=f"n: found {n}, expected 1 or more, whole"):
            ShuffleSampler(n)
    with pytest.raises(TypeError, match=r"found inputs of type \['float'\], expected tensors"):
        collate([(1.5, 0), (torch.ones(2), 1)])
    with pytest.raises(ValueError, match="batch_size: found 2.5, expected 1 or more, whole"):
        SampleLoader([1], [0], batch_size=2.5)
    (tmp_path / "short").write_bytes(bytes(11))
    with pytest.raises(ValueError, match=r"short: found 11 bytes, expected 12: 4 samples of shape \[3\]"):
        MappedDataset(tmp_path / "short", torch.arange(4), (3,))
    with pytest.raises(ValueError, match="batch_size: found 0, expected 1 or more"):
        SampleLoader([1], [0], batch_size=0)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("after", [1, 5, 8])
def test_a_run_that_is_fed_by_hand_resumes(after, own, tmp_path):
    def by_hand(x, y):
        return SampleLoader(Dataset(x, y), ShuffleSampler(70, torch.Generator().manual_seed(1) if own else None), 16)

    def checkpointed(*others):
        return run([*others, Checkpoint(tmp_path / "c", every=2, resume=True)], loader=by_hand)

    with pytest.raises(KeyboardInterrupt):
        checkpointed(InterruptAfter(after))
    assert identical(checkpointed(), run(loader=by_hand))


def test_importing_brings_all_chapters_and_warns_of_nothing():
    words = "from exp.nb_10 import *; Learner, Checkpoint, SampleLoader"
    subprocess.run([sys.executable, "-W", "error", "-c", words], check=True)
