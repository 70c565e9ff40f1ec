"""An export over however many calls it takes, without any I/O of the network."""

from __future__ import annotations

from dataclasses import replace

from graft._client.bundle import BundleWriter
from graft._client.operations import Selector
from graft._transport.progress_timeout import Cursor, ProgressTimeout, keep_alive_s
from graft.v1 import model_pb2


class Export(Cursor):
    """Where an export is: what to ask for next, and for how long to wait."""

    def __init__(
        self,
        model: str,
        selector: Selector,
        writer: BundleWriter,
        *,
        connect_timeout_s: float,
        resume_timeout_s: float,
        timeout_s: float | None,
    ) -> None:
        """Begins one.

        Args:
            model: The model.
            selector: Which of its versions.
            writer: Where the pieces go.
            connect_timeout_s: How long an answer is waited for where no call lives.
            resume_timeout_s: How long the next piece is, or a word that the server is at work.
            timeout_s: How long the whole may take, in seconds; None: as long as it takes.
        """
        progress_timeout = ProgressTimeout(
            "piece of the bundle", connect_timeout_s=connect_timeout_s, resume_timeout_s=resume_timeout_s
        )
        super().__init__(progress_timeout, timeout_s)
        self._model = model
        self._selector = selector
        self._writer = writer
        self._keep_alive_s = keep_alive_s(resume_timeout_s)

    def request(self) -> model_pb2.ExportModelRequest:
        """What to ask for in the next call: the rest."""
        self._writer.begin()
        request = model_pb2.ExportModelRequest(
            model=self._model, received=self._writer.kept, **self._selector.fields()
        )
        request.keep_alive.FromNanoseconds(round(self._keep_alive_s * 1e9))
        return request

    def receive(self, message: model_pb2.ExportModelResponse) -> tuple[str, int] | None:
        """Takes in a message, and returns what to report: a file's path, or what is being done, and bytes so far.

        Raises:
            DataLossError: It does not fit what came before.
            OSError: It cannot be written.
        """
        self.progress_timeout.progressed()
        if message.HasField("activity"):
            return (message.activity.stage, self._writer.received) if message.activity.stage else None
        if message.version:
            # An alias may move, and the rest must be of the same version.
            self._selector = replace(self._selector, version=message.version, alias=None)
        self._writer.write(message)
        return message.path, self._writer.received
