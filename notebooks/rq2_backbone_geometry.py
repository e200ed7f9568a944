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
# # RQ2: what does RLVR change in the latent space, and what does SFT change?
#
# **Question.** Two models that score the same may still represent text differently. What differences between the latent spaces does hierarchical representation similarity analysis (HRSA) expose, and do RLVR and SFT differ?
#
# **The paper's claims.** RLVR preserves global geometry and linear readout (C2), irreversibly reorganises local neighbourhoods (C3), and when prolonged drifts the coordinate basis (C4). SFT restructures the landscape: lower similarity and lower transfer (C5) {cite:p}`chan2026reasoning`.
#
# **How it is tested here.** Both models read the same texts once, causally, as they were trained; the states of the same layers are compared everywhere, evenly spaced, and in the maps all layers. Layer 0 is the token embedding and the last layer comes after the final norm. Each figure shows the **reference** estimator (held out, debiased, without sink tokens, chance-corrected: what we stand behind) and, in a second row, the **paper** estimator (as in the paper's public code), see {doc}`../methods`. The reference row is **calibrated**: 0 is what unrelated texts give, 1 the **noise ceiling**, which is the base model against itself, read in bfloat16 instead of float32 and in other batches; the numbers as they were measured stand in the table. No pair of models can be asked to be more alike than the ceiling. Bands are 95% intervals over texts (and over tuning runs where there are several). Sinks are those of the base, the same tokens in every comparison.

# %% tags=["parameters"]
profile = "laptop"  # what is compared and how: smoke, laptop, paper, or a TOML file of yours
family = ""  # a backbone family of data/families.toml; empty: the profile's
roles = []  # which backbones are compared, for example ["base", "reason"]; empty: the profile's
seeds = []  # training seeds of contrastive learning, for example [0, 1]; empty: the profile's
texts = []  # text sets that both models read, for example ["docs", "messages"]; empty: the profile's
n_texts = 0  # texts of each set; 0: the profile's
k = []  # neighbourhood sizes, for example [5, 20]; empty: the profile's
attention = ""  # how backbones read: "bidirectional" or "causal"; empty: the profile's

# %%
from realign.display import figures, tables, verdicts
from realign.study import open_study

figures.setup()
study = open_study(
    profile, family=family, roles=roles, seeds=seeds, texts=texts, n_texts=n_texts, k=k, attention=attention
)

# %%
pairs = study.compare.reports("backbone")
ceilings = {"": study.compare.ceilings("backbone")}
tables.similarities(pairs, ceilings[""])

# %% [markdown]
# ## Is what RLVR changes less than what SFT changes?
#
# The similarity of the first pair minus that of the second, with the texts paired: what both pairs share in a text cancels, so this interval is much narrower than the two above it. Above 0, RLVR has kept more than SFT.

# %%
tables.differences(pairs)

# %% [markdown]
# ## Global geometry: linear CKA
#
# Every layer of base against every layer of its sibling. A bright diagonal says that the same layer still does the same; the levels off the diagonal say how fast layers differ from one another. Every cell has a 95% interval: below each map stands how far the intervals reach.

# %% mystnb={"image": {"alt": "Heat maps of linear CKA between all layers of base and reason, and of base and sft, for both estimators"}}
figures.layer_heatmaps({"": pairs}, "cka", ceilings=ceilings)

# %% [markdown]
# The diagonals of those maps, with intervals:

# %% mystnb={"image": {"alt": "Linear CKA of matching layers, by layer, for base and reason and for base and sft"}}
figures.by_layer({"": pairs}, "cka", ceilings=ceilings)

# %% [markdown]
# ## What could fake a similarity
#
# A few sink tokens or massive dimensions can carry most of the norm and make any two models look alike. Where these shares are high, trust the reference row of the diagonals above (it leaves sinks out) over the paper row and over the full maps (which keep all tokens).

# %% mystnb={"image": {"alt": "Share of the squared norm held by the top dimension and by the top one percent of tokens, by layer and model"}}
figures.sinks({"": pairs})

# %% [markdown]
# ## Local geometry: k-NN overlap
#
# The share of a token's nearest neighbours that both models agree on. Chance-corrected above (0 is chance, 1 is the same neighbours), the paper's Jaccard index below. Values for different k are not comparable with each other.

