"""Where a data set is described: reference and BibTeX entry, as fields of a task."""

from __future__ import annotations

from typing import TypedDict


class Paper(TypedDict):
    """Where a data set is described."""

    reference: str
    citation: str


def paper(key: str, authors: str, title: str, year: int, arxiv: str) -> Paper:
    """Reference and BibTeX entry of a paper on arXiv."""
    journal = f"journal = {{arXiv preprint arXiv:{arxiv}}}"
    return _entry("article", key, authors, title, year, f"https://arxiv.org/abs/{arxiv}", journal)


def software(key: str, authors: str, title: str, year: int, address: str) -> Paper:
    """Reference and BibTeX entry of software, or of data that are described where they lie."""
    return _entry("misc", key, authors, title, year, address, f"howpublished = {{{address}}}")


def _entry(kind: str, key: str, authors: str, title: str, year: int, address: str, place: str) -> Paper:
    fields = (f"author = {{{authors}}}", place, f"title = {{{title}}}", f"year = {{{year}}}")
    return {
        "reference": address,
        "citation": f"@{kind}{{{key},\n" + "".join(f"  {field},\n" for field in fields) + "}",
    }


BIGBENCH_PAPER = paper(
    "srivastava2022bigbench",
    "Aarohi Srivastava and others",
    "Beyond the Imitation Game: Quantifying and extrapolating the capabilities of language models",
    2022,
    "2206.04615",
)
