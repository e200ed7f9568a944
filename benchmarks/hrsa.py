"""Speed of realign.hrsa beside its peers, one JSON object a line (ratio above 1: we are better).

    python benchmarks/hrsa.py                    # everything at full size, some minutes on 2 cores
    python benchmarks/hrsa.py --only cka knn     # parts
    python benchmarks/hrsa.py --scale 0.25       # a quarter of the rows
    python benchmarks/hrsa.py --only compare     # about ten minutes on 2 cores; says on stderr where it is

faiss-cpu is optional (extra `bench`); its line is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LAYERS, WIDTH = 31, 576


def main() -> None:
    # First-touch page faults would be timed instead of the work; must be set before the process starts.
    tunables = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592"
    if os.environ.get("GLIBC_TUNABLES") != tunables:
        os.environ["GLIBC_TUNABLES"] = tunables
        os.execv(sys.executable, [sys.executable, *sys.argv])
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"cka": cka, "minibatch": minibatch, "knn": neighbours, "compare": compare, "growth": growth}
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    for name in options.only:
        parts[name](options.scale, options.repeats)


def note(text: str) -> None:
    """Say where a long part is, beside its lines."""
    print(f"{time.strftime('%X')} {text}", file=sys.stderr, flush=True)


def machine() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    names = [line.split(":")[1].strip() for line in model.splitlines() if line.startswith("Model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def best(*calls: Callable[[], object], repeats: int) -> list[float]:
    """Time calls in turn; the best of each."""
    import torch

    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for spent, call in zip(times, calls, strict=True):
            started = time.perf_counter()
            call()
            if device() == "cuda":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - started)
    return [min(spent) for spent in times]


def say(
    work: str, ours: float, peer: float | None, peer_name: str, target: float | None, unit: str = "s"
) -> None:
    ratio = None if peer is None else round(peer / max(ours, 1e-9), 3)
    line = {"work": work, "ours": round(ours, 4), "peer": None if peer is None else round(peer, 4)}
    line |= {"peer_name": peer_name, "unit": unit, "ratio": ratio, "target": target, "machine": machine()}
    print(json.dumps(line), flush=True)


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def stacks(n: int, layers: int = LAYERS):
    import torch

    generator = torch.Generator().manual_seed(0)
    base = torch.randn(n, WIDTH, generator=generator)
    sides = [
        [base + (i + 1) / LAYERS * torch.randn(n, WIDTH, generator=generator) for i in range(layers)]
        for _ in range(2)
    ]
    return [[layer.to(device()) for layer in side] for side in sides]


def pair_loop(xs, ys):
    """What a plain implementation does: three products for each pair of layers."""
    import torch

    def value(x, y):
        x, y = x - x.mean(0), y - y.mean(0)
        return (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())

    return torch.stack([torch.stack([value(x, y) for y in ys]) for x in xs])


def norms_once(xs, ys):
    """The same with centring and self-products outside of the loop."""
    import torch

    xs, ys = [x - x.mean(0) for x in xs], [y - y.mean(0) for y in ys]
    a, b = (torch.stack([(v.T @ v).norm() for v in side]) for side in (xs, ys))
    cross = torch.stack([torch.stack([(x.T @ y).square().sum() for y in ys]) for x in xs])
    return cross / (a[:, None] * b[None, :])


def peak_megabytes(code: str, setup: str) -> float:
    """Peak memory of `code` in a process of its own, above what `setup` needs."""
    # Not ru_maxrss: a child inherits that from the process that started it.
    peak = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    script = f"{setup}\nbefore = {peak}\n{code}\nprint(({peak} - before) / 1024)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


SETUP = "import sys; sys.path.insert(0, {path!r}); import hrsa as bench; from realign import hrsa; x, y = bench.stacks({n})"


def cka(scale: float, repeats: int) -> None:
    import numpy as np

    from realign.hrsa.grids import cka_grids

    n = int(4096 * scale)
    xs, ys = stacks(n)
    few = 5  # pairs of the slow loop are alike, so a part of them is timed and scaled up
    ours, loop, once = best(
        lambda: cka_grids(xs, ys),
        lambda: pair_loop(xs[:few], ys[:few]),
        lambda: norms_once(xs, ys),
        repeats=repeats,
    )
    np.testing.assert_allclose(cka_grids(xs, ys)["biased"][0], norms_once(xs, ys).cpu(), rtol=1e-4)
    work = f"{LAYERS}x{LAYERS} linear CKA grid, both estimators, n={n}, d={WIDTH}"
    say(work, ours, loop * LAYERS**2 / few**2, f"per-pair torch loop ({few}x{few} pairs timed)", 5.0)
    say(work, ours, once, "torch loop, norms once", 1.8)
    here = str(Path(__file__).resolve().parent)
    used = peak_megabytes("hrsa.cka_grid(x, y)", SETUP.format(path=here, n=n))
    say("peak memory of the grid above its inputs", used, 1536.0, "limit", 1.0, "MiB")


def minibatch(scale: float, repeats: int) -> None:
    import numpy as np

    from realign import hrsa

    n, few = int(4096 * scale), 5
    xs, ys = stacks(n)
    ours, loop = best(
        lambda: hrsa.cka_grid(xs, ys, method="minibatch"),
        lambda: pair_loop(xs[:few], ys[:few]),
        repeats=repeats,
    )
    off = np.abs(hrsa.cka_grid(xs, ys, method="minibatch") - hrsa.cka_grid(xs, ys)).max()
    work = f"minibatch debiased CKA grid, n={n}, d={WIDTH}"
    say(work, ours, loop * LAYERS**2 / few**2, f"per-pair torch loop ({few}x{few} pairs timed)", 25.0)
    say("minibatch against exact debiased, largest difference", off, 0.005, "limit", 1.0, "CKA")


def neighbours(scale: float, repeats: int) -> None:
    import numpy as np
    import torch
    from sklearn.neighbors import NearestNeighbors

    from realign import hrsa

    n = int(20_000 * scale)
    x = np.random.default_rng(0).standard_normal((n, WIDTH), dtype=np.float32)
    work = f"exact top-50 cosine neighbours, n={n}, d={WIDTH}"

    def sklearn_lists():
        index = NearestNeighbors(n_neighbors=50, metric="cosine", algorithm="brute", n_jobs=-1)
        return index.fit(x).kneighbors(return_distance=False)

    def faiss_lists():
        import faiss

        keys = x / np.linalg.norm(x, axis=1, keepdims=True)
        index = faiss.IndexFlatIP(WIDTH)
        index.add(keys)
        return index.search(keys, 51)[1][:, 1:]

    calls = {"scikit-learn brute": (sklearn_lists, 1.0)}
    try:
        import faiss  # noqa: F401

        calls = {"faiss-cpu flat": (faiss_lists, 1.0), **calls}
    except ImportError:
        pass
    mine = torch.from_numpy(x).to(device())
    ours, *theirs = best(
        lambda: hrsa.nearest(mine, 50), *(call for call, _ in calls.values()), repeats=repeats
    )
    for (name, (_, target)), spent in zip(calls.items(), theirs, strict=True):
        say(work, ours, spent, name, target)
    code = (
        f"import numpy as np\nx = np.random.default_rng(0).standard_normal(({n}, {WIDTH}), dtype=np.float32)"
    )
    used = peak_megabytes("hrsa.nearest(x, 50)", f"from realign import hrsa\n{code}")
    say("peak memory of the neighbours above their input", used, 1024.0, "limit", 1.0, "MiB")


class Words:
    """A tokenizer of texts that are token numbers already."""

    pad_token_id = 0

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [[int(w) for w in t.split()] for t in texts]}


def corpus(tokens: int) -> list[str]:
    """Texts of 20 to 99 random tokens, about ``tokens`` in all."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [" ".join(map(str, rng.integers(1, 4096, rng.integers(20, 100)))) for _ in range(tokens // 59)]


