"""What to compare, as frozen data.

Nothing here touches a model, a file of weights or the network. Keys of the artifact store are made
from these objects, so a field that changes a result belongs here and one that does not (a path, a
number of workers) does not.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from realign.errors import check_name, unknown

Attention = Literal["bidirectional", "causal"]
DType = Literal["auto", "float32", "bfloat16"]
SOURCE_KINDS = ("hub", "path", "wheel", "parts", "adapter", "random")
MAX_SEED = 2**32 - 1  # the largest that numpy takes
TASK = "task"  # the domain of the problems that tuning trains on; other domains are text sets

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Count = Annotated[int, Field(ge=1)]


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown fields, finite numbers, no value twice in a list."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _nothing_twice(cls, value: Any) -> Any:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError(f"a value stands twice in {list(value)}")
        return value


class Backbone(Config):
    """Where one language model comes from.

    ``source`` is ``hub:ORG/NAME[@revision]``, ``path:DIR``, ``wheel:PROJECT==VERSION/FILE.gguf``,
    ``parts:PROJECT{1..N}==VERSION/FILE{1..N}`` (a GGUF file cut into the wheels of several projects; ranges
    count together), ``adapter:DIR`` (a peft adapter on ``base``) or ``random:SEED[/ARCHITECTURE]`` (tiny, untrained).
    """

    source: str
    base: Backbone | None = None
    sha256: str | None = Field(default=None, description="wheel and parts: digest of the (joined) model file")
    wheels: tuple[str, ...] = Field(default=(), description="parts only: sha256 of each wheel")
    license: str = ""
    origin: str = Field(default="", description="where this fact comes from")
    note: str = ""

    @model_validator(mode="after")
    def _source_is_known(self) -> Backbone:
        kind, _, rest = self.source.partition(":")
        if not self.source.isprintable():
            raise ValueError(f"source {self.source!r} holds characters that no name has")
        if kind not in SOURCE_KINDS or not rest:
            kinds = ", ".join(f"{k}:..." for k in SOURCE_KINDS)
            raise ValueError(f"source '{self.source}' must be one of {kinds}")
        if (kind == "adapter") != (self.base is not None):
            raise ValueError(f"source '{self.source}': an adapter, and only an adapter, needs a base")
        return self

    @property
    def kind(self) -> str:
        """The part of the source before the colon."""
        return self.source.partition(":")[0]

    @property
    def location(self) -> str:
        """The part of the source after the colon."""
        return self.source.partition(":")[2]


class LoRA(Config):
    """Low-rank adaptation of all linear layers."""

    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    merge: bool = Field(default=True, description="False keeps the adapter by itself as well")


class Recipe(Config):
    """How contrastive learning is done (paper.md, training recipe). Lengths in tokens."""

    data: tuple[str, ...] = Field(min_length=1)
    queries: int | None = Field(default=None, ge=1, description="how many queries are used; None is all")
    hard_negatives: int = Field(default=3, ge=0)
    batch_size: int = Field(default=2048, ge=2)
    epochs: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=0.02, gt=0)
    learning_rate: float = Field(default=2e-5, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    max_query_tokens: int = Field(default=512, ge=4)
    max_passage_tokens: int = Field(default=512, ge=4)
    attention: Attention = "bidirectional"
    instructions: bool = True
    sampling: Literal["size", "equal", "temperature"] = "size"
    sampling_temperature: float = Field(
        default=2.0, ge=1, description="'temperature' only: sets weigh by size^(1/T); 1 is by size"
    )
    chunk_tokens: int = Field(default=8192, ge=16, description="token budget of one forward pass")
    lora: LoRA | None = Field(
        default=None, description="train a low-rank adapter; false (TOML has no null) or None: all weights"
    )
    dtype: DType = "auto"
    gradient_checkpointing: bool = False
    symmetric: bool = False
    mask_false_negatives: bool = True
    margin: float | None = Field(
        default=None, ge=0, description="also mask candidates this much more similar than the positive"
    )
    matryoshka: tuple[Count, ...] = Field(
        default=(), description="shorter vector lengths that share the loss with the whole vector"
    )
    save_steps: tuple[Count, ...] = Field(default=(), description="steps whose model is kept as well")
    checkpoint_steps: int = Field(default=100, ge=1)

    @field_validator("lora", mode="before")
    @classmethod
    def _false_is_none(cls, value: Any) -> Any:
        return None if value is False else value


class HRSASettings(Config):
    """What an HRSA comparison reads and computes."""

    texts: tuple[str, ...] = Field(
        default=("problems", "docs"), min_length=1, description="text sets that are read"
    )
    n_texts: int = Field(default=200, ge=4, description="texts per text set")
    max_tokens: int = Field(default=128, ge=4, description="longest text, in tokens")
    cka_tokens: int = Field(default=4096, ge=8, description="seeded token subsample for CKA grids")
    knn_tokens: int = Field(default=4096, ge=8, description="seeded token subsample for neighbours")
    k: tuple[Count, ...] = Field(default=(5, 10, 50), min_length=1, description="neighbourhood sizes")
    layers: int = Field(
        default=7,
        ge=2,
        description="layers that are compared, evenly spaced, the first and the last among them",
    )
    costly_seeds: int = Field(
        default=3,
        ge=1,
        description="Procrustes and probes after contrastive learning: for pairs among the first so many seeds",
    )
    attention: Attention = Field(
        default="causal",
        description="how backbones read: as they were trained to, or 'bidirectional', as the paper's code has them read; "
        "RQ2 shows the other mode as well",
    )
    resamples: int = Field(default=200, ge=0, description="resamples of texts, for intervals of F1")
    languages: tuple[str, ...] = Field(
        default=("fr", "es", "ja"),
        min_length=1,
        description="languages that English is aligned with, within each model",
    )
    n_messages: int = Field(default=64, ge=8, description="parallel messages of the cross-lingual alignment")
    seed: Seed = 0
    dtype: DType = "float32"

    @model_validator(mode="after")
    def _neighbourhoods_fit(self) -> HRSASettings:
        if max(self.k) >= self.knn_tokens:
            raise ValueError(f"k {max(self.k)} must be below knn_tokens ({self.knn_tokens})")
        return self


# What a completion is made of and which part is judged: the answer first, or the working and then the answer.
Style = Literal["answer", "working"]


class ProblemSettings(Config):
    """Which reasoning_gym problems are asked, and how they are answered."""

    task: str = Field(
        default="chain_sum", description="of reasoning_gym, or 'mixture': a table of options a kind"
    )
    task_options: dict[str, JsonValue] = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}
    max_new_tokens: int = Field(default=6, ge=1, description="tokens generated for an answer")
    style: Style = "answer"
    seed: Seed = 0

    @field_validator("task_options")
    @classmethod
    def _finite(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        try:
            json.dumps(options, allow_nan=False)
        except ValueError:
            raise ValueError("numbers must be finite") from None
        return options


class TuningSettings(ProblemSettings):
    """What RLVR and SFT share. Steps are optimiser steps; ``validate_every`` 0 never validates."""

    steps: int = Field(default=36, ge=1)
    learning_rate: float = Field(default=3e-4, gt=0)
    warmup_steps: int = Field(default=3, ge=0)
    lora: LoRA = LoRA()
    save_steps: tuple[Count, ...] = ()
    validate_every: int = Field(default=20, ge=0, description="steps between accuracies on held-out problems")
    validation_problems: int = Field(default=64, ge=4)
    checkpoint_every: int = Field(default=20, ge=1, description="steps between states to resume from")


class RLVRSettings(TuningSettings):
    """GRPO with the task's own verifier as reward."""

    method: Literal["rlvr"] = "rlvr"
    prompts: int = Field(default=8, ge=1)
    completions: int = Field(default=8, ge=2)
    reward: Literal["verifier", "random"] = "verifier"
    warm_start: int = Field(
        default=0, ge=0, description="steps of SFT on worked answers first, `prompts` answers a step"
    )


