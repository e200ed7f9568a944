"""Tuning that makes the `reason` (RLVR) and `sft` siblings of a base backbone."""
