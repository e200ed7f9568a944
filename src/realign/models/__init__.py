"""Backbones and embedding models: where they come from, how they are loaded, how they embed."""
