"""Sets on which meaning is not topic, and as a contrast some on which it is. All from real sentences.

`load` gives a set by its name; `draw` the rows of a few-shot draw; `features` the frozen backbone's features. What
cannot be had here raises `UnavailableError` with the reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks import datasets
from benchmarks.datasets import few_shot
from benchmarks.fewshot import rules
from benchmarks.fewshot.sources import (
    Row,
    Source,
    UnavailableError,
    comments,
    intents_by_domain,
    joined,
    requests,
    snippets,
)
from benchmarks.heads.features import cached

__all__ = ["NAMES", "NOT_TOPIC", "TOPIC", "Set", "UnavailableError", "draw", "features", "load"]

MOST_TEST = 2_000
MOST_TRAIN = 4_000
"""Rows of a set that is made here: enough for 64 a class and 2,000 without labels beside them."""
LEAST_TEST = 1_000
LEAST_OF_CLASS = 64

EMOTIONS = ("admiration", "amusement", "anger", "curiosity", "disapproval", "gratitude", "love", "sadness")
DISPLEASED = ("anger", "annoyance", "disappointment", "disapproval")
# The groups that the data set's authors publish (Demszky et al., ACL 2020): by sentiment, and Ekman's emotions.
_SENTIMENT = {
    "positive": "admiration amusement approval caring desire excitement gratitude joy love optimism pride relief",
    "negative": (
        "anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse sadness"
    ),
    "ambiguous": "confusion curiosity realization surprise",
    "neutral": "neutral",
}
_EKMAN = {
    "anger": "anger annoyance disapproval",
    "disgust": "disgust",
    "fear": "fear nervousness",
    "joy": _SENTIMENT["positive"],
    "sadness": "disappointment embarrassment grief remorse sadness",
    "surprise": _SENTIMENT["ambiguous"],
}
_GROUP = {emotion: group for group, names in _SENTIMENT.items() for emotion in names.split()}
_BASIC = {emotion: group for group, names in _EKMAN.items() for emotion in names.split()}

Rule = Callable[[Row], str | None]


@dataclass(frozen=True, slots=True)
class Set:
    """A data set of single labels, its rows distinct and those to test on apart."""

    name: str
    texts: tuple[str, ...]
    labels: NDArray[np.int32]
    test_texts: tuple[str, ...]
    test_labels: NDArray[np.int32]
    label_names: tuple[str, ...]
    """Sorted; labels are indices into them."""
    about_topic: bool
    """Whether the label is what a text is about."""
    source: str
    licence: str


def draw(data: Set, per_class: int, seed: int) -> NDArray[np.int64]:
    """Rows of a few-shot draw: `per_class` of each class, by the rule for the labelled data of GRAFT_DATA."""
    return few_shot(data.labels, per_class, seed)


@cache
def load(name: str) -> Set:
    """A set by its name.

    Raises:
        KeyError: The name is none of NAMES.
        UnavailableError: Its sentences cannot be had here.
    """
    return _SETS[name](name)


def features(data: Set) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """The frozen default backbone's features of the rows and of the test rows: unit rows, (n, d) and (m, d); cached."""
    return (
        np.asarray(cached(f"fewshot-{data.name}-train", data.texts)["pooled"]),
        np.asarray(cached(f"fewshot-{data.name}-test", data.test_texts)["pooled"]),
    )


def _made(
    source: Callable[[], Source], rule: Rule, *, topic: bool = False, balanced: bool = False
) -> Callable[[str], Set]:
    """A set of the rows that a rule gives a label.

    Args:
        source: The sentences.
        rule: Gives the label; None leaves a row out.
        topic: Whether the label is what a text is about.
        balanced: Whether each label of the source is to have as many rows of one class as of another, so that what
            a text is about says nothing.
    """

    def of(name: str) -> Set:
        found = source()
        test = _labelled(found.test, rule, MOST_TEST, balanced=balanced, apart=frozenset())
        train = _labelled(
            found.train, rule, MOST_TRAIN, balanced=balanced, apart=frozenset(_key(it) for it, _ in test)
        )
        return _set(name, train, test, topic=topic, source=found.name, licence=found.licence)

    return of


def _published(data: Callable[[], datasets.Texts], source: str, licence: str) -> Callable[[str], Set]:
    def of(name: str) -> Set:
        try:
            found = data()
        except FileNotFoundError as error:
            raise UnavailableError(
                f"{error.filename} is not there: set GRAFT_DATA to the labelled data"
            ) from None
        test = _distinct(
            [(text, found.classes[it]) for text, it in zip(found.test, found.test_labels, strict=True)]
        )
        apart = {_key(text) for text, _ in test}
        rows = zip(found.train, found.train_labels, strict=True)
        train = _distinct([(text, found.classes[it]) for text, it in rows if _key(text) not in apart])
        return _set(name, train, test, topic=True, source=source, licence=licence)

    return of


