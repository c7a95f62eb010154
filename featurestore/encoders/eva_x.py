"""EVA-X ViT-B/16 (Yao et al., 2024): an EVA-02 transformer trained on 520,000 radiographs without labels."""

from .channel_stats import EVA_X_MEAN, EVA_X_STD
from .sources import HubWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, LoadRule, TokenLayout

SPEC = EncoderSpec(
    name="eva-x",
    modality="image",
    architecture=Architecture(
        library="timm",
        name="eva02_base_patch16_clip_224",
        options={"scale_attn_inner": False, "ref_feat_shape": (14, 14)},
    ),
    weights=HubWeights(repo="MapleF/eva_x", revision="main", files=("eva_x_base_patch16_merged520k_mim.pt",)),
    load=LoadRule(
        top_key="module",
        drop=("mask_token", "lm_head.*", "*rope*"),
        rename=(
            ("mlp.ffn_ln", "mlp.norm"),
            ("mlp.w1.", "mlp.fc1_g."),
            ("mlp.w2.", "mlp.fc1_x."),
            ("mlp.w3.", "mlp.fc2."),
            ("attn.q_bias", "attn.q_proj.bias"),
            ("attn.v_bias", "attn.v_proj.bias"),
        ),
    ),
    preprocessing=ImagePreprocessing(
        resize_px=256, interpolation="bicubic", crop_px=224, mean=EVA_X_MEAN, std=EVA_X_STD
    ),
    tokens=TokenLayout(dim=768, grid=(14, 14), has_cls=True),
    output="features",
    layer="after the final LayerNorm",
    builder="featurestore.encoders.timm_models:build",
    objective="image-ssl",
    pretraining=("NIH-CXR", "CheXpert", "MIMIC-CXR"),
    licence="MIT",
    notes="The wrapping of its file (module) was not seen; a file of tensors alone is read as well.",
)
