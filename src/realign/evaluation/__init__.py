"""Scores of embedding models through mteb, with everything that changes a score written down.

``suites`` names what is measured, ``encoder`` makes an mteb model of an :class:`~realign.models.embedder.Embedder`
or of an outside model, ``run`` evaluates one task, ``baselines`` gives the rows to read scores against.
mteb takes seconds to import, so only ``encoder`` and ``baselines`` import it at the top.
"""
