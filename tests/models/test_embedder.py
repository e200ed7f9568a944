"""Embedder and its parts against independent computations on a tiny random model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from realign.config import Backbone
from realign.errors import RealignError
from realign.models import loading
from realign.models.batching import budget_batches, query_prefix, tokenize
from realign.models.embedder import Embedder, mean_pool, read_layout

TEXTS = [
    "short",
    "a text of middling length, with a comma",
    "x" * 90,
    "(starts with a bracket",
    "Ünïcode — ça va?",
    "b",
]


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def fresh(request):
    """Gives new copies of a tiny model, for tests that change it."""
    return lambda: loading.load(Backbone(source=f"random:0/{request.param}"), attention="bidirectional")


@pytest.fixture(scope="module")
def tiny(fresh):
    return fresh()


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory) -> Path:
    """The tiny model as a sentence-transformers directory, written by sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    folder = tmp_path_factory.mktemp("tiny")
    tiny[0].save_pretrained(folder / "base")
    tiny[1].save_pretrained(folder / "base")
    transformer = Transformer(
        str(folder / "base"),
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    pooling = Pooling(tiny[0].config.hidden_size, pooling_mode="mean", include_prompt=False)
    SentenceTransformer(modules=[transformer, pooling, Normalize()]).save(str(folder / "model"))
    return folder / "model"


def test_mean_pool_is_the_normalised_mean_over_the_mask():
    rng = np.random.default_rng(0)
    states = rng.standard_normal((3, 5, 4))
    mask = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    means = np.stack([states[i][mask[i] == 1].mean(axis=0) for i in range(3)])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    got = mean_pool(torch.tensor(states, dtype=torch.float32), torch.tensor(mask)).numpy()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(mean_pool(torch.tensor(states), torch.tensor(mask)), expected, atol=1e-14)


def test_mean_pool_sums_in_float32():
    # 4096 equal bfloat16 values: a sum kept in bfloat16 would stop growing at 256
    states = torch.ones(1, 4096, 2, dtype=torch.bfloat16)
    states[..., 1] = 0.5
    np.testing.assert_allclose(
        mean_pool(states, torch.ones(1, 4096)).numpy(), [[0.8944272, 0.4472136]], atol=1e-5
    )


@pytest.mark.parametrize("instruction", [None, "Find the answer"])
def test_vectors_do_not_depend_on_batches_order_or_padding_side(tiny, instruction):
    alone = Embedder(*tiny, token_budget=1).encode(TEXTS, instruction)
    together = Embedder(*tiny, token_budget=100_000).encode(TEXTS, instruction)
    left = Embedder(*tiny, token_budget=300, padding_side="left").encode(TEXTS[::-1], instruction)[::-1]
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_allclose(left, alone, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)


def test_instruction_is_read_but_not_pooled(tiny):
    model, tokenizer = tiny
    text, instruction = "what is it", "Find the answer"
    prefix = f"Instruct: {instruction}\nQuery:"
    ids = torch.tensor([tokenizer(prefix + text)["input_ids"]])
    states = model(input_ids=ids).last_hidden_state[0].detach().double().numpy()
    content = states[len(tokenizer(prefix)["input_ids"]) :]
    assert len(content) == len(text)  # this tokeniser has one token for each byte
    expected = content.mean(axis=0)
    got = Embedder(model, tokenizer).encode([text], instruction)[0]
    np.testing.assert_allclose(got, expected / np.linalg.norm(expected), atol=1e-5)
    whole = states.mean(axis=0)
    assert np.abs(got - whole / np.linalg.norm(whole)).max() > 1e-3


@pytest.mark.parametrize("instruction", [None, "Find the answer"])
def test_agrees_with_sentence_transformers_on_a_saved_model(saved, instruction):
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(saved), device="cpu")
    expected = plain.encode(TEXTS, prompt=query_prefix(instruction) if instruction else None, batch_size=2)
    np.testing.assert_allclose(Embedder.from_directory(saved).encode(TEXTS, instruction), expected, atol=1e-5)


def test_bfloat16_multiplies_and_keeps_sums_norms_and_pooling_in_float32(tiny, fresh):
    embedder = Embedder(*fresh(), dtype=torch.bfloat16)
    linear = {name for name, m in embedder.model.named_modules() if isinstance(m, torch.nn.Linear)}
    half = {n for n, p in embedder.model.named_parameters() if p.dtype == torch.bfloat16}
    assert half == {f"{name}.weight" for name in linear}
    seen = []
    for layer in embedder.model.layers:
        layer.register_forward_hook(
            lambda module, inputs, output: seen.append((inputs[0].dtype, output.dtype))
        )
        layer.mlp.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    vectors = embedder.encode(TEXTS)
    assert set(seen) == {(torch.float32, torch.float32), torch.bfloat16}
    assert vectors.dtype == np.float32
    assert (Embedder(*tiny).encode(TEXTS) * vectors).sum(axis=1).min() > 0.9999


