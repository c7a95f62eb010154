"""From one CT volume to one radiograph: read, turn upright, project from front to back, equalise, JPEG.

The paper's recipe (Plastimatch, histogram equalisation as in MIMIC-CXR-JPG, JPEG 95), with what it leaves open chosen
here and kept in `Projection`. Knows one volume; not where many of them lie.

    attenuation of a voxel   0 where HU <= -800, else 0.022 * (1 + HU / 1000) per cm (Plastimatch's own)
    radiograph               line integrals x; (x - min) / max * 255 cut to 8 bits; equalised; bone is bright
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from isal import igzip
from isal.igzip_lib import IsalError

from featurestore.errors import DataError, ItemError

if TYPE_CHECKING:
    import SimpleITK

GEOMETRIES = {"cone": (1000.0, 1500.0), "chest": (1630.0, 1830.0), "parallel": None}
"""Distances in mm from the source to the patient's centre and to the detector. "cone" has Plastimatch's own, "chest"
those of a chest stand; "parallel" has rays without a source and needs no program beside this one."""

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
"""Names of volumes that are read."""

_AIR_HU = -800
_MU_PER_MM = 0.0022
_MARGIN = 1.1
_TIMEOUT_S = 900
_OBLIQUE = 1e-3
"""Direction cosines that are off by more than this are of a volume that lies askew: it is resampled."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Projection:
    """How volumes become radiographs: all that changes a pixel.

    Attributes:
        geometry: name in `GEOMETRIES`.
        image_px: height and width of the radiograph.
        detector_mm: height and width of the detector; None for 1.1 times the shadow of the volume's own larger side
            (height or width), so that nothing is cut off.
    """

    geometry: str = "cone"
    image_px: int = 1024
    detector_mm: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be projected."""
        if self.geometry not in GEOMETRIES:
            raise DataError(f"geometry {self.geometry!r} is not known: use {', '.join(GEOMETRIES)}.")
        if not 16 <= self.image_px <= 8192:
            raise DataError(f"image size {self.image_px} is not allowed: 16 to 8192 pixels.")
        if self.detector_mm is not None and not 10 <= self.detector_mm <= 5000:
            raise DataError(f"detector size {self.detector_mm} is not allowed: 10 to 5000 mm.")

    def recipe(self) -> dict[str, Any]:
        """What a radiograph depends on beside the volume: the settings and the program's version."""
        return {**asdict(self), "program": "numpy" if self.geometry == "parallel" else plastimatch_version()}


@cache
def plastimatch_version() -> str:
    """`plastimatch 1.9.4`.

    Raises:
        DataError: it is not installed; says how to.
    """
    program = shutil.which("plastimatch")
    if program is None:
        raise DataError(
            "the program plastimatch is not installed: it computes the radiographs. On Debian or Ubuntu: sudo apt-get "
            "install plastimatch. Or use --geometry parallel, which needs no program but has no perspective."
        )
    words = subprocess.run([program, "--version"], check=False, capture_output=True, text=True).stdout.split()
    return f"plastimatch {words[-1]}" if words else "plastimatch"


def check_libraries() -> None:
    """Refuse to begin without the libraries of the extra `drr`."""
    try:
        import cv2  # noqa: F401
        import SimpleITK  # noqa: F401
    except ImportError as error:
        raise DataError(
            f'{error.name} is not installed: it reads volumes or equalises radiographs. Run: pip install "radfs[drr]"'
        ) from None


