"""From the bytes of an image file to an 8-bit Pillow image, gray or RGB, by one recipe that enters the feature-set key.

Knows Pillow and nothing of encoders, stores or torch. Pillow is imported inside the functions, because specs read
`DECODER` and listing specs must stay light. Whatever is no whole image ends in an ItemError whose text never holds a
path: it goes into failure tables.
"""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .dicom import decode_dicom
from .errors import ItemError
from .pixels import min_max, quietly

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from PIL.Image import Transpose
    from PIL.ImageFile import ImageFile

_DICOM = b"DICM"
"""After a preamble of 128 bytes (part 10 of the standard)."""

DECODER = "pillow-8bit-2"
"""Names what `decode_image` does to pixels. Raise the number whenever its output changes for any file."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""What is decoded. Closed on purpose: Pillow would hand other files to outside programs (EPS to Ghostscript)."""

_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_PHOTOMETRIC = 262  # TIFF tag PhotometricInterpretation; 0 is WhiteIsZero
_ORIENTATION = 0x0112  # EXIF tag Orientation


def read_file(path: str | Path) -> bytes:
    """The bytes of the image file at `path`.

    Raises:
        ItemError: there is no such file, or it cannot be read.
    """
    from .sources import open_source

    try:
        with open_source(path) as file:
            return file.read()
    except FileNotFoundError:
        raise ItemError("the image file does not exist") from None
    except IsADirectoryError:
        raise ItemError("the path is a directory, not an image file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise ItemError(f"the image file cannot be read: {reason}") from None


def decode_image(data: bytes) -> "PilImage":
    """The image in `data` (the bytes of one file) with 8 bits a channel, upright: mode "L" of gray, else "RGB".

    Gray stays one channel, which is resized in a third of the time, and `convert("RGB")` gives the same afterwards.

    - 8 bits or fewer, gray, RGB, palette, CMYK: Pillow's `convert("RGB")`, as the encoders' own pipelines do.
    - Transparency: laid over black, the surroundings of a radiograph. Where all pixels are opaque this equals
      `convert("RGB")`; where they are not, dropping alpha would uncover what the file's author had covered.
    - 16-bit and 32-bit gray, integer or float: minimum subtracted, divided by the maximum, times 255, truncated, per
      image, as MIMIC-CXR-JPG was made (Johnson et al., 2019); a constant image becomes zeros.
    - DICOM: gray, converted as MIMIC-CXR-JPG was (`dicom.decode_dicom`).
    - The EXIF orientation is applied. Of an MPO (a JPEG with previews) the first picture is taken.

    Raises:
        ItemError: no image of a known format, a truncated or damaged one, one with several frames, 16-bit colour
            (Pillow would drop the low bytes), NaN or infinite values, or more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if not data:
        raise ItemError("the image file is empty")
    try:
        return _decode(data)
    except (ItemError, MemoryError):
        raise
    except Exception as error:  # whatever a decoder may raise over foreign bytes: struct, zlib, Key, Syntax, ...
        said = "" if data[128:132] == _DICOM else str(error)  # what pydicom says may quote a header
        raise ItemError(f"not a whole image: {said or type(error).__name__}") from None


def _decode(data: bytes) -> "PilImage":
    if data[128:132] == _DICOM:
        return decode_dicom(data)
    image = _open(data)
    if image.format == "PNG":
        # Pillow does not check the CRCs of pixel chunks while it decodes, nor that the end is there.
        image.verify()
        image = _open(data)
    image.decodermaxblock = len(data) + 1  # at one go: threads that decode meet at the interpreter's lock once
    image.load()
    orientation = _orientation(image)
    upright = _eight_bits(image)
    return upright if orientation is None else upright.transpose(orientation)


def _open(data: bytes) -> "ImageFile":
    """The parsed header, pixels not yet read."""
    from PIL import Image, UnidentifiedImageError

    with quietly():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise ItemError(f"not an image in any of {', '.join(FORMATS)}") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ItemError(f"the image has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
        frames = getattr(image, "n_frames", 1)
        if image.format == "TIFF":
            image.getexif()  # decoding would parse these tags, with its warnings, outside the lock
    if frames > 1 and image.format != "MPO":
        raise ItemError(f"the file holds {frames} frames where one image is wanted: save each as a file of its own")
    if image.mode not in _DEEP_MODES and any(";16" in str(tile.args) for tile in image.tile):
        raise ItemError("16-bit colour is not supported: save the image as 16-bit gray or as 8-bit RGB")
    return image


def _orientation(image: "PilImage") -> "Transpose | None":
    """How to turn `image` upright, None where it is already, or where its EXIF block is damaged."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    with quietly():
        try:
            return turns.get(image.getexif().get(_ORIENTATION, 1))
        except Exception:  # the pixels are whole: a broken EXIF block only means that no turn is known
            return None


def _eight_bits(image: "PilImage") -> "PilImage":
    from PIL import Image
    from PIL.TiffImagePlugin import TiffImageFile

    if image.mode in _DEEP_MODES:
        # Pillow inverts 8-bit TIFFs alone.
        white_is_zero = isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
        return Image.fromarray(min_max(np.asarray(image), inverted=white_is_zero))
    if image.has_transparency_data:
        front = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", front.size, (0, 0, 0, 255)), front).convert("RGB")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    # `convert` would copy: of a full-size radiograph that costs a third of decoding it, in pages new to the process.
    return image if image.mode == mode else image.convert(mode)
