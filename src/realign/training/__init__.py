"""Contrastive learning: the paper's recipe from a laptop to several GPUs."""
