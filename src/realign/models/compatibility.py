"""Do the members of a family belong together? Architecture and tokenizer, without loading weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from realign.config import Backbone, Family
from realign.errors import RealignError
from realign.models import loading, sources

# What has to agree for states to be paired layer by layer and token by token.
ARCHITECTURE = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


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
        except (RealignError, OSError, ValueError) as error:
            yield role, None, str(error).splitlines()[0]


def _compare(role: str, base: Backbone, other: Backbone) -> tuple[str, bool, str]:
    one, two = _files(base), _files(other)
    for name in ARCHITECTURE:
        x, y = (getattr(config, name, None) for config, _ in (one, two))
        if x != y:
            return role, False, f"{name} is {y}, and {x} in base"
    try:
        loading.check_same_tokenizer(one[1], two[1], ("base", role))
    except RealignError as error:
        return role, False, str(error)
    return role, True, "same architecture and tokenizer as base"


def _files(backbone: Backbone) -> tuple[Any, Any]:
    """Return (configuration, tokenizer) of a backbone's root; a hub model's weights are not fetched."""
    from transformers import AutoConfig, AutoTokenizer

    below = loading.root(backbone)
    if below.kind == "hub":
        name, _, revision = below.location.partition("@")
        asked = {"revision": revision} if revision else {}
    else:
        directory: Path = loading.local_directory(below)
        name, asked = str(directory), {}
    return AutoConfig.from_pretrained(name, **asked), AutoTokenizer.from_pretrained(name, **asked)
