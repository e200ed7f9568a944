"""Pre-tokenizers of GGUF files: known names split as llama.cpp does, unknown ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_gguf import write_tiny, write_tiny_gemma

from realign.config import Backbone
from realign.errors import RealignError, UsageError
from realign.models import gguf, loading, untrained

KNOWN = sorted(gguf.PRE_TOKENIZERS)


def pieces(name: str, text: str) -> list[str]:
    """The pieces that byte-pair encoding is then applied to, as text."""
    return [text[a:b] for _, (a, b) in gguf.pre_tokenizer(name).pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("smollm", "a\n\n12", ["a", "\n\n", "1", "2"]),
        ("smollm", "Hello world! 123", ["Hello", " world", "!", " ", "1", "2", "3"]),
        ("smollm", "x  y\n  z", ["x", " ", " y", "\n ", " z"]),
        ("smollm", "it's 3½", ["it", "'s", " ", "3", "½"]),
        ("gpt-2", "a\n\n12", ["a", "\n", "\n", "12"]),
        ("gpt-2", "Hello world! 123", ["Hello", " world", "!", " 123"]),
        ("qwen2", "a\n\n12", ["a", "\n\n", "1", "2"]),
        ("qwen2", "I'M (here)\n x", ["I", "'M", " (", "here", ")\n", " x"]),
    ],
)
def test_text_is_split_by_the_rule_of_its_name(name: str, text: str, expected: list[str]) -> None:
    assert pieces(name, text) == expected


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"tokenizer\.ggml\.pre.*'smolm'; did you mean 'smollm'"):
        gguf.pre_tokenizer("smolm")


@pytest.mark.parametrize("name", KNOWN)
@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_no_character_is_lost(name: str, text: str) -> None:
    tokenizer = untrained.byte_tokenizer()
    gguf.use_pre_tokenizer(tokenizer, name)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab 1½\n\r\t'sS.!é数"))
def test_digits_stand_alone_and_the_rest_is_split_as_gpt2_does(text: str) -> None:
    """The published rule of smollm, once more: the digits cut the text, and GPT-2's rule splits what is between."""
    expected: list[str] = []
    part = ""
    for character in [*text, ""]:
        if (character.isnumeric() and character != "数") or not character:
            expected += pieces("gpt-2", part) if part else []
            expected += [character] if character else []
            part = ""
        else:
            part += character
    assert pieces("smollm", text) == expected


def test_a_converted_model_splits_text_as_its_file_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny(tmp_path / "tiny.gguf", pre="smollm", merges=["Ċ Ċ", "1 2"])
    gguf.dequantise(tmp_path / "tiny.gguf", tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    tokenizer = loading.load_tokenizer(Backbone(source=f"path:{tmp_path / 'model'}"))
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a\n\n12", add_special_tokens=False).input_ids)
    assert tokens == ["a", "ĊĊ", "1", "2"]


@pytest.mark.parametrize(
    ("pre", "message"), [("homemade", "unknown pre-tokenizer"), ("", "has no tokenizer.ggml.pre")]
)
def test_a_file_whose_rule_is_not_known_is_refused(pre: str, message: str, tmp_path: Path) -> None:

    write_tiny(tmp_path / "tiny.gguf", pre=pre)
    with pytest.raises(RealignError, match=message):
        gguf.dequantise(tmp_path / "tiny.gguf", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A converted Gemma 3 file with a SentencePiece tokenizer, and the weights that it was written from."""
    folder = tmp_path_factory.mktemp("gemma")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALIGN_CACHE", str(folder))
        weights = write_tiny_gemma(folder / "tiny.gguf")
    gguf.dequantise(folder / "tiny.gguf", folder / "model")
    return folder / "model", weights


def test_a_converted_gemma_has_the_weights_and_the_window_of_its_file(
    gemma: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    model, _ = loading.load_lm(Backbone(source=f"path:{gemma[0]}"))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, gemma[1][name], atol=1e-6, rtol=1e-6)
    assert (model.config.sliding_window, model.config.query_pre_attn_scalar) == (8, 256)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    loading.load(Backbone(source=f"path:{gemma[0]}"), attention="bidirectional")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("ab", ["ab"]),  # no space is put before a text
        ("abc", ["a", "bc"]),  # the best score first, not the longest piece
        ("a ab", ["a", "\u2581ab"]),
        ("a  ab", ["a", "\u2581\u2581", "ab"]),  # runs of spaces are cut out before anything is merged
        ("a\n\nb", ["a", "\n\n", "b"]),
        ("a \n", ["a", "\u2581", "\n"]),
        ("é", ["<0xC3>", "<0xA9>"]),
    ],
)
def test_a_sentencepiece_file_splits_by_its_scores_behind_one_bos(
    text: str, tokens: list[str], gemma: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    tokenizer = loading.load_tokenizer(Backbone(source=f"path:{gemma[0]}"))
    ids = tokenizer(text).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", *tokens]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="abc \n\té数🤖").filter(lambda text: bool(text)))
def test_a_sentencepiece_tokenizer_loses_no_white_space(
    text: str, gemma: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    tokenizer = loading.load_tokenizer(Backbone(source=f"path:{gemma[0]}"))
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
