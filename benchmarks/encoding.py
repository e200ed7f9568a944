"""Encoding against sentence-transformers, a suite's overhead, and bfloat16's effect on scores.

Prints one JSON object a line, ratio above 1 meaning that the target is kept. Run it alone on the machine:

    python benchmarks/encoding.py                      # laptop model; about half an hour on 2 cores
    python benchmarks/encoding.py --model DIRECTORY ...   # trained directories of ours: scores of all of them
    python benchmarks/encoding.py --texts 60 --queries 8 --backbone random:0/llama   # only that it runs
    python benchmarks/encoding.py --device cuda --backbone hub:Qwen/Qwen2.5-0.5B

- encode: the same texts by sentence-transformers in float32 and by us, in turn, the best of --repeats.
- share of padding: positions that were computed and hold no token.
- beyond bare encoding: of the seconds of one run of the suite with one model, the share outside
  ``Embedder.encode``. Imports and building the data, done once a process for all models, come before.
- scores: nDCG@10 of the same queries on TASKS at size --queries each, in float32 and in what ``auto``
  chose, same model and texts, mean over the models given; the standard error over queries of the paired
  difference says what it can resolve.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from realign import config, hardware, paths
from realign.evaluation import code, instructions, run, suites
from realign.evaluation.encoder import TaskEncoder
from realign.evaluation.specs import make
from realign.models import loading
from realign.models.embedder import Embedder
from realign.texts import corpus
from realign.texts.splits import sample

LAPTOP = "smollm2-135m"
SUITE = "laptop-code"
TASKS = ("DocToCodeRetrieval", "CodeToDocRetrieval")
# Dense bfloat16 operations a second, from the vendor's data sheets.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}


def natural_texts(n: int) -> list[str]:
    """Summaries, descriptions and sources as they come: a long-tailed distribution of lengths."""
    functions = sample(corpus.functions(), n, key=lambda f: f.source, seed=0)
    return [(f.summary, f.description or f.summary, f.source)[i % 3] for i, f in enumerate(functions)]


def load(source: str | Path, device: str) -> tuple[Any, Any]:
    """A trained model's directory, the laptop base or any backbone, in float32."""
    if isinstance(source, Path):
        embedder = Embedder.from_directory(source, device=device)
        return embedder.model, embedder.tokenizer
    backbone = (
        config.load_families(paths.data() / "families.toml")[LAPTOP].roles["base"]
        if source == LAPTOP
        else config.Backbone(source=source)
    )
    return loading.load(backbone, attention="bidirectional", device=device)


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


def clock(works: Sequence[Callable[[], Any]], device: str, repeats: int) -> list[float]:
    """Best seconds of each piece of work, measured in turn."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for i, work in enumerate(works):
            began = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            best[i] = min(best[i], time.perf_counter() - began)
    return best


def overhead(embedder: Embedder) -> tuple[float, float]:
    """Share of a suite's seconds outside ``Embedder.encode``, and its seconds."""
    tasks = suites.load(SUITE)
    suites.texts(SUITE)
    encoder = TaskEncoder(embedder, instructions.load())
    began = time.perf_counter()
    results = run.evaluate_tasks(encoder, tasks, suite=SUITE)
    seconds = time.perf_counter() - began
    assert not any(r.failed for r in results)
    return 1 - sum(r.manifest["encode_seconds"] for r in results) / seconds, seconds


def gains(embedder: Embedder, queries: int) -> pd.Series:
    """nDCG@10 (0 to 100) of each query of TASKS, by task and query."""
    encoder = TaskEncoder(embedder, instructions.load())
    results = [run.evaluate_task(encoder, make(s, queries)) for s in code.SPECS if s.name in TASKS]
    assert not any(r.failed for r in results)
    return 100 * pd.concat([r.items for r in results]).set_index(["task", "item"])["value"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default=LAPTOP)
    parser.add_argument("--model", type=Path, nargs="+", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--queries", type=int, default=500)
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
    sources = args.model or [args.backbone]

    def pair(source: str | Path) -> tuple[Embedder, Embedder]:
        """The same model in float32 and in what ``auto`` chose."""
        model, tokenizer = load(source, device)
        exact = Embedder(model, tokenizer, max_tokens=args.tokens, device=device)
        budget = 65536 if device == "cuda" else exact.token_budget
        copied = copy.deepcopy(model)
        return exact, Embedder(
            copied, tokenizer, max_tokens=args.tokens, token_budget=budget, device=device, dtype=compute.dtype
        )

    exact, ours = pair(sources[0])
    model, tokenizer = exact.model, exact.tokenizer
    with tempfile.TemporaryDirectory() as folder:
        peer = sentence_transformer(model, tokenizer, Path(folder), device, args.tokens)
        agreement = float((exact.encode(texts[:64]) * peer.encode(texts[:64])).sum(axis=1).min())
        assert agreement > 0.9999, f"not the same model as the peer: cosine {agreement}"
        ours.encode(texts[:8])
        before = ours.stats.as_dict()
        theirs, mine = clock([lambda: peer.encode(texts), lambda: ours.encode(texts)], device, args.repeats)
    read = (ours.stats.tokens - before["tokens"]) / args.repeats
    padded = (ours.stats.padded_tokens - before["padded_tokens"]) / args.repeats
    dtype = str(compute.dtype).removeprefix("torch.")
    report(f"encode {args.texts} texts ({dtype}, {read / mine:.0f} tokens/s)", args.texts / mine, args.texts / theirs,
           "SentenceTransformer.encode, float32, defaults", "texts/s", theirs / mine,
           1.8 if compute.dtype == torch.bfloat16 else 1.1)  # fmt: skip
    waste = 1 - read / padded
    report("share of padding among positions", waste, 0.05, "limit", "share", 0.05 / max(waste, 1e-9), 1.0)
    beyond, seconds = overhead(ours)
    report(f"share of {SUITE}'s {seconds:.0f} s beyond bare encoding", beyond, 0.15, "limit", "share",
           0.15 / max(beyond, 1e-9), 1.0)  # fmt: skip
    both = []
    for i, source in enumerate(sources):
        each = (exact, ours) if i == 0 else pair(source)
        both.append(pd.concat([gains(e, args.queries) for e in each], axis=1, keys=("fine", "rough")))
        assert both[-1].notna().all(axis=None)
        change = both[-1]["rough"] - both[-1]["fine"]
        print(
            f"{source}: {change.mean():+.3f}, standard error {change.sem():.3f}", file=sys.stderr, flush=True
        )
    mean = sum(both) / len(both)
    difference = mean["rough"] - mean["fine"]
    report(f"scores within 0.1 points of float32: nDCG@10 of {len(mean)} queries of {' and '.join(TASKS)}, {dtype}, "
           f"{len(both)} models, difference {difference.mean():+.3f} with standard error {difference.sem():.3f}",
           mean["rough"].mean(), mean["fine"].mean(), "float32", "points",
           0.1 / max(abs(difference.mean()), 1e-9), 1.0)  # fmt: skip
    if device == "cuda":
        weights = sum(p.numel() for p in model.parameters())
        name = torch.cuda.get_device_name()
        peak = next((v for k, v in PEAK.items() if k in name), float("nan"))
        used = 2 * weights * read / mine
        report(f"share of {name}'s bfloat16 peak", used / peak, 1.0, "peak", "share", used / peak, 0.0)


if __name__ == "__main__":
    main()
