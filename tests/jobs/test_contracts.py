"""What jobs say to each other: one typed contract each, kept by both sides, in which no machine's path occurs."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import msgspec

import graft_server
from graft_server.jobs.job import JobType, OnProgress, Place

HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "scipy", "grpc"}


def modules() -> Iterator[str]:
    """The modules that both sides of a job import."""
    for found in pkgutil.walk_packages(graft_server.__path__, "graft_server."):
        if found.name.endswith("contract"):
            yield found.name


def kinds() -> list[JobType[Any, Any]]:
    found = [vars(importlib.import_module(name)).values() for name in modules()]
    return [it for values in found for it in values if isinstance(it, JobType)]


def types_in(kind: Any, seen: set[Any]) -> Iterator[Any]:
    """A type, and all that its fields and arguments are made of."""
    if kind in seen:
        return
    seen.add(kind)
    yield kind
    inner = list(typing.get_args(kind))
    if dataclasses.is_dataclass(kind):
        inner += typing.get_type_hints(kind).values()
    for it in inner:
        yield from types_in(it, seen)


def test_every_job_of_the_server_has_a_contract():
    names = {it.function.rpartition(":")[2] for it in kinds()}
    assert names == {
        "train", "finish", "tune", "export_encoder", "reduce_encoder", "cut_encoder", "adapt_encoder", "compose",
        "redact",
    }  # fmt: skip


def test_no_contract_has_a_path_nor_anything_untyped():
    for kind in kinds():
        seen: set[Any] = set()
        found = [*types_in(kind.payload, seen), *types_in(kind.result, seen)]
        assert len(found) > 2
        for it in found:
            assert not (isinstance(it, type) and issubclass(it, PurePath)), f"{kind.function}: {it}"
            assert it not in (Any, object), f"{kind.function} has a field of no type"


def test_each_function_that_does_a_job_takes_and_gives_what_its_contract_says():
    for kind in kinds():
        module, _, name = kind.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        payload, place, progress, result = typing.get_type_hints(function).values()
        assert (payload, place, progress, result) == (kind.payload, Place, OnProgress, kind.result)


def test_contracts_are_light():
    code = f"import sys, {', '.join(modules())}; print(*sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_a_worker_is_told_at_its_start_reads_back():
    place = Place("s3://bucket", "/cache", {"mine": "package:some"}, "int8", 4, 1 << 20)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(place), type=Place) == place
