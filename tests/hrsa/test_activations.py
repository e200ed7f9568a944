"""Reading texts: batches, padding, text order and the amount kept change nothing that is reported."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from realign import hrsa
from realign.hrsa.activations import sample_tokens
from realign.hrsa.forward import batches, encode


class Words:
    """A word-level tokenizer with the two things that hrsa asks of one."""

    pad_token_id = 0

    def __call__(self, texts, add_special_tokens):
        assert add_special_tokens is False
        return {"input_ids": [[1 + sum(map(ord, w)) % 60 for w in t.split()] for t in texts]}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
        pad_token_id=0,
    )
    config.is_causal = False
    return LlamaModel(config).eval()


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(f"w{rng.integers(99)}" for _ in range(rng.integers(1, 20))) for _ in range(25)]


def direct(model, ids):
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.stack(states)[:, 0].numpy()


def test_states_and_means_equal_one_unpadded_pass_per_text(model, texts):
    found = hrsa.collect(model, Words(), texts, tokens=100, token_budget=64)
    ids = Words()(texts, add_special_tokens=False)["input_ids"]
    assert found.states.shape == (3, 100, 16)
    for i, row in enumerate(ids):
        states = direct(model, row)
        np.testing.assert_allclose(found.pooled[:, i], states.mean(1), atol=1e-5)
        mine = found.text_ids == i
        np.testing.assert_allclose(found.states[:, mine], states[:, found.positions[mine]], atol=1e-5)
        np.testing.assert_array_equal(found.token_ids[mine], np.array(row)[found.positions[mine]])


def test_batch_size_and_text_order_change_nothing(model, texts):
    plain = hrsa.collect(model, Words(), texts, tokens=80, token_budget=2000)
    order = np.random.default_rng(1).permutation(len(texts))
    other = hrsa.collect(model, Words(), [texts[i] for i in order], tokens=80, token_budget=20)
    np.testing.assert_allclose(other.states, plain.states, atol=1e-5)
    np.testing.assert_array_equal(order[other.text_ids], plain.text_ids)
    np.testing.assert_array_equal(other.positions, plain.positions)
    np.testing.assert_allclose(other.pooled, plain.pooled[:, order], atol=1e-5)


def test_streamed_batches_hold_every_token_once_and_respect_the_budget(model, texts):
    seen = []
    for batch in hrsa.extract(model, Words(), texts, token_budget=40, layers=[0, 2]):
        row, position = torch.nonzero(batch.mask, as_tuple=True)
        text = torch.from_numpy(batch.texts)[row]
        assert [layer[batch.mask].shape for layer in batch.layers] == [(len(text), 16)] * 2
        assert batch.token_ids.numel() <= 40
        seen += list(zip(text.tolist(), position.tolist(), strict=True))
    lengths = [len(t.split()) for t in texts]
    assert sorted(seen) == [(i, p) for i, n in enumerate(lengths) for p in range(n)]


def test_a_language_model_gives_the_states_of_its_body(model, texts):
    torch.manual_seed(0)
    lm = LlamaForCausalLM(model.config).eval()
    lm.model.load_state_dict(model.state_dict())
    a, b = (hrsa.collect(m, Words(), texts, tokens=50) for m in (model, lm))
    np.testing.assert_allclose(a.states, b.states, atol=1e-6)
    assert a.meta["attention"] == "bidirectional"


def test_the_sample_is_seeded_uniform_over_tokens_and_all_when_there_are_few():
    ids = [list(range(i, i + 1 + i % 7)) for i in range(200)]
    total = sum(map(len, ids))
    first, _ = sample_tokens(ids, 150, seed=0)
    again, _ = sample_tokens(ids, 150, seed=0)
    other, _ = sample_tokens(ids, 150, seed=1)
    np.testing.assert_array_equal(first, again)
    assert len(set(map(tuple, first)) & set(map(tuple, other))) < 100
    assert len(sample_tokens(ids, 10**6, seed=0)[0]) == total
    assert len(set(map(tuple, first))) == 150
    counts = np.zeros(7)
    for seed in range(60):
        chosen, _ = sample_tokens(ids, 150, seed)
        counts += np.bincount(chosen[:, 1], minlength=7)
    available = np.bincount([p for row in ids for p in range(len(row))], minlength=7)
    np.testing.assert_allclose(counts / 60 / available, 150 / total, rtol=0.12)


def test_copies_of_a_text_keep_different_tokens():
    chosen, keys = sample_tokens([list(range(50)), list(range(50))], 20, seed=0)
    assert keys[0] == keys[1]
    assert set(chosen[chosen[:, 0] == 0, 1]) != set(chosen[chosen[:, 0] == 1, 1])


def test_saved_activations_come_back(model, texts, tmp_path):
    found = hrsa.collect(model, Words(), texts, tokens=60)
    found.save(tmp_path / "x")
    back = hrsa.Activations.load(tmp_path / "x")
    for name in ("states", "pooled", "text_ids", "token_ids", "positions", "text_keys"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    assert back.meta == found.meta


def test_long_texts_are_cut_and_counted_or_refused(model):
    long = "word " * 50
    assert hrsa.collect(model, Words(), ["a b", long], tokens=9, max_tokens=30).meta["truncated"] == 1
    with pytest.raises(ValueError, match="text 1 has 50 tokens and the model reads 40"):
        hrsa.collect(model, Words(), ["a b", long], tokens=9)


@pytest.mark.parametrize(
    ("texts", "message"), [(["a", "  "], "text 1 is empty"), ([], "no texts"), (["a"], None)]
)
def test_empty_texts_are_refused_by_index(texts, message):
    if message is None:
        assert encode(Words(), texts, None).ids == [[38]]
        return
    with pytest.raises(ValueError, match=message):
        encode(Words(), texts, 8)


def test_an_overflowing_model_is_named_by_layer(texts):
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    broken = LlamaModel(config)
    with torch.no_grad():
        broken.layers[0].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="states of layer 1 are not finite"):
        hrsa.collect(broken, Words(), texts, tokens=20)


def test_batches_are_by_length_and_a_text_above_the_budget_goes_alone():
    plan = list(batches([3, 50, 4, 4], 12))
    assert plan == [[1], [2, 3, 0]]


def test_compare_reads_each_model_once_and_equals_comparing_what_was_collected(model, texts):
    torch.manual_seed(1)
    other = LlamaModel(model.config).eval()
    calls = []
    handles = [m.register_forward_hook(lambda *_: calls.append(1)) for m in (model, other)]
    settings = SimpleNamespace(cka_tokens=90, knn_tokens=90, k=(5,), resamples=20, seed=0, max_tokens=30)
    metrics = ("cka", "knn", "correlation")
    report = hrsa.compare(model, other, Words(), texts, settings, metrics=metrics)
    for handle in handles:
        handle.remove()
    assert len(calls) == 2  # all texts fit into one batch
    a, b = (hrsa.collect(m, Words(), texts, tokens=90, max_tokens=30) for m in (model, other))
    expected = hrsa.compare_activations(a, b, settings, metrics=metrics)
    pd.testing.assert_frame_equal(report.table, expected.table)
    for name, frame in expected.details.items():
        pd.testing.assert_frame_equal(report.detail(name), frame)


def test_tokenizers_that_disagree_are_refused(model, texts):
    class Other(Words):
        def __call__(self, texts, add_special_tokens):
            rows = super().__call__(texts, add_special_tokens=False)["input_ids"]
            return {"input_ids": [[1 + i % 60 for i in row] for row in rows]}

    with pytest.raises(ValueError, match="same texts, token sample and tokenizer"):
        hrsa.compare(model, model, (Words(), Other()), texts)


def test_attention_is_what_is_asked_for_and_put_back_afterwards(model, texts):
    torch.manual_seed(1)
    other = LlamaModel(model.config).eval()
    settings = SimpleNamespace(cka_tokens=90, k=(5,), resamples=0)
    wanted = {"metrics": ("cka",), "detail": "summary"}
    both = hrsa.compare(model, other, Words(), texts, settings, attention="both", **wanted)
    assert list(both) == ["bidirectional", "causal"]
    diagonal = {mode: report.table["value"].to_numpy() for mode, report in both.items()}
    for mode, report in both.items():
        assert report.meta["attention"] == mode
        alone = hrsa.compare(model, other, Words(), texts, settings, attention=mode, **wanted)
        np.testing.assert_array_equal(alone.table["value"], diagonal[mode])
    assert np.abs(diagonal["causal"] - diagonal["bidirectional"]).max() > 1e-4
    assert model.config.is_causal is False
    with pytest.raises(ValueError, match="attention 'sideways' is unknown"):
        hrsa.compare(model, other, Words(), texts, attention="sideways")


def test_padding_on_the_left_gives_the_same_states(model, texts):
    found = hrsa.collect(model, Words(), texts[:6], tokens=10**6, token_budget=4096)
    ids = Words()(texts[:6], add_special_tokens=False)["input_ids"]
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    with torch.no_grad():
        states = model(input_ids=padded, attention_mask=mask, output_hidden_states=True).hidden_states
    left = torch.stack(states).numpy()
    at = longest - np.array([len(row) for row in ids])[found.text_ids] + found.positions
    np.testing.assert_allclose(left[:, found.text_ids, at], found.states, atol=1e-5)


def test_no_reported_number_depends_on_batch_size_or_text_order(model, texts):
    torch.manual_seed(1)
    other = LlamaModel(model.config).eval()
    settings = SimpleNamespace(cka_tokens=90, knn_tokens=90, k=(5,), resamples=50, seed=0)
    order = np.random.default_rng(2).permutation(len(texts))

    def report(given, budget):
        states = (hrsa.collect(m, Words(), given, tokens=90, token_budget=budget) for m in (model, other))
        return hrsa.compare_activations(*states, settings)

    plain, moved = report(texts, 2000), report([texts[i] for i in order], 25)

    def compared(frame):  # text means keep the order of texts, and so the draws of their intervals
        return frame[frame["variant"] != "text"] if "variant" in frame else frame

    pd.testing.assert_frame_equal(compared(moved.table), compared(plain.table), atol=1e-5, rtol=0)
    for name, frame in plain.details.items():
        if name != "cka_null":  # re-paired texts are drawn
            unit = 180 / np.pi if name == "rotation_angles" else 1  # degrees
            other = compared(moved.detail(name))
            pd.testing.assert_frame_equal(other, compared(frame), atol=1e-5 * unit, rtol=0)
