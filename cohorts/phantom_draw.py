"""Drawing of the phantom's radiographs: a chest from attenuations, in numpy alone.

The parts of a chest are summed as water-equivalent thickness (`depth`), bright where much is absorbed, and passed
through a film curve. It looks like a chest radiograph from across the room and is none: nobody may learn medicine
from it. Knows how strong each finding is; nothing of patients, labels or reports.

Coordinates: u to the right and v down, -1 to 1 across the frame, `a` the distance from the midline on one side; the
patient's right side is on the left of the picture. All arithmetic is in float64, mostly sums and products, so that
rounding to 8 bits hides differences between processors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

FINDINGS = ("opacity", "effusion", "cardiomegaly")
"""What the drawing can show."""

VERSION = 1
"""Goes up when the same random numbers would give another picture."""

_INK_CELLS = 127


@dataclass(frozen=True)
class Finding:
    """How strong a finding is (0 absent, 1 faint, 2.5 plain to see) and on which side: 1 is the patient's left."""

    severity: float
    side: int


@dataclass(frozen=True)
class _Chest:
    """One patient's build and how the patient was placed: what varies between radiographs and means nothing."""

    turn: float
    scale_u: float
    scale_v: float
    shift_u: float
    shift_v: float
    fat: float
    right_dome: float
    left_dome: float
    apex: float
    heart: float
    rib_spacing: float
    rib_offset: float
    bone: float


def draw_chest(rng: np.random.Generator, findings: Mapping[str, Finding], image_px: int) -> npt.NDArray[np.uint8]:
    """One radiograph.

    Args:
        rng: source of the patient's build, the projection and the noise.
        findings: each of `FINDINGS`.
        image_px: height and width.

    Returns:
        Grey levels [image_px, image_px].
    """
    chest = _chest(rng)
    u, v = _grid(chest, image_px)
    a = np.abs(u)
    floor = _floor(a, np.where(u < 0, chest.right_dome, chest.left_dome))
    air = _lung(a, v, chest, floor)
    heart = _heart(u, v, chest, size=1 + 0.10 * findings["cardiomegaly"].severity)
    heart *= 1 - 0.8 * _ramp((v - floor) / 0.08)
    air = air * (1 - np.minimum(1, 1.5 * heart))
    depth = _body(a, v, chest) + _mediastinum(u, v) + 0.33 * heart
    depth += _bones(a, v, chest) + _abdomen(rng, u, v, chest, floor)
    tissue = _vessels(rng, chest, image_px) + 0.020 * _texture(rng, image_px, 30) + 0.015 * _texture(rng, image_px, 64)
    opacity = _opacity(rng, u, v, findings["opacity"], image_px)
    fluid = _effusion(u, v, chest, findings["effusion"])
    depth += air * (1 - fluid) * (np.minimum(0.62, tissue + opacity) - 0.62) + 0.04 * air * fluid
    depth += _devices(rng, u, v)
    return _film(rng, depth, image_px)


def _chest(rng: np.random.Generator) -> _Chest:
    dome = rng.normal(0.42, 0.045)
    return _Chest(
        turn=rng.normal(0, 0.03),
        scale_u=rng.normal(0.98, 0.04),
        scale_v=rng.normal(1.0, 0.04),
        shift_u=rng.normal(0, 0.035),
        shift_v=rng.normal(0.02, 0.03),
        fat=rng.uniform(0, 1),
        # The liver holds the right dome a little higher than the left one.
        right_dome=dome - abs(rng.normal(0.07, 0.02)),
        left_dome=dome,
        apex=rng.normal(-0.74, 0.025),
        heart=rng.normal(1.0, 0.05),
        rib_spacing=rng.normal(0.150, 0.007),
        rib_offset=rng.uniform(0, 0.15),
        bone=rng.normal(1.0, 0.12),
    )


def _grid(chest: _Chest, image_px: int) -> tuple[Array, Array]:
    """u and v of every pixel in the patient's own frame, [image_px, image_px] each."""
    axis = (np.arange(image_px) + 0.5) / image_px * 2 - 1
    x, y = (axis - chest.shift_u)[None, :], (axis - chest.shift_v)[:, None]
    cos, sin = np.cos(chest.turn), np.sin(chest.turn)
    return (cos * x + sin * y) / chest.scale_u, (cos * y - sin * x) / chest.scale_v


