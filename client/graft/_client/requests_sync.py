"""The blocking client's unary calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Unpack

from graft._client import operations as ops
from graft._client import quoting
from graft._client.calls_sync import SyncCalls
from graft._client.given import GivenInputs
from graft._client.operations import PredictSettings, Selector
from graft._records.evaluation.probable_errors import ProbableError
from graft._records.evaluation.reports import Report
from graft._records.inputs.examples import (
    Input,
)
from graft._records.predicting.predictions import Predictions
from graft._records.records import Adaptation, Backbone, CancelledAdaptation, Model, Version
from graft._records.stored_examples import Erasure, StoredExample
from graft._tables.options import InputColumns, Inputs


class SyncRequests:
    """The methods of a client that need no stream."""

    def __init__(self, calls: SyncCalls) -> None:
        self._calls = calls

    def predict(
        self,
        model: str,
        inputs: Input | Inputs,
        *,
        version: int | None = None,
        alias: str | None = None,
        adaptation_id: str | None = None,
        top_k: int = 0,
        include_features: bool = False,
        timeout: float | None = None,
        **columns: Unpack[InputColumns],
    ) -> Predictions:
        """Classifies inputs; one version answers all of them.

        Args:
            model: The model's name.
            inputs: Texts, or other inputs, in an order: a list, a generator, an array or a Series; or one input; or a
                table: a data frame (pandas, polars), an Arrow table, a split of a data set, or rows as dicts. A
                NumPy array of numbers holds the features of one input, or of one in each row. Any number: they are
                sent in as many requests as it takes.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            adaptation_id: An open adaptation, whose interim head answers, with version 0.
            top_k: How many scores per input. 0: 5.
            include_features: Also return the backbone's features.
            timeout: Deadline of each request in seconds. None: the client's.
            columns: Of a table, the columns by name: input ("text", or the only column) or path, and second.

        Returns:
            One prediction per input, in order. An input that is missing, or that the server refuses, has its own
            `error` and spoils no other.

        Raises:
            DataError: A table has no such column.
            TypeError: The inputs have no order (a set), or iterating them gives something else than inputs (a dict, an
                open file); or one of them, which the message names by its index, is no input.
            ValueError: A text is not valid Unicode, or a file is neither an image nor a clip.
        """
        settings = PredictSettings(model, Selector(version, alias, adaptation_id), top_k, include_features)
        given = GivenInputs(inputs, columns, "predict")
        return given.answered(self._calls.run(ops.predict(settings, given), timeout))

    def models(self, prefix: str = "", *, timeout: float | None = None) -> list[Model]:
        """Lists the models whose name starts with `prefix`, by name."""
        return self._calls.run(ops.list_models(prefix), timeout)

    def model(self, model: str, *, timeout: float | None = None) -> Model:
        """Describes one model."""
        return self._calls.run(ops.get_model(model), timeout)

    def versions(self, model: str, *, timeout: float | None = None) -> list[Version]:
        """Lists a model's versions, newest first. Their reports carry figures and warnings, no lists."""
        return self._calls.run(ops.list_versions(model), timeout)

    def version(
        self,
        model: str,
        version: int | None = None,
        *,
        alias: str | None = None,
        quotes: bool = False,
        timeout: float | None = None,
    ) -> Version:
        """Describes one version with its full report; without version and alias, the one that is live.

        Args:
            model: The model.
            version: A version's number.
            alias: An alias.
            quotes: Whether its report has quotes of the examples that it names; see `report`.
            timeout: In seconds, of each request.
        """
        selector = Selector(version, alias)
        operation = quoting.get_quoted(model, selector) if quotes else ops.get_version(model, selector)
        return self._calls.run(operation, timeout)

    def report(
        self,
        model: str,
        version: int | None = None,
        *,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> Report:
        """Returns a version's report with quotes of the examples that it names.

        Args:
            model: The model.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            timeout: In seconds, of each request.

        Returns:
            The report; its `quotes` have the texts (or files) and origins of the examples. The stored report quotes
            nothing: where the examples were erased, or cannot be read, `quotes` says so.
        """
        return self._calls.run(quoting.get_quoted(model, Selector(version, alias)), timeout).report

    def probable_errors(
        self,
        model: str,
        version: int | None = None,
        *,
        alias: str | None = None,
        include_inputs: bool = True,
        timeout: float | None = None,
    ) -> list[ProbableError]:
        """Lists the examples whose label is worth a second look, least likely label first, at most 50.

        Correct or confirm them by `adapt` with `base_version`:

            errors = client.probable_errors("support/intents")
            fixes = [errors[0].corrected(), errors[1].kept(), errors[2].corrected("refund")]
            client.adapt("support/intents", fixes, base_version=3)

        Args:
            model: The model.
            version: A version's number. Neither version nor alias: the alias "live".
            alias: An alias.
            include_inputs: Whether to bring the inputs: without them an example can be neither corrected nor kept.
            timeout: In seconds, of each request.

        Returns:
            The examples, without those that were confirmed, or erased since.
        """
        operation = quoting.get_probable_errors(
            model, Selector(version, alias), include_inputs=include_inputs
        )
        return self._calls.run(operation, timeout)

    def set_metadata(
        self, model: str, metadata: Mapping[str, str | None], *, timeout: float | None = None
    ) -> Model:
        """Sets pairs of a model's metadata; a pair whose value is None is removed, and others stay.

        Args:
            model: The model's name.
            metadata: At most 32 pairs of texts in all. A key is 1 to 64 letters, digits, ".", "_", "/" and "-".
            timeout: Deadline in seconds. None: the client's.
        """
        return self._calls.run(ops.set_metadata(model, metadata), timeout)

    def set_alias(
        self,
        model: str,
        alias: str,
        version: int | Literal["latest"],
        *,
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Model:
        """Points an alias at a version; version 0 removes it.

        "live" is pinned where another version is the newest then: publications do not move it until it is pointed at
        the newest one. Other aliases never follow publications.

        Args:
            model: The model's name.
            alias: The alias.
            version: The version; "latest": the newest one.
            expected_version: Where the alias is believed to point now (0: nowhere). None: not checked.
            timeout: Deadline in seconds. None: the client's.

        Raises:
            AbortedError: The alias points elsewhere (reason ALIAS_MOVED).
        """
        return self._calls.run(ops.set_alias(model, alias, version, expected_version), timeout)

    def promote(
        self,
        model: str,
        version: int | Literal["latest"],
        *,
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Model:
        """Makes a version the one that `predict` uses: moves the alias "live". Rolls back, too.

        Another version than the newest is pinned: later publications do not go live until "latest", or the newest
        version's number, is promoted. `Model.live_pinned_time` says so.
        """
        return self.set_alias(model, "live", version, expected_version=expected_version, timeout=timeout)

    def delete_version(self, model: str, version: int, *, timeout: float | None = None) -> None:
        """Deletes a version that no alias points at. Its number is never used again."""
        self._calls.run(ops.delete_version(model, version), timeout)

    def delete_model(self, model: str, *, timeout: float | None = None) -> None:
        """Deletes a model with all of its versions, adaptations and examples."""
        self._calls.run(ops.delete_model(model), timeout)

    def examples(
        self,
        model: str,
        *,
        adaptation_id: str = "",
        subject: str = "",
        ids: Iterable[str] | None = None,
        version: int | None = None,
        label: str = "",
        split: str = "",
        include_inputs: bool = False,
        timeout: float | None = None,
    ) -> list[StoredExample]:
        """Lists what is stored of the examples that a model was taught with.

        Args:
            model: The model; it need not have a version.
            adaptation_id: Only those of this adaptation. Empty: of all.
            subject: Only those of this subject. Empty: of anybody.
            ids: Only those with these ids. None: any.
            version: Only what this version was trained or measured on, each example once, as it was then. None: all
                that is stored, replaced states too.
            label: Only those that carry this label. Empty: any.
            split: Only those of this split, "train" or "validation". Empty: any.
            include_inputs: Whether to bring the inputs, too.
            timeout: In seconds, of each request.

        Returns:
            The examples by adaptation, then writer, then sequence.
        """
        request = ops.examples_request(
            model,
            adaptation_id=adaptation_id,
            subject=subject,
            version=version,
            label=label,
            split=split,
            include_inputs=include_inputs,
        )
        return self._calls.run(ops.list_examples(request, ids), timeout)

    def delete_examples(
        self,
        model: str,
        *,
        ids: Iterable[str] = (),
        subject: str = "",
        delete_versions: bool = False,
        timeout: float | None = None,
    ) -> Erasure:
        """Erases examples for good, with their features, in all states that they ever had.

        Versions that may have been trained on them stay unless `delete_versions` is set. To go on without a
        pause, erase first, then adapt again with `base_version`, then call this again with `delete_versions`.

        Args:
            model: The model; it need not have a version.
            ids: The examples to erase.
            subject: Whose examples to erase, too.
            delete_versions: Whether to delete the versions that may have been trained on them.
            timeout: In seconds.
        """
        operation = ops.delete_examples(model, ids, subject, delete_versions=delete_versions)
        return self._calls.run(operation, timeout)

    def backbones(self, *, timeout: float | None = None) -> list[Backbone]:
        """Lists the pre-trained models that this server can adapt."""
        return self._calls.run(ops.list_backbones(), timeout)

    def adaptation(self, model: str, adaptation_id: str, *, timeout: float | None = None) -> Adaptation:
        """Describes one adaptation and its publications."""
        return self._calls.run(ops.get_adaptation(model, adaptation_id), timeout)

    def adaptations(self, model: str, *, timeout: float | None = None) -> list[Adaptation]:
        """Lists a model's adaptations, newest first."""
        return self._calls.run(ops.list_adaptations(model), timeout)

    def cancel(self, model: str, adaptation_id: str, *, timeout: float | None = None) -> CancelledAdaptation:
        """Stops an adaptation's work. Versions that it published stay; one that is over is left as it is."""
        return self._calls.run(ops.cancel_adaptation(model, adaptation_id), timeout)

    def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """Whether a service, for example "graft.v1.PredictionService", or (empty) the whole server serves.

        Returns:
            "serving", "not_serving" or "unknown".

        Raises:
            NotFoundError: There is no such service.
        """
        return self._calls.run(ops.check_health(service), timeout)
