"""Every supported architecture, all the way: loaded, adapted, asked, exported, and run again with plain onnxruntime.

python -m benchmarks.backbones

Checkpoints are small and have random weights, made as a user would make them (tests/backbones): what is measured is
whether the way from a checkpoint to a bundle changes what it says, not how good it is.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

import graft
from benchmarks.harness import Figure, server, write

CHECKPOINTS = Path(__file__).parents[1] / "tests" / "backbones"
PARITY = 1e-3
"""What an export may differ by, relative to the largest component of a feature vector."""
LABELS = ("red", "green", "blue")
RATE = 16_000

BUNDLE = """
import json, sys
from pathlib import Path
sys.modules.update(graft=None, graft_server=None)  # from here on, importing either fails
sys.path.append(sys.argv[1])
from predict import predict
kind, given = sys.argv[2], json.loads(sys.argv[3])
read = {"text": str, "pair": tuple, "file": Path}[kind]
answers = predict([read(it) for it in given])
assert not {"torch", "transformers"} & set(sys.modules)
print(json.dumps([dict(it.scores) for it in answers]))
"""

_NOTES = """\
"Parity": the largest difference between features of the exported graph and of the original model in torch, relative to
the largest component, at seven batch shapes, the longest input that is read among them. "Bundle": the largest
difference between probabilities that the server answered and those of the exported bundle, run without Graft: next to
nothing where both are certain. Where the backbone reads pairs, the inputs are pairs.
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for script in ("text_checkpoints.py", "checkpoints.py"):
            command = [sys.executable, "-W", "ignore", str(CHECKPOINTS / script), str(folder / "checkpoints")]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        sources = sorted((folder / "checkpoints").iterdir())
        flags = [f"--backbone={it.name}={it}" for it in sources]
        flags += ["--workers=2", "--measure-seconds=0"]
        with server(*flags) as running, graft.Client(running.target) as client:
            backbones = sorted(client.backbones(), key=lambda it: (it.modality, it.architecture, it.name))
            figures = [_measured(client, it, folder / "bundles" / it.name) for it in backbones]
        write("backbones", "Every architecture, from checkpoint to bundle", figures, _NOTES.splitlines())


def _measured(client: graft.Client, backbone: graft.Backbone, folder: Path) -> Figure:
    """Parity of one backbone; an architecture that fails on the way fails the benchmark."""
    pairs = "text_pair" in backbone.input_kinds
    kind = "pair" if pairs else "text" if backbone.modality == "text" else "file"
    make: Callable[[str, int], Any] = {
        "pair": lambda label, seed: graft.TextPair(_text(label, seed), "is it so?"),
        "text": _text,
        "file": _picture if backbone.modality == "image" else _clip,
    }[kind]
    examples = [(make(label, seed), label) for seed in range(8) for label in LABELS]
    model = f"backbones/{backbone.name}"
    client.adapt(model, examples, backbone=backbone.name)
    inputs = [make(label, 100 + seed) for seed in range(4) for label in LABELS]
    served = [{it.label: it.probability for it in answer.scores} for answer in client.predict(model, inputs)]
    client.export(model, folder)
    bundled = _bundled(folder, kind, inputs)
    off = max(
        abs(one[label] - other[label]) for one, other in zip(served, bundled, strict=True) for label in one
    )
    what = f"{backbone.name}: {backbone.architecture}, {backbone.modality}{', pairs' if pairs else ''}"
    met = backbone.export_parity <= PARITY and off <= PARITY
    return Figure(what, backbone.export_parity, "parity", f"≤ {PARITY:g}", f"bundle {off:.1e}", met)


def _bundled(folder: Path, kind: str, inputs: list[Any]) -> list[dict[str, float]]:
    if kind == "file":
        given: list[Any] = []
        for number, data in enumerate(inputs):
            file = folder / f"input-{number}"
            file.write_bytes(data)
            given.append(str(file))
    else:
        given = [[it.first, it.second] for it in inputs] if kind == "pair" else inputs
    command = [sys.executable, "-P", "-c", BUNDLE, str(folder), kind, json.dumps(given)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd="/")
    answers: list[dict[str, float]] = json.loads(ended.stdout)
    return answers


def _text(label: str, seed: int) -> str:
    words = {"red": "the lock is stuck", "green": "my bill is wrong", "blue": "is the lock my bill"}[label]
    return f"{words} {seed}"


def _picture(label: str, seed: int) -> bytes:
    """Noise that is brighter in one colour."""
    values = np.random.default_rng(seed).integers(0, 120, (40, 50, 3))
    values[:, :, LABELS.index(label)] += 130
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _clip(label: str, seed: int) -> bytes:
    """A hum, a hiss or a whistle, of 0.4 to 1.2 seconds."""
    generator = np.random.default_rng(seed)
    times = np.arange(int(RATE * generator.uniform(0.4, 1.2))) / RATE
    noise = generator.normal(0, 0.2 if label == "green" else 0.005, len(times))
    pitch = {"red": 150, "green": 0, "blue": 4_000}[label] * generator.uniform(0.95, 1.05)
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * pitch * times) + noise, RATE, format="WAV")
    return file.getvalue()


if __name__ == "__main__":
    main()
