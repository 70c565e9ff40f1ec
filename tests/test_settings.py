"""Where settings come from, and what they may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from graft_server.cli import build_parser
from graft_server.domain.errors import InvalidError
from graft_server.settings import Settings, load


def write(folder: Path, text: str) -> Path:
    file = folder / "graft.toml"
    file.write_text(text)
    return file


def test_defaults_are_used_where_nothing_is_said():
    assert load({}, {}) == Settings()
    assert load({"listen": None}, {}).listen == "127.0.0.1:50051"


def test_a_flag_wins_over_a_variable_and_that_over_the_file(tmp_path):
    file = write(tmp_path, 'store = "file"\nworkers = 2\ncores = 3\n')
    settings = load({"store": "flag"}, {"GRAFT_STORE": "variable", "GRAFT_WORKERS": "4"}, file)
    assert (settings.store, settings.workers, settings.cores) == ("flag", 4, 3)


def test_every_setting_can_be_a_variable_and_a_key(tmp_path):
    values = {
        "listen": "0.0.0.0:1", "store": "s", "backbone": "a=b", "device": "cpu", "cache": "c", "workers": "2",
        "precision": "int8", "cores": "1", "batch-tokens": "9", "queued-requests": "7", "drain-seconds": "1.5",
        "max-connection-age-seconds": "60", "log-level": "debug", "max-image-mb": "2.5", "max-image-pixels": "1000",
        "max-image-ratio": "9", "max-audio-mb": "3", "max-audio-seconds": "60", "max-audio-ratio": "8",
    }  # fmt: skip
    variables = {f"GRAFT_{key.upper().replace('-', '_')}": value for key, value in values.items()}
    file = write(tmp_path, "".join(f'{key} = "{value}"\n' for key, value in values.items()))
    settings = load({}, variables)
    assert settings == load({}, {}, file)
    assert settings == Settings(
        listen="0.0.0.0:1", store="s", backbones={"a": "b"}, device="cpu", cache="c", workers=2, cores=1,
        precision="int8", batch_tokens=9, queued_requests=7, drain_seconds=1.5, max_connection_age_seconds=60,
        log_level="debug", max_image_mb=2.5, max_image_pixels=1000, max_image_ratio=9, max_audio_mb=3,
        max_audio_seconds=60, max_audio_ratio=8,
    )  # fmt: skip


@pytest.mark.parametrize("toml", ['listen = ["[::1]:1", "unix:/s"]', 'listen = "[::1]:1, unix:/s"'])
def test_addresses_may_be_several(tmp_path, toml):
    assert load({}, {}, write(tmp_path, toml)).addresses == ("[::1]:1", "unix:/s")
    assert load({"listen": ["[::1]:1", "unix:/s"]}, {}).addresses == ("[::1]:1", "unix:/s")
    assert load({}, {"GRAFT_LISTEN": "[::1]:1,unix:/s"}).addresses == ("[::1]:1", "unix:/s")


def test_other_variables_are_none_of_our_business():
    assert load({}, {"GRAFT_DATA": "x", "STORE": "y", "GRAFT_": "z"}) == Settings()


@pytest.mark.parametrize(
    "toml",
    [
        'backbone = ["a=/x", "b=/y=z"]',
        'backbone = "a=/x,b=/y=z"',
        '[backbones]\na = "/x"\nb = "/y=z"',
    ],
)
def test_backbones_keep_their_order_however_they_are_given(tmp_path, toml):
    settings = load({}, {}, write(tmp_path, toml))
    assert list(settings.backbones.items()) == [("a", "/x"), ("b", "/y=z")]
    assert settings.default_backbone == "a"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"listen": "50051"}, "HOST:PORT"),
        ({"listen": ":50051"}, "HOST:PORT"),
        ({"listen": "localhost:http"}, "HOST:PORT"),
        ({"listen": "localhost:65536"}, "HOST:PORT"),
        ({"listen": "127.0.0.1:0,,"}, "HOST:PORT"),
        ({"listen": ["127.0.0.1:0", "nonsense"]}, "HOST:PORT"),
        ({"listen": "::1:50051"}, "brackets"),
        ({"listen": "unix:"}, "unix:PATH"),
        ({"listen": "unix:/" + "x" * 107}, "107 bytes"),
        ({"device": "tpu"}, "auto, cpu or cuda"),
        ({"precision": "fp64"}, "fp32, int8 or fp16"),
        ({"log_level": "loud"}, "debug, info"),
        ({"workers": "many"}, "--workers"),
        ({"workers": "0"}, "at least 1"),
        ({"cores": "-1"}, "at least 0"),
        ({"batch_tokens": "1.5"}, "--batch-tokens"),
        ({"load_on_use": "minilm,absent"}, "load-on-use names absent, but the backbones are minilm"),
        ({"measure_seconds": "-1"}, "--measure-seconds is '-1': give a number, at least 0"),
        ({"measure_seconds": "inf"}, "--measure-seconds is 'inf': give a number, at least 0"),
        ({"queued_requests": "0"}, "at least 1"),
        ({"max_image_pixels": "0"}, "at least 1"),
        ({"max_audio_seconds": "0"}, "a number above 0"),
        ({"max_image_ratio": "nan"}, "a number above 0"),
        ({"drain_seconds": "-1"}, "drain-seconds"),
        ({"drain_seconds": "nan"}, "drain-seconds"),
        ({"max_connection_age_seconds": "-5"}, "max-connection-age-seconds"),
        ({"backbones": ["minilm"]}, "NAME=SOURCE"),
        ({"backbones": ["a=x", "a=y"]}, "each name once"),
        ({"backbones": []}, "at least one"),
        ({"backbones": ["=x"]}, "NAME=SOURCE"),
        ({"backbones": ["a="]}, "NAME=SOURCE"),
    ],
)
def test_a_bad_value_is_refused_and_what_is_right_is_said(flags, says):
    with pytest.raises(InvalidError) as raised:
        load(flags, {})
    assert says in raised.value.message
    assert raised.value.reason == "SETTING_INVALID"


@pytest.mark.parametrize(
    "toml", ["workers = 1.5", "workers = true", "store = 3", 'workers = "x"', "cores = []"]
)
def test_a_key_of_another_type_is_refused_with_its_name(tmp_path, toml):
    with pytest.raises(InvalidError, match=toml.split()[0]):
        load({}, {}, write(tmp_path, toml))


def test_an_unknown_key_is_refused_and_the_known_ones_are_named(tmp_path):
    with pytest.raises(InvalidError, match=r"stor .* is not a setting.*store"):
        load({}, {}, write(tmp_path, 'stor = "x"'))


def test_a_file_that_is_absent_or_not_toml_is_refused(tmp_path):
    for file in (tmp_path / "absent.toml", write(tmp_path, "store = ")):
        with pytest.raises(InvalidError, match=r"cannot be read"):
            load({}, {}, file)


def test_a_bad_variable_is_named():
    with pytest.raises(InvalidError, match="GRAFT_WORKERS"):
        load({}, {"GRAFT_WORKERS": "x"})


@pytest.mark.parametrize(("named", "expected"), [("", set()), ("b, a", {"a", "b"}), ("all", {"a", "b", "c"})])
def test_backbones_are_loaded_on_use_by_name(named, expected):
    flags = {"backbones": ["a=./a", "b=./b", "c=./c"], "load_on_use": named}
    assert load(flags, {}).backbones_on_use == expected


def test_every_setting_of_memory_and_of_how_much_at_once_can_be_a_flag():
    flags = {
        "cores": "3",
        "tuning-workers": "2",
        "tuning-memory-mb": "4000",
        "heads-memory-mb": "64",
        "tuned-memory-mb": "80",
        "publications": "5",
    }
    asked = build_parser().parse_args(["serve", *(f"--{name}={value}" for name, value in flags.items())])
    assert load(vars(asked), {}) == Settings(
        cores=3,
        tuning_workers=2,
        tuning_memory_mb=4000,
        heads_memory_mb=64,
        tuned_memory_mb=80,
        publications=5,
    )
