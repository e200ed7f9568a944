"""Contrastive step against sentence-transformers' cached loss: same batch, same model, same dtype.

Prints one JSON object a line. Each measurement runs in a process of its own, in turn, so that peak
memory is its own:

    python benchmarks/training.py                    # laptop model, 64 triples (the peer takes minutes)
    python benchmarks/training.py --batch 32         # half of it
    python benchmarks/training.py --large-batch 2048 --large-tokens 6   # and our memory at 2,048 queries
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
    if len(rows) < n:
        sys.exit(f"there are {len(rows)} triples, fewer than {n}")
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
    from realign.training.loop import peak_memory

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

    # Multiply-adds of useful work, forward and backward: 6 a weight and token, embeddings left out.
    weights = sum(p.numel() for n, p in encoder.named_parameters() if "embed" not in n)
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
    return {
        "tokens": tokens,
        "seconds": best,
        "memory_gib": peak_memory(device),
        "flops": 6 * weights * tokens / best,
    }


def child(args: argparse.Namespace, which: str, batch: int, tokens: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--measure",
        which,
        "--batch",
        str(batch),
        "--tokens",
        str(tokens),
    ]
    command += ["--chunk-tokens", str(args.chunk_tokens), "--dtype", args.dtype, "--device", args.device]
    command += ["--backbone", args.backbone, "--repeats", str(args.repeats)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{which}, batch {batch}, up to {tokens} tokens: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default=LAPTOP)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--large-batch", type=int, default=0, help="also compare our memory at this batch size"
    )
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument(
        "--large-tokens", type=int, default=0, help="longest text of the large batch; --tokens if 0"
    )
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device, to print MFU")
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
    what = f"{args.backbone}, batch {args.batch}, texts up to {args.tokens} tokens, {args.dtype}"
    ours, peer = (child(args, which, args.batch, args.tokens) for which in ("ours", "peer"))

    def line(work: str, a: float, b: float, name: str, unit: str, target: float, ratio: float) -> None:
        found = {"work": f"{work}, {what}", "ours": round(a, 2), "peer": round(b, 2), "peer_name": name}
        found |= {"unit": unit, "ratio": round(ratio, 2), "target": target, "machine": machine}
        if args.peak_tflops and unit != "GiB":
            found["mfu"] = round(ours["flops"] / 1e12 / args.peak_tflops, 3)
        print(json.dumps(found), flush=True)

    rates = [found["tokens"] / found["seconds"] for found in (ours, peer)]
    target = 2.5 if args.device == "cpu" else 1.5
    line("contrastive step", *rates, PEER, "non-padding tokens/s", target, rates[0] / rates[1])
    memory = [found["memory_gib"] for found in (ours, peer)]
    line("peak memory of a step", *memory, PEER, "GiB", 1.0, memory[1] / memory[0])
    if args.large_batch:
        tokens = args.large_tokens or args.tokens
        large = child(args, "ours", args.large_batch, tokens)["memory_gib"]
        name = f"ours at batch {args.large_batch}, texts up to {tokens} tokens"
        line("memory, flat in the batch", memory[0], large, name, "GiB", 1 / 1.3, memory[0] / large)


if __name__ == "__main__":
    main()
