"""The exam: seal and diary, statistics, calibration, files; and what is stored of the one that was held."""

import hashlib
import json
import math
import shutil
import subprocess

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import exp.nb_01
from exp.nb_14 import *
from records.choosing import pack
from records.exam import NETS
from tools import exam as tool
from tools import records
from tools.chapters import ROOT


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def score(x):
    return max(x)


# Seal and diary

NUMBERS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(st.none() | NUMBERS | st.text(),
                     lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)  # fmt: skip


@given(claim=PLAIN)
def test_a_claim_that_was_stored_has_the_same_seal(claim):
    assert frozen(json.loads(json.dumps(claim)), score) == frozen(claim, score)
    assert frozen([claim, 0], score) != frozen([claim, 1], score)


@pytest.mark.parametrize("part", [float("nan"), float("inf"), {"lr": [float("nan")]}])
def test_what_is_no_number_is_not_sealed(part):
    with pytest.raises(ValueError, match="not JSON compliant"):
        frozen(part)


def test_a_tensor_is_not_sealed():
    with pytest.raises(TypeError):
        frozen(torch.ones(2))


def test_the_paper_is_read_for_the_sealed_claim_only(tmp_path):
    exam, read = Exam(tmp_path), []
    with pytest.raises(PermissionError, match="found no seal"):
        exam.open("a", score, paper=lambda: read.append(1))
    exam.seal("b", score)
    exam.seal("a", score)  # nothing was opened: it may be changed
    for claim, code in (("b", (score,)), ("a", ()), ("a", (score, score)), ("a", (seeded,))):
        with pytest.raises(PermissionError, match="changed after they were sealed"):
            exam.open(claim, *code, paper=lambda: read.append(1))
    assert read == [] and exam.diary == []
    assert exam.open("a", score, paper=lambda: "paper") == "paper"
    with pytest.raises(PermissionError, match="found another claim, .*, after an opening"):
        exam.seal("b", score)
    assert exam.seal("a", score) == exam.sealed["seal"] == exam.diary[0]["seal"]
    assert Exam(tmp_path).open("a", score, paper=lambda: 2) == 2 and len(exam.diary) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diary.json", "seal.json"]


def test_an_edited_seal_is_noticed(tmp_path):
    exam = Exam(tmp_path)
    exam.seal({"least": 0.99}, score)
    stored = json.loads((tmp_path / "seal.json").read_text(encoding="utf-8"))
    stored["claim"]["least"] = 0.9
    (tmp_path / "seal.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(PermissionError, match="changed after they were sealed"):
        exam.open(exam.sealed["claim"], score, paper=list)


def test_a_seal_that_was_exchanged_after_an_opening_opens_nothing(tmp_path):
    exam, other, read = Exam(tmp_path), Exam(tmp_path / "other"), []
    other.folder.mkdir()
    exam.seal("a", score)
    exam.open("a", score, paper=list)
    other.seal("b", score)
    shutil.copy(other.folder / "seal.json", tmp_path)
    with pytest.raises(PermissionError, match="found another claim, .*, after an opening"):
        exam.open("b", score, paper=lambda: read.append(1))
    (tmp_path / "seal.json").unlink()
    with pytest.raises(PermissionError, match="found another claim, .*, after an opening"):
        exam.seal("b", score)
    assert read == [] and len(exam.diary) == 1
    exam.seal("a", score)
    assert exam.open("a", score, paper=lambda: "paper") == "paper"


@pytest.mark.parametrize("get", [get_mnist_data, get_fashion_data])
def test_the_test_images_say_whose_they_are(get, capsys, monkeypatch):
    "No image is read for this."
    monkeypatch.setattr(exp.nb_01, "read_idx", lambda path: torch.zeros(2, 2, 2, dtype=torch.uint8))
    get("test")
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "chapter 14" in said
    get()
    assert capsys.readouterr().out == ""


# Statistics


@given(n=st.integers(1, 20_000), part=st.floats(0, 1), z=st.floats(0.5, 4))
def test_wilsons_ends_are_z_errors_away(n, part, z):
    right = round(part * n)
    low, high = wilson(right, n, z)
    assert 0 <= low <= right / n + 1e-12 and right / n - 1e-12 <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert math.isclose(abs(right / n - end), z * math.sqrt(end * (1 - end) / n), rel_tol=1e-6, abs_tol=1e-9)
    mirrored_ends = wilson(n - right, n, z)
    assert numpy.allclose([1 - high, 1 - low], mirrored_ends, atol=1e-12)


@pytest.mark.parametrize("right, n", [(-1, 10), (11, 10), (0, 0), (float("nan"), 10)])
def test_wilson_refuses_what_is_no_share(right, n):
    with pytest.raises(ValueError, match="expected 0 to n of more than 0"):
        wilson(right, n)


def test_a_forecast_is_wider_than_an_interval():
    for n, m in ((100, 100), (1_000, 50), (50, 1_000)):
        (a, b), (c, d) = wilson(0.9 * n, n), forecast(0.9 * n, n, m)
        assert c < a and b < d


@given(only_a=st.integers(0, 12), only_b=st.integers(0, 12), both=st.integers(0, 5))
def test_mcnemar_counts_the_throws_of_a_coin(only_a, only_b, both):
    a = torch.tensor([True] * only_a + [False] * only_b + [True] * both, dtype=torch.bool)
    b = torch.tensor([False] * only_a + [True] * only_b + [True] * both, dtype=torch.bool)
    n, far = only_a + only_b, abs(only_a - only_b)
    chance = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= far) / 2**n
    assert mcnemar(a, b)[:2] == (only_a, only_b) and math.isclose(mcnemar(a, b)[2], chance)
    assert mcnemar(b, a) == (only_b, only_a, mcnemar(a, b)[2])


