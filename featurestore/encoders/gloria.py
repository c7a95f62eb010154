"""GLoRIA (Huang et al., 2021): a ResNet-50 whose regions were aligned with the words of CheXpert's reports."""

from typing import TYPE_CHECKING

from .channel_stats import HALF, IMAGENET_MEAN, IMAGENET_STD
from .frozen import ImageEncoder
from .sources import PageWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, LoadRule, TokenLayout, Variant
from .timm_models import features_of, loaded, network, published_state

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SPEC", "build", "published_state"]

_UPSAMPLED_PX = 299

SPEC = EncoderSpec(
    name="gloria",
    modality="image",
    architecture=Architecture(library="timm", name="resnet50"),
    weights=PageWeights(
        page="https://stanfordmedicine.box.com/s/j5h7q99f3pfi7enc0dom73m4nsm6yzvh", files=("chexpert_resnet50.ckpt",)
    ),
    load=LoadRule(
        top_key="state_dict",
        drop=("gloria.img_encoder.global_embedder.*", "gloria.img_encoder.local_embedder.*", "gloria.text_encoder.*"),
        strip_prefix="gloria.img_encoder.model.",
    ),
    preprocessing=ImagePreprocessing(
        resize_px=238, interpolation="bilinear", crop_px=224, mean=IMAGENET_MEAN, std=IMAGENET_STD
    ),
    tokens=TokenLayout(dim=2048, grid=(7, 7)),
    output="features",
    layer="layer4 of the image fed at 224",
    builder="featurestore.encoders.gloria:build",
    objective="aligned",
    pretraining=("CheXpert (images and reports)",),
    licence="Apache-2.0",
    variants=(
        Variant(
            axis="preprocessing",
            reason="the paper's, to repeat its numbers; the authors' needs OpenCV (radfs[opencv])",
            choices={
                "paper": {},
                "authors": {
                    "preprocessing": ImagePreprocessing(
                        resize_px=256,
                        fit="pad",
                        interpolation="area",
                        crop_px=224,
                        gray="first",
                        mean=HALF,
                        std=HALF,
                        resizer="opencv",
                    )
                },
            },
        ),
        Variant(
            axis="upsample",
            reason="fed at 224, as benchmarks do that put these weights into a plain ResNet-50; the paper does not say",
            choices={
                "none": {},
                "299": {
                    "output": "features-299",
                    "tokens": TokenLayout(dim=2048, grid=(10, 10)),
                    "layer": "layer4 of the image upsampled to 299, as GLoRIA's own forward does",
                },
            },
        ),
    ),
    notes="The file called GLoRIA on the hub by other authors is a training of their own.",
)


def build(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """The encoder with its weights on `device`."""
    from torch.nn.functional import interpolate

    features = features_of(spec, loaded(spec, network(spec), device=device))

    def upsampled(images: "Tensor") -> "tuple[Tensor, Tensor | None]":
        return features(interpolate(images, size=(_UPSAMPLED_PX,) * 2, mode="bilinear", align_corners=True))

    return ImageEncoder(spec, upsampled if spec.output == "features-299" else features, device=device)
