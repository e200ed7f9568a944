"""The campaign of kills, damage and bad input in small: a few trials of each part."""

from __future__ import annotations

import time

import campaign
import pytest


@pytest.mark.slow
def test_everything_holds_in_a_small_campaign(capsys):
    seed = time.time_ns() % 2**32
    assert campaign.run(seed, small=True) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert f"seed {seed}" in out
    for part in ("damaged artifact", "four processes, one artifact", "bad input", "interrupt"):
        assert f"{part:<32}" in out
