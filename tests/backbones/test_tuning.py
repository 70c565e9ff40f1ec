"""The job that tunes: what it comes to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.adapted import with_adapters
from graft_server.backbones.graphs.adapters import Adapter
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.compressing import Compressor
from graft_server.backbones.graphs.cutting import boundary_of, cut
from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.tuning_contract import Recipe, Tuned
from graft_server.backbones.tuning_objects import Part
from graft_server.domain.errors import FaultError
from graft_server.domain.report import TuningPoint
from graft_server.encoding.encoder import Encoder
from graft_server.encoding.tuned_layers import GraphPart, SplitEncoder, TunedLayers
from graft_server.jobs.job import Progress

BELOW = 5
"""One layer is tuned."""

Parts = dict[str, Path]


@pytest.fixture(scope="module")
def parts(encoder_cache: Path, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Paths of the graphs below and above the cut."""
    graph = onnx.load(str(EncoderCache(encoder_cache).graph(backbone.encoder_id)))
    found = cut(graph, boundary_of(graph, BELOW, backbone.name))
    folder = tmp_path_factory.mktemp("parts")
    onnx.save(found.below, str(folder / "below.onnx"))
    onnx.save(found.above, str(folder / "above.onnx"))
    return {"graph": folder / "above.onnx", "below_graph": folder / "below.onnx"}


@pytest.fixture(scope="module")
def start(intents, encoder: Encoder, tokenizer: TextTokenizer) -> dict[str, Any]:
    """The demo's examples, and a head on their classes' means."""
    names = sorted({label for _, label in intents})
    labels = np.array([names.index(label) for _, label in intents], np.int32)
    texts = [text for text, _ in intents]
    tokens = [it.item for it in tokenizer.many(texts)]
    chunks = [tokens[it : it + 16] for it in range(0, len(tokens), 16)]
    features = np.concatenate([encoder.encode(it)["pooled"] for it in chunks]).astype(np.float32)
    weight = np.stack([features[labels == it].mean(axis=0) for it in range(len(names))], axis=1)
    part = np.full(len(labels), Part.TRAIN, np.int8)
    part[::8], part[4::8] = Part.STOP, Part.MEASURE
    bias = np.zeros(len(names), np.float32)
    return {
        "items": tokens,
        "labels": labels,
        "weights": np.ones(len(labels)),
        "part": part,
        "head": (10 * weight, bias),
    }


@pytest.fixture
def ground(tmp_path: Path, backbone: Backbone, parts: Parts, start: dict[str, Any]) -> Callable[..., Any]:
    """Gives a `Ground` of the start's examples in a folder of its own."""
    from graft_server.backbones.torch.tuning.ground import Ground  # noqa: PLC0415 (torch only where it is needed)

    def make(
        name: str = "tuning",
        *,
        examples: dict[str, Any] | None = None,
        cached: bool = True,
        cache_bytes: int = 1 << 30,
        **recipe: Any,
    ) -> Ground:
        Examples.write(tmp_path / name, **{**start, **(examples or {})})
        return Ground(
            backbone=backbone,
            recipe=Recipe(**{"below": BELOW, "epochs": 1, **recipe}),
            examples=Examples.read(tmp_path / name),
            folder=tmp_path / name,
            cached=cached,
            cache_bytes=cache_bytes,
            **parts,
        )

    return make


def torch_of(array: np.ndarray) -> Any:
    import torch  # noqa: PLC0415 (only where it is needed)

    return torch.from_numpy(array)


def ignore(_told: Any) -> None:
    pass


def losses(tuned: Tuned) -> list[tuple[float, float]]:
    return [(it.log_loss, it.train_loss) for it in tuned.history]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415 (torch only where it is needed)

    named = ground("first", seed=3), ground("again", seed=3), ground("other", seed=4)
    first, again, other = (loop.tuned(it, ignore) for it in named)
    assert losses(first.tuned) == losses(again.tuned) != losses(other.tuned)
    assert first.top.read_bytes() == again.top.read_bytes() != other.top.read_bytes()
    np.testing.assert_array_equal(first.head[0], again.head[0])
    np.testing.assert_array_equal(first.features, again.features)


