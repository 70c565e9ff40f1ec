"""What benchmarks share: a server of their own, the hardware's name, and results that are committed."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
CACHE = Path(os.environ.get("GRAFT_CACHE") or "~/.cache/graft").expanduser()


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of a table of results."""

    what: str
    value: float
    unit: str
    target: str = ""
    """What was to be reached, or ""."""
    reference: str = ""
    """What it was compared with in the same run, and how that did."""
    met: bool | None = None
    part: str = ""
    """Which part of the benchmark measured it."""


@dataclass(slots=True)
class Server:
    """A server process."""

    target: str
    process: subprocess.Popen[str]
    log: list[str]

    def resident_mb(self) -> float:
        """Its resident memory now, in MB (10^6 bytes)."""
        return self._status("VmRSS") * 1024 / 1e6

    def peak_mb(self) -> float:
        """The most resident memory that it had, in MB."""
        return self._status("VmHWM") * 1024 / 1e6

    def cpu_s(self) -> float:
        """Processor time that it has used, in seconds."""
        return cpu_s(self.process.pid)

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return float(next(line for line in lines if line.startswith(name)).split()[1])


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(*flags: str, store: Path | None = None, tree: Path | None = None) -> Iterator[Server]:
    """Runs a server for as long as the block lasts, on a fresh store unless one is given; of `tree`, if not of this."""
    environment = dict(os.environ)
    if tree is not None:
        environment["PYTHONPATH"] = f"{tree / 'server'}{os.pathsep}{tree / 'client'}"
    with tempfile.TemporaryDirectory(prefix="graft-benchmark-") as fresh:
        command = [sys.executable, "-m", "graft_server.cli", "serve"]
        if "--listen" not in flags:
            command += ["--listen", "127.0.0.1:0"]
        command += ["--store", str(store or Path(fresh) / "store"), "--cache", str(CACHE), *flags]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        log: list[str] = []
        threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True).start()
        try:
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise RuntimeError(f"the server did not start: {''.join(log)}")
            yield Server(line.removeprefix("listening on ").strip(), process, log)
        finally:
            process.terminate()
            process.wait()


def hardware() -> dict[str, str | int]:
    """The machine, in words."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory:.0f} GiB",
        "gpu": "none",
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write(name: str, title: str, figures: Sequence[Figure], notes: Sequence[str] = ()) -> None:
    """Prints the figures and writes them to results/NAME.md and NAME.json."""
    machine = hardware()
    text = [f"# {title}", "", ", ".join(f"{key}: {value}" for key, value in machine.items()), ""]
    text += [*table(figures), *(["", *notes] if notes else [])]
    save(name, text, {"hardware": machine, "figures": [asdict(it) for it in figures], "notes": list(notes)})
    print("\n".join(text))


def table(figures: Sequence[Figure], reference: str = "reference in the same run") -> list[str]:
    """The lines of a table of figures; `reference` heads the column of what they were compared with."""
    lines = [f"| what | measured | target | {reference} | |", "|---|---|---|---|---|"]
    for it in figures:
        verdict = {None: "", True: "met", False: "**not met**"}[it.met]
        lines.append(f"| {it.what} | {it.value:.4g} {it.unit} | {it.target} | {it.reference} | {verdict} |")
    return lines


def save(name: str, lines: Sequence[str], content: object) -> None:
    """Writes results/NAME.md, and as JSON results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def merged(name: str, parts: Sequence[str], figures: Sequence[Figure]) -> list[Figure]:
    """The figures, and those of other parts that results/NAME.json has from earlier runs; by part."""
    measured = {it.part for it in figures}
    path = RESULTS / f"{name}.json"
    earlier = json.loads(path.read_text())["figures"] if path.exists() else []
    kept = [Figure(**it) for it in earlier if it.get("part") in {*parts} - measured]
    return sorted([*kept, *figures], key=lambda it: parts.index(it.part))


def measured(parts: Mapping[str, Callable[[], Sequence[Figure]]], chosen: Sequence[str]) -> list[Figure]:
    """Runs the chosen parts of a benchmark one after the other, and shows each figure as it comes."""
    figures: list[Figure] = []
    for name in chosen:
        print(f"--- {name}", flush=True)
        for figure in parts[name]():
            print(f"    {figure.what}: {figure.value:.4g} {figure.unit} ({figure.reference})", flush=True)
            figures.append(replace(figure, part=name))
    return figures


def at_least(what: str, value: float, least: float, unit: str = "", reference: str = "") -> Figure:
    """A figure that shall not be smaller."""
    return Figure(what, value, unit, f"≥ {least:g}", reference, value >= least)


def at_most(what: str, value: float, most: float, unit: str = "", reference: str = "") -> Figure:
    """A figure that shall not be larger."""
    return Figure(what, value, unit, f"≤ {most:g}", reference, value <= most)
