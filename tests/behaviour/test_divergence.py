"""Divergence on common texts against direct calculation in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon

from realign.behaviour.divergence import divergence
from realign.config import Backbone
from realign.models import loading

TINY, OTHER = Backbone(source="random:0/llama"), Backbone(source="random:1/llama")
TEXTS = [("What is 1 + 1?", " 2"), ("Say", " a longer answer than that"), ("x", " y z")]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def distributions(model, tokenizer, given: str, after: str, longest: int) -> np.ndarray:
    """Next-token distributions (tokens looked at, vocabulary) in float64, one text at a time."""
    before = list(tokenizer(given).input_ids) if given else []
    rest = list(tokenizer(after, add_special_tokens=not given).input_ids)
    before, rest = (before, rest[:longest]) if given else (rest[:1], rest[1 : longest + 1])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([before + rest])).logits[0].double()
    return logits.softmax(-1).numpy()[len(before) - 1 : -1]


@pytest.mark.parametrize("longest", [3, 64])
def test_divergence_is_scipys_on_every_token_averaged_within_texts(longest: int) -> None:
    (p_model, tokenizer), (q_model, _) = loading.load_lm(TINY), loading.load_lm(OTHER)
    domains = {"task": TEXTS, "neutral": [("", " ".join(text)) for text in TEXTS]}
    measured = divergence(p_model, q_model, tokenizer, domains, max_tokens=longest)
    for domain, pairs in domains.items():
        js, kl = [], []
        for text in pairs:
            p, q = (distributions(m, tokenizer, *text, longest) for m in (p_model, q_model))
            js.append(np.mean(jensenshannon(p, q, axis=1) ** 2))
            kl.append(np.mean(stats.entropy(p, q, axis=1)))
        for name, values in (("js", js), ("kl", kl)):
            low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
            expected = (np.mean(values), max(low, 0), high)
            got = [measured[f"{name}_{domain}{end}"] for end in ("", "_low", "_high")]
            assert got == pytest.approx(expected, abs=1e-5)
    assert 0 < measured["js_task"] < math.log(2)


def test_a_model_does_not_diverge_from_itself() -> None:
    model, tokenizer = loading.load_lm(TINY)
    measured = divergence(model, model, tokenizer, {"task": TEXTS})
    assert measured == pytest.approx(dict.fromkeys(measured, 0.0), abs=1e-6)