def make_radiograph(volume: Path, projection: Projection, *, threads: int = 1) -> bytes:
    """The radiograph of a CT volume, anterior to posterior as a reader sees it: patient's right on the left, head up.

    Args:
        volume: a file of Hounsfield units that SimpleITK reads, in any orientation.
        projection: how.
        threads: of Plastimatch.

    Returns:
        A JPEG file, 8-bit gray, [image_px, image_px].

    Raises:
        ItemError: the volume cannot be read, is none, or casts no shadow.
    """
    import cv2

    upright = _read_upright(volume)
    if projection.geometry == "parallel":
        lines = _project_parallel(upright, projection)
    else:
        lines = _project_cone(upright, projection, threads=threads)
    done, data = cv2.imencode(".jpg", equalise(lines), [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done, "OpenCV writes JPEG"
    return data.tobytes()


def equalise(lines: npt.NDArray[np.float32]) -> Pixels:
    """Line integrals [h, w] as grey levels [h, w], the way MIMIC-CXR-JPG was made (Johnson et al., 2019).

    Raises:
        ItemError: all are equal: the volume holds nothing but air.
    """
    import cv2

    lines = lines - lines.min()
    if not lines.max() > 0:
        raise ItemError("it casts no shadow: it holds nothing but air")
    return cv2.equalizeHist((lines / lines.max() * 255).astype(np.uint8)).astype(np.uint8)


def _read_upright(volume: Path) -> "SimpleITK.Image":
    """The volume with axes left, posterior, superior (LPS) and unit direction: Plastimatch ignores directions."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with _unpacked(volume) as path:
            if path.suffix == ".nii":
                _check_length(path)
            image = sitk.ReadImage(os.fspath(path), sitk.sitkFloat32)
    except RuntimeError as error:
        raise ItemError(f"it cannot be read: {_last_line(str(error))}") from None
    if image.GetDimension() != 3 or min(image.GetSize()) < 2 or image.GetNumberOfComponentsPerPixel() != 1:
        size = " x ".join(map(str, image.GetSize()))
        raise ItemError(f"it is no volume: its size is {size}, three dimensions of one number each are needed")
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low + high) and low <= _AIR_HU):
        raise ItemError(f"its values run from {low:g} to {high:g}: a CT in Hounsfield units holds air, near -1000")
    upright = sitk.DICOMOrient(image, "LPS")
    askew = np.abs(np.array(upright.GetDirection()).reshape(3, 3) - np.eye(3)).max()
    return _resample_straight(upright) if askew > _OBLIQUE else upright


@contextmanager
def _unpacked(volume: Path) -> Iterator[Path]:
    """The volume's file; of a `.nii.gz` a temporary one, for ITK would read a damaged one as if nothing were wrong."""
    if not volume.name.endswith(".nii.gz"):
        yield volume
        return
    with tempfile.TemporaryDirectory(prefix="radfs-drr-") as folder:
        plain = Path(folder, "volume.nii")
        try:
            with igzip.IGzipFile(volume, "rb") as packed, plain.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
        except (EOFError, igzip.BadGzipFile, IsalError) as error:  # pyright: ignore[reportGeneralTypeIssues]  (its stub)
            raise ItemError(f"it is damaged: {_last_line(str(error))}") from None
        yield plain


def _check_length(path: Path) -> None:
    """Refuse a NIfTI file that ends before its voxels do: ITK reads zeros for what is missing."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(os.fspath(path))
    reader.ReadImageInformation()
    voxels = prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8
    if path.stat().st_size < float(reader.GetMetaData("vox_offset")) + voxels:
        raise ItemError("it is damaged: the file ends before its last voxel")


def _resample_straight(image: "SimpleITK.Image") -> "SimpleITK.Image":
    """The volume on a straight grid of the same spacing that holds all of it; air outside."""
    import SimpleITK as sitk

    size = np.array(image.GetSize())
    corners = np.array(
        [image.TransformContinuousIndexToPhysicalPoint([float(x) for x in np.array(c) * (size - 1)]) for c in _CORNERS]
    )
    low, high, spacing = corners.min(0), corners.max(0), np.array(image.GetSpacing())
    extent = [int(n) for n in np.ceil((high - low) / spacing) + 1]
    identity, straight = sitk.Transform(3, sitk.sitkIdentity), np.eye(3).ravel().tolist()
    return sitk.Resample(image, extent, identity, sitk.sitkLinear, low.tolist(), spacing.tolist(), straight, -1024.0)


_CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


def _detector_mm(image: "SimpleITK.Image", projection: Projection) -> float:
    if projection.detector_mm is not None:
        return projection.detector_mm
    (width, _, height), (dx, _, dz) = image.GetSize(), image.GetSpacing()
    distances = GEOMETRIES[projection.geometry]
    magnification = 1.0 if distances is None else distances[1] / distances[0]
    return _MARGIN * magnification * max(width * dx, height * dz)


def _centre(image: "SimpleITK.Image") -> tuple[float, ...]:
    return image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])


def _project_cone(image: "SimpleITK.Image", projection: Projection, *, threads: int) -> npt.NDArray[np.float32]:
    """Line integrals by Plastimatch, [image_px, image_px], first row on top."""
    import SimpleITK as sitk

    distances = GEOMETRIES[projection.geometry]
    assert distances is not None
    px, detector, (to_centre, to_detector) = projection.image_px, _detector_mm(image, projection), distances
    with tempfile.TemporaryDirectory(prefix="radfs-drr-") as folder:
        volume, out = Path(folder, "volume.mha"), Path(folder, "drr")
        sitk.WriteImage(image, os.fspath(volume))
        command = ["plastimatch", "drr", "-A", "cpu", "-i", "exact", "-P", "preprocess"]
        # The rays run to the back (+y in LPS) and the head (+z) is up. The centre must be named: it is the origin else,
        # and a volume that lies elsewhere would give a black image without an error.
        command += ["-n", "0 -1 0", "--vup", "0 0 1", "--sad", f"{to_centre:g}", "--sid", f"{to_detector:g}"]
        command += ["-r", f"{px} {px}", "-z", f"{detector:.6f} {detector:.6f}"]
        command += ["-o", " ".join(f"{x:.6f}" for x in _centre(image)), "-t", "raw", "-O", os.fspath(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        try:
            done = subprocess.run(
                [*command, os.fspath(volume)], check=False, capture_output=True, env=environment, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise ItemError(f"plastimatch took more than {_TIMEOUT_S} s") from None
        raw = Path(folder, "drr0000.raw")
        if done.returncode or not raw.is_file() or raw.stat().st_size != 4 * px * px:
            said = _last_line((done.stderr + done.stdout).decode(errors="replace"))
            raise ItemError(f"plastimatch failed (exit code {done.returncode}): {said}")
        return np.fromfile(raw, "<f4").reshape(px, px)


def _project_parallel(image: "SimpleITK.Image", projection: Projection) -> npt.NDArray[np.float32]:
    """Sums of the same attenuation from front to back, on the detector's grid, [image_px, image_px]."""
    import cv2
    import SimpleITK as sitk

    dx, dy, dz = image.GetSpacing()
    hounsfield = sitk.GetArrayViewFromImage(image)  # [z, y, x]
    mu = np.zeros((hounsfield.shape[0], hounsfield.shape[2]), np.float32)
    for coronal in range(hounsfield.shape[1]):  # plane by plane: a copy of the volume might not fit
        plane = hounsfield[:, coronal]
        mu += np.where(plane > _AIR_HU, _MU_PER_MM * dy * (1 + plane / 1000), 0).astype(np.float32)
    mu = mu[::-1]  # the head is the last plane, and belongs on top
    px = projection.image_px
    pixel_mm = _detector_mm(image, projection) / px
    # From a pixel of the detector to a place in `mu`: both grids share their centre.
    scale = np.array([pixel_mm / dx, pixel_mm / dz])
    centre = (np.array([mu.shape[1], mu.shape[0]]) - 1) / 2 - scale * (px - 1) / 2
    affine = np.array([[scale[0], 0, centre[0]], [0, scale[1], centre[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(mu, affine, (px, px), flags=flags), np.float32)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"
