"""Sound in files to an encoder's samples or spectrogram: decoded within bounds, mixed to one channel, resampled.

Nothing is decoded beyond what the encoder reads: of ten minutes, the first 30 s. Spectrograms are those of the
checkpoint's own processor (to 1e-4, tests/backbones/test_audio.py), only shorter: Whisper's says the same of one
second followed by 29 of silence.

This file is also part of exported bundles: it needs NumPy, soundfile and soxr, nothing else.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "MPEG")
"""What is read, as libsndfile calls it."""

READ_SECONDS = 30.0
"""What is read of a clip: what Whisper was trained on, and for others as much as memory should be spent on."""

BUCKET_FRAMES = 50
"""Clips are padded with silence to a multiple of half a second, so that batches have few different shapes."""

SILENCE_FRAMES = 25
"""At least so much silence, a quarter of a second, follows a clip whose window is cut: Whisper is used to silence, and
without any it tells less of the clip (benchmarks/windows.py)."""

WAVEFORM_FRAME = 320
"""Samples that become one frame in every published wav2vec 2.0 and HuBERT."""
_LEAST_SAMPLES = 400
"""The fewest samples from which their convolutions make a frame."""

_RATES = (1_000, 384_000)
_MAX_CHANNELS = 16
_BLOCK_FRAMES = 1 << 16
_UNKNOWN_SIZE = 0x7FFF0000
"""Programs that write a WAV to a pipe do not know its size, and put 0 or about the largest number in its place: SoX
0x7FFFF000 less a part of a block, arecord 0x80000000, ffmpeg 0xFFFFFFFF."""
_UNKNOWN_FRAMES = 1 << 48
"""libsndfile gives about the largest number for a FLAC that was written to a pipe."""
_CANCELLED = 0.2
"""Channels count as cancelled where their mean has less than this share of the power that it would have if they had
nothing in common, one over their number of theirs. Two channels that are equal but for their sign and some noise
have less as long as their correlation is below -0.8; no recording of one scene has it."""
_UNSCALED = 8.0
"""Samples above this are integers that were never divided by their full scale: full scale is 1."""
_FULL_SCALES = (2.0**7, 2.0**15, 2.0**23, 2.0**31)
_GOES_ON_SECONDS = 0.1
"""What is cut off beyond what is read counts as cut from this length on: encoders of MP3 and Opus add some silence."""
_LOUDEST = 1e10
"""Full scale is 1, and 2e9 of 32-bit numbers that were never scaled. The square of 1e20 is more than float32 holds."""
_MEL_FLOOR = 1e-10
_DYNAMIC_RANGE = 8.0
"""The powers of ten by which Whisper's spectrograms reach down from the loudest."""


class AudioError(ValueError):
    """A clip that cannot be read, or is not allowed.

    Attributes:
        reason: UPPER_SNAKE_CASE.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What a clip may be."""

    max_bytes: int = 16 << 20
    """The size of its file."""
    max_seconds: float = 600.0
    """How long it may be. Encoders read the beginning only, but who sends an hour expects more than that."""
    max_ratio: float = 5_000.0
    """Bytes of its decoded samples (4 each) over bytes of its file. FLAC brings silence to 1/1,400, MP3 music to
    1/50."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Decoded sound."""

    samples: Samples
    """shape (n,), n >= 1: one channel, finite."""
    truncated: bool
    """Whether the clip goes on."""


