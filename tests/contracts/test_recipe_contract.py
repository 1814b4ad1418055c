"""What every entry of RECIPES promises."""

import pytest

from oncoseg.datasets import DATASETS
from oncoseg.errors import RecipeError
from oncoseg.losses import LOSSES
from oncoseg.models import MODELS, describe
from oncoseg.recipe import Recipe
from oncoseg.recipes import RECIPES, get_recipe
from oncoseg.train import stages_of
from oncoseg.transforms import ZEROS

PUBLISHED_PARAMETERS = {"unified-mri-ct": 1_885_863}
"""Trainable parameters, worked out from each paper's description."""

names = pytest.mark.parametrize("name", RECIPES)


@names
def test_it_survives_json(name: str) -> None:
    recipe = get_recipe(name)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.name == name


@names
def test_it_says_where_it_comes_from(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.title
    assert recipe.source
    assert recipe.published
    assert recipe.deviations
    rows = {*recipe.modalities, "all"}
    assert {row.row for row in recipe.published} <= rows
    assert all(0 <= score <= 1 for row in recipe.published for score in row.scores.values())


@names
def test_its_names_exist(name: str) -> None:
    recipe = get_recipe(name)
    known = {channel for layout in DATASETS.values() for channel in layout.channels}
    assert recipe.network.name in MODELS
    for modality in recipe.modalities.values():
        assert set(modality.channels) <= known
        assert {*modality.substitutes, *modality.substitutes.values()} <= known | {ZEROS}
        assert modality.loss.name in LOSSES


@names
def test_its_network_has_the_published_number_of_parameters(name: str) -> None:
    recipe = get_recipe(name)
    cost = describe(
        recipe.network.name,
        recipe.network.arguments,
        recipe.in_channels,
        len(recipe.classes),
        recipe.preparation.slice_size,
    )
    assert cost.parameters == PUBLISHED_PARAMETERS[name]
    assert cost.multiply_adds > 0


@names
def test_its_last_stage_keeps_the_best_of_all_modalities(name: str) -> None:
    recipe = get_recipe(name)
    last = stages_of(recipe)[-1]
    assert last.keeps_best
    assert set(last.modalities) == set(recipe.modalities)


@names
def test_every_field_can_be_set_from_text(name: str) -> None:
    recipe = get_recipe(name)
    changed = recipe.with_changes({"training.max-epochs": "3", "training.max_minutes": "1.5"})
    assert changed.training.max_epochs == 3
    assert changed.training.max_minutes == 1.5
    assert changed.with_changes({"training.max_minutes": "none"}).training.max_minutes is None
    with pytest.raises(RecipeError, match="did you mean 'max_epochs'"):
        recipe.with_changes({"training.max_epoch": 3})
    with pytest.raises(RecipeError, match=r"training\.max_epochs"):
        recipe.with_changes({"training.max_epochs": 0})


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unified-mri-ct"):
        get_recipe("unified-mri-tc")
