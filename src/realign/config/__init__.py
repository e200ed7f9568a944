"""What to compare: settings as frozen data, and profiles and families read from TOML."""

from realign.config.files import (
    AMENDMENTS,
    DEFAULT_PROFILE,
    find_family,
    load_families,
    load_profile,
    parse,
    profile_names,
    read_toml,
    rules_digest,
)
from realign.config.settings import (
    MAX_SEED,
    SOURCE_KINDS,
    TASK,
    Attention,
    Backbone,
    Config,
    DType,
    Family,
    HRSASettings,
    LoRA,
    MechanismSettings,
    OnPolicySFTSettings,
    PolicySettings,
    ProblemSettings,
    Profile,
    Recipe,
    RLVRSettings,
    SFTSettings,
    Style,
    Tuning,
)

__all__ = [
    "AMENDMENTS", "DEFAULT_PROFILE", "MAX_SEED", "SOURCE_KINDS", "TASK", "Attention", "Backbone", "Config", "DType", "Family", "HRSASettings", "LoRA",
    "MechanismSettings", "OnPolicySFTSettings", "PolicySettings", "ProblemSettings", "Profile",
    "RLVRSettings", "Recipe", "SFTSettings", "Style", "Tuning",
    "find_family", "load_families", "load_profile", "parse", "profile_names", "read_toml", "rules_digest",
]  # fmt: skip
