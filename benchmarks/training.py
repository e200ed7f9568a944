"""Contrastive step against sentence-transformers' cached loss: same batch, same model, same dtype.

Prints one JSON object a line. Each measurement runs in a process of its own, in turn, so that peak
memory is its own:

    python benchmarks/training.py                    # laptop model, 64 triples (the peer takes minutes)
    python benchmarks/training.py --batch 16         # smaller
    python benchmarks/training.py --backbone hub:Qwen/Qwen2.5-0.5B --device cuda --chunk-tokens 16384
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from typing import Any

LAPTOP = "smollm2-135m"
PEER = "sentence-transformers CachedMultipleNegativesRankingLoss"


def triples(n: int) -> Any:
    """Natural long-tailed texts: summaries, descriptions, and descriptions of sibling functions."""
    from realign.texts import pairs

    whole = pairs.load("docs", hard_negatives=1).take(4 * n, 0)
    rows = [i for i in range(len(whole)) if whole.negatives[i]][:n]
    return (
        [whole.queries[i] for i in rows],
        [whole.positives[i] for i in rows],
        [whole.negatives[i][0] for i in rows],
    )


def backbone(source: str) -> Any:
    from realign import config, paths

    if source == LAPTOP:
        return config.load_families(paths.data() / "families.toml")[LAPTOP].roles["base"]
    return config.Backbone(source=source)


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Time forward and backward of one batch in this process; peak memory in GiB."""
    import torch

    from realign import backbones, embedding
    from realign.texts.pairs import PairSet
    from realign.training import model as models
    from realign.training.data import Tokenized
    from realign.training.infonce import LossSettings, backward
    from realign.training.trainer import _peak_memory

    queries, positives, negatives = triples(args.batch)
    encoder, tokenizer = backbones.load(
        backbone(args.backbone), attention="bidirectional", device=args.device
    )
    encoder.config.use_cache = False
    model = models.assemble(encoder, tokenizer, args.tokens).train()
    device = torch.device(args.device)
    half = args.dtype == "bfloat16"
    autocast = partial(torch.autocast, device.type, torch.bfloat16) if half else nullcontext
    data = Tokenized(
        [PairSet("docs", "", queries, positives, [[n] for n in negatives])],
        tokenizer,
        max_query_tokens=args.tokens,
        max_passage_tokens=args.tokens,
    )

    def ours(rows: int) -> int:
        batch = data.batch(0, list(range(rows)))
        backward(
            models.TokenStates(model),
            batch,
            LossSettings(mask_false_negatives=False),
            chunk_tokens=args.chunk_tokens,
            pad_id=embedding.pad_token_id(tokenizer),
            device=device,
            autocast=autocast,
        )
        return sum(len(batch.ids[u]) for u in (*batch.queries, *batch.candidates))

    def peer(rows: int) -> int:
        from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

        loss = CachedMultipleNegativesRankingLoss(model, scale=50.0)
        features = [model.preprocess(c[:rows]) for c in (queries, positives, negatives)]
        features = [{k: v.to(device) if hasattr(v, "to") else v for k, v in f.items()} for f in features]
        with autocast():
            value = loss(features, None)
        value.backward()
        return sum(int(f["attention_mask"].sum()) for f in features)

    step = ours if args.measure == "ours" else peer
    step(2)  # allocators, kernels
    best = float("inf")
    for _ in range(args.repeats):
        model.zero_grad()
        began = time.perf_counter()
        tokens = step(args.batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return {"tokens": tokens, "seconds": best, "memory_gib": _peak_memory(device)}


def child(args: argparse.Namespace, which: str, batch: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--measure",
        which,
        "--batch",
        str(batch),
        "--tokens",
        str(args.tokens),
    ]
    command += ["--chunk-tokens", str(args.chunk_tokens), "--dtype", args.dtype, "--device", args.device]
    command += ["--backbone", args.backbone, "--repeats", str(args.repeats)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default=LAPTOP)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--large-batch", type=int, default=0, help="also compare our memory at this batch size"
    )
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--chunk-tokens", type=int, default=2048)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--measure", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args)))
        return
    from realign import hardware

    machine = hardware.describe()
    ours, peer = child(args, "ours", args.batch), child(args, "peer", args.batch)

    def line(work: str, a: float, b: float, name: str, unit: str, target: float, higher: bool) -> None:
        ratio = a / b if higher else b / a
        print(
            json.dumps(
                {
                    "work": f"{work}, {args.backbone}, batch {args.batch}, {args.dtype}",
                    "ours": round(a, 2),
                    "peer": round(b, 2),
                    "peer_name": name,
                    "unit": unit,
                    "ratio": round(ratio, 2),
                    "target": target,
                    "machine": machine,
                }
            )
        )

    rates = [found["tokens"] / found["seconds"] for found in (ours, peer)]
    line("contrastive step", rates[0], rates[1], PEER, "tokens/s", 2.5 if args.device == "cpu" else 1.5, True)
    line("peak memory of a step", ours["memory_gib"], peer["memory_gib"], PEER, "GiB", 1.0, False)
    if args.large_batch:
        large = child(args, "ours", args.large_batch)
        name = f"ours at batch {args.large_batch}"
        line("memory, flat in the batch", ours["memory_gib"], large["memory_gib"], name, "GiB", 1.0, False)


if __name__ == "__main__":
    main()
