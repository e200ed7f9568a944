"""Numbers and verdicts as frames, without formatting."""
