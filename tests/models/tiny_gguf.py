"""A tiny GGUF file, written by the gguf package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from realign.config import Backbone
from realign.models import loading

TINY = Backbone(source="random:0/llama")


def write_tiny(path: Path, pre: str = "smollm", merges: Sequence[str] = ("a b",)) -> torch.Tensor:
    """Write the tiny untrained model as float32 GGUF; returns its embeddings."""
    import gguf

    lm, tokenizer = loading.load_lm(TINY)
    c = lm.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
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
