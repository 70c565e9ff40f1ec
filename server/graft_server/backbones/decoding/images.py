"""Pictures in files to an encoder's pixels: decoded within bounds, then resized, cropped and normalised.

What is allowed is looked up in a file's header, before anything is decoded: a picture of one colour with 2.5
billion pixels is a file of some kilobytes. And what the checkpoint's own processor would make of a picture comes
out exactly, to the last bit (tests/backbones/test_images.py), though it is computed another way: pixels are
bytes until a batch is put together, and scaling and normalising them is one look-up in a table of 256 entries a
channel.

This file is also part of exported bundles: it needs Pillow and NumPy, nothing else.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Pillow's own bound is one for the whole process, and only warns up to twice of it; ours are settings.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""What is read, as Pillow calls it."""

_SMALL_PIXELS = 1 << 20
"""Pictures up to this size may be compressed as well as they like: 3 MB harm nobody."""
_MAX_PROPORTION = 100
"""Longer edge over shorter. Bringing the shorter one of 1 × 10,000 pixels to 224 would make 500 million of them."""
_BITS = (8, 10, 12, 14, 16)
"""How many of 16 bits a grey value may have: those of cameras, scanners, X-rays and thermal images."""
_LEAST_OF_16_BITS = 16
"""The least upper byte of the brightest value of a picture that uses its 16 bits: below it are at most 12."""
_CONVNEXT_WARPS_FROM = 384
"""From this size on, ConvNeXt's processor distorts a picture to a square instead of cropping it."""


class ImageError(ValueError):
    """A picture that cannot be read, or is not allowed.

    Attributes:
        reason: UPPER_SNAKE_CASE.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may be."""

    max_bytes: int = 16 << 20
    """The size of its file."""
    max_pixels: int = 50_000_000
    """Width times height. Decoding takes 3 to 7 bytes each, for a moment."""
    max_ratio: float = 2_000.0
    """Bytes of its pixels over bytes of its file, for pictures of more than a million pixels. PNG compresses one
    colour to 1/1,000; a photograph is near 1/10."""


def decode_image(data: bytes, limits: ImageLimits | None = None) -> Image.Image:
    """Decodes a JPEG, PNG, WebP or GIF file (of an animation the first frame) to RGB, as it is to be looked at.

    The EXIF orientation is applied, and transparency is put on white (as transformers does). Of 16 bits of grey the
    upper 8 are kept, counted from the highest of 8, 10, 12, 14 or 16 bits that the picture uses: 12 bits of a camera
    in 16 would be black otherwise.

    Raises:
        ImageError: It cannot be read, or exceeds the limits.
    """
    limits = limits or ImageLimits()
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"The image's file has {len(data):,} bytes; at most {limits.max_bytes:,} are read. Send a smaller one.",
            "IMAGE_TOO_LARGE",
        )
    image = _open(data)
    _check_size(image, len(data), limits)
    try:
        image.load()
        _check_bits(image, data)
        return _rgb(_upright(image))
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever they like
        raise ImageError(
            f"The {image.format} image cannot be decoded: {_said(error)}. Is it whole? Send it again, or save it anew.",
            "IMAGE_CORRUPT",
        ) from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("The image is empty: it has 0 bytes. Send the content of its file.", "IMAGE_EMPTY")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # a bad header raises whatever its reader stumbles over
        raise ImageError(
            f"The {len(data):,} bytes are not an image that can be read: give a JPEG, PNG, WebP or GIF file.",
            "IMAGE_UNREADABLE",
        ) from error


def _check_size(image: Image.Image, size: int, limits: ImageLimits) -> None:
    pixels = image.width * image.height
    if not pixels:
        raise ImageError(
            f"The image has {image.width} × {image.height} pixels: send one that shows something.",
            "IMAGE_EMPTY",
        )
    if pixels > limits.max_pixels:
        raise ImageError(
            f"The image has {image.width:,} × {image.height:,} pixels; at most {limits.max_pixels:,} are decoded. "
            "Send a smaller one.",
            "IMAGE_TOO_LARGE",
        )
    ratio = 3 * pixels / size
    if pixels > _SMALL_PIXELS and ratio > limits.max_ratio:
        raise ImageError(
            f"The image's pixels take {ratio:,.0f} times as many bytes as its file; at most "
            f"{limits.max_ratio:,.0f} times is decoded. Send it smaller, or less compressed.",
            "IMAGE_TOO_COMPRESSED",
        )


