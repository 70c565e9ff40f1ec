"""The server's settings and their sources: flags over environment variables over a TOML file over defaults.

A setting is written once: its type, its bounds, its help and its default make one field of `Settings`, and flags,
variables, keys, checks and error messages follow from the field.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from graft_server.backbones.graphs.cache_folder import private_temporary
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, PRECISIONS
from graft_server.domain.errors import InvalidError, StoreError
from graft_server.environment import home

ENVIRONMENT_PREFIX = "GRAFT_"
_ALL = "all"
_UNIX = "unix:"
_SOCKET_PATH_BYTES = 107
_NUMBERS = {int: "N", float: "NUMBER"}
"""What stands for a number without a unit in help."""


def _text(description: str, metavar: str) -> Meta:
    return Meta(description=description, extra={"metavar": metavar})


def _choice(description: str, *choices: str) -> Meta:
    return Meta(description=description, extra={"choices": choices})


def _at_least(least: int, description: str) -> Meta:
    return Meta(ge=least, description=description)


def _above_0(description: str) -> Meta:
    return Meta(gt=0, description=description)


def _default_cache() -> str:
    """Under the user's home, if there is one; else "": see `Settings.cache_folder`."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return str(Path(base) / "graft")
    own = home()
    return str(own / ".cache" / "graft") if own else ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a server runs. Every field is a flag, an environment variable GRAFT_… and a key of the TOML file.

    Names that end in `_mb` are in MiB (2**20 bytes).
    """

    listen: Annotated[
        str,
        Meta(
            description="where to listen: HOST:PORT, [IPV6]:PORT (port 0 picks a free one) or unix:PATH; may be given "
            "several times, or as several joined by commas",
            extra={"several": True, "metavar": "HOST:PORT"},
        ),
    ] = "127.0.0.1:50051"
    store: Annotated[
        str, _text("where examples and models are kept: a folder, or s3://…, gs://… or az://…", "FOLDER")
    ] = "graft-store"
    backbones: Annotated[
        dict[str, str],
        Meta(
            description="a backbone as NAME=SOURCE, where SOURCE is a folder, a hub id or package:NAME; may be given "
            "several times; the first one serves where a request names none",
            extra={"flag": "backbone", "metavar": "NAME=SOURCE"},
        ),
    ] = msgspec.field(default_factory=lambda: {DEFAULT_NAME: DEFAULT_SOURCE})
    load_on_use: Annotated[
        str,
        _text(
            "names of backbones, separated by commas, that are loaded when they are first used and not at the start; "
            "'all': every one",
            "NAMES",
        ),
    ] = ""
    device: Annotated[str, _choice("where encoders run: auto, cpu or cuda", "auto", "cpu", "cuda")] = "auto"
    precision: Annotated[
        str,
        _choice(
            "how encoders compute: fp32, int8 (on the CPU: twice as fast, a little less accurate) or fp16 (on a GPU); "
            "a model is served in the precision that it was adapted in",
            *PRECISIONS,
        ),
    ] = "fp32"
    cache: Annotated[
        str,
        _text("the folder for exported encoders, each made once, and for temporary files", "FOLDER"),
    ] = msgspec.field(default_factory=_default_cache)
    workers: Annotated[int, _at_least(1, "how many training jobs run at once")] = 1
    tuning_workers: Annotated[int, _at_least(1, "how many backbones are tuned at once")] = 1
    tuning_memory_mb: Annotated[
        int,
        _at_least(
            0, "how much memory a tuning uses for what it computes once, in MiB; what is more goes to disk"
        ),
    ] = 1024
    heads_memory_mb: Annotated[
        int,
        _at_least(
            1,
            "memory for models' heads, in MiB; where it is full, those that nobody asked for longest leave, and are "
            "loaded again when they are asked for",
        ),
    ] = 256
    tuned_memory_mb: Annotated[
        int,
        _at_least(
            0, "memory for tuned layers, in MiB; where it is full, those that nobody asked for longest leave"
        ),
    ] = 2048
    cores: Annotated[int, _at_least(0, "how many processor cores the encoder uses; 0: all")] = 0
    batch_tokens: Annotated[
        int, _at_least(0, "how many tokens an encoder batch has; 0: what was measured on this machine")
    ] = 0
    measure_seconds: Annotated[
        float,
        _at_least(
            0,
            "how long each way to drive an encoder is measured at its first start on a machine; 0: not at all, and the "
            "usual way is taken",
        ),
    ] = 0.5
    queued_requests: Annotated[
        int, _at_least(1, "how many requests for predictions may wait before others are refused")
    ] = 4096
    cached_responses: Annotated[
        int, _at_least(0, "how many answers are remembered, for traffic that asks the same again; 0: none")
    ] = 0
    open_adaptations: Annotated[int, _at_least(1, "how many adaptations take examples at once")] = 1024
    open_adaptations_per_model: Annotated[
        int, _at_least(1, "how many adaptations of one model take examples at once")
    ] = 256
    publications: Annotated[
        int, _at_least(1, "how many publications may wait or be trained before others are refused")
    ] = 1024
    publications_per_model: Annotated[
        int, _at_least(1, "how many publications of one model may wait or be trained")
    ] = 64
    intake_memory_mb: Annotated[
        int,
        _at_least(
            1,
            "memory for examples of all streams that wait for the disk and the encoder, in MiB; clients that send more "
            "are slowed down",
        ),
    ] = 256
    erasure_grace_seconds: Annotated[
        float,
        _at_least(
            0,
            "how long an erasure leaves what it replaced to those who are reading it, before that is deleted for good "
            "and the erasure is answered",
        ),
    ] = 2.0
    max_image_mb: Annotated[
        float, _above_0("how large an image's file may be, in MiB; larger ones are refused")
    ] = 16.0
    max_image_pixels: Annotated[
        int,
        _at_least(1, "how many pixels an image may have; larger ones are refused before they are decoded"),
    ] = 50_000_000
    max_image_ratio: Annotated[
        float, _above_0("how many times the bytes of its file an image may take when it is decoded")
    ] = 2_000.0
    max_audio_mb: Annotated[
        float, _above_0("how large a clip's file may be, in MiB; larger ones are refused")
    ] = 16.0
    max_audio_seconds: Annotated[
        float, _above_0("how long a clip may be; longer ones are refused, and encoders read the first 30 s")
    ] = 600.0
    max_audio_ratio: Annotated[
        float, _above_0("how many times the bytes of its file a clip may take when it is decoded")
    ] = 5_000.0
    drain_notice_seconds: Annotated[
        float,
        _at_least(
            0,
            "how long, at shutdown, health says NOT_SERVING while calls are still taken, for balancers that look now "
            "and then",
        ),
    ] = 0.0
    drain_seconds: Annotated[
        float, _at_least(0, "how long calls that are at work may take to finish at shutdown")
    ] = 10.0
    max_connection_age_seconds: Annotated[
        float,
        _at_least(0, "the age at which connections are renewed, so that clients find new servers; 0: never"),
    ] = 0.0
    log_level: Annotated[
        str,
        _choice(
            "which log lines are written: debug, info, warning or error, and what is graver",
            "debug",
            "info",
            "warning",
            "error",
        ),
    ] = "info"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen, each once."""
        return tuple(dict.fromkeys(it.strip() for it in self.listen.split(",")))

    @property
    def cache_folder(self) -> Path:
        """The folder for exported encoders. Raises StoreError: there is neither a home nor a temporary folder."""
        if not self.cache:
            try:
                return private_temporary() / "cache"
            except OSError as error:
                raise StoreError(
                    f"User id {os.geteuid()} has neither a home folder nor one for temporary files ({error.strerror}): "
                    "give a folder for the cache (--cache, GRAFT_CACHE).",
                    reason="CACHE_UNUSABLE",
                ) from error
        return Path(self.cache).expanduser().resolve()

    @property
    def backbones_on_use(self) -> frozenset[str]:
        """The names of the backbones that are loaded on their first use."""
        if self.load_on_use == _ALL:
            return frozenset(self.backbones)
        return frozenset(it.strip() for it in self.load_on_use.split(",") if it.strip())

    @property
    def default_backbone(self) -> str:
        """The backbone for requests that name none."""
        return next(iter(self.backbones))


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of `Settings`, as flags, variables, keys and checks see it."""

    name: str
    kind: type
    meta: Meta
    default: Any

    @property
    def flag(self) -> str:
        """The command-line flag, without dashes in front."""
        return str((self.meta.extra or {}).get("flag", self.name)).replace("_", "-")

    @property
    def several(self) -> bool:
        """Whether it may be given several times; they are joined by commas."""
        return bool((self.meta.extra or {}).get("several"))

    @property
    def metavar(self) -> str:
        """What stands for the value of the flag in its help: its form, its choices or its unit."""
        extra = self.meta.extra or {}
        unit = {"mb": "MIB", "seconds": "SECONDS"}.get(self.name.rpartition("_")[2], "")
        return str(extra.get("metavar") or "|".join(extra.get("choices", ())) or unit or _NUMBERS[self.kind])

    @property
    def default_shown(self) -> str:
        """The default in words."""
        if self.name == "backbones":
            return ", ".join(f"{name}={source}" for name, source in self.default.items())
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default) or "none"

    @property
    def key(self) -> str:
        """The key in a TOML file; with the prefix GRAFT_ and in capitals, the environment variable."""
        return self.flag.replace("-", "_")

    @property
    def help(self) -> str:
        """A description of the setting."""
        return str(self.meta.description)

    def parse(self, value: Any, where: str) -> Any:
        """Returns the value in the field's type, checked.

        Args:
            value: Text from a flag or a variable, or a value from a TOML file.
            where: The name of the setting in the source of the value.

        Raises:
            InvalidError: The value does not fit the field; the message says which values do.
        """
        if self.name == "backbones":
            return _backbones(value, where)
        if self.several and isinstance(value, list):
            value = ",".join(map(str, value))
        try:
            # Flags and variables are always text; a file's values have types of their own.
            parsed = msgspec.convert(
                value, Annotated[self.kind, self.meta], strict=not isinstance(value, str)
            )
        except msgspec.ValidationError as error:
            raise self._refused(value, where) from error
        choices = (self.meta.extra or {}).get("choices")
        if (choices and parsed not in choices) or (isinstance(parsed, float) and not math.isfinite(parsed)):
            raise self._refused(value, where)
        return parsed

    def _refused(self, value: Any, where: str) -> InvalidError:
        return _invalid(f"{where} is {value!r}: give {self._wanted()}", self.name)

    def _wanted(self) -> str:
        if self.kind is str:
            *others, last = (self.meta.extra or {}).get("choices", ("text",))
            return f"{', '.join(others)} or {last}" if others else str(last)
        what = "a whole number" if self.kind is int else "a number"
        return (
            f"{what} above {self.meta.gt}" if self.meta.gt is not None else f"{what}, at least {self.meta.ge}"
        )


def _setting(declared: msgspec.structs.FieldInfo) -> Setting:
    kind, meta = declared.type.__origin__, declared.type.__metadata__[0]
    factory = declared.default_factory
    return Setting(declared.name, kind, meta, declared.default if factory is msgspec.NODEFAULT else factory())


SETTINGS = {it.name: _setting(it) for it in msgspec.structs.fields(Settings)}
"""Every setting by name, in the order in which help shows them."""


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """Puts the settings together.

    Args:
        flags: By field name; None means not given.
        environment: The process's environment.
        file: A TOML file, or None.

    Raises:
        InvalidError: A value is wrong, or a key is unknown.
    """
    values = _from_file(file) if file is not None else {}
    for setting in SETTINGS.values():
        variable = ENVIRONMENT_PREFIX + setting.key.upper()
        if variable in environment:
            values[setting.name] = setting.parse(environment[variable], variable)
        if flags.get(setting.name) is not None:
            values[setting.name] = setting.parse(flags[setting.name], "--" + setting.flag)
    return _checked(Settings(**values))


def _from_file(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise _invalid(f"the file {file} cannot be read: {error}", str(file)) from error
    by_key = {it.key: it for it in SETTINGS.values()}
    values: dict[str, Any] = {}
    for key, value in content.items():
        setting = by_key.get(key.replace("-", "_")) or SETTINGS.get(key)
        if setting is None:
            raise _invalid(f"{key} in {file} is not a setting; there are {', '.join(sorted(by_key))}", key)
        values[setting.name] = setting.parse(value, f"{key} in {file}")
    return values


def _backbones(value: Any, where: str) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(name): str(source) for name, source in value.items()}
    entries = value.split(",") if isinstance(value, str) else list(value)
    pairs = dict(entry.split("=", 1) for entry in entries if "=" in entry)
    if len(pairs) != len(entries) or not all((*pairs, *pairs.values())):
        raise _invalid(f"{where} is {value!r}: give NAME=SOURCE, each name once", "backbones")
    return pairs


def _checked(settings: Settings) -> Settings:
    """Checks the settings against each other."""
    for address in settings.addresses:
        _check_address(address)
    for name, value in {"store": settings.store, "cache": settings.cache, **settings.backbones}.items():
        if value.startswith("~") and home() is None:
            raise _invalid(
                f"{name} is {value!r}, but user id {os.geteuid()} has no home folder: HOME is not set, and there is no "
                "passwd entry. Give the whole path",
                name,
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
    return settings


def _check_address(address: str) -> None:
    """Refuses what is no address to listen on."""
    if address.startswith(_UNIX):
        path = address.removeprefix(_UNIX)
        if not path or len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            raise _invalid(
                f"listen is {address!r}: give unix:PATH, a path of 1 to {_SOCKET_PATH_BYTES} bytes: "
                "the system takes no more",
                "listen",
            )
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise _invalid(
            f"listen is {address!r}: give HOST:PORT, for example 127.0.0.1:50051, or unix:PATH", "listen"
        )
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise _invalid(
            f"listen is {address!r}: put an IPv6 address in brackets, HOST:PORT as [::1]:50051", "listen"
        )


def _invalid(message: str, field_name: str) -> InvalidError:
    return InvalidError(f"{message}.", reason="SETTING_INVALID", field=field_name)
