"""Peers that do the same work on the same machine, each in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc

from benchmarks.harness import CACHE

MLSERVER = ["mlserver==1.7.1", "onnxruntime==1.23.2", "tokenizers>=0.21,<1", "numpy<3"]
INFER = "/inference.GRPCInferenceService/ModelInfer"
READY = "/inference.GRPCInferenceService/ModelReady"
NAME = "texts"


class Peer(NamedTuple):
    """A server of a peer."""

    target: str
    """HOST:PORT of its gRPC service."""
    pid: int


@contextmanager
def mlserver(bundle: Path, folder: Path, *, max_batch: int) -> Iterator[Peer]:
    """Runs MLServer with a custom runtime over a bundle's graph, in one process."""
    python = _environment("mlserver", MLSERVER)
    http, rpc, metrics = (_free_port() for _ in range(3))
    shutil.copy(Path(__file__).parent / "mlserver" / "runtime.py", folder / "runtime.py")
    settings = {
        "http_port": http, "grpc_port": rpc, "metrics_port": metrics, "host": "127.0.0.1",
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    model = {
        "name": NAME,
        "implementation": "runtime.Classifier",
        "max_batch_size": max_batch if max_batch > 1 else 0,
        "max_batch_time": 0.01 if max_batch > 1 else 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    environment = {**os.environ, "BUNDLE": str(bundle), "PYTHONPATH": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [python.parent / "mlserver", "start", str(folder)],
            env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _wait_until_ready(f"127.0.0.1:{rpc}", process, folder / "log")
            yield Peer(f"127.0.0.1:{rpc}", process.pid)
        finally:
            process.terminate()
            process.wait()


def infer_requests(texts: Sequence[str]) -> Iterator[bytes]:
    """One text a request, in the Open Inference Protocol's wire form."""
    for text in texts:
        contents = _field(8, _bytes(text))
        tensor = _field(1, b"text") + _field(2, b"BYTES") + _field(3, b"\x01\x01") + _field(5, contents)
        yield _field(1, NAME.encode()) + _field(5, tensor)


def _bytes(text: str) -> bytes:
    return text.encode()


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(payload), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + payload


def _environment(name: str, packages: Sequence[str]) -> Path:
    folder = CACHE / "peers" / name
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        print(f"setting up {name} in an environment of its own", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        (folder / ".complete").touch()
    return python


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(target: str, process: subprocess.Popen[bytes], log: Path) -> None:
    with grpc.insecure_channel(target) as channel:
        ready = channel.unary_unary(READY)
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"the peer ended: {log.read_text()[-2000:]}")
            try:
                if ready(_field(1, NAME.encode()), timeout=1) == b"\x08\x01":
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.1)
    raise RuntimeError(f"the peer did not become ready: {log.read_text()[-2000:]}")
