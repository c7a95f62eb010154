"""C2L (Zhou et al., 2020): a ResNet-18 trained on radiographs by comparing them with each other."""

from .channel_stats import IMAGENET_MEAN, IMAGENET_STD
from .sources import PageWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, LoadRule, TokenLayout, Variant

SPEC = EncoderSpec(
    name="c2l",
    modality="image",
    architecture=Architecture(library="timm", name="resnet18"),
    weights=PageWeights(
        page="https://drive.google.com/file/d/1DJ1jrbDvCfBPeIK6fw2WqkkEmUXmUf2C", files=("res18_C2L.pth",)
    ),
    # WARN: `model_ema`, the momentum encoder, may lie beside `model`; timm's own reader would take it.
    load=LoadRule(top_key="model", drop=("encoder.module.fc.*",), strip_prefix="encoder.module."),
    preprocessing=ImagePreprocessing(
        resize_px=224, interpolation="bilinear", crop_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    tokens=TokenLayout(dim=512, grid=(7, 7)),
    output="features",
    layer="layer4 after its ReLU",
    builder="featurestore.encoders.timm_models:build",
    objective="image-ssl",
    pretraining=("MIMIC-CXR", "CheXpert", "NIH-CXR", "other"),
    licence="MIT (of the code; the weights name none)",
    variants=(
        Variant(
            axis="preprocessing",
            reason="the paper's sizes, to repeat its numbers; the authors evaluate on a crop of 224 from 256",
            choices={
                "paper": {},
                "authors": {
                    "preprocessing": ImagePreprocessing(
                        resize_px=256, interpolation="bilinear", crop_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD
                    )
                },
            },
        ),
    ),
    notes="The paper names no interpolation: torchvision's default.",
)
