"""RAD-DINO (Perez-Garcia et al., 2024): a DINOv2 vision transformer trained on radiographs alone; and its successor.

The hub processor resizes and crops; torchvision's crop would start one pixel off where the margin leaves 3 by 4.
"""

from dataclasses import replace

from .sources import HubWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, TokenLayout, Variant

_VIT_B14 = Architecture(
    library="transformers",
    name="Dinov2Model",
    options={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "mlp_ratio": 4,
        "image_size": 518,
        "patch_size": 14,
        "qkv_bias": True,
        "layerscale_value": 1.0,
        "layer_norm_eps": 1e-6,
    },
)
SPEC = EncoderSpec(
    name="rad-dino",
    modality="image",
    architecture=_VIT_B14,
    weights=HubWeights(repo="microsoft/rad-dino", revision="main", files=("model.safetensors",)),
    preprocessing=ImagePreprocessing(
        resize_px=518,
        interpolation="bicubic",
        crop_px=518,
        mean=(0.5307, 0.5307, 0.5307),
        std=(0.2583, 0.2583, 0.2583),
        resizer="hub-pil",
    ),
    tokens=TokenLayout(dim=768, grid=(37, 37), has_cls=True),
    output="last_hidden_state",
    layer="after the final LayerNorm",
    builder="featurestore.encoders.transformers_models:build_image",
    objective="image-ssl",
    pretraining=("MIMIC-CXR", "CheXpert", "NIH-CXR", "other"),
    licence="MIT",
    variants=(
        Variant(
            axis="preprocessing",
            reason="the paper and the authors both use the hub's processor",
            choices={"paper": {}, "authors": {}},
        ),
    ),
    notes=(
        "Revisions from August 2024 to mid 2025 carry Microsoft's research licence (MSRLA) in place of MIT. The "
        "repository lists the images that it was trained on (training_images.csv)."
    ),
)

MAIRA_2 = replace(
    SPEC,
    name="rad-dino-maira-2",
    weights=HubWeights(repo="microsoft/rad-dino-maira-2", revision="main", files=("model.safetensors",)),
    licence="MSRLA",
    terms="Microsoft Research Licence: research use alone. https://huggingface.co/microsoft/rad-dino-maira-2",
    variants=(),
    notes="",
)
