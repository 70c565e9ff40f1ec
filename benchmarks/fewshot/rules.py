"""Labels by rule, for what a sentence does rather than what it is about. None: not clear, so the sentence is left out.

Each rule looks at whole words and wants the signs of exactly one class, so that a label is as good as the words are.
The words stay in the sentences: what is measured is whether a handful of examples is enough to make features of
sentences, which say what they are about, tell this apart.
"""

from __future__ import annotations

import re

_OPENING = re.compile(r"^(?:(?:hey|hi|hello|ok|okay|so|and|but|well|also|um|now|please|yes|no|oh)[\s,.!]+)+")
_ASKED = re.compile(r"\b(what|which|whats|how|when|where|why|who)\b")
_KINDS = (
    ("how much or how many", r"how (?:much|many|long|far|often|old|high|big|fast|late)\b"),
    ("how to", r"how (?:do|does|did|can|could|should|would|to|is|are|will|am)\b"),
    (
        "what",
        r"(?:what(?:'s| is| are| was| were|s| do| does| did| would| should| can| will| kinds?)|which)\b",
    ),
    ("when", r"when (?:is|are|was|were|do|does|did|can|could|will|would|should|am)\b"),
    ("where", r"where\b"),
    ("why", r"why\b"),
    ("yes or no", r"(?:can i|could i|may i|do|does|did|is|are|was|were|am|has|have|will|should|would)\b"),
)
_VERBS = (
    "tell|show|give|set|find|get|make|play|add|remove|change|turn|call|book|schedule|order|let|help|transfer|check|"
    "put|start|stop|cancel|read|send|look|explain|update|list|delete|pay|move|remind|switch|use|track|calculate|"
    "convert|translate|reserve|report|freeze|block|increase|name|take|create|clear|pause|connect|sync"
)
_WAYS = (
    ("request", r"(?:can|could|would|will|might) you\b"),
    (
        "need",
        r"i(?:'d| would)? (?:need|want|like|wanna|must|have to|gotta)\b|i(?: am|'m) (?:looking|trying) ",
    ),
    ("command", rf"(?:{_VERBS})\b"),
    ("question", r"(?:what|which|how|when|where|why|who|is|are|do|does|did|am|was|will|has|have)\b"),
    (
        "statement",
        r"(?:my|the|there|this|it|i (?:lost|think|see|just|was|got|am|noticed|still|don't|did|made|forgot))\b",
    ),
)
_PAST = re.compile(
    r"\b(was|were|wasn't|weren't|did|didn't|had|hadn't|went|got|said|thought|made|saw|knew|felt|took|came|gave|found|"
    r"told|used to|tried|wanted|loved|looked|seemed|happened|started|lost|left|won|ran|watched|turned|worked)\b"
)
_PRESENT = re.compile(
    r"\b(is|are|am|isn't|aren't|do|does|don't|doesn't|has|have|hasn't|haven't|it's|that's|he's|she's|i'm|you're|"
    r"we're|they're|there's|feels|looks|seems|makes|means|gets|goes|needs|wants|knows|think|love|hate|want|need)\b"
)
_FUTURE = re.compile(
    r"\b(will|won't|gonna|going to|shall|i'll|you'll|he'll|she'll|it'll|we'll|they'll|that'll)\b"
)
_HEDGED = re.compile(r"\b(would|could|should|might|may|can|can't|couldn't|wouldn't|if)\b|'d\b")
_PERSONS = (
    ("of oneself", re.compile(r"\b(i|me|my|mine|myself|i'm|i've|i'd|i'll)\b")),
    ("to the reader", re.compile(r"\b(you|your|yours|yourself|you're|you've|you'd|you'll|u|ur)\b")),
    (
        "of others",
        re.compile(r"\b(he|she|him|her|his|hers|they|them|their|he's|she's|they're|himself|herself)\b"),
    ),
)
_OF_US = re.compile(r"\b(we|us|our|ours|we're|we've|we'd|we'll|let's)\b")
_AMOUNTS = re.compile(
    r"\d|[$£€]|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|"
    r"hundred|thousand|million|first|second|third|fourth|fifth|monday|tuesday|wednesday|thursday|friday|saturday|sunday|"
    r"january|february|march|april|june|july|august|september|october|november|december|noon|midnight|tomorrow|"
    r"yesterday|tonight)\b"
)
_DENIED = re.compile(r"\b(not|never|no|nothing|nobody|none|neither|nor|without|cannot|hardly|lacks?)\b|n't\b")


def form(text: str) -> str | None:
    """The kind of question."""
    said = _plain(text)
    if len(_ASKED.findall(said)) > 1:
        return None
    found = [name for name, start in _KINDS if re.match(start, said)]
    if not found or (found[0] == "yes or no" and _ASKED.search(said)):
        return None
    return found[0]


def way(text: str) -> str | None:
    """How something is asked for: by a request, a need, a command, a question or a statement."""
    found = [name for name, start in _WAYS if re.match(start, _plain(text))]
    return found[0] if len(found) == 1 else None


def tense(text: str) -> str | None:
    """Past, present or future, in which all of it is told."""
    said = _plain(text)
    if _HEDGED.search(said):
        return None
    signs = {"past": _PAST, "present": _PRESENT, "future": _FUTURE}
    found = [name for name, sign in signs.items() if sign.search(said)]
    if found == ["present"] and re.search(r"\b\w+ed\b", said):
        return None
    return found[0] if len(found) == 1 else None


def person(text: str) -> str | None:
    """Of whom a comment speaks."""
    said = _plain(text)
    found = [name for name, sign in _PERSONS if sign.search(said)]
    return found[0] if len(found) == 1 and not _OF_US.search(said) else None


def specific(text: str) -> str | None:
    """Whether a request names an amount, a date or a time."""
    return "specific" if _AMOUNTS.search(_plain(text)) else "unspecific"


def denied(text: str) -> str | None:
    """Whether a sentence denies something: once, or not at all."""
    found = len(_DENIED.findall(_plain(text)))
    return None if found > 1 else "negated" if found else "affirmed"


def _plain(text: str) -> str:
    return _OPENING.sub("", " ".join(text.casefold().replace("’", "'").split()))
