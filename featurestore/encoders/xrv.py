"""TorchXRayVision's DenseNet-121 (Cohen et al., 2022): trained on the labels of seven data sets of radiographs.

Its file is a pickled network, so it is converted first: `radfs weights convert --trust FILE.pt FILE.safetensors`.
"""

from .sources import PageWeights
from .spec import Architecture, EncoderSpec, ImagePreprocessing, LoadRule, TokenLayout

SPEC = EncoderSpec(
    name="xrv-densenet121",
    modality="image",
    architecture=Architecture(library="timm", name="densenet121", options={"in_chans": 1}),
    weights=PageWeights(
        page="https://github.com/mlmed/torchxrayvision/releases/tag/v1",
        files=("nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",),
    ),
    load=LoadRule(drop=("classifier.*", "op_threshs", "upsample.*")),
    preprocessing=ImagePreprocessing(
        resize_px=224,
        interpolation="bilinear",
        crop_px=224,
        gray="first",
        mean=(0.5, 0.5, 0.5),
        std=(1 / 2048, 1 / 2048, 1 / 2048),  # levels from -1024 to 1024
    ),
    tokens=TokenLayout(dim=1024, grid=(7, 7)),
    output="features",
    layer="the last dense block after its norm and ReLU",
    builder="featurestore.encoders.timm_models:build",
    objective="supervised",
    pretraining=("NIH-CXR", "PadChest", "CheXpert", "MIMIC-CXR", "Open-I", "RSNA", "Google NIH labels"),
    licence="Apache-2.0 (of the code; the weights name none)",
    notes="The package crops to a square and resizes with scikit-image; here torchvision resizes and then crops.",
)
