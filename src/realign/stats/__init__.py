"""Statistics of scores and similarities: what differs, by how much, and is it small enough to call nothing.

Plain functions on arrays and frames; they use nothing else of realign. Scores are in points (0-100); a
difference is ``b - a``. "No advantage" is an equivalence claim: it needs a margin stated in advance and two
one-sided tests (TOST), not a large p-value.

- :func:`suite_difference`: two arms on fixed tasks; queries, seeds and tuning runs random.
- :func:`paired`, :func:`delta_table`, :func:`hierarchical_interval`, :func:`new_tasks_interval`: for new tasks.
- :func:`excess_variance`: do tasks shift apart by more than noise?
- :func:`score_components`, :func:`similarity_components`, :func:`reml`: variance by source.
- :func:`power`, :func:`excess_power`: what a design can show.
- :func:`verdict`, :func:`verdict_curve`, :func:`family`: from intervals and p-values to verdicts.

Values are array-likes of finite real numbers (lists, arrays, pandas Series); settings may be numpy scalars.
Anything else is a TypeError or ValueError that names the argument.
"""

from realign.stats.components import indicator, reml, score_components, similarity_components
from realign.stats.designs import hierarchical_interval
from realign.stats.equivalence import bootstrap_mean, t_interval, tost
from realign.stats.excess import Excess, excess_variance
from realign.stats.paired import Comparison, delta_table, paired, sign_flip_p
from realign.stats.power import Power, Sizes, excess_power, power
from realign.stats.suites import SuiteDifference, new_tasks_interval, suite_difference
from realign.stats.verdicts import Family, draws_interval, family, verdict, verdict_curve

__all__ = [
    "Comparison",
    "Excess",
    "Family",
    "Power",
    "Sizes",
    "SuiteDifference",
    "bootstrap_mean",
    "delta_table",
    "draws_interval",
    "excess_power",
    "excess_variance",
    "family",
    "hierarchical_interval",
    "indicator",
    "new_tasks_interval",
    "paired",
    "power",
    "reml",
    "score_components",
    "sign_flip_p",
    "similarity_components",
    "suite_difference",
    "t_interval",
    "tost",
    "verdict",
    "verdict_curve",
]