def test_mcnemar_of_many_images():
    a = torch.arange(10_000) >= 3_000
    assert mcnemar(a, ~a)[2] < 1e-300 or mcnemar(a, ~a)[2] == 0
    with pytest.raises(ValueError, match="two nets on the same images"):
        mcnemar(a, a[:100])


def test_the_winner_among_equals_flatters_as_much_as_chance_says():
    "The best of m equal ones is off by about the mean of the largest of m normal numbers."
    right = torch.rand(20, 8_000, generator=seeded()) < 0.9
    much, _ = flattery(right, 400, 100, seeded(1))
    largest = torch.randn(20_000, 20, generator=seeded(2)).amax(1).mean().item()
    assert 0.7 < much / (largest * math.sqrt(0.9 * 0.1 / 400)) < 1.3


@pytest.mark.parametrize("n", [0, 10, 12])
def test_some_images_choose_and_some_judge(n):
    with pytest.raises(ValueError, match=f"found {n} of 10 images to choose by"):
        flattery(torch.rand(3, 10, generator=seeded()) < 0.5, n, 5)


@pytest.mark.parametrize("shape", [(0,), (3, 100)])
def test_a_bootstrap_wants_answers_in_a_row(shape):
    with pytest.raises(ValueError, match=r"expected \[n\], 1 or more"):
        bootstrap(torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("n, errors", [
    ([10, 100, 1_000], [1.0]), ([10], [1.0]), ([10, 10], [1.0, 2.0]), ([10, 100], [1.0, 0.0]), ([0, 1], [1.0, 2.0]),
    ([10, 100], [math.nan, 1.0]), ([10, 100], [1.0, math.nan]),
])  # fmt: skip
def test_a_power_law_of_what_has_none_is_refused(n, errors):
    with pytest.raises(ValueError, match="expected as many of each, above 0"):
        power_law(n, errors)


def test_an_ensemble_of_one_is_its_member():
    logits = torch.randn(5, 4, generator=seeded())
    assert near(pooled([logits, logits]).float(), log_softmax(logits))
    sure = torch.tensor([[1e4, 0.0]])
    assert pooled([sure, -sure]).exp().tolist() == [[0.5, 0.5]]


# Answers and calibration


@given(n=st.integers(0, 70), seed=st.integers(0, 99))
def test_answers_are_stored(n, seed):
    chance = seeded(seed)
    said = Judged(torch.rand(n, generator=chance) < 0.8, torch.rand(n, generator=chance).double())
    again = unpacked(json.loads(json.dumps(packed(said))))
    assert torch.equal(again.right, said.right) and again.right.dtype == torch.bool
    assert numpy.allclose(1 - again.sure, 1 - said.sure, rtol=0.03)


def test_a_sure_answer_stays_sure():
    said = Judged(torch.ones(3, dtype=torch.bool), torch.tensor([1.0, 1 - 1e-12, 0.0]).double())
    assert (unpacked(packed(said)).sure - said.sure).abs().max() < 1e-6


SURE = torch.tensor([0.6, 0.5])


@pytest.mark.parametrize("right, sure", [
    ([True, False], [0.6, math.nan]), ([True, False], [60, 50]), ([True, False], [-0.1, 0.5]), ([True], [0.6, 0.5]),
    ([[True, False]], [[0.6, 0.5]]),
])  # fmt: skip
def test_what_is_no_probability_is_refused(right, sure):
    said = Judged(torch.tensor(right), torch.tensor(sure, dtype=torch.float64))
    for use in (packed, reliability, calibration_error):
        with pytest.raises(ValueError, match="from 0 to 1, and no NaN"):
            use(said)


def test_a_net_that_answers_nan_is_noticed():
    "`judge` is sealed as it is, and takes NaN for the first class."
    said = judge(torch.full((3, 2), math.nan), torch.zeros(3, dtype=torch.long))
    for use in (packed, calibration_error):
        with pytest.raises(ValueError, match="no NaN"):
            use(said)


def test_no_bins_are_no_calibration():
    with pytest.raises(ValueError, match="found 0 bins"):
        calibration_error(Judged(torch.tensor([True, False]), SURE), 0)


def test_logits_come_in_parts():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)).train(), torch.randn(11, 3)
    found = logits_of(model, x, 4)
    assert found.shape == (11, 4) and not found.requires_grad and near(found, model[0](x))
    assert torch.equal(logits_of(lambda part: part, x, 5), x)


