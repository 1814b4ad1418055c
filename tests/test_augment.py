"""Augmentation: what must not change does not, and images and masks move together."""

from dataclasses import asdict, replace

import pytest
import torch
from scipy.ndimage import label
from torch import Tensor

from oncoseg.augment import Strengths, augment
from oncoseg.recipe import Augmentation

NONE = Strengths(
    flip_chance=0, rotation_chance=0, scale_chance=0, elastic_chance=0, brightness_chance=0, dropout_chance=0
)
EVERYTHING = Strengths(
    flip_chance=0.5,
    rotation_chance=1,
    scale_chance=1,
    elastic_chance=1,
    brightness_chance=1,
    dropout_chance=1,
)
SPATIAL = {
    "flips": replace(NONE, flip_chance=0.5),
    "rotation": replace(NONE, rotation_chance=1, rotation_degrees=40),
    "scale": replace(NONE, scale_chance=1, scale_range=(0.6, 1.6)),
    "elastic": replace(NONE, elastic_chance=1, elastic_pixels=2),
    "crop": replace(NONE, crop=(12, 20)),
    "all": replace(EVERYTHING, brightness_chance=0, dropout_chance=0, crop=(16, 12)),
}

RESAMPLED = 1e-4
"""Rounding of float32 sampling coordinates."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(n: int = 6, rows: int = 24, columns: int = 32) -> tuple[Tensor, Tensor]:
    """Noise, and a disc of two classes in every slice but the last."""
    images = torch.rand(n, 2, rows, columns, generator=generator(1))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    masks = torch.zeros(n, rows, columns, dtype=torch.uint8)
    for number in range(n - 1):
        distance = ((y - 8 - number) ** 2 + (x - 10 - 2 * number) ** 2).sqrt()
        masks[number] = (distance < 6).byte() + (distance < 3).byte()
    return images, masks


def test_the_recipes_fields_are_these() -> None:
    assert asdict(Strengths()) == Augmentation().model_dump()


def test_nothing_happens_when_all_chances_are_0() -> None:
    images, masks = batch()
    changed, moved = augment(images, masks, 2, NONE, generator())
    torch.testing.assert_close(changed, images, rtol=0, atol=RESAMPLED)
    assert torch.equal(moved, masks)


@pytest.mark.parametrize("strengths", [NONE, EVERYTHING, *SPATIAL.values()])
def test_types_and_range_stay_and_the_batch_given_is_untouched(strengths: Strengths) -> None:
    images, masks = batch()
    changed, moved = augment(images, masks, 2, strengths, generator())
    size = strengths.crop or images.shape[-2:]
    assert changed.shape == (6, 2, *size)
    assert moved.shape == (6, *size)
    assert (changed.dtype, moved.dtype) == (torch.float32, torch.uint8)
    assert changed.min() >= 0
    assert changed.max() <= 1 + RESAMPLED
    assert not moved[-1].any(), "an empty mask stays empty"
    assert moved.max() <= 2
    assert torch.equal(images, batch()[0])
    assert torch.equal(masks, batch()[1])


def test_the_seed_decides_everything_and_the_global_generator_nothing() -> None:
    images, masks = batch()
    torch.manual_seed(5)
    first = augment(images, masks, 2, EVERYTHING, generator(3))
    state = torch.get_rng_state()
    torch.manual_seed(6)
    again = augment(images, masks, 2, EVERYTHING, generator(3))
    other = augment(images, masks, 2, EVERYTHING, generator(4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", SPATIAL)
@pytest.mark.parametrize("seed", range(4))
def test_image_and_mask_move_together(name: str, seed: int) -> None:
    _, masks = batch()
    binary = (masks > 0).byte()
    moved_image, moved_mask = augment(binary[:, None].float(), binary, 1, SPATIAL[name], generator(seed))
    clear = (moved_image[:, 0] - 0.5).abs() > RESAMPLED
    assert torch.equal(moved_mask[clear] == 1, moved_image[:, 0][clear] > 0.5)
    if name != "crop":
        assert not torch.equal(moved_mask, binary) or name == "flips"


def test_slices_are_changed_independently() -> None:
    images, masks = batch(1)
    same = images.repeat(8, 1, 1, 1), masks.repeat(8, 1, 1)
    changed, _ = augment(*same, 2, SPATIAL["rotation"], generator())
    assert len({image.sum().item() for image in changed}) == 8


def test_flips_are_exact_and_of_all_four_kinds() -> None:
    images, masks = batch(1)
    masks[0, 2:5, 3:9] = 1
    many = images.repeat(32, 1, 1, 1), masks.repeat(32, 1, 1)
    changed, moved = augment(*many, 2, replace(NONE, flip_chance=0.5), generator())
    mirrors = [images[0].flip(axes) for axes in ([], [-1], [-2], [-2, -1])]
    of_masks = [masks[0].flip(axes) for axes in ([], [-1], [-2], [-2, -1])]
    found = []
    for image, mask in zip(changed, moved, strict=True):
        fits = [
            number for number, m in enumerate(mirrors) if torch.allclose(image, m, rtol=0, atol=RESAMPLED)
        ]
        assert len(fits) == 1
        assert torch.equal(mask, of_masks[fits[0]])
        found += fits
    assert set(found) == {0, 1, 2, 3}


def places(n: int, rows: int, columns: int) -> Tensor:
    """Slices whose two channels are each pixel's own row and column, to tell where a result comes from."""
    axes = torch.arange(float(rows)), torch.arange(float(columns))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(n, 2, rows, columns)


