"""The command line: every stage of the study by name, with one clear sentence when it cannot run."""

# Importing a module registers its commands, in the order of --help.
from realign.cli import about, book, models, results
from realign.cli.app import app, join_parameters, main, parameters

__all__ = ["about", "app", "book", "join_parameters", "main", "models", "parameters", "results"]
