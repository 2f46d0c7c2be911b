"""Counting against a dictionary, windows against `unfold`, attention and the model against PyTorch's, writing."""

import collections
import lzma
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import exp.nb_15
from exp.nb_15 import *
from exp.nb_15 import F, _bytes_of, _context, _orthogonal
from tools import corpus
from tools.chapters import chapter


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(classes=11, **settings):
    "Return a small writer in 64 bits, and a window for it."
    model = draw_weights(Writer(classes, 16, 2, 2, T=12, **settings), seeded(1), std=0.3).double()
    return model, torch.randint(0, classes, (3, 12), generator=seeded(2))


# The text


def test_the_text_is_what_the_command_says():
    assert corpus.told()["SHA-256"] == exp.nb_15._FILES["series.txt.xz"]
    assert corpus.check()[0].startswith("series.txt.xz: sha256 ok")
    assert sum(map(len, get_text().values())) == len("".join(get_text().values()))
    assert list(get_text()) == sorted(get_text()) and "15" not in get_text()


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "series.txt.xz").write_bytes(lzma.compress(b"# 00 another text"))
    monkeypatch.setattr(exp.nb_15, "_TEXTS", tmp_path)
    with pytest.raises(ValueError, match="series.txt.xz: found SHA-256 .*damaged"):
        get_text()


def test_the_command_refuses_a_file_that_was_changed(tmp_path, monkeypatch):
    for name in ("series.txt.xz", "README.md"):
        (tmp_path / name).write_bytes((corpus.FOLDER / name).read_bytes())
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    assert corpus.check()
    (tmp_path / "series.txt.xz").write_bytes(_bytes_of("series.txt.xz") + b"\0")
    with pytest.raises(ValueError, match="changed by hand"):
        corpus.check()


@given(text=st.text(min_size=1))
def test_characters_there_and_back(text):
    own = Characters(text)
    ids = own.encode(text)
    assert own.decode(ids) == text and ids.dtype == torch.int64
    assert sorted(set(ids.tolist())) == list(range(len(own)))


@pytest.mark.parametrize("text", ["x", "abx"])
def test_unknown_characters_are_refused(text):
    with pytest.raises(ValueError, match="found .'x'."):
        Characters("ab").encode(text)


@pytest.mark.parametrize("ids", [[-1], [2], [0.5], torch.tensor([1.7])], ids=str)
def test_numbers_that_no_character_has_are_refused(ids):
    with pytest.raises(ValueError, match="expected whole numbers below 2"):
        Characters("ab").decode(ids)
    assert Characters("ab").decode([]) == "" == Characters("ab").decode(torch.zeros(0))


# Counting


def witten_bell(text, n, context, char, classes):
    "Compute a chance from dictionaries, as the formula says."
    if n == 0:
        return 1 / classes
    windows = [text[i : i + n] for i in range(len(text) - n + 1)]
    context = context[-(n - 1) :] if n > 1 else ""
    after = collections.Counter(window[-1] for window in windows if window[:-1] == context)
    below = witten_bell(text, n - 1, context[1:], char, classes)
    if not after:
        return below
    return (after[char] + len(after) * below) / (sum(after.values()) + len(after))


@given(text=st.text("abc", min_size=5, max_size=30), asked=st.text("abcd", min_size=3, max_size=6), n=st.integers(1, 3))
def test_the_tables_are_those_of_a_dictionary(text, asked, n):
    own = Characters("abcd")
    found = NGrams(own.encode(text), n, 4)(own.encode(asked))
    expected = [witten_bell(text, n, asked[i : i + n - 1], asked[i + n - 1], 4) for i in range(len(asked) - n + 1)]
    assert near(found, expected)


@pytest.mark.parametrize("n, length, classes", [(0, 5, 4), (4, 3, 4), (9, 20, 136)])
def test_tables_that_cannot_be(n, length, classes):
    with pytest.raises(ValueError, match=f"n: found {n}, expected"):
        NGrams(torch.zeros(length, dtype=torch.int64), n, classes)


@pytest.mark.parametrize("ids", [[0, 4], [-1, 2], [[0, 1], [1, 0]], [1]], ids=str)
def test_ids_that_cannot_be_looked_up(ids):
    table = NGrams(torch.arange(20) % 4, 2, 4)
    with pytest.raises(ValueError, match=r"found ids of shape .* expected one row of 2 or more, each 0 to 3"):
        table(torch.tensor(ids))
    with pytest.raises(ValueError, match="expected one row|expected 1 or more"):
        NGrams(torch.tensor(ids), 2, 4)