class SFTSettings(TuningSettings):
    """Supervised fine-tuning on worked answers."""

    method: Literal["sft"] = "sft"
    batch_size: int = Field(default=64, ge=1)


class OnPolicySFTSettings(SFTSettings):
    """Supervised fine-tuning on the base's own samples that the verifier found right (rejection sampling)."""

    method: Literal["onpolicy-sft"] = "onpolicy-sft"  # type: ignore[assignment]
    attempts: int = Field(
        default=8, ge=1, description="completions drawn of each problem, every time it is asked"
    )
    keep: int = Field(
        default=2, ge=1, description="at most so many different right ones of a problem each time"
    )


Tuning = Annotated[RLVRSettings | SFTSettings | OnPolicySFTSettings, Field(discriminator="method")]


class Family(Config):
    """A base backbone with its siblings by role; a role may have checkpoints (training steps)."""

    name: str
    roles: dict[str, Backbone]
    checkpoints: dict[str, dict[int, Backbone]] = {}
    tuning: dict[str, Tuning] = Field(default={}, description="how siblings are tuned from the base, by role")
    published: dict[str, str] = Field(default={}, description="ready-made -Emb models on the hub, by role")
    note: str = ""

    @model_validator(mode="after")
    def _names_may_be_folders(self) -> Family:
        check_name("family", self.name)
        for role in (*self.roles, *self.checkpoints, *self.tuning):
            check_name("role", role)
        return self

    @property
    def known_roles(self) -> tuple[str, ...]:
        """The roles that are there, then those that ``tuning`` says how to make."""
        return tuple(dict.fromkeys([*self.roles, *self.tuning]))

    def backbone(self, role: str, step: int | None = None) -> Backbone:
        """Return the backbone of a role (at a checkpoint if ``step`` is given)."""
        if step is not None:
            steps = self.checkpoints.get(role, {})
            if step not in steps:
                raise unknown(f"checkpoint of {self.name}/{role}", str(step), map(str, steps))
            return steps[step]
        if role not in self.roles:
            raise unknown(f"role of family {self.name}", role, self.roles)
        return self.roles[role]


