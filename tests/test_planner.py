"""Plans for data sets of different kinds, by what every plan must be; and the memory that they count on."""

import math
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError, RecipeError
from oncoseg.fingerprint import Fingerprint, read_fingerprint
from oncoseg.footprint import footprint
from oncoseg.limits import GIB
from oncoseg.models import build
from oncoseg.planner import (
    MOST_FEATURES,
    MOST_STEPS,
    SMALLEST_MAP,
    divisors,
    is_too_small,
    median_grid,
    plan,
    pooling,
)
from oncoseg.recipe import Recipe
from oncoseg.recipe_plan import FIELDS, memory_at_hand_gib, plan_recipe
from tiny import brats_case, lidc_nodule, tiny_recipe

ISOTROPIC = Fingerprint(((350, 350, 350),) * 30, ((1.0, 1.0, 1.0),) * 30)
COARSE = Fingerprint(
    ((512, 512, 40), (512, 512, 60), (512, 512, 80)) * 10,
    ((0.8, 0.8, 5.0), (0.7, 0.7, 5.0), (0.9, 0.9, 2.5)) * 10,
)
BRATS = Fingerprint(((240, 240, 155),) * 100, ((1.0, 1.0, 1.0),) * 100)
SMALL = Fingerprint(((48, 40, 33),) * 200, ((1.0, 1.0, 1.0),) * 200)

TOLERANCE = 0.3
"""How far the counted memory of a step may lie from what a process really takes."""


@cache
def planned(
    fingerprint: Fingerprint, gib: float, **changes: Any
) -> tuple[Recipe, dict[str, Any], dict[str, str]]:
    """The recipe, the values and the reasons by field."""
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    found = plan_recipe(tiny_recipe().with_only(["ct"]), fingerprint, gib, fields)
    values = {choice.name: choice.value for choice in found.choices}
    return found.recipe, values, {choice.name: choice.why for choice in found.choices}


def step_gib(recipe: Recipe) -> float:
    """Counted anew, from the finished recipe alone."""
    counted = footprint(
        lambda: build(recipe.network.name, recipe.in_channels, len(recipe.classes), recipe.network_arguments),
        recipe.in_channels,
        recipe.example_size,
    )
    return counted.step_bytes(recipe.training.batch_size) / GIB


@pytest.mark.parametrize("gib", [2, 8, 24])
@pytest.mark.parametrize(
    "fingerprint", [ISOTROPIC, COARSE, BRATS, SMALL], ids=["ct", "coarse", "mri", "small"]
)
def test_a_plan_fits_the_memory_and_the_images(fingerprint: Fingerprint, gib: float) -> None:
    recipe, values, why = planned(fingerprint, gib)
    assert recipe.preparation.spatial_dims == 3
    assert recipe.preparation.patch is not None
    strides, features = values["network.arguments.strides"], values["network.arguments.features"]
    assert all(
        side % part == 0 for side, part in zip(recipe.preparation.patch, divisors(strides), strict=True)
    )
    bottom = [side / part for side, part in zip(recipe.preparation.patch, divisors(strides), strict=True)]
    assert min(bottom) >= SMALLEST_MAP
    assert 1 <= len(strides) <= MOST_STEPS
    assert len(features) == len(strides) + 1
    assert list(features) == [min(features[0] * 2**step, MOST_FEATURES) for step in range(len(features))]
    assert recipe.training.batch_size >= 2
    assert step_gib(recipe) <= gib
    median = median_grid(fingerprint, recipe.preparation.spacing_mm)
    shares = [side / size for side, size in zip(recipe.preparation.patch, median, strict=True)]
    # alike along all axes, but for steps of the divisor
    most = max(part / size for part, size in zip(divisors(strides), median, strict=True))
    assert max(shares) - min(shares) <= 2 * most
    assert all(why[field] for field in values)
    assert set(FIELDS.values()) <= set(values)


@pytest.mark.parametrize("fingerprint", [ISOTROPIC, COARSE, BRATS], ids=["ct", "coarse", "mri"])
def test_more_memory_is_used(fingerprint: Fingerprint) -> None:
    voxels = [math.prod(planned(fingerprint, gib)[0].example_size) for gib in (2, 8, 24)]
    assert voxels == sorted(set(voxels))
    assert step_gib(planned(fingerprint, 8)[0]) > 3.5


def test_the_voxel_size_is_the_median() -> None:
    recipe, _, why = planned(BRATS, 8)
    assert recipe.preparation.spacing_mm == (1, 1, 1)
    assert why["preparation.spacing_mm"] == "median of 100 images of 1 × 1 × 1 mm"


