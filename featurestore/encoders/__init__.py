"""Encoders: frozen networks that turn images and reports into tokens.

To add one: a file with a SPEC and a line in `ENCODERS` of `table`; the suite in tests/contracts finds it by itself.
Importing this package and listing specs loads neither torch nor Pillow nor any encoder's library; `build` does. Knows
no store.
"""

from ..errors import unknown_name
from .resolve import resolve
from .spec import MODALITIES, EncoderSpec
from .table import ENCODERS, get_spec, load_object
from .tokens import Encoder, ImageTokens, PreparedText, TextTokens
from .weights import is_available, weights_sha256

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderSpec",
    "ImageTokens",
    "PreparedText",
    "TextTokens",
    "build",
    "get_spec",
    "is_available",
    "list_specs",
    "resolve",
    "weights_sha256",
]


def list_specs(modality: str | None = None) -> list[EncoderSpec]:
    """All specs in the table's order, or those of one modality ("image" or "text")."""
    if modality is not None and modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    specs = [get_spec(name) for name in ENCODERS]
    return [spec for spec in specs if modality in (None, spec.modality)]


def build(spec: EncoderSpec, *, device: str = "cpu") -> Encoder:
    """Load the encoder's network and weights onto `device`, from files on this machine only.

    Raises:
        DataError: its weights are missing, damaged or another network's; says what to do.
    """
    import torch

    with torch.random.fork_rng(devices=[]):  # networks are filled with random numbers before their weights
        return load_object(spec.builder)(spec, device=device)