# Windows


@given(length=st.integers(3, 60), T=st.integers(1, 12), stride=st.integers(1, 14))
def test_windows_are_those_of_unfold(length, T, stride):
    ids = torch.arange(length)
    if length <= T:
        with pytest.raises(ValueError, match="more characters than T"):
            Windows(ids, T, stride)
        return
    windows, expected = Windows(ids, T, stride), ids.unfold(0, T + 1, stride)
    x, y = windows[:]
    assert len(windows) == len(expected) and torch.equal(torch.cat([x, y[:, -1:]], 1), expected)
    assert all(torch.equal(windows[i][1], expected[i, 1:]) for i in range(len(windows)))
    assert torch.equal(windows[[0, -1]][0], expected[[0, -1], :-1])


def test_windows_of_two_rows_are_refused():
    with pytest.raises(ValueError, match=r"found \[5, 20\] characters"):
        Windows(torch.zeros(5, 20, dtype=torch.int64), 3)


def test_both_loaders_take_windows():
    windows = Windows(torch.arange(100), 8)
    theirs = torch.utils.data.DataLoader(windows, 4)
    for (a, b), (c, d) in zip(DataLoader(windows, 4), theirs, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


# Attention


@pytest.mark.parametrize("c", [2, 16, 20])
def test_attention_is_pytorchs(c):
    q, k, v = (x.double().requires_grad_() for x in torch.randn(3, 2, 3, 7, c, generator=seeded()))
    ours, theirs = attend(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True)
    weigh = torch.randn(ours.shape, generator=seeded(1), dtype=torch.float64)
    grads = [torch.autograd.grad((out * weigh).sum(), (q, k, v)) for out in (ours, theirs)]
    assert near(ours, theirs) and all(near(a, b) for a, b in zip(*grads))
    assert near(attend_flash(q, k, v), ours)
    one = [x[0, 0].detach() for x in (q, k, v)]
    full = F.scaled_dot_product_attention(*one)
    assert near(attend_loops(*one), full)


@given(places=st.integers(1, 5), classes=st.integers(1, 6), shift=st.floats(-1e3, 1e3))
def test_softmax_is_pytorchs(places, classes, shift):
    scores = torch.randn(places, classes, generator=seeded(places), dtype=torch.float64) * 20 + shift
    assert near(softmax(scores), scores.softmax(-1))


def test_softmax_on_the_engine():
    scores = torch.randn(3, 5, generator=seeded(), dtype=torch.float64)
    node = Node(scores.clone())
    (softmax(node) * torch.arange(5.0, dtype=torch.float64)).sum().backward()
    wanted = scores.clone().requires_grad_()
    (wanted.softmax(-1) * torch.arange(5.0, dtype=torch.float64)).sum().backward()
    assert near(node.grad, wanted.grad)


@given(first=st.integers(0, 40), gap=st.integers(0, 40))
def test_rotary_scores_depend_on_the_distance(first, gap):
    q, k = torch.randn(2, 1, 8, generator=seeded(3), dtype=torch.float64)
    near_by = (rotate(q, first) * rotate(k, first + gap)).sum()
    assert near(near_by, (rotate(q, 0) * rotate(k, gap)).sum())
    assert near(rotate(q.expand(5, 8))[2], rotate(q, 2)[0])


def test_a_layer_is_multihead_attention():
    ours = SelfAttention(12, 3, rotary=False).double()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    own = ours.state_dict()
    theirs.load_state_dict({"in_proj_weight": own["project.weight"], "in_proj_bias": own["project.bias"],
                            "out_proj.weight": own["out.weight"], "out_proj.bias": own["out.bias"]})  # fmt: skip
    x = torch.randn(2, 5, 12, generator=seeded(), dtype=torch.float64)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert near(ours(x), theirs(x, x, x, attn_mask=mask)[0])


@pytest.mark.parametrize("width, heads, rotary", [(10, 3, False), (10, 0, False), (8, -2, False), (6, 2, True)])
def test_heads_that_do_not_fit(width, heads, rotary):
    with pytest.raises(ValueError, match=f"found {heads} heads and a width of {width}"):
        SelfAttention(width, heads, rotary=rotary)


@pytest.mark.parametrize("kind", [attend, attend_flash])
def test_a_mask_that_starts_elsewhere_is_refused(kind):
    q, k = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    with pytest.raises(ValueError, match="expected the same: the mask starts at the first place"):
        kind(q, k, k)


def test_loops_refuse_values_without_keys():
    q = torch.randn(3, 4)
    with pytest.raises(ValueError, match="zip"):
        attend_loops(q, q, q[:2])


@pytest.mark.parametrize("x, first", [(torch.ones(2, 3), 0), (torch.ones(1, 4), -1), (torch.ones(2, 4).long(), 0)])
def test_turns_that_cannot_be(x, first):
    with pytest.raises(ValueError, match="expected pairs of floats, and no place below 0"):
        rotate(x, first)


def test_a_window_without_its_batch_is_refused():
    with pytest.raises(ValueError, match=r"found \[5, 8\], expected \[n, places, width\]"):
        SelfAttention(8, 1, rotary=False)(torch.randn(5, 8))
    with pytest.raises(ValueError, match=r"expected windows \[n, places\] of 12 at most"):
        tiny()[0](torch.zeros(5, dtype=torch.int64))


def test_a_model_computes_where_its_weights_are():
    "The device `meta` has shapes only; what stays behind on the CPU is noticed there."
    for kind in (attend, attend_flash):
        model, ids = tiny(attend=kind)
        assert model.to("meta")(ids.to("meta")).shape == (3, 12, 11)


# The model


@pytest.mark.parametrize("positions", ["rotary", "learned", "none"])
@pytest.mark.parametrize("kind", [attend, attend_flash])
def test_nobody_looks_into_the_future(positions, kind):
    model, ids = tiny(attend=kind, positions=positions)
    assert [first_change(model, ids, at) for at in (1, 5, 11)] == [1, 5, 11]


def test_a_leak_is_found():
    model, ids = tiny(attend=lambda q, k, v: (q @ k.mT).softmax(-1) @ v)
    assert first_change(model, ids, 6) == 0
    model, ids = tiny(attend=lambda q, k, v: v)
    assert first_change(model, ids, 6) == 6
    model, ids = tiny(attend=lambda q, k, v: (q @ k.mT).softmax(-1) @ v)
    assert first_change(model, ids * 0, 6) == 0


@pytest.mark.parametrize("at", [-1, 12, 99])
def test_a_place_that_is_not_there_says_nothing_about_leaks(at):
    with pytest.raises(ValueError, match=f"at: found {at}, expected a place, 0 to 11"):
        first_change(*tiny(), at)


def test_the_weights_are_tied_and_listed_once():
    model, _ = tiny()
    names = dict(model.named_parameters())
    assert len(names) == len(list(model.parameters())) and "embed.weight" in names
    assert sum(p.numel() for p in model.parameters()) == sum(v.numel() for v in model.state_dict().values())


def test_models_that_cannot_be():
    with pytest.raises(ValueError, match="positions: found 'rotery'"):
        Writer(5, positions="rotery")
    for how in ({"T": 0}, {"layers": -1}):
        with pytest.raises(ValueError, match="expected 0 or more, 1 or more"):
            Writer(5, **how)
    model, ids = tiny()
    with pytest.raises(ValueError, match="found .1, 13. places, expected windows .* of 12 at most"):
        model(torch.zeros(1, 13, dtype=torch.int64))


def test_first_weights_have_their_size_and_are_drawn_from_the_seed():
    one, two, other = (draw_weights(Writer(50, 32), seeded(s), std=0.05) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.embed.weight, other.embed.weight)
    assert near(one.blocks[0].up.weight.std(), 0.05, rtol=0.05) and one.blocks[1].down.bias.abs().max() == 0


# Recipes


SMALL = TEXT_RECIPE | {"width": 16, "layers": 1, "heads": 2, "window": 16, "batch_size": 4}


@pytest.mark.parametrize("change, words", [
    ({"optimiser": "Lion"}, "optimiser: found 'Lion'"), ({"lrr": 1}, "found or missed lrr"),
    ({"rate": "constant"}, "rate: found 'constant'"), ({"bits": 16}, "bits: found 16"),
    ({"held_out": "99"}, "held_out: found '99'"), ({"epochs": 0}, "epochs: found 0"),
])  # fmt: skip
def test_recipes_that_cannot_be(change, words):
    with pytest.raises(ValueError, match=words):
        text_learner(SMALL | change)


@pytest.mark.parametrize("change", [
    {"optimiser": "Muon"}, {"optimiser": "Muon, 32 bits"}, {"lr": 0.1}, {"seed": 1}, {"std": 0.3},
    {"positions": "none"}, {"scale": False},
    {"epochs": 1}, {"weight_decay": 5.0}, {"held_out": "03"}, {"batch_size": 5},
], ids=str)  # fmt: skip
def test_everything_in_a_recipe_counts(change):
    wanted, found = (text_losses(SMALL | {"bits": 64, "lr": 0.05, "std": 0.2} | each, 6) for each in ({}, change))
    assert len(found) == 6 and max(abs(a - b) for a, b in zip(found, wanted)) > 1e-9


@pytest.mark.parametrize("n", [0, 10**6])
def test_losses_that_an_epoch_does_not_have(n):
    with pytest.raises(ValueError, match=f"n: found {n}, expected 1 to"):
        text_losses(SMALL, n)


def test_the_wide_muon_is_muon_without_16_bits():
    matrix = torch.randn(12, 5, generator=seeded())
    assert torch.equal(_orthogonal(matrix.bfloat16()), orthogonal(matrix))
    size = torch.linalg.svdvals(_orthogonal(matrix.double()))
    assert 0.6 < size.min() and size.max() < 1.3
    held = []
    for rule in (torch.optim.Muon, Muon, WideMuon):
        weight = nn.Parameter(matrix.clone())
        optim = rule([weight], lr=0.1, weight_decay=0.3)
        for seed in range(4):
            weight.grad = torch.randn(12, 5, generator=seeded(seed))
            optim.step()
        held.append(weight.detach() - matrix)
    assert torch.equal(held[0], held[1]) and 0 < (held[2] - held[1]).norm() / held[1].norm() < 0.02


@pytest.mark.parametrize("new", [0, -2, 13])
def test_places_that_cannot_count(new):
    with pytest.raises(ValueError, match=f"new: found {new}, expected 1 to 12 places"):
        held_out_bits(tiny()[0], torch.zeros(50, dtype=torch.int64), new)


def test_evaluation_by_windows_is_the_mean_over_what_counts():
    model, _ = tiny()
    ids = torch.randint(0, 11, (12 * 7 + 1,), generator=seeded(4))
    x, y = Windows(ids, 12)[:]
    assert near(held_out_bits(model, ids, 12), F.cross_entropy(model(x).mT, y).item() / math.log(2))
    x, y = Windows(ids, 12, 3)[:]
    late = F.cross_entropy(model(x)[:, -3:].mT, y[:, -3:]).item() / math.log(2)
    assert near(held_out_bits(model, ids, 3), late)


# Writing


@given(temperature=st.floats(0.1, 5), top_k=st.integers(1, 8))
def test_chances(temperature, top_k):
    logits = torch.randn(6, generator=seeded(top_k), dtype=torch.float64)
    found = chances(logits, temperature, top_k)
    kept = logits.topk(min(top_k, 6)).indices
    expected = torch.zeros(6, dtype=torch.float64)
    expected[kept] = (logits[kept] / temperature).softmax(0)
    assert near(found, expected)


@pytest.mark.parametrize("how", [{"temperature": -1}, {"top_k": 0}, {"temperature": math.nan},
                                 {"temperature": math.inf}])
def test_chances_that_cannot_be(how):
    with pytest.raises(ValueError, match="found temperature .* expected 0 or more, and 1 or more"):
        chances(torch.zeros(3), **how)


@pytest.mark.parametrize("logits", [[1.0, math.nan], [math.inf, 0.0], [-math.inf] * 2, [[1.0, 2.0]]], ids=str)
def test_logits_that_have_no_chances(logits):
    with pytest.raises(ValueError, match="expected one row with a largest number"):
        chances(torch.tensor(logits))


def test_a_temperature_near_0_is_greedy():
    logits = torch.tensor([3.0, 80.0, -50.0, -math.inf])
    assert chances(logits, 1e-40).tolist() == [0, 1, 0, 0] == chances(logits, 0).tolist()


@given(length=st.integers(1, 90), T=st.sampled_from([1, 2, 5, 12, 64]))
def test_what_the_next_place_sees(length, T):
    found = _context(list(range(length)), T)
    assert found[-1] == length - 1 and len(found) <= T and (length <= T) == (found[0] == 0)
    assert length <= T or len(found) > T // 2


@given(prompt=st.text("abc", min_size=1, max_size=30), seed=st.integers(0, 99))
def test_writing_is_repeatable_and_keeps_its_beginning(prompt, seed):
    model, _ = tiny(3)
    one, two = (write(model, Characters("abc"), prompt, 5, seeded(seed)) for _ in range(2))
    assert one == two and one.startswith(prompt) and len(one) == len(prompt) + 5


def test_what_has_no_chance_is_never_drawn(monkeypatch):
    "The largest number that `torch.rand` draws, and shares whose sum was rounded."
    model, _ = tiny(3)
    monkeypatch.setattr(exp.nb_15, "chances", lambda *_: torch.tensor([0.7, 0.3, 0.0]))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(1 - 2**-24))
    assert write(model, Characters("abc"), "a", 3) == "abbb"


