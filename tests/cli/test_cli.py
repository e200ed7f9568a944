"""The command line: a user's mistake is one sentence with a way out, never a traceback."""

from __future__ import annotations

import errno
import json
import math
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from realign import cli, config, study
from realign.book import pages, site
from realign.book.chapters import CHAPTERS
from realign.cli import doctor, results
from realign.errors import INTERRUPTED
from realign.study.graph import Graph

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
        (["export", "base", "-o", "x", "-P", "smoke"], 2, "ROLE:SEED"),
        (["train", "reason", "-P", "smoke", "--seed", "-3"], 2, "seed -3: a whole number from 0"),
        (["train", "reason", "-P", "smoke", "--seed", str(2**64)], 2, "a whole number from 0"),
        (["train", "reason", "-P", "smoke", "--seed", "x"], 2, "Invalid value for '--seed'"),
        (["tune", "sft", "-P", "smoke", "-o", "x", "--seed", "-3"], 2, "seed -3: a whole number from 0"),
        (["mine", "messages", "-o", "x", "-m", "m", "--seed", "-3"], 2, "seed -3: a whole number from 0"),
        (
            ["mine", "messages", "-o", "x", "-m", "m", "--queries", "0"],
            2,
            "Invalid value for '--queries': Input should be greater",
        ),
        (["chapter", "rq2", "-p", "k", "{[1]: 2}"], 2, "parameter 'k' of chapter rq2 must be a list"),
        (["chapter", "rq2", "-p", "k", "[" * 9999], 2, "parameter 'k' of chapter rq2 must be a list"),
        (["chapter", "rq2", "-p", "k", "['five']"], 2, "k"),
        (["chapter", "rq2", "-p", "family", "smollm"], 2, "did you mean 'smollm2-135m'?"),
        (["notebooks", "--folder", __file__], 2, "is a file: name a folder"),
        (["verify", "--tolerance", "nan"], 2, "tolerance nan: a number from 0 on is needed"),
        (["verify", "--tolerance", "inf"], 2, "tolerance inf: a number from 0 on is needed"),
        (["verify", "--tolerance", "-1"], 2, "tolerance -1.0: a number from 0 on is needed"),
        (["verify", "--limit", "-1"], 2, "Invalid value for '--limit': Input should be greater"),
        (["verify", "-P", "smoke"], 1, "nothing to verify"),
        (["tune"], 2, "Missing command"),
        (["profiles", "laptp"], 2, "did you mean 'laptop'?"),
        (["compare", "base", "reason@x", "-P", "smoke"], 2, "a whole number must follow '@'"),
        (["compare", "base", "path:/no/such/dir", "-P", "smoke"], 1, "/no/such/dir"),
        (
            ["tune", "role", "raeson", "-o", "x"],
            2,
            "unknown tuned role of family smollm2-135m 'raeson'; did you mean",
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


@pytest.mark.parametrize(
    ("differences", "code", "says"),
    [
        ([0.0, 1e-4], 0, "2 published results were computed again; the largest difference is 1.00e-04"),
        ([0.0, 0.5, math.inf], 1, "2 of 3 published results differ, by up to inf"),
        ([math.nan], 1, "1 of 1 published results differ"),
    ],
)
def test_verify_says_what_it_checked_and_fails_on_a_difference(
    monkeypatch, capsys, own_store, differences, code, says
):
    rows = [(f"policy {n}", difference) for n, difference in enumerate(differences)]
    monkeypatch.setattr(study, "verify", lambda *_: iter(rows))
    got, out, err = call(monkeypatch, capsys, "verify", "-P", "smoke")
    assert got == code
    assert says in out + err
    assert out.count("DIFFERENT") == sum(not d <= 1e-3 for d in differences)


def test_only_the_default_profile_draws_the_picture_of_the_readme(monkeypatch, capsys, own_store, tmp_path):
    drawn = []
    monkeypatch.setattr(study, "open_study", lambda _: SimpleNamespace(nodes=list))
    monkeypatch.setattr(results, "draw_picture", lambda _, picture: drawn.append(picture.name))
    (tmp_path / "laptop.toml").write_text('extends = "smoke"')
    for profile in ("smoke", "paper", str(tmp_path / "laptop.toml"), "laptop"):
        assert drawn == []
        assert call(monkeypatch, capsys, "publish", "-P", profile)[0] == 0
    assert drawn == ["readme.svg"]


def test_profiles_lists_all_and_prints_one_as_json(monkeypatch, capsys):
    _, out, _ = call(monkeypatch, capsys, "profiles")
    assert [line.partition(":")[0] for line in out.splitlines()] == config.profile_names()
    _, out, _ = call(monkeypatch, capsys, "profiles", "smoke")
    assert json.loads(out) == config.load_profile("smoke").model_dump(mode="json")


def test_interrupting_says_how_to_go_on(monkeypatch, capsys, own_store):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "open_study", interrupt)
    code, _, err = call(monkeypatch, capsys, "plan", "-P", "smoke")
    assert code == 130
    assert err == "realign: interrupted; finished stages are kept, run the same command to go on\n"