def _check_bits(image: Image.Image, data: bytes) -> None:
    """Refuses a PNG of 16 bits a colour that uses 12 or fewer of them: Pillow gives the upper 8, which say nothing."""
    depth, grey = data[24:25], 0
    if image.format != "PNG" or depth != b"\x10" or data[25:26] == bytes([grey]):
        return
    colours = [it for band, it in zip(image.getbands(), image.split(), strict=True) if band != "A"]
    brightest = max(int(np.asarray(it).max()) for it in colours)
    if brightest < _LEAST_OF_16_BITS:
        raise ImageError(
            f"The PNG has 16 bits a colour, but no value above {256 * brightest + 255:,} of 65,535: it uses 12 bits "
            "or fewer, and would be read as black. Scale its values to all 16 bits, or save it with 8.",
            "IMAGE_BITS",
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - broken EXIF data says nothing about the pixels
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey: Pillow would cut off what is above 255
        grey = np.asarray(image).astype(np.int64)
        grey >>= next((it for it in _BITS if grey.max() < 1 << it), _BITS[-1]) - 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or image.info.get("transparency") is not None:
        transparent = image.convert("RGBA")
        white = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, transparent).convert("RGB")
    return image.convert("RGB")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class Processor:
    """What a class of transformers' image processors does where its configuration says nothing."""

    size: Mapping[str, int]
    resample: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    square: bool
    """Whether a size given as one number is that of a square, or of the shorter edge."""
    crop: bool = False


_STANDARD = (0.5, 0.5, 0.5)
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_BILINEAR, _BICUBIC = int(Image.Resampling.BILINEAR), int(Image.Resampling.BICUBIC)
_CONVNEXT = "ConvNext"
_PROCESSORS = {
    "ViT": Processor({"height": 224, "width": 224}, _BILINEAR, _STANDARD, _STANDARD, square=True),
    "CLIP": Processor({"shortest_edge": 224}, _BICUBIC, *_CLIP, square=False, crop=True),
    "Bit": Processor({"shortest_edge": 224}, _BICUBIC, *_CLIP, square=False, crop=True),
    _CONVNEXT: Processor({"shortest_edge": 384}, _BICUBIC, _STANDARD, _STANDARD, square=False),
}