def decode_audio(
    data: bytes, rate: int, seconds: float = READ_SECONDS, limits: AudioLimits | None = None
) -> Clip:
    """Decodes the beginning of a WAV (also RF64, BW64, W64), FLAC, OGG or MP3 file to one channel.

    Channels that cancel each other when they are mixed (one has the other's sign) are not mixed: the loudest is taken.

    Args:
        data: The file.
        rate: The samples a second that are wanted.
        seconds: How much is wanted; what follows is not decoded.
        limits: What is allowed.

    Raises:
        AudioError: It cannot be read, has no samples or some that are no numbers, or exceeds the limits.
    """
    limits = limits or AudioLimits()
    if len(data) > limits.max_bytes:
        raise AudioError(
            f"The clip's file has {len(data):,} bytes; at most {limits.max_bytes:,} are read. Send a shorter one, "
            "or compress it as FLAC or OGG.",
            "AUDIO_TOO_LARGE",
        )
    data = _mended(data)
    with _open(data) as file:
        frames = _frames(file, len(data), seconds, limits)
        samples, goes_on = _one_channel(file, frames)
        truncated = goes_on and file.frames - frames > _GOES_ON_SECONDS * file.samplerate
        if not len(samples):
            raise AudioError("The clip has 0 samples: send one with some sound in it.", "AUDIO_EMPTY")
        if not np.isfinite(samples).all():
            raise AudioError(
                f"The clip has {np.count_nonzero(~np.isfinite(samples)):,} samples that are not finite numbers "
                "(NaN or infinite): look at how it was written.",
                "AUDIO_NOT_FINITE",
            )
        if (loudest := float(np.abs(samples).max())) > _LOUDEST:
            raise AudioError(
                f"The clip has samples up to {loudest:.0e}, but full scale is 1, and at most {_LOUDEST:.0e} is read: "
                "look at how it was written.",
                "AUDIO_TOO_LOUD",
            )
        if (scale := _scale(loudest, file.subtype)) != 1:
            samples = samples * np.float32(scale)
        return Clip(_resampled(samples, file.samplerate, rate), truncated)


def _scale(loudest: float, subtype: str) -> float:
    """What samples are multiplied with to have the full scale that they were meant to have."""
    if loudest > _UNSCALED:
        return 1 / next((it for it in _FULL_SCALES if it >= loudest), 1.0)
    # 16 bits in the lower half of 32: nothing that was recorded is so quiet.
    return 2.0**16 if subtype == "PCM_32" and loudest <= 2.0**-16 else 1.0


def _mended(data: bytes) -> bytes:
    """Returns a file whose header libsndfile reads: with the size of its samples where the header lacks it.

    Raises:
        AudioError: A WAV promises more samples than there are; libsndfile would read what there is.
    """
    if data[:3] == b"ID3":  # an MP3's tag; some programs put it before other files too
        size = sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))
        rest = data[10 + size :]
        data = rest if rest[:4] in (b"fLaC", b"RIFF") else data
    if data[:4] == b"BW64":  # the same by a later name
        data = b"RF64" + data[4:]
    if data[:4] not in (b"RIFF", b"RF64") or data[8:12] != b"WAVE":
        return data
    chunks = {name: (place, size) for name, place, size in _chunks(data)}
    if b"data" not in chunks:
        return data
    place, size = chunks[b"data"]
    there, long = len(data) - place, chunks.get(b"ds64", (0, 0)) if data[:4] == b"RF64" else (0, 0)
    large = long[1] >= _DS64.size and long[0] + _DS64.size <= len(data)
    if large:
        size = _DS64.unpack_from(data, long[0])[1]
    if there < size < _UNKNOWN_SIZE:
        raise AudioError(
            f"The WAV's header promises {size:,} bytes of samples, but the file has {there:,}: it is cut "
            "off, or its header is wrong. Send it again, or save it anew.",
            "AUDIO_TRUNCATED",
        )
    if 0 < size < _UNKNOWN_SIZE or not there or _are_chunks(data, place):
        return data
    mended = bytearray(data)
    if large:
        _DS64.pack_into(mended, long[0], len(data) - 8, there, 0)
    else:
        struct.pack_into("<I", mended, place - 4, there)
    return bytes(mended)


_DS64 = struct.Struct("<QQQ")
"""The sizes of an RF64 and of its samples in bytes, and the number of its samples, 0 if it is not known."""


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, place of the content and size of a WAV's chunks, up to the samples."""
    place, name = 12, b""
    while place + 8 <= len(data) and name != b"data":
        name, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        yield name, place + 8, size
        place += 8 + size + size % 2


