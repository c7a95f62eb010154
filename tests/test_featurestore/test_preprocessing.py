"""Preprocessing of the paper's encoders against torchvision's, the hub's and the authors' own, on radiographs."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as tv

from featurestore.encoders import resolve
from featurestore.encoders.preprocess import image_transform
from featurestore.encoders.spec import ImagePreprocessing
from featurestore.images import decode_image

IMAGENET = tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BICUBIC = tv.InterpolationMode.BICUBIC


def torchvision(*steps: Any) -> Any:
    return tv.Compose([tv.Lambda(lambda image: image.convert("RGB")), *steps])


def hub(image: Image.Image) -> torch.Tensor:
    """RAD-DINO's processor, on Pillow."""
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    processor = rad_dinos(BitImageProcessorPil)
    return torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"][0]))


def rad_dinos(processor_class: Any) -> Any:
    """A processor of this class with RAD-DINO's configuration."""
    return processor_class(
        do_convert_rgb=True,
        size={"shortest_edge": 518},
        crop_size={"height": 518, "width": 518},
        resample=3,
        image_mean=[0.5307] * 3,
        image_std=[0.2583] * 3,
    )


def gloria(image: Image.Image) -> torch.Tensor:
    """As the authors' _resize_img: gray, longer side 256 by area, zeros to a square, crop, mean and spread a half."""
    cv2 = pytest.importorskip("cv2")
    gray = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2GRAY)
    longer = max(gray.shape)
    size = [int(float(side) * float(256 / float(longer))) for side in gray.shape]
    size[gray.shape.index(longer)] = 256
    small = cv2.resize(gray, tuple(size[::-1]), interpolation=cv2.INTER_AREA)
    pads = [(int(np.floor((256 - side) / 2)), int(np.ceil((256 - side) / 2))) for side in size]
    square = Image.fromarray(np.pad(small, pads, "constant", constant_values=0)).convert("RGB")
    return tv.Compose([tv.CenterCrop(224), tv.ToTensor(), tv.Normalize((0.5,) * 3, (0.5,) * 3)])(square)


def biovil(*, min_max: bool) -> Any:
    """hi-ml's transform, with or without what its loader does first."""
    pipeline = tv.Compose([tv.Resize(512), tv.CenterCrop(448), tv.ToTensor(), tv.Lambda(lambda x: x.expand(3, -1, -1))])

    def run(image: Image.Image) -> torch.Tensor:
        levels = np.asarray(image).astype(float)
        if min_max:
            levels -= levels.min()
            levels /= levels.max()
            levels *= 255
        return pipeline(Image.fromarray(levels.astype(np.uint8)).convert("L"))

    return run


def open_clip(image: Image.Image) -> torch.Tensor:
    from open_clip.transform import image_transform as their

    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return their(224, is_train=False, mean=mean, std=std)(image)


MRM = torchvision(tv.Resize(224), tv.CenterCrop(224), tv.Grayscale(3), tv.ToTensor(), tv.Normalize([0.4978], [0.2449]))
PAPER_238 = torchvision(tv.Resize(238), tv.CenterCrop(224), tv.ToTensor(), IMAGENET)
MAE_AUTHORS = torchvision(
    tv.Resize(256, BICUBIC), tv.CenterCrop(224), tv.ToTensor(), tv.Normalize([0.5056] * 3, [0.252] * 3)
)
REFERENCES = {
    ("rad-dino", "paper"): hub,
    ("rad-dino", "authors"): hub,
    ("c2l", "paper"): torchvision(tv.Resize(224), tv.CenterCrop(224), tv.ToTensor(), IMAGENET),
    ("c2l", "authors"): torchvision(tv.Resize(256), tv.CenterCrop(224), tv.ToTensor(), IMAGENET),
    ("medical-mae", "paper"): PAPER_238,
    ("medical-mae", "authors"): MAE_AUTHORS,
    ("mrm", "paper"): MRM,
    ("mrm", "authors"): MRM,
    ("biovil-t", "paper"): biovil(min_max=False),
    ("biovil-t", "authors"): biovil(min_max=True),
    ("gloria", "paper"): PAPER_238,
    ("gloria", "authors"): gloria,
    ("biomedclip", "paper"): open_clip,
    ("biomedclip", "authors"): open_clip,
}


