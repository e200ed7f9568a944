"""A GGUF model file becomes a float32 transformers directory, with the tokenizer that the file names."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from realign.errors import RealignError, unknown
from realign.models.pretrained import quiet, save

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerBase

# How llama.cpp (src/llama-vocab.cpp) splits text, and the names of models that are split so (transformers splits the
# text of every GGUF model as GPT-2 does).
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_RULES = {
    "gpt2": ("gpt-2", "phi-2", "mpt", "olmo"),
    # every digit alone, then as GPT-2
    "digits": ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"),
    _QWEN2: ("qwen2",),
}
PRE_TOKENIZERS = {name: rule for rule, names in _RULES.items() for name in names}


def pre_tokenizer(name: str) -> PreTokenizer:
    """Build the rule that splits text before byte-pair encoding, by its name in ``tokenizer.ggml.pre``.

    Raises:
        UsageError: for a name that is not in :data:`PRE_TOKENIZERS`.
    """
    from tokenizers import Regex, pre_tokenizers

    if name not in PRE_TOKENIZERS:
        raise unknown("pre-tokenizer (tokenizer.ggml.pre) of a GGUF file", name, PRE_TOKENIZERS)
    rule = PRE_TOKENIZERS[name]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule in ("gpt2", "digits"))
    if rule == "gpt2":
        return byte_level
    first = (
        pre_tokenizers.Digits(individual_digits=True)
        if rule == "digits"
        else pre_tokenizers.Split(Regex(rule), behavior="isolated")
    )
    return pre_tokenizers.Sequence([first, byte_level])


def pre_tokenizer_name(file: Path) -> str | None:
    """Return what a GGUF file says of splitting text; None if its tokenizer is not byte-level BPE.

    Raises:
        RealignError: if it says nothing, so that its text cannot be split as in training.
    """
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    kind = fields.get("tokenizer.ggml.model")
    if kind is None or kind.contents() != "gpt2":
        return None
    name = fields.get("tokenizer.ggml.pre")
    if name is None:
        raise RealignError(
            f"{file.name} has no tokenizer.ggml.pre, so how its text is split is not known: convert the model again"
        )
    return str(name.contents())


def use_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Let a fast tokenizer split text by the rule of a name, in place."""
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer(name)


def dequantise(file: Path, directory: Path) -> None:
    """Write a GGUF model as a float32 transformers directory, with its tokenizer.

    float32 holds every dequantised value exactly (bfloat16 would round scale * level + minimum), so
    nothing is lost beyond the quantisation of the file itself.

    Raises:
        RealignError: if the file names no rule, or an unknown one, for splitting text.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = pre_tokenizer_name(file)
    if name is not None:
        pre_tokenizer(name)  # refused before the weights are read
    options = {"gguf_file": file.name, "trust_remote_code": False}
    with quiet(), redirect_stderr(io.StringIO()):  # the progress of a few seconds, which has no switch
        quantised = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **options)
    if name is not None:
        use_pre_tokenizer(tokenizer, name)
    # save_pretrained refuses a model that was loaded from GGUF, so a plain one takes over its weights.
    config = quantised.config
    del config.quantization_config
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = quantised.generation_config
    save(plain, tokenizer, directory)
