"""What can be set, from where: flags over environment variables over a TOML file over defaults."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, PRECISIONS
from graft_server.domain.errors import InvalidError

ENVIRONMENT_PREFIX = "GRAFT_"
_ALL = "all"


def _default_cache() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "graft")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server runs. Every field is a flag, an environment variable GRAFT_… and a key of the TOML file."""

    listen: str = field(
        default="127.0.0.1:50051",
        metadata={"help": "address and port to listen on; port 0 picks a free one"},
    )
    store: str = field(
        default="graft-store",
        metadata={"help": "where examples and models are kept: a folder, or s3://, gs:// or az:// …"},
    )
    backbones: Mapping[str, str] = field(
        default_factory=lambda: {DEFAULT_NAME: DEFAULT_SOURCE},
        metadata={
            "flag": "backbone",
            "help": "a backbone as NAME=SOURCE, where SOURCE is a folder, a hub id or package:NAME; may be "
            f"repeated (default: {DEFAULT_NAME}={DEFAULT_SOURCE}); the first is the default one",
        },
    )
    load_on_use: str = field(
        default="",
        metadata={
            "help": "backbones, by name and separated by commas, that are loaded when they are first used instead of "
            "at start; 'all': every one"
        },
    )
    device: str = field(default="auto", metadata={"help": "auto, cpu or cuda"})
    precision: str = field(
        default="fp32",
        metadata={
            "help": "fp32, int8 (on the CPU: twice as fast, a little less accurate) or fp16 (on a GPU); a model "
            "is served in the precision that it was adapted in"
        },
    )
    cache: str = field(
        default_factory=_default_cache, metadata={"help": "folder for exported encoders, made once each"}
    )
    workers: int = field(default=1, metadata={"help": "training jobs that run at once"})
    tuning_workers: int = field(default=1, metadata={"help": "backbones that are tuned at once"})
    tuning_memory_mb: int = field(
        default=1024,
        metadata={"help": "memory, in MiB, that a tuning keeps what it computed once in; more goes to disk"},
    )
    tuned_memory_mb: int = field(
        default=2048,
        metadata={"help": "memory, in MiB, for tuned layers; those that were not asked for longest go first"},
    )
    cores: int = field(default=0, metadata={"help": "processor cores for the encoder; 0: all"})
    batch_tokens: int = field(
        default=0, metadata={"help": "tokens in an encoder batch; 0: measured on this machine"}
    )
    measure_seconds: float = field(
        default=0.5,
        metadata={
            "help": "how long each way to drive an encoder is measured at its first start on a machine; 0: not at "
            "all, the usual one is used"
        },
    )
    queued_requests: int = field(
        default=4096, metadata={"help": "Predict requests that may wait before others are refused"}
    )
    cached_responses: int = field(
        default=0,
        metadata={"help": "answers to remember, for traffic that asks the same again; 0: none"},
    )
    open_adaptations: int = field(
        default=1024, metadata={"help": "adaptations whose examples are taken at once"}
    )
    open_adaptations_per_model: int = field(
        default=256, metadata={"help": "adaptations of one model whose examples are taken at once"}
    )
    publications: int = field(
        default=1024, metadata={"help": "commits that may wait or be trained before others are refused"}
    )
    publications_per_model: int = field(
        default=64, metadata={"help": "commits of one model that may wait or be trained"}
    )
    intake_memory_mb: int = field(
        default=256,
        metadata={
            "help": "memory, in MiB, for examples of all streams that wait for the disk and the encoder; clients "
            "that send more are slowed down"
        },
    )
    erasure_grace_seconds: float = field(
        default=2.0,
        metadata={
            "help": "how long DeleteExamples leaves replaced objects to those who are reading them, before they "
            "are deleted for good and it answers"
        },
    )
    max_image_mb: float = field(
        default=16.0, metadata={"help": "size of an image's file, in MB; larger ones are refused"}
    )
    max_image_pixels: int = field(
        default=50_000_000, metadata={"help": "pixels of an image; larger ones are refused undecoded"}
    )
    max_image_ratio: float = field(
        default=2_000.0, metadata={"help": "bytes of an image's pixels over bytes of its file"}
    )
    max_audio_mb: float = field(
        default=16.0, metadata={"help": "size of a clip's file, in MB; larger ones are refused"}
    )
    max_audio_seconds: float = field(
        default=600.0,
        metadata={"help": "length of a clip; longer ones are refused. Encoders read the first 30 s"},
    )
    max_audio_ratio: float = field(
        default=5_000.0, metadata={"help": "bytes of a clip's samples over bytes of its file"}
    )
    drain_seconds: float = field(
        default=10.0, metadata={"help": "how long running calls may take to finish at shutdown"}
    )
    max_connection_age_seconds: float = field(
        default=0.0,
        metadata={"help": "age at which connections are renewed, so that clients find new servers; 0: never"},
    )
    log_level: str = field(default="info", metadata={"help": "debug, info, warning or error"})

    @property
    def cache_folder(self) -> Path:
        """The folder for exported encoders."""
        return Path(self.cache).expanduser().resolve()

    @property
    def backbones_on_use(self) -> frozenset[str]:
        """The names of the backbones that are loaded on their first use."""
        if self.load_on_use == _ALL:
            return frozenset(self.backbones)
        return frozenset(it.strip() for it in self.load_on_use.split(",") if it.strip())

    @property
    def default_backbone(self) -> str:
        """The backbone that is used where a request names none."""
        return next(iter(self.backbones))


