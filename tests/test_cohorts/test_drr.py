"""CT volumes to radiographs: the stored one again, orientation, resuming, and volumes that are none."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cohorts import drr, radiograph
from cohorts.drr import make_radiographs, plan_radiographs
from cohorts.radiograph import Projection, make_radiograph
from featurestore.errors import DataError, ItemError

sitk = pytest.importorskip("SimpleITK")
cv2 = pytest.importorskip("cv2")

needs_plastimatch = pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")
PARALLEL = Projection(geometry="parallel", image_px=48)


def body() -> np.ndarray:
    """A volume [z, y, x] in LPS: a trunk in air, a dense heart on the patient's left, a bright mark high on the right.

    x runs to the left, y to the back, z to the head.
    """
    hounsfield = np.full((24, 20, 30), -1000, np.int16)
    hounsfield[2:22, 4:16, 3:27] = 0
    hounsfield[6:10, 6:12, 18:24] = 400
    hounsfield[18:20, 6:14, 6:8] = 2000
    return hounsfield


def write_volume(path: Path, hounsfield: np.ndarray, *, axes: str = "LPS", turn: float = 0.0) -> Path:
    """A file of the volume, stored along other axes or turned about the long axis; it is the same body in space."""
    image = sitk.GetImageFromArray(hounsfield)
    image.SetSpacing((4.0, 4.0, 5.0))
    image.SetOrigin((-200.0, 310.0, 1500.0))
    if turn:
        angle = np.deg2rad(turn)
        image.SetDirection((np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, axes), str(path))
    return path


def pixels(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint8
    assert image.ndim == 2
    return image.astype(int)


GEOMETRIES = ["parallel", pytest.param("cone", marks=needs_plastimatch), pytest.param("chest", marks=needs_plastimatch)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_patients_right_is_on_the_left_and_the_head_is_up(tmp_path, geometry):
    volume = write_volume(tmp_path / "v.nii.gz", body())
    image = pixels(make_radiograph(volume, Projection(geometry=geometry, image_px=96)))
    assert image.shape == (96, 96)
    row, column = np.unravel_index(image[:40].argmax(), image[:40].shape)
    assert row < 32, "the mark is high"
    assert column < 40, "the mark is on the patient's right"
    heart, mirrored = image[50:70, 50:75].mean(), image[50:70, 21:46].mean()
    assert heart > mirrored + 4, "the heart is on the patient's left, and dense is bright"
    assert image[:4].max() < image[48, 48], "air around the body is dark"


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR", "SLA"])
def test_how_a_file_stores_its_axes_does_not_matter(tmp_path, geometry, axes):
    projection = Projection(geometry=geometry, image_px=48)
    straight = make_radiograph(write_volume(tmp_path / "a.nii.gz", body()), projection)
    assert make_radiograph(write_volume(tmp_path / "b.nii.gz", body(), axes=axes), projection) == straight


def test_a_volume_that_lies_askew_is_set_straight(tmp_path):
    """A rod 32 mm to the left of the centre; turned by 60 degrees about it, it lies 32 * cos 60 = 16 mm to the left."""
    rod = np.full((24, 31, 31), -1000, np.int16)
    rod[:, 14:17, 22:25] = 0
    projection = Projection(geometry="parallel", image_px=96, detector_mm=192)
    for turn, expected_mm in ((0, 32), (60, 16)):
        upright = radiograph._read_upright(write_volume(tmp_path / "v.nii.gz", rod, turn=turn))
        profile = radiograph._project_parallel(upright, projection)[40:56].sum(0)
        place = (profile * (np.arange(96) - 47.5)).sum() / profile.sum() * 2
        assert place == pytest.approx(expected_mm, abs=1)


def test_line_integrals_by_hand(tmp_path):
    """A slab 10 voxels of 4 mm deep: water 0.0022 * 40 = 0.088, HU 1000 twice that, HU -799 next to none."""
    for hounsfield, expected in ((0, 0.088), (1000, 0.176), (-799, 0.088 * 0.201), (-801, 0)):
        slab = np.full((12, 14, 12), -1000, np.int16)
        slab[:, 2:12] = hounsfield
        upright = radiograph._read_upright(write_volume(tmp_path / "slab.nii.gz", slab))
        lines = radiograph._project_parallel(upright, Projection(geometry="parallel", image_px=16, detector_mm=24))
        assert lines[8, 8] == pytest.approx(expected, abs=1e-5)


@needs_plastimatch
def test_plastimatch_from_far_away_agrees_with_the_sum_of_numpy(tmp_path, monkeypatch):
    """The slow twin: rays from 50 m away are all but parallel. Plastimatch leaves half a voxel out at either end."""
    monkeypatch.setitem(radiograph.GEOMETRIES, "far", (50_000.0, 50_001.0))
    z, y, x = np.mgrid[:24, :20, :30]
    lump = np.exp(-((z - 14) ** 2 + (y - 10) ** 2 + (x - 12) ** 2) / 60)
    upright = radiograph._read_upright(write_volume(tmp_path / "v.nii.gz", (1400 * lump - 1000).astype(np.int16)))
    far, parallel = (Projection(geometry=name, image_px=64, detector_mm=110) for name in ("far", "parallel"))
    one = radiograph._project_cone(upright, far, threads=1)
    other = radiograph._project_parallel(upright, parallel)
    assert np.abs(one - other).max() < 0.1 * other.max(), "voxels of 4 mm: nearest against interpolated"
    assert one.sum() == pytest.approx(other.sum(), rel=0.02)
    for axis in (0, 1):
        centres = [(image.sum(axis) * np.arange(64)).sum() / image.sum() for image in (one, other)]
        assert centres[0] == pytest.approx(centres[1], abs=0.1)


@needs_plastimatch
def test_the_real_ct_becomes_the_stored_radiograph(real_data, tmp_path):
    """The stored one comes from the full resolution, this one from half of it in plane."""
    folder = real_data / "lidc-ct"
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "case.nii.gz").symlink_to(folder / "LIDC-IDRI-0001_halfres.nii.gz")
    report = make_radiographs(tmp_path / "ct", tmp_path / "out", projection=Projection(detector_mm=600))
    assert (report.made, report.failures) == (1, ())
    made = pixels((tmp_path / "out" / "case.jpg").read_bytes())
    stored = pixels((folder / "LIDC-IDRI-0001_plastimatch_ap_1024_equalized_q95.jpg").read_bytes())
    difference = np.abs(made - stored)
    assert difference.mean() <= 1
    assert difference.max() <= 20


def test_a_run_goes_on_where_it_stopped_and_records_what_failed(tmp_path):
    ct, out = tmp_path / "ct", tmp_path / "out"
    write_volume(ct / "one.nii.gz", body())
    whole = write_volume(ct / "sub" / "two.mha", body()).read_bytes()
    (ct / "cut.nii.gz").write_bytes((ct / "one.nii.gz").read_bytes()[:-200])
    (ct / "notes.txt").write_text("not a volume")
    told = []
    report = make_radiographs(ct, out, projection=PARALLEL, on_progress=lambda *n: told.append(n))
    assert (report.made, report.already) == (2, 0)
    assert [volume for volume, _ in report.failures] == ["cut.nii.gz"]
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.jpg")) == ["one.jpg", "sub/two.jpg"]
    assert pl.read_csv(out / "failures.csv")["volume"].to_list() == ["cut.nii.gz"]
    assert told[-1] == (3, 3, 1)

    stamp = (out / "one.jpg").stat().st_mtime_ns
    (out / "sub" / "two.jpg").unlink()
    (ct / "cut.nii.gz").unlink()
    (ct / "sub" / "three.mha").write_bytes(whole)
    again = make_radiographs(ct, out, projection=PARALLEL, workers=1)
    assert (again.made, again.already, again.failures) == (2, 1, ())
    assert (out / "one.jpg").stat().st_mtime_ns == stamp
    assert not (out / "failures.csv").exists()
    assert (out / "sub" / "three.jpg").read_bytes() == (out / "one.jpg").read_bytes(), "one worker or many: same bytes"


def test_other_settings_in_one_folder_are_refused(tmp_path):
    write_volume(tmp_path / "ct" / "one.nii.gz", body())
    make_radiographs(tmp_path / "ct", tmp_path / "out", projection=PARALLEL)
    assert json.loads((tmp_path / "out" / "drr.json").read_text())["image_px"] == 48
    with pytest.raises(DataError, match="made with image_px 48, not 64"):
        make_radiographs(tmp_path / "ct", tmp_path / "out", projection=Projection(geometry="parallel", image_px=64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4, 4), -1000, np.int16), "casts no shadow"),
        (np.arange(64, dtype=np.int16).reshape(4, 4, 4), "run from 0 to 63: a CT in Hounsfield units holds air"),
        (np.full((1, 4, 4), -1000, np.int16), "no volume: its size is 4 x 4 x 1"),
    ],
)
def test_a_volume_that_is_no_ct_is_an_error_of_its_own(tmp_path, values, message):
    with pytest.raises(ItemError, match=message):
        make_radiograph(write_volume(tmp_path / "v.nii.gz", values), PARALLEL)


@pytest.mark.parametrize("suffix", radiograph.SUFFIXES)
def test_a_file_that_is_no_volume_or_a_part_of_one_is_an_error_of_its_own(tmp_path, suffix):
    """ITK itself reads a cut NIfTI file as if the rest were zeros."""
    path = tmp_path / f"v{suffix}"
    path.write_bytes(b"junk")
    with pytest.raises(ItemError, match=r"cannot be read|is damaged"):
        make_radiograph(path, PARALLEL)
    write_volume(path, body())
    data = path.with_suffix(".raw") if suffix == ".mhd" else path
    data.write_bytes(data.read_bytes()[:-200])
    with pytest.raises(ItemError, match=r"cannot be read|is damaged"):
        make_radiograph(path, PARALLEL)


def test_a_flipped_bit_in_a_compressed_volume_is_seen(tmp_path):
    path = write_volume(tmp_path / "v.nii.gz", body())
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # in the checksum: what it is of is then not what was written
    path.write_bytes(data)
    with pytest.raises(ItemError, match="is damaged"):
        make_radiograph(path, PARALLEL)


def test_a_plastimatch_that_fails_is_an_error_of_the_volume(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "plastimatch"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(ItemError, match=r"plastimatch failed \(exit code 3\): out of luck"):
        make_radiograph(write_volume(tmp_path / "v.nii.gz", body()), Projection(image_px=32))


def test_without_plastimatch_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    radiograph.plastimatch_version.cache_clear()
    write_volume(tmp_path / "ct" / "one.nii.gz", body())
    with pytest.raises(DataError, match="apt-get install plastimatch"):
        make_radiographs(tmp_path / "ct", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_without_volumes_and_volumes_of_one_name_are_errors(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        plan_radiographs(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no volume"):
        plan_radiographs(tmp_path / "empty", tmp_path / "out")
    for name in ("a.nii.gz", "a.mha"):
        write_volume(tmp_path / "twice" / name, body())
    with pytest.raises(DataError, match="the same radiograph: rename one"):
        plan_radiographs(tmp_path / "twice", tmp_path / "out")
    assert drr.SUFFIXES == radiograph.SUFFIXES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"geometry": "fan"}, "geometry 'fan' is not known: use cone, chest, parallel"),
        ({"image_px": 0}, "image size 0"),
        ({"detector_mm": -1}, "detector size -1"),
    ],
)
def test_settings_that_cannot_be_used_are_errors(settings, message):
    with pytest.raises(DataError, match=message):
        Projection(**settings)
