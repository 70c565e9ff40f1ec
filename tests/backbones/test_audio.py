"""Sound to samples and spectrograms: what transformers' extractors make of it, within bounds, and what is refused."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import soundfile

from graft_server.backbones.decoding.audio import (
    AudioError,
    AudioLimits,
    LogMelRecipe,
    WaveformRecipe,
    decode_audio,
)

RATE = 16_000


def tone(seconds: float = 1.0, rate: int = RATE, pitch: float = 440.0) -> Any:
    return (0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def saved(samples: Any, rate: int = RATE, form: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def refused(data: bytes, limits: AudioLimits | None = None) -> AudioError:
    with pytest.raises(AudioError) as raised:
        decode_audio(data, RATE, limits=limits)
    return raised.value


def clips(data: Any) -> list[Any]:
    paths = sorted((data / "fsdd").rglob("*.wav"))[::250]
    assert len(paths) > 5
    return [decode_audio(path.read_bytes(), RATE).samples for path in paths]


@pytest.mark.parametrize("mels", [80, 128])
def test_a_clips_spectrogram_is_the_beginning_of_whispers(data, mels):
    from transformers import WhisperFeatureExtractor  # noqa: PLC0415

    theirs = WhisperFeatureExtractor(feature_size=mels)
    recipe = LogMelRecipe.of_config(theirs.to_dict())
    noise = np.random.default_rng(0).normal(0, 0.1, RATE * 31).astype(np.float32)
    odd = [noise[:length] for length in (1, 100, 399, RATE, 29 * RATE, 30 * RATE, 31 * RATE)]
    for samples in [*clips(data), *odd, np.zeros(RATE, np.float32), tone()]:
        expected = theirs(samples, sampling_rate=RATE, return_tensors="np")["input_features"][0]
        for frames in (recipe.frames(len(samples)), recipe.max_frames):
            got = recipe.spectrogram(samples, frames)
            assert got.shape == (mels, frames)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected[:, :frames], atol=1e-4)


def test_whole_windows_are_read_unless_the_checkpoint_says_otherwise():
    whole, cut = LogMelRecipe.of_config({}), LogMelRecipe.of_config({"whole_window": False})
    heard = {recipe: recipe.heard(tone(0.7)) for recipe in (whole, cut)}
    assert [(it.frames, it.heard) for it in heard.values()] == [(3000, 70), (100, 70)]
    np.testing.assert_array_equal(heard[whole].values[:100], heard[cut].values)
    assert len(cut.heard(tone(30)).values) == len(whole.heard(tone(30)).values) == 3000


@pytest.mark.parametrize("normalise", [True, False])
def test_samples_are_exactly_those_of_wav2vecs_extractor(data, normalise):
    from transformers import Wav2Vec2FeatureExtractor  # noqa: PLC0415

    theirs = Wav2Vec2FeatureExtractor(do_normalize=normalise)
    recipe = WaveformRecipe.of_config(theirs.to_dict())
    for samples in [*clips(data), tone(0.1), np.zeros(50, np.float32)]:
        expected = theirs(samples, sampling_rate=RATE, return_tensors="np")["input_values"][0]
        np.testing.assert_array_equal(recipe.values(samples), expected)


@pytest.mark.parametrize(
    ("form", "subtype", "off"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.1),
        ("OGG", "OPUS", 0.1),
        ("MP3", None, 0.1),
    ],
)
def test_each_format_is_read(form, subtype, off):
    clip = decode_audio(saved(tone(), form=form, subtype=subtype), RATE)
    assert len(clip.samples) == RATE
    assert not clip.truncated
    assert clip.samples.dtype == np.float32
    middle = slice(2_000, -2_000)
    np.testing.assert_allclose(clip.samples[middle], tone()[middle], atol=off)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_is_resampled(rate):
    clip = decode_audio(saved(tone(rate=rate), rate), RATE)
    assert abs(len(clip.samples) - RATE) <= 1
    spectrum = np.abs(np.fft.rfft(clip.samples[: RATE - 10]))
    assert round(int(spectrum.argmax()) * RATE / (RATE - 10)) == 440


def test_stereo_is_mixed_to_the_mean_of_its_channels():
    left, right = tone(pitch=440), tone(pitch=1_000)
    clip = decode_audio(saved(np.stack([left, right], axis=1), subtype="FLOAT"), RATE)
    np.testing.assert_allclose(clip.samples, (left + right) / 2, atol=1e-7)


def test_of_ten_minutes_the_beginning_is_read_and_said_to_be_cut():
    data = saved(np.zeros(600 * 8_000, np.int16), 8_000)
    clip = decode_audio(data, RATE)
    assert clip.truncated
    assert len(clip.samples) == 30 * RATE


def test_ten_minutes_are_refused_where_that_is_set():
    data = saved(np.zeros(600 * 8_000, np.int16), 8_000)
    error = refused(data, AudioLimits(max_seconds=60))
    assert error.reason == "AUDIO_TOO_LONG"
    assert "600.0 s long; at most 60 s" in str(error)


def test_thirty_seconds_are_not_cut():
    assert not decode_audio(saved(np.zeros(30 * 8_000, np.int16), 8_000), RATE).truncated


def test_no_samples_are_refused():
    error = refused(saved(np.empty(0, np.float32)))
    assert error.reason == "AUDIO_EMPTY"
    assert "0 samples" in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_and_counted(value):
    samples = tone()
    samples[[5, 900, 15_000]] = value
    error = refused(saved(samples, subtype="FLOAT"))
    assert error.reason == "AUDIO_NOT_FINITE"
    assert "3 samples" in str(error)


def test_samples_that_are_too_loud_to_reckon_with_are_refused_and_unscaled_ones_are_not():
    unscaled = decode_audio(saved(tone() * np.float32(2**31), subtype="FLOAT"), RATE)
    assert np.isfinite(WaveformRecipe.of_config({}).values(unscaled.samples)).all()
    error = refused(saved(tone() * np.float32(2e38), subtype="FLOAT"))
    assert error.reason == "AUDIO_TOO_LOUD"
    assert "samples up to 1e+38, but full scale is 1" in str(error)


def test_a_wav_whose_header_promises_more_than_there_is_is_refused():
    data = bytearray(saved(tone()))
    size = struct.unpack_from("<I", data, 40)[0]
    assert data[36:40] == b"data"
    assert size == 2 * RATE
    struct.pack_into("<I", data, 40, 100 * size)
    error = refused(bytes(data))
    assert error.reason == "AUDIO_TRUNCATED"
    assert f"promises {100 * size:,} bytes of samples, but the file has {size:,}" in str(error)


def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end():
    data = bytearray(saved(tone()))
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, 40, 0xFFFFFFFF)
    assert len(decode_audio(bytes(data), RATE).samples) == RATE


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [(24, "<I", 1), (24, "<I", 2_000_000_000), (22, "<H", 500), (22, "<H", 0), (20, "<H", 0x7777)],
)
def test_a_wav_whose_header_is_absurd_is_refused(place, form, value):
    data = bytearray(saved(tone()))
    struct.pack_into(form, data, place, value)
    assert refused(bytes(data)).reason in {"AUDIO_HEADER", "AUDIO_UNREADABLE"}


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_no_way_to_cut_or_damage_a_file_ends_in_another_error(form):
    data = saved(tone(0.3), form=form)
    generator = np.random.default_rng(0)
    damaged = [data[:length] for length in range(0, len(data), max(1, len(data) // 40))]
    for _ in range(60):
        copy = bytearray(data)
        for place in generator.integers(0, min(len(data), 200), 4):
            copy[place] ^= int(generator.integers(1, 256))
        damaged.append(bytes(copy))
    outcomes = set()
    for it in damaged:
        try:
            assert np.isfinite(decode_audio(it, RATE).samples).all()
            outcomes.add("read")
        except AudioError as error:
            outcomes.add(error.reason)
    assert "AUDIO_UNREADABLE" in outcomes


@pytest.mark.parametrize(
    "data", [b"just a text\n" * 40, b"RIFF\x10\0\0\0WAVE", b"ID3\x04", b"OggS" + bytes(60)]
)
def test_what_is_not_a_sound_is_refused_whatever_it_is_called(data):
    error = refused(data)
    assert error.reason == "AUDIO_UNREADABLE"
    assert "WAV, FLAC, OGG or MP3" in str(error)


def test_other_formats_that_the_library_knows_are_refused():
    assert refused(saved(tone(), form="AIFF")).reason == "AUDIO_UNREADABLE"


def test_samples_that_take_too_many_times_their_file_are_refused():
    silence = saved(np.zeros(20 * RATE), form="FLAC")
    assert len(decode_audio(silence, RATE).samples) == 20 * RATE
    error = refused(silence, AudioLimits(max_ratio=100))
    assert error.reason == "AUDIO_TOO_COMPRESSED"


def test_a_file_of_too_many_bytes_is_refused():
    assert refused(saved(tone()), AudioLimits(max_bytes=20_000)).reason == "AUDIO_TOO_LARGE"


def test_nothing_is_refused():
    assert refused(b"").reason == "AUDIO_EMPTY"


def test_one_sample_is_enough():
    assert len(decode_audio(saved(tone(1 / RATE)), RATE).samples) == 1
    assert len(decode_audio(saved(np.ones(1), 96_000), RATE).samples) >= 1
