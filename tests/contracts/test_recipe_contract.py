"""What every recipe promises: complete, buildable, from a paper, with losses and channels that exist."""

import re

import pytest
import torch

from oncoseg.datasets import DATASETS
from oncoseg.errors import RecipeError
from oncoseg.losses import LOSSES
from oncoseg.metrics import SCORES
from oncoseg.models import Cost, build, describe
from oncoseg.recipe import Recipe
from oncoseg.recipes import RECIPES, get_recipe
from oncoseg.training.stages import stages_of
from oncoseg.transforms import ZEROS

KNOWN = {channel for layout in DATASETS.values() for channel in layout.channels}

every = pytest.mark.parametrize("name", RECIPES)


def cost_of(recipe: Recipe) -> Cost:
    return describe(
        recipe.network.name,
        recipe.network.arguments,
        recipe.in_channels,
        len(recipe.classes),
        recipe.preparation.slice_size,
    )


@every
def test_json_round_trip(name: str) -> None:
    recipe = get_recipe(name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert get_recipe(name) == recipe
    assert recipe.with_changes({}) == recipe


@every
def test_it_is_described(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    assert recipe.title
    assert re.search(r"\b(19|20)\d\d\b", recipe.source), "the paper's year"
    assert RECIPES[name].__doc__
    assert recipe.deviations
    assert all(text.endswith(".") for text in recipe.deviations)


@every
def test_its_network_takes_its_slices(name: str) -> None:
    recipe = get_recipe(name)
    with torch.device("meta"):
        network = build(
            recipe.network.name, recipe.in_channels, len(recipe.classes), recipe.network.arguments
        )
        slices = torch.empty(1, recipe.in_channels, *recipe.preparation.slice_size)
        assert network(slices).shape == (1, len(recipe.classes), *recipe.preparation.slice_size)


@every
def test_the_size_of_its_network_can_be_told(name: str) -> None:
    cost = cost_of(get_recipe(name))
    assert cost.parameters > 0
    assert cost.multiply_adds > 0


@every
def test_its_last_stage_keeps_the_best_of_all_modalities(name: str) -> None:
    recipe = get_recipe(name)
    *earlier, last = stages_of(recipe)
    assert last.keeps_best
    assert not any(stage.keeps_best for stage in earlier)
    assert set(last.modalities) == set(recipe.modalities)


@every
def test_its_losses_take_their_arguments(name: str) -> None:
    for modality in get_recipe(name).modalities.values():
        loss = LOSSES[modality.loss.name](
            torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2), **modality.loss.arguments
        )
        assert torch.isfinite(loss)


@every
def test_each_modality_can_be_read_from_some_layout(name: str) -> None:
    for modality in get_recipe(name).modalities.values():
        assert any(set(modality.channels) <= set(layout.channels) for layout in DATASETS.values())
        assert set(modality.substitutes) <= set(modality.channels)
        assert set(modality.substitutes.values()) <= {*KNOWN, ZEROS}


@every
def test_published_figures_are_scores_that_we_compute(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.published
    for row in recipe.published:
        assert row.row in {*recipe.modalities, "all"}
        assert set(row.scores) <= {*SCORES, "auc"}
        assert all(0 <= value <= 1 for value in row.scores.values())


@every
def test_the_nearest_name_is_suggested(name: str) -> None:
    with pytest.raises(RecipeError, match=f"did you mean '{name}'"):
        get_recipe(f"{name}x")


def test_an_unknown_name_points_to_the_list() -> None:
    with pytest.raises(RecipeError, match="see `oncoseg recipes`"):
        get_recipe("???")


def test_s1_as_published() -> None:
    recipe = get_recipe("unified-mri-ct")
    mri, ct = recipe.modalities["mri"], recipe.modalities["ct"]
    assert mri.channels == ("T1", "T1ce", "T2", "FLAIR")
    assert mri.substitutes == {"T1": "T1ce", "T1ce": "T1", "T2": "FLAIR", "FLAIR": "T2"}
    assert ct.channels == ("CT", "CT", "CT", "CT")
    assert ct.substitutes == {}
    focal = {"gamma": 0.75, "smooth": 1.0}
    assert mri.loss.arguments == {"alpha": 0.8, "beta": 0.2} | focal
    assert ct.loss.arguments == {"alpha": 0.5, "beta": 0.5} | focal
    for modality in (mri, ct):
        assert (modality.loss.name, modality.loss.weight) == ("focal-tversky", 1.0)
        assert (modality.scaling, modality.consensus, modality.missing) == ("slice-minmax", 0.5, "error")
    assert recipe.classes == {"tumour": ("*",)}
    assert recipe.preparation.slice_size == (128, 128)
    cost = cost_of(recipe)
    assert cost.parameters == 1_885_863
    assert round(cost.multiply_adds / 1e9, 1) == 6.5


def test_s1_trains_as_published() -> None:
    recipe = get_recipe("unified-mri-ct")
    training = recipe.training
    assert (training.pretrain_on, training.pretrain_epochs, training.max_epochs) == ("ct", 5, 30)
    assert (training.batch_size, training.tumour_share, training.max_minutes) == (8, None, None)
    assert (training.learning_rate, training.weight_decay) == (1e-4, 1e-5)
    assert (training.schedule.name, training.clip_norm) == ("one-cycle", 1.0)
    assert (recipe.split.train, recipe.split.validation) == (0.7, 0.1)
    assert (recipe.prediction.threshold, recipe.prediction.flips) == (0.5, False)
    augmentation = {
        "flip_chance": 0.5,
        "rotation_chance": 0.5,
        "rotation_degrees": 15.0,
        "scale_chance": 0.0,
        "elastic_chance": 0.3,
        "elastic_pixels": 2.0,
        "brightness_chance": 0.5,
        "brightness": 0.15,
        "contrast": 0.15,
        "dropout_chance": 0.3,
        "dropout_holes": 4,
        "dropout_size": 0.125,
        "crop": None,
    }
    values = recipe.augmentation.model_dump()
    assert {name: values[name] for name in augmentation} == augmentation


def test_s1s_published_figures() -> None:
    rows = {row.row: row.scores for row in get_recipe("unified-mri-ct").published}
    assert rows == {
        "mri": {"dice": 0.83, "iou": 0.80, "precision": 0.86, "recall": 0.92, "f1": 0.84, "auc": 0.97},
        "ct": {"dice": 0.55, "iou": 0.49, "precision": 0.74, "recall": 0.69, "f1": 0.57, "auc": 0.83},
        "all": {"dice": 0.64, "iou": 0.59, "precision": 0.78, "recall": 0.77, "f1": 0.66, "auc": 0.90},
    }
