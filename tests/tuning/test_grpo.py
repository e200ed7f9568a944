"""Our own GRPO: shared prompts change no number, and the update is TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from realign import hardware
from realign.behaviour import generation, mixture, packing, policy
from realign.config import Backbone, LoRA, RLVRSettings
from realign.errors import RealignError
from realign.tuning import adapters, grpo, rlvr, runs
from realign.tuning.optimiser import MasterAdamW

PROMPTS = ["What is 3 + 4?", "What is 12 - 5 + 88?", "Two", "How many legs have 2 dogs?"]
COPIES, LONGEST = 4, 6
SETTINGS = RLVRSettings(
    prompts=len(PROMPTS), completions=COPIES, max_new_tokens=LONGEST, steps=2, lora=LoRA(rank=2)
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALIGN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def tuned(architecture: str = "llama") -> tuple[Any, Any]:
    """A tiny model with an adapter that does something."""
    base = Backbone(source=f"random:0/{architecture}")
    model, tokenizer = adapters.load_policy(base, SETTINGS, hardware.resolve("cpu", "float32"), None)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model, tokenizer


def written(model: Any, tokenizer: Any) -> tuple[list[list[int]], generation.Samples]:
    prompts = [list(row) for row in tokenizer(PROMPTS).input_ids]
    draws = torch.Generator().manual_seed(0)
    return prompts, generation.sample(
        model, tokenizer, prompts, COPIES, max_new_tokens=LONGEST, generator=draws
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_the_likeliest_tokens_are_those_of_transformers_generate(architecture: str) -> None:
    model, tokenizer = tuned(architecture)
    prompts = [list(row) for row in tokenizer(PROMPTS).input_ids]
    ours = generation.sample(model, tokenizer, prompts, 1, max_new_tokens=LONGEST, generator=None)
    theirs = policy.generate(model, tokenizer, PROMPTS, max_new_tokens=LONGEST, sample=False)
    assert ours.tokens == theirs


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_packed_tokens_have_the_probabilities_that_they_were_drawn_with_and_those_of_a_plain_pass(
    architecture: str,
) -> None:
    model, tokenizer = tuned(architecture)
    prompts, samples = written(model, tokenizer)
    groups = [samples.tokens[i * COPIES : (i + 1) * COPIES] for i in range(len(prompts))]
    packed = packing.pack(prompts, groups, tokenizer.pad_token_id, torch.float32)
    ours = packing.token_log_probabilities(model, packed, rows=7).detach()
    drawn = torch.tensor([x for row in samples.log_probabilities for x in row])
    torch.testing.assert_close(ours, drawn, atol=2e-5, rtol=1e-5)
    repeated = [p for p in prompts for _ in range(COPIES)]
    logs, mask = policy.token_log_probabilities(model, repeated, samples.tokens, tokenizer.pad_token_id)
    plain = torch.cat([logs[i, range(len(c)), c] for i, c in enumerate(samples.tokens)])
    assert int(mask.sum()) == len(plain)
    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=1e-5)


def test_draws_follow_the_models_distribution() -> None:
    model, tokenizer = tuned()
    prompt = [list(tokenizer(PROMPTS[0]).input_ids)]
    draws = torch.Generator().manual_seed(0)
    first = [
        row[0]
        for row in generation.sample(model, tokenizer, prompt, 4000, max_new_tokens=1, generator=draws).tokens
    ]
    logs, _ = policy.token_log_probabilities(model, prompt, [[0]], tokenizer.pad_token_id)
    shares = logs[0, 0].exp()
    for token in shares.topk(5).indices.tolist():
        expected = float(shares[token])
        assert first.count(token) / 4000 == pytest.approx(expected, abs=4 * (expected / 4000) ** 0.5 + 1e-9)


def trainers(tmp_path: Path) -> tuple[Any, Any]:
    """Ours and TRL's, on two copies of one model."""
    compute = hardware.resolve("cpu", "float32")
    (model, tokenizer), (other, _) = tuned(), tuned()
    problems = adapters.training_problems(SETTINGS, tokenizer, 8)
    options = runs.trainer_options(SETTINGS, compute, tmp_path)
    ours = rlvr._trainer(SETTINGS, compute, model, tokenizer, options)
    return ours, rlvr.trl_trainer(SETTINGS, compute, other, tokenizer, options, problems)


