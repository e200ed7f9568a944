"""realign: do reasoning models enhance embedding models? The reference companion to arXiv 2601.21192."""

__version__ = "0.1.0"
