"""HRSA of model pairs, each computed from what one pass of either model over the texts has left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from realign import config as cfg
from realign import hardware
from realign.errors import RealignError, UsageError
from realign.study.graph import Node
from realign.study.models import Reader
from realign.study.stage import Stage

if TYPE_CHECKING:
    from realign import hrsa

# The settings that a comparison of two readings depends on.
COMPARED = {"cka_tokens", "knn_tokens", "k", "layers", "resamples", "seed"}
Extent = Literal["full", "quick", "cheap"]
CHEAP = ("correlation", "cka", "knn")
METRICS: dict[Extent, tuple[str, ...] | None] = {
    "full": None,  # all, with grids of layers and nulls
    "quick": (*CHEAP, "r2", "probe_transfer"),
    "cheap": CHEAP,
}
KINDS = ("backbone", "embedding", "same seed")


class Pairs(Stage):
    """A stage whose results are HRSA reports of two readers.

    Attributes:
        extent: what is asked of HRSA: everything, all metrics in brief, or those that cost little.
    """

    extent: ClassVar[Extent] = "full"

    def node(
        self,
        a: Reader,
        b: Reader,
        extent: Extent | None = None,
        *,
        unrelated: bool = False,
        sinks: Reader | None = None,
    ) -> Node:
        """Return the node that compares two readers.

        Args:
            a: the first.
            b: the other.
            extent: instead of the stage's.
            unrelated: pair the texts of one with other texts of the other, which gives the floor of every metric.
            sinks: whose sink tokens CKA leaves out; None is the base, in both attention modes, as everywhere in a study.
        """
        settings, read, chosen = self.profile.hrsa, self.study.read, extent or self.extent
        first, second = read.node(a), read.node(b)
        masks = read.base() if sinks is None else [read.node(sinks)]
        metrics = [name for name in METRICS[chosen] or () if not (unrelated and name == "probe_transfer")]

        def build(folder: Path) -> dict[str, Any]:
            from realign import hrsa
            from realign.hrsa import replicates

            device = hardware.resolve(self.profile.device).device
            read.check_paired(first, second, (a.slug, b.slug))
            one, two = read.states(first), read.states(second)
            if unrelated:
                two = replicates.repaired(two, settings.seed)
            try:
                report = hrsa.compare_activations(
                    one,
                    two,
                    settings,
                    labels=read.labels if chosen == "full" else None,
                    probes={} if unrelated else read.probes(one, two),
                    metrics=metrics or None,
                    detail="full" if chosen == "full" else "summary",
                    sinks=read.sinks(masks),
                    device=device,
                )
            except ValueError as error:  # the array functions know no model names
                raise RealignError(f"{a.slug} and {b.slug} cannot be compared: {error}") from error
            report.save(folder)
            dtypes = " and ".join(dict.fromkeys(report.meta["dtypes"]))
            return {"device": str(device), "dtype": dtypes, "seed": settings.seed}

        words = [chosen] * (chosen != self.extent) + ["unrelated"] * unrelated
        asked = {"hrsa": settings.model_dump(mode="json", include=COMPARED), "extent": chosen}
        request = self.request(
            self.slug(a.slug, b.slug, *words),
            asked | {"metrics": metrics, "unrelated": unrelated},
            {"a": first.request.key, "b": second.request.key, "sinks": [m.request.key for m in masks]},
        )
        return Node(request, build, (first, second, *masks))

    def report(self, node: Node) -> hrsa.Report:
        """The report of a node."""
        from realign import hrsa

        return hrsa.Report.load(self.graph.run(node).path)


@dataclass(frozen=True)
class Replicates:
    """Comparisons that differ in seeds and tuning runs alone.

    Attributes:
        each: those that numbers are averaged over, with the levels that their models have, by kind ('seed', 'run').
        details: the comparison whose maps, histograms and rotation stand for all of them.
    """

    each: Sequence[tuple[Node, dict[str, set[str]]]]
    details: Node

    @property
    def nodes(self) -> list[Node]:
        """All of them."""
        return [node for node, _ in self.each] + [self.details]


class Compare(Pairs):
    """Base against each sibling, with a floor and noise ceilings to read the numbers against."""

    name = "compare"
    version = 6
    published = True

    def __init__(self, study: Any) -> None:
        super().__init__(study)
        self._reports: dict[str, dict[tuple[str, str], hrsa.Report]] = {}

    def nodes(self) -> list[Node]:
        """Pairs, ceilings and floors, before and after contrastive learning."""
        wanted = [node for kind in KINDS for pair in self.pairs(kind).values() for node in pair.nodes]
        for kind in KINDS[:2]:
            wanted += [node for ceiling in self.ceiling_pairs(kind).values() for node in ceiling.nodes]
            wanted += self.floor_nodes(kind)
        return list({node.request.key: node for node in wanted}.values())

    def pairs(self, kind: str) -> dict[tuple[str, str], Replicates]:
        """Base against each arm of siblings.

        Args:
            kind: 'backbone' (before contrastive learning, a pair a tuning run), 'embedding' (after it: base of one
                seed against the sibling of another, since models of one seed share their data and their start), or
                'same seed'. With a single seed, 'embedding' has nothing but the same one.
        """
        if kind not in KINDS:
            raise UsageError(f"unknown kind of comparison '{kind}' (use {', '.join(map(repr, KINDS))})")
        arms: dict[str, list[str]] = {}
        for role in self.models.siblings:
            arms.setdefault(cfg.naming.arm(role), []).append(role)
        return {("base", arm): self._pair(kind, roles) for arm, roles in arms.items()}

    def _pair(self, kind: str, roles: Sequence[str]) -> Replicates:
        if kind == "backbone":
            base = self.models.read_backbone(self.models.base)
            each = [
                (self.node(base, self.models.read_backbone(self.models.model(role))), {"run": {role}})
                for role in roles
            ]
            return Replicates(each, each[0][0])
        seeds = self.profile.seeds
        crossed = kind == "embedding" and len(seeds) > 1
        both = [*permutations(seeds, 2)] if crossed else [(seed, seed) for seed in seeds]
        return self._trained([("base", i, role, j) for role in roles for i, j in both], kind == "embedding")

    def _trained(self, pairs: Sequence[tuple[str, int, str, int]], full: bool = True) -> Replicates:
        """Trained models, each pair once; in full the first, and by costly metrics those of the first seeds."""
        early = self.profile.seeds[: self.profile.hrsa.costly_seeds]
        each = []
        for first, i, second, j in pairs:
            extent: Extent = "quick" if i in early and j in early else "cheap"
            a, b = self.models.read_embedding(first, i), self.models.read_embedding(second, j)
            levels = {"seed": {str(i), str(j)}, "run": {second}}
            each.append((self.node(a, b, extent), levels))
        first, i, second, j = pairs[0]
        whole = self.node(self.models.read_embedding(first, i), self.models.read_embedding(second, j))
        return Replicates(each, whole if full else each[0][0])

    def reports(self, kind: str) -> dict[tuple[str, str], hrsa.Report]:
        """Reports by base and arm, means over :meth:`pairs`, with floor and ceiling where there are any.

        Raises:
            UsageError: base has no sibling.
        """
        from realign.hrsa import replicates

        self.models.check_siblings()

        if kind not in self._reports:
            reports = {pair: self._mean(replicates) for pair, replicates in self.pairs(kind).items()}
            of = "backbone" if kind == "backbone" else "embedding"
            for node, ceiling in zip(self.floor_nodes(of), self.ceilings(of).values(), strict=True):
                floor = self.report(node)
                reports = {pair: replicates.calibrate(each, floor, ceiling) for pair, each in reports.items()}
            self._reports[kind] = reports
        return dict(self._reports[kind])

    def ceiling_pairs(self, kind: str) -> dict[str, Replicates]:
        """Noise ceilings by name: a model against a replicate of itself, under changes that should not matter.

        Of backbones: base in the other precision and in other batches. Of embedding models: the same recipe from base
        under two seeds, all pairs of them (none with one seed).
        """
        if kind == "backbone":
            node = self.node(self.models.read_backbone(self.models.base), self._replicate())
            return {"another precision and batch size": Replicates([(node, {})], node)}
        pairs = [("base", i, "base", j) for i, j in combinations(self.profile.seeds, 2)]
        return {"another seed": self._trained(pairs)} if pairs else {}

    def ceilings(self, kind: str) -> dict[str, hrsa.Report]:
        """Reports of the noise ceilings of 'backbone' or 'embedding' models, by name."""
        return {name: self._mean(each) for name, each in self.ceiling_pairs(kind).items()}

    def floor_nodes(self, kind: str) -> list[Node]:
        """One floor for each ceiling: the same two models on texts that do not belong together."""
        if kind == "backbone":
            return [
                self.node(
                    self.models.read_backbone(self.models.base), self._replicate(), "quick", unrelated=True
                )
            ]
        if len(self.profile.seeds) < 2:
            return []
        first, second = (self.models.read_embedding("base", seed) for seed in self.profile.seeds[:2])
        return [self.node(first, second, "quick", unrelated=True)]

    def _replicate(self) -> Reader:
        """Base in the other precision, in smaller batches."""
        precision: cfg.DType = "float32" if self.profile.hrsa.dtype == "bfloat16" else "bfloat16"
        read = self.models.read_backbone(self.models.base, dtype=precision)
        return replace(read, slug=f"{read.slug}-small-batches", batch_tokens=read.batch_tokens // 4)

    def _mean(self, replicates: Replicates) -> hrsa.Report:
        from realign.hrsa import replicates as averages

        reports = [self.report(node) for node, _ in replicates.each]
        details = self.report(replicates.details)
        return averages.mean(reports, [levels for _, levels in replicates.each], details=details)
