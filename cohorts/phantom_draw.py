"""Drawing of the phantom's radiographs: a chest from attenuations, in numpy alone.

The parts of a chest are summed as water-equivalent thickness (`depth`), bright where much is absorbed, and passed
through a film curve. It looks like a chest radiograph from across the room and is none; nobody may learn medicine
from it. Knows how strong each finding is; nothing of patients, labels or reports.

Coordinates: u to the right and v down, -1 to 1 across the frame; the patient's right side is on the left of the
picture. All arithmetic is in float64, so that rounding to 8 bits hides differences between processors.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

FINDINGS = ("opacity", "effusion", "cardiomegaly")
"""What the drawing can show, each with a severity: 0 is absent, 1 plain to see, 3 extreme."""

VERSION = 1
"""Goes up when the same random numbers would give another picture."""


@dataclass(frozen=True)
class _Chest:
    """One patient's build and how the patient was placed: what varies between radiographs and means nothing."""

    turn: float
    scale_u: float
    scale_v: float
    shift_u: float
    shift_v: float
    fat: float
    dome: tuple[float, float]
    apex: float
    heart: tuple[float, float]
    rib_spacing: float
    rib_offset: float


def draw_chest(rng: np.random.Generator, severity: dict[str, float], image_px: int) -> npt.NDArray[np.uint8]:
    """One radiograph.

    Args:
        rng: source of the patient's build, the projection and the noise.
        severity: of each finding in `FINDINGS`.
        image_px: height and width.

    Returns:
        Grey levels [image_px, image_px].
    """
    chest = _chest(rng)
    u, v = _grid(chest, image_px)
    lungs = {side: _lung(u * side, v, chest, side) for side in (-1, 1)}
    depth = _body(u, v, chest) + _mediastinum(u, v) + _bones(u, v, chest) + _abdomen(u, v, chest, rng)
    air = lungs[-1] + lungs[1]
    heart = _heart(u, v, chest, size=1 + 0.16 * severity["cardiomegaly"])
    air = air * (1 - 0.85 * np.minimum(1, 1.6 * heart))
    depth += 0.34 * heart
    tissue = _vessels(rng, image_px, chest) + 0.05 * _texture(rng, image_px, 40) + 0.03 * _texture(rng, image_px, 90)
    opacity = _opacity(rng, u, v, severity["opacity"], image_px)
    fluid = _effusion(rng, u, v, chest, severity["effusion"])
    filled = np.clip(1 - fluid, 0, 1)
    depth += air * filled * (-0.66 + tissue + np.minimum(0.5, opacity)) + 0.05 * fluid * air
    depth += _devices(rng, u, v)
    return _film(rng, depth, image_px)


def _chest(rng: np.random.Generator) -> _Chest:
    base = rng.normal(0.42, 0.05)
    return _Chest(
        turn=rng.normal(0, 0.03),
        scale_u=rng.normal(1.0, 0.04),
        scale_v=rng.normal(1.0, 0.04),
        shift_u=rng.normal(0, 0.035),
        shift_v=rng.normal(0, 0.03),
        fat=rng.uniform(0.0, 1.0),
        # The liver holds the right dome a little higher than the left one.
        dome=(base - abs(rng.normal(0.06, 0.02)), base),
        apex=rng.normal(-0.80, 0.025),
        heart=(rng.normal(0.245, 0.018), rng.normal(0.275, 0.015)),
        rib_spacing=rng.normal(0.135, 0.006),
        rib_offset=rng.uniform(0, 0.135),
    )


def _grid(chest: _Chest, image_px: int) -> tuple[Array, Array]:
    """u and v of every pixel in the patient's own frame, [image_px, image_px] each."""
    axis = (np.arange(image_px) + 0.5) / image_px * 2 - 1
    x, y = (axis - chest.shift_u)[None, :], (axis - chest.shift_v)[:, None]
    cos, sin = np.cos(chest.turn), np.sin(chest.turn)
    return (cos * x + sin * y) / chest.scale_u, (cos * y - sin * x) / chest.scale_v


def _edge(distance: Array, width: float) -> Array:
    """A soft step: 0 outside, 1 inside, by the signed distance to an outline."""
    return 1 / (1 + np.exp(np.clip(-distance / width, -30, 30)))