@pytest.mark.parametrize("letters, prompt, n", [("abcd", "a", 3), ("abc", "", 3), ("abc", "a", -1)])
def test_what_cannot_be_written(letters, prompt, n):
    with pytest.raises(ValueError, match="expected a beginning, 0 or more, 3 letters"):
        write(tiny(3)[0], Characters(letters), prompt, n)


@pytest.mark.parametrize("cache, words", [
    ([[]], "found a cache of 1 lists, 1 different"), ([[]] * 2, "found a cache of 2 lists, 1 different"),
    ([[], [], []], "found a cache of 3"),
], ids=str)  # fmt: skip
def test_a_cache_that_would_be_read_in_part_is_refused(cache, words):
    with pytest.raises(ValueError, match=words):
        extend(tiny()[0], 0, cache)


def test_a_cache_that_the_model_cannot_have():
    for positions in ("learned", "none"):
        with pytest.raises(ValueError, match="without rotary positions"):
            extend(tiny(positions=positions)[0], 0, [[], []])
    model, cache = tiny()[0], [[], []]
    with pytest.raises(ValueError, match="found character -1 for place 1"):
        extend(model, -1, cache)
    for i in range(11):
        extend(model, i, cache)
    extend(model, 0, cache)
    with pytest.raises(ValueError, match="for place 13, expected .* 12 places at most"):
        extend(model, 0, cache)


