"""Draws docs/accuracy.svg, accuracy over the number of examples, from results/heads.json.

python -m benchmarks.heads.plot
"""

from __future__ import annotations

import json
import math
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 40, 48
LOW, HIGH = 30, 100
LINES = {
    "head": ("Graft, frozen MiniLM-L6", "#2b7a4b"),
    "scratch": ("from scratch: TF-IDF + logistic", "#9c6b30"),
}


def main() -> None:
    curve = json.loads((ROOT / "benchmarks/results/heads.json").read_text())["curve"]
    sizes = sorted(map(int, curve))
    parts = [_frame(sizes)]
    for key, (name, colour) in LINES.items():
        points = [(_x(size, sizes), _y(100 * curve[str(size)][key])) for size in sizes]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        last = curve[str(sizes[-1])][key]
        x, y = points[-1]
        place, offset = (0, 28) if key == "head" else (2, 22)
        parts.append(
            f'<text x="{x + 8:.0f}" y="{y + 4:.0f}" fill="{colour}" font-weight="600">{100 * last:.1f}%</text>'
        )
        middle_x, middle_y = points[place]
        parts.append(
            f'<text x="{middle_x + 10:.0f}" y="{middle_y + offset:.0f}" fill="{colour}">{name}</text>'
        )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="13"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        + "".join(parts)
        + "</svg>\n"
    )
    (ROOT / "docs/accuracy.svg").write_text(svg)


def _frame(sizes: list[int]) -> str:
    parts = [
        f'<text x="{LEFT}" y="22" font-weight="600">Banking77: accuracy on 3,080 test questions, 77 intents</text>'
    ]
    for percent in range(LOW, HIGH + 1, 10):
        y = _y(percent)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{percent}%</text>')
    for size in (sizes[0], sizes[1], sizes[2], sizes[3], sizes[-2], sizes[-1]):
        x = _x(size, sizes)
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#555">{size:,}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle" fill="#555">labelled examples</text>'
    )
    return "".join(parts)


def _x(size: int, sizes: list[int]) -> float:
    share = (math.log(size) - math.log(sizes[0])) / (math.log(sizes[-1]) - math.log(sizes[0]))
    return LEFT + 12 + share * (WIDTH - LEFT - RIGHT - 24)


def _y(percent: float) -> float:
    return TOP + (HIGH - percent) / (HIGH - LOW) * (HEIGHT - TOP - BOTTOM)


if __name__ == "__main__":
    main()