def test_the_coarsest_axis_of_anisotropic_images_is_taken_finer() -> None:
    recipe, values, why = planned(COARSE, 8)
    assert recipe.preparation.spacing_mm == (0.8, 0.8, 2.5)
    assert why["preparation.spacing_mm"] == (
        "median of 30 images of 0.7–0.9 × 0.7–0.9 × 2.5–5 mm; along superior the 10th percentile, as its "
        "median is 6.2 times the finest"
    )
    # 0.8 and 0.8 mm are halved before 2.5 mm is
    assert values["network.arguments.strides"][:2] == ((2, 2, 1), (2, 2, 2))


def test_images_smaller_than_memory_are_seen_whole_and_in_larger_batches() -> None:
    recipe, _, why = planned(SMALL, 24)
    assert recipe.preparation.patch is not None
    assert all(side >= size for side, size in zip(recipe.preparation.patch, (48, 40, 33), strict=True))
    assert recipe.training.batch_size > 2
    patches = recipe.training.batch_size * math.prod(recipe.preparation.patch)
    assert patches <= 0.05 * 200 * 48 * 40 * 33
    assert "what memory is left for" in why["training.batch_size"]


def test_short_memory_takes_a_narrower_network_before_a_tiny_patch() -> None:
    recipe, values, why = planned(BRATS, 2.6)
    assert values["network.arguments.features"][0] == 16
    assert math.prod(recipe.example_size) >= 64**3
    assert "as 32 leave no memory" in why["network.arguments.features"]


def test_what_cannot_fit_is_said() -> None:
    _, _, why = planned(BRATS, 0.1)
    assert "does not fit into 0.1 GiB" in why["preparation.patch"]


def obstacle(gib: float, **changes: Any) -> str:
    """What speaks against a plan for BRATS; empty where nothing does."""
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return plan_recipe(tiny_recipe().with_only(["ct"]), BRATS, gib, fields).obstacle or ""


def test_a_plan_that_cannot_be_trained_says_why() -> None:
    assert obstacle(8) == ""
    assert re.match(
        r"A training step of attention-unet takes about 0\.\d GiB with 2 .* 0\.1 GiB", obstacle(0.1)
    )
    assert "--training.batch-size" in obstacle(0.1)
    assert "2 patches of 512×512×512 voxels" in obstacle(8, preparation__patch=[512, 512, 512])
    # the program alone takes most of it; what is left is for patches that show next to nothing
    assert "see too little around a lesion" in obstacle(0.75)
    assert obstacle(0.75, preparation__patch=[8, 8, 8], network__arguments__features=[4, 8]) == "", "as asked"


@pytest.mark.parametrize(
    ("patch", "median", "too_small"),
    [
        ((6, 6, 6), (240, 240, 155), True),
        ((32, 32, 31), (240, 240, 155), True),
        ((32, 32, 32), (240, 240, 155), False),
        ((8, 8, 8), (16, 16, 16), False),
        ((8, 8, 7), (16, 16, 16), True),
    ],
)
def test_when_a_patch_is_too_small(patch: Any, median: Any, too_small: bool) -> None:
    assert is_too_small(patch, median) == too_small


def test_the_window_of_ct_is_told_to_be_the_recipes() -> None:
    _, values, why = planned(COARSE, 8)
    assert values["modalities.ct.window"] == (-1000, 400)
    assert "must fit your organ" in why["modalities.ct.window"]
    recipe, values, why = planned(COARSE, 8, modalities__ct__window=(-160, 240))
    assert recipe.modalities["ct"].window == values["modalities.ct.window"] == (-160, 240)
    assert why["modalities.ct.window"] == "your choice"
    _, values, _ = planned(COARSE, 8, modalities__ct__scaling="volume-zscore")
    assert "modalities.ct.window" not in values


@pytest.mark.parametrize(
    ("patch", "spacing", "expected"),
    [
        ((64, 64, 64), (1, 1, 1), ((2, 2, 2),) * 4),
        ((64, 64, 16), (1, 1, 4), ((2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2))),
        ((64, 64, 4), (1, 1, 1), ((2, 2, 1),) * 4),
        ((512, 512, 512), (1, 1, 1), ((2, 2, 2),) * 5),
        ((5, 5, 5), (1, 1, 1), ((1, 1, 1),)),
    ],
)
def test_pooling_by_hand(patch: Any, spacing: Any, expected: Any) -> None:
    assert pooling(patch, spacing) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"preparation__spacing-mm": "[2, 2, 3]"},
        {"preparation.patch": "[40, 56, 24]"},
        {"network__arguments__features": "[8, 16, 24]"},
        {"network__arguments__strides": "[[2, 2, 1], [2, 2, 2], [3, 3, 3]]"},
        {"training__batch-size": "3"},
        {"preparation__patch": "[40, 56, 24]", "network__arguments__features": "[4, 4, 4, 4, 4, 4, 4, 4]"},
        {"modalities__ct__scaling": "volume-zscore"},
    ],
)
def test_a_choice_of_the_user_is_kept_and_the_others_follow(changes: dict[str, str]) -> None:
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    found = plan_recipe(tiny_recipe().with_only(["ct"]), COARSE, 4, fields)
    plain = found.recipe.with_changes(fields)
    assert plain == found.recipe, "nothing of what was given is otherwise"
    values = {choice.name: choice.value for choice in found.choices}
    strides, features = values["network.arguments.strides"], values["network.arguments.features"]
    assert len(features) == len(strides) + 1
    if "preparation__patch" not in changes and "preparation.patch" not in changes:
        patch = found.recipe.example_size
        assert all(side % part == 0 for side, part in zip(patch, divisors(strides), strict=True))
    assert step_gib(found.recipe) <= 4
    for choice in found.choices:
        if choice.name in {field.replace("-", "_") for field in fields}:
            assert choice.why.startswith("your choice")
    build(found.recipe.network.name, found.recipe.in_channels, 1, found.recipe.network_arguments)


