"""How often the untuned model is right, by kind of problems and settings: data/tuning/kinds.csv.

Every kind is asked as in tuning, after two worked examples, on training problems:

    python benchmarks/measure/kinds.py --output data/tuning/kinds.csv
    python benchmarks/measure/kinds.py --kinds gcd lcm --problems 256
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import pandas as pd
import torch

from realign import config, hardware, paths
from realign.behaviour import generation, mixture, problems
from realign.behaviour.policy import wilson
from realign.behaviour.problems import has_chat_markers
from realign.models import loading

# What was tried; those that data/families.toml names were chosen.
TRIED = {
    "chain_sum": [
        {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1},
        {"min_terms": 4, "max_terms": 4, "min_digits": 1, "max_digits": 1},
    ],
    "products": [
        {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1},
    ],
    "gcd": [{"min_value": 2, "max_value": 30}, {"min_value": 2, "max_value": 60}],
    "lcm": [{"min_value": 2, "max_value": 20}, {"min_value": 2, "max_value": 30}],
    "letter_counting": [{"min_words": 1, "max_words": 2}, {"min_words": 2, "max_words": 3}],
    "count_bits": [{"max_n": 500}, {"max_n": 1000}],
    "leg_counting": [
        {"min_animals": 2, "max_animals": 2, "max_instances": 5},
        {"min_animals": 1, "max_animals": 2, "max_instances": 9},
    ],
    "simple_equations": [
        {"min_terms": 2, "max_terms": 2, "max_value": 10},
        {
            "min_terms": 2,
            "max_terms": 2,
            "max_value": 9,
            "operators": ["+", "-"],
            "operators_weights": [0.5, 0.5],
        },
    ],
    "count_primes": [{"min_n": 2, "max_n": 30}, {"min_n": 2, "max_n": 60}],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--family", default="smollm2-135m")
    parser.add_argument("--kinds", nargs="*", default=list(TRIED))
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--modes", nargs="*", default=["sampled", "greedy"])
    parser.add_argument("--output", help="CSV to write; printed if not given")
    args = parser.parse_args()
    compute = hardware.resolve()
    family = config.load_families(paths.data() / "families.toml")[args.family]
    base, chosen = family.roles["base"], family.tuning["reason-1"].task_options
    model, tokenizer = loading.load_lm(base, dtype=compute.dtype, device=compute.device)
    chat = has_chat_markers(tokenizer)
    rows = []
    for kind in args.kinds:
        for options in TRIED[kind]:
            began = time.perf_counter()
            asked = mixture.load({kind: options}, "train", args.problems, chat=chat)
            ids = [list(row) for row in tokenizer([p.prompt for p in asked]).input_ids]
            row = {"kind": kind, "options": json.dumps(options), "n": len({p.question for p in asked})}
            for name in args.modes:
                draws = torch.Generator().manual_seed(0) if name == "sampled" else None
                written: list[list[int]] = []
                for start in range(0, len(ids), 64):
                    written += generation.sample(
                        model,
                        tokenizer,
                        ids[start : start + 64],
                        1,
                        max_new_tokens=args.tokens,
                        generator=draws,
                    ).tokens
                texts = tokenizer.batch_decode(written, skip_special_tokens=True)
                right = [problems.score(p, t) for p, t in zip(asked, texts, strict=True)]
                low, high = wilson(sum(right), len(right))
                row |= {name: sum(right) / len(right), f"{name}_low": low, f"{name}_high": high}
                row |= {f"{name}_tokens": sum(map(len, written)) / len(written)}
                row |= {f"{name}_answered": sum("Answer:" in t for t in texts) / len(texts)}
            row |= {"chosen": options == chosen.get(kind)}
            row |= {"prompt_tokens": sum(map(len, ids)) / len(ids)}
            row |= {
                "worked_tokens": max(len(r) for r in tokenizer([p.solution for p in asked]).input_ids) + 1
            }
            rows.append(row)
            rates = ", ".join(f"{name} {row[name]:.2f}" for name in args.modes)
            print(
                f"{time.perf_counter() - began:5.1f} s {kind} {options}: {rates}, "
                f"prompt {row['prompt_tokens']:.0f}, completion {row[f'{name}_tokens']:.0f}, worked <= {row['worked_tokens']} | {texts[0]!r} | {asked[0].solution!r}",
                file=sys.stderr,
                flush=True,
            )
    table = pd.DataFrame(rows).round(3)
    if args.output:
        table.to_csv(args.output, index=False)
    else:
        print(table.to_csv(index=False))


if __name__ == "__main__":
    main()