def _ramp(x: Array) -> Array:
    """A smooth step from 0 at x = 0 to 1 at x = 1."""
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)


def _blob(u: Array, v: Array, u0: float, v0: float, ru: float, rv: float) -> Array:
    return np.exp(-(((u - u0) / ru) ** 2) - ((v - v0) / rv) ** 2)


def _body(u: Array, v: Array, chest: _Chest) -> Array:
    """Soft tissue of neck, shoulders and trunk, thinner towards the skin."""
    shoulder = _ramp((v + 1.02) / 0.38)
    half = 0.24 + (0.80 + 0.12 * chest.fat) * shoulder - 0.10 * _ramp((v + 0.55) / 0.8)
    inside = np.clip(1 - (u / half) ** 2, 0, 1)
    wall = 0.10 * np.exp(-(((np.abs(u) - half + 0.13) / 0.10) ** 2)) * (0.6 + chest.fat)
    return inside**0.35 * (0.72 + 0.16 * _ramp((v + 0.2) / 1.0) + wall)


def _lung(a: Array, v: Array, chest: _Chest, side: int) -> Array:
    """Air of one lung, 0 to 1; `a` is the distance from the midline on its side."""
    t = np.clip((v - chest.apex) / (chest.dome[1] + 0.2 - chest.apex), 0, 1)
    lateral = 0.27 + 0.47 * np.sqrt(np.clip(1 - (1 - t) ** 2.4, 0, 1))
    medial = 0.23 - 0.10 * (1 - (1 - t) ** 3)
    floor = _floor(a, chest, side)
    inside = np.minimum(np.minimum(lateral - a, 1.4 * (a - medial)), 1.3 * (floor - v))
    inside = np.minimum(inside, 0.8 * (v - chest.apex))
    return np.clip(inside / 0.26, 0, 1) ** 0.42 * _edge(inside - 0.008, 0.005)


def _floor(a: Array, chest: _Chest, side: int) -> Array:
    """Height of the diaphragm: a dome that falls off to the costophrenic angle."""
    dome = chest.dome[0 if side < 0 else 1]
    return dome + 0.20 * np.clip((a - 0.33) / 0.38, 0, 2) ** 2.2 + 0.05 * np.clip((0.33 - a) / 0.25, 0, 2) ** 2


def _heart(u: Array, v: Array, chest: _Chest, *, size: float) -> Array:
    """Thickness of the heart, 0 to 1; it grows to the patient's left."""
    ru, rv = chest.heart
    u0, v0 = 0.07 + 0.10 * (size - 1), chest.dome[1] - 0.17
    cos, sin = 0.92, 0.39
    du, dv = u - u0, v - v0
    p, q = (cos * du + sin * dv) / (ru * size * 1.06), (cos * dv - sin * du) / (rv * (1 + 0.35 * (size - 1)))
    inside = 1 - p * p - q * q
    return np.sqrt(np.clip(inside, 0, 1)) * _edge(inside - 0.02, 0.03)


def _mediastinum(u: Array, v: Array) -> Array:
    """Great vessels, spine and windpipe."""
    knob = 0.055 * np.exp(-(((v + 0.26) / 0.075) ** 2)) * (u > 0)
    band = _edge(0.115 + knob + 0.05 * _ramp((v + 0.1) / 0.5) - np.abs(u), 0.012)
    spine = _edge(0.068 - np.abs(u), 0.009) * (1 + 0.22 * np.cos(v * 2 * np.pi / 0.125))
    windpipe = _edge(0.033 - np.abs(u), 0.008) * _edge(-0.20 - v, 0.03)
    return 0.13 * band + 0.085 * spine - 0.13 * windpipe