@given(seed=st.integers(0, 99), bins=st.integers(1, 20))
def test_the_calibration_error_is_a_mean_of_gaps(seed, bins):
    chance = seeded(seed)
    said = Judged(torch.rand(90, generator=chance) < 0.7, torch.rand(90, generator=chance).double())
    total = 0.0
    for i in range(bins):
        inside = [k for k in range(90) if min(int(said.sure[k] * bins), bins - 1) == i]
        if inside:
            total += abs(sum(said.sure[k].item() - float(said.right[k]) for k in inside))
    assert math.isclose(calibration_error(said, bins), total / 90, abs_tol=1e-9)
    assert sum(n for n, *_ in reliability(said, bins)) == 90


@pytest.mark.parametrize("T", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(T):
    z = 3 * torch.randn(20_000, 5, generator=seeded())
    y = torch.multinomial(z.softmax(1), 1, generator=seeded(1))[:, 0]
    assert abs(temperature(T * z, y) / T - 1) < 0.05


@pytest.mark.parametrize("logits, y", [
    (torch.eye(3), [0, 1, 2]), (torch.eye(3), [1, 2, 0]), (torch.zeros(3, 3), [0, 1, 2]),
    (torch.full((3, 3), math.nan), [0, 1, 2]), (torch.zeros(0, 3), []),
])  # fmt: skip
def test_a_temperature_that_is_nowhere_is_not_found(logits, y):
    with pytest.raises(ValueError, match="found no temperature"):
        temperature(logits, torch.tensor(y, dtype=torch.long))


def test_a_temperature_wants_a_label_for_each_row():
    with pytest.raises(ValueError, match=r"found logits \[6, 3\] and labels \[2\]"):
        temperature(torch.randn(6, 3, generator=seeded()), torch.tensor([0, 1]))


# Files

SHAPES = st.lists(st.integers(0, 4), max_size=3)
STATES = st.lists(st.tuples(st.sampled_from([torch.float32, torch.int8]), SHAPES), max_size=4)


@given(parts=STATES, about=st.dictionaries(st.text(), st.text(), max_size=2))
def test_tensors_come_back_from_a_file(tmp_path_factory, parts, about):
    path = tmp_path_factory.mktemp("files") / "a.safetensors"
    state = {f"{i}": (9 * torch.randn(shape, generator=seeded(i))).to(kind) for i, (kind, shape) in enumerate(parts)}
    write_safetensors(path, state, about)
    found, told = read_safetensors(path)
    assert told == about and list(found) == list(state)
    assert all(numpy.array_equal(found[name], state[name].numpy()) for name in state)
    assert all(found[name].dtype == state[name].numpy().dtype for name in state)


def test_the_package_reads_our_files_and_we_read_its(tmp_path):
    package = pytest.importorskip("safetensors.torch")
    state = {"a": torch.randn(3, 4), "b": torch.arange(-4, 4, dtype=torch.int8), "c": torch.randn(4, 3).T}
    write_safetensors(tmp_path / "ours", state)
    theirs = package.load_file(tmp_path / "ours")
    assert all(torch.equal(theirs[name], state[name]) for name in state)
    package.save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "theirs")
    assert all(numpy.array_equal(read_safetensors(tmp_path / "theirs")[0][name], state[name].numpy()) for name in state)


