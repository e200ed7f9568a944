# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # RQ4: why is there no gain?
#
# **Question.** What is the mechanism behind the lack of gain?
#
# **The paper's claim (C7).** RLVR optimises *trajectories* inside an existing semantic landscape; SFT rebuilds the *landscape*. The policy's behaviour changes far more than its representation of given text {cite:p}`chan2026reasoning`.
#
# **How it is tested here.** Along the checkpoints of tuning we measure behaviour (accuracy on problems never trained on, entropy, KL to the base) and, on fixed texts, the similarity of the representation to the base's. RLVR and SFT start from the same base and see the same kind of problems.

# %% tags=["parameters"]
profile = "laptop"  # what is compared and how: smoke, laptop, paper, or a TOML file of yours
family = ""  # a backbone family of data/families.toml; empty: the profile's
seeds = []  # training seeds of contrastive learning, for example [0, 1]; empty: the profile's
texts = []  # text sets that both models read, for example ["docs", "messages"]; empty: the profile's
n_texts = 0  # texts of each set; 0: the profile's
k = []  # neighbourhood sizes, for example [5, 20]; empty: the profile's
attention = ""  # how backbones read: "bidirectional" or "causal"; empty: the profile's

# %%
from realign import claims, figures, pipeline, tables

figures.setup()
study = pipeline.study(
    profile, family=family or None, seeds=seeds or None, texts=texts or None,
    n_texts=n_texts or None, k=k or None, attention=attention or None,
)

# %% [markdown]
# ## How the siblings were made
#
# What tuning logged, step by step.

# %% mystnb={"image": {"alt": "Reward, loss, entropy and completion length along tuning for each role"}}
figures.tuning_curves(study.tuning_logs())

# %% [markdown]
# ## Behaviour
#
# Accuracy on unseen problems with Wilson 95% intervals; entropy and KL in nats a token, on the model's own answers.

# %%
policy = study.policy()
tables.show(tables.policy_table(policy))

# %% [markdown]
# ## Behaviour against representation
#
# Above, what the policy does; below, how similar its reading of fixed texts stays to the base's (1 is unchanged). The same horizontal axis: the step of tuning.

# %% mystnb={"image": {"alt": "Accuracy, entropy and KL of the policy along tuning, above the similarity of the representation to base"}}
drift = study.drift()
figures.behaviour_and_drift(policy, drift)

# %% [markdown]
# How much representation moves for a given change of behaviour: the lower a curve, the more of the change was made without moving the landscape.

# %% mystnb={"image": {"alt": "One minus similarity against KL to base, a curve for each role"}}
figures.drift_per_behaviour(policy, drift)

# %%
tables.show(tables.drift_table(drift))

# %% [markdown]
# ## What it means at this scale
#
# Computed from the numbers on this page by the rule in `data/claims.toml`.

# %%
claims.verdict(study, "C7")

# %% [markdown]
# KL is measured on the task that was trained, similarity on other texts: a model may leave the landscape where it was trained and keep it elsewhere. At matched steps RLVR and SFT are not matched in accuracy; compare the curves where behaviour is equal, not where they end.

# %% [markdown]
# ## Where these numbers come from
#
# Every artifact that the cells above have read: `published` ones came with the repository and were found under the same key, `local` ones were computed on this machine.

# %%
tables.show(tables.provenance(study))
