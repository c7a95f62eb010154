"""DICOM radiographs: converted as MIMIC-CXR-JPG was, compared with OpenCV; what is none says why and names nobody."""

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurestore.dicom import equalise
from featurestore.errors import ItemError
from featurestore.images import decode_image

pydicom = pytest.importorskip("pydicom", reason="radfs[dicom] is not installed")
RNG = np.random.default_rng(0)
DEEP = np.sort(RNG.integers(200, 3800, (90, 120)).astype(np.uint16), axis=1)  # 12 bits


def dicom(pixels: np.ndarray, **elements) -> bytes:
    """A DICOM file of these pixels [h, w], uncompressed."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    file = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    file.PatientName = "DOE^JANE"
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 8 * pixels.itemsize
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(pixels.dtype.kind == "i")
    file.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(file, name, value)
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def converted(values: np.ndarray, *, inverted: bool = False) -> np.ndarray:
    """The conversion of MIMIC-CXR-JPG as its authors describe it, with OpenCV."""
    cv2 = pytest.importorskip("cv2", reason="radfs[opencv] is not installed")
    values = values.astype(np.float64) - values.min()
    levels = (values / values.max() * 255).astype(np.uint8)
    levels = cv2.equalizeHist(255 - levels if inverted else levels)
    return cv2.imdecode(cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1], cv2.IMREAD_GRAYSCALE)


def decoded(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert image.mode == "L"
    return np.asarray(image)


@pytest.mark.parametrize(
    "pixels", [DEEP, (DEEP // 16).astype(np.uint8), DEEP.astype(np.int16) - 1024], ids=["12-bit", "8-bit", "signed"]
)
def test_gray_is_converted_as_mimic_cxr_jpg(pixels):
    assert np.array_equal(decoded(dicom(pixels)), converted(pixels))


def test_monochrome1_is_inverted():
    data = dicom(DEEP, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(decoded(data), converted(DEEP, inverted=True))
    assert decoded(data)[:, 0].mean() > 200 > decoded(data)[:, -1].mean()


def test_the_rescaling_comes_before_the_window_and_the_window_before_the_scaling():
    data = dicom(DEEP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=2000, WindowWidth=1001)
    # PS3.3, C.11.2.1.2.1: linear from c - 0.5 - (w - 1) / 2 to c - 0.5 + (w - 1) / 2, clipped beyond.
    window = np.clip((2.0 * DEEP - 1000 - 1999.5) / 1000 + 0.5, 0, 1)
    assert np.abs(decoded(data).astype(int) - converted(window)).max() <= 3
    assert np.unique(decoded(data)).size < np.unique(decoded(dicom(DEEP))).size


def test_the_first_of_several_windows_counts():
    one = dicom(DEEP, WindowCenter=1000, WindowWidth=500)
    two = dicom(DEEP, WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    assert np.array_equal(decoded(one), decoded(two))


def test_a_voi_table_is_applied():
    table = pydicom.dataset.Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (np.arange(4096) ** 2 // 4096).astype("<u2").tobytes()
    data = dicom(DEEP, VOILUTSequence=[table])
    assert np.array_equal(decoded(data), converted(DEEP.astype(np.int64) ** 2 // 4096))


@pytest.mark.parametrize("seed", range(20))
def test_equalising_equals_opencv(seed):
    cv2 = pytest.importorskip("cv2", reason="radfs[opencv] is not installed")
    rng = np.random.default_rng(seed)
    levels = rng.normal(rng.integers(0, 255), rng.integers(1, 80), tuple(rng.integers(1, 200, 2)))
    levels = levels.clip(0, 255).astype(np.uint8)
    assert np.array_equal(equalise(levels), cv2.equalizeHist(levels))


def test_a_constant_image_becomes_black():
    assert not decoded(dicom(np.full((20, 30), 700, np.uint16))).any()


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
def test_compressed_files_are_the_same_as_uncompressed_ones(name):
    pytest.importorskip("gdcm", reason="radfs[dicom] is not installed")
    files = [pydicom.data.get_testdata_file(n, download=False) for n in ("MR_small.dcm", name)]
    plain, packed = [decoded(Path(str(file)).read_bytes()) for file in files]
    assert np.array_equal(plain, packed)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (dicom(DEEP, NumberOfFrames=2, Rows=45), "several frames"),
        (dicom(DEEP, PhotometricInterpretation="PALETTE COLOR"), "not gray"),
        (dicom(DEEP, Rows=30_000, Columns=30_000), "more than 89,478,485 pixels"),
        (dicom(DEEP, Rows=200), "not a whole image: ValueError"),
        (dicom(DEEP)[:1200], "DICOM|not a whole image"),
        (dicom(DEEP)[:132], "not a whole DICOM file|holds no image"),
    ],
    ids=["frames", "palette", "bomb", "short", "cut", "empty"],
)
def test_what_is_no_radiograph_says_why_and_names_nobody(data, reason):
    with pytest.raises(ItemError, match=reason) as caught:
        decode_image(data)
    assert "DOE" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_damage_anywhere_ends_in_an_item_error_or_an_image():
    data = dicom(DEEP, WindowCenter=1000, WindowWidth=500)
    outcomes, said = {"image": 0, "error": 0}, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(200):
            broken = bytearray(data)
            for position in RNG.integers(132, 900, 3):
                broken[position] = RNG.integers(0, 256)
            try:
                decoded(bytes(broken))
                outcomes["image"] += 1
            except ItemError as error:
                outcomes["error"] += 1
                said.append(str(error))
    assert min(outcomes.values()) > 5
    assert not [text for text in said if "DOE" in text]


def test_without_pydicom_the_reason_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ItemError, match=r'run pip install "radfs\[dicom\]", then extract with --retry-failed'):
        decode_image(bytes(128) + b"DICM" + bytes(100))


def test_a_tiff_and_a_png_of_sixteen_bits_are_not_equalised():
    buffer = io.BytesIO()
    Image.fromarray(DEEP).save(buffer, "PNG")
    assert not np.array_equal(np.asarray(decode_image(buffer.getvalue())), decoded(dicom(DEEP)))