REBUILT = """
import json, sys
from pathlib import Path
from graft_server.backbones.source import open_backbone
from graft_server.backbones.torch.tuning import loop
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.ground import Ground
from graft_server.backbones.tuning_contract import Recipe
from graft_server.domain.report import TuningObjective

name, source, folder, graph, below_graph, recipe, number = json.loads(sys.argv[1])
recipe["objective"] = TuningObjective(recipe["objective"])
ground = Ground(
    backbone=open_backbone(name, source), recipe=Recipe(**recipe), examples=Examples.read(Path(folder)),
    graph=Path(graph), below_graph=Path(below_graph), folder=Path(folder),
)
"""
KILLED = """
import os
from graft_server.backbones.torch.tuning.checkpoint import Checkpoint

saved = 0
save = Checkpoint.save

def save_and_die(self, *arguments, **more):
    global saved
    save(self, *arguments, **more)
    saved += 1
    if saved == number:
        os.kill(os.getpid(), 9)

Checkpoint.save = save_and_die
loop.tuned(ground, lambda _: None)
"""


def run(code: str, ground: Any, number: int) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, on the same ground, with a number."""
    paths = map(str, (ground.folder, ground.graph, ground.below_graph))
    given = [DEFAULT_NAME, DEFAULT_SOURCE, *paths, asdict(ground.recipe), number]
    command = [sys.executable, "-c", REBUILT + code, json.dumps(given)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("checkpoint", [3, 1])
@pytest.mark.slow
def test_one_that_was_killed_goes_on_from_its_checkpoint_to_the_same_weights(ground, checkpoint):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    whole, killed = ground("whole", epochs=2), ground("killed", epochs=2)
    expected = loop.tuned(whole, ignore)
    assert run(KILLED, killed, checkpoint).returncode == -signal.SIGKILL
    found = loop.tuned(killed, ignore)
    assert expected.tuned.resumed == 0
    assert found.tuned.resumed > 0
    assert found.tuned.history[checkpoint].seconds > 0
    assert losses(found.tuned) == losses(expected.tuned)
    assert found.top.read_bytes() == expected.top.read_bytes()


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_left_alone(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    loop.tuned(ground(epochs=1), ignore)
    assert loop.tuned(ground(epochs=1, learning_rate=3e-4), ignore).tuned.resumed == 0


def test_a_checkpoint_of_garbage_begins_anew_and_goes(tmp_path):
    import torch  # noqa: PLC0415 (torch only where it is needed)

    from graft_server.backbones.torch.tuning.checkpoint import Checkpoint, State  # noqa: PLC0415

    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "fingerprint", State)
    checkpoint.save(State(step=3), weights=layer.state_dict(), best=layer.state_dict(), optimizer=optimizer)
    whole = checkpoint.path.read_bytes()
    assert checkpoint.load(optimizer)[0].step == 3
    kept = torch.load(checkpoint.path, weights_only=True)
    spoilt = [
        {**kept, "state": b"[]"},
        {**kept, "random": torch.zeros(3)},
        {**kept, "optimizer": {"state": {}, "param_groups": []}},
        {**kept, "weights": {"weight": torch.full((2, 2), torch.nan)}},
        {name: value for name, value in kept.items() if name != "best"},
        ["no", "mapping"],
    ]
    before = torch.get_rng_state()
    for garbage in (b"", b"garbage", whole[: len(whole) // 2], b"\x80\x04K\x01.", *spoilt):
        if isinstance(garbage, bytes):
            checkpoint.path.write_bytes(garbage)
        else:
            torch.save(garbage, checkpoint.path)
        assert checkpoint.load(optimizer) is None
        assert not checkpoint.path.exists()
        assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_of_a_newer_release_is_neither_read_nor_written_over(tmp_path):
    import torch  # noqa: PLC0415 (torch only where it is needed)

    from graft_server.backbones.torch.tuning.checkpoint import Checkpoint, State  # noqa: PLC0415

    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": 2, "fingerprint": "fingerprint", "shards": [1]}, path)
    newer = path.read_bytes()
    checkpoint = Checkpoint(path, "fingerprint", State)
    assert checkpoint.load(optimizer) is None
    checkpoint.save(State(step=3), weights=layer.state_dict(), best=layer.state_dict(), optimizer=optimizer)
    assert path.read_bytes() == newer


LIMITED = """
import resource

class Limited(loop.Loop):
    def begin(self):
        sizes = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        most = int(sizes["VmSize"].split()[0]) * 1024 + number
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        super().begin()

