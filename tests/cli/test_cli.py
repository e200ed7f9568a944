"""The command line: a user's mistake is one sentence with a way out, never a traceback."""

from __future__ import annotations

import re
import sys

import pytest

from realign import cli

COMMANDS = [
    "book",
    "chapter",
    "notebooks",
    "train",
    "mine",
    "sweep",
    "evaluate",
    "export",
    "compare",
    "status",
    "plan",
    "doctor",
    "publish",
    "verify",
    "families",
    "suites",
    "profiles",
]


def call(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["realign", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("words", [[c] for c in COMMANDS] + [["tune", w] for w in ("rlvr", "sft", "role")])
def test_every_help_shows_an_example(monkeypatch, capsys, words):
    code, out, _ = call(monkeypatch, capsys, *words, "--help")
    assert code == 0
    assert re.search(r"Example:\s+realign " + " ".join(words), out)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["book", "--profile", "laptp"], 2, "unknown profile 'laptp'; did you mean 'laptop'?"),
        (["chapter", "rq9"], 2, "unknown chapter 'rq9'"),
        (
            ["chapter", "rq2", "-p", "kk", "[5]"],
            2,
            "unknown parameter of chapter rq2 'kk'; did you mean 'k'?",
        ),
        (["chapter", "rq2", "-p", "k", "five"], 2, "parameter 'k' of chapter rq2 must be a list"),
        (["chapter", "rq2", "-p", "n_texts", "2.5"], 2, "must be a whole number"),
        (
            ["train", "reasn", "-P", "smoke"],
            2,
            "unknown role of family tiny-llama 'reasn'; did you mean 'reason'?",
        ),
        (["train", "base", "-P", "smoke", "--parallel", "4"], 2, "parallel '4' must be ddp:N"),
        (["mine", "messages", "-o", "x.jsonl", "-m", "/no/such/model"], 1, "cannot open the embedding model"),
        (["mine", "mesages", "-o", "x.jsonl", "-m", "m"], 2, "did you mean 'messages'"),
        (["train", "base", "-f", "smollm"], 2, "unknown family 'smollm'; did you mean 'smollm2-135m'?"),
        (
            ["evaluate", "base", "-P", "smoke", "-s", "smoke-cod"],
            2,
            "unknown suite 'smoke-cod'; did you mean 'smoke-code'?",
        ),
        (
            ["evaluate", "base", "-P", "smoke", "--dtype", "float16"],
            2,
            "'float32' or 'bfloat16', got 'float16'",
        ),
        (["export", "base", "-o", "x"], 2, "model 'base' must be ROLE:SEED"),
        (["compare", "base", "reason@x", "-P", "smoke"], 2, "a whole number must follow '@'"),
        (["compare", "base", "path:/no/such/dir", "-P", "smoke"], 1, "/no/such/dir"),
        (
            ["tune", "role", "raeson", "-o", "x"],
            2,
            "unknown role of family smollm2-135m 'raeson'; did you mean",
        ),
        (["verify", "--stage", "polcy"], 2, "did you mean 'policy'"),
        (["book", "--profile", "smoke", "--launcher", "cloud"], 2, "unknown launcher 'cloud'"),
    ],
)
def test_a_mistake_is_one_sentence(monkeypatch, capsys, own_store, arguments, code, sentence):
    got, _, err = call(monkeypatch, capsys, *arguments)
    assert got == code, err
    assert sentence in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("realign: ")]) == 1
    assert not own_store.exists() or not list(own_store.glob("*/*/manifest.json"))


def test_unknown_command_exits_2(monkeypatch, capsys):
    code, _, err = call(monkeypatch, capsys, "bok")
    assert code == 2
    assert "bok" in err


def test_paper_profile_says_what_it_needs(monkeypatch, capsys, own_store):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    code, _, err = call(monkeypatch, capsys, "book", "--profile", "paper")
    assert code == 1
    assert "needs a CUDA GPU" in err


def test_tune_refuses_to_write_over_something(monkeypatch, capsys, tmp_path):
    (tmp_path / "mine").write_text("precious")
    code, _, err = call(monkeypatch, capsys, "tune", "sft", "-P", "smoke", "-o", str(tmp_path))
    assert code == 2
    assert "is not empty" in err
    assert (tmp_path / "mine").read_text() == "precious"


def test_doctor_names_device_dtype_and_reason(monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = call(monkeypatch, capsys, "doctor")
    assert code == 0
    for word in ("python", "torch", "device", "dtype", "GiB free", "hub", "versions"):
        assert word in out


def test_status_counts_what_is_missing(monkeypatch, capsys, own_store):
    code, out, _ = call(monkeypatch, capsys, "status", "-P", "smoke")
    assert code == 0
    assert re.search(r"stages to compute: .*evaluate.*train", out)


def test_parameters_are_read_as_papermill_reads_them():
    assert cli.parameters(["k=[5,20]", "family=smollm2-135m", "n_texts=8", "x=true"]) == {
        "k": [5, 20],
        "family": "smollm2-135m",
        "n_texts": 8,
        "x": True,
    }
    assert cli.join_parameters(["chapter", "rq2", "-p", "k", "[5]", "-p", "a=1"]) == [
        "chapter", "rq2", "-p", "k=[5]", "-p", "a=1",
    ]  # fmt: skip
