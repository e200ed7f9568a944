"""Do the members of a family belong together? Architecture and tokenizer, without loading weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from realign.config import Backbone, Family
from realign.errors import RealignError
from realign.models import loading, pretrained, sources

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# What has to agree for states to be paired layer by layer and token by token.
ARCHITECTURE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
TOKENIZER_PROBES = (
    "Hello  world, 12 + 345 = 357\n\tdef f(x): return x**2  # naïve",
    "Ünïcödé 数学 математика عربى",
    "<|im_start|>user\nWhat?<|im_end|>",
)


def check(family: Family, *, hub: bool) -> Iterator[tuple[str, bool | None, str]]:
    """Compare every member of a family with its base, from configuration and tokenizer files alone.

    Args:
        family: of data/families.toml.
        hub: whether ``hub:`` sources may be asked for.

    Yields:
        Role, whether it agrees (None: not checked), and the reason in words.
    """
    base = family.backbone("base") if "base" in family.roles else None
    for role, backbone in family.roles.items():
        if backbone == base:
            continue
        if base is None:
            yield role, None, "the family has no base to compare with"
            continue
        if backbone.kind == "adapter" and backbone.base == base:
            try:
                sources.existing_directory(backbone)
                yield role, True, "an adapter on the base"
            except RealignError as error:
                yield role, False, str(error)
            continue
        if not hub and "hub" in (backbone.kind, base.kind):
            yield role, None, "the hub is not reachable"
            continue
        try:
            yield _compare(role, base, backbone)
        except RealignError as error:
            yield role, None, str(error)


def _compare(role: str, base: Backbone, other: Backbone) -> tuple[str, bool, str]:
    one, two = _files(base), _files(other)
    for name in ARCHITECTURE:
        x, y = (getattr(config, name, None) for config, _ in (one, two))
        if x != y:
            return role, False, f"{name} is {y}, and {x} in base"
    try:
        check_same_tokenizer(one[1], two[1], ("base", role))
    except RealignError as error:
        return role, False, str(error)
    return role, True, "same architecture and tokenizer as base"


def _files(backbone: Backbone) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Return (configuration, tokenizer) of a backbone's root; a hub model's weights are not fetched."""
    below = loading.root(backbone)
    if below.kind != "hub":
        directory = loading.local_directory(below)
        return pretrained.config(directory), pretrained.tokenizer(directory)
    name, _, revision = below.location.partition("@")
    asked = {"revision": revision} if revision else {}
    return pretrained.config(name, **asked), pretrained.tokenizer(name, **asked)


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

    def error(difference: str) -> RealignError:
        return RealignError(
            f"the tokenizers of {names[0]} and {names[1]} disagree: {difference}, so their token states cannot be "
            "paired; compare siblings of one family"
        )

    one, two = a.get_vocab(), b.get_vocab()
    for token in sorted(one, key=lambda t: one[t]):
        if two.get(token, one[token]) != one[token]:
            raise error(f"token {token!r} is {one[token]} in one and {two[token]} in the other")
    for text in TOKENIZER_PROBES:
        x = a(text, add_special_tokens=False).input_ids
        y = b(text, add_special_tokens=False).input_ids
        if x != y:
            at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
            shown = [t.convert_ids_to_tokens(v[at : at + 3]) for t, v in ((a, x), (b, y))]
            raise error(f"on {text[:20]!r} they differ from token {at} ({shown[0]} against {shown[1]})")
    missing = [t for t in one if t not in two] if len(one) != len(two) else []
    if len(missing) > 0.01 * len(one):
        raise error(f"{len(missing)} tokens of the first, such as {missing[0]!r}, are unknown to the second")