@dataclass(frozen=True, slots=True)
class ImageRecipe:
    """How a checkpoint wants its pictures."""

    resize: tuple[int, int] | int | None
    """(height, width), or what the shorter edge becomes; None: as it is."""
    crop: tuple[int, int] | None
    """(height, width) of what is cut out of the middle, with black around where it is too small."""
    resample: int
    """Pillow's number of the filter."""
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> ImageRecipe:
        """Reads the contents of a `preprocessor_config.json`.

        Raises:
            ImageError: It asks for something that is not supported; the message says what.
        """
        kind, processor = _processor(config)
        resize = _resize(config, processor) if config.get("do_resize", True) else None
        crop = _crop(config) if config.get("do_center_crop", processor.crop) else None
        if kind == _CONVNEXT and isinstance(resize, int):
            resize, crop = _convnext(resize, float(config.get("crop_pct") or 224 / 256), crop)
        if not isinstance(resize, tuple) and crop is None:
            raise ImageError(
                "Its images would have different sizes: preprocessor_config.json must say do_center_crop, or "
                "give size as height and width.",
                "BACKBONE_PREPROCESSING_UNKNOWN",
            )
        normalise = config.get("do_normalize", True)
        return cls(
            resize=resize,
            crop=crop,
            resample=int(config.get("resample", processor.resample)),
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
            mean=_channels(config.get("image_mean") or processor.mean) if normalise else (0.0,) * 3,
            std=_channels(config.get("image_std") or processor.std) if normalise else (1.0,) * 3,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of what the encoder reads."""
        if self.crop is not None:
            return self.crop
        assert isinstance(self.resize, tuple)  # noqa: S101 - of_config makes no other
        return self.resize

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture's pixels, resized and cropped: shape (height, width, 3).

        Raises:
            ImageError: The picture is a line, rather.
        """
        if self.resize is not None:
            height, width = _new_size(image, self.resize)
            image = image.resize((width, height), Image.Resampling(self.resample))
        pixels = np.asarray(image)
        return pixels if self.crop is None else _middle(pixels, *self.crop)

    def item(self, data: bytes, limits: ImageLimits | None = None) -> NDArray[np.uint8]:
        """A file's pixels; see `decode_image` and `pixels`."""
        return self.pixels(decode_image(data, limits))

    def collate(self, items: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
        """The inputs of an encoder's graph."""
        return {"pixel_values": self.normalised(items)}

    def normalised(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """What the encoder reads of n pictures' pixels: shape (n, 3, height, width)."""
        table = self._table()
        batch = np.empty((len(pictures), 3, *self.shape), np.float32)
        for row, pixels in enumerate(pictures):
            for channel in range(3):
                np.take(table[channel], pixels[:, :, channel], out=batch[row, channel], mode="clip")
        return batch

    def _table(self) -> NDArray[np.float32]:
        """What becomes of each value of each channel, shape (3, 256), rounded where transformers rounds."""
        scaled = (np.arange(256, dtype=np.float64) * self.scale).astype(np.float32)
        mean, std = (np.array(it, np.float32)[:, None] for it in (self.mean, self.std))
        table: NDArray[np.float32] = (scaled - mean) / std
        return table


def _processor(config: Mapping[str, Any]) -> tuple[str, Processor]:
    named = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "nothing")
    kind = named
    for ending in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    if kind not in _PROCESSORS:
        raise ImageError(
            f"Its preprocessor_config.json asks for {named}; there are "
            f"{', '.join(f'{it}ImageProcessor' for it in _PROCESSORS)}.",
            "BACKBONE_PREPROCESSING_UNKNOWN",
        )
    return kind, _PROCESSORS[kind]


def _resize(config: Mapping[str, Any], processor: Processor) -> tuple[int, int] | int:
    size = config.get("size") or processor.size
    if isinstance(size, int):
        return (size, size) if config.get("default_to_square", processor.square) else size
    given = {name: int(value) for name, value in size.items() if value}
    if set(given) == {"shortest_edge"}:
        return given["shortest_edge"]
    if set(given) == {"height", "width"}:
        return given["height"], given["width"]
    raise ImageError(
        f"Its preprocessor_config.json gives a size of {', '.join(given) or 'nothing'}; give shortest_edge, or "
        "height and width.",
        "BACKBONE_PREPROCESSING_UNKNOWN",
    )


def _crop(config: Mapping[str, Any]) -> tuple[int, int]:
    size = config.get("crop_size") or {"height": 224, "width": 224}
    if isinstance(size, int):
        return size, size
    return int(size["height"]), int(size["width"])


def _convnext(edge: int, share: float, crop: tuple[int, int] | None) -> tuple[Any, tuple[int, int] | None]:
    if edge >= _CONVNEXT_WARPS_FROM:
        return (edge, edge), crop
    return int(edge / share), (edge, edge)


def _channels(values: Any) -> tuple[float, ...]:
    return (float(values),) * 3 if isinstance(values, int | float) else tuple(float(it) for it in values)


def _new_size(image: Image.Image, size: tuple[int, int] | int) -> tuple[int, int]:
    """(height, width): with one number, of the shorter edge, the other keeps the picture's proportions."""
    if isinstance(size, tuple):
        return size
    short, long = sorted((image.width, image.height))
    if long > _MAX_PROPORTION * short:
        raise ImageError(
            f"The image has {image.width:,} × {image.height:,} pixels: one edge may be at most {_MAX_PROPORTION} "
            "times as long as the other. Cut it.",
            "IMAGE_PROPORTIONS",
        )
    longer = int(size * long / short)
    return (longer, size) if image.width <= image.height else (size, longer)


def _middle(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cuts the middle out; too small a picture is first put in the middle of a black one."""
    tall, wide = pixels.shape[:2]
    if tall < height or wide < width:
        larger = np.zeros((max(tall, height), max(wide, width), 3), np.uint8)
        top, left = math.ceil((larger.shape[0] - tall) / 2), math.ceil((larger.shape[1] - wide) / 2)
        larger[top : top + tall, left : left + wide] = pixels
        # As transformers does: the place is found in the picture as it was.
        down, right = (tall - height) // 2 + top, (wide - width) // 2 + left
        return larger[max(0, down) : down + height, max(0, right) : right + width]
    top, left = (tall - height) // 2, (wide - width) // 2
    return pixels[top : top + height, left : left + width]


def recipe_of_settings(settings: Mapping[str, Any]) -> ImageRecipe:
    """The recipe whose fields, as JSON has them, are given."""
    fields: dict[str, Any] = {k: tuple(it) if isinstance(it, list) else it for k, it in settings.items()}
    return ImageRecipe(**fields)
