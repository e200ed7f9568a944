"""Encoding against sentence-transformers, a suite's overhead, and bfloat16's effect on scores.

Prints one JSON object a line. Run it alone on the machine:

    python benchmarks/encoding.py                      # laptop model, 300 texts, a few minutes
    python benchmarks/encoding.py --texts 1000
    python benchmarks/encoding.py --backbone random:0/llama     # tiny: only that it runs
    python benchmarks/encoding.py --device cuda --backbone hub:Qwen/Qwen2.5-0.5B
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realign import backbones, config, hardware, paths
from realign.embedding import Embedder
from realign.texts import corpus
from realign.texts.splits import sample

LAPTOP = "smollm2-135m"
SUITE = "laptop-code"
# Dense bfloat16 operations a second, from the vendor's data sheets.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}


def natural_texts(n: int) -> list[str]:
    """Summaries, descriptions and sources as they come: a long-tailed distribution of lengths."""
    found = sample(corpus.functions(), n, key=lambda f: f.source, seed=0)
    return [(f.summary, f.description or f.summary, f.source)[i % 3] for i, f in enumerate(found)]


def load(source: str, device: str) -> tuple[Any, Any]:
    backbone = (
        config.load_families(paths.data() / "families.toml")[LAPTOP].roles["base"]
        if source == LAPTOP
        else config.Backbone(source=source)
    )
    return backbones.load(backbone, attention="bidirectional", device=device)


def sentence_transformer(model: Any, tokenizer: Any, folder: Path, device: str, tokens: int) -> Any:
    """The same weights, pooling and attention as a sentence-transformers model in float32."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformer = Transformer(
        str(folder),
        max_seq_length=tokens,
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        module_output_name="token_embeddings",
    )
    pooling = Pooling(model.config.hidden_size, pooling_mode="mean", include_prompt=False)
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device=device)


def clock(work: Callable[[], Any], device: str, repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def evaluate(embedder: Embedder) -> tuple[float, float, float]:
    """Mean score of the suite, seconds in all, seconds of encoding."""
    from realign.evaluation import instructions, run, suites
    from realign.evaluation.encoder import TaskEncoder

    tasks = suites.load(SUITE).tasks
    suites.texts(SUITE)  # building the data happens once per process, not per model
    encoder = TaskEncoder(embedder, instructions.load())
    began = time.perf_counter()
    results = run.evaluate_tasks(encoder, tasks, suite=SUITE)
    seconds = time.perf_counter() - began
    assert not any(r.failed for r in results)
    score = float(np.mean([r.scores["score"].mean() for r in results]))
    return score, seconds, sum(r.manifest["encode_seconds"] for r in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default=LAPTOP)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    compute = hardware.resolve(args.device, "auto")
    device, machine = compute.device.type, hardware.describe()

    def report(
        work: str, ours: float, peer: float, peer_name: str, unit: str, ratio: float, target: float
    ) -> None:
        line = {
            "work": work,
            "ours": ours,
            "peer": peer,
            "peer_name": peer_name,
            "unit": unit,
            "ratio": ratio,
        }
        print(json.dumps({**line, "target": target, "machine": machine}), flush=True)

    texts = natural_texts(args.texts)
    model, tokenizer = load(args.backbone, device)
    with tempfile.TemporaryDirectory() as folder:
        peer = sentence_transformer(model, tokenizer, Path(folder), device, args.tokens)
        expected = peer.encode(texts[:64])
        theirs = clock(lambda: peer.encode(texts), device, args.repeats)
    exact = Embedder(model, tokenizer, max_tokens=args.tokens, device=device)
    agreement = float((exact.encode(texts[:64]) * expected).sum(axis=1).min())
    assert agreement > 0.9999, f"not the same model as the peer: cosine {agreement}"
    exact_score, *_ = evaluate(exact)
    budget = 65536 if device == "cuda" else exact.token_budget
    ours = Embedder(
        model, tokenizer, max_tokens=args.tokens, token_budget=budget, device=device, dtype=compute.dtype
    )
    ours.encode(texts[:8])
    before = ours.stats.as_dict()
    mine = clock(lambda: ours.encode(texts), device, args.repeats)
    read = (ours.stats.tokens - before["tokens"]) / args.repeats
    padded = (ours.stats.padded_tokens - before["padded_tokens"]) / args.repeats
    dtype = str(compute.dtype).removeprefix("torch.")
    report(f"encode {args.texts} texts ({dtype}, {read / mine:.0f} tokens/s)", args.texts / mine, args.texts / theirs,
           "SentenceTransformer.encode, float32, defaults", "texts/s", theirs / mine,
           1.8 if compute.dtype == torch.bfloat16 else 1.1)  # fmt: skip
    waste = 1 - read / padded
    report("share of padding among positions", waste, 0.05, "limit", "share", 0.05 / max(waste, 1e-9), 1.0)
    score, seconds, encoding = evaluate(ours)
    report(f"{SUITE} beyond bare encoding", seconds - encoding, encoding, "bare encoding", "s",
           0.15 * encoding / max(seconds - encoding, 1e-9), 1.0)  # fmt: skip
    gap = abs(score - exact_score)
    report(f"mean score of {SUITE}, {dtype} against float32", score, exact_score, "float32", "points",
           0.1 / max(gap, 1e-9), 1.0)  # fmt: skip
    if device == "cuda":
        weights = sum(p.numel() for p in model.parameters())
        name = torch.cuda.get_device_name()
        peak = next((v for k, v in PEAK.items() if k in name), float("nan"))
        used = 2 * weights * read / mine
        report(f"share of {name}'s bfloat16 peak", used / peak, 1.0, "peak", "share", used / peak, 0.0)


if __name__ == "__main__":
    main()
