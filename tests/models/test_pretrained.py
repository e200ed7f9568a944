"""Opening model files: silent, strict about weights, no code of a model, one sentence when something is wrong."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from realign.config import Backbone
from realign.errors import RealignError
from realign.models import loading, pretrained, sources
from realign.models.embedder import Embedder

TINY = Backbone(source="random:0/llama")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    return sources.materialize(TINY, folder / "model", cache=folder)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def with_weights(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def with_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def dropped(tensors: Tensors) -> Tensors:
    return {k: v for k, v in tensors.items() if k != "model.layers.1.mlp.up_proj.weight"}


WRONG_WEIGHTS = {
    "renamed": (
        lambda f: with_weights(f, lambda t: {f"x.{k}": v for k, v in t.items()}),
        r"missing: \d\d \(",
    ),
    "dropped": (lambda f: with_weights(f, dropped), r"missing: 1 \(.*layers\.1\.mlp\.up_proj\.weight\)"),
    "more layers": (lambda f: with_config(f, num_hidden_layers=3), r"missing: 9 \(.*, \.\.\.\)"),
    "fewer layers": (lambda f: with_config(f, num_hidden_layers=1), r"unexpected: 9 \("),
    "misshapen": (lambda f: with_config(f, intermediate_size=64), r"shape: 6 \(.*mlp.*, \.\.\.\)"),
}


@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
@pytest.mark.parametrize("how", ["language model", "encoder", "saved embedder"])
def test_weights_that_are_not_those_of_the_model_are_refused_by_name(
    kind: str, how: str, folder: Path
) -> None:
    damage, message = WRONG_WEIGHTS[kind]
    backbone = Backbone(source=f"path:{folder}")
    damage(folder)
    opened: Callable[[], object] = {
        "language model": lambda: loading.load_lm(backbone),
        "encoder": lambda: loading.load(backbone, attention="causal"),
        "saved embedder": lambda: pretrained.encoder(folder),
    }[how]
    with pytest.raises(RealignError, match=message) as caught:
        opened()
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_tied_weights_and_a_head_that_nobody_reads_are_no_fault(folder: Path) -> None:
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    loading.load_lm(Backbone(source=f"path:{folder}"))
    with_config(folder, tie_word_embeddings=False)
    loading.load(Backbone(source=f"path:{folder}"), attention="causal")
    with pytest.raises(RealignError, match=r"missing: 1 \(lm_head\.weight\)"):
        loading.load_lm(Backbone(source=f"path:{folder}"))
    with_weights(folder, lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"].clone()})
    pretrained.encoder(folder)


def test_code_that_comes_with_a_model_is_never_run(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    ran = tmp_path / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    names = {"AutoConfig": "code.Config", "AutoModel": "code.Model", "AutoModelForCausalLM": "code.Model"}
    with_config(folder, model_type="homemade", auto_map=names)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # would be asked for otherwise
    for opened in (
        lambda: loading.load_lm(Backbone(source=f"path:{folder}")),
        lambda: pretrained.config(folder),
        lambda: pretrained.encoder(folder),
    ):
        with pytest.raises(RealignError, match="Python code that comes with the model, which is never run"):
            opened()
    assert not ran.exists()


DAMAGES = {"empty": lambda b: b"", "cut": lambda b: b[: len(b) // 2], "another": lambda b: b"[1, 2]"}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_damaged_file_is_one_sentence(name: str, damage: str, folder: Path) -> None:
    file = folder / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(RealignError, match=re.escape(str(folder))) as caught:
        loading.load(Backbone(source=f"path:{folder}"), attention="causal")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_one_sentence(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(RealignError, match=r"cannot load the|has no tokens") as caught:
        loading.load(Backbone(source=f"path:{folder}"), attention="causal")
    assert "\n" not in str(caught.value)


def test_nan_weights_are_called_that(folder: Path) -> None:
    with_weights(folder, lambda t: {k: v * float("nan") if "norm" in k else v for k, v in t.items()})
    with pytest.raises(RealignError, match="NaN or infinite: check the weights"):
        loading.load(Backbone(source=f"path:{folder}"), attention="bidirectional")


def test_loading_and_saving_print_nothing(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, tokenizer = loading.load(Backbone(source=f"path:{folder}"), attention="bidirectional")
        pretrained.save(model, tokenizer, tmp_path / "again")
        Embedder(pretrained.encoder(tmp_path / "again"), pretrained.tokenizer(tmp_path / "again"))
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in caught] == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            "pytorch_model.bin",
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
        ),
        *("added_tokens.json", "special_tokens_map.json", "vocab.txt", "chat_template.jinja", "spiece.model"),
    ],
)
def test_every_file_that_a_loader_reads_is_part_of_the_identity(name: str, folder: Path) -> None:
    backbone = Backbone(source=f"path:{folder}")
    (folder / name).write_bytes(b"one")
    before = loading.digest(backbone)
    (folder / name).write_bytes(b"two")
    assert loading.digest(backbone) != before
    (folder / name).unlink()
    assert loading.digest(backbone) != before


def test_notes_beside_a_model_are_no_part_of_its_identity(folder: Path) -> None:
    backbone = Backbone(source=f"path:{folder}")
    before = loading.digest(backbone)
    (folder / "README.md").write_text("notes")
    (folder / ".gitattributes").write_text("")
    assert loading.digest(backbone) == before


# --- adapters --------------------------------------------------------------------------------------


def adapted(folder: Path, **options: Any) -> Any:
    """An adapter on TINY, saved, with weights that are not zero; returns the unmerged model."""
    from peft import LoraConfig, get_peft_model

    lm, _ = loading.load_lm(TINY)
    torch.manual_seed(1)
    model = get_peft_model(lm, LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **options))
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return model.eval()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALIGN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize("targets", [["lm_head"], ["lm_head", "q_proj"], ["embed_tokens"], "all-linear"])
def test_a_merged_adapter_computes_what_the_adapter_does_on_tied_weights_too(
    targets: Any, tmp_path: Path
) -> None:
    alone = adapted(tmp_path / "adapter", target_modules=targets)
    merged, _ = loading.load_lm(Backbone(source=f"adapter:{tmp_path / 'adapter'}", base=TINY))
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        expected, got = alone(input_ids=ids).logits, merged(input_ids=ids).logits
        plain = loading.load_lm(TINY)[0](input_ids=ids).logits
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, expected, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: dict(list(t.items())[1:]), r"in 1 \("),
        (lambda t: {**t, "base_model.model.model.x.lora_A.weight": torch.ones(2, 2)}, r"in 1 \(.*model\.x\."),
        (
            lambda t: {k: v[:, :-1].clone() if "lora_A" in k else v for k, v in t.items()},
            r"in 14 \(.*, \.\.\.\)",
        ),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_weights_of_an_adapter_are_all_or_none(
    change: Callable[[Tensors], Tensors], message: str, tmp_path: Path
) -> None:
    adapted(tmp_path, target_modules="all-linear")
    file = tmp_path / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(RealignError, match=message) as caught:
        loading.load_lm(Backbone(source=f"adapter:{tmp_path}", base=TINY))
    assert "does not fit its base" in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", loading.ADAPTER_FILES)
def test_a_damaged_adapter_is_one_sentence(name: str, damage: str, tmp_path: Path) -> None:
    adapted(tmp_path, target_modules="all-linear")
    file = tmp_path / name
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(RealignError, match="cannot be read") as caught:
        loading.load_lm(Backbone(source=f"adapter:{tmp_path}", base=TINY))
    assert "\n" not in str(caught.value)