def test_a_cache_gives_the_same_logits():
    model, ids = tiny()
    cache = [[] for _ in model.blocks]
    found = torch.stack([extend(model, int(i), cache) for i in ids[0]])
    assert near(found, model(ids[:1])[0].detach()) and cache[0][0].shape == (2, 12, 8)


def test_the_trained_writer_is_the_records():
    from records import writing
    from tools.records import stored

    kept = next(run for run in stored("writing")["runs"] if run["setting"] == writing.KEPT)
    assert kept["weights"] == exp.nb_15._FILES["writer.f16"]
    model, letters = get_writer()
    ids = letters.encode(get_text()["02"])[:8_001]
    assert 1.2 < held_out_bits(model, ids, 64) < kept["bits"] + 0.3
    assert first_change(model, Windows(ids, 64)[:4][0], 20) == 20


# Byte-pair encoding


def test_the_merges_of_the_exercise_are_those_of_the_library():
    "The list in the check was made by `tokenizers`; where it is installed, make it again."
    tokenizers = pytest.importorskip("tokenizers")
    source = next(cell.source for cell in chapter("15").code_cells if "by_tokenizers = [" in cell.source)
    held = eval(re.search(r"by_tokenizers = (\[.*?\])", source, re.DOTALL)[1])
    own = tokenizers.Tokenizer(tokenizers.models.BPE())
    cut = tokenizers.Regex(r" ?\w+| ?[^\w\s]+|\s+")
    own.pre_tokenizer = tokenizers.pre_tokenizers.Split(cut, "isolated")
    text = get_text()["02"][:20_000]
    how = {"vocab_size": len(set(text)) + 40, "initial_alphabet": [], "min_frequency": 0, "show_progress": False}
    own.train_from_iterator([text], tokenizers.trainers.BpeTrainer(special_tokens=[], **how))
    import json

    merges = json.loads(own.to_str())["model"]["merges"]
    assert ["".join(pair) for pair in merges] == held