NETWORK = {"name": "dynunet", "arguments": {"features": [4, 8, 16]}}
PREPARATION = {"patch": [16, 16, 16], "spacing_mm": [2, 2, 2]}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"network.arguments": {"features": [4, 8, 16]}}, {"network.arguments.features": [4, 8, 16]}),
        (
            {"network.arguments": '{"features": [4, 8, 16], "dropout": 0.2}'},
            {"network.arguments.features": [4, 8, 16], "network.arguments.dropout": 0.2},
        ),
        (
            {"network": NETWORK},
            {"network.name": "dynunet", "network.arguments.features": [4, 8, 16]},
        ),
        (
            {"preparation": PREPARATION},
            {"preparation.patch": [16, 16, 16], "preparation.spacing-mm": [2, 2, 2]},
        ),
        ({"training": {"batch_size": 7}}, {"training.batch_size": 7}),
        ({"modalities.ct": {"channels": ["CT"]}}, {"modalities.ct.channels": ["CT"]}),
    ],
)
def test_a_choice_within_an_object_is_kept_like_a_field(
    changes: dict[str, Any], fields: dict[str, Any]
) -> None:
    recipe = tiny_recipe().with_only(["ct"])
    found = plan_recipe(recipe, BRATS, 4, changes)
    values = found.recipe.model_dump(mode="json")
    for dotted, value in fields.items():
        at: Any = values
        for name in dotted.replace("-", "_").split("."):
            at = at[name]
        assert at == value
    kept = [choice for choice in found.choices if choice.why.startswith("your choice")]
    asked = plan_recipe(recipe, BRATS, 4, fields)
    assert kept == [choice for choice in asked.choices if choice.why.startswith("your choice")]


def test_what_is_left_open_is_planned() -> None:
    open_ones = {"preparation": {"patch": None, "spacing_mm": None}, "network.arguments.strides": "none"}
    recipe = tiny_recipe().with_only(["ct"])
    found = plan_recipe(recipe, BRATS, 4, open_ones)
    assert found.choices == plan_recipe(recipe, BRATS, 4, {}).choices
    values = {choice.name: choice.value for choice in found.choices}
    assert found.recipe.preparation.patch == values["preparation.patch"]
    assert found.recipe.network.arguments["strides"] == [list(s) for s in values["network.arguments.strides"]]
    with pytest.raises(RecipeError, match="Plans are for 3D"):
        plan_recipe(recipe, BRATS, 4, {"preparation": {"spatial_dims": 2}})


def test_a_network_whose_depth_is_its_own_gets_a_patch_that_all_divide() -> None:
    recipe, values, _ = planned(BRATS, 4, network__name="segresnet")
    assert "network.arguments.strides" not in values
    assert all(side % 32 == 0 for side in recipe.example_size)
    assert recipe.network.arguments == {}


def test_a_plan_can_be_planned_again() -> None:
    first = plan_recipe(tiny_recipe().with_only(["ct"]), COARSE, 4, {}).recipe
    again = plan_recipe(first, BRATS, 4, {}).recipe
    fresh = plan_recipe(tiny_recipe().with_only(["ct"]), BRATS, 4, {}).recipe
    assert again == fresh
    assert Recipe.from_json(again.to_json()) == again


def test_a_batch_is_shared_by_all_modalities() -> None:
    found = plan_recipe(tiny_recipe(), BRATS, 4, {})
    assert found.recipe.training.batch_size % 2 == 0


def test_two_dimensions_are_refused() -> None:
    with pytest.raises(RecipeError, match="Plans are for 3D"):
        planned(BRATS, 4, preparation__spatial_dims="2")


