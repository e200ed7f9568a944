"""The command line: every stage of the study by name, with one clear sentence when it cannot run."""

import sys

from realign.errors import INTERRUPTED

try:
    # Importing a module registers its commands, in the order of --help.
    from realign.cli import about, book, models, results
    from realign.cli.app import app, join_parameters, main, parameters
except KeyboardInterrupt:  # importing takes a while, and main() is not there yet
    print(f"realign: {INTERRUPTED}", file=sys.stderr)
    raise SystemExit(130) from None

__all__ = ["about", "app", "book", "join_parameters", "main", "models", "parameters", "results"]
