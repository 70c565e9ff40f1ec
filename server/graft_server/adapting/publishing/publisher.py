"""From a commit to a served version: complete the features, train in a worker, enter it in the catalogue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from graft_server.adapting import announcing
from graft_server.adapting.intake.features import FeatureWriter
from graft_server.adapting.publishing.fine_tuning import Tuner, parts_of, plan_of
from graft_server.adapting.publishing.label_names import LabelNames
from graft_server.adapting.publishing.nothing_new import version_with_the_same
from graft_server.adapting.publishing.pace import Pace, Part, Speeds
from graft_server.backbones.tuning_contract import EXAMPLES_GONE
from graft_server.backbones.tunings import tuning_folder
from graft_server.domain.caller import behind
from graft_server.domain.errors import (
    ConflictError,
    DomainError,
    DrainingError,
    FaultError,
    StateError,
    StoreError,
)
from graft_server.domain.examples import Label
from graft_server.domain.extension import Extension
from graft_server.domain.method import Method
from graft_server.domain.model import Version
from graft_server.domain.report import Renewal, Report, summary_of
from graft_server.domain.stream import Progress
from graft_server.encoding.trunk import Trunk
from graft_server.jobs import job
from graft_server.jobs.job import Jobs
from graft_server.sharing.shielding import uncancelled
from graft_server.sharing.threads import Threads
from graft_server.store.adaptations.features import FEATURES_MISSING
from graft_server.store.adaptations.store import AdaptationStore
from graft_server.store.adaptations.training_rows import read_lineage
from graft_server.store.catalogue.catalogue import Catalogue
from graft_server.store.catalogue.snapshot import Snapshot
from graft_server.store.catalogue.versions import read_report, remove_version, version_folder
from graft_server.store.objects.objects import OBJECT_MISSING, Objects
from graft_server.training.contract import TRAIN, Finished, LabelFeatures, Made, Training, usual_training_s

_log = logging.getLogger(__name__)

M = TypeVar("M", bound=Made)
OnProgress = Callable[[Progress], None]

_ENCODING, _TRAINING = "encoding", "training"
"""Parts of a commit's work; a tuning has further ones."""


def renewed_name(commit_id: str, encoder_id: str) -> str:
    """Returns what the catalogue calls a commit whose version was made anew for another encoder.

    Args:
        commit_id: What it calls the commit of the version, whichever that is.
        encoder_id: The encoder.
    """
    return f"{commit_id.partition('/')[0]}/{encoder_id}"


