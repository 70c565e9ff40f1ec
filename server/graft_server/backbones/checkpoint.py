"""A folder in Hugging Face format: reads and checks its files, and says how to repair a bad one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graft_server.domain.errors import BackboneError

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A pre-trained model on disk."""

    name: str
    """The backbone's name on this server."""
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    """The content of config.json."""

    @classmethod
    def open(cls, name: str, folder: Path) -> Checkpoint:
        """Reads the configuration.

        Raises:
            BackboneError: There is none, or it is damaged.
        """
        return cls(name, folder, cls(name, folder).json("config.json"))

    @property
    def architecture(self) -> str:
        """`model_type` of its configuration, for example "bert"."""
        return str(self.config.get("model_type", ""))

    def has(self, file: str) -> bool:
        """Whether there is a file."""
        return (self.folder / file).is_file()

    def required(self, file: str) -> Path:
        """Returns a file's path, or raises BackboneError."""
        path = self.folder / file
        if not path.is_file():
            raise BackboneError(
                f"Backbone {self.name}: there is no {path.name} in its folder; a checkpoint saved with "
                "save_pretrained() has one.",
                reason="BACKBONE_FILE_MISSING",
            )
        return path

    def json(self, file: str) -> dict[str, Any]:
        """Returns a file's JSON object, or raises BackboneError."""
        try:
            content = json.loads(self.required(file).read_bytes())
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise BackboneError(
                f"Backbone {self.name}: {file} in its folder is not a JSON object: fetch or save the checkpoint again.",
                reason="BACKBONE_FILE_INVALID",
            )
        return content

    def digest(self, file: str) -> str:
        """Returns a file's SHA-256, or raises BackboneError."""
        return sha256(self.required(file))

    def weights(self) -> list[Path]:
        """Returns the files of its weights, in the order of their names; more than one if they are sharded.

        Raises:
            BackboneError: There are none as safetensors, a shard is missing, or an adapter lies beside them.
        """
        if self.has(_ADAPTER):
            raise self._adapter()
        if self.has(_WEIGHTS):
            return [self.folder / _WEIGHTS]
        if self.has(_INDEX):
            return self._shards()
        patterns = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
        other = sorted(path.name for pattern in patterns for path in self.folder.glob(pattern))
        found = f" It has {', '.join(other)}, but pickled weights are never loaded." if other else ""
        raise BackboneError(
            f"Backbone {self.name}: there is no {_WEIGHTS} in its folder.{found} Convert the checkpoint with "
            "save_pretrained(..., safe_serialization=True).",
            reason="BACKBONE_WEIGHTS_MISSING",
        )

    def _adapter(self) -> BackboneError:
        """What to do with PEFT's adapter, which changes weights that are elsewhere, or here but without it."""
        merge = (
            "Merge it into its model (PEFT's merge_and_unload()), save the result with save_pretrained(), and give "
            "that folder"
        )
        if self.has(_WEIGHTS) or self.has(_INDEX):
            return BackboneError(
                f"Backbone {self.name}: {_ADAPTER} and adapter_model.safetensors lie in its folder beside whole "
                f"weights, and would be left out. {merge}, or remove both if the weights are meant without it.",
                reason="BACKBONE_WEIGHTS_OTHER",
            )
        base = self.json(_ADAPTER).get("base_model_name_or_path") or "a model that it does not name"
        return BackboneError(
            f"Backbone {self.name}: its folder has an adapter to {base}, and no weights of its own. {merge}.",
            reason="BACKBONE_WEIGHTS_MISSING",
        )

    def _shards(self) -> list[Path]:
        places = self.json(_INDEX).get("weight_map")
        names = sorted({str(it) for it in places.values()}) if isinstance(places, dict) else []
        wrong = [it for it in names if Path(it).name != it or not it.endswith(".safetensors")]
        if not names or wrong:
            raise BackboneError(
                f"Backbone {self.name}: {_INDEX} does not name its shards as .safetensors files beside it: fetch "
                "or save the checkpoint again.",
                reason="BACKBONE_FILE_INVALID",
            )
        return [self.required(it) for it in names]


@dataclass(frozen=True, slots=True)
class Described:
    """The description of the backbone from a checkpoint's files."""

    layers: int
    dimension: int
    """The length of its feature vectors."""
    pooling: str
    """The reduction of the last layer's output to one vector; for texts "mean", "cls" or "last"."""
    identity: Mapping[str, Any]
    """All that decides its features beside the weights: digests of the files that preprocessing reads,
    limits, pooling, and `graph`, the name of the graph's recipe. Change that name whenever the same weights
    would give other features."""
    max_tokens: int = 0
    """The most tokens of a text that it reads, special tokens included; the rest is cut. 0: it reads no text."""


def sha256(path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