def _ramp(x: Array) -> Array:
    """A smooth step from 0 at x = 0 to 1 at x = 1."""
    t = np.clip(x, 0, 1)
    step = -2 * t
    step += 3
    step *= t
    step *= t
    return step


def _edge(distance: Array, width: float) -> Array:
    """A soft outline, 0 outside to 1 inside, `width` wide, by the signed distance."""
    return _ramp(distance / width + 0.5)


def _bump(x: Array) -> Array:
    """A hill of height 1 that ends at |x| = 1."""
    t = np.clip(1 - x * x, 0, None)
    return t * t


def _blob(u: Array, v: Array, u0: float, v0: float, radius_u: float, radius_v: float) -> Array:
    t = np.clip(1 - ((u - u0) / radius_u) ** 2 - ((v - v0) / radius_v) ** 2, 0, None)
    return t * t


def _body(a: Array, v: Array, chest: _Chest) -> Array:
    """Soft tissue of neck, shoulders and trunk, thinner towards the skin."""
    half = 0.25 + (0.84 + 0.12 * chest.fat) * _ramp((v + 1.06) / 0.42) - 0.10 * _ramp((v + 0.55) / 0.8)
    inside = np.clip(1 - (a / half) ** 2, 0, 1)
    wall = 0.10 * (0.5 + chest.fat) * _bump((a - half + 0.15) / 0.2)
    return np.sqrt(np.sqrt(inside)) * (0.62 + 0.08 * chest.fat + 0.16 * _ramp((v + 0.2) / 1.0) + wall)


def _floor(a: Array, dome: Array) -> Array:
    """Height of the diaphragm: a dome that falls off to the costophrenic angle."""
    outward, inward = np.clip((a - 0.36) / 0.40, 0, 2), np.clip((0.36 - a) / 0.30, 0, 2)
    return dome + 0.20 * outward * outward * (0.6 + 0.4 * outward) + 0.05 * inward * inward


def _lung(a: Array, v: Array, chest: _Chest, floor: Array) -> Array:
    """Air of the lungs above the diaphragm, 0 to 1, were there no heart."""
    t = np.clip((v - chest.apex) / (0.62 - chest.apex), 0, 1)
    lateral = 0.26 + 0.53 * np.sqrt(1 - (1 - t) ** 3) - 0.02 * t
    medial = 0.20 - 0.12 * t
    inside = np.minimum(np.minimum(lateral - a, 1.2 * (a - medial)), 1.2 * (floor - v))
    inside = np.clip(np.minimum(inside, v - chest.apex), 0, 0.24)
    return np.sqrt(inside / 0.24) * _edge(inside - 0.012, 0.024)


def _heart(u: Array, v: Array, chest: _Chest, *, size: float) -> Array:
    """Thickness of the heart, 0 to 1: a low bulge to the right, a long one to the left with the apex on the dome."""
    size = size * chest.heart
    top, bottom = -0.16, chest.left_dome + 0.13
    t = (v - top) / (bottom - top)
    end = np.sqrt(np.clip(1 - np.clip((t - 0.70) / 0.30, 0, 1) ** 2, 0, 1))
    rise = np.clip(t / 0.70, 0, 1)
    left = 0.10 + 0.35 * size * rise * (1.6 - 0.6 * rise) * end
    right = 0.10 + 0.13 * size * _bump((t - 0.60) / 0.75)
    inside = np.minimum(left - u, u + right) / (0.5 * (left + right))
    depth = np.sqrt(np.clip(inside, 0, 1)) * _edge(inside - 0.04, 0.08)
    return depth * _ramp(t / 0.35) * (t < 1.1)


def _mediastinum(u: Array, v: Array) -> Array:
    """Great vessels, spine and windpipe."""
    knob = 0.055 * _bump((v + 0.27) / 0.14) * (u > 0)
    band = _edge(0.105 + knob - np.abs(u), 0.04)
    vertebra = v / 0.125
    gap = np.abs(vertebra - np.floor(vertebra) - 0.5)
    spine = _edge(0.066 - np.abs(u), 0.03) * (0.8 + 0.5 * _ramp((0.42 - gap) / 0.08))
    windpipe = _edge(0.034 - np.abs(u), 0.03) * _edge(-0.18 - v, 0.12)
    return 0.14 * band + 0.075 * spine - 0.13 * windpipe


