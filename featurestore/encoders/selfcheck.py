"""Is an encoder on this machine what it claims to be? As far as that can be told without its authors' numbers.

A drawn chest and two short reports go through the encoder. That finds a file of another layout, a layer that was lost,
numbers that are not finite, tokens that do not depend on what is shown. It cannot find a training that differs: for
that two people compare the fingerprint, which is the same wherever weights and code are the same.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import Encoder, build
from .spec import EncoderSpec
from .weights import weights_sha256

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

REPORTS = ("The heart is mildly enlarged. Small left pleural effusion.", "Lungs are clear. No pneumothorax.")
_HALF_MAX = 65504
_SPREAD = (1e-3, 100.0)
_ALIKE = 0.9999


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it is as it should be, and what was seen."""

    name: str
    passed: bool
    seen: str


def selfcheck(spec: EncoderSpec, *, device: str = "cpu") -> list[Check]:
    """Build the encoder and look at its tokens of two shipped inputs. Errors of `build` (layout, damage) are raised."""
    checks = [Check("sha256", True, weights_sha256(spec))]
    encoder = build(spec, device=device)
    checks.append(Check("layout", True, "every tensor of the network is in the file, and nothing is left over"))
    tokens = _tokens(encoder)
    finite = all(np.isfinite(item).all() for item in tokens)
    largest = max(float(np.abs(item).max()) for item in tokens)
    checks.append(Check("finite", finite, "no NaN, no infinity" if finite else "NaN or infinity among the tokens"))
    checks.append(Check("fits float16", largest < _HALF_MAX, f"largest absolute value {largest:.3g}"))
    spread = float(np.mean([item.std() for item in tokens]))
    checks.append(Check("spread", _SPREAD[0] < spread < _SPREAD[1], f"standard deviation {spread:.3g}"))
    within = _likeness(tokens[0][0], tokens[0][-1])
    checks.append(Check("tokens differ within an item", within < _ALIKE, f"cosine {within:.4f}"))
    between = _likeness(tokens[0].mean(0), tokens[1].mean(0))
    checks.append(Check("items differ", between < _ALIKE, f"cosine {between:.4f}"))
    return [*checks, Check("fingerprint", True, fingerprint(tokens))]


def fingerprint(tokens: list[np.ndarray]) -> str:
    """Mean and spread of the tokens of both inputs and the first token's first numbers, to compare with others'."""
    numbers = [value for item in tokens for value in (item.mean(), item.std(), *item[0, :3])]
    return " ".join(f"{value:+.4f}" for value in numbers)


def reference_images() -> "list[PilImage]":
    """A drawn chest (lungs, heart, ribs) and the same mirrored, 512 x 600, RGB: the same pixels on every machine."""
    from PIL import Image

    y, x = np.mgrid[0:600, 0:512]
    level = np.full((600, 512), 150)
    for centre in (160, 352):  # lungs
        level[((x - centre) * 10) ** 2 + ((y - 290) * 5) ** 2 < 1000**2] = 60
    level[((x - 285) * 10) ** 2 + ((y - 380) * 11) ** 2 < 1000**2] = 190  # heart
    level[np.abs(x - 256) < 18] = 210  # spine
    level += np.where((y + (x - 256) ** 2 // 400) % 60 < 8, 25, 0)  # ribs
    chest = Image.fromarray(level.astype(np.uint8)).convert("RGB")
    return [chest, chest.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(20)]


def _tokens(encoder: Encoder) -> list[np.ndarray]:
    """[tokens, dim] of both inputs."""
    inputs: list[Any] = reference_images() if encoder.spec.modality == "image" else list(REPORTS)
    encoded = encoder.encode([encoder.prepare(payload) for payload in inputs])
    if encoder.spec.modality == "image":
        return list(encoded.patches.cpu().numpy())
    return [row[:length].cpu().numpy() for row, length in zip(encoded.tokens, encoded.lengths.tolist(), strict=True)]


def _likeness(left: np.ndarray, right: np.ndarray) -> float:
    """The cosine of the angle between two vectors."""
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / norms if norms else 1.0