# %% mystnb={"image": {"alt": "k-nearest-neighbour overlap by layer for each k, with chance level"}}
figures.neighbours({"": pairs}, ceilings=ceilings)

# %% [markdown]
# ## Coordinate basis: dimension-wise correlation
#
# Does dimension *i* still mean the same? Over all layer pairs, and one by one at the last layer.

# %% mystnb={"image": {"alt": "Heat maps of the mean dimension-wise correlation between all layers"}}
figures.layer_heatmaps({"": pairs}, "correlation", ceilings=ceilings)

# %% mystnb={"image": {"alt": "Histogram of the correlation of each dimension at the last layer"}}
figures.correlation_histograms({"": pairs}, ceilings=ceilings)

# %% [markdown]
# ## Coordinate basis: orthogonal Procrustes
#
# The best rotation of one model onto the other at the last layer, and how far each of its rows is from a single axis. Where a layer has fewer distinct directions than dimensions, the data leave part of the rotation open: such layers are crosses, and no mean includes them. R² is scored on texts that the rotation was not fitted on (reference) and on the same texts (paper).

# %% mystnb={"image": {"alt": "Absolute Procrustes rotation at the last layer and inverse row entropy by layer"}}
figures.rotations({"": pairs}, ceilings=ceilings)

# %% mystnb={"image": {"alt": "Variance explained after Procrustes alignment, by layer, held out and in sample"}}
figures.by_layer({"": pairs}, "r2", ceilings=ceilings)

# %% [markdown]
# ## Linear readout: cross-model probes
#
# A linear classifier fitted on one model's embeddings of texts reads the other model's, without refitting. The target's own probe is the ceiling, the majority class the floor. Text sets are kept apart; one whose own probe is always right (saturated) or no better than guessing (chance) tells nothing of transfer, is flagged, and enters no verdict.

# %% mystnb={"image": {"alt": "Bars of probe accuracy on the own and on the other model, with the majority-class floor"}}
figures.probes({"": pairs}, ceilings=ceilings)

# %%
tables.probes(pairs)

# %% [markdown]
# The paper's probe (one split, fixed regularisation, the source's scaling) on the same embeddings:

# %%
tables.probes(pairs, "paper")

# %% [markdown]
# ## Does it depend on how the models read?
#
# Backbones are judged as they live, causally: so above. The paper's public code lets them attend in both directions, which they were never trained for; here both models of a pair read in either mode (reference estimator, as measured). A conclusion that holds under one mode only is a conclusion about the mode.

# %% mystnb={"image": {"alt": "Each similarity, mean over layers, under bidirectional and under causal attention, for base and reason and for base and sft"}}
modes = study.drift.modes()
figures.attention_modes(modes, ceilings={study.profile.hrsa.attention: ceilings[""]})

# %% [markdown]
# RLVR's similarity minus SFT's, as in the table at the top, under either mode:

# %%
tables.modes(modes)

# %% [markdown]
# ## Across languages, within one model
#
# The same metrics between English interface messages and their translations, on text means of one model, layer by layer: does a model put a message and its translation in the same place, and did tuning change that? 0 is what unrelated texts give; base-Emb, after contrastive learning, is there for scale. Grey, near 1, are the ceilings of the figures above: one language, read twice, on their tokens.

# %% mystnb={"image": {"alt": "CKA, nearest-neighbour overlap and correlation between English and three languages by layer, for each backbone and for base after contrastive learning"}}
figures.languages(study.languages.frame(), ceilings[""])

# %% [markdown]
# ## What it means at this scale
#
# Computed from the numbers on this page (and, for C3, from those of {doc}`rq3_realignment`) by the rules in `data/claims.toml`.

# %%
verdicts.verdict(study, "C2", "C3", "C4", "C5")

# %% [markdown]
# The thresholds are ours and were set before the results. A short low-rank RLVR run moves a model less than a long full-parameter one: "preserved" is then the easy half of the claims, and "drifted" the hard one.

# %% [markdown]
# ## Where these numbers come from
#
# Every artifact that the cells above have read: `published` ones came with the repository and were found under the same key, `local` ones were computed on this machine.

# %%
tables.provenance(study)
