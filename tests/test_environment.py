"""pyproject.toml, requirements.lock and environment.yml say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from realign import paths
from realign.cli import doctor


def _declared() -> list[Requirement]:
    project = tomllib.loads((paths.root() / "pyproject.toml").read_text())["project"]
    return [Requirement(r) for r in [*project["dependencies"], *project["optional-dependencies"]["dev"]]]


def test_every_declared_dependency_is_pinned_inside_its_bounds():
    locked = doctor.locked_versions()
    for requirement in _declared():
        name = canonicalize_name(requirement.name)
        assert name in locked, f"{name} is not in requirements.lock"
        assert requirement.specifier.contains(locked[name]), f"{requirement} does not admit {locked[name]}"


def test_every_dependency_has_a_lower_bound():
    for requirement in _declared():
        assert any(s.operator in (">=", "==", "~=") for s in requirement.specifier), str(requirement)


def test_lock_pins_exactly_and_names_no_index_or_place():
    for line in (paths.root() / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+( ; .+)?", line), line


def test_the_oldest_python_that_is_declared_can_install_the_lock():
    project = tomllib.loads((paths.root() / "pyproject.toml").read_text())["project"]
    (oldest,) = SpecifierSet(project["requires-python"])
    for name in doctor.locked_versions():
        try:
            wanted = metadata.metadata(name)["Requires-Python"]
        except metadata.PackageNotFoundError:  # for another system
            continue
        assert f"{oldest.version}.0" in SpecifierSet(wanted or ""), f"{name} needs Python {wanted}"


def test_conda_environment_installs_the_lock_and_the_package():
    environment = yaml.safe_load((paths.root() / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-r requirements.lock", "-e ."]


def test_packages_that_the_user_asked_for_are_declared():
    names = {canonicalize_name(r.name) for r in _declared()}
    asked = "jupyter-book jupytext papermill torch transformers peft mteb matplotlib seaborn numpy"
    assert set(asked.split()) <= names


@pytest.mark.parametrize(
    ("pip_works", "made"),
    [(None, True), (False, True), (True, False)],
    ids=["no environment", "killed", "whole"],
)
def test_make_mends_an_environment_whose_making_was_killed(tmp_path, pip_works, made):
    """An interpreter stands in .venv before pip does: what counts is that pip runs."""
    environment, log = tmp_path / "env", tmp_path / "log"
    interpreter = f"""#!/bin/sh
echo "$0 $*" >> {log}
case "$*" in
  "-m venv --clear "*) mkdir -p {environment}/bin; cp {tmp_path}/python3 {environment}/bin/python;;
  "-m pip --version") test ! -e {environment}/broken;;
esac
"""
    (tmp_path / "python3").write_text(interpreter)
    (tmp_path / "python3").chmod(0o755)
    if pip_works is not None:
        (environment / "bin").mkdir(parents=True)
        shutil.copy(tmp_path / "python3", environment / "bin" / "python")
    if pip_works is False:
        (environment / "broken").touch()
    subprocess.run(
        ["make", f"{environment}/.ready", f"VENV={environment}"],
        cwd=paths.root(),
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        check=True,
    )
    calls = log.read_text()
    assert ("-m venv --clear" in calls) is made
    assert "-m pip install" in calls.splitlines()[-1]
    assert (environment / ".ready").is_file()
