"""What every recipe promises: complete, buildable, from a paper, with losses and channels that exist."""

import json

import pytest
import torch

from oncoseg.datasets import DATASETS
from oncoseg.errors import RecipeError
from oncoseg.losses import LOSSES
from oncoseg.metrics import SCORES
from oncoseg.models import build, describe
from oncoseg.recipe import Recipe
from oncoseg.recipes import RECIPES, get_recipe
from oncoseg.train import stages_of
from oncoseg.transforms import ZEROS

PUBLISHED_PARAMETERS = {"unified-mri-ct": 1_885_863}
"""Trainable parameters, worked out from each paper's description."""

KNOWN = {channel for layout in DATASETS.values() for channel in layout.channels}

every = pytest.mark.parametrize("name", RECIPES)


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
    assert any(year in recipe.source for year in ("2023", "2024", "2025", "2026"))
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
def test_its_network_has_the_published_number_of_parameters(name: str) -> None:
    recipe = get_recipe(name)
    arguments = (recipe.network.arguments, recipe.in_channels, len(recipe.classes))
    cost = describe(recipe.network.name, *arguments, recipe.preparation.slice_size)
    assert cost.parameters == PUBLISHED_PARAMETERS[name]
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
def test_its_json_holds_no_nan_and_no_infinity(name: str) -> None:
    found: list[str] = []
    json.loads(get_recipe(name).to_json(), parse_constant=found.append)
    assert found == []


@every
def test_the_nearest_name_is_suggested(name: str) -> None:
    with pytest.raises(RecipeError, match=f"did you mean '{name}'"):
        get_recipe(f"{name}x")


def test_an_unknown_name_points_to_the_list() -> None:
    with pytest.raises(RecipeError, match="see `oncoseg recipes`"):
        get_recipe("???")


def test_s1_as_published() -> None:
    recipe = get_recipe("unified-mri-ct")
    training = recipe.training
    assert recipe.preparation.slice_size == (128, 128)
    assert (training.pretrain_on, training.pretrain_epochs, training.batch_size) == ("ct", 5, 8)
    assert (training.learning_rate, training.weight_decay) == (1e-4, 1e-5)
    assert recipe.modalities["ct"].channels == ("CT",) * 4
    assert recipe.modalities["mri"].channels == ("T1", "T1ce", "T2", "FLAIR")
    weights = {
        name: (one.loss.arguments["alpha"], one.loss.arguments["beta"])
        for name, one in recipe.modalities.items()
    }
    assert weights == {"mri": (0.8, 0.2), "ct": (0.5, 0.5)}
    assert recipe.augmentation.rotation_degrees == 15
    assert [row.scores["dice"] for row in recipe.published] == [0.83, 0.55, 0.64]