def _bones(u: Array, v: Array, chest: _Chest) -> Array:
    """Ribs behind and in front, collar bones, shoulder joints."""
    a = np.abs(u)
    cage = _edge(0.80 - 0.35 * _ramp((-0.45 - v) / 0.4) - a, 0.015) * _edge(chest.dome[1] + 0.22 - v, 0.05)
    behind = (v - 0.62 * np.clip(a - 0.16, 0, 1) ** 2 + 0.10 * np.sqrt(a + 0.01) + chest.rib_offset) / chest.rib_spacing
    front = (v + 0.62 * a - 0.25 * a * a + chest.rib_offset) / (1.12 * chest.rib_spacing)
    ribs = 0.085 * _tube(behind, 0.25) * _ramp((a - 0.05) / 0.08) * _ramp((v + 0.95) / 0.15)
    ribs += 0.045 * _tube(front, 0.31) * _ramp((a - 0.28) / 0.2) * _ramp((v + 0.62) / 0.2)
    line = v + 0.60 + 0.17 * a - 0.10 * np.sin(5.0 * a)
    collar = _edge(0.024 - np.abs(line), 0.006) * _ramp((a - 0.04) / 0.05) * _ramp((0.80 - a) / 0.06)
    shoulder = _edge(0.15 - np.hypot(a - 0.98, v + 0.60), 0.012) + 0.5 * _edge(
        0.16 - np.abs(a - 0.86 - 0.1 * v) - 0.1 * np.abs(v + 0.3), 0.02
    ) * _edge(0.02 - v, 0.05) * _edge(v + 0.68, 0.05)
    return ribs * cage + 0.10 * collar + 0.10 * shoulder


def _tube(phase: Array, half: float) -> Array:
    """Bones side by side, one a unit of `phase`: bright rims, a paler middle."""
    q = np.abs(phase - np.floor(phase) - 0.5) / half
    return np.where(q < 1, (0.65 + 0.35 * q * q) * np.sqrt(np.clip(1 - q**4, 0, 1)), 0.0)


def _abdomen(u: Array, v: Array, chest: _Chest, rng: np.random.Generator) -> Array:
    """What lies under the diaphragm: dense, with a bubble of gas in most stomachs."""
    below = _edge(v - _floor(np.abs(u), chest, 1) - 0.02, 0.03)
    gas, size = rng.uniform(0, 0.35), rng.uniform(0.07, 0.13)
    bubble = _blob(u, v, rng.normal(0.36, 0.04), chest.dome[1] + size + 0.06, 1.4 * size, 0.8 * size)
    return below * (0.08 - gas * np.minimum(1, 1.5 * bubble))


def _vessels(rng: np.random.Generator, image_px: int, chest: _Chest) -> Array:
    """Hila and the vessels that branch from them, as thickness inside the lungs."""
    n, steps = 34, 48
    s = np.linspace(0, 1, steps)[None, :]
    points_u, points_v, weights = [], [], []
    for side in (-1, 1):
        angle = rng.uniform(-1.45, 1.35, (n, 1))
        length = rng.uniform(0.25, 0.62, (n, 1)) * (0.75 + 0.25 * np.abs(np.sin(angle)))
        start = rng.uniform(0, 0.55, (n, 1))
        bend = rng.normal(0, 0.35, (n, 1))
        way = start + (1 - start) * s
        heading = angle + bend * (s - 0.5)
        points_u.append(chest.shift_u + side * (0.16 + length * way * np.cos(heading)))
        points_v.append(chest.shift_v + (0.0 if side < 0 else -0.04) + length * way * np.sin(heading))
        weights.append(np.broadcast_to((1 - 0.9 * way) * rng.uniform(0.4, 1.0, (n, 1)), (n, steps)))
    column, row, weight = (np.concatenate([p.ravel() for p in part]) for part in (points_u, points_v, weights))
    ink = _splat(column, row, weight, image_px)
    thin, thick = _blur(ink, 0.006 * image_px), _blur(ink, 0.02 * image_px)
    scale = image_px / 256
    return scale * (0.30 * thin + 0.55 * thick)


def _splat(u: Array, v: Array, weight: Array, image_px: int) -> Array:
    i = np.clip(((v + 1) / 2 * image_px).astype(np.int64), 0, image_px - 1)
    j = np.clip(((u + 1) / 2 * image_px).astype(np.int64), 0, image_px - 1)
    flat = np.bincount(i * image_px + j, weights=weight, minlength=image_px * image_px)
    return flat.reshape(image_px, image_px)


