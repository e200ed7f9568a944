"""The policy's accuracy intervals, entropy and KL against independent calculations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from realign.behaviour import policy
from realign.config import Backbone, PolicySettings
from realign.models import loading

TINY, OTHER = Backbone(source="random:0/llama"), Backbone(source="random:1/llama")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (87, 200)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    reference = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert policy.wilson(hits, n) == pytest.approx((reference.low, reference.high))


@pytest.mark.parametrize(("hits", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_refuses_impossible_counts(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        policy.wilson(hits, n)


def test_samples_that_agree_within_a_problem_count_once() -> None:
    rng = np.random.default_rng(0)
    problem = rng.integers(0, 2, size=(100, 1)).astype(float)
    p, low, high = policy.clustered_wilson(np.repeat(problem, 4, axis=1))
    assert (p, low, high) == pytest.approx((problem.mean(), *policy.wilson(problem.sum(), 100)), abs=2e-3)
    free = rng.integers(0, 2, size=(100, 4)).astype(float)
    _, low, high = policy.clustered_wilson(free)
    ideal = policy.wilson(free.sum(), 400)
    assert high - low == pytest.approx(ideal[1] - ideal[0], rel=0.25)


def test_padding_does_not_change_the_distributions_of_completion_tokens() -> None:
    model, tokenizer = loading.load_lm(TINY)
    prompts = [list(tokenizer(t).input_ids) for t in ("ab", "a much longer prompt")]
    completions = [[10, 11, 12], [13]]
    together, mask = policy.token_log_probabilities(model, prompts, completions, tokenizer.pad_token_id)
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
        alone = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        torch.testing.assert_close(together[i, : len(completion)], alone, atol=1e-4, rtol=1e-4)


def test_sampling_follows_the_models_own_distribution() -> None:
    model, tokenizer = loading.load_lm(TINY)
    torch.manual_seed(0)
    drawn = policy.generate(model, tokenizer, ["q"] * 4000, max_new_tokens=1, sample=True)
    with torch.no_grad():
        p = model(**tokenizer(["q"], return_tensors="pt")).logits[0, -1].double().softmax(-1).numpy()
    counts = np.bincount([row[0] for row in drawn], minlength=len(p))
    # 260 tokens: pool the rare ones so that every expected count is large enough for the test.
    common = p * 4000 >= 5
    seen = np.append(counts[common], counts[~common].sum())
    expected = np.append(p[common], p[~common].sum()) * 4000
    assert stats.chisquare(seen, expected).pvalue > 1e-4


def test_kl_is_zero_to_itself_and_positive_to_another_and_runs_repeat() -> None:
    settings = PolicySettings(problems=12, samples=2, max_new_tokens=3)
    same = policy.measure(TINY, settings, reference=TINY)
    other = policy.measure(TINY, settings, reference=OTHER)
    assert same["kl"] == pytest.approx(0, abs=1e-6)
    assert other["kl"] > 0.1
    assert 0 < same["entropy"] <= math.log(260)
    assert same["entropy"] == other["entropy"]
    assert other == policy.measure(TINY, settings, reference=OTHER)
    assert len(other["rows"]) == other["n"] == 12
    assert np.mean([row["sampled_accuracy"] for row in other["rows"]]) == other["accuracy_sampled"]
    assert math.isnan(policy.measure(TINY, settings)["kl"])


def test_a_policy_that_writes_the_answers_is_right_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from realign.behaviour import problems

    settings = PolicySettings(problems=8, samples=2, max_new_tokens=8)
    model, tokenizer = loading.load_lm(TINY)
    test_problems = problems.load(settings.task, settings.task_options, "test", settings.problems)
    answers = {p.prompt: p.answer for p in test_problems}

    def perfect(model: object, tokenizer: object, prompts: list[str], **kwargs: object) -> list[list[int]]:
        return [[*loading.load_tokenizer(TINY)(f" {answers[p]}").input_ids, 2] for p in prompts]

    monkeypatch.setattr(policy, "generate", perfect)
    result = policy.measure_model(model, tokenizer, test_problems, settings)
    assert result["accuracy_greedy"] == result["accuracy_sampled"] == 1.0
    assert result["accuracy_greedy_high"] == 1.0
    assert result["accuracy_greedy_low"] == pytest.approx(
        stats.binomtest(8, 8).proportion_ci(method="wilson").low
    )
