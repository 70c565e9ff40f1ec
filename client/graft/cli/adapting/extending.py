"""What `graft adapt` goes on from: the live version, another one, or nothing; and what it says of that."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from graft._client.sync import Client
from graft._data_files.columns import DataError
from graft._records.adapting.told import AdaptResult
from graft._records.extensions import Extension
from graft._records.records import Model, Version
from graft._streams.extending import FEWER
from graft.cli.reading import Known
from graft.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from graft.cli.showing.terminal import Terminal

T = TypeVar("T")

_ATTEMPTS: Final = 3
_LIVE: Final = "live"
_NONE: Final = "none"
_TASKS: Final = {
    "single_label": "one label an input",
    "multi_label": "sets of labels",
    "regression": "numbers",
}


@dataclass(frozen=True, slots=True)
class Ground:
    """What an adaptation goes on from."""

    base: Version | None = None
    """The version; None: nothing, or what an adaptation that is resumed began with."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of `adapt` and `check` that say so."""
    implied: bool = False
    """Whether nobody named the version: it is the live one of a model that exists."""

    @property
    def task(self) -> str:
        """The task of the version, in the words of the arguments; "" if there is none."""
        return self.base.task.replace("_", "-") if self.base else ""

    @property
    def said(self) -> str:
        """What is gone on from, in words; "" if nothing is."""
        if self.base is None:
            return ""
        return f"extends version {self.base.version} of {self.base.model}: {_count(_examples(self.base))}"

    @property
    def known(self) -> Known:
        """What the version tells of the rows."""
        labels = self.base.labels if self.base is not None else ()
        return Known(self.task, tuple(label.name for label in labels))

    def require_task(self, task: str, data: str) -> None:
        """Raises DataError where rows are for another task than the version's."""
        task = task.replace("-", "_")
        if self.base is None or not task or task == self.base.task:
            return
        raise DataError(
            f"{self.base.model} answers with {_TASKS[self.base.task]} (version {self.base.version}), but {data} is "
            f"read as rows with {_TASKS.get(task, task)}: read it as the first file was (--label, --label-separator, "
            "--labels-from, --value, --task), or say --replace for a model of these rows alone"
        )


def add_ground(parser: argparse._ArgumentGroup) -> None:
    """Adds what to go on from."""
    ground = parser.add_mutually_exclusive_group()
    ground.add_argument(
        "--replace",
        action="store_true",
        help="train on these rows alone; a terminal is asked first; default: where the model has a live version, train "
        "on its examples too: a row with the id of one, or without an id and with the same input, is that example, and "
        "corrects it where they differ",
    )
    ground.add_argument(
        "--base-version",
        type=_base,
        metavar="N|live|none",
        help="train on the examples of this version too, or on none, as --replace does without a question; "
        "default: live, if there is one",
    )


def ground_of(
    args: argparse.Namespace, client: Client, terminal: Terminal, *, resumed: bool, asks: bool = True
) -> Ground:
    """Returns what to go on from, as the arguments and the server tell.

    Args:
        args: The arguments of `graft adapt`.
        client: Where the model is.
        terminal: Where a person is asked whether examples are to be replaced.
        resumed: Whether the adaptation's id was given, so that it may have begun.
        asks: Whether a person is asked.

    Raises:
        DataError: The person says no; or the version is of another backbone than asked for, or is not live.
        NotFoundError: There is no such version.
    """
    wanted = _NONE if args.replace else args.base_version or ""
    if resumed and not wanted:
        with suppress(NotFoundError):
            _waited(lambda: client.adaptation(args.model, args.adaptation_id))
            return Ground(arguments={"extend": True})
    model = _model(client, args.model)
    if wanted == _NONE or (not wanted and model is None):
        live = client.version(args.model) if model is not None and _LIVE in model.aliases else None
        if live is not None and args.replace and asks:
            _ask(live, terminal)
        FEWER.disabled = True  # it was asked for
        return Ground()
    if not wanted and model is not None and _LIVE not in model.aliases:
        raise DataError(
            f"{args.model} has versions, but none of them is live: name one to go on from with --base-version N, or "
            "say --replace"
        )
    if wanted and wanted != _LIVE:
        base = client.version(args.model, int(wanted))
        ground = Ground(base, {"base_version": base.version, "match_content": True})
    else:
        base = client.version(args.model)
        ground = Ground(base, {"base_alias": _LIVE, "match_content": True}, implied=not wanted)
    _require_backbone(args, ground, base)
    return ground