class PolicySettings(ProblemSettings):
    """How a backbone's behaviour as a policy is measured, on problems never trained on."""

    problems: int = Field(default=200, ge=4)
    samples: int = Field(default=2, ge=1)
    common: int = Field(
        default=40,
        ge=2,
        description="worked answers, and texts of the set 'docs', on which divergence from base is measured",
    )

    def for_tuning(self, tuning: RLVRSettings | SFTSettings) -> PolicySettings:
        """Return the same measurement on a tuned sibling's problems, in its style, with the new tokens that it needs."""
        asked = ("task", "task_options", "style")
        if all(getattr(tuning, name) == getattr(self, name) for name in asked):
            return self
        return self.model_copy(update={name: getattr(tuning, name) for name in (*asked, "max_new_tokens")})


class MechanismSettings(Config):
    """What RQ4 reads beyond HRSA: texts that the models write, and drift by domain of text."""

    prompts: int = Field(default=48, ge=4, description="prompts of each kind that every model continues")
    max_new_tokens: int = Field(default=24, ge=2)
    components: int = Field(default=16, ge=2, description="axes of the map of the base's states")
    regions: int = Field(default=12, ge=2, description="regions of the map")
    domains: tuple[str, ...] = Field(
        default=(TASK, "problems", "docs", "messages", "code"),
        min_length=1,
        description="'task' (the problems that tuning trains on) and text sets",
    )
    n_texts: int = Field(default=40, ge=4, description="texts of each domain")
    max_tokens: int = Field(default=48, ge=4)
    resamples: int = Field(default=200, ge=1)
    seed: Seed = 0


class Profile(Config):
    """Families x roles x seeds x recipe x suites x HRSA settings: one whole run of the book."""

    name: str
    about: str = ""
    needs: tuple[str, ...] = Field(default=(), description="what it needs beyond a laptop: 'gpu', 'hub'")
    family: str
    roles: tuple[str, ...] = Field(
        default=("base", "reason", "sft"), description="those that the family lacks are left out"
    )
    controls: tuple[str, ...] | None = Field(
        default=None, description="siblings that only RQ4 follows along tuning; None is all of the family"
    )
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    recipe: Recipe
    suites: tuple[str, ...] = Field(min_length=1)
    margin: float = Field(default=1.0, gt=0, description="equivalence margin in score points, set in advance")
    hrsa: HRSASettings = HRSASettings()
    policy: PolicySettings = PolicySettings()
    rlvr: RLVRSettings = RLVRSettings()
    sft: SFTSettings = SFTSettings()
    mechanism: MechanismSettings = MechanismSettings()
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$")
    dtype: DType = "auto"

    @field_validator("name")
    @classmethod
    def _name_may_be_a_folder(cls, name: str) -> str:
        return check_name("profile", name)