def test_loss_and_gradients_are_trls(tmp_path: Path) -> None:
    ours, theirs = trainers(tmp_path)
    assert isinstance(ours, grpo.GroupTrainer)
    model, tokenizer = ours.model, ours.tokenizer
    prompts, samples = written(model, tokenizer)
    rewards = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]])
    advantage = grpo.advantages(rewards)
    assert not advantage[1].any()
    assert not advantage[3].any()
    loss = ours._learn(model, prompts, samples.tokens, advantage)

    repeated = [torch.tensor(p) for p in prompts for _ in range(COPIES)]
    longest = max(map(len, repeated))
    pad = tokenizer.pad_token_id
    inputs = {
        "prompt_ids": torch.stack(
            [torch.nn.functional.pad(p, (longest - len(p), 0), value=pad) for p in repeated]
        ),
        "prompt_mask": torch.stack(
            [torch.nn.functional.pad(torch.ones_like(p), (longest - len(p), 0)) for p in repeated]
        ),
        "completion_ids": torch.stack(
            [
                torch.nn.functional.pad(torch.tensor(c), (0, LONGEST - len(c)), value=pad)
                for c in samples.tokens
            ]
        ),
        "completion_mask": torch.stack(
            [torch.tensor([1] * len(c) + [0] * (LONGEST - len(c))) for c in samples.tokens]
        ),
        "advantages": advantage.flatten(),
    }
    theirs.current_gradient_accumulation_steps = 1
    expected = theirs._compute_loss(theirs.model, inputs)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=1e-6)
    pairs = list(zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True))
    learned = [(a, b) for (_, a), (_, b) in pairs if b.grad is not None]
    assert len(learned) > 10
    for a, b in learned:
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)
    assert max(float(b.grad.abs().max()) for _, b in learned) > 1e-4


def test_groups_that_all_earned_the_same_cost_no_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = trainers(tmp_path)
    prompts, samples = written(ours.model, ours.tokenizer)
    monkeypatch.setattr(grpo.packing, "token_log_probabilities", None)  # would fail if it were called
    assert ours._learn(ours.model, prompts, samples.tokens, torch.zeros(len(prompts), COPIES)) == 0
    gradients = [p.grad for p in ours.model.parameters() if p.requires_grad]
    assert all(g is not None and not g.any() for g in gradients)


def test_parts_keep_to_their_budget() -> None:
    assert grpo._parts([10, 20, 30, 100, 200], 100) == [[0, 1, 2], [3], [4]]
    assert grpo._parts([], 100) == []


def test_a_policy_that_broke_is_named_with_its_step(tmp_path: Path) -> None:
    model, tokenizer = tuned()
    options = runs.trainer_options(SETTINGS, hardware.resolve("cpu", "float32"), tmp_path)
    trainer = rlvr._trainer(SETTINGS, hardware.resolve("cpu", "float32"), model, tokenizer, options)
    trainer.optimizer = MasterAdamW(model.parameters(), 1e-3)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(RealignError, match="step 1: the model's logits are NaN"):
        trainer.training_step(model, {"problem": torch.arange(len(PROMPTS))})


MIXED = RLVRSettings(
    task=mixture.MIXTURE,
    task_options={"gcd": {"min_value": 2, "max_value": 30}, "count_primes": {"min_n": 2, "max_n": 30}},
    style="working",
    reward="random",
    prompts=2,
    completions=4,
    max_new_tokens=5,
    steps=4,
    learning_rate=1e-2,
    save_steps=(2,),
    validate_every=2,
    validation_problems=4,
    checkpoint_every=1,
    lora=LoRA(rank=2),
)


def ends_with_the_same_bits(one: Path, two: Path) -> None:
    for step in ("step-2", "final"):
        a, b = (load_file(f / step / "adapter_model.safetensors") for f in (one, two))
        assert all(torch.equal(a[k], b[k]) for k in a)
    columns = ["step", "reward", "entropy", "kl", "loss", "grad_norm"]
    pd.testing.assert_frame_equal(*(pd.read_csv(f / "log.csv")[columns] for f in (one, two)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mixed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALIGN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        rlvr.run(Backbone(source="random:0/llama"), MIXED, out, compute=hardware.resolve("cpu", "float32"))
    return out


@pytest.mark.parametrize("killed", [1, 2, 3, 4])
def test_a_run_on_a_mixture_that_is_killed_at_any_step_ends_with_the_same_bits(
    killed: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = hardware.resolve("cpu", "float32")
    real = runs.Recorder.on_log

    def dies(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == killed:
            raise KeyboardInterrupt
        real(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(runs.Recorder, "on_log", dies)
        with pytest.raises(KeyboardInterrupt):
            rlvr.run(Backbone(source="random:0/llama"), MIXED, tmp_path, compute=compute)
    torch.manual_seed(99)  # what is drawn depends on the run's seed alone
    rlvr.run(Backbone(source="random:0/llama"), MIXED, tmp_path, compute=compute)
    ends_with_the_same_bits(tmp_path, whole)


def test_a_run_that_is_killed_while_its_adapters_are_measured_is_not_tuned_again(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = hardware.resolve("cpu", "float32")

    def dies(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.cards, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            rlvr.run(Backbone(source="random:0/llama"), MIXED, tmp_path, compute=compute)
    monkeypatch.setattr(grpo.GroupTrainer, "training_step", dies)
    saved = rlvr.run(Backbone(source="random:0/llama"), MIXED, tmp_path, compute=compute)
    assert set(saved) == {2, 4}
    assert not (tmp_path / "state").exists()
    ends_with_the_same_bits(tmp_path, whole)
