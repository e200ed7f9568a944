"""RQ4: what tuning does to the weights, to the landscape and to the trajectories in it."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realign import config as cfg
from realign import hardware, progress, texts
from realign.study.graph import Graph, Node, request, text_sources
from realign.study.models import Model, Models
from realign.study.stages.domains import TASK

NEUTRAL = "docs"
SHOWN = 16  # texts of which the map keeps the points
_PROMPT_WORDS = 12


@dataclass(frozen=True)
class Ground:
    """What the base gives every landscape: its policy, the map, what it wrote and read, by domain."""

    model: Any
    tokenizer: Any
    chart: Any
    fixed: np.ndarray
    prompts: dict[str, list[str]]
    written: dict[str, Any]
    paths: dict[str, list[np.ndarray]]
    again: dict[str, list[np.ndarray]]


class Mechanism:
    """Weights and landscape of every followed sibling's final model, against the base."""

    def __init__(self, graph: Graph, profile: cfg.Profile, models: Models) -> None:
        self.graph = graph
        self.profile = profile
        self.models = models

    def nodes(self) -> list[Node]:
        """Every result that the chapter shows."""
        return [
            *([self.updates_node()] if self.models.finals else []),
            *self.landscape_nodes().values(),
        ]

    # -- weights
    def updates_node(self) -> Node:
        """Updates of every linear layer, for all siblings together: their directions are compared."""
        models = {"base": self.models.base, **self.models.finals}

        def build(folder: Path) -> dict[str, Any]:
            from realign.behaviour import updates

            found = {}
            base = self._state(self.models.base)
            for role, model in progress.track(
                self.models.finals.items(), len(self.models.finals), "updates", "model"
            ):
                found[role] = updates.updates(base, self._state(model), rank=self._rank(model))
            pd.concat([updates.table(u).assign(role=role) for role, u in found.items()]).to_csv(
                folder / "updates.csv", index=False
            )
            roles = list(found)
            pairs = [
                updates.agreement(found[a], found[b]).assign(a=a, b=b)
                for i, a in enumerate(roles)
                for b in roles[i + 1 :]
            ]
            if pairs:
                pd.concat(pairs).to_csv(folder / "agreement.csv", index=False)
            return {}

        return Node(
            request(
                "updates",
                self.models.family.name,
                {"roles": list(self.models.finals)},
                {role: model.identity for role, model in models.items()},
            ),
            build,
            tuple(need for model in models.values() for need in model.needs),
        )

    def updates(self) -> pd.DataFrame:
        """Updates by role and matrix; see :func:`realign.behaviour.updates.table`."""
        return pd.read_csv(self.graph.run(self.updates_node()).path / "updates.csv")

    def update_agreement(self) -> pd.DataFrame:
        """Agreement of the directions of two roles' updates (a, b) by matrix; empty for one sibling."""
        file = self.graph.run(self.updates_node()).path / "agreement.csv"
        return pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=["a", "b", "left", "right"])

    def _state(self, model: Model) -> dict[str, Any]:
        from realign.models import loading

        loaded, _ = loading.load_lm(self.models.backbone(model), local=self.models.local(model))
        state: dict[str, Any] = loaded.state_dict()
        return state

    def _rank(self, model: Model) -> int | None:
        from realign.models.sources import existing_directory

        backbone = self.models.backbone(model)
        if backbone.kind != "adapter":
            return None
        written = (existing_directory(backbone) / "adapter_config.json").read_text(encoding="utf-8")
        return int(json.loads(written)["r"])

    # -- landscape and trajectories
    def landscape_nodes(self) -> dict[str, Node]:
        """Landscape and trajectories of every followed role."""
        return {role: self._landscape_node(model) for role, model in self.models.finals.items()}

    def landscape(self, table: str = "measures") -> pd.DataFrame:
        """What the landscape shows, with a column role.

        Args:
            table: "measures" (domain, measure, value, low, high, null) or "points" (domain, text, token,
                x, y, on the first two axes of the map; roles 'base' and 'fixed texts' too).
        """
        frames = []
        for role, node in self.landscape_nodes().items():
            frame = pd.read_csv(self.graph.run(node).path / f"{table}.csv")
            frames.append(frame.assign(role=role) if "role" not in frame else frame)
        return pd.concat(frames, ignore_index=True).drop_duplicates(ignore_index=True)

    def _landscape_node(self, model: Model) -> Node:
        settings, policy, base = self.profile.mechanism, self.profile.policy, self.models.base

        def build(folder: Path) -> dict[str, Any]:
            measures, points = self._landscape(model)
            measures.to_csv(folder / "measures.csv", index=False)
            points.round(4).to_csv(folder / "points.csv", index=False)
            compute = hardware.resolve(self.profile.device, self.profile.dtype)
            return {"device": str(compute.device), "dtype": str(compute.dtype), "seed": settings.seed}

        return Node(
            request(
                "landscape",
                f"{self.models.family.name}-{model.slug}",
                {
                    "mechanism": settings.model_dump(mode="json", exclude={"domains", "n_texts"}),
                    "task": policy.task,
                    "task_options": policy.task_options,
                    "dtype": self.profile.dtype,
                },
                {"base": base.identity, "model": model.identity},
                {**text_sources(NEUTRAL), "reasoning-gym": metadata.version("reasoning-gym")},
            ),
            build,
            (*base.needs, *model.needs),
        )

    @cached_property
    def _ground(self) -> Ground:
        from realign.behaviour import landscape, policy
        from realign.behaviour import problems as problem_sets

        settings, asked = self.profile.mechanism, self.profile.policy
        model, tokenizer = self.models.policy(self.models.base)
        found = problem_sets.load(
            asked.task, asked.task_options, "test", settings.prompts, chat=policy.has_chat_markers(tokenizer)
        )
        neutral = texts.load(NEUTRAL, 2 * settings.prompts, seed=settings.seed).texts
        prompts = {
            TASK: [p.prompt for p in found],
            NEUTRAL: [" ".join(t.split()[:_PROMPT_WORDS]) for t in neutral[: settings.prompts]],
        }
        # The map is fitted on natural text of both kinds that no model wrote.
        fixed = [*neutral[settings.prompts :], *(f"{p.prompt}{p.solution}" for p in found)]
        rows = tokenizer(fixed, truncation=True, max_length=48).input_ids
        natural = landscape.Written([[row[0]] for row in rows], [list(row[1:]) for row in rows])
        pad = tokenizer.pad_token_id
        states = np.concatenate(landscape.read(model, natural, pad))
        chart = landscape.fit_map(
            states, components=settings.components, regions=settings.regions, seed=settings.seed
        )

        def wrote(seed: int) -> dict[str, Any]:
            return {
                domain: landscape.write(model, tokenizer, p, length=settings.max_new_tokens, seed=seed)
                for domain, p in prompts.items()
            }

        def placed(written: dict[str, Any]) -> dict[str, list[np.ndarray]]:
            return {d: [chart(s) for s in landscape.read(model, w, pad)] for d, w in written.items()}

        written = wrote(settings.seed)
        return Ground(
            model,
            tokenizer,
            chart,
            chart(states),
            prompts,
            written,
            placed(written),
            placed(wrote(settings.seed + 1)),
        )

    def _landscape(self, model: Model) -> tuple[pd.DataFrame, pd.DataFrame]:
        from realign import hrsa
        from realign.behaviour import landscape as land

        settings, ground = self.profile.mechanism, self._ground
        tuned, _ = self.models.policy(model)
        pad, chart = ground.tokenizer.pad_token_id, ground.chart
        weights = hrsa.calibration.resample_weights(settings.prompts, settings.resamples, settings.seed)
        measures: list[dict[str, Any]] = []
        points = [_points(ground.fixed[:300, None], "", "fixed texts")]
        for domain, prompts in progress.track(
            ground.prompts.items(), len(ground.prompts), f"landscape {model.slug}", "domain"
        ):
            own = land.write(
                tuned, ground.tokenizer, prompts, length=settings.max_new_tokens, seed=settings.seed + 2
            )
            went = [chart(s) for s in land.read(ground.model, own, pad)]
            reread = [chart(s) for s in land.read(tuned, ground.written[domain], pad)]
            agree = land.next_token_agreement(ground.model, tuned, ground.written[domain], pad)
            base, again = ground.paths[domain], ground.again[domain]

            def row(
                measure: str, value: Any, null: float = float("nan"), domain: str = domain
            ) -> dict[str, Any]:
                numbers = land.with_interval(value, weights)
                return {"domain": domain, "measure": measure, **numbers, "null": null}

            def token_mean(column: str, agree: pd.DataFrame = agree) -> Any:
                sums, counts = (agree[column] * agree["tokens"]).to_numpy(), agree["tokens"].to_numpy()
                one = np.ones((1, len(counts)))

                def mean(w: Any) -> Any:
                    value = ((one if w is None else w) @ sums) / ((one if w is None else w) @ counts)
                    return float(value[0]) if w is None else value

                return mean

            measures += [
                row("landscape shift", lambda w, x=base, y=reread: land.shift(x, y, w), 0.0),
                row(
                    "trajectory distance",
                    lambda w, x=base, y=went: land.energy_distance(x, y, w),
                    float(land.energy_distance(base, again)),
                ),
                row(
                    "region occupancy",
                    lambda w, x=base, y=went: land.occupancy_distance(x, y, chart, w),
                    land.occupancy_distance(base, again, chart),
                ),
                row("spread", lambda w, y=went: land.spread(y, w), land.spread(base)),
                row("step length", lambda w, y=went: land.step_length(y, w), land.step_length(base)),
                row("next-token top-1 agreement", token_mean("top1"), 1.0),
                row("next-token divergence (bits)", token_mean("js"), 0.0),
            ]
            points += [
                _points(base[:SHOWN], domain, "base"),
                _points(went[:SHOWN], domain, model.slug),
            ]
        del tuned
        gc.collect()
        return pd.DataFrame(measures), pd.concat(points, ignore_index=True)


def _points(paths: Any, domain: str, role: str) -> pd.DataFrame:
    """Coordinates of tokens on the first two axes: role, domain, text, token, x, y."""
    rows = [
        {"role": role, "domain": domain, "text": text, "token": token, "x": place[0], "y": place[1]}
        for text, path in enumerate(paths)
        for token, place in enumerate(path)
    ]
    return pd.DataFrame(rows)
