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
# # RQ3: does contrastive learning realign the models?
#
# **Question.** If RLVR moved the backbone, does contrastive learning (CL) bring base- and reason-initialised models back together?
#
# **The paper's claim (C6), Manifold Realignment.** After CL the pair is strongly aligned globally, and the drift of the basis is reversed; local neighbourhoods stay different {cite:p}`chan2026reasoning`.
#
# **How it is tested here.** The same metrics on the same texts, before and after CL, side by side, and **calibrated**: 0 is what unrelated texts give, 1 the **noise ceiling**. After CL the ceiling is two models trained from the *same* base with different seeds: a pair that reaches it is as alike as training noise allows. Before CL it is the base model against itself in another precision and in other batches. Two models of one seed share the order of their data and the start of their adapters, which the ceiling's do not; so base of one seed is compared with the sibling of *another*, over all pairs of different seeds, and pairs of the same seed have a panel of their own. Intervals are for other texts, seeds and tuning runs (with one run, for that run only).

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
groups = {"backbones": study.compare.reports("backbone"), "after CL": study.compare.reports("embedding")}
before, after = groups.values()
panels = groups | {"after CL, same seed": study.compare.reports("same seed")}
ceilings = {"backbones": study.compare.ceilings("backbone"), "after CL": study.compare.ceilings("embedding")}
panel_ceilings = ceilings | {"after CL, same seed": ceilings["after CL"]}

# %% [markdown]
# ## At a glance
#
# Means over layers, from backbone to embedding model: 0 is unrelated texts, 1 a replicate. The numbers as they were measured stand in the table.

# %% mystnb={"image": {"alt": "Each similarity before and after contrastive learning, with the noise ceiling"}}
figures.before_after(before, after, list(ceilings.values()))

# %%
tables.similarities(after, ceilings["after CL"])

# %% [markdown]
# ## Global geometry

# %% mystnb={"image": {"alt": "Linear CKA by layer before and after contrastive learning, for both estimators"}}
figures.by_layer(panels, "cka", ceilings=panel_ceilings)

# %% [markdown]
# Maps, histograms and rotations show one pair: the first seed of base against the second of the sibling.

# %% mystnb={"image": {"alt": "Heat maps of linear CKA between all layers, before and after contrastive learning"}}
figures.layer_heatmaps(groups, "cka", ceilings=ceilings)

# %% [markdown]
# ## Local geometry
#
# Solid lines are backbones, dashed lines the models after CL; each is calibrated by its own floor and ceiling (above), the paper's index is as measured.

# %% mystnb={"image": {"alt": "k-nearest-neighbour overlap by layer before and after contrastive learning"}}
figures.neighbours(groups, ceilings=ceilings)

# %% [markdown]
# ## Coordinate basis

# %% mystnb={"image": {"alt": "Mean dimension-wise correlation by layer before and after contrastive learning"}}
figures.by_layer(panels, "correlation", ceilings=panel_ceilings, estimators=["reference"])

# %% mystnb={"image": {"alt": "Histograms of the correlation of each dimension at the last layer, before and after"}}
figures.correlation_histograms(groups, ceilings=ceilings)

# %% mystnb={"image": {"alt": "Procrustes rotation at the last layer and inverse row entropy, before and after"}}
figures.rotations(groups, ceilings=ceilings)

# %% mystnb={"image": {"alt": "Variance explained after Procrustes alignment, before and after"}}
figures.by_layer(groups, "r2", ceilings=ceilings)

# %% [markdown]
# ## Linear readout

# %% mystnb={"image": {"alt": "Probe transfer before and after contrastive learning"}}
figures.probes(groups, ceilings=ceilings)

# %%
tables.probes(after)

# %% [markdown]
# ## All models on one map
#
# Every backbone, checkpoint and trained model, placed so that distances on the page are close to distances between models (the angle of debiased CKA). Lines join a sibling's checkpoints to the base they started from. The right panel shows the backbones alone, enlarged, with their steps of tuning. If CL realigns, the squares lie closer together than the circles they started from. Where the recipe keeps models on the way (`recipe.save_steps`), dashed lines lead through them. Grey bars are as long as the noise ceilings: distances that are no longer than they are could be precision, batches or the training seed.

# %% mystnb={"image": {"alt": "Two-dimensional map of all backbones, checkpoints and embedding models by debiased CKA distance"}}
figures.models_map(study.map.frame(), {name: r for each in ceilings.values() for name, r in each.items()})

# %% [markdown]
# ## What it means at this scale
#
# Computed from the numbers on this page by the rule in `data/claims.toml`.

# %%
verdicts.verdict(study, "C6")

# %% [markdown]
# Realignment can only be seen where there was drift to reverse: if the backbones were alike before CL, high similarity after it is preservation, and the figures above tell the two apart.

# %% [markdown]
# ## Where these numbers come from
#
# Every artifact that the cells above have read: `published` ones came with the repository and were found under the same key, `local` ones were computed on this machine.

# %%
tables.provenance(study)
