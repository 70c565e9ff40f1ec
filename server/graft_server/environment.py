"""What libraries find in the environment: set before any of them is imported, by `graft_server` itself.

Nothing phones home. Libraries that would tell their makers what they run, or look for news, are told not to:

- onnxruntime, from 1.29 on, sends what models it loads to Microsoft from every process that imports it, and leaves a
  device id and a database of events in the user's cache. Its function `disable_telemetry_events` comes too late, when
  it has been imported; `onnx_runtime` calls it all the same.
- Hugging Face's libraries tell what they are used for, and look on the hub for what a local folder lacks. Only a source
  that is a hub id leads there (`backbones.hub`).
- Ray counts clusters, should one be used.

Processes that are started from here inherit all of it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

_SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Set whatever was there: that nothing is told is promised."""
_OFFLINE, _OURS = "HF_HUB_OFFLINE", "ON"
"""Hugging Face's libraries take any of 1, ON, YES and TRUE: this one says that nobody else asked for it."""
_USER_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where `getpass.getuser` looks before it asks for the passwd entry."""


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets what has to be there before any library is imported."""
    environment.update(_SILENT)
    environment.setdefault(_OFFLINE, _OURS)
    # Bars of what is loaded, which workers would write between the lines of the log.
    environment.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # gRPC writes a line to standard error for each request that it refuses by itself: callers could fill the log.
    environment.setdefault("GRPC_VERBOSITY", "NONE")
    # Before NumPy is imported: its threads wait for each other by spinning, on the cores that the encoder needs. With
    # them, serving a kernel head took 7.5 ms of processor time a text instead of 4.8 (benchmarks/serving). Where two
    # things at a time pay, `training.solvers.threads` does them.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not any(environment.get(name) for name in _USER_NAMES) and _passwd_home() is None:
        # torch asks for the user's name when it exports, and fails where there is none.
        environment["USER"] = f"uid-{os.getuid()}"


def with_hub() -> dict[str, str]:
    """The environment for a process that may ask Hugging Face's hub, unless whoever started this one forbade it."""
    environment = dict(os.environ)
    if environment.get(_OFFLINE) == _OURS:
        environment[_OFFLINE] = "0"
    return environment


def home() -> Path | None:
    """The user's home folder; None: neither HOME nor the user's passwd entry, if there is one, names it."""
    named = os.environ.get("HOME") or _passwd_home()
    return Path(named) if named else None


def settle(cache: Path, temporary: Path) -> None:
    """Leads what libraries write elsewhere into the cache; processes that are started later inherit it.

    Args:
        cache: The cache, for what is worth keeping.
        temporary: A folder of this process's own, for all else.
    """
    os.environ["TMPDIR"] = str(temporary)
    for variable, name in (
        ("TORCHINDUCTOR_CACHE_DIR", "torchinductor"),
        ("TRITON_CACHE_DIR", "triton"),
        ("CUDA_CACHE_PATH", "cuda"),
    ):
        os.environ.setdefault(variable, str(cache / "compiled" / name))
    if home() is None:
        # Else a folder that is called "~" would appear.
        os.environ["HOME"] = str(temporary)
        os.environ.setdefault("HF_HOME", str(cache / "huggingface"))


def _passwd_home() -> str | None:
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_dir
    return None
