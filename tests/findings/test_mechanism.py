"""How tuning is followed: what is compared with what."""

from __future__ import annotations

import numpy as np
import pandas as pd

from realign.display import tables
from realign.findings import mechanism


def test_checkpoints_match_at_the_end_a_common_step_equal_accuracy_and_equal_distance() -> None:
    policy = pd.DataFrame(
        {"role": role, "step": step, "accuracy_greedy": accuracy, "kl": 0.5}
        for role, step, accuracy in [
            ("base", 0, 0.1), ("reason", 10, 0.3), ("reason", 50, 0.6), ("sft", 8, 0.55), ("sft", 48, 0.9),
            ("coin", 9, 0.2),
        ]
    )  # fmt: skip
    policy["kl_task"] = [0.0, 0.1, 0.5, 0.2, 0.6, 0.05]
    drift = pd.DataFrame(
        {
            "role": row.role,
            "step": row.step,
            "metric": "cka",
            "at": "mean",
            "value": 0.9,
            "low": 0.8,
            "high": 1.0,
        }
        for row in policy.itertuples()
    )
    table = mechanism.matched(policy, drift)
    steps = {(r["matched"], r["role"]): r["step"] for _, r in table.iterrows()}
    assert steps == {
        ("the end", "reason"): 50,
        ("the end", "sft"): 48,
        ("the end", "coin"): 9,
        ("steps", "reason"): 10,
        ("steps", "sft"): 8,
        ("steps", "coin"): 9,
        ("accuracy", "reason"): 50,
        ("accuracy", "sft"): 8,
        ("accuracy", "coin"): 9,
        ("KL on common text", "reason"): 50,
        ("KL on common text", "sft"): 48,
        ("KL on common text", "coin"): 9,
    }
    assert list(dict.fromkeys(table["matched"])) == list(mechanism.WAYS)
    np.testing.assert_allclose(table["moved"], 0.2)
    shown = tables.matched(policy, drift).frame
    assert set(shown["(1 − CKA) / KL"]) == {"0.2000"}
    assert set(shown["linear CKA, mean over layers"]) == {"0.900 [0.800, 1.000]"}


def test_quartiles_are_the_median_and_the_middle_half() -> None:
    frame = pd.DataFrame({"layer": [0] * 5 + [1], "size": [1.0, 2, 3, 4, 5, 7]})
    rows = mechanism.quartiles(frame, "layer", "size").set_index("layer")
    assert rows.loc[0].tolist() == [3, 2, 4]
    assert rows.loc[1].tolist() == [7, 7, 7]