@pytest.fixture(scope="module")
def radiographs(real_data: Path) -> dict[str, Image.Image]:
    """Real ones of several sizes and modes, as extraction decodes them: 8 and 16 bits, gray and RGB, both formats."""
    folder = real_data / "hannover-covid19" / "images"
    files = sorted(folder.iterdir())
    sizes, ranges = {}, {}
    for path in files:
        with Image.open(path) as image:
            sizes[path] = image.size
            if len(ranges) < 20:
                ranges[path] = image.convert("L").getextrema()
    margins = {p: int(518 * max(s) / min(s)) - 518 for p, s in sizes.items()}
    chosen = {
        "landscape": next(p for p in files if sizes[p][0] > sizes[p][1]),
        "portrait": next(p for p in files if sizes[p][0] < sizes[p][1]),
        "the crop that is one pixel off": next(p for p in files if margins[p] % 4 == 3),
        "not full range": next(p for p in ranges if ranges[p] != (0, 255)),
    }
    images = {name: decode_image(path.read_bytes()) for name, path in chosen.items()}
    gray = np.asarray(images["portrait"].convert("L"))
    rng = np.random.default_rng(4)
    sixteen = gray.astype(np.uint16) * 200 + rng.integers(0, 200, gray.shape, dtype=np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(sixteen).save(buffer, "PNG")
    images["16 bits"] = decode_image(buffer.getvalue())
    tinted = np.stack([gray, gray // 2, 255 - gray], axis=2)[:301, :257]
    images["colour"] = Image.fromarray(tinted)
    images["64 pixels"] = decode_image(next((real_data / "nih-cxr14-64px" / "images").iterdir()).read_bytes())
    return images


@pytest.mark.parametrize(("name", "choice"), REFERENCES, ids=map("-".join, REFERENCES))
def test_preprocessing_of_real_radiographs_equals_the_reference(name, choice, radiographs):
    spec = resolve(name, variant={"preprocessing": choice})
    assert isinstance(spec.preprocessing, ImagePreprocessing)
    transform = image_transform(spec.preprocessing)
    for kind, image in radiographs.items():
        ours, theirs = transform(image), REFERENCES[name, choice](image.convert("RGB"))
        assert ours.shape == (3, spec.preprocessing.crop_px, spec.preprocessing.crop_px)
        assert (ours - theirs).abs().max() <= 1e-6, kind


def test_min_max_changes_images_that_do_not_span_all_levels_and_no_others(radiographs):
    plain, stretched = (
        image_transform(resolve("biovil-t", variant={"preprocessing": choice}).preprocessing)
        for choice in ("paper", "authors")
    )
    image = radiographs["not full range"]
    assert (plain(image) - stretched(image)).abs().max() > 0.003
    full = np.asarray(image).copy()
    full[0, 0], full[0, 1] = 0, 255
    assert torch.equal(plain(Image.fromarray(full)), stretched(Image.fromarray(full)))
    constant = stretched(Image.new("RGB", (500, 500), (90, 90, 90)))  # the authors' loader divides by zero here
    assert constant.abs().max() == 0


def test_the_hubs_crop_and_torchvisions_differ_by_a_pixel_where_the_margin_leaves_three(radiographs):
    image = radiographs["the crop that is one pixel off"]
    normal = tv.Normalize([0.5307] * 3, [0.2583] * 3)
    other = torchvision(tv.Resize(518, BICUBIC), tv.CenterCrop(518), tv.ToTensor(), normal)(image)
    ours = image_transform(resolve("rad-dino").preprocessing)(image)
    assert (ours - other).abs().max() > 0.1
