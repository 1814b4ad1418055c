"""Recipes: complete, frozen, strict, and the same after JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from oncoseg.errors import RecipeError
from oncoseg.losses import LOSSES
from oncoseg.models import MODELS
from oncoseg.recipe import Modality, Optimiser, Recipe, Training
from oncoseg.recipes import get_recipe
from oncoseg.train import check_recipe
from oncoseg.training.stages import stages_of

S1 = get_recipe("unified-mri-ct")


def changed(**changes: Any) -> Recipe:
    return S1.with_changes({name.replace("__", "."): value for name, value in changes.items()})


def test_a_change_changes_that_field_only() -> None:
    other = changed(training__max_epochs=3)
    assert other.training.max_epochs == 3
    assert other.with_changes({"training.max_epochs": S1.training.max_epochs}) == S1
    assert S1.training.max_epochs != 3


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("training.max-epochs", "3", 3),
        ("training.max_minutes", "2.5", 2.5),
        ("training.max_minutes", "none", None),
        ("training.pretrain_on", "mri", "mri"),
        ("training.precision", "bf16-mixed", "bf16-mixed"),
        ("preparation.slice_size", "[64, 32]", (64, 32)),
        ("augmentation.crop", "[64, 32]", (64, 32)),
        ("augmentation.crop", "none", None),
        ("prediction.flips", "true", True),
        ("modalities.ct.scaling", "window", "window"),
        ("modalities.ct.loss.weight", "2", 2.0),
        ("title", "12", "12"),
        ("training.pretrain-on", "none", None),
        ("training.pretrain-on", "None", None),
        ("network.name", "none", "none"),
        ("network.arguments.dropout", "none", None),
    ],
)
def test_text_from_the_command_line_becomes_the_fields_type(field: str, text: str, value: Any) -> None:
    part: Any = S1.with_changes({field: text})
    for name in field.replace("-", "_").split("."):
        part = part[name] if isinstance(part, dict) else getattr(part, name)
    assert part == value


def test_names_of_modalities_are_kept_as_they_are() -> None:
    values = S1.model_dump(mode="json")
    values["modalities"] = {"t1-gd": values["modalities"]["mri"], "ct": values["modalities"]["ct"]}
    hyphened = Recipe.model_validate(values)
    other = hyphened.with_changes({"modalities.t1-gd.missing": "substitute"})
    assert other.modalities["t1-gd"].missing == "substitute"


def test_open_dictionaries_take_new_keys() -> None:
    other = S1.with_changes({"network.arguments.spatial-dims": "2", "classes.tumour": '["oedema"]'})
    assert other.network.arguments["spatial_dims"] == 2
    assert other.classes == {"tumour": ("oedema",)}
    other = changed(network__arguments__attention="false", modalities__mri__substitutes__T1="zeros")
    assert other.network.arguments["attention"] is False
    assert other.modalities["mri"].substitutes["T1"] == "zeros"
    assert (
        changed(modalities__ct__loss__arguments__alpha="0.7").modalities["ct"].loss.arguments["alpha"] == 0.7
    )


def plain(in_channels: int, classes: int, *, depth: int = 1) -> nn.Module:
    return nn.Conv2d(in_channels, classes, 2 * depth + 1, padding=depth)


def cross_entropy(logits: Tensor, target: Tensor, *, scale: float = 1.0) -> Tensor:
    return scale * nn.functional.binary_cross_entropy_with_logits(logits, target[:, None].float())


def test_another_network_or_loss_starts_from_its_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "plain", plain)
    monkeypatch.setitem(LOSSES, "cross-entropy", cross_entropy)
    other = changed(network__name="plain", modalities__mri__loss__name="cross-entropy")
    assert other.network.arguments == other.modalities["mri"].loss.arguments == {}
    assert other.modalities["ct"] == S1.modalities["ct"]
    check_recipe(other)


@pytest.mark.parametrize(
    "arguments", [{"network.arguments.depth": 2}, {"network.arguments": {"depth": 2}}], ids=["one", "all"]
)
def test_arguments_beside_a_new_name_are_all_that_it_gets(arguments: dict[str, Any]) -> None:
    name = {"network.name": "plain"}
    for changes in (name | arguments, arguments | name):
        assert S1.with_changes(changes).network.arguments == {"depth": 2}


def test_the_same_name_again_keeps_the_arguments() -> None:
    assert changed(network__name=S1.network.name, modalities__ct__loss__name="focal-tversky") == S1


def test_arguments_can_be_replaced_as_a_whole() -> None:
    assert changed(network__arguments="{}").network.arguments == {}
    both = {"network.arguments.dropout": "0.1", "network.arguments": '{"features": [4, 8]}'}
    assert S1.with_changes(both).network.arguments == {"features": [4, 8], "dropout": 0.1}


def test_a_field_can_be_changed_beside_its_part_as_a_whole() -> None:
    whole = {"training": {"max_epochs": 3}, "training.optimiser.name": "sgd", "training.seed": 4}
    assert S1.with_changes(whole).training == Training(max_epochs=3, seed=4, optimiser=Optimiser(name="sgd"))
    with pytest.raises(RecipeError, match="there is no 'seeds'; did you mean 'seed'"):
        S1.with_changes({"training": {"max_epochs": 3}, "training.seeds": 4})


def test_a_part_of_the_modalities_keeps_everything_else() -> None:
    mri = S1.with_only(["mri"])
    assert mri.modalities == {"mri": S1.modalities["mri"]}
    assert mri.training == S1.training.model_copy(update={"pretrain_on": None})
    assert mri.published == S1.published
    assert mri.with_only(["mri"]) == Recipe.from_json(mri.to_json()) == mri
    assert [stage.name for stage in stages_of(mri)] == ["joint"]


def test_pretraining_stays_with_its_modality() -> None:
    ct = S1.with_only(["ct"])
    assert (list(ct.modalities), ct.training.pretrain_on) == (["ct"], "ct")
    assert S1.with_only(["ct", "mri"]) == S1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ct", "mr"], "unified-mri-ct has no modality 'mr'; did you mean 'mri'"),
        (["pet"], "expected one of mri, ct"),
        ([], "as many channels"),
    ],
)
def test_a_part_that_is_not_there_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        S1.with_only(names)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("training.max_epoch", 3, "did you mean 'max_epochs'"),
        ("trainng.max_epochs", 3, "did you mean 'training'"),
        ("modalities.pet.scaling", "window", "there is no 'pet'"),
        ("training.max_epochs.x", 3, "there is no 'x'"),
        ("", 3, "Unknown recipe field"),
        ("training.max_epochs", 0, "training.max_epochs: .*greater than 0"),
        ("training.max_epochs", "three", "training.max_epochs: .*integer.* got 'three'"),
        ("training.batch_size", -1, "training.batch_size"),
        ("training.learning_rate", 0, "training.learning_rate"),
        ("training.learning_rate", "NaN", "training.learning_rate"),
        ("training.pretrain_on", "pet", r"pretrain_on must be one of \['ct', 'mri'\]"),
        ("split.train", 1.0, "split.train"),
        ("split.train", 0.95, "a test set is left"),
        ("augmentation.crop", [256, 16], "must fit into slice_size"),
        ("augmentation.flip_chance", 1.5, "augmentation.flip_chance"),
        ("prediction.threshold", 0, "prediction.threshold"),
        ("modalities.ct.channels", ["CT"], "as many channels"),
        ("modalities.ct.missing", "guess", "modalities.ct.missing"),
        ("modalities.ct.consensus", 0, "modalities.ct.consensus"),
        ("preparation.slice_size", [128], "preparation.slice_size"),
        ("preparation.slice_size", [0, 128], "preparation.slice_size"),
        ("format_version", 2, "format_version"),
        ("training.max_epochs", "none", "training.max_epochs"),
        ("training.seed", -1, "training.seed: .*greater than or equal to 0"),
        ("training.learning_rate", "Infinity", "training.learning_rate: .*finite"),
        ("augmentation.scale_range", [0, 1], r"augmentation: scale_range must be 0 < .*\[0.0, 1.0\]"),
        ("augmentation.scale_range", [1.2, 0.8], "scale_range must be"),
        ("modalities.ct.window", [400, -1000], r"ct: window must be lower < upper, got \[400.0, -1000.0\]"),
        ("modalities.ct.window", [5, 5], "window must be lower < upper"),
        ("modalities.ct.percentiles", [-1, 99], "percentiles must be 0 ≤ lower < upper ≤ 100"),
        ("modalities.ct.percentiles", [1, 101], "percentiles must be"),
        ("modalities.ct.percentiles", [50, 50], "percentiles must be"),
        ("modalities.ct.channels", [], "at least one channel"),
        ("modalities", {"all": {"channels": ["CT"]}}, "no modality may be called 'all'"),
        ("classes", {}, "at least one class"),
        ("classes.tumour", [], "at least one label"),
    ],
)
def test_what_does_not_fit_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        S1.with_changes({field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split.train", 0.95),
        ("training.pretrain_on", "pet"),
        ("training.max_epochs", 0),
        ("modalities.ct", {}),
    ],
)
def test_an_error_is_one_short_sentence(field: str, value: Any) -> None:
    with pytest.raises(RecipeError) as caught:
        S1.with_changes({field: value})
    assert "Value error" not in str(caught.value)
    assert len(str(caught.value)) < 150


def test_fields_cannot_be_set() -> None:
    with pytest.raises(ValueError, match="frozen"):
        S1.training.max_epochs = 3


def test_no_modality_is_refused() -> None:
    with pytest.raises(RecipeError, match="as many channels"):
        S1.with_changes({"modalities": {}})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"name": "x"}'])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.from_json(text)


def test_an_unknown_field_in_a_file_suggests_the_nearest() -> None:
    values = json.loads(S1.to_json())
    values["training"]["lerning_rate"] = 1
    with pytest.raises(RecipeError, match=r"training.lerning_rate: .*did you mean 'learning_rate'"):
        Recipe.from_json(json.dumps(values))


@given(
    st.floats(1e-6, 1, exclude_min=True),
    st.integers(1, 10**6),
    st.tuples(st.integers(1, 512), st.integers(1, 512)),
    st.text(max_size=8),
)
def test_json_brings_back_exactly_the_same(rate: float, seed: int, size: tuple[int, int], title: str) -> None:
    recipe = S1.with_changes({"training.learning_rate": rate, "training.seed": seed})
    recipe = recipe.model_copy(update={"title": title})
    recipe = recipe.with_changes({"preparation.slice_size": list(size)})
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_every_field_says_what_it_means() -> None:
    def undescribed(part: Any, where: str) -> list[str]:
        missing = []
        for name, field in part.model_fields.items():
            nested = field.annotation if hasattr(field.annotation, "model_fields") else None
            if nested:
                missing += undescribed(nested, f"{where}{name}.")
            elif not field.description:
                missing.append(where + name)
        return missing

    assert undescribed(Recipe, "") + undescribed(Modality, "modality.") == []


VOLUMES = {"preparation.spatial_dims": 3, "modalities.mri.scaling": "volume-percentile"}


def test_a_recipe_for_volumes_says_so_to_its_network() -> None:
    recipe = get_recipe("unified-mri-ct").with_only(["mri"])
    volumes = recipe.with_changes(VOLUMES | {"preparation.patch": [32, 32, 16]})
    assert volumes.network_arguments == {**recipe.network.arguments, "spatial_dims": 3}
    assert volumes.example_size == (32, 32, 16)
    assert recipe.network_arguments == recipe.network.arguments
    assert recipe.example_size == (128, 128)
    assert recipe.with_changes({"augmentation.crop": [64, 32]}).example_size == (64, 32)
    with pytest.raises(RecipeError, match=r"Training in 3D needs preparation\.patch"):
        _ = recipe.with_changes(VOLUMES).example_size


def test_neighbours_are_channels() -> None:
    recipe = get_recipe("unified-mri-ct")
    assert recipe.in_channels == 4
    assert recipe.with_changes({"preparation.neighbours": 2}).in_channels == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preparation.patch": [8, 8, 8]}, "patch is for volumes; expected none with spatial_dims 2"),
        ({"preparation.spacing_mm": [1, 1, 1]}, "spacing_mm is for volumes"),
        (VOLUMES | {"preparation.neighbours": 1}, "neighbours are for slices; expected 0"),
        (VOLUMES | {"augmentation.crop": [8, 8]}, r"in 3D set preparation\.patch instead"),
        (VOLUMES | {"training.tumour_share": 0.5}, r"set training\.foreground_share instead"),
        ({"preparation.spatial_dims": 3}, r"modalities\.mri\.scaling must be volume-percentile or"),
        (
            VOLUMES | {"network.arguments.spatial_dims": 2},
            "spatial_dims follows preparation, 3; leave it out",
        ),
        (VOLUMES | {"preparation.spacing_mm": [1, 0, 1]}, "greater than 0"),
    ],
)
def test_dimensions_that_make_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        get_recipe("unified-mri-ct").with_only(["mri"]).with_changes(changes)


def test_slices_are_balanced_by_a_class_that_there_is() -> None:
    recipe = get_recipe("residual-attention-liver").with_changes({"classes": {"liver": ["liver", "tumour"]}})
    assert recipe.training.tumour_class == "tumour", "without a share it decides nothing"
    with pytest.raises(RecipeError, match=r"tumour_class must be one of \['liver'\], got 'tumour'"):
        recipe.with_changes({"training.tumour_share": 0.5})