def _bones(a: Array, v: Array, chest: _Chest) -> Array:
    """Ribs behind and in front, collar bones, shoulder joints."""
    cage = _edge(0.83 - 0.42 * _ramp((-0.35 - v) / 0.5) - a, 0.06) * _edge(chest.left_dome + 0.22 - v, 0.2)
    behind = (v - 0.70 * np.clip(a - 0.22, 0, 1) ** 2 + 0.25 * np.clip(0.22 - a, 0, 1)) + chest.rib_offset
    front = v + 0.75 * a - 0.30 * a * a + chest.rib_offset
    ribs = 0.115 * _tube(behind / chest.rib_spacing, 0.22) * _ramp((a - 0.04) / 0.08) * _ramp((v + 0.92) / 0.2)
    ribs += 0.060 * _tube(front / (1.15 * chest.rib_spacing), 0.28) * _ramp((a - 0.26) / 0.25) * _ramp((v + 0.6) / 0.3)
    collar_line = v + 0.57 + 0.24 * a - 0.16 * _bump((a - 0.55) / 0.5)
    collar = _edge(0.030 - np.abs(collar_line), 0.025) * _ramp((a - 0.05) / 0.06) * _ramp((0.84 - a) / 0.06)
    joint = _edge(0.15 - np.sqrt((a - 1.0) ** 2 + (v + 0.56) ** 2), 0.05)
    return chest.bone * (ribs * cage + 0.13 * collar + 0.10 * joint)


def _tube(phase: Array, half: float) -> Array:
    """Bones side by side, one a unit of `phase`: bright rims, a paler middle."""
    q = np.minimum(1, np.abs(phase - np.floor(phase) - 0.5) / half)
    return (0.6 + 0.7 * q * q) * _ramp((1 - q) / 0.35)


def _abdomen(rng: np.random.Generator, u: Array, v: Array, chest: _Chest, floor: Array) -> Array:
    """What lies under the diaphragm: dense, with gas in most stomachs."""
    gas, size = rng.uniform(0, 0.5), rng.uniform(0.09, 0.15)
    bubble = _blob(u, v, rng.normal(0.38, 0.04), chest.left_dome + size + 0.05, 1.7 * size, size)
    return _ramp((v - floor + 0.02) / 0.05) * (0.10 - gas * np.minimum(0.7, bubble))


def _vessels(rng: np.random.Generator, chest: _Chest, image_px: int) -> Array:
    """Hila and the vessels that branch from them, as thickness inside the lungs."""
    n, steps = 34, 48
    along = np.linspace(0, 1, steps)[None, :]
    strokes = []
    for side, root_v in ((-1, 0.0), (1, -0.05)):
        angle, bend = rng.uniform(-1.45, 1.35, (n, 1)), rng.normal(0, 0.35, (n, 1))
        length, start = rng.uniform(0.25, 0.62, (n, 1)), rng.uniform(0, 0.55, (n, 1))
        way = start + (1 - start) * along
        heading = angle + bend * (along - 0.5)
        weight = (1 - 0.9 * way) * rng.uniform(0.4, 1.0, (n, 1))
        u = chest.shift_u + side * (0.16 + length * way * np.cos(heading))
        v = chest.shift_v + root_v + length * way * np.sin(heading)
        strokes.append((u, v, weight))
    ink = _splat(*(np.concatenate([stroke[k].ravel() for stroke in strokes]) for k in range(3)))
    return 0.085 * _spread(ink, image_px)


def _splat(u: Array, v: Array, weight: Array) -> Array:
    """Ink of points on a coarse grid over the frame, [_INK_CELLS + 1, _INK_CELLS + 1]."""
    n = _INK_CELLS + 1
    row, column = (np.clip(np.rint((x + 1) / 2 * _INK_CELLS).astype(np.int64), 0, _INK_CELLS) for x in (v, u))
    ink = np.bincount(row * n + column, weights=weight, minlength=n * n)
    return ink.astype(np.float64).reshape(n, n)


def _opacity(rng: np.random.Generator, u: Array, v: Array, finding: Finding, image_px: int) -> Array:
    """Patchy consolidation: one to three lumps in a lung, as thickness."""
    lumps = np.zeros_like(u)
    for share in (1.0, 0.8, 0.6)[: int(rng.integers(1, 4))]:
        size = rng.uniform(0.24, 0.40)
        lumps += share * _blob(
            u, v, finding.side * rng.uniform(0.30, 0.55), rng.uniform(-0.35, 0.25), size, 1.15 * size
        )
    thickness = 0.64 * finding.severity * lumps * np.clip(1 + 0.4 * _texture(rng, image_px, 16), 0.2, None)
    return 0.52 * thickness / (0.52 + thickness)


