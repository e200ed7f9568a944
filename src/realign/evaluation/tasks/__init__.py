"""Tasks of the suites, by the kind of their data."""