def test_bfloat16_is_nearer_to_float32_than_a_model_cast_altogether():
    def llama():
        return loading.load(Backbone(source="random:0/llama"), attention="bidirectional")

    exact = Embedder(*llama()).encode(TEXTS)
    model, tokenizer = llama()
    ours = Embedder(model, tokenizer, dtype=torch.bfloat16).encode(TEXTS)
    whole = llama()[0].to(torch.bfloat16)
    ids = [torch.tensor([tokenizer(text)["input_ids"]]) for text in TEXTS]
    with torch.no_grad():
        states = [whole(input_ids=i).last_hidden_state for i in ids]
    cast = torch.cat([mean_pool(s, torch.ones(s.shape[:2])) for s in states]).numpy()
    assert np.linalg.norm(ours - exact) < 0.9 * np.linalg.norm(cast - exact)


def test_long_texts_are_cut_and_counted(tiny):
    embedder = Embedder(*tiny, max_tokens=16)
    vectors = embedder.encode(["y" * 40, "y" * 16, "y" * 10])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert (embedder.stats.truncated, embedder.stats.tokens, embedder.stats.texts) == (1, 42, 3)


@pytest.mark.parametrize("bad", ["", " \n\t"])
def test_an_empty_text_is_an_error_that_names_its_place(tiny, bad):
    with pytest.raises(RealignError, match=r"text 2 of 3 is empty"):
        Embedder(*tiny).encode(["one", "two", bad])


@pytest.mark.parametrize(
    ("bad", "message"), [(3, "is a int"), (None, "is a NoneType"), ("a\ud800", "half a character")]
)
def test_what_is_no_text_is_an_error_that_names_its_place(tiny, bad, message):
    with pytest.raises(RealignError, match=f"text 1 of 2 .*{message}"):
        Embedder(*tiny).encode(["one", bad])


def test_an_instruction_that_leaves_no_room_is_an_error(tiny):
    with pytest.raises(RealignError, match="leaves no room"):
        tokenize(tiny[1], ["text"], "Find " * 20, max_tokens=32)


def test_no_texts_give_no_vectors(tiny):
    assert Embedder(*tiny).encode([]).shape == (0, 64)


def test_batches_hold_every_text_once_within_the_budget_and_waste_little():
    lengths = np.random.default_rng(0).lognormal(4, 0.8, 1000).astype(int).clip(3, 2000).tolist()
    for budget in (1000, 8192, 65536):
        batches = list(budget_batches(lengths, budget, fall=0.08))
        assert sorted(i for b in batches for i in b) == list(range(1000))
        sizes = [max(lengths[i] for i in b) * len(b) for b in batches]
        assert all(size <= budget or len(b) == 1 for size, b in zip(sizes, batches, strict=True))
        assert sum(lengths) / sum(sizes) > 0.95, budget
        assert len(batches) < 300


def test_weights_that_give_nan_are_an_error(fresh):
    model, tokenizer = fresh()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(RealignError, match="NaN"):
        Embedder(model, tokenizer).encode(["a"])


def test_a_directory_of_another_kind_is_refused(saved, tmp_path):

    with pytest.raises(RealignError, match=r"no modules\.json"):
        Embedder.from_directory(tmp_path)
    folder = tmp_path / "other"
    shutil.copytree(saved, folder)
    modules = json.loads((folder / "modules.json").read_text())
    path = folder / modules[1]["path"] / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "include_prompt": True}))
    with pytest.raises(RealignError, match="include_prompt=True"):
        Embedder.from_directory(folder)
    (folder / "modules.json").write_text("{")
    with pytest.raises(RealignError, match="damaged"):
        Embedder.from_directory(folder)


def test_a_maximum_length_set_in_sentence_transformers_is_kept(saved: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(saved), device="cpu")
    plain.max_seq_length = 32
    plain.save_pretrained(str(tmp_path))
    ours = Embedder.from_directory(tmp_path)
    assert ours.max_tokens == 32
    texts = ["a long text " * 20, "short"]
    np.testing.assert_allclose(ours.encode(texts), plain.encode(texts), atol=1e-5)


@pytest.mark.parametrize(
    ("own", "tokenizer", "positions", "expected"),
    [
        (16, 32, 64, 16),
        (None, 32, 64, 32),
        (None, 10**30, 64, 64),
        (None, None, 64, 64),
        (None, None, None, 512),
        (128, 32, 64, 128),  # as sentence-transformers: its own setting wins
    ],
)
def test_the_longest_sequence_is_read_as_sentence_transformers_does(
    own: int | None, tokenizer: int | None, positions: int | None, expected: int, saved: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(saved, tmp_path / "m")
    for name, key, value in (
        ("sentence_bert_config.json", "max_seq_length", own),
        ("tokenizer_config.json", "model_max_length", tokenizer),
        ("config.json", "max_position_embeddings", positions),
    ):
        content = json.loads((folder / name).read_text())
        content.pop(key, None)
        (folder / name).write_text(json.dumps(content if value is None else {**content, key: value}))
    assert read_layout(folder).max_tokens == expected


@pytest.mark.parametrize("name", ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", "3"])
def test_damaged_settings_are_one_sentence(name: str, content: str, saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "m")
    (folder / name).write_text(content)
    with pytest.raises(RealignError, match="damaged") as caught:
        Embedder.from_directory(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("texts", [[""], ["a", ""], ["", "", " "]])
def test_an_empty_text_is_refused_alone_as_in_a_batch(saved: Path, texts: list[str]) -> None:
    with pytest.raises(RealignError, match="is empty: there is nothing to embed"):
        Embedder.from_directory(saved).encode(texts)
