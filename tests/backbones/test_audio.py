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
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "ALAW", 0.02),
        ("WAV", "ULAW", 0.02),
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


def cancelling(noise: float, channels: int = 2) -> Any:
    """Channels that are one another's opposite, but for some noise."""
    left = tone()
    signs = [1 if channel % 2 else -1 for channel in range(channels)]
    others = np.random.default_rng(0).normal(0, noise, (len(left), channels))
    return (left[:, None] * signs + others).astype(np.float32)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_cancel_each_other_are_not_mixed(form, noise, channels):
    clip = decode_audio(saved(cancelling(noise, channels), form=form), RATE)
    assert np.corrcoef(np.abs(clip.samples), np.abs(tone()))[0, 1] > 0.9
    assert clip.samples.std() > 0.9 * tone().std()


def test_of_channels_that_cancel_each_other_the_loudest_is_read_whatever_their_offset():
    samples = np.stack([tone(), -0.9 * tone()], axis=1) + np.float32(0.3)
    clip = decode_audio(saved(samples[:, ::-1].copy(), subtype="FLOAT"), RATE)
    np.testing.assert_array_equal(clip.samples, samples[:, 0])


@pytest.mark.parametrize("channels", [2, 16])
def test_channels_that_have_nothing_in_common_are_mixed(channels):
    samples = np.random.default_rng(0).normal(0, 0.1, (RATE, channels)).astype(np.float32)
    clip = decode_audio(saved(samples, subtype="FLOAT"), RATE)
    np.testing.assert_allclose(clip.samples, samples.mean(axis=1), atol=1e-7)


def test_silence_on_all_channels_is_silence():
    assert not decode_audio(saved(np.zeros((RATE, 2), np.float32)), RATE).samples.any()


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


def test_thirty_seconds_are_not_cut_nor_what_an_encoder_adds_to_them():
    for samples, cut in ((30 * 8_000, False), (30 * 8_000 + 500, False), (30 * 8_000 + 1_000, True)):
        clip = decode_audio(saved(np.zeros(samples, np.int16), 8_000), RATE)
        assert (len(clip.samples), clip.truncated) == (30 * RATE, cut)


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


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_integers_that_were_stored_as_floats_are_scaled(bits):
    scale = np.float32(2 ** (bits - 1))
    clip = decode_audio(saved(tone() * scale, subtype="FLOAT"), RATE)
    np.testing.assert_allclose(clip.samples, tone(), atol=1e-6)


def test_sixteen_bits_in_the_lower_half_of_thirty_two_are_scaled():
    sixteen = np.round(tone() * (2**15 - 1)).astype(np.int32)
    clip = decode_audio(saved(sixteen, subtype="PCM_32"), RATE)
    np.testing.assert_allclose(clip.samples, tone(), atol=1e-4)


@pytest.mark.parametrize(
    "samples", [np.zeros(RATE), np.full(RATE, 0.5), tone() + 0.4], ids=["silence", "offset", "both"]
)
def test_silence_and_a_constant_offset_are_finite_to_every_encoder(samples):
    data = saved(samples.astype(np.float32), subtype="FLOAT")
    for recipe in (LogMelRecipe.of_config({}), WaveformRecipe.of_config({})):
        values = recipe.item(data).values
        assert np.isfinite(values).all()
        assert np.abs(values).max() < 100


def test_floats_that_are_somewhat_above_full_scale_are_left_as_they_are():
    clip = decode_audio(saved(tone() * np.float32(4), subtype="FLOAT"), RATE)
    np.testing.assert_array_equal(clip.samples, tone() * np.float32(4))


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


def with_sizes(data: bytes, riff: int, samples: int) -> bytes:
    """A WAV whose header says other sizes of the file and of its samples."""
    copy = bytearray(data)
    struct.pack_into("<I", copy, 4, riff)
    struct.pack_into("<I", copy, data.index(b"data") + 4, samples)
    return bytes(copy)


PIPED = {
    "ffmpeg": (0xFFFFFFFF, 0xFFFFFFFF),
    "sox": (0x7FFFF024, 0x7FFFF000),
    "sox-24": (0x7FFFF024 - 4, 0x7FFFF000 - 4),
    "arecord": (0x80000024, 0x80000000),
    "zeros": (0, 0),
    "gstreamer": (36, 0),
}
"""What programs put into the header of a WAV whose size they do not know: of the file, and of its samples."""


@pytest.mark.parametrize("program", PIPED)
@pytest.mark.parametrize("before", [b"", b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf58.76.100\0"])
def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end(program, before):
    whole = saved(tone())
    data = with_sizes(whole[:36] + before + whole[36:], *PIPED[program])
    np.testing.assert_array_equal(decode_audio(data, RATE).samples, decode_audio(whole, RATE).samples)


def test_a_wav_without_samples_that_other_chunks_follow_is_empty():
    data = saved(tone())
    nothing = with_sizes(data[: data.index(b"data") + 8] + b"LIST\x04\0\0\0INFO", 48, 0)
    assert refused(nothing).reason == "AUDIO_EMPTY"


def test_a_flac_that_was_written_to_a_pipe_is_read_to_its_end():
    whole = saved(tone(1.23), form="FLAC")
    data = bytearray(whole)
    data[21] &= 0xF0  # the number of samples, 36 bits of its header
    data[22:26] = bytes(4)
    clip = decode_audio(bytes(data), RATE)
    np.testing.assert_array_equal(clip.samples, decode_audio(whole, RATE).samples)
    assert not clip.truncated
    long = bytearray(saved(np.zeros(40 * RATE, np.int16), form="FLAC"))
    long[21] &= 0xF0
    long[22:26] = bytes(4)
    clip = decode_audio(bytes(long), RATE)
    assert (len(clip.samples), clip.truncated) == (30 * RATE, True)


@pytest.mark.parametrize("form", ["RF64", "BW64", "W64"])
def test_wavs_of_64_bits_are_read(form):
    data = saved(tone(), form=form.replace("BW", "RF"))
    data = b"BW64" + data[4:] if form == "BW64" else data
    np.testing.assert_array_equal(decode_audio(data, RATE).samples, decode_audio(saved(tone()), RATE).samples)


@pytest.mark.parametrize("sizes", [(0, 0, 0), (2**64 - 1, 2**64 - 1, 0)])
def test_an_rf64_that_was_written_to_a_pipe_is_read_to_its_end(sizes):
    data = bytearray(saved(tone(), form="RF64"))
    struct.pack_into("<QQQ", data, data.index(b"ds64") + 8, *sizes)
    assert len(decode_audio(bytes(data), RATE).samples) == RATE


def test_an_rf64_whose_header_promises_more_than_there_is_is_refused():
    data = bytearray(saved(tone(), form="RF64"))
    struct.pack_into("<QQQ", data, data.index(b"ds64") + 8, 10**9, 10**9, 5 * 10**8)
    assert refused(bytes(data)).reason == "AUDIO_TRUNCATED"


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3"])
def test_a_tag_before_a_file_is_passed_over(form):
    data = saved(tone(), form=form)
    tagged = b"ID3\x04\0\0\0\0\x01\x02" + bytes(130) + data
    np.testing.assert_array_equal(decode_audio(tagged, RATE).samples, decode_audio(data, RATE).samples)


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
