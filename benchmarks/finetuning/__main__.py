"""Measures fine-tuning, and keeps what was measured in benchmarks/results/finetuning.json, cell by cell.

python -m benchmarks.finetuning accuracy --sets banking77                  auto over frozen, through the server
python -m benchmarks.finetuning training --set goemotions --layers 2       one tuning, with test figures as it goes
python -m benchmarks.finetuning speed                                      training and serving, as ratios
python -m benchmarks.finetuning training --rows 8000 --epochs 2 --rank 8   the same with low-rank adapters
python -m benchmarks.finetuning parting                                    serving models tuned in every layer
python -m benchmarks.finetuning page                                       the page anew from the cells

Cells of `accuracy` that are there already are not measured again: delete those that should be. Few examples have a
benchmark of their own, `benchmarks.fewshot`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.finetuning import accuracy, cells, lora, speed, training
from graft_server.adapting.publishing.fine_tuning import LAYER_DECAY, LEARNING_RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    tested = parts.add_parser("accuracy")
    tested.add_argument("--sets", nargs="+", default=list(accuracy.SETS), choices=list(accuracy.SETS))
    tested.add_argument("--epochs", type=int, default=0, help="0: the server's default")
    tested.add_argument("--store", type=Path, help="kept, so that a run that is cut short goes on")
    trained = parts.add_parser("training")
    trained.add_argument("--set", default="goemotions", choices=list(accuracy.SETS))
    trained.add_argument("--layers", type=int, default=0, help="how many of the upper layers; 0: all")
    trained.add_argument("--epochs", type=int, default=3)
    trained.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    trained.add_argument("--layer-decay", type=float, default=LAYER_DECAY)
    trained.add_argument("--rank", type=int, default=0, help="of low-rank adapters in every layer; 0: none")
    trained.add_argument("--rows", type=int, default=0, help="so many of the rows; 0: all")
    timed = parts.add_parser("speed")
    timed.add_argument("--examples", type=int, default=640)
    parts.add_parser("parting", help="what tuned weights in every layer cost at serving")
    parts.add_parser("page", help="write the page anew from what was measured")
    args = parser.parse_args()
    if args.part == "training":
        training.measure(
            args.set,
            layers=args.layers,
            epochs=args.epochs,
            learning_rate=args.learning_rate,
            layer_decay=args.layer_decay,
            rank=args.rank,
            rows=args.rows,
        )
    elif args.part == "speed":
        cells.keep("speed", speed.measure(args.examples))
    elif args.part == "parting":
        cells.keep("parting", lora.serving())
    elif args.part == "page":
        (cells.RESULTS / f"{cells.NAME}.md").write_text(cells.page(cells.read()))
    else:
        for name in args.sets:
            accuracy.measure(name, epochs=args.epochs, store=args.store)


if __name__ == "__main__":
    main()
