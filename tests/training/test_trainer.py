"""Claims about a run: it learns, resumes to the bit, stops when it fails, and saves what opens anywhere."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from realign.config import Backbone, LoRA, Recipe
from realign.errors import RealignError, UsageError
from realign.models.batching import query_prefix
from realign.models.embedder import Embedder
from realign.texts import corpus
from realign.texts.pairs import PairSet
from realign.training import loop, parallel, trainer
from realign.training import run as runs
from realign.training.run import Run

BACKBONE = Backbone(source="random:0/llama")
RECIPE = Recipe(
    data=("messages",),
    batch_size=8,
    hard_negatives=1,
    learning_rate=2e-3,
    temperature=0.1,
    warmup_ratio=0.1,
    max_query_tokens=64,
    max_passage_tokens=48,
    chunk_tokens=512,
    dtype="float32",
)
WORDS = (
    "amber",
    "birch",
    "cedar",
    "daisy",
    "ember",
    "fern",
    "grape",
    "hazel",
    "iris",
    "jade",
    "kelp",
    "lilac",
)


def colours(n: int = 48) -> PairSet:
    """Queries and passages that share one word: easily learnt."""
    names = [f"{a} {b}" for a in WORDS for b in WORDS][:n]
    return PairSet(
        "colours",
        "Find it",
        [f"where is {name}?" for name in names],
        [f"{name} is here" for name in names],
        [[f"{names[(i + 5) % n]} is there"] for i in range(n)],
    )


def of(out: Path, recipe: Recipe = RECIPE, seed: int = 0) -> Run:
    return Run(BACKBONE, recipe, seed, out, out / "work", device="cpu")


def run(out: Path, recipe: Recipe = RECIPE, seed: int = 0, sets: list[PairSet] | None = None, **more) -> Path:
    return trainer.train(of(out, recipe, seed), sets=sets if sets is not None else [colours()], **more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    run(out, RECIPE.model_copy(update={"epochs": 4.0}))
    return out


def test_training_lowers_the_loss_and_raises_the_accuracy(trained: Path) -> None:
    log = pd.read_csv(trained / "log.csv")
    assert list(log.columns) == list(loop.LOG_COLUMNS)
    assert list(log.step) == list(range(1, 25))
    assert log.loss.tail(5).mean() < 0.6 * log.loss.head(3).mean()
    assert log.accuracy.tail(5).mean() > log.accuracy.head(3).mean() + 0.2
    assert log.notna().all().all()
    assert (log.tokens_per_second > 0).all()
    assert log.padding_share.between(0, 0.5).all()


def test_the_saved_model_opens_plainly_and_gives_our_vectors(trained: Path) -> None:
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(trained / "model"), device="cpu")
    ours = Embedder.from_directory(trained / "model")
    texts = ["amber birch is here", "x", "a rather longer text, to be padded against"]
    assert np.abs(plain.encode(texts) - ours.encode(texts)).max() < 1e-6
    asked = plain.encode(texts, prompt=query_prefix("Find it"))
    assert np.abs(asked - ours.encode(texts, "Find it")).max() < 1e-6
    assert np.abs(asked - plain.encode(texts)).max() > 1e-3  # the instruction is read
    assert plain[0].model.config.is_causal is False
    assert plain.max_seq_length == 64
    assert np.allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-6)


def test_the_model_card_says_how_it_was_made(trained: Path) -> None:
    card = (trained / "model" / "README.md").read_text()
    facts = json.loads(card.split("```json\n")[1].split("```")[0])
    assert facts["prefixes"] == {"colours": "Instruct: Find it\nQuery:"}
    assert facts["seeds"] == {"data": 0, "dropout": 10_000, "initialisation": 20_000}
    assert facts["now"]["step"] == facts["steps"] == 24
    assert facts["recipe"]["learning_rate"] == RECIPE.learning_rate
    assert facts["sets"] == {"colours": 48}
    assert {"torch", "transformers"} <= set(facts["versions"])


def test_the_model_card_says_what_becomes_of_an_empty_text_and_it_is_so(trained: Path) -> None:
    from sentence_transformers import SentenceTransformer

    card = " ".join((trained / "model" / "README.md").read_text().split())
    assert "Give no empty text" in card
    assert "realign refuses one wherever it stands" in card
    assert "a text without tokens is a RuntimeError alone and a zero vector beside others" in card
    plain = SentenceTransformer(str(trained / "model"), device="cpu")
    with pytest.raises(RuntimeError):
        plain.encode([""])
    assert not plain.encode(["", "x"])[0].any()
    for texts in ([""], ["", "x"], [" "]):
        with pytest.raises(RealignError, match="is empty"):
            Embedder.from_directory(trained / "model").encode(texts)


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test_trainer as t
from pathlib import Path
steps = []
def backward(*a, **k):
    steps.append(1)
    if len(steps) == 6:
        os.kill(os.getpid(), 9)
    return real(*a, **k)
real, t.loop.backward = t.loop.backward, backward
t.run(Path(sys.argv[2]), t.DROPOUT)
"""
DROPOUT = RECIPE.model_copy(update={"checkpoint_steps": 2, "lora": LoRA(rank=2, dropout=0.2)})


