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
# # RQ3: does contrastive learning realign the models?
#
# **Question.** If RLVR moved the backbone, does contrastive learning (CL) bring base- and reason-initialised models back together?
#
# **The paper's claim (C6), Manifold Realignment.** After CL the pair is strongly aligned globally, and the drift of the basis is reversed; local neighbourhoods stay different {cite:p}`chan2026reasoning`.
#
# **How it is tested here.** The same metrics on the same texts, before and after CL (first seed), side by side. The grey band is the **noise ceiling**: two models trained from the *same* base with different seeds. A pair that reaches the ceiling is as alike as training noise allows; nothing can be asked to be more alike than that.

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

# %%
groups = {"backbones": study.comparisons("backbone"), "after CL": study.comparisons("embedding")}
before, after = groups.values()
ceiling = study.noise_ceiling()

# %% [markdown]
# ## At a glance
#
# Means over layers, from backbone to embedding model.

# %% mystnb={"image": {"alt": "Each similarity before and after contrastive learning, with the noise ceiling"}}
figures.before_after(before, after, ceiling)

# %%
tables.show(tables.similarity_table(after, ceiling))

# %% [markdown]
# ## Global geometry

# %% mystnb={"image": {"alt": "Linear CKA by layer before and after contrastive learning, for both estimators"}}
figures.layer_profiles(groups, "cka", ceiling=ceiling)

# %% mystnb={"image": {"alt": "Heat maps of linear CKA between all layers, before and after contrastive learning"}}
figures.layer_heatmaps(groups, "cka")

# %% [markdown]
# ## Local geometry
#
# Solid lines are backbones, dashed lines the models after CL; the ceiling is that of the trained models.

# %% mystnb={"image": {"alt": "k-nearest-neighbour overlap by layer before and after contrastive learning"}}
figures.neighbours(groups, ceiling=ceiling)

# %% [markdown]
# ## Coordinate basis

# %% mystnb={"image": {"alt": "Mean dimension-wise correlation by layer before and after contrastive learning"}}
figures.layer_profiles(groups, "correlation", ceiling=ceiling, estimators=["reference"])

# %% mystnb={"image": {"alt": "Histograms of the correlation of each dimension at the last layer, before and after"}}
figures.correlation_histograms(groups)

# %% mystnb={"image": {"alt": "Procrustes rotation at the last layer and inverse row entropy, before and after"}}
figures.rotations(groups)

# %% mystnb={"image": {"alt": "Variance explained after Procrustes alignment, before and after"}}
figures.layer_profiles(groups, "r2", ceiling=ceiling)

# %% [markdown]
# ## Linear readout

# %% mystnb={"image": {"alt": "Probe transfer before and after contrastive learning"}}
figures.probes(groups)

# %%
tables.show(tables.probe_table(after))

# %% [markdown]
# ## What it means at this scale
#
# Computed from the numbers on this page by the rule in `data/claims.toml`.

# %%
claims.verdict(study, "C6")

# %% [markdown]
# Realignment can only be seen where there was drift to reverse: if the backbones were alike before CL, high similarity after it is preservation, and the figures above tell the two apart.

# %% [markdown]
# ## Where these numbers come from
#
# Every artifact that the cells above have read: `published` ones came with the repository and were found under the same key, `local` ones were computed on this machine.

# %%
tables.show(tables.provenance(study))