def model(layers: int, seed: int = 0):
    """A model of the laptop family's width, random weights."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=WIDTH,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    config.is_causal = False
    return LlamaModel(config).eval().to(device())


def compare(scale: float, repeats: int) -> None:
    """Two 31-layer models of the laptop family's shape, random weights: extraction and all metrics."""
    from types import SimpleNamespace

    import numpy as np
    import torch

    from realign import hrsa
    from realign.hrsa.forward import batches, encode

    texts = max(50, int(500 * scale))
    models, read = [model(LAYERS - 1, seed) for seed in range(2)], corpus(60 * texts)[:texts]
    ids = encode(Words(), read, None).ids

    def followed(parts, total=None, desc=""):
        for number, part in enumerate(parts):
            if number % 20 == 0:
                note(f"{desc}: batch {number} of {total}")
            yield part

    index_of = list(batches([len(row) for row in ids], 2048))

    def bare(model):
        for index in followed(index_of, len(index_of), "bare forward pass"):
            longest = len(ids[index[0]])
            tokens = torch.zeros(len(index), longest, dtype=torch.int64)
            mask = torch.zeros(len(index), longest, dtype=torch.int64)
            for row, i in enumerate(index):
                tokens[row, : len(ids[i])] = torch.tensor(ids[i])
                mask[row, : len(ids[i])] = 1
            with torch.inference_mode():
                model(input_ids=tokens.to(device()), attention_mask=mask.to(device()), use_cache=False)

    kept = []

    def collect():
        found = hrsa.collect(models[len(kept)], Words(), read, token_budget=2048, progress=followed)
        kept.append(found)

    ours, forward = best(collect, lambda: bare(models[0]), repeats=2)
    a, b = kept
    work = f"states of {texts} texts ({sum(map(len, ids))} tokens), {LAYERS} layers"
    say(work, ours, forward, "bare forward pass", 0.9)
    labels = np.arange(len(read)) % 5
    probes = {"texts": hrsa.Probe(a.pooled[-1], b.pooled[-1], labels)}
    for resamples, target, factor in ((200, 1.0, 1), (1000, 1.0, 3)):
        note(f"all metrics, {resamples} resamples")
        settings = SimpleNamespace(resamples=resamples)
        started = time.perf_counter()
        report = hrsa.compare_activations(a, b, settings, probes=probes, device=device())
        spent = time.perf_counter() - started
        name = "two forward passes" if factor == 1 else f"{factor} x two forward passes"
        work = f"all metrics, both estimators, {report.meta['tokens']} tokens, {resamples} resamples"
        say(work, spent, factor * 2 * forward, name, target)
        print(json.dumps({"work": "seconds by metric", **report.meta["seconds"]}), flush=True)
    note("summary comparison")
    started = time.perf_counter()
    hrsa.compare_activations(a, b, probes=probes, detail="summary", device=device())
    say("summary comparison (checkpoint drift)", time.perf_counter() - started, 8.0, "limit", 1.0)
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
    say("peak memory of extraction and comparison, whole process", peak, 3.0, "limit", 1.0, "GiB")


