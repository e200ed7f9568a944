"""Statistics of paired scores: what differs, by how much, and is it small enough to call nothing.

Plain functions on arrays and frames; they use nothing else of realign. Scores are in points (0-100); a
difference is ``b - a``. "No advantage" is an equivalence claim: it needs a margin stated in advance and two
one-sided tests (TOST), not a large p-value.

Values are array-likes of finite real numbers (lists, arrays, pandas Series); settings may be numpy scalars.
Anything else is a TypeError or ValueError that names the argument.
"""

from realign.stats.designs import hierarchical_interval
from realign.stats.equivalence import bootstrap_mean, t_interval, tost
from realign.stats.paired import Comparison, delta_table, paired, sign_flip_p

__all__ = [
    "Comparison",
    "bootstrap_mean",
    "delta_table",
    "hierarchical_interval",
    "paired",
    "sign_flip_p",
    "t_interval",
    "tost",
]