def test_a_run_killed_between_checkpoints_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    run(whole, DROPOUT)
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, here, str(again)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == -9
    assert not (again / "model").exists()
    newest = loop.last_checkpoint(again / "work")
    assert newest is not None
    assert newest.endswith("checkpoint-4")
    # a half-written newer checkpoint is passed over
    (again / "work" / "checkpoint-5").mkdir()
    (again / "work" / "checkpoint-5" / "trainer_state.json").write_text('{"global')
    run(again, DROPOUT)
    name = "model/model.safetensors"
    assert (whole / name).read_bytes() == (again / name).read_bytes()
    columns = ["step", "loss", "learning_rate", "grad_norm", "accuracy", "uniformity"]
    one, two = (pd.read_csv(out / "log.csv")[columns] for out in (whole, again))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_another_seed_gives_another_model(trained: Path, tmp_path: Path, capsys) -> None:
    short = RECIPE.model_copy(update={"epochs": 0.5})
    models = [load_file(run(tmp_path / str(seed), short, seed) / "model.safetensors") for seed in (0, 1)]
    assert r"queries of colours begin with 'Instruct: Find it\nQuery:'" in capsys.readouterr().err
    assert any(not torch.equal(models[0][k], models[1][k]) for k in models[0])


def test_a_merged_adapter_changes_linear_layers_only(tmp_path: Path) -> None:
    from realign.models import loading

    recipe = RECIPE.model_copy(update={"epochs": 0.5, "lora": LoRA(rank=2)})
    after = load_file(run(tmp_path, recipe) / "model.safetensors")
    before = loading.load(BACKBONE, attention="bidirectional")[0].state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed
    assert all("proj" in name for name in changed)
    assert after.keys() == before.keys()


def test_an_adapter_is_also_kept_by_itself_and_gives_the_vectors_of_the_merged_model(tmp_path) -> None:
    from realign.models import loading

    run(tmp_path, RECIPE.model_copy(update={"epochs": 0.5, "lora": LoRA(rank=2, merge=False)}))
    alone = Backbone(source=f"adapter:{tmp_path / 'adapter'}", base=BACKBONE)
    ours = Embedder(*loading.load(alone, attention="bidirectional"))
    merged = Embedder.from_directory(tmp_path / "model")
    untrained = Embedder(*loading.load(BACKBONE, attention="bidirectional"))
    texts = ["amber birch is here", "x"]
    assert np.abs(ours.encode(texts) - merged.encode(texts)).max() < 1e-6
    assert np.abs(untrained.encode(texts) - merged.encode(texts)).max() > 1e-4
    assert BACKBONE.source in (tmp_path / "adapter" / "adapter_config.json").read_text()


