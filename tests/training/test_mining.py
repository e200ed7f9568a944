"""Claims about mined negatives: near, below the margin, never an answer; on real texts through a real model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from realign import cli
from realign.config import Backbone
from realign.errors import UsageError
from realign.models import loading
from realign.models.batching import query_prefix
from realign.texts import pairs
from realign.texts.splits import normalise
from realign.training import mining
from realign.training import model as models


@pytest.fixture(scope="module")
def miner():
    encoder, tokenizer = loading.load(Backbone(source="random:0/llama"), attention="bidirectional")
    return models.assemble(encoder, tokenizer, 64).eval()


@pytest.fixture(scope="module")
def real() -> pairs.PairSet:
    """Sixty translated interface messages, one query twice and one answer in another spelling."""
    one = pairs.load("messages").take(60, 0)
    doubled = one.rows([*range(60), 0])
    return pairs.PairSet(
        one.name,
        one.instruction,
        doubled.queries,
        [*one.positives, f" {one.positives[0].upper()} "],
        doubled.negatives,
    )


def test_negatives_are_the_nearest_below_the_margin_and_never_an_answer(miner, real) -> None:
    mined, report = mining.mine(real, miner, first=10)
    prompt = query_prefix(real.instruction)
    asked = miner.encode(real.queries, prompt=prompt, normalize_embeddings=True)
    passages = list({normalise(p): p for p in reversed(real.positives)}.values())
    texts = miner.encode(passages, normalize_embeddings=True)
    place = {normalise(p): i for i, p in enumerate(passages)}
    answers: dict[str, set[int]] = {}
    for query, positive in zip(real.queries, real.positives, strict=True):
        answers.setdefault(normalise(query), set()).add(place[normalise(positive)])
    most = max(map(len, answers.values()))
    margins = []
    for row, query in enumerate(real.queries):
        own = answers[normalise(query)]
        scores = texts @ asked[row]
        positive = min(scores[list(own)])
        # the library makes room for as many positives as any query has
        near = [i for i in np.argsort(-scores)[: 10 + most] if i not in own]
        expected = [passages[i] for i in near if scores[i] <= positive - 0.05 * abs(positive)][:3]
        assert {normalise(n) for n in mined.negatives[row]} == {normalise(e) for e in expected}
        margins += [
            scores[place[normalise(real.positives[row])]] - scores[place[normalise(e)]] for e in expected
        ]
    assert report.margins["mean"] == pytest.approx(np.mean(margins), abs=1e-4)
    assert report.margins["min"] > 0


def test_the_report_counts_what_is_missing_and_says_what_was_done(miner, real) -> None:
    mined, report = mining.mine(real, miner, first=10, relative_margin=0.02)
    counts = [len(row) for row in mined.negatives]
    assert (report.queries, len(mined)) == (61, 61)
    assert report.full == sum(c == 3 for c in counts)
    assert report.short == sum(0 < c < 3 for c in counts)
    assert report.none == sum(c == 0 for c in counts)
    assert report.full < 61  # there is something to say
    assert "kept" in report.done
    dropped, again = mining.mine(real, miner, first=10, relative_margin=0.02, short="drop")
    assert all(len(row) == 3 for row in dropped.negatives)
    assert len(dropped) == report.full == again.full
    assert "dropped" in again.done


def test_a_wider_margin_gives_easier_negatives(miner, real) -> None:
    reports = [mining.mine(real, miner, first=60, relative_margin=m)[1] for m in (0.0, 0.05, 0.3)]
    means = [report.margins["mean"] for report in reports]
    assert 0 < means[0] < means[1] < means[2]
    assert mining.mine(real, miner, first=10, relative_margin=1.0)[1].full == 0
    with pytest.raises(UsageError, match="1 <= n <= first"):
        mining.mine(real, miner, n=3, first=2)


def test_the_command_writes_a_set_that_a_recipe_can_name(miner, tmp_path: Path, monkeypatch, capsys) -> None:
    miner.save_pretrained(str(tmp_path / "miner"), create_model_card=False)
    out = tmp_path / "mined.jsonl"
    words = ["mine", "messages", "-o", str(out), "-m", str(tmp_path / "miner"), "--queries", "20"]
    monkeypatch.setattr(sys, "argv", ["realign", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert '"queries": 20' in capsys.readouterr().out
    mined = pairs.load(f"file:{out}", hard_negatives=3)
    assert (len(mined), mined.instruction) == (20, pairs.INSTRUCTIONS["messages"])
    assert sum(map(len, mined.negatives)) > 0
    assert pairs.load(f"file:{out}", hard_negatives=0).negatives == [[]] * 20
