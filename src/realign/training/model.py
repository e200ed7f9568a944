"""A backbone as a sentence-transformers model: made for training, saved to open anywhere."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch

from realign.config import Backbone, Recipe
from realign.models import loading, pretrained, sources
from realign.training.run import public_recipe

if TYPE_CHECKING:
    import pandas as pd
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# sentence-transformers would apply a tokeniser's chat template by itself; this reads plain text.
MODALITY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
SCORES = "## Scores"
CARD = f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
license: {{license}}
---

# {{source}} after contrastive learning

Trained by realign from the backbone `{{source}}` with {{attention}} attention; mean of
the last states over the text's own tokens (the instruction is read, not pooled), length 1.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/directory")
queries = model.encode(['...'], prompt={{prompt}})
documents = model.encode(['...'])
```

Give no empty text (or one of white space alone): it has nothing to pool. realign refuses one wherever it
stands, and names its place; in the texts of an evaluation it counts it and scores a zero vector.
sentence-transformers does not check, and its answer depends on the company: a text without tokens
is a RuntimeError alone and a zero vector beside others.

Recipe, data, seeds and versions:

```json
{{record}}
```

{SCORES}

Not measured yet: `realign evaluate path/to/this/directory` does it, and `realign export` copies a
model of a study with its scores.
"""
VERSIONS = ("torch", "transformers", "sentence-transformers", "peft", "accelerate")


def assemble(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> SentenceTransformer:
    """Return Transformer + mean Pooling without the prompt + Normalize around a loaded encoder.

    Args:
        model: headless, attention mode set (kept in its config, so it survives saving).
        tokenizer: its tokeniser.
        max_tokens: longest sequence when the saved model is used.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    with tempfile.TemporaryDirectory() as folder, pretrained.quiet():
        # The module can only be made from a directory: give it one with an empty model of one layer,
        # then put the loaded model in its place.
        config = type(model.config).from_dict(model.config.to_dict())
        config.num_hidden_layers = 1
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:1]
        type(model)(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = Transformer(
            folder,
            modality_config=MODALITY,
            module_output_name="token_embeddings",
            max_seq_length=max_tokens,
            processing_kwargs={},
        )
    transformer.model = model
    size = int(model.config.hidden_size)
    modules = [transformer, Pooling(size, pooling_mode="mean", include_prompt=False), Normalize()]
    device = str(next(model.parameters()).device)
    return SentenceTransformer(modules=modules, device=device, similarity_fn_name="cosine")


def transformer_of(model: torch.nn.Module) -> Transformer:
    """Return the first module of an assembled model; its ``model`` is the encoder, perhaps with an adapter."""
    return cast("Transformer", cast("SentenceTransformer", model)[0])


class TokenStates:
    """Calls a (wrapped) sentence-transformers model like a transformers model without head."""

    def __init__(self, wrapped: torch.nn.Module) -> None:
        self.wrapped = wrapped
        if hasattr(wrapped, "no_sync"):
            self.no_sync = wrapped.no_sync

    def __call__(
        self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool
    ) -> SimpleNamespace:
        """Return an object whose ``last_hidden_state`` is (B, T, d); the cache stays off, as it was set."""
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        return SimpleNamespace(last_hidden_state=self.wrapped(features)["token_embeddings"])


@contextmanager
def merged(model: SentenceTransformer) -> Iterator[None]:
    """Let an assembled model hold a plain encoder, its adapter (if any) merged, while this context lasts.

    The merged model is a copy: taking an adapter out again would leave rounding in the weights.
    """
    transformer = transformer_of(model)
    wrapped = transformer.model
    if not hasattr(wrapped, "merge_adapter"):
        yield
        return
    transformer.model = cast("Any", copy.deepcopy(wrapped)).merge_and_unload()
    try:
        yield
    finally:
        transformer.model = wrapped


def save_adapter(model: SentenceTransformer, folder: Path, backbone: Backbone) -> None:
    """Write the LoRA adapter of a model by itself, so that it loads as ``adapter:FOLDER`` with the backbone as base.

    Its names are those of the model with its language-model head, as :func:`realign.models.loading.load`
    expects; the base is named by its source, never by a path of this machine.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    adapted = cast("PeftModel", transformer_of(model).model)
    prefix = "base_model.model."
    inner = f"{prefix}{adapted.get_base_model().base_model_prefix}."
    tensors = {
        inner + name.removeprefix(prefix): value.detach().cpu().contiguous()
        for name, value in get_peft_model_state_dict(adapted).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.deepcopy(adapted.peft_config["default"])
    config.base_model_name_or_path = sources.public_source(backbone)
    config.inference_mode = True
    config.save_pretrained(str(folder))


def save(
    model: SentenceTransformer, folder: Path, *, backbone: Backbone, recipe: Recipe, facts: dict[str, Any]
) -> None:
    """Write the model with a model card; it opens with plain ``SentenceTransformer(folder)``.

    The model may be in the middle of training: its mode and its cache setting are as before afterwards.
    """
    config = transformer_of(model).model.config
    config.use_cache = True
    model.model_card_data.generate_widget_examples = False
    with pretrained.quiet():
        model.save_pretrained(str(folder), create_model_card=False)
    # sentence-transformers keeps the longest sequence in the tokeniser's file only; say it here as well,
    # where other readers of the directory look.
    settings = folder / "sentence_bert_config.json"
    saved = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**saved, "max_seq_length": model.max_seq_length}, indent=2), "utf-8")
    (folder / "README.md").write_text(card(backbone, recipe, facts), encoding="utf-8")
    config.use_cache = False


def card(backbone: Backbone, recipe: Recipe, facts: dict[str, Any]) -> str:
    """Return the model card: where the model comes from, how it was trained, how to use it."""
    example = next((p for p in facts.get("prefixes", {}).values() if p), "")
    record = {"backbone": loading.digest(backbone), "recipe": public_recipe(recipe), **facts}
    record["versions"] = {name: metadata.version(name) for name in VERSIONS}
    return CARD.format(
        license=loading.root(backbone).license or "other",
        source=sources.public_source(backbone),
        attention=recipe.attention,
        prompt=repr(example),
        record=json.dumps(record, indent=2),
    )


def scored(text: str, tasks: pd.DataFrame, suites: pd.DataFrame, facts: dict[str, Any]) -> str:
    """Return a model card with its section of scores, the last one, made anew.

    Args:
        text: as :func:`card` made it.
        tasks: columns suite, task, metric and score (0 to 100, NaN where the task failed).
        suites: columns suite, mean_task, tasks and failed.
        facts: what the scores were measured with, for example versions.
    """
    before = text.partition(f"{SCORES}\n")[0].rstrip("\n")

    def row(*cells: object) -> str:
        shown = ("failed" if c != c else f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells)
        return f"| {' | '.join(shown)} |"

    settings = ", ".join(f"{name} {value}" for name, value in facts.items())
    rows = [row(one.suite, one.task, one.metric, one.score) for one in tasks.itertuples()]
    rows += [row(one.suite, f"mean of {one.tasks} tasks", "", one.mean_task) for one in suites.itertuples()]
    heading = f"Each task's main measure, 0 to 100, by `realign evaluate` ({settings})."
    header = ["| suite | task | measure | score |", "|---|---|---|---:|"]
    return "\n".join([before, "", SCORES, "", heading, "", *header, *rows, ""])
