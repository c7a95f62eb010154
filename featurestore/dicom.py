"""From the bytes of a DICOM radiograph to 8-bit gray, converted as MIMIC-CXR-JPG was from MIMIC-CXR.

Rescale and VOI window where the file has them; then, as Johnson et al. (2019) describe it: minimum subtracted, divided
by the maximum, times 255, truncated; inverted where MONOCHROME1; histogram equalised; JPEG at quality 95. They mention
no window, so of a file that has one their JPEG may differ: where MIMIC-CXR-JPG has the image, take it from there.

Needs pydicom (radfs[dicom]). No reason of a failure holds a value of the file: headers name patients.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ItemError
from .pixels import min_max, quietly

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_NEEDED = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PlanarConfiguration", "SmallestImagePixelValue", "RescaleSlope",
    "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth",
    "PixelData",
)  # fmt: skip
"""Nothing else of a file is parsed."""


def decode_dicom(data: bytes) -> "PilImage":
    """The radiograph in mode "L".

    Raises:
        ItemError: pydicom is not installed, no single gray image in the file, more than `PIL.Image.MAX_IMAGE_PIXELS`
            pixels, a compression that no installed library reads, or damage.
    """
    from PIL import Image

    header = _header(data)
    if "PixelData" not in header:
        raise ItemError("the DICOM file holds no image")
    if (header.get("NumberOfFrames") or 1) > 1:
        raise ItemError("the DICOM file holds several frames where one image is wanted")
    if header.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise ItemError("the DICOM image is not gray: radiographs are MONOCHROME1 or MONOCHROME2")
    if header.Rows * header.Columns > (Image.MAX_IMAGE_PIXELS or 0):
        raise ItemError(f"the image has more than {Image.MAX_IMAGE_PIXELS:,} pixels")
    levels = min_max(_windowed(header))
    if header.PhotometricInterpretation == "MONOCHROME1":
        levels = 255 - levels
    jpeg = io.BytesIO()
    Image.fromarray(equalise(levels)).save(jpeg, "JPEG", quality=95)
    image = Image.open(jpeg)
    image.load()
    return image


def equalise(levels: np.ndarray) -> np.ndarray:
    """uint8 [h, w] with its histogram equalised, as `cv2.equalizeHist` does it."""
    counts = np.bincount(levels.reshape(-1), minlength=256)
    first = int(np.flatnonzero(counts)[0])
    rest = levels.size - int(counts[first])
    if rest == 0:
        return levels
    counts[first] = 0
    table = np.rint(counts.cumsum().astype(np.float32) * (np.float32(255) / np.float32(rest)))
    return table.astype(np.uint8)[levels]


def _header(data: bytes) -> Any:
    """The parsed file, pixels not yet decoded."""
    try:
        import pydicom
    except ImportError:
        raise ItemError(
            'a DICOM file needs pydicom: run pip install "radfs[dicom]", then extract with --retry-failed'
        ) from None
    with quietly():
        try:
            header = pydicom.dcmread(io.BytesIO(data), specific_tags=list(_NEEDED))
            for name in _NEEDED[:-1]:
                header.get(name)  # parsed now, with its warnings
            if header.file_meta.TransferSyntaxUID is None:
                raise ValueError("no transfer syntax")
            return header
        except Exception as error:
            raise ItemError(f"not a whole DICOM file ({type(error).__name__})") from None


def _windowed(header: Any) -> np.ndarray:
    """Pixels after the modality's rescaling (slope and intercept, or a table) and the first VOI table or window."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    try:
        pixels = header.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        name = header.file_meta.TransferSyntaxUID.name
        raise ItemError(
            f"the DICOM image cannot be decoded ({type(error).__name__}, {name[:60]}): it is damaged, or its "
            'compression needs what is not installed (pip install "radfs[dicom]")'
        ) from None
    return apply_voi_lut(apply_modality_lut(pixels, header), header)