def say_extension(result: AdaptResult, ground: Ground, terminal: Terminal) -> None:
    """Says what came of the rows beside the examples of the version that was gone on from."""
    extension = result.extension
    if extension is None:
        return
    if not result.nothing_new:
        terminal.line(f"extends {extension}")
        return
    again = _again(extension)
    if ground.base is not None and ground.base.aliases and _LIVE not in ground.base.aliases:
        again += f"; it is not live: 'graft promote {result.model} {result.version}' makes it so"
    terminal.line(f"nothing new: version {result.version} stays: {again}")


def say_meanwhile(result: AdaptResult, terminal: Terminal) -> None:
    """Says which versions others published meanwhile, whose examples the version does not have."""
    if result.meanwhile and result.extension is not None:
        *_, newest = result.meanwhile
        terminal.remark(
            f"version {result.version} extends version {result.extension.base_version}, and others published "
            f"{', '.join(map(str, result.meanwhile))} meanwhile: it does not have the examples that they added; the "
            f"same command with --base-version {newest} makes a version of both"
        )


def foreseen(extension: Extension) -> str:
    """What a check says would come of the rows."""
    if extension.nothing_new:
        return f"nothing would be new: version {extension.base_version} would stay: {_again(extension)}"
    return f"would extend {extension}"


def _again(extension: Extension) -> str:
    return f"{_count(extension.base_examples)}, {extension.unchanged:,} that were there already"


def _base(text: str) -> str:
    """Reads what is gone on from: a version's number, "live" or "none"."""
    if text in (_LIVE, _NONE):
        return text
    if text == "0":
        return _NONE
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a version's number nor live nor none")
    return text.lstrip("0") or _NONE


def _model(client: Client, name: str) -> Model | None:
    """The model, if it has a version."""
    with suppress(NotFoundError):
        model = _waited(lambda: client.model(name))
        return model if model.versions else None
    return None


def _waited(call: Callable[[], T]) -> T:
    """Waits for a server that is restarted, as an adaptation does: each attempt takes a few seconds."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(UnavailableError):
            return call()
    return call()


def _ask(live: Version, terminal: Terminal) -> None:
    answer = terminal.ask(
        f"{_count(_examples(live))} of version {live.version} will not be in the new version. Go on without them? "
        "[y/N] "
    )
    if answer is not None and answer[:1].lower() != "y":
        raise DataError(
            "nothing was sent, because the answer was no; without --replace the rows extend the version"
        )


def _require_backbone(args: argparse.Namespace, ground: Ground, base: Version) -> None:
    if not ground.implied or not args.backbone or args.backbone == base.report.backbone:
        return
    raise DataError(
        f"version {base.version} of {base.model} is on the backbone {base.report.backbone}, and --backbone is "
        f"{args.backbone}: leave it away to extend the version; say --replace to start anew on {args.backbone}, or "
        f"--base-version {base.version} to take its examples there"
    )


def _examples(version: Version) -> int:
    """How many examples a version has, those without a target too."""
    if (extension := version.extension) is not None:
        return extension.examples
    report = version.report
    unlabelled = report.data.unlabelled_examples if report.data is not None else 0
    return report.examples + report.validation_examples + unlabelled


def _count(examples: int) -> str:
    return f"{examples:,} example{'' if examples == 1 else 's'}"
