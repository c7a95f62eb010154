"""Medical MAE (Xiao et al., 2023): a ViT-B/16 masked autoencoder trained on half a million radiographs."""

from .channel_stats import IMAGENET_MEAN, IMAGENET_STD
from .sources import PageWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, LoadRule, TokenLayout, Variant

MAE_TOKENS = Variant(
    axis="tokens",
    reason="the pre-trained network ends with its norm; the authors' fine-tuning pools tokens before it",
    choices={"normed": {}, "before-norm": {"output": "before-norm", "layer": "the last block, before the final norm"}},
)
"""The paper does not say which tokens of a masked autoencoder it takes."""

SPEC = EncoderSpec(
    name="medical-mae",
    modality="image",
    architecture=Architecture(library="timm", name="vit_base_patch16_224"),
    weights=PageWeights(
        page="https://drive.google.com/file/d/10wqOFCkhyWp6JdSFADrH6Xu9e1am3gXJ", files=("vit-b_CXR_0.5M_mae.pth",)
    ),
    # Block by block: the eight blocks of this decoder tell the file from MRM's, whose encoder has the same tensors.
    load=LoadRule(
        top_key="model",
        drop=(
            "mask_token",
            "decoder_embed.*",
            "decoder_pos_embed",
            "decoder_blocks.[0-7].*",
            "decoder_norm.*",
            "decoder_pred.*",
        ),
    ),
    preprocessing=ImagePreprocessing(
        resize_px=238, interpolation="bilinear", crop_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    tokens=TokenLayout(dim=768, grid=(14, 14), has_cls=True),
    output="features",
    layer="after the final LayerNorm",
    builder="featurestore.encoders.timm_models:build",
    objective="image-ssl",
    pretraining=("MIMIC-CXR", "CheXpert", "NIH-CXR"),
    licence="Apache-2.0",
    variants=(
        Variant(
            axis="preprocessing",
            reason="the paper's sizes and statistics, to repeat its numbers",
            choices={
                "paper": {},
                "authors": {
                    "preprocessing": ImagePreprocessing(
                        resize_px=256,
                        interpolation="bicubic",
                        crop_px=224,
                        mean=(0.5056, 0.5056, 0.5056),
                        std=(0.252, 0.252, 0.252),
                    )
                },
            },
        ),
        MAE_TOKENS,
    ),
    notes=(
        "Take the pre-trained file of the README's row, not the one beside it that was fine-tuned on NIH. The paper "
        "names no interpolation: torchvision's default. Pre-training normalised MIMIC-CXR with ImageNet's statistics."
    ),
)