GROWTH = """
import sys; sys.path.insert(0, {path!r}); import hrsa as bench
from realign import hrsa
model, tokenizer = bench.model(6), bench.Words()
hrsa.collect(model, tokenizer, bench.corpus(4096), tokens=1024, token_budget=2048)
texts = bench.corpus({n})
"""


def growth(scale: float, repeats: int) -> None:
    """Time and memory by number of tokens read: one is linear, the other constant."""
    from realign import hrsa

    here = str(Path(__file__).resolve().parent)
    for n in (1024, 4096, 16_384, 65_536):
        rows = int(n * scale)
        x, y = stacks(rows, 4)
        (spent,) = best(lambda x=x, y=y: hrsa.cka_grid(x, y, method="minibatch"), repeats=repeats)
        say(f"minibatch debiased CKA, 4x4 layers, n={rows}", spent, None, "", None)
        del x, y
        read, model_, words, texts = "states of a 7-layer model, 1024 kept", model(6), Words(), corpus(rows)
        call = lambda m=model_, w=words, t=texts: hrsa.collect(m, w, t, tokens=1024, token_budget=2048)  # noqa: E731
        (spent,) = best(call, repeats=1)
        say(f"{read}, n={rows}", spent, None, "", None)
        code = "hrsa.collect(model, tokenizer, texts, tokens=1024, token_budget=2048)"
        used = peak_megabytes(code, GROWTH.format(path=here, n=rows))
        say(f"peak memory above that for 4096 tokens, {read}, n={rows}", used, None, "", None, "MiB")


if __name__ == "__main__":
    main()
