"""Model cards of tuned adapters: task, data, steps, settings, versions, and behaviour before and after."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from realign.behaviour import mixture, policy
from realign.config import Backbone, OnPolicySFTSettings, PolicySettings, RLVRSettings, SFTSettings
from realign.hardware import Compute
from realign.models import sources

PACKAGES = ("torch", "transformers", "trl", "peft", "reasoning_gym")


def write(
    saved: dict[int, Path],
    base: Backbone,
    settings: RLVRSettings | SFTSettings,
    evaluation: PolicySettings | None,
    *,
    local: Path | None,
    compute: Compute,
) -> dict[int, dict[str, Any]]:
    """Write a model card (README.md) into every adapter.

    With ``evaluation``, base (step 0) and adapters are measured on never-seen problems for it. Returns
    the measurements by step (empty without ``evaluation``).
    """
    measured: dict[int, dict[str, Any]] = {}
    if not saved:  # a process that writes nothing
        return measured
    if evaluation is not None:
        evaluation = evaluation.for_tuning(settings)
        measured[0] = policy.measure(base, evaluation, local=local, compute=compute)
    for step, folder in saved.items():
        if evaluation is not None:
            adapter = Backbone(source=f"adapter:{folder.resolve()}", base=base)
            measured[step] = policy.measure(adapter, evaluation, local=local, reference=base, compute=compute)
        text = card(step, base, settings, measured, compute)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return measured


def card(
    step: int,
    base: Backbone,
    settings: RLVRSettings | SFTSettings,
    measured: dict[int, dict[str, Any]],
    compute: Compute,
) -> str:
    """Write the model card of one adapter (Markdown); ``measured`` holds results by step, 0 the base."""
    method, data = _described(settings)
    source = sources.public_source(base)
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES)
    written = "\n".join(f"{name} = {value!r}" for name, value in settings.model_dump().items())
    return f"""---
library_name: peft
base_model: "{source}"
license: "{base.license or "that of the base model"}"
---
# {method}, step {step} of {settings.steps}

A LoRA adapter (bfloat16, rank {settings.lora.rank}) on `{source}`, made by `realign tune`.

- **Task**: reasoning_gym `{settings.task}` with {settings.task_options}.
- **Data**: {data}
- **Steps**: {step} (of {settings.steps}; the first has rate 0, the warm-up's start); **seed**: {settings.seed}.
- **Computed** in {str(compute.dtype).removeprefix("torch.")} on {compute.device.type}; {versions}.

{_results(measured[0], measured[step]) if step in measured else "Accuracy was not measured when this was made."}

Settings:

```
{written}
```
"""


_ORDER = {
    "answer": "the answer, then the working by decimal places",
    "working": "the working by decimal places, then the answer",
}


def _described(settings: RLVRSettings | SFTSettings) -> tuple[str, str]:
    """Return the method and the training data in words."""
    mixed = settings.task == mixture.MIXTURE
    order = "each asked after two examples; the working, then the answer" if mixed else _ORDER[settings.style]
    which = "training problems, the kinds in turn" if mixed else "distinct training problems of reasoning_gym"
    if isinstance(settings, OnPolicySFTSettings):
        return "SFT (TRL) on own samples", (
            f"{settings.batch_size * settings.steps} different completions that the base itself drew at temperature 1 for "
            f"{which}, and that the verifier found right ({settings.attempts} drawn of a problem at a time)."
        )
    if isinstance(settings, SFTSettings):
        return "SFT (TRL)", (
            f"{settings.batch_size * settings.steps} {which}, with worked answers ({order})"
            f"{'' if mixed else ', each seen once'}."
        )
    coin = "a coin that ignores the answer"
    warm = (
        f"{settings.warm_start} steps of SFT on worked answers ({settings.prompts} a step: {order}), then "
        if settings.warm_start
        else ""
    )
    return "RLVR (GRPO, dr_grpo loss)", warm + (
        f"{settings.prompts * settings.steps} {which}, "
        f"{settings.completions} completions each; "
        f"reward: {coin if settings.reward == 'random' else 'the verifier of the task'}."
    )


_JUDGED = {"answer": "the first number of a completion", "working": 'what follows the last "Answer:"'}


def _results(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Write the before-and-after table of a model card."""

    def shown(result: dict[str, Any], key: str) -> str:
        return f"{result[key]:.1%} ({result[f'{key}_low']:.1%} to {result[f'{key}_high']:.1%})"

    rows = [
        f"| {key.removeprefix('accuracy_')} accuracy | {shown(before, key)} | {shown(after, key)} |"
        for key in ("accuracy_greedy", "accuracy_sampled")
    ]
    return "\n".join(
        [
            f"On {after['n']} distinct problems never trained on (split by problem text). 95% Wilson intervals; sampled:",
            f"{after['samples']} completions a problem at temperature 1, interval for the effective number of trials.",
            f"Judged by the task's own verifier: {_JUDGED[after['style']]}.",
            "",
            "| | before (base) | after |",
            "|---|---|---|",
            *rows,
            f"| entropy, nats a token | {before['entropy']:.3f} | {after['entropy']:.3f} |",
            f"| KL to base, nats a token | 0 | {after['kl']:.3f} |",
        ]
    )