def _effusion(u: Array, v: Array, chest: _Chest, finding: Finding) -> Array:
    """Share of each place that fluid has filled: from the base of one lung up, climbing along the chest wall."""
    side, severity = finding.side, finding.severity
    level = (chest.left_dome if side > 0 else chest.right_dome) + 0.16 - 0.09 * severity
    climb = np.clip((u * side - 0.30) / 0.5, 0, 2)
    surface = level - 0.26 * min(1.0, 0.3 + 0.4 * severity) * climb * climb
    return min(1.0, 1.2 * severity) * _edge(v - surface, 0.09) * (u * side > 0)


def _devices(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """A marker on every film; on some a pacemaker or a central line. They mean nothing here."""
    u0, v0 = rng.uniform(0.80, 0.90), rng.uniform(-0.92, -0.84)
    stem = (np.abs(u - u0) < 0.011) & (np.abs(v - v0) < 0.045)
    foot = (np.abs(v - v0 - 0.045) < 0.011) & (np.abs(u - u0 - 0.018) < 0.028)
    depth = np.where(stem | foot, 0.5, 0.0)
    kind, slope = rng.random(), rng.uniform(0.2, 0.5)
    if kind < 0.08:
        box = _edge(0.085 - np.sqrt(((u - 0.56) / 1.15) ** 2 + (v + 0.46) ** 2), 0.02)
        arc = np.sqrt((u - 0.44) ** 2 + 1.2 * (v + 0.14) ** 2) - 0.36
        depth += 0.45 * box + 0.22 * _edge(0.007 - np.abs(arc), 0.012) * (u < 0.46) * (v < 0.3)
    elif kind < 0.22:
        line = u + 0.075 + slope * np.clip(-0.35 - v, 0, 1)
        depth += 0.16 * _edge(0.007 - np.abs(line), 0.012) * _edge(0.02 - v, 0.04)
    return depth


def _film(rng: np.random.Generator, depth: Array, image_px: int) -> npt.NDArray[np.uint8]:
    """Depth to grey levels: exposure and contrast that vary, quantum noise, sometimes a collimated border."""
    centre, width = rng.normal(0.62, 0.04), rng.normal(0.235, 0.02)
    grey = 1 / (1 + np.exp((centre - depth) / width))
    # Few photons pass where much is absorbed, so noise grows with depth.
    grain = rng.standard_normal(depth.shape) + _texture(rng, image_px, image_px // 4)
    grey += rng.uniform(0.004, 0.012) * (0.5 + np.clip(depth, 0, 1)) * grain
    border = round(image_px * max(0.0, rng.normal(0, 0.015)))
    if border:
        grey[:border], grey[-border:], grey[:, :border], grey[:, -border:] = 0.02, 0.02, 0.02, 0.02
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, image_px: int, cells: int) -> Array:
    """Smooth noise of standard deviation 1 with about `cells` lumps across the frame."""
    return _spread(rng.standard_normal((cells + 1, cells + 1)), image_px)


def _spread(knots: Array, image_px: int) -> Array:
    """A coarse grid of values as a smooth picture, [image_px, image_px]: a cubic B-spline, four knots to a side.

    Sums instead of a matrix product: threads of a BLAS would fight over cores that others use.
    """
    taps = _spline_taps(image_px, knots.shape[0] - 1)
    rows, picture = np.zeros((image_px, knots.shape[1])), np.zeros((image_px, image_px))
    for knot, weight in taps:
        rows += weight[:, None] * knots[knot]
    for knot, weight in taps:
        picture += weight * rows[:, knot]
    return picture


@lru_cache(maxsize=16)
def _spline_taps(image_px: int, cells: int) -> tuple[tuple[npt.NDArray[np.int64], Array], ...]:
    """Four (knots [image_px], weights [image_px]); independent knots of variance 1 give pixels of variance 1."""
    at = np.linspace(0, cells, image_px, dtype=np.float64)
    first = np.floor(at).astype(np.int64)
    t = at - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3])
    weights /= np.sqrt((weights**2).sum(axis=0))
    return tuple((np.clip(first + k - 1, 0, cells), weights[k]) for k in range(4))
