"""One RLVR step against plain TRL with its defaults: same problems, same model, 64 completions of 48 tokens.

Prints one JSON object a line. Each measurement runs in a process of its own, in turn. Completions do not end
before their last token, and a coin is the reward, so that every group is learned from: a step of a real
run is shorter.

    python benchmarks/tuning.py
    python benchmarks/tuning.py --family smollm2-135m --steps 3 --only ours
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PEER = "TRL GRPOTrainer, its defaults"
TARGETS = {"seconds": 16.0, "ratio": 2.0, "memory_gib": 6.0}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time steps in this process: the mean of all but the first, and peak memory in GiB."""
    import torch
    from transformers import TrainerCallback

    from realign import config, hardware, paths
    from realign.models import loading
    from realign.tuning import adapters, rlvr, runs

    family = config.load_families(paths.data() / "families.toml")[args.family]
    update = {"steps": args.steps + 1, "reward": "random", "validate_every": 0, "checkpoint_every": 1000}
    settings = family.tuning["reason-1"].model_copy(update=update)
    compute = hardware.resolve()
    base = family.roles["base"]
    seconds: list[dict[str, float]] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now = time.perf_counter(), time.process_time()
            spent = {"step": now[0] - self.began[0], "processor": now[1] - self.began[1]}
            seconds.append(spent | getattr(trainer, "seconds", {}))
            print(seconds[-1], file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        options = runs.trainer_options(settings, compute, Path(scratch))
        if args.measure == "ours":
            model, tokenizer = adapters.load_policy(base, settings, compute, None)
            trainer: Any = rlvr._trainer(settings, compute, model, tokenizer, options)
        else:
            from datasets import Dataset
            from trl import GRPOConfig, GRPOTrainer

            lm, tokenizer = loading.load_lm(base)
            problems = adapters.training_problems(settings, tokenizer, settings.prompts * settings.steps)
            trainer = GRPOTrainer(
                model=lm,
                args=GRPOConfig(
                    output_dir=scratch,
                    max_steps=settings.steps,
                    per_device_train_batch_size=settings.prompts * settings.completions,
                    num_generations=settings.completions,
                    max_completion_length=settings.max_new_tokens,
                    use_cpu=compute.device.type == "cpu",
                    report_to="none",
                    disable_tqdm=True,
                    save_strategy="no",
                ),
                train_dataset=Dataset.from_dict(
                    {"prompt": [p.prompt for p in problems], "problem": range(len(problems))}
                ),
                processing_class=tokenizer,
                reward_funcs=[rlvr.reward_function(problems, "random", 0)],
                peft_config=adapters.lora_config(settings.lora),
            )
            model = trainer.model
        head, end = model.get_output_embeddings(), tokenizer.eos_token_id
        head.register_forward_hook(lambda module, inputs, out: out.index_fill(-1, torch.tensor(end), -1e4))
        trainer.add_callback(Clock())
        trainer.train()
    kept = seconds[1:]
    mean = {name: sum(row[name] for row in kept) / len(kept) for name in kept[0]}
    return {**mean, "memory_gib": hardware.peak_memory_gib()}


def child(args: argparse.Namespace, which: str) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--measure",
        which,
        "--family",
        args.family,
        "--steps",
        str(args.steps),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--family", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=2, help="measured; one more comes first")
    parser.add_argument("--only", choices=["ours", "peer"])
    parser.add_argument("--measure", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args)))
        return
    from realign import hardware

    machine = hardware.describe()
    measured = {which: child(args, which) for which in ("ours", "peer") if args.only in (None, which)}
    ours, peer = measured.get("ours", {}), measured.get("peer", {})

    def line(work: str, key: str, unit: str, target: float, **more: Any) -> None:
        a, b = ours.get(key), peer.get(key)
        row = {"work": f"{work}, {args.family}", "ours": a and round(a, 2), "peer": b and round(b, 2)}
        row |= {
            "peer_name": PEER,
            "unit": unit,
            "ratio": round(b / a, 2) if a and b else None,
            "target": target,
        }
        print(json.dumps(row | more | {"machine": machine}), flush=True)

    parts = {
        name: round(ours[name], 2)
        for name in ("generating", "scoring", "learning", "processor")
        if name in ours
    }
    line(
        "RLVR step of 64 completions x 48 tokens", "step", "s", TARGETS["ratio"],
        seconds_target=TARGETS["seconds"], parts=parts, load=round(os.getloadavg()[0], 1),
    )  # fmt: skip
    line("peak memory of an RLVR step", "memory_gib", "GiB", 1.0, gib_target=TARGETS["memory_gib"])


if __name__ == "__main__":
    main()
