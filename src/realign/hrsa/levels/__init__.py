"""The compute functions of the metrics, by level: each reads a Pair and returns Rows."""

from realign.hrsa.levels.function import probe
from realign.hrsa.levels.geometry import cka
from realign.hrsa.levels.neighbours import knn
from realign.hrsa.levels.representation import correlation, procrustes

__all__ = ["cka", "correlation", "knn", "probe", "procrustes"]