def test_models_of_chosen_steps_are_kept_and_keeping_them_changes_nothing(tmp_path) -> None:
    recipe = RECIPE.model_copy(update={"lora": LoRA(rank=2, dropout=0.1)})
    plain = run(tmp_path / "plain", recipe)
    kept = run(tmp_path / "kept", recipe.model_copy(update={"save_steps": (2, 4)}))
    name = "model.safetensors"
    assert (plain / name).read_bytes() == (kept / name).read_bytes()
    vectors = [
        Embedder.from_directory(kept.parent / where).encode(["amber birch"])
        for where in ("step-2", "step-4", "model")
    ]
    distances = [float(np.abs(v - vectors[2]).max()) for v in vectors]
    assert distances[0] > distances[1] > 1e-4
    assert '"step": 2' in (kept.parent / "step-2" / "README.md").read_text()
    with pytest.raises(RealignError, match="save_steps: 6 is not a step before the last of this run's 6"):
        run(tmp_path / "late", RECIPE.model_copy(update={"save_steps": (6,)}))


def test_each_seed_decides_its_own_part(tmp_path, monkeypatch) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 0.34, "lora": LoRA(rank=2, dropout=0.3)})
    first = runs.seeds_of(0)
    assert first == (0, 10_000, 20_000)
    logs = {"": run(tmp_path / "first", recipe)}
    for name in first._fields:
        monkeypatch.setattr(runs, "seeds_of", lambda seed, name=name: first._replace(**{name: 99}))
        logs[name] = run(tmp_path / name, recipe)
    losses = {name: pd.read_csv(model.parent / "log.csv").loss.tolist() for name, model in logs.items()}
    assert len({tuple(row) for row in losses.values()}) == 4
    # LoRA starts as no change, so the first loss depends on neither dropout inside it nor its weights
    assert losses["dropout"][0] == losses["initialisation"][0] == losses[""][0] != losses["data"][0]


@pytest.mark.parametrize("seed", [-3, -1, 2**32 - 20_000, 2**64, 2**200, 1.5, True, "0", None])
def test_a_seed_below_0_or_beyond_what_numpy_takes_is_refused(seed, tmp_path) -> None:
    with pytest.raises(UsageError, match=r"training seed .* must be a whole number from 0 to 4294947295"):
        Run(BACKBONE, RECIPE, seed, tmp_path, tmp_path / "work")


def test_the_largest_seed_trains(tmp_path) -> None:
    run(tmp_path, RECIPE.model_copy(update={"epochs": 0.2, "lora": LoRA(rank=2)}), runs.LARGEST_SEED)


