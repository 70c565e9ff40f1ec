"""The encoder: an exported graph on a device, from packed tokens to features."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from graft_server.backbones.packing import pack
from graft_server.errors import BackboneError

_log = logging.getLogger(__name__)

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

Features = Mapping[str, NDArray[np.float32]]
"""View name to features of shape (n, d)."""


class Encoder:
    """One session over an exported graph. `encode` may be called from several threads at once.

    Attributes:
        views: The names of the features that it gives.
        device: Where it runs: "cpu" or "cuda".
    """

    def __init__(self, graph: Path, *, device: str, threads: int) -> None:
        """Loads the graph.

        Args:
            graph: An exported encoder.
            device: "cpu", "cuda", or "auto": a GPU where there is a usable one.
            threads: Threads that one call may use; with 1, each call runs on its caller's thread alone.

        Raises:
            BackboneError: The graph cannot be loaded, or the device that was asked for cannot be used.
        """
        self._session, self.device = _open(graph, device, threads)
        self.views = tuple(output.name for output in self._session.get_outputs())

    def encode(self, texts: Sequence[NDArray[np.int64]]) -> Features:
        """Features of n >= 1 token sequences, by view, each of shape (n, d) float32.

        Raises:
            BackboneError: The device failed, or what it computed is not finite.
        """
        try:
            outputs = self._session.run(None, pack(texts))
        except Exception as error:
            _log.exception("the encoder failed on %d texts", len(texts))
            raise BackboneError(
                "The encoder failed; the server's log has the details. Try again later.",
                reason="ENCODER_FAILED",
            ) from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise BackboneError(
                "The encoder gave features that are not finite numbers. Try again later.",
                reason="ENCODER_NOT_FINITE",
            )
        return dict(zip(self.views, outputs, strict=True))


def _open(graph: Path, device: str, threads: int) -> tuple[onnxruntime.InferenceSession, str]:
    # A library that was built for GPUs complains at length where there is none, so look first.
    gpu = device == "cuda" or (device == "auto" and Path("/dev/nvidiactl").exists())
    wanted = ["cuda", "cpu"] if gpu else ["cpu"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread burns a core while nothing is asked.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers = [_PROVIDERS[name] for name in wanted if _PROVIDERS[name] in available]
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=providers or None)
    except Exception as error:
        _log.exception("loading the encoder")
        raise BackboneError(
            "The exported encoder cannot be loaded; the server's log has the details.",
            reason="ENCODER_LOAD_FAILED",
        ) from error
    # The library lists a GPU that is not there, and silently runs on the CPU instead.
    actual = "cuda" if session.get_providers()[0] == _PROVIDERS["cuda"] else "cpu"
    if device == "cuda" and actual != "cuda":
        raise BackboneError(
            "The device 'cuda' was asked for, but no GPU can be used here. Check the driver and "
            "CUDA_VISIBLE_DEVICES, or ask for --device cpu or auto.",
            reason="DEVICE_UNAVAILABLE",
        )
    return session, actual
