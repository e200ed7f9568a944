"""Tasks from CLDR, the locale data in Babel: names of places, languages, currencies in many languages.

The names were written and reviewed by CLDR's translators, so equal codes are translations by
construction. No training set uses Babel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache, lru_cache

from realign.evaluation.specs import Columns, Corpus, TaskSpec, order_key, sample

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
    "pl": "pol-Latn",
    "tr": "tur-Latn",
    "id": "ind-Latn",
    "ru": "rus-Cyrl",
    "ja": "jpn-Jpan",
}
BITEXT = ("de", "fr", "es", "pt", "it", "pl", "tr", "ru", "ja")
MIXED = ("en", "de", "fr", "es", "it", "nl")


@cache
def names(locale: str, kind: str) -> Mapping[str, str]:
    """Names by code: 'territory', 'language', 'script', 'currency' or 'unit' in one language."""
    from babel import Locale

    data = Locale.parse(locale)
    if kind == "territory":
        found = {
            c: n for c, n in data.territories.items() if len(c) == 2 and c.isalpha() and c not in _NOT_PLACES
        }
    elif kind == "language":
        found = {c: n for c, n in data.languages.items() if len(c) in (2, 3)}
    elif kind == "script":
        found = {c: n for c, n in data.scripts.items() if not c.startswith("Z")}
    elif kind == "currency":
        found = {c: n for c, n in data.currencies.items() if "(" not in n and n != c}
    else:
        found = {c: str(v["long"]) for c, v in data.unit_display_names.items() if "long" in v}
    return {code: name for code, name in found.items() if len(name) > 2}


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

    wanted = {"en", "fr", "es", "ar", "pt"}
    found: dict[str, list[str]] = {}
    for territory, languages in get_global("territory_languages").items():
        official = sorted(
            code
            for code, facts in languages.items()
            if facts["official_status"] in ("official", "de_facto_official") and code in wanted
        )
        if official and territory in names("en", "territory"):
            found[territory] = official
    return found


def currencies() -> Mapping[str, str]:
    """Currency of each territory that has exactly one today."""
    from babel.core import get_global

    known = names("en", "currency")
    found = {}
    for territory, rows in get_global("territory_currencies").items():
        current = [code for code, _, until, tender in rows if until is None and tender]
        if len(current) == 1 and current[0] in known and territory in names("en", "territory"):
            found[territory] = current[0]
    return found


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
    chosen = sample(pool, n, key="/".join, salt="bitext")
    subsets = {}
    for language in BITEXT:
        rows = [(names("en", kind)[code], names(language, kind)[code]) for kind, code in chosen]
        unique = {right: (left, right) for left, right in rows}
        subsets[f"en-{language}"] = {
            "test": {
                "sentence1": [p[0] for p in unique.values()],
                "sentence2": [p[1] for p in unique.values()],
            }
        }
    return Columns(subsets)


def _labelled(rows: list[tuple[str, int]], train: int, test: int, salt: str) -> Columns:
    """Split labelled texts into train and test, the same number per label, no text twice."""
    split: dict[str, dict[str, list]] = {s: {"text": [], "label": []} for s in ("train", "test")}
    seen: set[str] = set()
    for label in sorted({label for _, label in rows}):
        texts = []
        for text, _ in sample([r for r in rows if r[1] == label], len(rows), key=lambda r: r[0], salt=salt):
            if text.casefold() not in seen:
                seen.add(text.casefold())
                texts.append(text)
        for name, part in (("train", texts[:train]), ("test", texts[train : train + test])):
            split[name]["text"] += part
            split[name]["label"] += [label] * len(part)
    return Columns({"default": split})


def kind_classification(n: int) -> Columns:
    """What does a name name: a place, a language, a currency, a script or a unit (``n`` tests each)."""
    rows = []
    for label, kind in enumerate(("territory", "language", "currency", "script", "unit")):
        rows += [(_in_some_language(code, kind, "kind"), label) for code in names("en", kind)]
    return _labelled(rows, train=min(n, 12), test=n, salt="kind")


def language_classification(n: int) -> Columns:
    """Which language is a name written in (names that two languages share are left out)."""
    owners: dict[str, set[str]] = defaultdict(set)
    for language in LANGUAGES:
        for kind in ("territory", "language", "currency", "unit"):
            for name in names(language, kind).values():
                owners[name.casefold()].add(language)
    rows = []
    for label, language in enumerate(LANGUAGES):
        for kind in ("currency", "unit", "territory"):
            rows += [(t, label) for t in names(language, kind).values() if len(owners[t.casefold()]) == 1]
    return _labelled(rows, train=min(n, 10), test=n, salt="language")


def official_multilabel(n: int) -> Columns:
    """Official languages of a place, from its name in one of six languages."""
    gold = official_languages()
    order = sorted({language for values in gold.values() for language in values})
    chosen = sample(gold, 2 * n, key=str, salt="official")
    split: dict[str, dict[str, list]] = {s: {"text": [], "label": []} for s in ("train", "test")}
    for i, code in enumerate(chosen):
        part = split["train" if i % 2 else "test"]
        part["text"].append(_in_some_language(code, "territory", "official"))
        part["label"].append([order.index(language) for language in gold[code]])
    return Columns({"default": split})


def continent_clustering(n: int) -> Columns:
    """Places, each named in one of six languages, to be grouped by continent."""
    gold = continents()
    chosen = sample(gold, n, key=str, salt="continent")
    texts = [_in_some_language(code, "territory", "continent") for code in chosen]
    return Columns({"default": {"test": {"sentences": texts, "labels": [gold[c] for c in chosen]}}})


def currency_retrieval(n: int) -> Corpus:
    """From a place named in one of six languages to the English name of its currency."""
    gold = currencies()
    english = names("en", "currency")
    chosen = sample(gold, n, key=str, salt="currency")
    codes = sorted(set(gold.values()))
    if n < 50:  # the tiny suite also needs a tiny corpus
        codes = sorted({gold[c] for c in chosen} | set(codes[:n]))
    return Corpus(
        queries={f"q-{c}": _in_some_language(c, "territory", "currency") for c in chosen},
        documents={code: english[code] for code in codes},
        relevant={f"q-{c}": {gold[c]: 1} for c in chosen},
    )


_CODES = tuple(LANGUAGES[language] for language in MIXED)

SPECS = (
    TaskSpec(
        name="CLDRBitextMining",
        type="BitextMining",
        build=bitext,
        n=24,
        smoke_n=6,
        main_score="f1",
        description="Find the translation of an English name of a place, language, currency or unit.",
        source="Babel (CLDR names), nine languages",
        gold="both names belong to the same CLDR code",
        weakness="names, not sentences; many are cognates, so spelling alone goes a long way",
        license=LICENSE,
        languages={f"en-{k}": ("eng-Latn", LANGUAGES[k]) for k in BITEXT},
        domains=("Encyclopaedic", "Written"),
        packages=("babel",),
    ),
    TaskSpec(
        name="CLDRKindClassification",
        type="Classification",
        build=kind_classification,
        n=16,
        smoke_n=3,
        main_score="accuracy",
        description="Tell names of places, languages, currencies, scripts and units apart, in six languages.",
        source="Babel (CLDR names), six languages mixed",
        gold="the CLDR table that the name stands in",
        weakness="surface cues (units, the word 'dollar') solve a part",
        license=LICENSE,
        languages=_CODES,
        domains=("Encyclopaedic", "Written"),
        subtypes=("Topic classification",),
        packages=("babel",),
        options={"n_experiments": 5, "samples_per_label": 8},
    ),
    TaskSpec(
        name="CLDRLanguageClassification",
        type="Classification",
        build=language_classification,
        n=8,
        smoke_n=3,
        main_score="accuracy",
        description="Tell in which of twelve languages a name is written.",
        source="Babel (CLDR names), twelve languages",
        gold="the CLDR locale of the name; names shared by two languages are left out",
        weakness="rewards keeping languages apart, which is the opposite of what bitext mining rewards",
        license=LICENSE,
        languages=tuple(LANGUAGES.values()),
        domains=("Encyclopaedic", "Written"),
        subtypes=("Language identification",),
        packages=("babel",),
        options={"n_experiments": 5, "samples_per_label": 8},
    ),
    TaskSpec(
        name="CLDROfficialLanguages",
        type="MultilabelClassification",
        build=official_multilabel,
        n=64,
        smoke_n=16,
        main_score="f1",
        description="Tell which of five world languages are official in a place, from its name.",
        source="Babel (CLDR territory data), six languages mixed",
        gold="CLDR's official and de facto official languages",
        weakness="knowledge about the world more than meaning of text",
        license=LICENSE,
        languages=_CODES,
        domains=("Encyclopaedic", "Written"),
        packages=("babel",),
        options={"n_experiments": 5, "samples_per_label": 8},
    ),
    TaskSpec(
        name="CLDRContinentClustering",
        type="Clustering",
        build=continent_clustering,
        n=120,
        smoke_n=20,
        main_score="v_measure",
        description="Group places, each named in one of six languages, by continent.",
        source="Babel (CLDR names and time zones), six languages mixed",
        gold="the area in the place's time zone names, where it is the same in all of them",
        weakness="'America' is both Americas; the language of the name competes with the place",
        license=LICENSE,
        languages=_CODES,
        domains=("Encyclopaedic", "Written"),
        subtypes=("Thematic clustering",),
        packages=("babel",),
    ),
    TaskSpec(
        name="CLDRCurrencyRetrieval",
        type="Retrieval",
        build=currency_retrieval,
        n=100,
        smoke_n=12,
        main_score="ndcg_at_10",
        description="Find the currency (English name) of a place named in one of six languages.",
        source="Babel (CLDR names and currency data)",
        gold="the one currency that is legal tender there today",
        weakness="places with the same currency share a document; adjectives give some away",
        license=LICENSE,
        languages=_CODES,
        domains=("Encyclopaedic", "Financial", "Written"),
        subtypes=("Question answering",),
        packages=("babel",),
    ),
)