def _are_chunks(data: bytes, place: int) -> bool:
    """Whether what is there from a place on is chunks up to the end, rather than samples."""
    while place + 8 <= len(data) and data[place : place + 4].isalnum():
        size = struct.unpack_from("<I", data, place + 4)[0]
        place += 8 + size + size % 2
    return place in (len(data), len(data) + 1)


def _open(data: bytes) -> soundfile.SoundFile:
    if not data:
        raise AudioError("The clip is empty: it has 0 bytes. Send the content of its file.", "AUDIO_EMPTY")
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise AudioError(
            f"The {len(data):,} bytes are not a sound that can be read: give a WAV, FLAC, OGG or MP3 file.",
            "AUDIO_UNREADABLE",
        ) from error
    if file.format not in FORMATS:
        file.close()
        raise AudioError(
            f"The clip's format is {file.format}: give a WAV, FLAC, OGG or MP3 file.", "AUDIO_UNREADABLE"
        )
    return file


def _frames(file: soundfile.SoundFile, size: int, seconds: float, limits: AudioLimits) -> int:
    """How many frames are to be read."""
    rate, channels, frames = file.samplerate, file.channels, file.frames
    if not _RATES[0] <= rate <= _RATES[1] or channels > _MAX_CHANNELS:
        raise AudioError(
            f"The clip's header says {rate:,} samples a second and {channels:,} channels; {_RATES[0]:,} to "
            f"{_RATES[1]:,}, and at most {_MAX_CHANNELS}, are read. Convert it.",
            "AUDIO_HEADER",
        )
    if frames >= _UNKNOWN_FRAMES:
        return int(seconds * rate)
    if frames > limits.max_seconds * rate:
        raise AudioError(
            f"The clip is {frames / rate:,.1f} s long; at most {limits.max_seconds:g} s are accepted. Cut it: the "
            f"first {seconds:g} s are what is read.",
            "AUDIO_TOO_LONG",
        )
    frames = min(int(frames), int(seconds * rate))
    ratio = 4 * frames * channels / size
    if ratio > limits.max_ratio:
        raise AudioError(
            f"The clip's samples take {ratio:,.0f} times as many bytes as its file; at most "
            f"{limits.max_ratio:,.0f} times is decoded. Send it less compressed.",
            "AUDIO_TOO_COMPRESSED",
        )
    return frames


def _one_channel(file: soundfile.SoundFile, frames: int) -> tuple[Samples, bool]:
    """Returns the mean of the channels, or the loudest one where they cancel each other; and whether more follows."""
    channels = file.channels
    total, squares = np.zeros(channels + 1), np.zeros(channels + 1)
    mixed = [np.empty(0, np.float32)]
    for block in _blocks(file, frames):
        mixed.append(block.mean(axis=1, dtype=np.float32))
        if channels > 1:
            sounds = [np.ascontiguousarray(it) for it in (*block.T, mixed[-1])]
            with np.errstate(all="ignore"):  # what is not finite is refused later
                total += [float(it.sum(dtype=np.float64)) for it in sounds]
                squares += [float(it @ it) for it in sounds]
    samples = np.concatenate(mixed)
    goes_on = len(samples) == frames and (
        file.frames < _UNKNOWN_FRAMES or any(True for _ in _blocks(file, 1))
    )
    with np.errstate(all="ignore"):
        # Without a constant offset, which nobody hears, and which does not cancel.
        power = squares - total**2 / max(len(samples), 1)
    if channels > 1 and power[-1] < _CANCELLED * power[:-1].mean() / channels:
        file.seek(0)
        loudest = int(power[:-1].argmax())
        samples = np.concatenate([block[:, loudest] for block in _blocks(file, frames)])
    return samples, goes_on


def _blocks(file: soundfile.SoundFile, frames: int) -> Iterator[Samples]:
    """Yields the next frames, shape (n, channels), block by block: 16 channels are never in memory at once."""
    try:
        while frames > 0:
            block = _block(file, min(frames, _BLOCK_FRAMES))
            if not len(block):
                return
            frames -= len(block)
            yield block
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(
            "The clip cannot be decoded to its end. Is it whole? Send it again, or save it anew.",
            "AUDIO_CORRUPT",
        ) from error


