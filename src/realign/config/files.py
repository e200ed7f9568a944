"""Profiles and families read from TOML: what is wrong is one sentence that names its place."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from datetime import date, time
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pydantic import ValidationError

from realign import paths
from realign.config.settings import Config, Family, Profile
from realign.errors import RealignError, UsageError, unknown

C = TypeVar("C", bound=Config)

AMENDMENTS = "amendments"
"""The table of data/claims.toml that says which rules were changed; all others are claims."""


def parse(model: type[C], data: Mapping[str, Any], where: str) -> C:
    """Validate ``data`` as ``model``; every problem becomes one sentence that names its place.

    One rule for TOML, the command line, notebooks and Python: values are of the very type that is asked for
    (no text for a number, no number for a list), where an array, a range or a numpy number counts as what it
    holds.

    Raises:
        UsageError: an unknown setting, or a value of the wrong type or out of its range.
    """
    try:
        text = json.dumps(data, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(f"{where}: {reason}") from None
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _sentence(error, model, where) from None


def _sentence(error: ValidationError, model: type[Config], where: str) -> UsageError:
    first = error.errors()[0]
    place = ".".join(str(p) for p in first["loc"]) or model.__name__
    if first["type"] == "extra_forbidden":
        return unknown(f"setting in {where}:", place, model.model_fields)
    if first["type"] == "json_invalid":  # such as half of a surrogate pair
        return UsageError(f"{where}: {first['msg'].removeprefix('Invalid JSON: ').partition(' at line')[0]}")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    got = first.get("input")
    shown = f", got {repr(got)[:80]}" if isinstance(got, str | int | float | bool) else ""
    return UsageError(f"{where}: {place}: {first['msg']}{shown}{more}")


def _plain(value: object) -> object:
    if hasattr(value, "tolist"):  # of numpy and torch
        return value.tolist()
    if isinstance(value, range | set | frozenset):
        return list(value)
    if isinstance(value, date | time | PurePath):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be a setting")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with or without a byte order mark; a missing or malformed file is one sentence."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (OSError, UnicodeError) as error:
        raise RealignError(f"cannot read {path}: {error}") from None
    except RecursionError:
        raise UsageError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # also a path or a number that Python does not take
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def _profiles() -> Traversable:
    return resources.files("realign") / "profiles"


DEFAULT_PROFILE = "laptop"


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(p.name.removesuffix(".toml") for p in _profiles().iterdir() if p.name.endswith(".toml"))


def load_profile(name: str) -> Profile:
    """Load a profile by name, or from a path that ends in ``.toml``.

    A profile may say ``extends = "laptop"`` (or a TOML file, relative to its own place): it then has every
    setting of that profile but those that it gives itself, table by table. Its name is the file's unless given.

    Raises:
        UsageError: there is no such profile, or it is not valid.
    """
    if not isinstance(name, str):
        raise UsageError(f"profile must be a name or a TOML file, got {name!r}")
    return parse(
        Profile, _read_profile(name, Path(), ()), name if name.endswith(".toml") else f"profile {name}"
    )


def _read_profile(name: str, folder: Path, children: tuple[str, ...]) -> dict[str, Any]:
    if name.endswith(".toml"):
        path = paths.absolute(name, folder)
        label, data, folder = str(path), read_toml(path), path.parent
    elif name in profile_names():
        label, data = name, tomllib.loads((_profiles() / f"{name}.toml").read_text(encoding="utf-8"))
    else:
        raise unknown(f"profile{f' that {children[-1]} extends' if children else ''}", name, profile_names())
    if label in children:
        raise UsageError(f"profiles extend each other in a circle: {' -> '.join([*children, label])}")
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise UsageError(f"{label}: extends must be the name of a profile or a TOML file, got {parent!r}")
    data.setdefault("name", Path(name).stem)
    return merge(_read_profile(parent, folder, (*children, label)), data)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with the values of ``above``; tables that both have are merged in turn."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        merged[key] = merge(below[key], value) if both else value
    return merged


def load_families(path: Path) -> dict[str, Family]:
    """Load a registry (data/families.toml).

    An adapter's ``base`` may name a role of its family, and the ``task_options`` of a tuning one of its ``mixtures``.

    Relative ``path:`` and ``adapter:`` locations stay relative: they are resolved against the
    project root by :mod:`realign.models.loading`, so that keys do not depend on where a clone lies.
    """
    families: dict[str, Family] = {}
    for name, entry in read_toml(path).items():
        where = f"{path.name}: family {name}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: must be a table, got {entry!r}")
        roles, checkpoints = _table(entry.get("roles")), _table(entry.get("checkpoints"))
        of_steps = [spec for steps in checkpoints.values() for spec in _table(steps).values()]
        for spec in [*roles.values(), *of_steps]:
            if isinstance(spec, dict) and isinstance(spec.get("base"), str):
                if spec["base"] not in roles:
                    raise unknown(f"role of family {name}", spec["base"], roles)
                spec["base"] = roles[spec["base"]]
        mixtures = entry.pop("mixtures", {})
        if not isinstance(mixtures, dict):
            raise UsageError(f"{where}: mixtures must be a table, got {mixtures!r}")
        for spec in _table(entry.get("tuning")).values():
            if isinstance(spec, dict) and isinstance(spec.get("task_options"), str):
                if spec["task_options"] not in mixtures:
                    raise unknown(f"mixture of family {name}", spec["task_options"], mixtures)
                spec["task_options"] = mixtures[spec["task_options"]]
        families[name] = parse(Family, {**entry, "name": name}, where)
    return families


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}  # anything else is refused when it is parsed


def find_family(families: dict[str, Family], name: str) -> Family:
    """Return a family by name."""
    if name not in families:
        raise unknown("family", name, families)
    return families[name]


def rules_digest() -> str | None:
    """Sha256 of the rules of data/claims.toml, without its amendments and comments; None where there is no such file."""
    path = paths.data() / "claims.toml"
    if not path.is_file():
        return None
    rules = {name: rule for name, rule in read_toml(path).items() if name != AMENDMENTS}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
