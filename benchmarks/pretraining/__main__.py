"""See `benchmarks.pretraining`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from benchmarks.pretraining import images, sounds


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    folder = Path(sys.argv[1])
    made = {
        **dict.fromkeys(images.FASHION, images.pretrain_fashion),
        "groceries": images.pretrain_groceries,
        "digits": sounds.pretrain,
    }
    for name in sys.argv[2:] or made:
        torch.manual_seed(0)
        (folder / name).mkdir(parents=True, exist_ok=True)
        made[name](folder / name)


if __name__ == "__main__":
    main()
