"""When the server commits by itself: a rule of what is stored, so that every server comes to the same answer.

A commit of its own is named by its place among the adaptation's commits. Two servers that find one due at the
same moment ask for the same name, and the store gives both the same commit; one that restarts finds what was
committed before, and goes on counting from there.
"""

from __future__ import annotations

from collections.abc import Mapping

from graft_server.domain.adaptation import Commit, PublishPolicy
from graft_server.store.adaptations.store import AdaptationStore

_AUTOMATIC = "auto:"
"""What the names of the server's own commits begin with. No client's id has a colon."""


def automatic_id(commits: Mapping[str, Commit]) -> str:
    """The name of the next commit, if the server makes it."""
    return f"{_AUTOMATIC}{len(commits) + 1}"


def already_published(store: AdaptationStore, commit_id: str) -> int:
    """The version that the server published by itself of the very changes that a commit asks for; 0: none."""
    wanted = _reaches(store.commits[commit_id])
    for known, outcome in reversed(list(store.outcomes.items())):
        if outcome.version and known.startswith(_AUTOMATIC) and _reaches(store.commits[known]) == wanted:
            return outcome.version
    return 0


def _reaches(commit: Commit) -> dict[str, int]:
    return {writer: end for writer, end in commit.watermarks.items() if end}


def changes_since(store: AdaptationStore, positions: Mapping[str, int]) -> int:
    """How many changes came in since the newest commit.

    Args:
        store: The adaptation.
        positions: Writer to the number below which its changes are durable.
    """
    committed: dict[str, int] = {}
    for commit in store.commits.values():
        for writer, end in commit.watermarks.items():
            committed[writer] = max(end, committed.get(writer, 0))
    return sum(max(end - committed.get(writer, 0), 0) for writer, end in positions.items())


def due_in_s(policy: PublishPolicy, changes: int, waited_s: float) -> float | None:
    """In how many seconds a commit is due, 0 or less: now; None: not before something changes.

    Args:
        policy: When to commit.
        changes: How many changes came in since the newest commit.
        waited_s: The seconds since the newest commit, or since the start: by a clock that nobody sets.
    """
    if not changes:
        return None
    if policy.every_examples and changes >= policy.every_examples:
        return 0.0
    if not policy.every_s:
        return None
    return policy.every_s - waited_s
