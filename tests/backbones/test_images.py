"""Pictures to pixels: exactly what transformers' processors make of them, within bounds, and what is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from graft_server.backbones.decoding.images import ImageError, ImageLimits, ImageRecipe, decode_image

SIZES = [(348, 464), (17, 300), (301, 223), (1, 1), (640, 479), (33, 21), (224, 224)]
# What each kind of checkpoint is published with, and sizes that the tests' small ones use.
PROCESSORS = {
    "resnet-50": ("convnext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}),
    "convnext-384": ("convnext", {"size": {"shortest_edge": 384}}),
    "convnext-32": ("convnext", {"size": {"shortest_edge": 32}, "resample": 2}),
    "vit": ("vit", {}),
    "vit-odd": ("vit", {"size": {"height": 30, "width": 41}}),
    "clip": ("clip", {}),
    "clip-32": ("clip", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    "clip-crop-larger": ("clip", {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 32}}),
    "dinov2": (
        "bit",
        {
            "size": {"shortest_edge": 256},
            "crop_size": {"height": 224, "width": 224},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    ),
    "unscaled": ("vit", {"do_rescale": False}),
    "unnormalised": ("clip", {"do_normalize": False}),
    "not-resized": ("clip", {"do_resize": False}),
}


def processor(kind: str, **settings: Any) -> Any:
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil  # noqa: PLC0415
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: PLC0415
    from transformers.models.convnext.image_processing_pil_convnext import (  # noqa: PLC0415
        ConvNextImageProcessorPil,
    )
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: PLC0415

    kinds: Any = {
        "bit": BitImageProcessorPil,
        "clip": CLIPImageProcessorPil,
        "convnext": ConvNextImageProcessorPil,
        "vit": ViTImageProcessorPil,
    }
    return kinds[kind](**settings)


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,), "CMYK": (4,)}[mode]
    values = np.random.default_rng(width * height).integers(
        0, 256, (height, width, *channels), dtype=np.uint8
    )
    return Image.fromarray(values, mode)


def saved(image: Image.Image, form: str = "PNG", **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def refused(data: bytes, limits: ImageLimits | None = None) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decode_image(data, limits)
    return raised.value


def one_colour_png(width: int, height: int) -> bytes:
    """A PNG of one colour as it can be written without having its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    deflate = zlib.compressobj(9)
    row = bytes(1 + width)
    lines = b"".join([deflate.compress(row) for _ in range(min(height, 100))]) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", list(PROCESSORS))
def test_pixels_are_exactly_those_of_the_checkpoints_own_processor(name):
    kind, settings = PROCESSORS[name]
    theirs = processor(kind, **settings)
    recipe = ImageRecipe.of_config(theirs.to_dict())
    for size in SIZES:
        image = noise(*size)
        expected = theirs(image, return_tensors="np")["pixel_values"]
        np.testing.assert_array_equal(recipe.normalised([recipe.pixels(image)]), expected, err_msg=str(size))


@pytest.mark.parametrize("name", ["resnet-50", "vit", "clip", "dinov2"])
def test_photographs_are_read_exactly_as_the_checkpoints_own_processor_reads_them(data, name):
    kind, settings = PROCESSORS[name]
    theirs = processor(kind, **settings)
    recipe = ImageRecipe.of_config(theirs.to_dict())
    paths = sorted((data / "grocery_store_subset").rglob("*.jpg"))[::120]
    assert len(paths) > 5
    for path in paths:
        with Image.open(path) as image:
            expected = theirs(image.convert("RGB"), return_tensors="np")["pixel_values"]
        got = recipe.normalised([recipe.pixels(decode_image(path.read_bytes()))])
        np.testing.assert_array_equal(got, expected, err_msg=path.name)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_any_mode_is_converted_as_transformers_converts_it(mode):
    theirs = processor("clip")
    recipe = ImageRecipe.of_config(theirs.to_dict())
    image = noise(50, 40, mode)
    expected = theirs(image, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(recipe.normalised([recipe.pixels(decode_image(saved(image)))]), expected)


def test_a_transparent_palette_is_put_on_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
    assert decode_image(saved(image, transparency=1)).getpixel((0, 0)) == (255, 255, 255)
    assert decode_image(saved(image)).getpixel((0, 0)) == (0, 0, 255)


def test_of_sixteen_bits_of_grey_the_upper_eight_are_kept():
    values = np.array([[0, 255, 256, 40_000, 65_535]], np.uint16)
    decoded = np.asarray(decode_image(saved(Image.fromarray(values))))
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 156, 255]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bits_of_grey_of_which_fewer_are_used_are_read_as_bright_as_they_are(bits):
    levels = np.linspace(0, 2**bits - 1, 256).astype(np.uint16).reshape(16, 16)
    decoded = np.asarray(decode_image(saved(Image.fromarray(levels))))[:, :, 0]
    np.testing.assert_array_equal(decoded, levels >> (bits - 8))
    assert (decoded.min(), decoded.max()) == (0, 255)


