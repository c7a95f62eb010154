"""The encoders that have a name: one line each, loaded when asked for."""

from importlib import import_module
from typing import Any

from ..errors import unknown_name
from .spec import EncoderSpec

ENCODERS = {
    "rad-dino": "featurestore.encoders.rad_dino:SPEC",
    "c2l": "featurestore.encoders.c2l:SPEC",
    "medical-mae": "featurestore.encoders.medical_mae:SPEC",
    "mrm": "featurestore.encoders.mrm:SPEC",
    "biovil-t": "featurestore.encoders.biovil_t:SPEC",
    "gloria": "featurestore.encoders.gloria:SPEC",
    "biomedclip": "featurestore.encoders.biomedclip:SPEC",
    "biovil-t-bert": "featurestore.encoders.biovil_t:BERT",
    "cxr-bert-general": "featurestore.encoders.cxr_bert:SPEC",
    "bio-clinicalbert": "featurestore.encoders.clinical_bert:SPEC",
    "rad-dino-maira-2": "featurestore.encoders.rad_dino:MAIRA_2",
    "medsiglip": "featurestore.encoders.siglip:MEDSIGLIP",
    "xray-siglip": "featurestore.encoders.siglip:XRAY_SIGLIP",
    "dinov3": "featurestore.encoders.dinov3:SPEC",
    "eva-x": "featurestore.encoders.eva_x:SPEC",
    "xrv-densenet121": "featurestore.encoders.xrv:SPEC",
    "efficientnet-lite0": "featurestore.encoders.efficientnet_lite0:SPEC",
    "minilm": "featurestore.encoders.minilm:SPEC",
    "tiny": "featurestore.encoders.tiny:SPEC",
    "tiny-text": "featurestore.encoders.tiny_text:SPEC",
}


def get_spec(name: str) -> EncoderSpec:
    """The spec of the encoder called `name`, at its defaults.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS)
    return load_object(ENCODERS[name])


def load_object(reference: str) -> Any:
    """The object that "module:name" names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
