"""A base with a LoRA adapter: made, measured while it is tuned, saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from realign.behaviour import policy
from realign.behaviour import problems as problem_sets
from realign.config import Backbone, LoRA, PolicySettings, RLVRSettings, SFTSettings
from realign.errors import UsageError
from realign.hardware import Compute
from realign.models import loading, pretrained, sources

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedTokenizerBase


def lora_config(lora: LoRA) -> LoraConfig:
    """Return the peft configuration: all linear layers but the head."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def load_policy(
    base: Backbone,
    settings: RLVRSettings | SFTSettings,
    compute: Compute,
    local: Path | None,
    start: Path | None = None,
) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Load the base to be tuned, with a fresh LoRA (or the saved one in ``start``) in the model's own dtype.

    Eager attention, and logits from contiguous states: what is fast in bfloat16 on a CPU.
    """
    from peft import PeftModel, get_peft_model

    if base.kind == "adapter":
        raise UsageError(f"{base.source}: tuning starts from a base, not from an adapter")
    model, tokenizer = loading.load_lm(
        base, dtype=compute.dtype, device=compute.device, local=local, attn_implementation="eager"
    )
    head = model.get_output_embeddings()
    # A slice of the states makes this product several times slower on a CPU.
    head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))
    with pretrained.quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if start is None:
            tuned: PeftModel = get_peft_model(model, lora_config(settings.lora), autocast_adapter_dtype=False)
        else:
            tuned = PeftModel.from_pretrained(
                model, str(start), is_trainable=True, autocast_adapter_dtype=False
            )
    return tuned, tokenizer


def save_adapter(model: PeftModel, folder: Path, base: Backbone) -> Path:
    """Save a LoRA adapter in bfloat16: its configuration and weights, nothing else, no machine paths."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: Any = model.peft_config["default"]
    kept = config.base_model_name_or_path, config.inference_mode, config.target_modules
    config.base_model_name_or_path, config.inference_mode = sources.public_source(base), True
    config.target_modules = sorted(config.target_modules)  # a set would be written in random order
    config.save_pretrained(str(folder))
    config.base_model_name_or_path, config.inference_mode, config.target_modules = kept
    return folder


class BaseOf:
    """A tuned model with its adapter switched off, callable like the base: no second copy in memory."""

    def __init__(self, model: PeftModel) -> None:
        """``model`` holds the one adapter being tuned."""
        self.model = model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def __call__(self, **inputs: Any) -> Any:
        """Return the base's output."""
        with self.model.disable_adapter():
            return self.model(**inputs)


def training_problems(
    settings: RLVRSettings | SFTSettings, tokenizer: PreTrainedTokenizerBase, count: int
) -> list[problem_sets.VerifiableProblem]:
    """Return ``count`` training problems of a run (distinct, but for kinds of a mixture that have too few)."""
    return policy.problems_of(settings, tokenizer, "train", count, settings.seed)


def validator(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, settings: RLVRSettings | SFTSettings
) -> Callable[[], dict[str, Any]]:
    """Return a function that measures the model as a policy on validation problems.

    Its result has accuracies (greedy, and sampled once) with Wilson intervals, entropy, KL to the base
    and completion length; see :func:`realign.behaviour.policy.measure`.
    """
    asked = PolicySettings(
        task=settings.task,
        task_options=settings.task_options,
        problems=settings.validation_problems,
        samples=1,
        max_new_tokens=settings.max_new_tokens,
        style=settings.style,
        seed=settings.seed,
    )
    problems = policy.problems_of(asked, tokenizer, "validation", asked.problems)

    def measure() -> dict[str, Any]:
        training = model.training
        model.eval()
        result = policy.measure_model(model, tokenizer, problems, asked, base=BaseOf(model))
        model.train(training)
        return {k: v for k, v in result.items() if k != "rows"}

    return measure
