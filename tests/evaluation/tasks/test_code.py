"""The suite open-code: enough tasks, described and instructed, that run in mteb."""

from __future__ import annotations

from realign.evaluation import instructions, specs
from realign.evaluation.tasks.code import SPECS


def test_there_are_enough_tasks_of_enough_queries():
    assert len(SPECS) >= 6
    assert len({spec.name for spec in SPECS}) == len(SPECS)
    assert {spec.study_n for spec in SPECS} == {200}


def test_smoke_sizes_need_no_archive():
    assert all(bool(spec.archives) == (spec.smoke_n == 0) for spec in SPECS)


def test_every_task_has_its_own_instruction_source_and_citation():
    table = instructions.load(strict=True)
    for spec in SPECS:
        assert table(spec.name, spec.type)
        assert spec.citation.startswith("@"), spec.name
        assert spec.reference.startswith("https://"), spec.name
        assert spec.archives or spec.packages, spec.name


def test_mteb_accepts_the_metadata():
    for spec in SPECS:
        task = specs.make(spec, spec.study_n)
        assert task.metadata.name == spec.name
        assert task.metadata.bibtex_citation == spec.citation


def test_tasks_without_an_archive_have_texts_and_answers_at_their_smoke_size():
    for spec in SPECS:
        if spec.smoke_n:
            data = spec.data(spec.smoke_n)
            assert isinstance(data, specs.Corpus)
            assert len(data.queries) == spec.smoke_n
            assert all(text.strip() for text in specs.texts(data))
            for query, grades in data.relevant.items():
                assert grades
                assert set(grades) <= set(data.documents)
                assert not set(grades) & set((data.excluded or {}).get(query, ()))