def _block(file: soundfile.SoundFile, frames: int) -> Samples:
    if file.frames < _UNKNOWN_FRAMES:
        block: Samples = file.read(frames, dtype="float32", always_2d=True)
        return block
    # The end of a FLAC that was written to a pipe is an error to libsndfile, after it has given what comes before it.
    whole = np.full((frames, file.channels), np.nan, np.float32)
    with suppress(soundfile.SoundFileError):
        file.read(out=whole)
    return whole[np.isfinite(whole).all(axis=1)]


def _resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    if rate == wanted:
        return samples
    resampled = soxr.resample(samples, rate, wanted)
    # Of some few samples nothing may be left.
    return resampled if len(resampled) else np.zeros(1, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A clip, ready for the encoder."""

    values: NDArray[np.float32]
    """shape (frames, mels) of a spectrogram, or (samples,)."""
    frames: int
    """What it counts for in a batch."""
    heard: int
    """How many of its frames sound fills; the others are silence."""
    truncated: bool = False
    """Whether the clip goes on."""

    def __len__(self) -> int:
        return self.frames


@dataclass(frozen=True, slots=True)
class LogMelRecipe:
    """How Whisper wants its clips: as spectrograms, logarithmic in loudness and in pitch."""

    rate: int
    """Samples a second."""
    mels: int
    """Bands of pitch."""
    fft: int
    """Samples in a window."""
    hop: int
    """Samples from one frame to the next."""
    seconds: float
    """What the encoder reads at most."""
    whole_window: bool = True
    """Whether it always reads that much, silence behind a short clip, as Whisper was trained."""

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> LogMelRecipe:
        """Reads the contents of a `preprocessor_config.json`; `whole_window` is a key of our own."""
        return cls(
            rate=int(config.get("sampling_rate", 16_000)),
            mels=int(config.get("feature_size", 80)),
            fft=int(config.get("n_fft", 400)),
            hop=int(config.get("hop_length", 160)),
            seconds=float(config.get("chunk_length", 30)),
            whole_window=bool(config.get("whole_window", True)),
        )

    @property
    def max_frames(self) -> int:
        """Frames of the longest clip."""
        return int(self.seconds * self.rate) // self.hop

    def item(self, data: bytes, limits: AudioLimits | None = None) -> Heard:
        """What the encoder reads of a file; see `decode_audio`."""
        clip = decode_audio(data, self.rate, self.seconds, limits)
        return replace(self.heard(clip.samples), truncated=clip.truncated)

    def heard(self, samples: Samples) -> Heard:
        """What the encoder reads of samples, at least one: 0.5 ms a second."""
        heard, most = self.frames(len(samples)), self.max_frames
        frames = most if self.whole_window else cut_frames(heard, most)
        return Heard(np.ascontiguousarray(self.spectrogram(samples, frames).T), frames, heard)

    def collate(self, items: Sequence[Heard]) -> dict[str, NDArray[Any]]:
        """The inputs of an encoder's graph: padded with zeros to the longest, and what is each clip's own."""
        batch = np.zeros((len(items), self.mels, max(len(item) for item in items)), np.float32)
        for row, item in enumerate(items):
            batch[row, :, : len(item)] = item.values.T
        return {
            "input_features": batch,
            "attended": np.array([len(item) // 2 for item in items]),
            "heard": np.array([-(-item.heard // 2) for item in items]),
        }

    def frames(self, samples: int) -> int:
        """Returns the number of frames that a clip fills, at least in part."""
        return min(-(-samples // self.hop), self.max_frames)

    def spectrogram(self, samples: Samples, frames: int) -> NDArray[np.float32]:
        """The first `frames` frames of a clip that silence follows, shape (mels, frames)."""
        reach = self.fft // 2
        last = int(self.seconds * self.rate)
        padded = np.zeros(min(frames * self.hop + reach, last), np.float32)
        padded[: len(samples)] = samples[: len(padded)]
        # The clip's ends are mirrored, as in a window of the full length, whose end a short clip does not reach.
        padded = np.pad(padded, (reach, reach), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.fft)[:: self.hop][:frames]
        power = np.abs(np.fft.rfft(windows * _hann(self.fft))) ** 2
        mel = power @ _mel_filters(self.fft, self.mels, self.rate)
        logarithms = np.log10(np.maximum(mel, _MEL_FLOOR)).T
        loudest = logarithms.max() - _DYNAMIC_RANGE
        return np.ascontiguousarray((np.maximum(logarithms, loudest) + 4.0) / 4.0, np.float32)


def cut_frames(heard: int, most: int, silence: int = SILENCE_FRAMES) -> int:
    """Frames of a window that is cut to a clip of `heard` frames: with silence behind it, in whole buckets."""
    return min(-(-(heard + silence) // BUCKET_FRAMES) * BUCKET_FRAMES, most)


@cache
def _hann(length: int) -> NDArray[np.float64]:
    """The periodic window."""
    return np.hanning(length + 1)[:-1]


@cache
def _mel_filters(fft: int, mels: int, rate: int) -> NDArray[np.float64]:
    """Triangles from each band's lower neighbour to its upper one, of area 1 (Slaney 1998): (fft // 2 + 1, mels)."""
    # Linear up to 1,000 Hz, logarithmic from there on.
    top = 15.0 + np.log(8_000 / 1_000) * 27.0 / np.log(6.4)
    steps = np.linspace(0.0, top, mels + 2)
    corners = np.where(steps < 15.0, steps * 200 / 3, 1_000 * np.exp(np.log(6.4) / 27.0 * (steps - 15.0)))
    bins = np.linspace(0, rate // 2, fft // 2 + 1)[:, None]
    lower, middle, upper = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins - lower) / (middle - lower), (upper - bins) / (upper - middle)
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2.0 / (upper - lower)
    return filters


@dataclass(frozen=True, slots=True)
class WaveformRecipe:
    """How wav2vec 2.0 and HuBERT want their clips: as samples."""

    rate: int
    """Samples a second."""
    normalise: bool
    """Whether each clip gets mean 0 and variance 1."""

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> WaveformRecipe:
        """Reads the contents of a `preprocessor_config.json`."""
        return cls(
            rate=int(config.get("sampling_rate", 16_000)), normalise=bool(config.get("do_normalize", True))
        )

    def item(self, data: bytes, limits: AudioLimits | None = None) -> Heard:
        """What the encoder reads of a file; see `decode_audio`."""
        clip = decode_audio(data, self.rate, limits=limits)
        return replace(self.heard(clip.samples), truncated=clip.truncated)

    def heard(self, samples: Samples) -> Heard:
        """What the encoder reads of samples, at least one; silence behind them where they make no frame."""
        values = self.values(samples)
        if len(values) < _LEAST_SAMPLES:
            values = np.concatenate([values, np.zeros(_LEAST_SAMPLES - len(values), np.float32)])
        frames = -(-len(values) // WAVEFORM_FRAME)
        return Heard(values, frames, frames)

    def collate(self, items: Sequence[Heard]) -> dict[str, NDArray[Any]]:
        """The inputs of an encoder's graph: padded with zeros to the longest, and what is each clip's own."""
        batch = np.zeros((len(items), max(len(item.values) for item in items)), np.float32)
        for row, item in enumerate(items):
            batch[row, : len(item.values)] = item.values
        return {"input_values": batch, "samples": np.array([len(item.values) for item in items])}

    def values(self, samples: Samples) -> Samples:
        """The samples, normalised, shape (n,)."""
        if not self.normalise:
            return samples
        values: Samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        return values


Recipe = LogMelRecipe | WaveformRecipe


def recipe_of_settings(settings: Mapping[str, Any]) -> Recipe:
    """The recipe whose fields, as JSON has them, are given: only spectrograms have mels."""
    return LogMelRecipe(**settings) if "mels" in settings else WaveformRecipe(**settings)