@pytest.mark.parametrize("kept", [0, 7, 40, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": torch.ones(30)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="expected"):
        read_safetensors(path)


def with_head(path, change):
    "Write a file of two tensors, with its header changed."
    write_safetensors(path, {"a": torch.ones(3), "b": torch.zeros(2)})
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + n])
    change(head)
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n :])


@pytest.mark.parametrize("change, match", [
    (lambda head: head["b"].update(data_offsets=[0, 8]), "found 20 bytes of numbers, expected 12"),
    (lambda head: head["b"].update(data_offsets=[-8, 20]), "bytes of numbers, expected"),
    (lambda head: head["b"].update(data_offsets=[8, 20]), r"found numbers from \[0, 8\], expected \[0, 12\]"),
    (lambda head: head.pop("a"), r"found numbers from \[12\], expected \[0\]"),
    (lambda head: head["b"].update(dtype="F16"), "b: found F16, expected one of"),
    (lambda head: head["b"].update(dtype="I8"), "cannot reshape"),
    (lambda head: head["b"].update(shape=[3]), "cannot reshape"),
])  # fmt: skip
def test_a_file_whose_header_is_wrong_is_refused(tmp_path, change, match):
    with_head(tmp_path / "a", lambda head: None)
    assert list(read_safetensors(tmp_path / "a")[0]) == ["a", "b"]
    with_head(tmp_path / "a", change)
    with pytest.raises(ValueError, match=match):
        read_safetensors(tmp_path / "a")


def test_a_file_with_something_behind_it_and_another_file_are_refused(tmp_path):
    write_safetensors(tmp_path / "a", {"a": torch.ones(3)})
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes() + b"more")
    with pytest.raises(ValueError, match="found 16 bytes of numbers, expected 12"):
        read_safetensors(tmp_path / "a")
    torch.save({"a": torch.ones(3)}, tmp_path / "b.safetensors")  # renamed
    with pytest.raises(ValueError, match="expected a header of"):
        read_safetensors(tmp_path / "b.safetensors")


@pytest.mark.parametrize("state, about", [
    ({1: torch.ones(2)}, None), ({"__metadata__": torch.ones(2)}, None), ({"a": torch.ones(2)}, {"accuracy": 0.99}),
])  # fmt: skip
def test_names_that_would_be_lost_are_not_written(tmp_path, state, about):
    with pytest.raises(TypeError, match="expected words"):
        write_safetensors(tmp_path / "a", state, about)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("other", [
    "conv 4, pool, conv 6, block 8, max, linear 10", "conv 4, pool, conv 8, block 8, max, linear 10, relu, linear 10",
    "conv 4, pool, conv 8, block 8, conv 8, max, linear 10", "conv 4, pool, conv 8, block 8, max, linear 9",
])  # fmt: skip
def test_norms_are_folded_for_their_own_plan_only(other):
    model = network("conv 4, pool, conv 8, block 8, max, linear 10", shortcut="zeros")
    with pytest.raises((ValueError, RuntimeError), match="is longer than|is shorter than|size mismatch"):
        fold_norms(model, other)


@pytest.mark.parametrize("state", [
    {"w": torch.tensor([[math.nan, 1]])}, {"w": torch.tensor([[math.inf, 1]])}, {"norm.scale": torch.ones(2)},
])  # fmt: skip
def test_what_would_not_come_back_is_not_put_into_8_bits(state):
    with pytest.raises(ValueError, match="expected finite numbers, and no name for a step"):
        in_int8(state)


@pytest.mark.parametrize("plan", [
    "conv 4, pool, conv 8, block 8, max, linear 10", "conv 4 2, block 8 2, mean, linear 6, relu, linear 10",
])  # fmt: skip
def test_a_net_with_folded_norms_computes_the_same(plan):
    set_seed(0)
    model = network(plan, shortcut="zeros")
    for norm in layers_of(model, nn.BatchNorm2d):
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)
        nn.init.uniform_(norm.running_var, 1e-5, 2)
    x = torch.randn(6, 1, 12, 12)
    plain = fold_norms(model.eval(), plan)
    assert layers_of(plain, nn.BatchNorm2d) == [] and near(plain(x), model(x), rtol=1e-3, atol=1e-3)


