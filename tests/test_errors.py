"""Errors that users see: names that may become paths, and a full disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from realign.errors import RealignError, UsageError, check_name, full_disk_as_sentence


@pytest.mark.parametrize("name", ["base", "qwen2.5-1.5b", "reason-seed1", "A_b+c", "0"])
def test_plain_names_are_names(name: str) -> None:
    assert check_name("role", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        "~user",
        "-x",
        "a b",
        "a\n",
        "a\0b",
        "é",
        "²",
        "x" * 101,
        None,
        3,
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: object) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a role") as caught:
        check_name("role", name)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("basic_ios::clear: iostream error"),  # torch.save of a small file
        RuntimeError(
            "[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/0"
        ),
        RuntimeError(
            'Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No space"}'
        ),
    ],
)
def test_a_full_disk_is_one_sentence_whichever_library_says_it(error: Exception) -> None:
    with (
        pytest.raises(RealignError, match="the disk that holds /some/place is full"),
        full_disk_as_sentence(Path("/some/place")),
    ):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(PermissionError), full_disk_as_sentence(Path()):
        raise PermissionError(errno.EACCES, "no")