def flag_of(name: str) -> str:
    """The command-line flag of a field, without dashes in front."""
    declared = next(it for it in fields(Settings) if it.name == name)
    return str(declared.metadata.get("flag", name)).replace("_", "-")


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Puts the settings together.

    Args:
        flags: By field name; None means not given.
        environment: The process's environment.
        file: A TOML file, or None.

    Raises:
        InvalidError: A value is not what it should be, or a key is unknown.
    """
    values = _from_file(file) if file is not None else {}
    for declared in fields(Settings):
        variable = ENVIRONMENT_PREFIX + flag_of(declared.name).replace("-", "_").upper()
        if variable in environment:
            values[declared.name] = _parsed(declared.name, environment[variable], variable)
        if flags.get(declared.name) is not None:
            values[declared.name] = _parsed(
                declared.name, flags[declared.name], "--" + flag_of(declared.name)
            )
    return _checked(Settings(**values))


def _from_file(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise _invalid(f"the file {file} cannot be read: {error}", str(file)) from error
    names = {flag_of(it.name).replace("-", "_"): it.name for it in fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = names.get(key.replace("-", "_"), key if key in names.values() else None)
        if name is None:
            raise _invalid(f"{key} in {file} is not a setting; there are {', '.join(sorted(names))}", key)
        values[name] = _parsed(name, value, f"{key} in {file}")
    return values


def _parsed(name: str, value: Any, where: str) -> Any:
    default = Settings.__dataclass_fields__[name].type
    try:
        if name == "backbones":
            return _backbones(value)
        return _of_type(str(default), value)
    except (TypeError, ValueError) as error:
        raise _invalid(f"{where} is {value!r}: {error}", name) from error


def _of_type(kind: str, value: Any) -> str | int | float:
    # Flags and variables are always strings; a file's values have types of their own.
    parsers: dict[str, tuple[Callable[[Any], str | int | float], tuple[type, ...]]] = {
        "str": (str, (str,)),
        "int": (int, (str, int)),
        "float": (float, (str, int, float)),
    }
    parse, accepted = parsers[kind]
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise TypeError(f"give a value of type {kind}")
    return parse(value)


def _backbones(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(name): str(source) for name, source in value.items()}
    entries = value.split(",") if isinstance(value, str) else list(value)
    pairs = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    if len(pairs) != len(entries) or not all((*pairs, *pairs.values())):
        raise ValueError("give NAME=SOURCE, each name once")
    return pairs


def _checked(settings: Settings) -> Settings:
    host, separator, port = settings.listen.rpartition(":")
    if not (separator and host and port.isdigit() and int(port) < 1 << 16):
        raise _invalid(
            f"listen is {settings.listen!r}: give HOST:PORT, for example 127.0.0.1:50051", "listen"
        )
    if settings.device not in ("auto", "cpu", "cuda"):
        raise _invalid(f"device is {settings.device!r}: give auto, cpu or cuda", "device")
    if settings.precision not in PRECISIONS:
        raise _invalid(f"precision is {settings.precision!r}: give {', '.join(PRECISIONS)}", "precision")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise _invalid(
            f"log-level is {settings.log_level!r}: give debug, info, warning or error", "log_level"
        )
    if not settings.backbones:
        raise _invalid("there is no backbone: give at least one NAME=SOURCE", "backbones")
    unknown = sorted(settings.backbones_on_use - settings.backbones.keys())
    if unknown:
        raise _invalid(
            f"load-on-use names {', '.join(unknown)}, but the backbones are {', '.join(settings.backbones)}: give "
            "some of those, or 'all'",
            "load_on_use",
        )
    _check_numbers(settings)
    return settings


def _check_numbers(settings: Settings) -> None:
    for name, least in (
        ("workers", 1),
        ("tuning_workers", 1),
        ("tuning_memory_mb", 0),
        ("tuned_memory_mb", 0),
        ("cores", 0),
        ("batch_tokens", 0),
        ("queued_requests", 1),
        ("cached_responses", 0),
        ("open_adaptations", 1),
        ("open_adaptations_per_model", 1),
        ("publications", 1),
        ("publications_per_model", 1),
        ("intake_memory_mb", 1),
        ("max_image_pixels", 1),
    ):
        if getattr(settings, name) < least:
            raise _invalid(f"{flag_of(name)} is {getattr(settings, name)}: at least {least}", name)
    for name in ("max_image_mb", "max_image_ratio", "max_audio_mb", "max_audio_seconds", "max_audio_ratio"):
        if not 0 < getattr(settings, name) < math.inf:
            raise _invalid(f"{flag_of(name)} is {getattr(settings, name)}: give a number above 0", name)
    for name in ("measure_seconds", "erasure_grace_seconds", "drain_seconds", "max_connection_age_seconds"):
        if not 0 <= getattr(settings, name) < math.inf:
            raise _invalid(f"{flag_of(name)} is {getattr(settings, name)}: give a number, at least 0", name)


def _invalid(message: str, field_name: str) -> InvalidError:
    return InvalidError(f"{message}.", reason="SETTING_INVALID", field=field_name)
