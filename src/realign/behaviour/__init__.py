"""What a language model does: its answers as a policy, its weights and its landscape against a base."""
