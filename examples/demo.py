"""The whole job on a small data set: what `make demo` runs.

Starts a server on a free port with a store of its own, streams 288 labelled sentences into it, prints the
report of the model that comes of them, asks it about sentences that it has not seen, measures it, and leaves
an ONNX bundle in build/demo-bundle that needs no server.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

import graft

HERE = Path(__file__).resolve().parent
TRAIN, TEST = HERE / "intents" / "train.csv", HERE / "intents" / "test.csv"
BUNDLE = HERE.parent / "build" / "demo-bundle"
MODEL = "demo/bike-rental-intents"
LATENCY_CALLS = 200
SHOWN = 6

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graft-demo-") as work:
        with running_server(Path(work)) as target, graft.Client(target) as client:
            adapt(client)
            step("The report of the new version (the command `graft report`)")
            command("report", MODEL, "--server", target)
            predict(client)
            evaluate(client)
            measure_latency(client)
            bundle = export(client)
        step("The server is stopped; what it knew is in the bundle")
    console.print(f"ONNX model: [bold]{bundle.onnx}[/]")
    console.print(f"Done in {time.monotonic() - began:.0f} s.")
    step("What to do next")
    for what, line in next_steps():
        console.print(f"  {what}:\n    [bold]{line}[/]", markup=True)


def next_steps() -> list[tuple[str, str]]:
    """What there is to do after the demo, and the command or the page for it, as seen from the folder of this shell."""
    graft, server = (short(program(name)) for name in ("graft", "graft-server"))
    train, test = short(TRAIN), short(TEST)
    return [
        ("start a server that stays, and keeps all it knows in ./store", f"{server} serve --store ./store &"),
        ("teach it", f"{graft} adapt bikes {train} --input text --label intent"),
        ("ask it", f'{graft} predict bikes "the lock stays shut"'),
        ("have a file answered", f"{graft} predict bikes {test} --output answers.csv"),
        ("the same in Python", f"{short(sys.executable)} {short(HERE / 'quickstart.py')}"),
        (
            "your own file, corrections, next week's examples, going back",
            short(HERE.parent / "docs/tutorial.md"),
        ),
        ("all commands", f"{graft} --help"),
    ]


def short(path: str | Path) -> str:
    """A path as one would type it here: relative, where it lies below the folder of this shell."""
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return str(path)


def step(text: str) -> None:
    console.print(f"\n[bold cyan]▸ {text}[/]")


@contextlib.contextmanager
def running_server(work: Path) -> Iterator[str]:
    """A server of our own, from its readiness to its end; gives its HOST:PORT."""
    step("Starting a server (the first time it exports its encoder to ONNX, which takes about 15 s)")
    started = time.monotonic()
    log = work / "server.log"
    arguments = [program("graft-server"), "serve", "--listen", "127.0.0.1:0", "--store", str(work / "store")]
    with log.open("wb") as stderr:
        server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=stderr, text=True)  # noqa: S603
    try:
        with console.status("waiting until it is ready"):
            target = listening_on(server, log)
        console.print(f"listening on {target} after {time.monotonic() - started:.1f} s")
        yield target
    finally:
        server.terminate()
        server.wait()


def listening_on(server: subprocess.Popen[str], log: Path) -> str:
    for line in server.stdout or ():
        if line.startswith("listening on "):
            return line.removeprefix("listening on ").strip()
    sys.exit(f"The server ended before it was ready. Its last words:\n{log.read_text()[-4000:]}")


def adapt(client: graft.Client) -> None:
    examples = list(graft.read_examples(TRAIN, input="text", label="intent"))
    step(f"Streaming {len(examples)} labelled sentences in, then training on them")
    started = time.monotonic()
    with Progress(console=console, transient=True) as bar:
        stored = bar.add_task("stored", total=len(examples))
        trained = bar.add_task("trained", total=1.0)

        def show(progress: graft.AdaptProgress) -> None:
            bar.update(stored, completed=progress.acknowledged)
            bar.update(trained, completed=progress.fraction, description=progress.stage)

        result = client.adapt(MODEL, examples, on_progress=show)
    console.print(f"version {result.version} is live after {time.monotonic() - started:.1f} s")
    if result.rejected:
        console.print(
            f"{result.rejected_count} examples were refused; the first: {result.rejected[0].detail}"
        )


def predict(client: graft.Client) -> None:
    step("Asking about sentences that it has not seen")
    examples = list(graft.read_examples(TEST, input="text", label="intent"))[:SHOWN]
    predictions = client.predict(MODEL, [example.input for example in examples])
    for example, prediction in zip(examples, predictions, strict=True):
        mark = "[green]✓[/]" if prediction.label == example.label else f"[red]✗ is {example.label}[/]"
        console.print(f"  {prediction.probability or 0:4.0%} {prediction.label:<20} {mark} {example.input}")
    stranger = client.predict(MODEL, "the mitochondria is the powerhouse of the cell")[0]
    console.print(
        f"  something else entirely: {stranger.label} at {stranger.probability or 0:.0%}, "
        f"novelty {stranger.novelty:.2f}, {'abstained' if stranger.abstained else 'not abstained'}"
    )


def evaluate(client: graft.Client) -> None:
    step("Measuring it on the held-out file")
    result = client.evaluate(MODEL, graft.read_examples(TEST, input="text", label="intent"))
    console.print(
        f"accuracy [bold]{result.accuracy:.1%}[/] on {result.examples} sentences, macro-F1 {result.macro_f1:.1%}"
    )


def measure_latency(client: graft.Client) -> None:
    step(f"Timing {LATENCY_CALLS} predictions, one text a call, one after the other")
    texts = [example.input for example in graft.read_examples(TEST, input="text", label="intent")]
    times_ms = []
    for call in range(LATENCY_CALLS):
        began = time.perf_counter()
        client.predict(MODEL, texts[call % len(texts)])
        times_ms.append(1000 * (time.perf_counter() - began))
    cuts = statistics.quantiles(times_ms, n=100)
    console.print(f"latency p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")


def export(client: graft.Client) -> graft.Bundle:
    step("Exporting a bundle that needs no server, and running it on one sentence")
    shutil.rmtree(BUNDLE, ignore_errors=True)
    with console.status("composing and checking the bundle"):
        bundle = client.export(MODEL, BUNDLE)
    for path in bundle.files:
        console.print(f"  {path.relative_to(BUNDLE)}  {path.stat().st_size / 1024:,.0f} KiB")
    runner = next(path for path in bundle.files if path.suffix == ".py")
    run([sys.executable, str(runner), "someone crashed into me while I was riding"])
    return bundle


def command(*arguments: str) -> None:
    run([program("graft"), *arguments])


def run(arguments: list[str]) -> None:
    console.print(f"[dim]$ {Path(arguments[0]).name} {' '.join(arguments[1:])}[/]")
    subprocess.run(arguments, check=True)  # noqa: S603


def program(name: str) -> str:
    """A program of this Python's environment, or else of the search path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or sys.exit(f"'{name}' is not installed; `make setup` installs it.")


if __name__ == "__main__":
    try:
        main()
    except graft.GraftError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