one = Limited(ground, lambda _: None)
tuned = one.run()
print(json.dumps([tuned.halved, tuned.ended, len(tuned.history), one.state.tokens_at_once]))
"""
"""Tunes with so many bytes of address space as there are once the model is loaded, and `number` more."""


@pytest.mark.slow
def test_out_of_memory_it_takes_smaller_parts_and_goes_on(ground, start, monkeypatch):
    # A step of 16 texts of 256 tokens needs more than 100 MB, in bfloat16 too; one text at a time, a few.
    generator = np.random.default_rng(0)
    few = {name: start[name][:18] for name in ("labels", "weights")}
    few["items"] = [generator.integers(1000, 20000, 256) for _ in range(18)]
    few["part"] = np.where(np.arange(18) < 16, Part.TRAIN, Part.STOP).astype(np.int8)
    # Address space is what can be limited, and malloc holds on to it: 64 MB a thread, and what was freed below its top.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    roomy, tight = (run(LIMITED, ground(str(it), examples=few), it << 20) for it in (4096, 120))
    halved, ended, evaluated, tokens = json.loads(roomy.stdout)
    assert (halved, ended, tokens) == (0, "done", 8192), roomy.stderr
    assert tight.returncode == 0, tight.stderr
    halved, ended, after, tokens = json.loads(tight.stdout)
    assert halved >= 1
    assert (ended, after) == ("done", evaluated)
    assert 256 <= tokens < 8192


def test_smaller_parts_add_up_to_the_same_step(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    def gradients(tokens: int) -> NDArray[np.float32]:
        one = loop.Loop(ground(), ignore)
        one.model.eval()  # without dropout, which would be another in each part
        one.state.tokens_at_once = tokens
        one.mixed = False
        one._backward(one.epoch(0)[0])
        return one.model.weight.grad.numpy()

    np.testing.assert_allclose(gradients(64), gradients(8192), atol=1e-6)


@pytest.mark.parametrize("cached", [True, False])
def test_a_budget_below_one_epoch_trains_nothing(ground, cached):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    result = loop.tuned(ground(seconds=0.001, cached=cached), ignore).tuned
    assert (result.ended, result.best, result.history) == ("no_time", 0, ())


def test_a_budget_that_ends_while_hidden_states_are_computed_computes_no_more_of_them(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    one = loop.Loop(ground(seconds=3600.0), ignore)
    computed, compute = [], one.hidden.compute

    def late(inputs: Any) -> Any:
        if len(computed) == 3:
            one._began -= 3600
        computed.append(len(computed))
        return compute(inputs)

    one.hidden.compute = late
    assert one.run().ended == "no_time"
    whole = loop.Loop(ground("whole"), ignore)
    batches, compute_of_whole = [], whole.hidden.compute
    whole.hidden.compute = lambda inputs: batches.append(1) or compute_of_whole(inputs)
    whole.keep_hidden()
    assert len(computed) <= 6 < len(batches)


def test_a_budget_that_ends_while_layers_are_tuned_ends_it_with_that_step_and_keeps_the_best_state(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    one = loop.Loop(ground(epochs=50, learning_rate=1e-3, seconds=3600.0), ignore)
    learn, steps = one.learn, []

    def timed(*arguments: Any) -> float:
        steps.append(1)
        if len(steps) == 12:
            one._began -= 3600
        return learn(*arguments)

    one.learn = timed
    result = one.run()
    assert (result.ended, len(steps), one.state.step) == ("time", 12, 12)
    losses_of = [it.log_loss for it in result.history]
    assert losses_of[result.best] < losses_of[0]
    assert losses_of[result.best] < min(losses_of) + loop.MIN_GAIN


@pytest.mark.slow
def test_a_killed_one_whose_budget_is_over_keeps_the_best_state_of_its_checkpoint(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    killed = ground("killed", epochs=100, learning_rate=1e-3, seconds=3600.0)
    assert run(KILLED, killed, 3).returncode == -signal.SIGKILL
    outcome = loop.tuned(replace(killed, recipe=replace(killed.recipe, seconds=0.001)), ignore)
    result = outcome.tuned
    assert result.resumed > 0
    assert result.ended == "time"
    losses_of = [it.log_loss for it in result.history]
    assert losses_of[result.best] < losses_of[0]
    assert losses_of[result.best] < min(losses_of) + loop.MIN_GAIN
    assert outcome.top.exists()


def test_a_loss_that_explodes_goes_back_to_the_best_state_and_on_more_slowly(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    one = loop.Loop(ground(learning_rate=50.0, epochs=3), ignore)
    result = one.run()
    assert (result.diverged, result.ended) == (loop.MAX_DIVERGED, "diverged")
    assert one.state.rate == pytest.approx(loop.SLOWER**loop.MAX_DIVERGED)
    best = result.history[result.best].log_loss
    assert one._evaluate(0.0).log_loss == pytest.approx(best, abs=1e-6)


@pytest.mark.slow
def test_training_ends_where_held_out_examples_gain_nothing_for_some_epochs(ground, start):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    # What is tuned on says nothing about what is held out.
    chance = np.random.default_rng(0).permutation(start["labels"])
    labels = np.where(start["part"] == Part.TRAIN, chance, start["labels"]).astype(np.int32)
    result = loop.tuned(ground(epochs=50, examples={"labels": labels}), ignore).tuned
    assert result.ended == "no_gain"
    evaluated = result.best + loop.PATIENCE * loop.EVALUATIONS
    assert len(result.history) == 1 + evaluated + len(loop.MIXTURES)


def test_training_starts_from_the_head_that_was_found(ground, start, encoder):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    one = loop.Loop(ground(), ignore)
    one.mixed = False
    one.model.eval()
    rows = np.flatnonzero(start["part"] == Part.STOP)[:4]
    weight, bias = start["head"]
    expected = [encoder.encode([start["items"][row]])["pooled"][0] @ weight + bias for row in rows]
    found = np.concatenate([one.logits(rows[it : it + 1]).detach().numpy() for it in range(len(rows))])
    np.testing.assert_allclose(found, expected, atol=0.02)  # float16 below the cut


def test_lower_layers_learn_more_slowly_and_rates_rise_and_then_fall(ground, parts, encoder_cache, backbone):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    graph = EncoderCache(encoder_cache).graph(backbone.encoder_id)
    one = loop.Loop(replace(ground(layer_decay=0.5, below=0), graph=graph, below_graph=None), ignore)
    one.begin()
    optimizer = one.optimizer()
    names = {id(it): name for name, it in one.model.named_parameters()}
    rates = {names[id(it)]: group["rate"] for group in optimizer.param_groups for it in group["params"]}
    for layer in range(backbone.layers):
        found = {rate for name, rate in rates.items() if f"layer.{layer}." in name}
        assert list(found) == [pytest.approx(1e-4 * 0.5 ** (backbone.layers - 1 - layer))]
    assert rates["weight"] == rates["bias"] == pytest.approx(1e-4)
    (embedded,) = {rate for name, rate in rates.items() if "embeddings" in name}
    assert embedded == pytest.approx(1e-4 * 0.5**backbone.layers)
    shares = []
    for step in range(101):
        one.state.step = step
        one._set_rates(optimizer, 100)
        shares.append(optimizer.param_groups[0]["lr"] / optimizer.param_groups[0]["rate"])
    top = int(np.argmax(shares))
    assert (top, shares[top]) == (10, pytest.approx(1))
    assert (np.diff(shares[:11]) > 0).all()
    assert (np.diff(shares[10:]) <= 0).all()
    assert shares[0] == shares[100] == pytest.approx(1e-3)


def test_progress_tells_the_time_that_is_left_from_the_first_step_on(ground, monkeypatch):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    monkeypatch.setattr(loop, "PROGRESS_S", 0.0)
    told: list[Progress] = []
    loop.tuned(ground(epochs=2), told.append)
    stages = list(dict.fromkeys(it.stage for it in told))
    assert stages == ["loading", "caching", "tuning", "encoding"]
    fractions = [it.fraction for it in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    steps = [it for it in told if it.stage == "tuning"]
    assert steps[0].metrics["epoch"] == 0
    assert steps[-1].eta_s < steps[0].eta_s


def test_hidden_states_are_computed_once_whatever_the_epochs(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    one = loop.Loop(ground(epochs=3), ignore)
    tokens, compute = [], one.hidden.compute

    def counted(inputs: Any) -> Any:
        states = compute(inputs)
        tokens.append(states.shape[1])
        return states

    one.hidden.compute = counted
    one.run()
    one.finish()
    longest = int(one.set.lengths.max())  # which is computed ahead, to see how much room all need
    assert sum(tokens) == int(one.set.lengths.sum()) + longest


def test_an_adapter_of_tuned_layers_serves_what_torch_computes_with_it(ground, parts, backbone, encoder):
    from graft_server.backbones.torch.tuning import loop, tunable  # noqa: PLC0415 (torch only where it is needed)

    given = ground(learning_rate=1e-3)
    run = loop.Loop(given, ignore)
    run.run()
    rows = np.arange(8)
    whole, _ = tunable.forward(run.model.eval(), run.set, run.hidden, run.preprocessor, rows)
    found = run.compressed()
    assert found is not None
    weights = Compressor(parts["graph"], run._original).weights(found.adapter)
    run.model.module.load_state_dict({name: torch_of(it) for name, it in weights.items()}, strict=False)
    right, _ = tunable.forward(run.model, run.set, run.hidden, run.preprocessor, rows)
    np.testing.assert_allclose(found.features[rows], right.detach().numpy(), atol=1e-3)

    adapter = Adapter.decode("a", found.adapter.encoded())
    room = with_adapters(onnx.load(str(parts["graph"])), backbone.name)
    split = SplitEncoder(encoder, backbone.preprocessor())
    split.add_cut(BELOW, *(GraphPart(parts[it], device="cpu", threads=1) for it in ("below_graph", "graph")))
    split.add_adapted(BELOW, GraphPart(room.SerializeToString(), device="cpu", threads=1))
    served = split.encode_by(TunedLayers(BELOW, adapter), run.set.items(rows))["pooled"]
    np.testing.assert_allclose(served, right.detach().numpy(), atol=1e-3)

    tuned, frozen = whole.detach().numpy(), encoder.encode(run.set.items(rows))["pooled"]
    near, far = ((1 - (it * tuned).sum(axis=1)).mean() for it in (served, frozen))
    assert near < 0.25 * far
    assert len(found.adapter.encoded()) < 0.05 * parts["graph"].stat().st_size


def test_a_tuned_graph_that_computes_something_else_than_torch_is_refused(ground, monkeypatch):
    from graft_server.backbones.torch.tuning import loop, tuned_graph  # noqa: PLC0415

    monkeypatch.setattr(tuned_graph, "replant", lambda *_: None)  # the graph keeps its old weights
    with pytest.raises(FaultError, match="differ from torch's") as raised:
        loop.tuned(ground(learning_rate=3e-3), ignore)
    assert raised.value.reason == "TUNED_PARITY"


@pytest.mark.slow
def test_what_does_not_fit_into_memory_is_kept_on_disk_and_gives_the_same(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    in_memory, on_disk = ground("memory"), ground("disk", cache_bytes=0)
    first, second = (loop.tuned(it, ignore) for it in (in_memory, on_disk))
    assert losses(first.tuned) == losses(second.tuned)
    assert first.top.read_bytes() == second.top.read_bytes()
    one = loop.Loop(on_disk, ignore)
    one.keep_hidden()
    assert isinstance(one.hidden._kept, np.memmap)
    # No name leads to it: it is gone with the process, however that ends.
    assert not any("hidden" in it.name for it in on_disk.folder.rglob("*"))


@pytest.mark.slow
def test_kept_states_train_as_computed_ones_do(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    kept, computed = ground("kept"), ground("computed", cached=False)
    results = [loop.tuned(it, ignore).tuned for it in (kept, computed)]
    np.testing.assert_allclose(losses(results[0]), losses(results[1]), atol=5e-3)


def test_states_between_the_first_and_the_last_one_are_tried_in_the_end(ground):
    from graft_server.backbones.torch.tuning import loop  # noqa: PLC0415

    one = loop.Loop(ground(learning_rate=3e-3), ignore)
    seen: list[NDArray[np.float32]] = []
    evaluate = one._evaluate

    def noting(epoch: float) -> TuningPoint:
        seen.append(one.model.weight.detach().numpy().copy())
        return evaluate(epoch)

    one._evaluate = noting  # type: ignore[method-assign]
    result = one.run()
    first, last = seen[0], seen[2]
    assert np.abs(last - first).max() > 0
    for state, share in zip(seen[3:], loop.MIXTURES, strict=True):
        np.testing.assert_allclose(state, first + share * (last - first), atol=1e-6)
    losses_of = [it.log_loss for it in result.history]
    assert result.best == int(np.argmin(losses_of))
    np.testing.assert_array_equal(one.model.weight.detach().numpy(), seen[result.best])
