"""Augmented views: the crops are torchvision's, and depend on the image's id and the view's number alone."""

from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from featurestore import views
from featurestore.views import Crop, crop_of

SIZES = [(2500, 3000), (512, 512), (300, 31), (31, 300), (2, 2), (1, 1), (1000, 760)]


@pytest.mark.parametrize("size", SIZES)
def test_a_crop_is_what_torchvision_makes_of_the_same_random_numbers(size, monkeypatch):
    width, height = size
    for view in range(1, 30):
        draws = views._uniforms("d/x", view)

        def uniform(self, low=0.0, high=1.0, draws=draws):
            return torch.tensor([low + draws.pop() * (high - low)], dtype=torch.float64)

        def randint(low, high, size, draws=draws):
            return torch.tensor([low + int(draws.pop() * (high - low))])

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "uniform_", uniform)
            patch.setattr(torch, "randint", randint)
            patch.setattr(torch, "log", lambda ratio: ratio.double().log())
            top, left, h, w = RandomResizedCrop.get_params(
                torch.empty(3, height, width), scale=list(views.SCALE), ratio=list(views.RATIO)
            )
        assert crop_of("d/x", view, width=width, height=height) == Crop(left, top, w, h)


def test_crops_are_known_numbers():
    # Other numbers here are another recipe: it needs another name, so that stored views are never mixed with new ones.
    assert crop_of("mimic-cxr/a", 1, width=2500, height=3000) == Crop(31, 690, 2308, 2058)
    assert crop_of("mimic-cxr/a", 2, width=2500, height=3000) == Crop(195, 499, 2043, 2012)


def test_crops_fill_the_range_that_the_paper_gives():
    crops = [crop_of(f"d/{i}", view, width=1000, height=1000) for i in range(500) for view in (1, 2)]
    shares = np.array([crop.width * crop.height / 1e6 for crop in crops])
    ratios = np.array([crop.width / crop.height for crop in crops])
    assert shares.min() > 0.399
    assert shares.max() < 0.901
    assert abs(shares.mean() - 0.65) < 0.02
    assert ratios.min() > 0.747
    assert ratios.max() < 1.337
    assert abs(np.log(ratios).mean()) < 0.02
    assert max(Counter(crops).values()) == 1
    assert all(crop.left + crop.width <= 1000 and crop.top + crop.height <= 1000 for crop in crops)
    lefts = np.array([crop.left / (1001 - crop.width) for crop in crops])
    assert abs(lefts.mean() - 0.5) < 0.03


def test_the_clean_view_has_no_crop():
    with pytest.raises(ValueError, match="view 0 is not an augmented one"):
        crop_of("d/x", 0, width=10, height=10)