def _blur(image: Array, sigma_px: float) -> Array:
    """Gaussian blur as two small matrix products."""
    index = np.arange(image.shape[0])
    kernel = np.exp(-(((index[:, None] - index[None, :]) / sigma_px) ** 2) / 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return kernel @ image @ kernel.T


def _texture(rng: np.random.Generator, image_px: int, cells: int) -> Array:
    """Smooth noise of standard deviation about 1 with about `cells` lumps across the frame."""
    knots = rng.standard_normal((cells + 1, cells + 1))
    at = np.linspace(0, cells, image_px)
    weight = np.exp(-(((at[:, None] - np.arange(cells + 1)[None, :]) / 0.6) ** 2) / 2)
    weight /= np.sqrt((weight**2).sum(axis=1, keepdims=True))
    return weight @ knots @ weight.T


def _opacity(rng: np.random.Generator, u: Array, v: Array, severity: float, image_px: int) -> Array:
    """Patchy consolidation: one to three lumps in lung zones, as thickness inside the lungs."""
    lumps = np.zeros_like(u)
    for share in (1.0, 0.75, 0.55)[: int(rng.integers(1, 4))]:
        side = 1 if rng.random() < 0.5 else -1
        size = rng.uniform(0.11, 0.20)
        place = side * rng.uniform(0.30, 0.52), rng.uniform(-0.35, 0.30)
        lumps += share * _blob(u, v, *place, size, size * rng.uniform(0.8, 1.3))
    patches = 1 + 0.35 * _texture(rng, image_px, 14)
    return 0.30 * severity * lumps * np.clip(patches, 0.2, None)


def _effusion(rng: np.random.Generator, u: Array, v: Array, chest: _Chest, severity: float) -> Array:
    """Share of each place that is filled by fluid: from the base up, climbing along the chest wall."""
    side = 1 if rng.random() < 0.5 else -1
    a = u * side
    level = chest.dome[0 if side < 0 else 1] + 0.14 - 0.24 * severity
    surface = level - 0.30 * np.clip((a - 0.25) / 0.5, 0, 2) ** 2 * min(1.0, severity + 0.2)
    return min(1.0, 2.5 * severity) * _edge(v - surface, 0.022) * _edge(a - 0.02, 0.01)


def _devices(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Lead marker on every film; on some a pacemaker or a central line. They mean nothing here."""
    u0, v0 = rng.uniform(0.80, 0.90), rng.uniform(-0.92, -0.84)
    stem = _edge(0.010 - np.abs(u - u0), 0.003) * _edge(0.045 - np.abs(v - v0), 0.003)
    foot = _edge(0.010 - np.abs(v - v0 - 0.045), 0.003) * _edge(0.022 - np.abs(u - u0 - 0.018), 0.003)
    depth = 0.5 * np.maximum(stem, foot)
    kind, slope = rng.random(), rng.uniform(0.3, 0.5)
    if kind < 0.08:
        box = _edge(0.075 - np.hypot((u - 0.55) / 1.15, v + 0.48), 0.004)
        lead = _edge(0.006 - np.abs(np.hypot(u - 0.42, 1.1 * (v + 0.18)) - 0.36), 0.003)
        depth = depth + 0.45 * box + 0.25 * lead * (u < 0.5) * (v < 0.4)
    elif kind < 0.22:
        line = _edge(0.006 - np.abs(u + 0.075 + slope * 0.12 * np.clip(-0.3 - v, 0, 1)), 0.003)
        depth = depth + 0.16 * line * _edge(0.02 - v, 0.01)
    return depth


def _film(rng: np.random.Generator, depth: Array, image_px: int) -> npt.NDArray[np.uint8]:
    """Depth to grey levels: scatter, exposure and contrast that vary, quantum noise, sometimes a collimated border."""
    scatter = _blur(depth, 0.06 * image_px)
    sharp = _blur(depth, 0.0028 * image_px)
    signal = 0.85 * sharp + 0.15 * scatter
    centre, width = rng.normal(0.50, 0.035), rng.normal(0.20, 0.018)
    grey = 1 / (1 + np.exp(-(signal - centre) / width))
    # Few photons pass where much is absorbed, so noise grows with depth.
    noise = rng.standard_normal(depth.shape) + 0.6 * _texture(rng, image_px, image_px // 2)
    grey = grey + rng.uniform(0.008, 0.020) * (0.5 + np.clip(depth, 0, 1)) * noise
    border = int(image_px * max(0.0, rng.normal(0, 0.018)))
    if border:
        grey[:border], grey[-border:], grey[:, :border], grey[:, -border:] = 0.02, 0.02, 0.02, 0.02
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)
