"""What becomes of every kind of image file: the right 8-bit RGB pixels, or an ItemError that names no path."""

import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurestore.errors import ItemError
from featurestore.images import decode_image, read_file

RNG = np.random.default_rng(0)
COLOUR = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))
GRAY = COLOUR.convert("L")
DEEP = (RNG.integers(0, 3000, (30, 50)) + 500).astype(np.uint16)  # 12 bits in 16, as scanners write


def encoded(image: Image.Image, fmt: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG that Pillow cannot write: any depth, any claimed size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def mimic_scaled(pixels: np.ndarray) -> np.ndarray:
    """The conversion of MIMIC-CXR-JPG, written out independently."""
    values = pixels.astype(np.float64) - float(pixels.min())
    return np.floor(values / values.max() * 255).astype(np.uint8)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode in ("L", "RGB")
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    ("source", "fmt", "options"),
    [
        (COLOUR, "PNG", {}),
        (GRAY, "PNG", {}),
        (GRAY.convert("1"), "PNG", {}),
        (COLOUR.convert("P"), "PNG", {}),
        (COLOUR, "JPEG", {}),
        (COLOUR, "JPEG", {"progressive": True}),
        (GRAY, "JPEG", {}),
        (COLOUR.convert("CMYK"), "JPEG", {}),
        (COLOUR, "TIFF", {"compression": "tiff_lzw"}),
        (GRAY, "BMP", {}),
        (GRAY, "GIF", {}),
        (COLOUR, "WEBP", {"lossless": True}),
        (COLOUR, "JPEG2000", {}),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_eight_bit_images_are_converted_as_the_encoders_pipelines_do(source, fmt, options):
    data = encoded(source, fmt, **options)
    assert np.array_equal(pixels(decode_image(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_gray_stays_one_channel_and_colour_three():
    for source, mode in ((GRAY, "L"), (GRAY.convert("1"), "L"), (Image.fromarray(DEEP), "L"), (COLOUR, "RGB")):
        assert decode_image(encoded(source, "PNG")).mode == mode
    assert decode_image(encoded(GRAY.convert("LA"), "PNG")).mode == "RGB"


def test_opaque_alpha_changes_nothing():
    for source, mode in ((COLOUR, "RGBA"), (GRAY, "LA")):
        assert np.array_equal(pixels(decode_image(encoded(source.convert(mode), "PNG"))), pixels(source.convert("RGB")))


def test_transparent_pixels_are_laid_over_black():
    covered = COLOUR.convert("RGBA")
    covered.putalpha(Image.linear_gradient("L").resize(covered.size))
    alpha = np.asarray(covered.getchannel("A"), np.float64)[..., None]
    result = pixels(decode_image(encoded(covered, "PNG")))
    assert np.abs(result - np.asarray(COLOUR) * alpha / 255).max() <= 1
    assert (result[alpha[..., 0] == 0] == 0).all()


def test_a_transparent_palette_entry_or_gray_level_becomes_black():
    palette = COLOUR.convert("P")
    index = int(np.asarray(palette)[3, 4])
    assert (pixels(decode_image(encoded(palette, "PNG", transparency=index)))[3, 4] == 0).all()
    entries = bytes(0 if i == index else 255 for i in range(256))
    assert (pixels(decode_image(encoded(palette, "PNG", transparency=entries)))[3, 4] == 0).all()
    level = int(np.asarray(GRAY)[3, 4])
    result = pixels(decode_image(encoded(GRAY, "PNG", transparency=level)))
    expected = np.where(np.asarray(GRAY) == level, 0, np.asarray(GRAY))
    assert np.array_equal(result[..., 0], expected)


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_stretched_over_its_own_range(fmt):
    result = pixels(decode_image(encoded(Image.fromarray(DEEP), fmt)))
    assert np.array_equal(result, np.repeat(mimic_scaled(DEEP)[..., None], 3, axis=2))
    assert (result.min(), result.max()) == (0, 255)


@pytest.mark.parametrize(
    "values",
    [
        DEEP.astype(np.int32) * 40_000 - 7,
        (DEEP.astype(np.float32) - 1500) / 3,
        np.array([[-3e38, 0, 3e38]], np.float32),
    ],
    ids=["int32", "float32", "extreme"],
)
def test_thirty_two_bit_gray_is_stretched_over_its_own_range(values):
    result = pixels(decode_image(encoded(Image.fromarray(values), "TIFF")))
    assert np.array_equal(result[..., 0], mimic_scaled(values.astype(np.float64)))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_constant_deep_image_becomes_zeros(dtype):
    assert not pixels(decode_image(encoded(Image.fromarray(np.full((5, 6), 700, dtype)), "TIFF"))).any()


def test_a_deep_tiff_whose_white_is_zero_is_inverted():
    data = encoded(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0})
    assert np.array_equal(pixels(decode_image(data))[..., 0], mimic_scaled(-DEEP.astype(np.int64)))


@pytest.mark.parametrize("source", [COLOUR, Image.fromarray(DEEP)], ids=["rgb", "deep"])
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "TIFF"])
def test_the_exif_orientation_is_applied(source, fmt):
    if fmt == "JPEG":
        source = Image.linear_gradient("L").convert("RGB").resize((48, 32))
    # How to store a picture so that each tag value turns it upright again.
    stored_as = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    upright = pixels(decode_image(encoded(source, fmt)))
    for tag, transpose in stored_as.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        result = pixels(decode_image(encoded(source.transpose(Image.Transpose(transpose)), fmt, exif=exif)))
        assert result.shape == upright.shape
        assert np.abs(result.astype(int) - upright).max() <= (4 if fmt == "JPEG" else 0), tag


def test_a_damaged_exif_block_leaves_the_pixels_usable():
    data = encoded(COLOUR, "JPEG")
    block = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\0\0\xff\xff\0\0\xff\xff"
    broken = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        assert np.array_equal(pixels(decode_image(broken)), pixels(decode_image(data)))
    assert not leaked


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("WEBP", {}),
        ("JPEG2000", {}),
    ],
    ids=str,
)
def test_a_file_cut_anywhere_is_an_item_error(fmt, options):
    data = encoded(COLOUR, fmt, **options)
    whole = len(data) - (4 if fmt == "PNG" else 0)  # a PNG's last 4 bytes only check that its end marker says "end"
    for length in [*range(0, whole, max(1, whole // 40)), whole - 9, whole - 2, whole - 1]:
        with pytest.raises(ItemError):
            decode_image(data[:length])


def test_a_flipped_bit_in_the_pixels_of_a_png_is_noticed():
    data = encoded(COLOUR, "PNG")
    start = data.index(b"IDAT") + 4
    for position in range(start, len(data) - 16, 97):
        broken = bytearray(data)
        broken[position] ^= 1
        with pytest.raises(ItemError, match="not a whole image"):
            decode_image(bytes(broken))


def test_damage_of_any_kind_ends_in_an_item_error_or_an_image_and_never_in_a_warning():
    sources = (COLOUR, GRAY, GRAY.convert("1"), COLOUR.convert("P"), Image.fromarray(DEEP))
    files = [encoded(source, "PNG") for source in sources]
    files += [encoded(source, "TIFF", compression=c) for source in sources for c in ("raw", "tiff_lzw")]
    files += [encoded(COLOUR, fmt) for fmt in ("JPEG", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")]
    outcomes = {"image": 0, "error": 0}
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        for data in files:
            for _ in range(40):
                broken = bytearray(data)
                for position in RNG.integers(0, min(len(data), 600 if RNG.random() < 0.5 else len(data)), 4):
                    broken[position] = RNG.integers(0, 256)
                try:
                    pixels(decode_image(bytes(broken)))
                    outcomes["image"] += 1
                except ItemError:
                    outcomes["error"] += 1
    assert not leaked, [str(warning.message) for warning in leaked]
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"FINDINGS: the heart is enlarged.\n", "not an image in any of PNG, JPEG"),
        (bytes(128) + b"DICM" + bytes(500), "not a whole DICOM file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in any of"),
        (encoded(COLOUR, "GIF", save_all=True, append_images=[GRAY, COLOUR]), "3 frames"),
        (encoded(GRAY, "TIFF", save_all=True, append_images=[COLOUR]), "2 frames"),
        (encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF"), "NaN or infinite"),
        (png(2, 1, 16, 2, b"\0" + bytes(12)), "16-bit colour"),
        (png(2, 1, 16, 4, b"\0" + bytes(8)), "16-bit colour"),
        (png(10_000, 9_000, 8, 0, b"\0"), "more than 89,478,485 pixels"),
        (png(30_000, 30_000, 8, 0, b"\0"), "more than 89,478,485 pixels"),
    ],
    ids=["empty", "text", "dicom", "eps", "gif", "pages", "nan", "deep-rgb", "deep-la", "large", "bomb"],
)
def test_what_is_no_image_says_why(data, reason):
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        with pytest.raises(ItemError, match=reason):
            decode_image(data)
    assert not leaked


def test_of_a_jpeg_with_previews_the_first_picture_is_taken():
    data = encoded(COLOUR, "MPO", save_all=True, append_images=[COLOUR.resize((15, 10))])
    assert data.count(b"\xff\xd8\xff") == 2  # two JPEGs in one file
    assert pixels(decode_image(data)).shape == (40, 60, 3)


def test_errors_hold_the_reason_and_never_the_path(tmp_path: Path):
    folder = tmp_path / "p10-DOE-JANE"
    folder.mkdir()
    (folder / "note.jpg").write_text("dear colleague")
    (folder / "cut.png").write_bytes(encoded(COLOUR, "PNG")[:200])
    cases = {
        folder / "gone.png": "does not exist",
        folder: "directory",
        folder / "note.jpg": "not an image",
        folder / "cut.png": "not a whole image",
        Path(f"{folder}/a\0b"): "not a usable path",
        folder / "note.jpg" / "x.png": "cannot be read",
    }
    for path, reason in cases.items():
        with pytest.raises(ItemError, match=reason) as caught:
            decode_image(read_file(path))
        assert "DOE" not in str(caught.value)
        assert "DOE" not in str(caught.value.__cause__)


def test_threads_decode_the_same_and_leave_the_warning_filters_alone():
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encoded(COLOUR, "JPEG", exif=exif), encoded(Image.fromarray(DEEP), "TIFF"), encoded(COLOUR, "PNG")] * 20
    alone = [decode_image(data).tobytes() for data in files]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert [image.tobytes() for image in pool.map(decode_image, files)] == alone
    assert warnings.filters == before


def test_real_radiographs_decode_as_pillow_does(real_data: Path):
    files = sorted(real_data.glob("*/images/*.jpg"))[:40] + sorted(real_data.glob("nih*/images/*.png"))[:120]
    assert len(files) > 100
    for path in files:
        assert np.array_equal(pixels(decode_image(read_file(path))), np.asarray(Image.open(path).convert("RGB"))), (
            path.name
        )


def test_a_pipe_and_a_device_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ItemError, match="cannot be read: it is no plain file"):
            read_file(path)
