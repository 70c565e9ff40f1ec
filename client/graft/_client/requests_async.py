"""The asyncio client's unary calls."""

# Deadlines travel to the server, which drops what comes too late; asyncio.timeout would not tell it.
# ruff: noqa: ASYNC109

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Unpack

from graft._client import operations as ops
from graft._client import quoting
from graft._client.calls_async import AsyncCalls
from graft._client.given import GivenInputs
from graft._client.operations import PredictSettings, Selector
from graft._records.evaluation.probable_errors import ProbableError
from graft._records.evaluation.reports import Report
from graft._records.inputs.examples import Input
from graft._records.predicting.predictions import Predictions
from graft._records.records import Adaptation, Backbone, CancelledAdaptation, Model, Version
from graft._records.stored_examples import Erasure, StoredExample
from graft._tables.options import InputColumns, Inputs


class AsyncRequests:
    """The methods of a client that need no stream."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    async def predict(
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
        """Classifies inputs; one version answers all of them. See `Client.predict`."""
        settings = PredictSettings(model, Selector(version, alias, adaptation_id), top_k, include_features)
        given = GivenInputs(inputs, columns, "predict")
        return given.answered(await self._calls.run(ops.predict(settings, given), timeout))

    async def models(self, prefix: str = "", *, timeout: float | None = None) -> list[Model]:
        """Lists the models whose name starts with `prefix`, by name."""
        return await self._calls.run(ops.list_models(prefix), timeout)

    async def model(self, model: str, *, timeout: float | None = None) -> Model:
        """Describes one model."""
        return await self._calls.run(ops.get_model(model), timeout)

    async def versions(self, model: str, *, timeout: float | None = None) -> list[Version]:
        """Lists a model's versions, newest first. Their reports carry figures and warnings, no lists."""
        return await self._calls.run(ops.list_versions(model), timeout)

    async def version(
        self,
        model: str,
        version: int | None = None,
        *,
        alias: str | None = None,
        quotes: bool = False,
        timeout: float | None = None,
    ) -> Version:
        """Describes one version with its full report; without version and alias, the one that is live."""
        selector = Selector(version, alias)
        operation = quoting.get_quoted(model, selector) if quotes else ops.get_version(model, selector)
        return await self._calls.run(operation, timeout)

    async def report(
        self,
        model: str,
        version: int | None = None,
        *,
        alias: str | None = None,
        timeout: float | None = None,
    ) -> Report:
        """Returns a version's report with quotes of the examples that it names; see `Client.report`."""
        operation = quoting.get_quoted(model, Selector(version, alias))
        return (await self._calls.run(operation, timeout)).report

    async def probable_errors(
        self,
        model: str,
        version: int | None = None,
        *,
        alias: str | None = None,
        include_inputs: bool = True,
        timeout: float | None = None,
    ) -> list[ProbableError]:
        """Lists the examples whose label is worth a second look; see `Client.probable_errors`."""
        operation = quoting.get_probable_errors(
            model, Selector(version, alias), include_inputs=include_inputs
        )
        return await self._calls.run(operation, timeout)

    async def set_metadata(
        self, model: str, metadata: Mapping[str, str | None], *, timeout: float | None = None
    ) -> Model:
        """Sets pairs of a model's metadata; a pair whose value is None is removed, and others stay."""
        return await self._calls.run(ops.set_metadata(model, metadata), timeout)

    async def set_alias(
        self,
        model: str,
        alias: str,
        version: int | Literal["latest"],
        *,
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Model:
        """Points an alias at a version; version 0 removes it. See `Client.set_alias`."""
        return await self._calls.run(ops.set_alias(model, alias, version, expected_version), timeout)

    async def promote(
        self,
        model: str,
        version: int | Literal["latest"],
        *,
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Model:
        """Moves the alias "live" to a version, which `predict` then uses. It also rolls back; see `Client.promote`."""
        return await self.set_alias(
            model, "live", version, expected_version=expected_version, timeout=timeout
        )

    async def delete_version(self, model: str, version: int, *, timeout: float | None = None) -> None:
        """Deletes a version that no alias points at. Its number is never used again."""
        await self._calls.run(ops.delete_version(model, version), timeout)

    async def delete_model(self, model: str, *, timeout: float | None = None) -> None:
        """Deletes a model with all of its versions, adaptations and examples."""
        await self._calls.run(ops.delete_model(model), timeout)

    async def examples(
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
        """Lists stored examples; see `Client.examples`."""
        request = ops.examples_request(
            model,
            adaptation_id=adaptation_id,
            subject=subject,
            version=version,
            label=label,
            split=split,
            include_inputs=include_inputs,
        )
        return await self._calls.run(ops.list_examples(request, ids), timeout)

    async def delete_examples(
        self,
        model: str,
        *,
        ids: Iterable[str] = (),
        subject: str = "",
        delete_versions: bool = False,
        timeout: float | None = None,
    ) -> Erasure:
        """Erases examples for good; see `Client.delete_examples`."""
        operation = ops.delete_examples(model, ids, subject, delete_versions=delete_versions)
        return await self._calls.run(operation, timeout)

    async def backbones(self, *, timeout: float | None = None) -> list[Backbone]:
        """Lists the pre-trained models that this server can adapt."""
        return await self._calls.run(ops.list_backbones(), timeout)

    async def adaptation(self, model: str, adaptation_id: str, *, timeout: float | None = None) -> Adaptation:
        """Describes one adaptation and its publications."""
        return await self._calls.run(ops.get_adaptation(model, adaptation_id), timeout)

    async def adaptations(self, model: str, *, timeout: float | None = None) -> list[Adaptation]:
        """Lists a model's adaptations, newest first."""
        return await self._calls.run(ops.list_adaptations(model), timeout)

    async def cancel(
        self, model: str, adaptation_id: str, *, timeout: float | None = None
    ) -> CancelledAdaptation:
        """Stops an adaptation's work. Versions that it published stay; one that is over is left as it is."""
        return await self._calls.run(ops.cancel_adaptation(model, adaptation_id), timeout)

    async def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """Whether a service, or (empty) the whole server serves; see `Client.health`."""
        return await self._calls.run(ops.check_health(service), timeout)