def test_sixteen_bits_of_black_are_black():
    assert not np.asarray(decode_image(saved(Image.fromarray(np.zeros((4, 4), np.uint16))))).any()


def colours_of_16_bits(values: Any, *, alpha: bool = False) -> bytes:
    """A PNG of 16 bits a colour, which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 6 if alpha else 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_sixteen_bits_a_colour_are_read_and_refused_where_only_few_are_used():
    values = np.random.default_rng(0).integers(0, 2**16, (8, 8, 3))
    decoded = np.asarray(decode_image(colours_of_16_bits(values)))
    np.testing.assert_array_equal(decoded, values >> 8)
    opaque = np.concatenate([values >> 4, np.full((8, 8, 1), 65_535)], axis=2)
    for data in (colours_of_16_bits(values >> 4), colours_of_16_bits(opaque, alpha=True)):
        error = refused(data)
        assert error.reason == "IMAGE_BITS"
        assert "12 bits or fewer" in str(error)
        assert "save it with 8" in str(error)


def test_colours_that_transparency_hides_are_not_seen():
    seen = []
    for hidden in ((255, 0, 0, 0), (0, 90, 30, 0)):
        image = Image.new("RGBA", (8, 8), hidden)
        image.paste((10, 20, 30, 255), (2, 2, 6, 6))
        seen.append(np.asarray(decode_image(saved(image))))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert seen[0][0, 0].tolist() == [255, 255, 255]


def test_of_a_phones_several_pictures_in_one_jpeg_the_first_is_read():
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ((250, 10, 10), (10, 250, 10)))
    data = saved(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_allclose(decode_image(data).getpixel((8, 8)), (250, 10, 10), atol=6)


def test_one_bit_a_pixel_is_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert np.asarray(decode_image(saved(image)))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_each_format_is_read(form):
    image = Image.new("RGB", (40, 30), (200, 30, 60))
    decoded = decode_image(saved(image, form))
    assert decoded.size == (40, 30)
    assert decoded.mode == "RGB"
    np.testing.assert_allclose(decoded.getpixel((20, 15)), (200, 30, 60), atol=4)


def test_of_an_animated_gif_the_first_frame_is_read():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, *others = [Image.new("RGB", (20, 20), colour) for colour in colours]
    data = saved(first, "GIF", save_all=True, append_images=others)
    with Image.open(io.BytesIO(data)) as whole:
        assert whole.n_frames == 3  # type: ignore[attr-defined]
    assert decode_image(data).getpixel((5, 5)) == colours[0]


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
def test_of_other_animations_the_first_frame_is_read(form):
    first, second = (Image.new("RGB", (20, 20), colour) for colour in ((255, 0, 0), (0, 255, 0)))
    data = saved(first, form, save_all=True, append_images=[second], lossless=True)
    with Image.open(io.BytesIO(data)) as whole:
        assert whole.n_frames == 2  # type: ignore[attr-defined]
    assert decode_image(data).getpixel((5, 5)) == (255, 0, 0)


def test_sixteen_bits_of_grey_are_turned_as_their_exif_orientation_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    levels = np.zeros((10, 20), np.uint16)
    levels[:5, :10] = 4_095
    decoded = np.asarray(decode_image(saved(Image.fromarray(levels), exif=exif)))
    assert decoded.shape == (20, 10, 3)
    assert decoded[0, -1].tolist() == [255, 255, 255]
    assert decoded[-1, 0].tolist() == [0, 0, 0]


def test_a_cmyk_jpeg_is_read_in_its_colours():
    image = Image.new("RGB", (32, 32), (250, 128, 10))
    decoded = decode_image(saved(image.convert("CMYK"), "JPEG", quality=95))
    np.testing.assert_allclose(decoded.getpixel((16, 16)), (250, 128, 10), atol=6)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_orientation_says(orientation, form):
    upright = Image.new("RGB", (64, 32))
    upright.paste((255, 255, 255), (0, 0, 32, 16))
    undo = {
        1: None, 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
        7: "TRANSVERSE", 8: "ROTATE_270",
    }[orientation]  # fmt: skip
    stored = upright.transpose(Image.Transpose[undo]) if undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(saved(stored, form, exif=exif))
    assert decoded.size == upright.size
    np.testing.assert_allclose(np.asarray(decoded, float), np.asarray(upright, float), atol=8)


def test_broken_exif_does_not_matter():
    data = saved(Image.new("RGB", (8, 8), (1, 2, 3)), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff nonsense")
    assert decode_image(data).size == (8, 8)


def test_fifty_thousand_squared_pixels_of_one_colour_are_refused_before_they_are_decoded():
    # In a process of its own, with less memory than the pixels would take.
    data = one_colour_png(50_000, 50_000)
    assert len(data) < 20_000
    code = (
        "import resource, sys\n"
        "from graft_server.backbones.decoding.images import ImageError, decode_image\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: decode_image(sys.stdin.buffer.read())\n"
        "except ImageError as error: print(error.reason, error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert ended.stdout.decode().startswith(
        "IMAGE_TOO_LARGE The image has 50,000 × 50,000 pixels; at most 50,000,000"
    )


def test_pixels_that_take_too_many_times_their_file_are_refused():
    data = saved(Image.new("1", (6_000, 6_000)))
    error = refused(data, ImageLimits(max_ratio=2_000))
    assert error.reason == "IMAGE_TOO_COMPRESSED"
    assert "at most 2,000 times" in str(error)
    assert decode_image(data, ImageLimits(max_ratio=1e6)).size == (6_000, 6_000)


def test_a_white_page_is_not_refused():
    assert decode_image(saved(Image.new("RGB", (2_480, 3_508), (255, 255, 255)))).size == (2_480, 3_508)


def test_a_file_of_too_many_bytes_is_refused():
    error = refused(saved(noise(100, 100)), ImageLimits(max_bytes=10_000))
    assert error.reason == "IMAGE_TOO_LARGE"
    assert "at most 10,000" in str(error)


def test_a_truncated_jpeg_is_refused():
    data = saved(noise(200, 200), "JPEG")
    error = refused(data[: len(data) // 2])
    assert error.reason == "IMAGE_CORRUPT"
    assert "Is it whole?" in str(error)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_no_way_to_cut_or_damage_a_file_ends_in_another_error(form):
    data = saved(noise(60, 50), form)
    generator = np.random.default_rng(0)
    damaged = [data[:length] for length in range(0, len(data), max(1, len(data) // 60))]
    for _ in range(60):
        copy = bytearray(data)
        for place in generator.integers(0, min(len(data), 400), 5):
            copy[place] ^= int(generator.integers(1, 256))
        damaged.append(bytes(copy))
    outcomes = set()
    for it in damaged:
        try:
            decode_image(it)
            outcomes.add("read")
        except ImageError as error:
            outcomes.add(error.reason)
    assert {"IMAGE_CORRUPT", "IMAGE_UNREADABLE"} & outcomes


@pytest.mark.parametrize(
    "data", [b"just a text\n" * 40, b"\x89PNG\r\n\x1a\n", b"%PDF-1.7 ", b"II*\0" + bytes(100)]
)
def test_what_is_not_an_image_is_refused_whatever_it_is_called(data):
    error = refused(data)
    assert error.reason == "IMAGE_UNREADABLE"
    assert "JPEG, PNG, WebP or GIF" in str(error)


def test_nothing_is_refused():
    assert refused(b"").reason == "IMAGE_EMPTY"


def test_a_line_is_refused_where_its_shorter_edge_would_be_enlarged():
    recipe = ImageRecipe.of_config(processor("clip").to_dict())
    with pytest.raises(ImageError, match="at most 100 times as long") as raised:
        recipe.pixels(Image.new("RGB", (10_000, 1)))
    assert raised.value.reason == "IMAGE_PROPORTIONS"


def test_configurations_of_earlier_releases_are_read():
    # microsoft/resnet-50 and google/vit-base-patch16-224 as they are published.
    resnet = {
        "crop_pct": 0.875,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "size": 224,
        "resample": 3,
    }
    assert ImageRecipe.of_config(resnet).resize == 256
    assert ImageRecipe.of_config(resnet).shape == (224, 224)
    vit = {"image_processor_type": "ViTFeatureExtractor", "size": 224, "resample": 2}
    assert ImageRecipe.of_config(vit).resize == (224, 224)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"image_processor_type": "DetrImageProcessor"}, "DetrImageProcessor"),
        ({}, "nothing"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 5}}, "longest_edge"),
        ({"image_processor_type": "BitImageProcessor", "do_center_crop": False}, "do_center_crop"),
    ],
)
def test_preprocessing_that_is_not_known_is_refused_and_not_guessed(config, named):
    with pytest.raises(ImageError, match=named) as raised:
        ImageRecipe.of_config(config)
    assert raised.value.reason == "BACKBONE_PREPROCESSING_UNKNOWN"


def test_reading_images_needs_pillow_and_numpy_only():
    path = Path(__file__).parents[2] / "server/graft_server/backbones/decoding/images.py"
    code = (
        "import sys, runpy\n"
        f"runpy.run_path({str(path)!r})\n"
        "print([it for it in ('torch', 'transformers', 'graft_server', 'onnxruntime') if it in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
