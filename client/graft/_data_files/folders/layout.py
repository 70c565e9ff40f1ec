"""How a folder of images or clips is laid out: folders of classes, splits above or below them, and what is no input.

Layouts that occur: CLASS/…, train/CLASS/… beside val/CLASS/… (torchvision, fastai, Keras), training_set/CLASS/… or
seg_train/seg_train/CLASS/… (Kaggle), CLASS/train/…, and any of these within one folder more, as archives are unpacked.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from graft._data_files.columns import DataError
from graft._records.inputs.media import ENDINGS, kind_of

_SPLITS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_AFFIXED: Final = re.compile(rf"(.*[\W_])?({'|'.join(_SPLITS)})([\W_].*)?")
"""The name of a split with others before or behind it: train_images, training_set, seg_test."""
_NOISE: Final = re.compile(
    r"\..*|__macosx|__pycache__|@eadir|#recycle|\$recycle\.bin|system volume information|lost\+found"
    r"|thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|synofile_thumb.*",
    re.IGNORECASE | re.DOTALL,
)
"""What systems and programs put into folders: the leftovers of macOS, Windows, network storage and Python."""
_NOTES: Final = frozenset(
    (".txt", ".md", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".log", ".ini", ".cfg", ".py")
)
"""What people keep beside images and clips, and do not mean as inputs."""
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be an image or a clip."""

    path: Path
    label: str
    split: str
    """ "train", "validation", or empty."""


@dataclass(slots=True)
class Layout:
    """The files of a folder by class, and what was left out."""

    folder: Path
    root: Path
    """Where the folders of classes, or of splits, are."""
    files: list[Found] = field(default_factory=list)
    unread: dict[str, Counter[str]] = field(default_factory=dict)
    """Class to endings of files that are not read, with how many."""
    loose: int = 0
    """Files beside the folders of classes."""
    test: Path | None = None
    """The folder of a test split, which is left out."""
    tested: int = 0
    """How many files it has."""
    aside: list[tuple[str, int]] = field(default_factory=list)
    """Folders beside those of splits, with how many files they have."""

    @classmethod
    def of(cls, folder: Path) -> Layout:
        """Reads a folder's names.

        Raises:
            DataError: It has folders of splits without folders of classes in them.
        """
        root = _unwrapped(folder)
        layout = cls(folder, root)
        splits, below = _splits(root), _splits_below(root)
        layout.loose = sum(_is_input(it) for it in _entries(root) if not it.is_dir())
        for of_top in _folders(root):
            split = splits.get(of_top, "")
            if not splits:
                layout._add_class(of_top, below=below)
            elif split in ("", "test"):
                layout._leave_out(of_top, split)
            else:
                layout._add_split(of_top, split)
        return layout

    def _leave_out(self, folder: Path, split: str) -> None:
        count = sum(map(_is_input, _walk(folder)))
        if split:
            self.test, self.tested = folder, self.tested + count
        elif count:
            self.aside.append((folder.name, count))

    def _add_split(self, folder: Path, split: str) -> None:
        inner = _inner(folder)
        classes = _folders(inner)
        if not classes and any(map(_is_input, _walk(folder))):
            raise DataError(
                f"{folder}: it is named as a split is, but holds files rather than a folder for each class: put them "
                f"into {folder.name}/CLASS/. If {folder.name} is a class, give it another name, such as "
                f"{folder.name}_."
            )
        self.loose += sum(_is_input(it) for it in _entries(inner) if not it.is_dir())
        for of_class in classes:
            self._add(_walk(of_class), _label(of_class), split)

    def _add_class(self, folder: Path, *, below: bool) -> None:
        label = _label(folder)
        if not below:
            self._add(_walk(folder), label, "")
            return
        for of_split in _folders(folder):
            split = _split_of(of_split)
            if split == "test":
                self._leave_out(of_split, split)
            else:
                self._add(_walk(of_split), label, split)

    def _add(self, files: Iterator[Path], label: str, split: str) -> None:
        for path in files:
            if _is_input(path):
                self.files.append(Found(path, label, split))
            else:
                ending = path.suffix.lower() or "no ending"
                self.unread.setdefault(label, Counter())[ending] += 1

    def losses(self) -> tuple[str, ...]:
        """Says, in a sentence each, which images or clips are not used, and why."""
        said = []
        taken = {it.label for it in self.files}
        if lost := sorted(label for label in self.unread if label not in taken):
            names = ", ".join(f"{it} ({_counts(self.unread[it])})" for it in lost[:_NAMED])
            more = f" and {len(lost) - _NAMED:,} more" if len(lost) > _NAMED else ""
            said.append(f"No file of {_plural(len(lost), 'class', 'classes')} is read: {names}{more}.")
        unread = {label: _without(endings, _NOTES) for label, endings in self.unread.items()}
        if any(unread.values()):
            said.append(_said_unread(unread))
        if self.test is not None:
            said.append(
                f"{_plural(self.tested, 'file')} of the split {self.test.name} {_are(self.tested)} left out, so that "
                f"the version can be measured on them: graft evaluate MODEL {self.test}"
            )
        said += [
            f"The folder {name} ({_plural(count, 'file')}) is left out: it is none of the splits beside it."
            for name, count in self.aside[:_NAMED]
        ]
        return tuple(said)

    def remarks(self) -> tuple[str, ...]:
        """Says, in a sentence each, what else was understood or passed over."""
        said = []
        if self.root != self.folder:
            inner = self.root.relative_to(self.folder).as_posix()
            said.append(f"The classes are the folders in {inner}, the only folder there is.")
        if self.loose:
            said.append(
                f"{_plural(self.loose, 'file')} beside the folders of classes {_are(self.loose)} left out: a file "
                "needs a class."
            )
        notes: Counter[str] = sum(self.unread.values(), Counter())
        notes -= _without(notes, _NOTES)
        if total := notes.total():
            said.append(f"{_plural(total, 'file')} of text {_are(total)} passed over: {_counts(notes)}.")
        return tuple(said)


