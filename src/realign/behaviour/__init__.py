"""What a language model does: as a policy on problems, on the map of its base's states, and in its weights."""
