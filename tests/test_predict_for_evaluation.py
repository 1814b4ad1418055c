"""What predicting hands to an evaluation: truth, probability and classes on one grid."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from oncoseg.datasets import open_dataset
from oncoseg.predict import Predictor
from test_predict import Bright, bright, oriented
from tiny import brats_case, tiny_recipe


def test_a_case_for_evaluation_has_truth_and_prediction_on_one_grid(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 4, affine=oriented(37))
    case = open_dataset(tmp_path / "mri").cases[0]
    found = bright().predict_case(case, "mri")
    assert found.truth.shape == found.probability.shape == found.image.shape
    assert found.spacing_mm is not None
    hit = (found.probability >= 0.5) & found.truth
    assert hit.sum() > 0.7 * found.truth.sum()
    assert (found.image.min(), found.image.max()) == (0, 1)
    assert found.letters == ("R", "L", "A", "P")
    assert found.ground.startswith("FLAIR, grey from ")


def test_a_case_of_a_tilted_scan_keeps_how_its_slices_lean(tmp_path: Path) -> None:
    brats_case(
        tmp_path / "mri", 4, affine=np.array([[1, 0, 0, 0], [0, 1, 0.5, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    )
    brats_case(tmp_path / "mri", 5)
    leaning, upright = (bright().predict_case(case, "mri") for case in open_dataset(tmp_path / "mri").cases)
    assert leaning.spacing_mm == (1, 1, 2)
    assert leaning.axes_mm is not None
    np.testing.assert_allclose(leaning.axes_mm, [[1, 0, 0], [0, 1, 0.5], [0, 0, 2]])
    assert upright.axes_mm is None


class TwoClasses(Bright):
    """The first class where it is bright, the second where it is dark."""

    def forward(self, images: Tensor) -> Tensor:
        bright = super().forward(images)
        return torch.cat([bright, -bright], dim=1)


def test_each_class_of_several_lies_on_the_truths_grid(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 4, affine=oriented(37))
    case = open_dataset(tmp_path / "mri").cases[0]
    classes = {"rest": ["oedema", "necrotic core"], "enhancing": ["enhancing tumour"]}
    recipe = tiny_recipe(classes=classes, preparation__slice_size=[32, 32])
    found = Predictor(recipe, TwoClasses(), "weights").predict_case(case, "mri")
    assert found.classes is not None
    assert found.classes.names == ("rest", "enhancing")
    assert found.classes.probability.shape == (2, *found.truth.shape)
    # the data set's only label is enhancing tumour, which is the second class and bright
    assert np.unique(found.classes.truth).tolist() == [0, 2]
    assert np.array_equal(found.truth, found.classes.truth == 2)
    np.testing.assert_array_equal(np.minimum(found.classes.probability.sum(axis=0), 1), found.probability)
    bright, dark = found.classes.probability
    assert bright[found.truth].mean() > 0.7 > 0.3 > dark[found.truth].mean()


class Certain(Bright):
    """Probability 1 everywhere."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(super().forward(images), 100)


def test_certainty_is_one_and_no_more(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 4, grid=(64, 51, 3))
    recipe = tiny_recipe(preparation__slice_size=[37, 37])
    case = open_dataset(tmp_path / "mri").cases[0]
    found = Predictor(recipe, Certain(), "weights").predict_case(case, "mri")
    assert found.probability.max() == 1
    assert found.probability.min() > 0.999


def test_a_single_class_costs_no_maps_of_classes(tmp_path: Path) -> None:
    brats_case(tmp_path / "mri", 4)
    assert bright().predict_case(open_dataset(tmp_path / "mri").cases[0], "mri").classes is None