@given(outs=st.integers(1, 5), ins=st.integers(1, 6), seed=st.integers(0, 50))
def test_8_bits_are_half_a_step_off_at_most(outs, ins, seed):
    weight = torch.randn(outs, ins, generator=seeded(seed)) * torch.rand(outs, 1, generator=seeded(seed)) * 3
    small = in_int8({"w": weight, "b": torch.ones(2)})
    assert small["w"].dtype == torch.int8 and small["w"].abs().max() == 127 and set(small) == {"w", "w.scale", "b"}
    found = from_int8(small)
    assert set(found) == {"w", "b"}
    assert ((found["w"] - weight).abs() <= 0.501 * small["w.scale"][:, None]).all()
    assert not from_int8(in_int8({"w": torch.zeros(2, 3)}))["w"].any()


# What is stored of the exam that was held


def test_the_seal_is_that_of_the_code_and_of_all_that_it_names():
    exam = Exam(tool.FOLDER)
    assert frozen(exam.sealed["claim"], *tool.CODE) == exam.sealed["seal"]
    assert exam.sealed["claim"] == json.loads(json.dumps(tool.claim()))
    assert exam.diary and {entry["seal"] for entry in exam.diary} == {exam.sealed["seal"]}


def git(*words):
    "Return what git prints; skip the test where there is no git, or no history."
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        pytest.skip(f"no history: {done.stderr[:80]}")
    return done.stdout.strip()


def test_the_seal_was_committed_before_the_results():
    folder = "exp/data/exam"
    if git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the history is cut off")
    opened = git("log", "--format=%H", "--diff-filter=A", "--", f"{folder}/test.json").splitlines()
    if not opened:
        pytest.skip("the results are not in this history")
    before = git("show", f"{opened[-1]}^:{folder}/seal.json")
    assert json.loads(before)["seal"] == Exam(tool.FOLDER).sealed["seal"]
    assert not git("ls-tree", "--name-only", f"{opened[-1]}^", f"{folder}/diary.json")
    for name in ("seal.json", "valid.json", "digits.safetensors"):
        assert git("log", "--format=%H", f"{opened[-1]}^..HEAD", "--", f"{folder}/{name}") == "", name


def test_it_is_opened_only_when_the_seal_is_committed(monkeypatch):
    monkeypatch.setattr(tool, "committed", lambda name: False)
    with pytest.raises(PermissionError, match="the seal comes first"):
        tool.main(["open"])


def test_predictions_follow_from_what_is_stored_of_validation():
    sealed = Exam(tool.FOLDER).sealed["claim"]["predictions"]
    assert sealed == json.loads(json.dumps(tool.predictions()))
    for name, row in tool.read("valid.json").items():
        assert unpacked(row).right.double().mean().item() == pytest.approx(row["acc"])
        last = [run["epochs"][-1][2] for run in records.stored("exam")["runs"] if run["setting"] == NETS.get(name)]
        assert len(last) == (name in NETS)
        assert last == [pytest.approx(row["acc"], abs=2e-3)] * len(last)  # a record in 16 bits is judged in 32


@pytest.mark.parametrize("name", ["valid.json", "test.json"])
def test_figures_follow_from_answers(name):
    assert list(tool.read(name)) == list(tool.read("valid.json"))
    for row in tool.read(name).values():
        said = unpacked(row)
        assert len(said.right) == 10_000 and said.right.double().mean().item() == pytest.approx(row["acc"])
        assert said.sure.mean().item() == pytest.approx(row["mean_sure"], abs=2e-3)
        assert calibration_error(said) == pytest.approx(row["ece"], abs=3e-3)


def test_the_small_net_is_small_and_answers_as_is_stored():
    sealed = Exam(tool.FOLDER).sealed["claim"]["files"]
    assert tool.NET.stat().st_size < 300_000
    assert hashlib.sha256(tool.NET.read_bytes()).hexdigest() == sealed[tool.NET.name]
    model, about = digits_net(tool.NET)
    x, y = get_mnist_data()
    images = normalize(x[50_000:50_500], float(about["mean"]), float(about["std"])).view(-1, 1, 28, 28)
    said = judge(logits_of(model, images), y[50_000:50_500])
    stored = unpacked(exam_data("valid")["record CNN, int8"])
    assert (said.right != stored.right[:500]).sum() <= 1
    assert numpy.allclose(1 - said.sure, 1 - stored.sure[:500], rtol=0.2, atol=1e-3)


def test_what_choosing_is_measured_with_is_that_of_the_record():
    told = [run["right"] for run in records.stored("choosing")["runs"]]
    assert exam_data("choosing") == {"right": told}
    assert pack(torch.tensor([True] * 9)) and len(told) == 50
