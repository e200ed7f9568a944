# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # RQ1: does a better reasoner make a better embedding model?
#
# **Question.** A backbone tuned with reinforcement learning from verifiable rewards (RLVR) reasons better than its base. Trained contrastively under the *same* recipe, is it a better embedding model?
#
# **The paper's claim (C1).** No: across multilingual, code and reasoning-intensive retrieval benchmarks there is a *null effect*. RLVR-initialised models show no consistent advantage over base-initialised ones; supervised fine-tuning (SFT) shifts scores more {cite:p}`chan2026reasoning`.
#
# **How it is tested here.** Every role of one family (`base`, `reason`, `sft`) is trained with the identical recipe and the same seeds, then scored on suites that stand for the paper's benchmarks. "No advantage" is a claim of equivalence, so a margin is set in advance and the 90% interval of the paired difference must lie inside it (two one-sided tests at 5%, {cite:p}`lakens2017equivalence`). The tasks are those of the suites and fixed; other queries of them, other training seeds and other tuning runs are what the interval allows for.

# %% tags=["parameters"]
profile = "laptop"  # what is compared and how: smoke, laptop, paper, or a TOML file of yours
family = ""  # a backbone family of data/families.toml; empty: the profile's
roles = []  # which backbones are compared, for example ["base", "reason"]; empty: the profile's
seeds = []  # training seeds of contrastive learning, for example [0, 1]; empty: the profile's

# %%
from realign.display import figures, tables, verdicts
from realign.study import open_study

figures.setup()
study = open_study(profile, family=family, roles=roles, seeds=seeds)

# %% [markdown]
# ## Mean scores by suite
#
# Mean over the tasks of a suite, then over seeds. Δ is the difference to `base` paired by seed, ± its standard deviation over seeds. The untrained row is the same base without contrastive learning (mean pooling); BM25 is shown where it applies to every task of a row, all-MiniLM-L6-v2 is a small public sentence encoder (English, 22 million parameters) that shows what is within reach, random vectors are the floor.

# %%
scores = study.evaluate.scores()
tables.scores(scores, by="suite")

# %% [markdown]
# Mean over task types, as the leaderboard gives it beside the mean over tasks: each type counts once, whatever the number of its tasks.

# %%
tables.type_means(scores)

# %% [markdown]
# Tasks that failed, with the reason; the means above that contain one are left empty.

# %%
tables.failures(scores)

# %% [markdown]
# ## By task type

# %%
tables.scores(scores, by="type")

# %% [markdown]
# ## By task

# %%
tables.scores(scores, by="task")

# %% [markdown]
# ## Paired differences against the equivalence margin
#
# Two one-sided tests for each arm (a tuning method with all of its runs) in each suite: the difference to base-Emb on these tasks, with its 90% interval, its degrees of freedom, and where its noise comes from. "Equivalent" needs the whole interval inside the margin. The last interval answers another question, what *new* tasks would show.

# %%
items = study.evaluate.items()
tables.equivalence(scores, items, study.profile.margin)

# %%
tables.unidentified(scores, items, study.profile.margin)

# %% [markdown]
# Each mark is the mean difference to base-Emb, each bar its 90% interval: over training seeds for a task, over queries, seeds and tuning runs for a suite. Inside the grey band a difference is too small to matter by the margin of the profile; an open mark has one seed only, so the variance of training is unidentified.

# %% mystnb={"image": {"alt": "Forest plot of score differences of reason-Emb and sft-Emb to base-Emb, by task and suite, with 90 percent intervals and the equivalence margin"}}
figures.forest(scores, items, margin=study.profile.margin)

# %% [markdown]
# ## Against the baselines
#
# A difference between roles means something only if training did: each dot is a trained model (one a seed), open dots are models without contrastive learning, the outside sentence encoder, BM25 and random vectors.

# %% mystnb={"image": {"alt": "Dot plot of mean scores by suite for trained models, untrained backbones, BM25 and random vectors"}}
figures.score_dots(scores)

# %% [markdown]
# Each role against its own backbone before contrastive learning:

# %%
tables.gains(scores)

# %%
verdicts.training_effect(scores)

# %% [markdown]
# The tasks that BM25 can score, those with the least word overlap first:

# %%
tables.against_bm25(scores)

# %% [markdown]
# ## Did training go the same way?
#
# Mean over seeds; the band is the range of the seeds.

# %% mystnb={"image": {"alt": "Loss, in-batch accuracy and gradient norm along contrastive learning for each role"}}
logs = study.training_log.frame()
figures.training_curves(logs)

# %% mystnb={"image": {"alt": "Learning rate, alignment, uniformity, speed, padding and memory along contrastive learning for each role"}}
figures.training_details(logs)

# %%
tables.training(logs)

# %% [markdown]
# ## What it means at this scale
#
# The verdict below is computed from the numbers on this page, by the rule that is written in `data/claims.toml`.

# %%
verdicts.verdict(study, "C1")

# %% [markdown]
# Read it with its limits: the interval speaks of these tasks, not of others; a small backbone with a short recipe moves less than the paper's models do, and equivalence between weak models says little about strong ones.

# %% [markdown]
# ## Where these numbers come from
#
# Every artifact that the cells above have read: `published` ones came with the repository and were found under the same key, `local` ones were computed on this machine.

# %%
tables.provenance(study)
