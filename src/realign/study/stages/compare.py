"""HRSA of model pairs, each computed from what one pass of either model over the texts has left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from realign import hardware
from realign.errors import RealignError, UsageError
from realign.study.graph import Node
from realign.study.models import Reader
from realign.study.stage import Stage

if TYPE_CHECKING:
    from realign import hrsa

# The settings that a comparison of two readings depends on.
COMPARED = {"cka_tokens", "knn_tokens", "k", "resamples", "seed"}


class Pairs(Stage):
    """A stage whose results are HRSA reports of two readers.

    Attributes:
        options: what is asked of HRSA, beside the defaults of a full comparison.
    """

    options: ClassVar[dict[str, Any]] = {}

    def node(self, a: Reader, b: Reader) -> Node:
        """Return the node that compares two readers."""
        settings, read = self.profile.hrsa, self.study.read
        first, second = read.node(a), read.node(b)

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa

            device = hardware.resolve(self.profile.device).device
            read.check_paired(first, second, (a.slug, b.slug))
            one, two = read.states(first), read.states(second)
            try:
                report = hrsa.compare_activations(
                    one,
                    two,
                    settings,
                    labels=read.labels,
                    probes=read.probes(one, two),
                    device=device,
                    **self.options,
                )
            except ValueError as error:  # the array functions know no model names
                raise RealignError(f"{a.slug} and {b.slug} cannot be compared: {error}") from error
            report.save(folder)
            dtypes = " and ".join(dict.fromkeys(report.meta["dtypes"]))
            return {"device": str(device), "dtype": dtypes, "seed": settings.seed}

        request = self.request(
            self.slug(a.slug, b.slug),
            {"hrsa": settings.model_dump(mode="json", include=COMPARED)},
            {"a": first.request.key, "b": second.request.key},
        )
        return Node(request, build, (first, second))

    def report(self, node: Node) -> hrsa.Report:
        """The report of a node."""
        from realign import hrsa

        return hrsa.Report.load(self.graph.run(node).path)


class Compare(Pairs):
    """Base against each sibling by all metrics, and noise ceilings to read the numbers against."""

    name = "compare"
    version = 5
    published = True

    def nodes(self) -> list[Node]:
        """Pairs and ceilings, before and after contrastive learning."""
        return [
            node
            for kind in ("backbone", "embedding")
            for nodes in (self.pairs(kind), self.ceiling_nodes(kind))
            for node in nodes.values()
        ]

    def pairs(self, kind: str) -> dict[tuple[str, str], Node]:
        """Base against each sibling, before ('backbone') or after ('embedding') contrastive learning."""
        base = self._reader(kind, "base")
        return {("base", role): self.node(base, self._reader(kind, role)) for role in self.models.siblings}

    def reports(self, kind: str) -> dict[tuple[str, str], hrsa.Report]:
        """Reports of 'backbone' or 'embedding' models by pair of roles.

        Raises:
            UsageError: base has no sibling.
        """
        self.models.check_siblings()
        return {pair: self.report(node) for pair, node in self.pairs(kind).items()}

    def ceiling_nodes(self, kind: str) -> dict[str, Node]:
        """Noise ceilings by name: a model against itself under a change that should not matter.

        Of backbones: base in the other precision, and base with another batch size. Of embedding
        models: the same recipe from base under two seeds (none with one seed).
        """
        if kind == "backbone":
            return self.study.drift.ceilings()
        base = self._reader(kind, "base")
        if len(self.profile.seeds) < 2:
            return {}
        return {"another seed": self.node(base, self.models.read_embedding("base", self.profile.seeds[1]))}

    def ceilings(self, kind: str) -> dict[str, hrsa.Report]:
        """Reports of the noise ceilings of 'backbone' or 'embedding' models, by name."""
        return {name: self.report(node) for name, node in self.ceiling_nodes(kind).items()}

    def _reader(self, kind: str, role: str) -> Reader:
        if kind == "backbone":
            return self.models.read_backbone(self.models.model(role))
        if kind == "embedding":
            return self.models.read_embedding(role, self.profile.seeds[0])
        raise UsageError(f"unknown kind of comparison '{kind}' (use 'backbone' or 'embedding')")