def _said_unread(unread: Mapping[str, Counter[str]]) -> str:
    endings: Counter[str] = sum(unread.values(), Counter())
    parts = []
    for ending, count in endings.most_common(_NAMED):
        of_class = Counter({label: found[ending] for label, found in unread.items() if found[ending]})
        named = ", ".join(f"{label} {n:,}" for label, n in of_class.most_common(_NAMED))
        more = f" and {len(of_class) - _NAMED:,} more classes" if len(of_class) > _NAMED else ""
        parts.append(f"{count:,} {ending} ({named}{more})")
    others = sum(n for _, n in endings.most_common()[_NAMED:])
    rest = f", and {others:,} of other endings" if others else ""
    total = endings.total()
    return (
        f"{_plural(total, 'file')} {_are(total)} left out: neither the ending nor the content is of a format that is "
        f"read: {', '.join(parts)}{rest}. JPEG, PNG, WebP, GIF, WAV, FLAC, OGG and MP3 are."
    )


def _without(endings: Counter[str], others: frozenset[str]) -> Counter[str]:
    return Counter({ending: count for ending, count in endings.items() if ending not in others})


def _unwrapped(folder: Path) -> Path:
    """The folder of the classes: within a folder that is alone in this one and holds several folders of inputs."""
    if any(_is_input(it) for it in _entries(folder) if not it.is_dir()):
        return folder
    folders = _folders(folder)
    if len(folders) != 1:
        return folder
    inner = folders[0]
    classes = [it for it in _folders(inner) if any(map(_is_input, _walk(it)))]
    alone = not any(_is_input(it) for it in _entries(inner) if not it.is_dir())
    return inner if alone and (len(classes) > 1 or _splits(inner)) else folder


def _splits(folder: Path) -> dict[Path, str]:
    """The folders in a folder that are splits: all are named so, or some are and have folders of the same names."""
    folders = _folders(folder)
    named = {it: split for it in folders if (split := _split_of(it))}
    if len(named) == len(folders) > 1 or _have_same_classes(named):
        return named
    affixed: dict[tuple[str | None, str | None], dict[Path, str]] = {}
    for it in folders:
        if found := _AFFIXED.fullmatch(it.name.lower()):
            affixed.setdefault((found[1], found[3]), {})[it] = _SPLITS[found[2]]
    return next(filter(_have_same_classes, affixed.values()), {})


def _have_same_classes(splits: Mapping[Path, str]) -> bool:
    """Whether folders are different splits, and have folders of the same names in them."""
    classes = [{_label(it) for it in _folders(_inner(split))} for split in splits]
    return len(set(splits.values())) > 1 and bool(set.intersection(*classes))


def _inner(split: Path) -> Path:
    """The folder that holds the folders of classes: within a split also a folder of its name, as in train/train."""
    folders = _folders(split)
    return folders[0] if len(folders) == 1 and folders[0].name.lower() == split.name.lower() else split


def _splits_below(folder: Path) -> bool:
    """Whether each class has folders of splits: nothing but these, and everywhere one for training."""
    return all(_splits(it) for it in _folders(folder))


def _split_of(folder: Path) -> str:
    return _SPLITS.get(folder.name.lower(), "")


def _label(folder: Path) -> str:
    # macOS takes names apart into letters and accents; people and other files do not.
    return unicodedata.normalize("NFC", folder.name)


def _folders(folder: Path) -> list[Path]:
    return [it for it in _entries(folder) if it.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without what systems leave there."""
    try:
        return sorted(it for it in folder.iterdir() if not _NOISE.fullmatch(it.name))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from None


def _walk(folder: Path, above: Sequence[Path] = ()) -> Iterator[Path]:
    """Yields the files of a folder and of folders in it, sorted, also behind links; no folder within itself."""
    real = folder.resolve()
    if real in above:
        return
    for it in _entries(folder):
        if it.is_dir():
            yield from _walk(it, (*above, real))
        else:
            yield it


def _is_input(path: Path) -> bool:
    """Whether a file is an image or a clip by its name, or by its content under another name."""
    if path.suffix.lower() in ENDINGS:
        return True
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            return kind_of(file.read(16)) is not None
    except OSError:
        return False


def _counts(endings: Counter[str]) -> str:
    return ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(_NAMED))


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
