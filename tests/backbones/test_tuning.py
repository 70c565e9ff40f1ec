"""The job that tunes: what it comes to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graft_server.backbones import scratch, tuning_contract
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.cutting import boundary_of, cut
from graft_server.backbones.scratch import Part, Scratch
from graft_server.backbones.text.preprocessor import TextTokenizer
from graft_server.domain.errors import FaultError
from graft_server.encoding.encoder import Encoder

BELOW = 5
"""One layer is tuned."""

Payload = dict[str, Any]


@pytest.fixture(scope="module")
def parts(encoder_cache: Path, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Payload:
    """Paths of the graphs below and above the cut."""
    graph = onnx.load(str(EncoderCache(encoder_cache).graph(backbone.encoder_id)))
    found = cut(graph, boundary_of(graph, BELOW, backbone.name))
    folder = tmp_path_factory.mktemp("parts")
    onnx.save(found.below, str(folder / "below.onnx"))
    onnx.save(found.above, str(folder / "above.onnx"))
    return {"graph": str(folder / "above.onnx"), "below_graph": str(folder / "below.onnx")}


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
def payload(
    tmp_path: Path, backbone: Backbone, parts: Payload, start: dict[str, Any]
) -> Callable[..., Payload]:
    """Gives the payload of a tuning in a scratch folder of its own."""

    def make(name: str = "scratch", *, examples: dict[str, Any] | None = None, **settings: Any) -> Payload:
        Scratch.write(tmp_path / name, **{**start, **(examples or {})})
        fixed = {"backbone": backbone.payload(), "scratch": str(tmp_path / name), "below": BELOW, **parts}
        return {**fixed, "epochs": 1, **settings}

    return make


def ignore(_told: Any) -> None:
    pass


def made(payload: Payload) -> tuple[bytes, NDArray[np.float32], NDArray[np.float16]]:
    """The tuned graph, head weights and features that a tuning left."""
    folder = Path(payload["scratch"])
    head = np.load(folder / scratch.TUNED_HEAD)["weight"]
    return (folder / scratch.TOP).read_bytes(), head, np.load(folder / scratch.FEATURES)


def losses(result: dict[str, Any]) -> list[tuple[float, float]]:
    return [(it["log_loss"], it["train_loss"]) for it in result["history"]]


def test_the_same_seed_gives_the_same_weights(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415 (torch only where it is needed)

    first, again, other = payload("first", seed=3), payload("again", seed=3), payload("other", seed=4)
    results = [tuning.tune(it, ignore) for it in (first, again, other)]
    assert losses(results[0]) == losses(results[1]) != losses(results[2])
    graph, head, features = made(first)
    assert graph == made(again)[0] != made(other)[0]
    np.testing.assert_array_equal(head, made(again)[1])
    np.testing.assert_array_equal(features, made(again)[2])


KILLED = """
import json, os, sys
from graft_server.backbones.torch import tuning
from graft_server.backbones.torch.tuning_state import Checkpoint

payload, steps, saved = json.loads(sys.argv[1]), int(sys.argv[2]), 0
save = Checkpoint.save

def save_and_die(self, *arguments, **more):
    global saved
    save(self, *arguments, **more)
    saved += 1
    if saved == steps:
        os.kill(os.getpid(), 9)

