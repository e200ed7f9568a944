"""What each level of the analysis adds to a report: frames, and influences of texts for intervals."""

from realign.hrsa.levels.function import probe
from realign.hrsa.levels.geometry import cka, energy
from realign.hrsa.levels.neighbours import knn
from realign.hrsa.levels.representation import correlation, procrustes

__all__ = ["cka", "correlation", "energy", "knn", "probe", "procrustes"]
