"""Claims about the loss: its value where it is known, which negatives are dropped, what the statistics say."""

from __future__ import annotations

import math

import pytest
import torch

from realign.training import infonce
from realign.training.data import TrainingBatch
from realign.training.infonce import LossSettings


def test_a_matryoshka_length_that_is_not_shorter_is_refused() -> None:
    ones = torch.nn.functional.normalize(torch.ones(2, 4), dim=1)
    with pytest.raises(ValueError, match="between 1 and 3"):
        infonce.nested_info_nce(
            ones, ones, torch.zeros(2, 2, dtype=torch.bool), LossSettings(dimensions=(4,))
        )


def test_equal_vectors_give_the_logarithm_of_the_candidates() -> None:
    ones = torch.nn.functional.normalize(torch.ones(4, 3, dtype=torch.float64), dim=1)
    same = torch.zeros(4, 6, dtype=torch.bool)
    loss = infonce.info_nce(ones, torch.cat([ones, ones[:2]]), same, LossSettings())
    assert float(loss) == pytest.approx(math.log(6))


def test_a_false_negative_is_masked_and_the_positive_never() -> None:
    # query 2's positive says what query 0 asks; the last candidate is positive 1 once more
    batch = TrainingBatch("test", [[1]] * 6, [0] * 6, [0, 1, 2], [3, 4, 5, 4], [0, 1, 2, 3, 4, 0])
    mask = infonce.false_negatives(batch)
    assert not mask.diagonal().any()
    expected = {
        (i, j)
        for i, q in enumerate(batch.queries)
        for j, c in enumerate(batch.candidates)
        if i != j and batch.content[c] in (batch.content[q], batch.content[batch.candidates[i]])
    }
    assert {(int(i), int(j)) for i, j in mask.nonzero()} == expected
    assert expected


def test_statistics_know_a_perfect_and_a_collapsed_batch() -> None:
    eye = torch.eye(5)
    same = torch.zeros(5, 5, dtype=torch.bool)
    perfect = infonce.statistics(eye, eye, same)
    assert perfect["accuracy"] == 1
    assert perfect["alignment"] == 0
    assert perfect["uniformity"] == pytest.approx(-4)
    assert perfect["min_cosine"] == 0
    flat = infonce.statistics(eye[:1].expand(5, 5), eye[:1].expand(5, 5), same)
    assert flat["min_cosine"] == 1
    assert flat["uniformity"] == 0
