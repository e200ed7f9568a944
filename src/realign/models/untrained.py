"""Backbones without training, for tests and smoke runs: two layers, a tokenizer of the 256 bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from realign.errors import UsageError, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ARCHITECTURES = ("llama", "qwen3", "gemma3")
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Build a tokenizer of the 256 bytes plus chat markers: lossless on any text, and needs no file."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def random_model(location: str) -> PreTrainedModel:
    """Build an untrained two-layer model from ``SEED`` or ``SEED/ARCHITECTURE`` (64 wide, 260 tokens).

    Raises:
        UsageError: if the seed is no integer of at most 64 bits or the architecture is not offered.
    """
    import torch
    from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen3Config

    seed, _, architecture = location.partition("/")
    architecture = architecture or "llama"
    if not re.fullmatch(r"[0-9]+", seed) or int(seed) >= 2**64:
        raise UsageError(
            f"source 'random:{location}' needs a whole number of at most 64 bits as seed, as in random:0/llama"
        )
    if architecture not in ARCHITECTURES:
        raise unknown("architecture of a random backbone", architecture, ARCHITECTURES)
    tokenizer = byte_tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": 0.1,  # the usual 0.02 would leave a model this narrow almost linear
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    kinds = {"llama": LlamaConfig, "qwen3": Qwen3Config, "gemma3": Gemma3TextConfig}
    if architecture == "gemma3":  # a window shorter than any text, in the first layer only
        windows = ["sliding_attention", "full_attention"]
        shape |= {"sliding_window": 8, "layer_types": windows, "query_pre_attn_scalar": shape["head_dim"]}
    config = kinds[architecture](**shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