def test_the_fingerprint_is_of_canonical_axes_and_reads_no_voxel(tmp_path: Path) -> None:
    turned = np.array([[0, 0, 2.0, 0], [-1, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]])  # i, j, k to P, S, R
    folder = brats_case(tmp_path, 1, suffix=".nii", affine=turned)
    for path in folder.glob("*.nii"):
        # without voxels, a file of which only the header can be read
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(352)
            file.truncate(size)
    found = read_fingerprint(open_dataset(tmp_path).cases)
    assert found.grids == ((4, 14, 10),)
    assert found.spacings_mm[0] == pytest.approx((2, 1, 3))


def test_images_without_a_voxel_size_are_refused(tmp_path: Path) -> None:
    lidc_nodule(tmp_path, 1)
    with pytest.raises(DataError, match="hold no voxel size"):
        read_fingerprint(open_dataset(tmp_path).cases)
    with pytest.raises(DataError, match="got none"):
        read_fingerprint([])


def test_what_is_given_is_never_asked_of_memory() -> None:
    given = {"patch": (32, 32, 32), "features": (4, 8), "batch_size": 1}
    found = {choice.name: choice.value for choice in plan(BRATS, lambda *_: 1e12, 1, given)}
    assert {name: found[name] for name in given} == given


def test_a_patch_stays_within_what_a_network_was_made_for() -> None:
    pytest.importorskip("einops", reason="UNETR needs it: pip install 'oncoseg[comparators]'")
    small = {"img_size": 96, "first_features": 4, "hidden_size": 8, "mlp_dim": 8, "heads": 2}
    found = plan_recipe(
        tiny_recipe().with_only(["ct"]), BRATS, 8, {"network": {"name": "unetr", "arguments": small}}
    )
    assert max(found.recipe.example_size) <= 96
    assert found.recipe.network.arguments == small


def test_a_network_with_a_position_embedding_is_made_for_the_patch() -> None:
    pytest.importorskip("einops", reason="UNETR needs it: pip install 'oncoseg[comparators]'")
    small = {"first_features": 4, "hidden_size": 8, "mlp_dim": 8, "heads": 2}
    network = {"network": {"name": "unetr", "arguments": small}}
    found = plan_recipe(tiny_recipe().with_only(["ct"]), BRATS, 4, network)
    assert found.obstacle is None
    assert found.recipe.network.arguments == small | {"img_size": list(found.recipe.example_size)}
    assert min(found.recipe.example_size) >= 96, "as much as fits, and not what 256³ would leave"
    assert step_gib(found.recipe) <= 4
    (choice,) = [one for one in found.choices if one.name == "network.arguments.img_size"]
    assert choice.why == "the patch, as its position embedding is for one size"
    wide = {"network": {"name": "unetr", "arguments": small | {"img_size": 64}}}
    refused = plan_recipe(
        tiny_recipe().with_only(["ct"]), BRATS, 4, wide | {"preparation.patch": [96, 96, 96]}
    )
    assert "its network.arguments.img_size is smaller" in (refused.obstacle or "")


def test_memory_at_hand_is_bounded() -> None:
    assert 0 < memory_at_hand_gib("cpu") <= 8


def test_kept_tensors_are_counted_once() -> None:
    """A convolution keeps its input, ReLU its output: 4 + 2·4 channels of 8³ voxels in 32 bits."""
    from torch import nn

    def make() -> nn.Module:
        return nn.Sequential(nn.Conv3d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 1, 1))

    found = footprint(make, 4, (8, 8, 8))
    assert found.kept_bytes == (4 + 8) * 8**3 * 4
    assert found.largest_bytes == 8 * 8**3 * 4
    assert found.weight_bytes == 4 * (4 * 8 * 27 + 8 + 8 + 1)


STEP = """
import sys, torch
from pathlib import Path
from oncoseg.models import build
patch, batch = [int(side) for side in sys.argv[1].split("x")], int(sys.argv[2])
torch.set_num_threads(1)
network = build("attention-unet", 1, 2, {"spatial_dims": 3, "features": [16, 32, 64], "dropout": 0.0})
optimiser = torch.optim.AdamW(network.parameters())
for _ in range(2):
    network(torch.rand(batch, 1, *patch)).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
lines = Path("/proc/self/status").read_text().splitlines()
print(1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")))
"""
"""`ru_maxrss` would be that of the process that runs the tests, where that is larger."""


@pytest.mark.slow
@pytest.mark.parametrize(("patch", "batch"), [((64, 64, 48), 2), ((96, 96, 64), 2)])
def test_a_real_step_takes_what_was_counted(patch: tuple[int, int, int], batch: int) -> None:
    arguments = {"spatial_dims": 3, "features": [16, 32, 64], "dropout": 0.0}
    counted = footprint(lambda: build("attention-unet", 1, 2, arguments), 1, patch).step_bytes(batch)
    done = subprocess.run(
        [sys.executable, "-c", STEP, "x".join(map(str, patch)), str(batch)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"},
    )
    assert counted == pytest.approx(int(done.stdout), rel=TOLERANCE)
