"""Changing a recipe's fields by name, as flags do."""

import pytest

from oncoseg.errors import RecipeError
from oncoseg.recipe import Recipe
from oncoseg.recipes import get_recipe


def recipe() -> Recipe:
    return get_recipe("unified-mri-ct")


def test_words_may_be_joined_by_either_line() -> None:
    for field in ("training.max-epochs", "training.max_epochs"):
        assert recipe().with_changes({field: "7"}).training.max_epochs == 7


def test_names_of_modalities_are_kept_as_they_are() -> None:
    values = recipe().model_dump(mode="json")
    values["modalities"] = {"t1-gd": values["modalities"]["mri"], "ct": values["modalities"]["ct"]}
    hyphened = Recipe.model_validate(values)
    changed = hyphened.with_changes({"modalities.t1-gd.missing": "substitute"})
    assert changed.modalities["t1-gd"].missing == "substitute"


def test_new_keys_enter_only_where_anything_may_stand() -> None:
    changed = recipe().with_changes(
        {"network.arguments.spatial-dims": "2", "classes.tumour": '["enhancing tumour"]'}
    )
    assert changed.network.arguments["spatial_dims"] == 2
    assert changed.classes == {"tumour": ("enhancing tumour",)}
    with pytest.raises(RecipeError, match="did you mean 'network'"):
        recipe().with_changes({"netwerk.name": "x"})


def test_text_stays_text_and_the_rest_is_read_as_json() -> None:
    changed = recipe().with_changes({"title": "7", "augmentation.crop": "[64, 64]"})
    assert changed.title == "7"
    assert changed.augmentation.crop == (64, 64)
    assert changed.with_changes({"augmentation.crop": "none"}).augmentation.crop is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augmentation.crop": [256, 64]}, "must fit into slice_size"),
        ({"training.pretrain_on": "pet"}, "pretrain_on must be one of"),
        ({"modalities.ct.channels": ["CT"]}, "as many channels"),
        ({"split.train": 0.95}, "stay below 1"),
        ({"training.precision": "fp8"}, "bf16-mixed"),
    ],
)
def test_values_that_do_not_fit_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe().with_changes(changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "Expected a recipe as JSON"), ('{"name": "x", "titel": "y"}', "title"), ("[]", "recipe")],
)
def test_a_file_that_is_no_recipe(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_json(text)
