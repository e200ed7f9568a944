"""Profiles and families read from TOML: what is wrong is one sentence that names its place."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from realign.config.settings import Config, Family, Profile
from realign.errors import RealignError, UsageError, check_name, unknown

C = TypeVar("C", bound=Config)


def parse(model: type[C], data: dict[str, Any], where: str) -> C:
    """Validate ``data`` as ``model``; every problem becomes one sentence that names its place."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(p) for p in first["loc"]) or model.__name__
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] == "extra_forbidden":
            raise unknown(f"setting in {where}:", place, model.model_fields) from None
        got = first.get("input")
        shown = f", got {got!r}" if isinstance(got, str | int | float | bool) else ""
        raise UsageError(f"{where}: {place}: {first['msg']}{shown}{more}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a missing or malformed file is one sentence."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RealignError(f"cannot read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def _profiles() -> Traversable:
    return resources.files("realign") / "profiles"


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(p.name.removesuffix(".toml") for p in _profiles().iterdir() if p.name.endswith(".toml"))


def load_profile(name: str) -> Profile:
    """Load a profile by name, or from a path that ends in ``.toml``.

    A profile may say ``extends = "laptop"`` (or a TOML file, relative to its own place): it then has every
    setting of that profile but those that it gives itself, table by table. Its name is the file's unless given.
    """
    return parse(
        Profile, _read_profile(name, Path(), ()), name if name.endswith(".toml") else f"profile {name}"
    )


def _read_profile(name: str, folder: Path, children: tuple[str, ...]) -> dict[str, Any]:
    if name.endswith(".toml"):
        path = (folder / Path(name).expanduser()).resolve()
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
        where = f"{path.name}: family {check_name('family', name)}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: must be a table, got {entry!r}")
        roles, checkpoints = entry.get("roles", {}), entry.get("checkpoints", {})
        for role in (*roles, *entry.get("tuning", {})):
            check_name("role", role)
        for spec in [*roles.values(), *(spec for steps in checkpoints.values() for spec in steps.values())]:
            if isinstance(spec, dict) and isinstance(spec.get("base"), str):
                if spec["base"] not in roles:
                    raise unknown(f"role of family {name}", spec["base"], roles)
                spec["base"] = roles[spec["base"]]
        mixtures, tuning = entry.pop("mixtures", {}), entry.get("tuning", {})
        for spec in tuning.values():
            if isinstance(spec, dict) and isinstance(spec.get("task_options"), str):
                if spec["task_options"] not in mixtures:
                    raise unknown(f"mixture of family {name}", spec["task_options"], mixtures)
                spec["task_options"] = mixtures[spec["task_options"]]
        families[name] = parse(Family, {**entry, "name": name}, where)
    return families


def find_family(families: dict[str, Family], name: str) -> Family:
    """Return a family by name."""
    if name not in families:
        raise unknown("family", name, families)
    return families[name]
