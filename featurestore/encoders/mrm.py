"""MRM (Zhou et al., 2023): a ViT-B/16 trained to fill in masked patches of radiographs and masked words of reports."""

from .medical_mae import MAE_TOKENS
from .sources import PageWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, LoadRule, TokenLayout, Variant

SPEC = EncoderSpec(
    name="mrm",
    modality="image",
    architecture=Architecture(library="timm", name="vit_base_patch16_224"),
    weights=PageWeights(page="https://drive.google.com/file/d/1JwZaqvsSdk1bD3B7fsN0uOz-2Fzz1amc", files=("MRM.pth",)),
    # The four blocks of this decoder tell the file from Medical MAE's, whose encoder has the same tensors.
    load=LoadRule(
        top_key="model",
        drop=(
            "mask_token",
            "decoder_embed.*",
            "decoder_pos_embed",
            "decoder_blocks.[0-3].*",
            "decoder_norm.*",
            "decoder_pred.*",
            "bert_encoder.*",
            "bert_mlp.*",
        ),
    ),
    preprocessing=ImagePreprocessing(
        resize_px=224,
        interpolation="bilinear",
        crop_px=224,
        gray="cropped",
        mean=(0.4978, 0.4978, 0.4978),
        std=(0.2449, 0.2449, 0.2449),
    ),
    tokens=TokenLayout(dim=768, grid=(14, 14), has_cls=True),
    output="features",
    layer="after the final LayerNorm",
    builder="featurestore.encoders.timm_models:build",
    objective="text-supervised",
    pretraining=("MIMIC-CXR (images and reports)",),
    licence="MIT",
    variants=(
        Variant(
            axis="preprocessing",
            reason="the paper took the authors' own",
            choices={"paper": {}, "authors": {}},
        ),
        MAE_TOKENS,
    ),
    notes="The file called MRM on the hub by other authors is a training of their own.",
)