def _labelled(
    rows: Sequence[Row], rule: Rule, most: int, *, balanced: bool, apart: frozenset[str]
) -> list[tuple[str, str]]:
    """Distinct rows with their labels, at most `most`, chosen at random with the same number of each class at most."""
    known = [(it, rule(it)) for it in rows]
    first = {_key(it.text): it for it, _ in reversed(known)}
    distinct = _distinct([(it.text, label) for it, label in known if label is not None])
    distinct = [it for it in distinct if _key(it[0]) not in apart]
    order = np.random.default_rng(0).permutation(len(distinct))
    shuffled = [distinct[it] for it in order]
    if balanced:
        strata: defaultdict[str, defaultdict[str, list[tuple[str, str]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for it in shuffled:
            strata[first[_key(it[0])].label][it[1]].append(it)
        classes = sorted({label for _, label in shuffled})
        shuffled = [
            it
            for _, of in sorted(strata.items())
            for label in classes
            for it in of[label][: min(len(of[name]) for name in classes)]
        ]
        shuffled = [shuffled[it] for it in np.random.default_rng(1).permutation(len(shuffled))]
    each = _fair(
        [sum(label == name for _, label in shuffled) for name in sorted({it[1] for it in shuffled})], most
    )
    left = dict(zip(sorted({it[1] for it in shuffled}), each, strict=True))
    kept = []
    for text, label in shuffled:
        if left[label]:
            left[label] -= 1
            kept.append((text, label))
    return kept


def _fair(counts: Sequence[int], most: int) -> list[int]:
    """How many of each class to keep so that it is `most` together at most: the larger ones are cut to one size."""
    if sum(counts) <= most:
        return list(counts)
    low, high = 0, max(counts)
    while high - low > 1:
        middle = (low + high) // 2
        if sum(min(it, middle) for it in counts) <= most:
            low = middle
        else:
            high = middle
    return [min(it, low) for it in counts]


def _distinct(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without copies, and without texts that carry different labels."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for text, label in rows:
        labels[_key(text)].add(label)
    first: dict[str, tuple[str, str]] = {}
    for text, label in rows:
        if len(labels[_key(text)]) == 1:
            first.setdefault(_key(text), (text, label))
    return list(first.values())


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _set(
    name: str,
    train: Sequence[tuple[str, str]],
    test: Sequence[tuple[str, str]],
    *,
    topic: bool,
    source: str,
    licence: str,
) -> Set:
    names = tuple(sorted({label for _, label in train}))
    index = {label: it for it, label in enumerate(names)}
    test = [it for it in test if it[1] in index]
    labels = np.array([index[label] for _, label in train], np.int32)
    smallest = int(np.bincount(labels).min())
    if len(test) < LEAST_TEST or (smallest < LEAST_OF_CLASS and not topic):
        raise ValueError(
            f"{name} has {len(test)} test rows, and {smallest} of its smallest class to learn from"
        )
    return Set(
        name,
        tuple(text for text, _ in train),
        labels,
        tuple(text for text, _ in test),
        np.array([index[label] for _, label in test], np.int32),
        names,
        topic,
        source,
        licence,
    )


def _in(names: Sequence[str]) -> Rule:
    return lambda row: row.label if row.label in names else None


def _by(groups: Mapping[str, str]) -> Rule:
    return lambda row: groups.get(row.label)


def _said(rule: Callable[[str], str | None]) -> Rule:
    return lambda row: rule(row.text)


def _polarity(row: Row) -> str | None:
    """What twenty people agree on: what is near the middle is left out."""
    return "positive" if row.rating >= 1 else "negative" if row.rating <= -1 else None


def _thirds(row: Row) -> str | None:
    """What a tweet says of its author's mood, with gaps in between."""
    bounds = {"negative": (-4, -0.8), "neutral": (-0.3, 0.3), "positive": (1, 4)}
    return _between(row, bounds)


def _degree(row: Row) -> str | None:
    """How strongly somebody likes a film, with gaps in between."""
    bounds = {
        "terrible": (-4, -2),
        "weak": (-1.5, -0.6),
        "mixed": (-0.3, 0.3),
        "good": (0.6, 1.5),
        "excellent": (2, 4),
    }
    return _between(row, bounds)


def _between(row: Row, bounds: Mapping[str, tuple[float, float]]) -> str | None:
    return next((name for name, (low, high) in bounds.items() if low <= row.rating <= high), None)


def _talk() -> Source:
    return joined(comments(), snippets("tweets"))


def _opinions() -> Source:
    return joined(*(snippets(it) for it in ("movieReview", "amazonReview", "tweets")))


def _domains(name: str) -> Set:
    return _made(requests, _by(intents_by_domain()), topic=True)(name)


_SETS: Mapping[str, Callable[[str], Set]] = {
    # Emotion and tone, labelled by people.
    "emotions": _made(comments, _in(EMOTIONS)),
    "ekman": _made(comments, _by(_BASIC)),
    "sentiment": _made(comments, _by(_GROUP)),
    "displeasure": _made(comments, _in(DISPLEASED)),
    "films": _made(lambda: snippets("movieReview"), _polarity),
    "degrees": _made(lambda: snippets("movieReview"), _degree),
    "tweets": _made(lambda: snippets("tweets"), _thirds),
    # What a sentence does, labelled by rule.
    "questions": _made(requests, _said(rules.form)),
    "ways": _made(requests, _said(rules.way)),
    "specificity": _made(requests, _said(rules.specific), balanced=True),
    "tense": _made(_talk, _said(rules.tense)),
    "person": _made(comments, _said(rules.person), balanced=True),
    "negation": _made(_opinions, _said(rules.denied)),
    # Topics and intents, as a contrast.
    "banking77": _published(datasets.banking77, "Banking77", "CC BY 4.0"),
    "clinc150": _published(datasets.clinc150, "CLINC150", "CC BY 3.0"),
    "domains": _domains,
    "sms_spam": _published(datasets.sms_spam, "SMS Spam Collection", "free for all purposes"),
}
TOPIC = ("banking77", "clinc150", "domains", "sms_spam")
NOT_TOPIC = tuple(it for it in _SETS if it not in TOPIC)
NAMES = (*NOT_TOPIC, *TOPIC)