Checkpoint.save = save_and_die
tuning.tune(payload, lambda _: None)
"""


def run(code: str, payload: Payload, argument: int) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, with the payload and a number."""
    command = [sys.executable, "-c", code, json.dumps(payload), str(argument)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("checkpoint", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_one_that_was_killed_goes_on_from_its_checkpoint_to_the_same_weights(payload, checkpoint):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    whole, killed = payload("whole", epochs=2), payload("killed", epochs=2)
    expected = tuning.tune(whole, ignore)
    assert run(KILLED, killed, checkpoint).returncode == -signal.SIGKILL
    result = tuning.tune(killed, ignore)
    assert expected["resumed"] == 0
    assert result["resumed"] > 0
    assert result["history"][checkpoint]["seconds"] > 0
    assert losses(result) == losses(expected)
    assert made(killed)[0] == made(whole)[0]


def test_a_checkpoint_of_other_settings_is_left_alone(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    tuning.tune(payload(epochs=1), ignore)
    assert tuning.tune(payload(epochs=1, learning_rate=3e-4), ignore)["resumed"] == 0


LIMITED = """
import json, resource, sys
from pathlib import Path
import msgspec
from graft_server.backbones import tuning_contract
from graft_server.backbones.torch import tuning

payload, room = json.loads(sys.argv[1]), int(sys.argv[2])

class Limited(tuning.Tuning):
    def begin(self):
        sizes = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        most = int(sizes["VmSize"].split()[0]) * 1024 + room
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        super().begin()

one = Limited(msgspec.convert(payload, tuning_contract.Task), lambda _: None)
result = one.run()
print(json.dumps([result["halved"], result["ended"], len(result["history"]), one.state.tokens_at_once]))
"""
"""Tunes with so many bytes of address space as there are once the model is loaded, and `room` more."""


@pytest.mark.slow
def test_out_of_memory_it_takes_smaller_parts_and_goes_on(payload, start, monkeypatch):
    # A step of 16 texts of 256 tokens needs more than 100 MB, in bfloat16 too; one text at a time, a few.
    generator = np.random.default_rng(0)
    few = {name: start[name][:18] for name in ("labels", "weights")}
    few["items"] = [generator.integers(1000, 20000, 256) for _ in range(18)]
    few["part"] = np.where(np.arange(18) < 16, Part.TRAIN, Part.STOP).astype(np.int8)
    # Address space is what can be limited, and malloc holds on to it: 64 MB a thread, and what was freed below its top.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    roomy, tight = (run(LIMITED, payload(str(it), examples=few), it << 20) for it in (4096, 120))
    halved, ended, evaluated, tokens = json.loads(roomy.stdout)
    assert (halved, ended, tokens) == (0, "done", 8192), roomy.stderr
    assert tight.returncode == 0, tight.stderr
    halved, ended, after, tokens = json.loads(tight.stdout)
    assert halved >= 1
    assert (ended, after) == ("done", evaluated)
    assert 256 <= tokens < 8192


def test_smaller_parts_add_up_to_the_same_step(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    def gradients(tokens: int) -> NDArray[np.float32]:
        one = tuning.Tuning(msgspec.convert(payload(), tuning_contract.Task), ignore)
        one.model.eval()  # without dropout, which would be another in each part
        one.state.tokens_at_once = tokens
        one.mixed = False
        one._backward(one.epoch(0)[0])
        return one.model.weight.grad.numpy()

    np.testing.assert_allclose(gradients(64), gradients(8192), atol=1e-6)


@pytest.mark.parametrize("cached", [True, False])
def test_a_budget_below_one_epoch_trains_nothing(payload, cached):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    result = tuning.tune(payload(seconds=0.001, cached=cached), ignore)
    assert (result["ended"], result["best"], result["history"]) == ("no_time", 0, [])


def test_a_budget_that_ends_while_hidden_states_are_computed_computes_no_more_of_them(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    one = tuning.Tuning(msgspec.convert(payload(seconds=3600.0), tuning_contract.Task), ignore)
    computed, compute = [], one.hidden.compute

    def late(inputs: Any) -> Any:
        if len(computed) == 3:
            one._began -= 3600
        computed.append(len(computed))
        return compute(inputs)

    one.hidden.compute = late
    assert one.run()["ended"] == "no_time"
    whole = tuning.Tuning(msgspec.convert(payload("whole"), tuning_contract.Task), ignore)
    batches, compute_of_whole = [], whole.hidden.compute
    whole.hidden.compute = lambda inputs: batches.append(1) or compute_of_whole(inputs)
    whole.keep_hidden()
    assert len(computed) <= 6 < len(batches)


def test_a_budget_that_ends_while_layers_are_tuned_ends_it_with_that_step_and_keeps_the_best_state(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    one = tuning.Tuning(
        msgspec.convert(payload(epochs=50, learning_rate=1e-3, seconds=3600.0), tuning_contract.Task), ignore
    )
    learn, steps = one.learn, []

    def timed(*arguments: Any) -> float:
        steps.append(1)
        if len(steps) == 12:
            one._began -= 3600
        return learn(*arguments)

    one.learn = timed
    result = one.run()
    assert (result["ended"], len(steps), one.state.step) == ("time", 12, 12)
    losses_of = [it["log_loss"] for it in result["history"]]
    assert losses_of[result["best"]] < losses_of[0]
    assert losses_of[result["best"]] < min(losses_of) + tuning.MIN_GAIN


def test_a_killed_one_whose_budget_is_over_keeps_the_best_state_of_its_checkpoint(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    killed = payload("killed", epochs=100, learning_rate=1e-3, seconds=3600.0)
    assert run(KILLED, killed, 3).returncode == -signal.SIGKILL
    result = tuning.tune({**killed, "seconds": 0.001}, ignore)
    assert result["resumed"] > 0
    assert result["ended"] == "time"
    losses_of = [it["log_loss"] for it in result["history"]]
    assert losses_of[result["best"]] < losses_of[0]
    assert losses_of[result["best"]] < min(losses_of) + tuning.MIN_GAIN
    assert (Path(killed["scratch"]) / scratch.TOP).exists()


def test_a_loss_that_explodes_goes_back_to_the_best_state_and_on_more_slowly(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    one = tuning.Tuning(msgspec.convert(payload(learning_rate=50.0, epochs=3), tuning_contract.Task), ignore)
    result = one.run()
    assert (result["diverged"], result["ended"]) == (tuning.MAX_DIVERGED, "diverged")
    assert one.state.rate == pytest.approx(tuning.SLOWER**tuning.MAX_DIVERGED)
    best = result["history"][result["best"]]["log_loss"]
    assert one._evaluate(0.0).log_loss == pytest.approx(best, abs=1e-6)


def test_training_ends_where_held_out_examples_gain_nothing_for_some_epochs(payload, start):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    # What is tuned on says nothing about what is held out.
    chance = np.random.default_rng(0).permutation(start["labels"])
    labels = np.where(start["part"] == Part.TRAIN, chance, start["labels"]).astype(np.int32)
    result = tuning.tune(payload(epochs=50, examples={"labels": labels}), ignore)
    assert result["ended"] == "no_gain"
    evaluated = result["best"] + tuning.PATIENCE * tuning.EVALUATIONS
    assert len(result["history"]) == 1 + evaluated + len(tuning.MIXTURES)


def test_training_starts_from_the_head_that_was_found(payload, start, encoder):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    one = tuning.Tuning(msgspec.convert(payload(), tuning_contract.Task), ignore)
    one.mixed = False
    one.model.eval()
    rows = np.flatnonzero(start["part"] == Part.STOP)[:4]
    weight, bias = start["head"]
    expected = [encoder.encode([start["items"][row]])["pooled"][0] @ weight + bias for row in rows]
    found = np.concatenate([one.logits(rows[it : it + 1]).detach().numpy() for it in range(len(rows))])
    np.testing.assert_allclose(found, expected, atol=0.02)  # float16 below the cut


def test_lower_layers_learn_more_slowly_and_rates_rise_and_then_fall(payload, parts, encoder_cache, backbone):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    whole = {
        "below": 0,
        "below_graph": "",
        "graph": str(EncoderCache(encoder_cache).graph(backbone.encoder_id)),
    }
    one = tuning.Tuning(msgspec.convert(payload(layer_decay=0.5, **whole), tuning_contract.Task), ignore)
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


def test_progress_tells_the_time_that_is_left_from_the_first_step_on(payload, monkeypatch):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    monkeypatch.setattr(tuning, "PROGRESS_S", 0.0)
    told: list[dict[str, Any]] = []
    tuning.tune(payload(epochs=2), told.append)
    stages = list(dict.fromkeys(it["stage"] for it in told))
    assert stages == ["loading", "caching", "tuning", "encoding"]
    fractions = [it["fraction"] for it in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    steps = [it for it in told if it["stage"] == "tuning"]
    assert steps[0]["metrics"]["epoch"] == 0
    assert steps[-1]["eta_s"] < steps[0]["eta_s"]


def test_hidden_states_are_computed_once_whatever_the_epochs(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    one = tuning.Tuning(msgspec.convert(payload(epochs=3), tuning_contract.Task), ignore)
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


def test_a_tuned_graph_that_computes_something_else_than_torch_is_refused(payload, monkeypatch):
    from graft_server.backbones.torch import tuned_graph, tuning  # noqa: PLC0415

    monkeypatch.setattr(tuned_graph, "replant", lambda *_: None)  # the graph keeps its old weights
    with pytest.raises(FaultError, match="differ from torch's") as raised:
        tuning.tune(payload(learning_rate=3e-3), ignore)
    assert raised.value.reason == "TUNED_PARITY"


def test_what_does_not_fit_into_memory_is_kept_on_disk_and_gives_the_same(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    in_memory, on_disk = payload("memory"), payload("disk", cache_bytes=0)
    assert losses(tuning.tune(in_memory, ignore)) == losses(tuning.tune(on_disk, ignore))
    assert not (Path(in_memory["scratch"]) / scratch.HIDDEN).exists()
    assert (Path(on_disk["scratch"]) / scratch.HIDDEN).exists()
    assert made(in_memory)[0] == made(on_disk)[0]


def test_kept_states_train_as_computed_ones_do(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    kept, computed = payload("kept"), payload("computed", cached=False)
    results = [tuning.tune(it, ignore) for it in (kept, computed)]
    np.testing.assert_allclose(losses(results[0]), losses(results[1]), atol=5e-3)


def test_states_between_the_first_and_the_last_one_are_tried_in_the_end(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415

    task = msgspec.convert(payload(learning_rate=3e-3), tuning_contract.Task)
    one = tuning.Tuning(task, ignore)
    seen: list[NDArray[np.float32]] = []
    evaluate = one._evaluate

    def noting(epoch: float) -> tuning.Evaluated:
        seen.append(one.model.weight.detach().numpy().copy())
        return evaluate(epoch)

    one._evaluate = noting  # type: ignore[method-assign]
    result = one.run()
    first, last = seen[0], seen[2]
    assert np.abs(last - first).max() > 0
    for state, share in zip(seen[3:], tuning.MIXTURES, strict=True):
        np.testing.assert_allclose(state, first + share * (last - first), atol=1e-6)
    losses_of = [it["log_loss"] for it in result["history"]]
    assert result["best"] == int(np.argmin(losses_of))
    np.testing.assert_array_equal(one.model.weight.detach().numpy(), seen[result["best"]])
