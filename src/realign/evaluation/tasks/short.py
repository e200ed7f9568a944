"""Short texts with a label, and rated pairs: languages and intents (BIG-bench), news texts (gensim)."""

from __future__ import annotations

from itertools import combinations

from realign.evaluation.specs import Columns
from realign.evaluation.tasks.bigbench import Reader, examples, right
from realign.texts import archives
from realign.texts.archives import GENSIM
from realign.texts.copies import distinct
from realign.texts.splits import draw

# Names of language_identification and mteb's codes.
IDENTIFIED = {
    "Afrikaans": "afr-Latn", "Albanian": "sqi-Latn", "Arabic": "ara-Arab", "Basque": "eus-Latn", "Bulgarian": "bul-Cyrl",
    "Catalan": "cat-Latn", "Croatian": "hrv-Latn", "Czech": "ces-Latn", "Danish": "dan-Latn", "Dutch": "nld-Latn",
    "English": "eng-Latn", "Estonian": "est-Latn", "Finnish": "fin-Latn", "French": "fra-Latn", "German": "deu-Latn",
    "Greek": "ell-Grek", "Hebrew": "heb-Hebr", "Hungarian": "hun-Latn", "Icelandic": "isl-Latn", "Indonesian": "ind-Latn",
    "Italian": "ita-Latn", "Japanese": "jpn-Jpan", "Korean": "kor-Hang", "Latin": "lat-Latn", "Latvian": "lav-Latn",
    "Lithuanian": "lit-Latn", "Polish": "pol-Latn", "Romanian": "ron-Latn", "Russian": "rus-Cyrl", "Slovak": "slk-Latn",
    "Somali": "som-Latn", "Spanish": "spa-Latn", "Swahili": "swa-Latn", "Swedish": "swe-Latn", "Tagalog": "tgl-Latn",
    "Turkish": "tur-Latn", "Ukrainian": "ukr-Cyrl", "Vietnamese": "vie-Latn", "Welsh": "cym-Latn", "Zulu": "zul-Latn",
}  # fmt: skip
INTENTS = (
    "add_to_playlist", "book_restaurant", "get_weather", "play_music", "rate_book", "search_creative_work",
    "search_screening_event",
)  # fmt: skip


def _labelled(task: str, labels: tuple[str, ...], train: int, test: int, read: Reader) -> Columns:
    """Draw texts of each label for training and testing, no two of them near copies."""
    rows = [
        (example["input"].removeprefix("Utterance: "), right(example)[0]) for example in examples(task, read)
    ]
    columns: dict[str, dict[str, list]] = {s: {"text": [], "label": []} for s in ("train", "test")}
    for label, name in enumerate(labels):
        texts = distinct(draw({text for text, mine in rows if mine == name}, None, str, task), str)
        for split, part in (("test", texts[:test]), ("train", texts[test : test + train])):
            columns[split]["text"] += part
            columns[split]["label"] += [label] * len(part)
    return Columns({"default": columns})


def languages(n: int, read: Reader = archives.read) -> Columns:
    """Sentences in forty languages, five for training and ``n`` for testing of each."""
    return _labelled("language_identification", tuple(IDENTIFIED), 5, n, read)


def intents(n: int, read: Reader = archives.read) -> Columns:
    """Requests to an assistant with one of seven intents, sixteen for training and ``n`` for testing of each."""
    return _labelled("intent_recognition", INTENTS, 16, n, read)


def news(n: int, read: Reader = archives.read) -> Columns:
    """Pairs of ``n`` short news texts with the mean of people's ratings of how similar they are, in [0, 1]."""
    corpus, ratings = (read(GENSIM, member).decode("latin-1") for member in GENSIM.members)
    texts = [" ".join(line.split()) for line in corpus.splitlines() if line.strip()]
    table = [[float(rating) for rating in line.split()] for line in ratings.splitlines() if line.strip()]
    pairs = list(combinations(sorted(draw(range(len(texts)), n, lambda i: texts[i], "news")), 2))
    columns: dict[str, list] = {
        "sentence1": [texts[i] for i, _ in pairs],
        "sentence2": [texts[j] for _, j in pairs],
        "score": [table[i][j] for i, j in pairs],
    }
    return Columns({"default": {"test": columns}})
