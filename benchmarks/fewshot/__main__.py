"""Measures tuning on few examples through the server: what `auto` serves within a budget, over the frozen head.

python -m benchmarks.fewshot                                  8, 16 and 64 a class, 10 draws of every set
python -m benchmarks.fewshot --sets questions films --per-class 8 --draws 3
python -m benchmarks.fewshot --backbone mpnet=build/weights/all-mpnet-base-v2 --per-class 8 16 --draws 3 --budget 600
python -m benchmarks.fewshot --bad-inputs                     what comes of those
python -m benchmarks.fewshot --list                           the sets, with what they are made of
python -m benchmarks.fewshot --page                           the page anew from what was measured

Each draw is kept as a line of benchmarks/results/fewshot.jsonl as it is done, with a fingerprint of the code that
decides what is tuned. What is there of the present code is not measured again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.datasets import DRAWS
from benchmarks.fewshot import bad_inputs, page
from benchmarks.fewshot.measure import DEFAULT, Wanted, measure
from benchmarks.fewshot.sets import NAMES, UnavailableError, load
from benchmarks.harness import server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--per-class", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds")
    parser.add_argument("--backbone", default="", metavar="NAME=FOLDER", help="default: the server's")
    parser.add_argument("--bad-inputs", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    if args.list:
        for name in NAMES:
            print(_described(name))
        return
    if not args.page:
        flags = ("--backbone", args.backbone) if args.backbone else ()
        backbone = args.backbone.partition("=")[0] or DEFAULT
        wanted = Wanted(args.sets, args.per_class, args.draws, args.budget, backbone)
        with tempfile.TemporaryDirectory(prefix="graft-fewshot-") as folder:
            store = Path(folder) / "store"
            with server(*flags, store=store) as running:
                if args.bad_inputs:
                    bad_inputs.measure(running, store)
                else:
                    measure(wanted, running, store)
    print("\n".join(page.write()))


def _described(name: str) -> str:
    try:
        data = load(name)
    except UnavailableError as error:
        return f"{name}: cannot be had: {error}"
    smallest = np.bincount(data.labels).min()
    return (
        f"{name}: {'topic' if data.about_topic else 'not topic'}, {len(data.label_names)} classes, {len(data.texts):,} "
        f"rows (the smallest class {smallest:,}), {len(data.test_texts):,} test rows; {data.source} ({data.licence})"
    )


if __name__ == "__main__":
    main()
