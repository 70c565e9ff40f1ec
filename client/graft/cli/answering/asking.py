"""What `graft predict` asks: arguments, files, or lines of standard input, each of which gets an answer of its own."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from graft._data_files.columns import DataError
from graft._records.inputs.examples import Input, TextPair, sendable_input
from graft._records.predicting.predictions import Prediction
from graft.errors import GraftError, InvalidArgumentError

Asked: TypeAlias = "tuple[str, Input | GraftError]"
"""How an input is shown, and the input, or why it cannot be sent."""

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Questions:
    """Inputs on their way to the server. One that cannot be sent has its answer at once, in its place.

    Attributes:
        count: How many inputs were answered.
        errors: How many of them were answered with an error.
        first_error: The first of these errors.
    """

    def __init__(self, asked: Iterable[Asked]) -> None:
        self.count = 0
        self.errors = 0
        self.first_error: GraftError | None = None
        self._asked = asked
        self._waiting: deque[tuple[str, GraftError | None]] = deque()

    def inputs(self) -> Iterator[Input]:
        """Yields what can be sent."""
        for shown, value in self._asked:
            if isinstance(value, GraftError):
                self._waiting.append((shown, value))
            else:
                self._waiting.append((shown, None))
                yield value

    def answered(self, predictions: Iterable[Prediction]) -> Iterator[tuple[str, Prediction]]:
        """Yields how each input is shown, and its answer, in the order in which they were asked.

        Args:
            predictions: The answers for `inputs`, in order.
        """
        for prediction in predictions:
            yield from self._refused()
            shown, _ = self._waiting.popleft()
            yield shown, self._counted(prediction)
            yield from self._refused()
        yield from self._refused()

    def _refused(self) -> Iterator[tuple[str, Prediction]]:
        while self._waiting and (error := self._waiting[0][1]) is not None:
            shown, _ = self._waiting.popleft()
            yield shown, self._counted(_unanswered(error))

    def _counted(self, prediction: Prediction) -> Prediction:
        self.count += 1
        if prediction.error is not None:
            self.errors += 1
            self.first_error = self.first_error or prediction.error
        return prediction


def given_texts(texts: Iterable[str]) -> Iterator[Asked]:
    """Yields the texts of the command line."""
    return ((text, _sendable(text)) for text in texts)


def given_pairs(texts: list[str]) -> Iterator[Asked]:
    """Yields the texts of the command line two by two. Raises DataError where one is left over."""
    if len(texts) % 2:
        raise DataError(f"--pairs takes texts two by two, but {len(texts)} were given")
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return ((" | ".join(it), _sendable(TextPair(*it))) for it in pairs)


def given_files(names: Iterable[str]) -> Iterator[Asked]:
    """Yields the content of files, read when it is asked for."""
    return ((name, line_as_file(name)) for name in names)


def lines_of(source: BinaryIO, encoding: str, read: Callable[[str], Input | GraftError]) -> Iterator[Asked]:
    """Yields what the lines of a stream of text ask, blank ones too.

    Lines end with a line feed alone, so that there are as many as other programs see.

    Args:
        source: The stream.
        encoding: That of the text.
        read: Makes the input of a line, without its end.

    Raises:
        DataError: The stream is UTF-16, whose line ends are not found byte by byte.
    """
    for number, line in enumerate(source, 1):
        if number == 1 and line.startswith(_UTF_16):
            raise DataError("standard input is UTF-16; make it UTF-8, as iconv -f UTF-16 -t UTF-8 does")
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            message = f"line {number}: byte 0x{line[error.start]:02x} at {error.start} is not {encoding}"
            yield (
                line.decode(encoding, "replace").strip(),
                _refusal(f"{message}; save the text as {encoding}"),
            )
        else:
            text = (text.removeprefix("\ufeff") if number == 1 else text).rstrip("\r\n")
            yield text.strip(), read(text)


def line_as_text(line: str) -> Input | GraftError:
    """Returns the text of a line, without space around it."""
    return _sendable(line.strip())


def line_as_pair(line: str) -> Input | GraftError:
    """Returns the two texts of a line, which a tab separates."""
    texts = line.split("\t")
    if len(texts) != 2:
        return _refusal(f"the line has {len(texts) - 1} tabs; a pair is two texts with one tab between them")
    return _sendable(TextPair(*texts))


def line_as_file(line: str) -> Input | GraftError:
    """Returns the content of the file that a line names."""
    path = Path(line.strip())
    try:
        content = path.read_bytes()
    except OSError as error:
        return _refusal(f"{path} cannot be read: {error.strerror or error}")
    return _sendable(content)


def _sendable(value: Input) -> Input | GraftError:
    """Returns the input, or why it cannot be sent."""
    try:
        sendable_input(value)
    except ValueError as error:
        return _refusal(str(error))
    return value


def _refusal(message: str) -> GraftError:
    return InvalidArgumentError(message)


def _unanswered(error: GraftError) -> Prediction:
    return Prediction(
        scores=(), abstained=False, novelty=0.0, truncated=False, features=(), error=error, version=0
    )
