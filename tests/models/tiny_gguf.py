"""A tiny GGUF file, written by the gguf package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from realign.config import Backbone
from realign.models import loading

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedConfig

TINY = Backbone(source="random:0/llama")


def _writer(path: Path, architecture: str, config: PreTrainedConfig) -> GGUFWriter:
    """Begin a file with the sizes that every architecture has."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    return writer


def write_tiny(path: Path, pre: str = "smollm", merges: Sequence[str] = ("a b",)) -> torch.Tensor:
    """Write the tiny untrained model as float32 GGUF; returns its embeddings."""
    import gguf

    lm, tokenizer = loading.load_lm(TINY)
    c = lm.config
    writer = _writer(path, "llama", c)
    writer.add_vocab_size(c.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    for place, merge in enumerate(merges, start=1):
        tokens[-place] = merge.replace(" ", "")  # in the place of a byte that the tests do not use
    writer.add_tokenizer_model("gpt2")
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t.startswith("<|") else 1 for t in tokens])
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for name, value in lm.state_dict().items():
        if name != "lm_head.weight":
            stem, _, kind = name.rpartition(".")
            writer.add_tensor(f"{names.get_name(stem)}.{kind}", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return lm.state_dict()["model.embed_tokens.weight"]


# In the order of real files: control tokens, runs of white space, bytes, then pieces from the best score down.
CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>")
RUNS = ("\n", "\n\n", "  ", "   ")
PIECES = ("bc", "ab", "\u2581a", "\u2581ab", "\u2581", "a", "b", "c")


def write_tiny_gemma(path: Path) -> dict[str, torch.Tensor]:
    """Write an untrained Gemma 3 model with a SentencePiece tokenizer; returns its weights."""
    import gguf
    from transformers import AutoModelForCausalLM

    tokens = [*CONTROL, *RUNS, *(f"<0x{b:02X}>" for b in range(256)), *PIECES]
    c = loading.load_lm(Backbone(source="random:0/gemma3"))[0].config
    c.vocab_size, c.pad_token_id = len(tokens), 0
    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_config(c).state_dict()
    for name, value in state.items():
        if "norm" in name:
            value.copy_(torch.linspace(-0.1, 0.3, len(value)))  # else all 0
    writer = _writer(path, "gemma3", c)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_sliding_window(c.sliding_window)
    writer.add_rope_freq_base(1e6)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([*[-1000.0] * 264, *(-float(i) for i in range(len(PIECES)))])
    writer.add_token_types([*[3] * 4, *[4] * 4, *[6] * 256, *[1] * len(PIECES)])
    for name, place in (("bos", 2), ("eos", 1), ("unk", 3), ("pad", 0)):
        getattr(writer, f"add_{name}_token_id")(place)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, c.num_hidden_layers)
    for name, value in state.items():
        if name != "lm_head.weight":
            stem, _, kind = name.rpartition(".")
            writer.add_tensor(f"{names.get_name(stem)}.{kind}", (value + ("norm" in name)).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return state