def taken_from(n: int, rows: int, columns: int, strengths: Strengths) -> Tensor:
    """For each pixel after augmentation, the row and column it was taken from, `n 2 rows columns`."""
    masks = torch.zeros(n, rows, columns, dtype=torch.uint8)
    return augment(places(n, rows, columns), masks, 1, strengths, generator())[0]


@pytest.mark.parametrize("degrees", [15.0, 90.0])
def test_slices_turn_by_up_to_the_largest_angle_to_both_sides(degrees: float) -> None:
    # not square, as that is where a rotation may shear
    taken = taken_from(500, 25, 41, replace(NONE, rotation_chance=1, rotation_degrees=degrees))
    middle = taken[:, :, 12, 20]
    right, down = taken[:, :, 12, 24] - middle, taken[:, :, 16, 20] - middle
    angles = torch.atan2(right[:, 0], right[:, 1]).rad2deg()
    assert -degrees - 0.2 < angles.min() < -0.95 * degrees
    assert 0.95 * degrees < angles.max() < degrees + 0.2
    assert angles.abs().mean().item() == pytest.approx(degrees / 2, rel=0.08)
    # four pixels stay four pixels, and right angles stay right
    torch.testing.assert_close(right.norm(dim=1), torch.full((500,), 4.0), rtol=0, atol=0.01)
    torch.testing.assert_close(down, torch.stack([right[:, 1], -right[:, 0]], dim=1), rtol=0, atol=0.01)


def test_zoom_changes_areas_by_its_square() -> None:
    disc = ((torch.arange(40) - 19.5)[:, None] ** 2 + (torch.arange(40) - 19.5) ** 2 < 64).byte()[None]
    zoomed = replace(NONE, scale_chance=1, scale_range=(2.0, 2.0))
    _, moved = augment(disc[:, None].float(), disc, 1, zoomed, generator())
    assert moved.sum().item() == pytest.approx(4 * disc.sum().item(), rel=0.05)


def test_a_crop_is_a_window_of_the_slice() -> None:
    images, masks = batch(4)
    changed, moved = augment(images, masks, 2, replace(NONE, crop=(24, 12), crop_on_tumour=0), generator())
    # a window may lie between pixels, but never outside: no zero can come in
    assert changed.shape[-2:] == (24, 12)
    inside = augment(
        torch.ones_like(images), masks, 2, replace(NONE, crop=(7, 12), crop_on_tumour=0), generator()
    )
    torch.testing.assert_close(inside[0], torch.ones(4, 2, 7, 12), rtol=0, atol=RESAMPLED)
    assert moved.dtype == torch.uint8


def test_crops_see_every_part_of_the_slice_in_turn() -> None:
    # each image holds its pixels' own numbers, so that a window tells what it covers
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    images = torch.stack([rows, columns]).expand(2000, 2, 16, 16) / 16
    masks = torch.zeros(2000, 16, 16, dtype=torch.uint8)
    windows, _ = augment(images, masks, 1, replace(NONE, crop=(8, 8), crop_on_tumour=0), generator())
    first_row, last_row = windows[:, 0, 0, 0] * 16, windows[:, 0, -1, 0] * 16
    for seen in (first_row < 0.5, last_row > 14.5):  # a quarter of the centres lies beyond either end
        assert seen.float().mean().item() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("place", [(0, 0), (23, 31), (11, 3)])
def test_a_crop_contains_the_tumour_when_asked(place: tuple[int, int]) -> None:
    images = torch.ones(64, 1, 24, 32)
    masks = torch.zeros(64, 24, 32, dtype=torch.uint8)
    rows, columns = (slice(max(0, p - 1), p + 2) for p in place)
    masks[:, rows, columns] = 1
    crop = replace(NONE, crop=(10, 10), crop_on_tumour=1.0)
    changed, moved = augment(images, masks, 1, crop, generator())
    assert moved.flatten(1).any(1).all()
    torch.testing.assert_close(changed, torch.ones_like(changed), rtol=0, atol=RESAMPLED)
    _, anywhere = augment(images, masks, 1, replace(crop, crop_on_tumour=0.0), generator())
    assert not anywhere.flatten(1).any(1).all()