@dataclass(frozen=True, slots=True)
class _Entered:
    """What the catalogue calls a commit, so that it is entered once."""

    name: str
    renewal: Renewal | None
    """Why it is carried out once more; None: it is the first time."""
    began: float = 0.0
    """When this server began, by the monotonic clock."""
    erasure: int = 0
    """The number of the catalogue's entry that last erased examples of the model; 0: none did."""

    @classmethod
    def of(cls, commit_id: str, trunk: Trunk, renewal: Renewal | None, erasure: int = 0) -> _Entered:
        """Returns it for a commit that is carried out on a backbone, of examples after an erasure."""
        name = commit_id if renewal is None else renewed_name(commit_id, trunk.encoder_id)
        return cls(name, renewal, time.monotonic(), erasure)

    def part(self, part: str) -> _Entered:
        """Returns it for a version on the way: no commit's own id has a slash, and no encoder's a method's name.

        After an erasure it is another one: what was made before it may have learned from the erased examples, and
        nothing may be built on it.
        """
        return replace(self, name=f"{self.name}/{part}" + (f"-{self.erasure}" if self.erasure else ""))


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes the commits of all adaptations."""

    objects: Objects
    catalogue: Catalogue
    jobs: Jobs
    tuner: Tuner
    on_published: Callable[[Version], Awaitable[None]]
    """Puts a version in service; the commit counts as published once it returns."""
    learning: Threads
    """Where interim heads are fitted."""
    reading: Threads = field(default_factory=lambda: Threads("reading", 4))
    """Where what callers ask for is read from the store."""
    names: LabelNames = field(default_factory=LabelNames)
    """Features of labels' names."""
    speeds: Speeds = field(default_factory=Speeds)
    """What commits took so far."""

    async def publish(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        feature_writer: FeatureWriter,
        commit_id: str,
        on_progress: OnProgress,
        *,
        renewal: Renewal | None = None,
    ) -> tuple[Version, Report, Extension | None]:
        """Trains and publishes a commit, or renews a version of it. Repeating it gives the same version.

        The version comes with its report, and with what came of the examples beside those of its base.

        Where examples of the model are erased meanwhile, by any server, it is trained again without them; where
        features turn out to be damaged, after they were computed again.

        Raises:
            DomainError: It cannot be published, and why.
        """
        pace = Pace(commit_id, on_progress)
        async with pace.running():
            return await self._published(store, trunk, feature_writer, commit_id, pace=pace, renewal=renewal)

    async def _published(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        feature_writer: FeatureWriter,
        commit_id: str,
        *,
        pace: Pace,
        renewal: Renewal | None,
    ) -> tuple[Version, Report, Extension | None]:
        lost: set[str] = set()
        while True:
            snapshot = await asyncio.to_thread(self.catalogue.refresh)
            snapshot.require_known()
            read_at = snapshot.entries
            erasure = snapshot.last_erasures.get(store.model, 0)
            entered = _Entered.of(commit_id, trunk, renewal, erasure)
            folder = tuning_folder(store.model, erasure, store.name, entered.name)
            try:
                result = await self._train(
                    store,
                    trunk,
                    feature_writer,
                    commit_id,
                    read_at=read_at,
                    folder=folder,
                    pace=pace,
                    entered=entered,
                )
                pace.stage("publishing")
                version = await uncancelled(self._enter(store, entered, result, read_at))
            except DrainingError:
                raise  # the next server goes on from what a tuning left
            except DomainError as error:
                # Jobs may have left something after all that was made before an erasure was deleted.
                await self.tuner.clear(folder)
                if not await self._is_repeated(error, store.model, read_at, folder, lost):
                    raise
                continue
            return version, result.report, result.extension

    async def _is_repeated(
        self, error: DomainError, model: str, read_at: int, folder: str, lost: set[str]
    ) -> bool:
        """Whether a commit is trained again after an error; objects whose features are lost are added to `lost`."""
        if isinstance(error, ConflictError):
            _log.info("%s", error.message)
            return True
        if not isinstance(error, FaultError):
            return False
        if error.reason == EXAMPLES_GONE or await self.erased(model, read_at):
            return True  # its examples, or what a tuning made of them, were taken away under it
        key = error.metadata.get("object", "")
        if error.reason == OBJECT_MISSING and (key.startswith(folder) or self._is_replaced(model, key)):
            # Another server that carries out the same commit was done first, and deleted it; or a version on the way,
            # which was built on, was written anew without examples that were erased.
            return True
        if error.reason != FEATURES_MISSING or key in lost:
            return False
        lost.add(key)
        return True

    def _is_replaced(self, model: str, key: str) -> bool:
        """Whether an object is part of what a version was before it was written anew."""
        replaced = self.catalogue.snapshot.replaced.get(model, ())
        return any(key.startswith(version_folder(it)) for it in replaced)

    async def extension(self, store: AdaptationStore, commit_id: str) -> Extension | None:
        """Returns what a commit's examples come to beside those of the adaptation's base; None: it has none."""
        base = store.start.extends
        if base is None:
            return None
        sources = store.sources(commit_id)
        lineage = await self.reading.run(read_lineage, self.objects, store.model, sources)
        return lineage.extension(base)

    async def version_with_the_same(self, store: AdaptationStore, trunk: Trunk, commit_id: str) -> int:
        """Returns the version that has a commit's examples already; 0: none. See `nothing_new`."""
        return await self.reading.run(
            version_with_the_same,
            self.objects,
            self.catalogue.snapshot,
            store,
            commit_id,
            trunk.encoder_id,
        )

    async def erased(self, model: str, read_at: int) -> bool:
        """Whether examples of a model were erased after an entry of the catalogue, by whatever server.

        The catalogue is read for it: another server deletes at once what a tuning made of them.
        """
        with suppress(StoreError):
            await asyncio.to_thread(self.catalogue.refresh)
        return self.catalogue.snapshot.erasures.get(model, 0) > read_at

    async def _train(
        self,
        store: AdaptationStore,
        trunk: Trunk,
        feature_writer: FeatureWriter,
        commit_id: str,
        *,
        read_at: int,
        folder: str,
        pace: Pace,
        entered: _Entered,
    ) -> Made:
        """Has a worker write a version's parts, and returns what it says of them."""
        plan = plan_of(store.start.settings, trunk.backbone)
        sources = store.sources(commit_id)
        earlier = await self.earlier(store)
        lineage = [*earlier, store]
        feature_writers = [*(FeatureWriter(it, trunk) for it in earlier), feature_writer]
        examples = [sum(source.watermarks.values()) for source in sources]
        names = await self._names(lineage)
        settings = store.start.settings
        usual_s = usual_training_s(sum(examples), len(names))
        pace.plan(
            {
                _ENCODING: Part(self.speeds.encoding_s(trunk.encoder_id, sum(examples)), even=True),
                _TRAINING: Part(self.speeds.training_s(usual_s)),
                **parts_of(plan),
            }
        )
        await self._complete_features(feature_writers, examples, trunk.encoder_id, pace)
        label_features = await self._label_features(lineage, names, trunk)
        payload = Training(
            task=settings.task,
            labels=store.start.labels,
            closed_labels=settings.closed_labels,
            label_features=label_features,
            model=store.model,
            adaptation_id=store.adaptation_id,
            commit_id=commit_id,
            backbone=trunk.name,
            encoder_id=trunk.encoder_id,
            sources=sources,
            base=store.start.extends,
            seed=settings.seed,
            reduced=trunk.reduced,
            longest_input=trunk.preprocessor.longest,
            tuning_folder="" if plan is None else folder,
            renewal=entered.renewal,
        )
        result = await trunk.run(
            self.jobs,
            TRAIN.job(payload, store.model),
            lambda it: pace.told(_TRAINING, it.fraction, _progress(it)),
        )
        self.speeds.trained(usual_s, result.report.training_duration_s)
        if plan is None:
            return result

        async def enter(part: str, better: M) -> M:
            version = await uncancelled(self._enter(store, entered.part(part), better, read_at))
            # It may have been published before a restart: then those parts are there, and the new ones are not.
            return replace(better, manifest=version.manifest)

        async def enter_tuned(part: str, better: Finished) -> Finished:
            return await enter(part, better)

        if result.prepared and (plan.auto or not self._answers(store.model)):
            result = await enter(str(Method.FROZEN), result)  # something to use within seconds
        return await self.tuner.tune(
            store,
            trunk,
            commit_id,
            folder=folder,
            plan=plan,
            frozen=result,
            pace=pace,
            on_better=enter_tuned,
        )

    def _answers(self, model: str) -> bool:
        """Whether a model has a version already."""
        known = self.catalogue.snapshot.models.get(model)
        return known is not None and bool(known.versions)

    def published(self, model: str, number: int) -> tuple[Version, Report] | None:
        """Returns a version and its report; None if the version has been deleted."""
        version = self.version(model, number)
        if version is None:
            # Another server may have published it.
            version = self._version(self.catalogue.refresh(), model, number)
        return None if version is None else (version, read_report(self.objects, version.manifest)[1])

    def unerased(self, model: str, number: int) -> tuple[Version, Report] | None:
        """Returns a version and its report; None if it has been deleted, or trained on what was erased since."""
        version = self._version(self.catalogue.refresh(), model, number)
        if version is None or version.erased:
            return None
        return version, read_report(self.objects, version.manifest)[1]

    def committed(self, store: AdaptationStore, commit_id: str) -> tuple[Version, Report] | None:
        """Returns the version that a commit became, by whatever server, and its report; None: none that is there."""
        try:
            version = self.catalogue.published(store.model, store.adaptation_id, commit_id)
            return None if version is None else self.published(store.model, version.number)
        except StoreError as error:
            _log.error(
                "whether %s of %s was published is not known: %s", commit_id, store.model, error.message
            )
            return None

    def version(self, model: str, number: int) -> Version | None:
        """Returns a version as this server knows it; None if it has been deleted."""
        return self._version(self.catalogue.snapshot, model, number)

    @staticmethod
    def _version(snapshot: Snapshot, model: str, number: int) -> Version | None:
        known = snapshot.models.get(model)
        return None if known is None else known.versions.get(number)

    async def _enter(self, store: AdaptationStore, entered: _Entered, result: Made, read_at: int) -> Version:
        manifest = result.manifest
        try:
            version = await asyncio.to_thread(
                self.catalogue.publish,
                model=store.model,
                adaptation_id=store.adaptation_id,
                commit_id=entered.name,
                manifest=manifest,
                summary=msgspec.to_builtins(summary_of(result.report)),
                metadata=store.start.settings.metadata,
                promote=store.start.settings.publish.promote,
                born=store.start.born,
                read_at=read_at,
                renews=entered.renewal.version if entered.renewal else 0,
            )
        except (StateError, ConflictError):
            await asyncio.to_thread(remove_version, self.objects, manifest)
            raise
        if version.manifest != manifest:
            await asyncio.to_thread(remove_version, self.objects, manifest)  # it was published before
        else:
            preliminary = entered.renewal is None and "/" in entered.name
            announcing.published(version, result.report, began=entered.began, preliminary=preliminary)
        try:
            await self.on_published(version)
        except DomainError as error:
            # It is published all the same, and is loaded by its first request.
            _log.error(
                "version %d of %s could not be loaded ahead: %s", version.number, version.model, error.message
            )
        return version

    async def _complete_features(
        self, feature_writers: Sequence[FeatureWriter], examples: Sequence[int], encoder_id: str, pace: Pace
    ) -> None:
        """Completes the features of a lineage, oldest first; `examples` says how many changes each has."""
        total, began = sum(examples), time.monotonic()
        missing: list[int] = []

        def tell(left: int) -> None:
            missing.append(left)
            done = total - left
            counted = Progress(stage="encoding", done=done, total=total, unit="examples")
            pace.told(_ENCODING, done / max(total, 1), counted)

        for place, feature_writer in enumerate(feature_writers):
            own, others = examples[place], sum(examples[place + 1 :])
            await feature_writer.complete(lambda left, own=own, others=others: tell(others + min(left, own)))  # type: ignore[misc]
            tell(others)
        self.speeds.encoded(encoder_id, missing[0], time.monotonic() - began)

    async def earlier(self, store: AdaptationStore) -> list[AdaptationStore]:
        """The adaptations whose examples are trained on too."""
        return [
            await asyncio.to_thread(AdaptationStore.load, self.objects, store.model, source.adaptation_id)
            for source in store.start.lineage
        ]

    async def _names(self, lineage: Sequence[AdaptationStore]) -> list[str]:
        """The labels of a lineage, sorted; the last adaptation may describe some."""
        names = {label.name for label in lineage[-1].start.labels}
        for it in lineage:
            names |= await asyncio.to_thread(it.labels)
        return sorted(names)

    async def _label_features(
        self, lineage: Sequence[AdaptationStore], names: Sequence[str], trunk: Trunk
    ) -> LabelFeatures | None:
        """What the labels' names say to the backbone; the last of the lineage describes them."""
        if not names:
            return None
        described = {label.name: label for label in lineage[-1].start.labels}
        labels = [described.get(name, Label(name)) for name in names]
        caller = behind(f"{lineage[-1].model}/{lineage[-1].adaptation_id}")
        features = await self.names.features(labels, trunk, caller)
        if not features:
            return None
        views = {view: array.tobytes() for view, array in features.items()}
        return LabelFeatures(tuple(names), views, trunk.name_scale)


def _progress(report: job.Progress) -> Progress:
    """What a job tells, as progress of a commit."""
    return Progress(
        stage=report.stage,
        metrics=dict(report.metrics),
        eta_s=report.eta_s,
        done=report.done,
        total=report.total,
        unit=report.unit,
    )
