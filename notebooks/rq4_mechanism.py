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
roles = []  # which backbones are compared, for example ["base", "reason"]; empty: the profile's
seeds = []  # training seeds of contrastive learning, for example [0, 1]; empty: the profile's
texts = []  # text sets that both models read, for example ["docs", "messages"]; empty: the profile's
n_texts = 0  # texts of each set; 0: the profile's
k = []  # neighbourhood sizes, for example [5, 20]; empty: the profile's
attention = ""  # how backbones read: "bidirectional" or "causal"; empty: the profile's
controls = []  # further siblings followed along tuning, for example ["random-reward"]; empty: all that the family has

# %%
from realign.display import figures, tables, verdicts
from realign.study import open_study

figures.setup()
study = open_study(
    profile, family=family, roles=roles, seeds=seeds, texts=texts, n_texts=n_texts, k=k, attention=attention,
    controls=controls,
)

# %% [markdown]
# ## How the siblings were made
#
# Every sibling starts from the same base; problems for training, validation and test are split by the problem's text. SFT learns from worked answers (the answer, then the working), RLVR from whether its own answers are right. Roles besides `reason` and `sft`, where there are any, are controls: RLVR once more with another seed (`reason-seed1`), with a reward that a coin decides whatever was answered (`random-reward`), and with completions that hold the working and then the answer (`reason-cot`, after a few steps of SFT without which no completion earned a reward).

# %%
tables.siblings(study.models)

# %% [markdown]
# What tuning logged, step by step.

# %% mystnb={"image": {"alt": "Reward, loss, entropy and completion length along tuning for each role"}}
figures.tuning_curves(study.tuning_log.frame())

# %% [markdown]
# Accuracy on problems never trained on with Wilson 95% intervals; entropy and KL in nats a token, on the model's own answers; the Jensen–Shannon divergence from base on texts that no model wrote, worked answers and documentation, the same for all. Step 0 is the base; `reason-cot` has a step 0 of its own, the base asked for the working before the answer.

# %%
policy = study.policy.frame()
tables.policy(policy)

# %% [markdown]
# ## 1. Behaviour against representation
#
# Above, what the policy does; below, how similar its reading of fixed texts stays to the base's (1 is unchanged). The same horizontal axis: the step of tuning.

# %% mystnb={"image": {"alt": "Accuracy, entropy and KL of the policy along tuning, above the similarity of the representation to base"}}
drift = study.drift.frame()
figures.behaviour_and_drift(policy, drift)

# %% [markdown]
# How much representation moves for a given change of behaviour; a point is a checkpoint, the last one the end of tuning. The lower a curve, the more of the change was made without moving the landscape.

# %% mystnb={"image": {"alt": "One minus similarity against KL to base, a curve for each role"}}
figures.drift_per_behaviour(policy, drift)

# %% [markdown]
# The same, matched in four ways: every role at its end; at the checkpoint nearest to the last step that all of them reach; at the checkpoint whose accuracy is nearest to that of the RLVR model; and at the one that is as far from base on common text, by the KL divergence of next-token distributions on worked answers that none of the models wrote.

# %%
tables.matched(policy, drift)

# %%
tables.drift(drift)

# %% [markdown]
# ## 2. Weights
#
# The update of every linear layer of the final models: a line is the median over the matrices of a layer, the band their middle half. Effective rank is the exponential of the entropy of the singular values; a LoRA cannot exceed its rank. Directions are the four leading left singular vectors, the ones that write into the residual stream or a head; their overlap with the sixteen leading ones of the base's weight, and with those of the first role's update (dashed, in the other role's colour), is shown relative to random directions (1). Right singular vectors are left out: two LoRAs of one seed start from the same random input matrix, so theirs agree whatever was learnt.

# %% mystnb={"image": {"alt": "Size, effective rank, share of moved entries and direction overlap of weight updates by layer"}}
updates = study.updates.frame()
figures.weight_updates(updates, study.updates.agreement())

# %%
tables.updates(updates)

# %% [markdown]
# ## 3. Trajectories in the landscape
#
# A map is fitted once, on the base's states of texts that no model wrote (standardised, principal axes). Then each model continues the same prompts, at temperature 1, and the *base* reads what was written: a point is one written token, the large mark the centre and spread of a model's tokens.

# %% mystnb={"image": {"alt": "Tokens written by each model on a map of the base's states, for problems and for neutral prompts"}}
figures.trajectories(study.landscape.frame("points"))

# %% [markdown]
# The landscape is the same text read by both models (shift, next-token agreement); trajectories are where the models' own texts go (distance, regions, spread, step length). Distances are in units of the spread of the fixed texts. The grey mark is the base against itself: for trajectories, the base writing once more with another seed.

# %% mystnb={"image": {"alt": "Landscape shift, trajectory distance and further measures with intervals, for each role and kind of prompt"}}
measures = study.landscape.frame()
figures.landscape_measures(measures)

# %%
tables.landscape(measures)

# %% [markdown]
# ## 4. On the task and off it
#
# Similarity of each sibling's reading to the base's on the task it was tuned on, on problems of other kinds, on documentation, on interface messages in many languages and on code. The domains differ in length and variety of texts, so compare siblings within a domain rather than domains with one another.

# %% mystnb={"image": {"alt": "Similarity to base by domain of text for each role"}}
figures.drift_by_domain(study.domains.frame())

# %% [markdown]
# ## 5. Is it undone?
#
# Basis, global and local similarity to base by layer, before contrastive learning (dashed) and after it (solid; base of one seed with the sibling of another), each calibrated by its own floor and ceiling. After it, 1 is what the same recipe gives from one backbone under two seeds: where a solid line reaches it, nothing of the sibling's history is left to see.

# %% mystnb={"image": {"alt": "Correlation, CKA and neighbour overlap by layer before and after contrastive learning for each sibling"}}
before, after = study.compare.reports("backbone"), study.compare.reports("embedding")
figures.recovery(before, after, study.compare.ceilings("embedding"))

# %% [markdown]
# The counterfactual: turn the sibling's states back by the Procrustes rotation fitted on one half of the texts, and look at the other half. What the dotted line regains was a change of basis alone; what stays missing was not.

# %% mystnb={"image": {"alt": "Held-out R squared and correlation by layer, as they are and after the Procrustes rotation"}}
figures.rotated_back({"backbones": before, "after CL": after})

# %% [markdown]
# ## 6. Verdict
#
# Computed from the numbers on this page by the rule in `data/claims.toml`.

# %%
verdicts.verdict(study, "C7")

# %% [markdown]
# KL is measured on the task that was trained, similarity on other texts: a model may leave the landscape where it was trained and keep it elsewhere, which is why section 4 looks at both.

# %% [markdown]
# ## Where these numbers come from
#
# Every artifact that the cells above have read: `published` ones came with the repository and were found under the same key, `local` ones were computed on this machine.

# %%
tables.provenance(study)