def test_training_on_evaluation_texts_is_refused_with_the_count(tmp_path: Path) -> None:
    stolen = corpus.catalogues("eval")[:2]
    leaky = replace(colours(), positives=[*(m.text for m in stolen), *colours().positives[2:]])
    with pytest.raises(RealignError, match=r"2 evaluation text\(s\)"):
        run(tmp_path, sets=[leaky])
    with pytest.raises(RealignError, match=r"1 evaluation text\(s\).*'Amber amber is here'"):
        run(tmp_path, forbidden=["Amber amber is here"])
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_step(tmp_path, monkeypatch) -> None:
    real, calls = loop.backward, []

    def broken(*args, **kwargs):
        calls.append(1)
        result = real(*args, **kwargs)
        return replace(result, loss=math.nan) if len(calls) == 3 else result

    monkeypatch.setattr(loop, "backward", broken)
    rows = r"rows \d+, \d+, \d+, \d+ and 4 more"
    with pytest.raises(RealignError, match=rf"the loss is nan at step 3 of 6 \(set colours, {rows}\)"):
        run(tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_learning_rate_that_blows_the_weights_up_stops_the_run_at_once(tmp_path) -> None:
    with pytest.raises(RealignError, match=r"(the loss|the gradient norm) is (nan|inf) at step [23] of 6"):
        run(tmp_path, RECIPE.model_copy(update={"learning_rate": 1e30}))
    assert not (tmp_path / "model").exists()


def test_collapsed_embeddings_stop_the_run(tmp_path, monkeypatch) -> None:
    real = loop.backward

    def flat(*args, **kwargs):
        result = real(*args, **kwargs)
        return replace(result, statistics={**result.statistics, "min_cosine": 0.9999})

    monkeypatch.setattr(loop, "backward", flat)
    with pytest.raises(RealignError, match=r"collapsed at step 2 of 6 \(set colours"):
        run(tmp_path)


def test_embeddings_that_collapse_by_themselves_stop_the_run(tmp_path, monkeypatch) -> None:
    real = trainer.loading.load

    def flat(*args, **kwargs):
        """A backbone whose states are about the same vector whatever it reads."""
        model, tokenizer = real(*args, **kwargs)
        with torch.no_grad():
            weight = model.embed_tokens.weight
            weight.copy_(weight[:1] + 1e-4 * weight)
        return model, tokenizer

    monkeypatch.setattr(trainer.loading, "load", flat)
    with pytest.raises(RealignError, match=r"the embeddings have collapsed at step 2 of 6 \(set colours"):
        run(tmp_path, RECIPE.model_copy(update={"learning_rate": 1e-8}))


def test_norms_and_biases_do_not_decay_and_the_schedule_is_a_cosine() -> None:
    shares = [loop.cosine_with_warmup(s, warmup=3, steps=23) for s in range(23)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    assert shares[13] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.01
    assert all(a > b for a, b in pairwise(shares[3:]))


def test_norms_are_kept_out_of_weight_decay(tmp_path, monkeypatch) -> None:
    seen: list[tuple[float, set[int]]] = []
    real = torch.optim.AdamW.__init__

    def spy(self, groups, *args, **kwargs):
        groups = list(groups)
        seen.extend((g["weight_decay"], {p.dim() for p in g["params"]}) for g in groups)
        real(self, groups, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "__init__", spy)
    run(tmp_path, RECIPE.model_copy(update={"epochs": 0.2}))
    assert sorted(seen, key=lambda g: g[0]) == [(0.0, {1}), (RECIPE.weight_decay, {2})]


PAIR = RECIPE.model_copy(update={"queries": 16, "checkpoint_steps": 1, "save_steps": (1,)})


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Path:
    return in_processes(tmp_path_factory.mktemp("one"), "ddp:1")


def in_processes(out: Path, flag: str, recipe: Recipe = PAIR) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        parallel.train(of(out, recipe), flag)
    return out


def the_same_training(one: Path, two: Path) -> None:
    columns = ["step", "loss", "learning_rate", "grad_norm", "accuracy", "alignment", "uniformity", "tokens"]
    logs = [pd.read_csv(out / "log.csv")[columns] for out in (one, two)]
    # the second step's loss is that of weights which the first step's gradients of both processes made
    pd.testing.assert_frame_equal(*logs, rtol=1e-5, atol=1e-6)
    assert abs(logs[0].loss[0] - logs[0].loss[1]) > 1e-3
    for place in ("step-1", "model"):
        vectors = [Embedder.from_directory(out / place).encode(["amber birch", "x"]) for out in (one, two)]
        assert np.abs(vectors[0] - vectors[1]).max() < 1e-5


@pytest.mark.slow
def test_two_processes_train_as_one(one_process, tmp_path) -> None:
    two = in_processes(tmp_path, "ddp:2")
    the_same_training(one_process, two)
    assert len([*(two / "work" / "checkpoint-1").glob("rng_state_*.pth")]) == 2  # there were two


@pytest.mark.slow
def test_two_processes_with_shared_out_weights_train_as_one_and_resume_to_the_bit(
    one_process, tmp_path
) -> None:
    two = in_processes(tmp_path / "two", "fsdp:2")
    the_same_training(one_process, two)
    # go on from the first step, in two processes and in one
    for flag in ("fsdp:2", "ddp:1"):
        again = tmp_path / flag
        for left in ("checkpoint-1", "step-1"):
            place = two / ("work" if left == "checkpoint-1" else "") / left
            shutil.copytree(place, again / "work" / left)
        in_processes(again, flag)
        the_same_training(two, again)
        name = "model/model.safetensors"
        assert flag == "ddp:1" or (two / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.slow
def test_an_adapter_trained_with_shared_out_weights_is_saved_whole(tmp_path) -> None:
    # of rank 1, so that one process holds nothing of some matrices
    change = {"lora": LoRA(rank=1, merge=False), "gradient_checkpointing": True}
    recipe = PAIR.model_copy(update=change)
    outs = [in_processes(tmp_path / flag, flag, recipe) for flag in ("ddp:1", "fsdp:2")]
    the_same_training(*outs)
    name = "adapter/adapter_model.safetensors"
    one, two = (load_file(out / name) for out in outs)
    assert one.keys() == two.keys()
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5


def _full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def _full_in_rust(*args, **kwargs):
    raise SafetensorError(
        'Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }'
    )


def _full_in_torch_midway(*args, **kwargs):
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 5376 vs 5268")


def _full_in_torch(*args, **kwargs):
    raise RuntimeError(
        "[enforce fail at inline_container.cc:807] . PytorchStreamWriter failed writing file data/4"
    )


@pytest.mark.parametrize(
    ("where", "failure"),
    [
        ("realign.training.loop.save_file", _full_in_rust),
        ("torch.save", _full_in_torch),
        ("torch.save", _full_in_torch_midway),
        ("transformers.trainer_callback.TrainerState.save_to_json", _full),
        ("pandas.DataFrame.to_csv", _full),
        ("realign.training.trainer.shutil.move", _full),
        ("sentence_transformers.SentenceTransformer.save_pretrained", _full_in_rust),
        ("pathlib.Path.write_text", _full),
    ],
)
def test_a_full_disk_is_one_sentence_at_every_write_and_the_run_goes_on_afterwards(
    where, failure, tmp_path, monkeypatch
) -> None:
    recipe = RECIPE.model_copy(
        update={"epochs": 0.6, "checkpoint_steps": 1, "save_steps": (2,), "lora": LoRA(rank=2, merge=False)}
    )
    with monkeypatch.context() as full:
        full.setattr(where, failure)
        with pytest.raises(
            RealignError, match=rf"the disk that holds {tmp_path} is full: free some space"
        ) as raised:
            run(tmp_path, recipe)
    assert "\n" not in str(raised.value)
    assert run(tmp_path, recipe).is_dir()


def test_other_errors_keep_their_own_words(tmp_path, monkeypatch) -> None:
    def broken(*args, **kwargs):
        raise ValueError("something else")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    with pytest.raises(ValueError, match="something else"):
        run(tmp_path, RECIPE.model_copy(update={"epochs": 0.2}))


def test_the_flag_for_several_processes_is_checked() -> None:
    flags = ("", "ddp:1", "ddp:4", "fsdp:1", "fsdp:2")
    assert [parallel.read_flag(f) for f in flags] == [
        (1, False), (1, False), (4, False), (1, False), (2, True),
    ]  # fmt: skip
    for flag in ("ddp", "ddp:0", "zero:2", "4"):
        with pytest.raises(UsageError, match="must be ddp:N"):
            parallel.read_flag(flag)
    assert parallel.launcher("cuda", 4)[2:6] == [
        "accelerate.commands.launch", "--multi_gpu", "--num_processes=4", "--num_machines=1",
    ]  # fmt: skip