@pytest.mark.parametrize("pixels", [0.5, 1.5])
def test_the_elastic_strength_is_the_displacements_standard_deviation(pixels: float) -> None:
    strengths = replace(NONE, elastic_chance=1, elastic_pixels=pixels, elastic_cells=8)
    moved = taken_from(64, 40, 56, strengths) - places(64, 40, 56)
    # the middles of the 6×6 inner cells, each of 5×7 pixels
    at_cells = moved[:, :, 7:33:5, 10:46:7]
    assert at_cells.shape == (64, 2, 6, 6)
    assert at_cells.std((0, 2, 3)).tolist() == pytest.approx([pixels, pixels], rel=0.05)


@pytest.mark.parametrize("crop", [None, (64, 64)])
def test_the_elastic_deformation_does_not_fold_tissue(crop: tuple[int, int] | None) -> None:
    size = 128
    images = torch.cat([places(32, size, size) / size, torch.ones(32, 1, size, size)], dim=1)
    elastic = replace(NONE, elastic_chance=1, crop=crop)
    taken, _ = augment(images, torch.zeros(32, size, size, dtype=torch.uint8), 1, elastic, generator())
    down = (taken[:, :2, 1:, :-1] - taken[:, :2, :-1, :-1]) * size
    right = (taken[:, :2, :-1, 1:] - taken[:, :2, :-1, :-1]) * size
    within = taken[:, 2] > 1 - RESAMPLED
    inside = within[:, 1:, 1:] & within[:, :-1, :-1] & within[:, 1:, :-1] & within[:, :-1, 1:]
    jacobian = (down[:, 0] * right[:, 1] - down[:, 1] * right[:, 0])[inside]
    assert inside.float().mean() > 0.9
    assert jacobian.std() > 0.1  # it does deform
    assert (jacobian > 0).all()


def test_brightness_without_contrast_shifts_and_contrast_without_brightness_keeps_the_mean() -> None:
    images = 0.4 + 0.2 * batch()[0]
    masks = batch()[1]
    shifted, same = augment(
        images, masks, 2, replace(NONE, brightness_chance=1, contrast=0, brightness=0.2), generator()
    )
    shifts = (shifted - images).flatten(1)
    assert (shifts.mean(1).abs() > 1e-3).all()
    assert shifts.std(1).max() < RESAMPLED
    assert shifts.abs().max() <= 0.2 + RESAMPLED
    assert torch.equal(same, masks)
    steeper, _ = augment(
        images, masks, 2, replace(NONE, brightness_chance=1, contrast=0.3, brightness=0), generator()
    )
    torch.testing.assert_close(steeper.mean((-2, -1)), images.mean((-2, -1)), rtol=0, atol=RESAMPLED)
    ratio = steeper.std((-2, -1)) / images.std((-2, -1))
    assert ratio.min() >= 0.7 - 1e-3
    assert ratio.max() <= 1.3 + 1e-3
    assert ratio.std() > 0.01


def test_holes_are_square_and_leave_the_mask_alone() -> None:
    images, masks = torch.ones(40, 2, 32, 32), torch.ones(40, 32, 32, dtype=torch.uint8)
    holes = replace(NONE, dropout_chance=1, dropout_holes=1, dropout_size=0.25)
    changed, same = augment(images, masks, 1, holes, generator())
    assert torch.equal(same, masks)
    areas = (changed[:, 0] == 0).sum((-2, -1))
    assert areas.max() <= 8 * 8
    assert areas.float().mean() > 30  # a hole may hang over the border
    assert torch.equal(changed[:, 0] == 0, changed[:, 1] == 0)
    none, _ = augment(images, masks, 1, replace(holes, dropout_size=0), generator())
    assert (none > 0).all()


@pytest.mark.parametrize("number", [1, 6])
def test_there_are_as_many_holes_as_asked_for(number: int) -> None:
    images, masks = torch.ones(100, 1, 128, 128), torch.zeros(100, 128, 128, dtype=torch.uint8)
    holes = replace(NONE, dropout_chance=1, dropout_holes=number, dropout_size=0.03)
    changed, _ = augment(images, masks, 1, holes, generator())
    counts = [label(image == 0)[1] for image in changed[:, 0].numpy()]
    assert max(counts) == number
    assert sorted(counts)[50] == number, "two seldom meet"


def test_a_chance_is_a_share_of_slices() -> None:
    images, masks = torch.ones(400, 1, 8, 8), torch.zeros(400, 8, 8, dtype=torch.uint8)
    some = replace(NONE, dropout_chance=0.25, dropout_size=0.9)
    changed, _ = augment(images, masks, 1, some, generator())
    assert 70 <= (changed == 0).flatten(1).any(1).sum() <= 130
