"""docs/performance.md, generated from the files in benchmarks/results."""


def main(check: bool) -> int:
    """Writes the page, or says whether it is up to date."""
    raise NotImplementedError(check)