def test_a_background_job_of_a_script_can_be_interrupted(tmp_path):
    """Such a job begins with SIGINT ignored."""
    program = (
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); from realign import cli\n"
        "from realign import study\n"
        "study.open_study = lambda profile: (print('in', flush=True), time.sleep(60))\n"
        "sys.argv = ['realign', 'plan', '-P', 'smoke']; cli.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "in\n"
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=30)
    assert (job.returncode, err) == (130, f"realign: {INTERRUPTED}\n")


@pytest.fixture
def chapters_run(monkeypatch, tmp_path):
    """No chapter is executed yet; executing one and building are recorded instead of done."""
    done = []
    monkeypatch.setattr(site, "missing_chapters", lambda: [c for c in CHAPTERS if c.name not in done])
    monkeypatch.setattr(site, "execute", lambda chapter, _: done.append(chapter.name))
    monkeypatch.setattr(pages, "generate", lambda: done.append("pages"))
    monkeypatch.setattr(site, "build", lambda: done.append("site"))
    return done


def test_a_chapter_alone_leaves_the_site_as_it_is_and_says_so_first(
    monkeypatch, capsys, own_store, chapters_run
):
    monkeypatch.setattr(site, "execute", lambda *_: print("executing", file=sys.stderr))
    code, _, err = call(monkeypatch, capsys, "chapter", "rq2", "-P", "smoke")
    assert code == 0
    first, second = err.splitlines()
    assert first.startswith("the site is left as it is: rq1, rq3, rq4 never ran here and ")
    assert second == "executing"
    assert chapters_run == []


def test_a_chapter_brings_the_others_where_nothing_has_to_be_computed(
    monkeypatch, capsys, own_store, chapters_run
):
    monkeypatch.setattr(Graph, "missing", lambda *_: [])
    code, _, err = call(monkeypatch, capsys, "chapter", "rq2", "-P", "smoke")
    assert (code, err) == (0, "")
    assert chapters_run == ["rq2", "rq1", "rq3", "rq4", "pages", "site"]
    chapters_run.clear()
    monkeypatch.setattr(site, "missing_chapters", lambda: [])
    call(monkeypatch, capsys, "chapter", "rq3", "-P", "smoke")
    assert chapters_run == ["rq3", "pages", "site"]


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


@pytest.mark.parametrize("command", [["tune", "sft"], ["export", "base:0"]])
@pytest.mark.parametrize("place", ["file", "file/x", "loop/x", "."])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    monkeypatch, capsys, own_store, tmp_path, command, place
):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setattr(Graph, "run", lambda *_: pytest.fail("computed"))
    code, _, err = call(monkeypatch, capsys, *command, "-P", "smoke", "-o", str(tmp_path / place))
    assert code == 2, err
    assert ("is not empty" if place == "." else "cannot be made") in err
    assert (tmp_path / "file").read_text() == "precious"


def test_doctor_names_device_dtype_and_reason(monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = call(monkeypatch, capsys, "doctor")
    assert code == 0
    for word in ("python", "torch", "device", "dtype", "GiB free", "hub", "versions"):
        assert word in out


def test_doctor_looks_at_the_disk_and_the_place_of_the_store(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    free = {str(tmp_path): 7 * 2**30}
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=free[str(place)]))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, verdict in (("file", "NOT WRITABLE"), ("loop", "NOT WRITABLE"), ("new/store", "writable")):
        monkeypatch.setenv("REALIGN_STORE", str(tmp_path / name))
        code, out, _ = call(monkeypatch, capsys, "doctor")
        assert code == 0
        assert f"({verdict}), 7 GiB free" in out


def test_status_lists_around_broken_manifests(monkeypatch, capsys, own_store):
    for name, text in {
        "a": "{",
        "b": "[]",
        "c": '{"stage": "policy"}',
        "d": '{"stage": 3, "files": 1}',
    }.items():
        (own_store / "policy" / name).mkdir(parents=True)
        (own_store / "policy" / name / "manifest.json").write_text(text)
    code, out, err = call(monkeypatch, capsys, "status", "-P", "smoke")
    assert code == 0
    assert "stages to compute" in out
    assert err.count("is damaged") == 4


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR, errno.ENOSPC, errno.ELOOP])
def test_an_error_of_the_system_is_one_sentence_and_a_bug_is_not_hidden(monkeypatch, capsys, number):
    def broken(name: str) -> None:
        raise OSError(number if name == "smoke" else errno.EBADF, "What it is", "/some/file")

    monkeypatch.setattr(study, "open_study", broken)
    code, _, err = call(monkeypatch, capsys, "plan", "-P", "smoke")
    assert (code, err) == (1, "realign: /some/file cannot be read or written: what it is\n")
    with pytest.raises(OSError, match="What it is"):
        call(monkeypatch, capsys, "plan", "-P", "laptop")


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
