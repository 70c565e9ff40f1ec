"""Measures fine-tuning: python -m benchmarks.finetuning accuracy --sets banking77 --per-class 8 | speed.

Cells that benchmarks/results/finetuning.json has are not measured again: delete those that should be. All rows of
GoEmotions take about an hour on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.datasets import DRAWS
from benchmarks.finetuning import accuracy, cells, speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    tested = parts.add_parser("accuracy")
    tested.add_argument("--sets", nargs="+", default=list(accuracy.SETS), choices=list(accuracy.SETS))
    tested.add_argument("--per-class", type=int, default=0, help="0: all rows")
    tested.add_argument("--draws", type=int, nargs="+", default=list(range(DRAWS)))
    tested.add_argument("--epochs", type=int, default=0, help="0: the server's default")
    tested.add_argument("--store", type=Path, help="kept, so that a run that is cut short goes on")
    timed = parts.add_parser("speed")
    timed.add_argument("--examples", type=int, default=640)
    parts.add_parser("page", help="write the page anew from what was measured")
    args = parser.parse_args()
    if args.part == "speed":
        cells.keep("speed", speed.measure(args.examples))
    elif args.part == "page":
        (cells.RESULTS / f"{cells.NAME}.md").write_text(cells.page(cells.read()))
    else:
        for name in args.sets:
            accuracy.measure(
                name, per_class=args.per_class, draws=args.draws, epochs=args.epochs, store=args.store
            )


if __name__ == "__main__":
    main()
