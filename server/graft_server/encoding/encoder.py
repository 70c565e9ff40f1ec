"""The encoder: an exported graph on a device, from prepared items to features."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.preprocessing import Arrays
from graft_server.backbones.text.packing import pack
from graft_server.domain.errors import BackboneError
from graft_server.onnx_runtime import onnxruntime

_log = logging.getLogger(__name__)

NOT_FINITE = "ENCODER_NOT_FINITE"
"""The reason of an error about features that are not finite numbers."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

Features = Mapping[str, NDArray[np.float32]]
"""View name to features of shape (n, d)."""


class Encoder:
    """One session over an exported graph. `encode` may be called from several threads at once.

    Attributes:
        views: The names of its features.
        device: The device that it runs on: "cpu" or "cuda".
    """

    def __init__(
        self,
        graph: Path,
        *,
        device: str,
        threads: int,
        collate: Callable[[Sequence[Any]], Arrays] = pack,
    ) -> None:
        """Loads the graph.

        Args:
            graph: An exported encoder.
            collate: Makes the graph's inputs from items; see `backbones.preprocessing.Preprocessor`.
            device: "cpu", "cuda", or "auto": a GPU where there is a usable one.
            threads: Threads that one call may use; with 1, each call runs on its caller's thread alone.

        Raises:
            BackboneError: The graph cannot be loaded, or the device that was asked for cannot be used.
        """
        self._session, self.device = open_session(graph, device, threads)
        self._collate = collate
        self.views = tuple(output.name for output in self._session.get_outputs())

    def encode(self, items: Sequence[Any]) -> Features:
        """Returns the features of n >= 1 prepared items, by view, each of shape (n, d) float32.

        Raises:
            BackboneError: The device failed, or a computed feature is not finite.
        """
        try:
            outputs = self._run(self._collate(items))
        except Exception as error:
            _log.exception("the encoder failed on %d inputs", len(items))
            raise BackboneError(
                "The encoder failed; the server's log has the details. Try again later.",
                reason="ENCODER_FAILED",
            ) from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise BackboneError(
                "The encoder gave features that are not finite numbers. Try again later.",
                reason=NOT_FINITE,
            )
        return dict(zip(self.views, outputs, strict=True))

    def _run(self, inputs: Arrays) -> list[NDArray[np.float32]]:
        if self.device == "cuda":
            return run_bound(self._session, inputs, self.device)
        outputs: list[NDArray[np.float32]] = self._session.run(None, inputs)
        return outputs


def run_bound(
    session: onnxruntime.InferenceSession, inputs: Arrays, device: str
) -> list[NDArray[np.float32]]:
    """Runs with everything bound to the device: each input goes there, and all outputs come back, once.

    Otherwise every output is copied, and waited for, where the graph ends.
    """
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
    for output in session.get_outputs():
        # The output's shape is not known before the run: the device's allocator makes it.
        binding.bind_output(output.name, device)
    session.run_with_iobinding(binding)
    outputs: list[NDArray[np.float32]] = binding.copy_outputs_to_cpu()
    return outputs


def device_for(precision: str, device: str) -> str:
    """Returns the device to ask for: the one that a precision needs, or else the requested one.

    Raises:
        BackboneError: The two do not go together, or there is no such device.
    """
    if precision == "fp32":
        return device
    needed = {"int8": "cpu", "fp16": "cuda"}[precision]
    if device not in ("auto", needed) or (needed == "cuda" and not _has_gpu()):
        offer = "cpu" if needed == "cpu" else "cuda, on a machine with a GPU"
        here = "there is no GPU here" if device in ("auto", needed) else f"the device is {device!r}"
        raise BackboneError(
            f"The precision {precision!r} needs --device {offer}, but {here}: use --precision fp32"
            f"{', or int8,' if needed == 'cuda' else ''} instead.",
            reason="PRECISION_UNAVAILABLE",
        )
    return needed


def _has_gpu() -> bool:
    # A library that was built for GPUs complains at length if there is none, so look first.
    return Path("/dev/nvidiactl").exists()


def _load_cuda() -> None:
    """Loads CUDA's libraries from their wheels if the machine does not have them."""
    said = io.StringIO()
    # It prints the libraries that it does not find; standard output is the server's own.
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    if said.getvalue():
        _log.warning("loading CUDA's libraries: %s", said.getvalue().strip())


def open_session(graph: Path | bytes, device: str, threads: int) -> tuple[onnxruntime.InferenceSession, str]:
    """Returns a session over a graph, and the device that it runs on; see `Encoder`."""
    gpu = device == "cuda" or (device == "auto" and _has_gpu())
    wanted = ["cuda", "cpu"] if gpu else ["cpu"]
    if gpu:
        _load_cuda()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread burns a core between requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers = [_PROVIDERS[name] for name in wanted if _PROVIDERS[name] in available]
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph), options, providers=providers or None
        )
    except Exception as error:
        _log.exception("loading the encoder")
        raise BackboneError(
            "The exported encoder cannot be loaded; the server's log has the details.",
            reason="ENCODER_LOAD_FAILED",
        ) from error
    # The library may list a missing GPU, and silently run on the CPU instead.
    actual = "cuda" if session.get_providers()[0] == _PROVIDERS["cuda"] else "cpu"
    if device == "cuda" and actual != "cuda":
        raise BackboneError(
            "The device 'cuda' was asked for, but no GPU can be used here. Check the driver and "
            "CUDA_VISIBLE_DEVICES, or ask for --device cpu or auto.",
            reason="DEVICE_UNAVAILABLE",
        )
    return session, actual
