"""Tasks from CLDR, the locale data in Babel: names of places, languages, currencies in many languages.

The names were written and reviewed by CLDR's translators, so equal codes are translations by
construction. No training set uses Babel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache, lru_cache, partial

from realign.evaluation.specs import Columns, Corpus, TaskSpec, grouped, labelled, parallel
from realign.texts.splits import draw, order_key

LICENSE = "https://www.unicode.org/license.txt"
# Babel locale -> mteb's code of language and script
LANGUAGES = {
    "en": "eng-Latn",
    "de": "deu-Latn",
    "fr": "fra-Latn",
    "es": "spa-Latn",
    "pt": "por-Latn",
    "it": "ita-Latn",
    "nl": "nld-Latn",
    "tr": "tur-Latn",
    "ru": "rus-Cyrl",
    "ja": "jpn-Jpan",
}
BITEXT = ("de", "fr", "es", "pt", "it", "tr", "ru", "ja")
MIXED = ("en", "de", "fr", "es", "it", "nl")
KINDS = ("territory", "language", "currency", "script", "unit")
OFFICIAL = ("ar", "en", "es", "fr", "pt")


@cache
def names(locale: str, kind: str) -> Mapping[str, str]:
    """Names by code: 'territory', 'language', 'script', 'currency' or 'unit' in one language."""
    from babel import Locale

    data = Locale.parse(locale)
    if kind == "territory":
        all_names = {
            c: n for c, n in data.territories.items() if len(c) == 2 and c.isalpha() and c not in _NOT_PLACES
        }
    elif kind == "language":
        all_names = {c: n for c, n in data.languages.items() if len(c) in (2, 3)}
    elif kind == "script":
        all_names = {c: n for c, n in data.scripts.items() if not c.startswith("Z")}
    elif kind == "currency":
        all_names = {c: n for c, n in data.currencies.items() if "(" not in n and n != c}
    else:
        all_names = {c: str(v["long"]) for c, v in data.unit_display_names.items() if "long" in v}
    return {code: name for code, name in all_names.items() if len(name) > 2}


_NOT_PLACES = {"EU", "EZ", "UN", "XA", "XB", "ZZ", "QO", "CP", "DG", "IC", "EA", "TA"}


@lru_cache(maxsize=1)
def continents() -> Mapping[str, str]:
    """Continent by territory: the area in the names of all its time zones, where that is one."""
    from babel.core import get_global

    areas: dict[str, set[str]] = defaultdict(set)
    for zone, territory in get_global("zone_territories").items():
        areas[territory].add(zone.partition("/")[0])
    kept = {"Africa", "America", "Asia", "Europe", "Pacific"}
    return {
        t: next(iter(a))
        for t, a in areas.items()
        if len(a) == 1 and a <= kept and t in names("en", "territory")
    }


def official_languages() -> Mapping[str, list[str]]:
    """Official languages of each territory, among those that are official in many."""
    from babel.core import get_global

    by_territory: dict[str, list[str]] = {}
    for territory, languages in get_global("territory_languages").items():
        official = sorted(
            code
            for code, facts in languages.items()
            if facts["official_status"] in ("official", "de_facto_official") and code in OFFICIAL
        )
        if official and territory in names("en", "territory"):
            by_territory[territory] = official
    return by_territory


def currencies() -> Mapping[str, str]:
    """Currency of each territory that has exactly one today."""
    from babel.core import get_global

    known = names("en", "currency")
    by_territory = {}
    for territory, rows in get_global("territory_currencies").items():
        current = [code for code, _, until, tender in rows if until is None and tender]
        if len(current) == 1 and current[0] in known and territory in names("en", "territory"):
            by_territory[territory] = current[0]
    return by_territory


def _in_some_language(code: str, kind: str, salt: str) -> str:
    """Name of a thing in one of the mixed languages, chosen by digest."""
    ranked = sorted(MIXED, key=lambda language: order_key(salt, language, code))
    return next(names(language, kind)[code] for language in ranked if code in names(language, kind))


def bitext(n: int) -> Columns:
    """English name and its translation; only names whose spelling differs in every language."""
    pool = []
    for kind in ("territory", "language", "currency", "unit"):
        for code, name in names("en", kind).items():
            others = [names(language, kind).get(code) for language in BITEXT]
            if all(o and o.casefold() != name.casefold() for o in others) and len(name) < 40:
                pool.append((kind, code))
    chosen = draw(pool, n, "/".join, "bitext")
    subsets = {}
    for language in BITEXT:
        rows = [(names("en", kind)[code], names(language, kind)[code]) for kind, code in chosen]
        subsets[f"en-{language}"] = {right: (left, right) for left, right in rows}.values()
    return parallel(subsets)


def _balanced(rows: list[tuple[str, int]], train: int, test: int, salt: str) -> Columns:
    """Split labelled texts into train and test, the same number per label, no text twice."""
    split: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    seen: set[str] = set()
    for label in sorted({label for _, label in rows}):
        mine = []
        for row in draw([r for r in rows if r[1] == label], len(rows), lambda r: r[0], salt):
            if row[0].casefold() not in seen:
                seen.add(row[0].casefold())
                mine.append(row)
        split["train"] += mine[:train]
        split["test"] += mine[train : train + test]
    return labelled(split["train"], split["test"])


def kind_classification(n: int) -> Columns:
    """What does a name name: a place, a language, a currency, a script or a unit (``n`` tests each)."""
    rows = []
    for label, kind in enumerate(KINDS):
        rows += [(_in_some_language(code, kind, "kind"), label) for code in names("en", kind)]
    return _balanced(rows, train=min(n, 10), test=n, salt="kind")


def language_classification(n: int) -> Columns:
    """Which language is a name written in (names that two languages share are left out)."""
    owners: dict[str, set[str]] = defaultdict(set)
    for language in MIXED:
        for kind in ("territory", "language", "currency", "unit"):
            for name in names(language, kind).values():
                owners[name.casefold()].add(language)
    rows = []
    for label, language in enumerate(MIXED):
        for kind in ("currency", "unit", "territory"):
            rows += [(t, label) for t in names(language, kind).values() if len(owners[t.casefold()]) == 1]
    return _balanced(rows, train=min(n, 10), test=n, salt="language")


def official_multilabel(n: int) -> Columns:
    """Official languages of a place, from its English name."""
    gold = official_languages()
    rows = [
        (names("en", "territory")[code], [OFFICIAL.index(language) for language in gold[code]])
        for code in draw(gold, 2 * n, str, "official")
    ]
    return labelled(rows[1::2], rows[::2])


def continent_clustering(n: int) -> Columns:
    """Places, by their English names, to be grouped by continent."""
    gold = continents()
    return grouped((names("en", "territory")[code], gold[code]) for code in draw(gold, n, str, "continent"))


def currency_retrieval(n: int) -> Corpus:
    """From a place named in one of six languages to the English name of its currency."""
    gold = currencies()
    english = names("en", "currency")
    chosen = draw(gold, n, str, "currency")
    codes = sorted(set(gold.values()))
    if n < 50:  # the tiny suite also needs a tiny corpus
        codes = sorted({gold[c] for c in chosen} | set(codes[:n]))
    return Corpus(
        queries={f"q-{c}": _in_some_language(c, "territory", "currency") for c in chosen},
        documents={code: english[code] for code in codes},
        relevant={f"q-{c}": {gold[c]: 1} for c in chosen},
    )


_CODES = tuple(LANGUAGES[language] for language in MIXED)
_names_task = partial(TaskSpec, license=LICENSE, domains=("Encyclopaedic", "Written"), packages=("babel",))

SPECS = (
    _names_task(
        name="CLDRBitextMining",
        type="BitextMining",
        build=bitext,
        n=14,
        smoke_n=6,
        description="Find the translation of an English name of a place, language, currency or unit.",
        source="Babel (CLDR names), eight languages",
        gold="both names belong to the same CLDR code",
        weakness="names, not sentences; 14 candidates are few; many are cognates, so spelling alone goes a long way",
        languages={f"en-{k}": ("eng-Latn", LANGUAGES[k]) for k in BITEXT},
    ),
    _names_task(
        name="CLDRKindClassification",
        type="Classification",
        build=kind_classification,
        n=11,
        smoke_n=3,
        description="Tell names of places, languages, currencies, scripts and units apart, in six languages.",
        source="Babel (CLDR names), six languages mixed",
        gold="the CLDR table that the name stands in",
        weakness="surface cues (units, the word 'dollar') solve a part",
        languages=_CODES,
        subtypes=("Topic classification",),
        labels=KINDS,
    ),
    _names_task(
        name="CLDRLanguageClassification",
        type="Classification",
        build=language_classification,
        n=10,
        smoke_n=3,
        description="Tell in which of six languages a name is written.",
        source="Babel (CLDR names), six languages",
        gold="the CLDR locale of the name; names shared by two languages are left out",
        weakness="rewards keeping languages apart, which is the opposite of what bitext mining rewards",
        languages=_CODES,
        subtypes=("Language identification",),
        labels=MIXED,
    ),
    _names_task(
        name="CLDROfficialLanguages",
        type="MultilabelClassification",
        build=official_multilabel,
        n=48,
        smoke_n=16,
        description="Tell which of five world languages are official in a place, from its English name.",
        source="Babel (CLDR names and territory data)",
        gold="CLDR's official and de facto official languages",
        weakness="knowledge about the world more than meaning of text",
        labels=OFFICIAL,
    ),
    _names_task(
        name="CLDRContinentClustering",
        type="Clustering",
        build=continent_clustering,
        n=80,
        smoke_n=20,
        description="Group places, by their English names, by continent.",
        source="Babel (CLDR names and time zones)",
        gold="the area in the place's time zone names, where it is the same in all of them",
        weakness="'America' is both Americas; knowledge about the world more than meaning of text",
        subtypes=("Thematic clustering",),
    ),
    _names_task(
        name="CLDRCurrencyRetrieval",
        type="Retrieval",
        build=currency_retrieval,
        n=60,
        smoke_n=12,
        description="Find the currency (English name) of a place named in one of six languages.",
        source="Babel (CLDR names and currency data)",
        gold="the one currency that is legal tender there today",
        weakness="places with the same currency share a document; adjectives give some away",
        languages=_CODES,
        domains=("Encyclopaedic", "Financial", "Written"),
        subtypes=("Question answering",),
    ),
)
