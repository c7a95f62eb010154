"""Encoders: frozen networks that turn images and reports into tokens.

To add one: a file with a SPEC and a line in `ENCODERS`; the suite in tests/contracts finds it by itself. Importing this
package and listing specs loads neither torch nor Pillow nor any encoder's library; `build` does. Knows no store.
"""

from importlib import import_module
from typing import Any

from ..errors import unknown_name
from .spec import MODALITIES, EncoderSpec
from .tokens import Encoder, ImageTokens, PreparedText, TextTokens
from .weights import is_available, weights_sha256

ENCODERS = {
    "efficientnet-lite0": "featurestore.encoders.efficientnet_lite0:SPEC",
    "minilm": "featurestore.encoders.minilm:SPEC",
    "tiny": "featurestore.encoders.tiny:SPEC",
    "tiny-text": "featurestore.encoders.tiny_text:SPEC",
}

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
    "weights_sha256",
]


def get_spec(name: str) -> EncoderSpec:
    """The spec of the encoder called `name`.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS)
    return _resolve(ENCODERS[name])


def list_specs(modality: str | None = None) -> list[EncoderSpec]:
    """All specs in the table's order, or those of one modality ("image" or "text")."""
    if modality is not None and modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    specs = [_resolve(reference) for reference in ENCODERS.values()]
    return [spec for spec in specs if modality in (None, spec.modality)]


def build(spec: EncoderSpec, *, device: str = "cpu") -> Encoder:
    """Load the encoder's network and weights onto `device`, from files on this machine only.

    Raises:
        DataError: its weights are missing or damaged; says what to install.
    """
    import torch

    with torch.random.fork_rng(devices=[]):  # networks are filled with random numbers before their weights
        return _resolve(spec.builder)(spec, device=device)


def _resolve(reference: str) -> Any:
    """The object that "module:name" names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
