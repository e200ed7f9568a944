"""Contrastive step against sentence-transformers' cached loss: same batch, same model, same dtype.

Prints one JSON object a line. Each measurement runs in a process of its own, in turn, so that peak
memory is its own:

    python benchmarks/training.py                    # laptop model, 64 triples (the peer takes minutes)
    python benchmarks/training.py --batch 32         # half of it
    python benchmarks/training.py --memory           # our memory at 2,048 queries against 64, same lengths
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
SMALL, LARGE = 64, 2048
GROWTH = 1.3
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

    from realign.models import batching, loading
    from realign.texts.pairs import PairSet
    from realign.training import cpu
    from realign.training import model as models
    from realign.training.data import Tokenized
    from realign.training.gradcache import backward
    from realign.training.infonce import LossSettings
    from realign.training.loop import peak_memory

    queries, positives, negatives = triples(args.batch)
    encoder, tokenizer = loading.load(backbone(args.backbone), attention="bidirectional", device=args.device)
    encoder.config.use_cache = False
    model = models.assemble(encoder, tokenizer, args.tokens).train()
    device = torch.device(args.device)
    if args.measure == "ours" and device.type == "cpu":
        cpu.prepare(encoder)  # as the trainer does
    half = args.dtype == "bfloat16"
    autocast = partial(torch.autocast, device.type, torch.bfloat16) if half else nullcontext
    data = Tokenized(
        [PairSet("docs", "", queries, positives, [[n] for n in negatives])],
        tokenizer,
        max_query_tokens=args.tokens,
        max_passage_tokens=args.tokens,
    )

    passes = 0

    def ours(rows: int) -> int:
        nonlocal passes
        batch = data.batch(0, list(range(rows)))
        passes = backward(
            models.TokenStates(model),
            batch,
            LossSettings(mask_false_negatives=False),
            chunk_tokens=args.chunk_tokens,
            pad_id=batching.pad_token_id(tokenizer),
            device=device,
            autocast=autocast,
        ).passes
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
        "passes": passes,
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
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{which}, batch {batch}, up to {tokens} tokens: {measured}", file=sys.stderr, flush=True)
    return measured


def memory(args: argparse.Namespace, machine: Any) -> None:
    """Print our peak memory at LARGE queries a batch against SMALL, for texts of the same lengths."""
    small = child(args, "ours", SMALL, args.tokens)
    if small["passes"] == 1:  # its one pass would be smaller than those of the large batch
        sys.exit(f"{SMALL} queries do not fill a pass of {args.chunk_tokens} tokens: raise --tokens")
    large = child(args, "ours", LARGE, args.tokens)
    growth = large["memory_gib"] / small["memory_gib"]
    measured = {
        "work": f"peak memory of a step, batch {LARGE}, {args.backbone}, texts up to {args.tokens} tokens, "
        f"{args.dtype}",
        "ours": round(large["memory_gib"], 2),
        "peer": round(small["memory_gib"], 2),
        "peer_name": f"ours at batch {SMALL}",
        "unit": "GiB",
        "ratio": round(1 / growth, 2),
        "target": round(1 / GROWTH, 2),
        "growth": round(growth, 2),
        "growth_target": GROWTH,
        "machine": machine,
    }
    print(json.dumps(measured), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default=LAPTOP)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--memory", action="store_true", help="only: is our memory flat in the batch size?")
    parser.add_argument("--tokens", type=int, help="longest text; 256, or 16 for --memory")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="of the device, to print MFU")
    parser.add_argument("--chunk-tokens", type=int, default=2048)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--measure", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.tokens = args.tokens or (16 if args.memory else 256)
    if args.measure:
        print(json.dumps(measure(args)))
        return
    from realign import hardware

    machine = hardware.describe()
    if args.memory:
        memory(args, machine)
        return
    what = f"{args.backbone}, batch {args.batch}, texts up to {args.tokens} tokens, {args.dtype}"
    ours, peer = (child(args, which, args.batch, args.tokens) for which in ("ours", "peer"))

    def line(work: str, a: float, b: float, name: str, unit: str, target: float, ratio: float) -> None:
        measured = {"work": f"{work}, {what}", "ours": round(a, 2), "peer": round(b, 2), "peer_name": name}
        measured |= {"unit": unit, "ratio": round(ratio, 2), "target": target, "machine": machine}
        if args.peak_tflops and unit != "GiB":
            measured["mfu"] = round(ours["flops"] / 1e12 / args.peak_tflops, 3)
        print(json.dumps(measured), flush=True)

    rates = [measured["tokens"] / measured["seconds"] for measured in (ours, peer)]
    target = 2.5 if args.device == "cpu" else 1.5
    line("contrastive step", *rates, PEER, "non-padding tokens/s", target, rates[0] / rates[1])
    peaks = [measured["memory_gib"] for measured in (ours, peer)]
    line("peak memory of a step", *peaks, PEER, "GiB", 1.0, peaks[1] / peaks[0])


if __name__ == "__main__":
    main()
