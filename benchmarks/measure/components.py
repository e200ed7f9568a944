"""Variance components of scores by suite, from the results of a profile: data/power/components.csv.

`realign plan --power` reads them. A component that the design cannot tell from another is not in the file; with one
tuning run an arm that is the variance between runs.

    python benchmarks/measure/components.py --profile laptop
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from realign import paths, stats
from realign.findings.scores import trained_scores
from realign.study import open_study


def components(profile: str) -> pd.DataFrame:
    """Suite, component, variance and its error (squared points), and the profile that they come from."""
    study = open_study(profile)
    study.graph.compute = False
    frame = trained_scores(study.evaluate.scores(), study.evaluate.items())
    parts = [
        stats.score_components(part).assign(suite=suite) for suite, part in frame.groupby("suite", sort=False)
    ]
    table = pd.concat(parts, ignore_index=True).assign(profile=profile).round({"variance": 4, "error": 4})
    return table[["suite", "component", "variance", "error", "levels", "profile"]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--output", type=Path, default=paths.data() / "power" / "components.csv")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    measured = components(arguments.profile)
    measured.to_csv(arguments.output, index=False)
    print(measured.to_string(index=False))
