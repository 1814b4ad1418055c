"""Augmentation of windows of volumes: by hand, along the patient's axes, in millimetres."""

import math

import pytest
import torch

from oncoseg.augment import Strengths, augment, volumes
from oncoseg.augment.draws import Draws

NONE = {
    "flip_chances": (0.0, 0.0, 0.0),
    "rotation_chance": 0.0,
    "elastic_chance": 0.0,
    "brightness_chance": 0.0,
    "dropout_chance": 0.0,
}
SIZE = (9, 8, 7)


def windows(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(count, 2, *SIZE, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(count, *SIZE, dtype=torch.uint8)
    masks[:, 2:5, 1:4, 3:6] = 1
    masks[:, 6:8, 5:7, 0:2] = 2
    return images, masks


def changed(seed: int = 0, **strengths: object) -> tuple[torch.Tensor, torch.Tensor]:
    spacing_mm = strengths.pop("spacing_mm", None)
    strong = Strengths(**(NONE | strengths))
    given = windows()
    return augment(*given, 2, strong, torch.Generator().manual_seed(seed), spacing_mm=spacing_mm)


def test_without_chances_nothing_changes() -> None:
    images, masks = windows()
    same_images, same_masks = changed()
    torch.testing.assert_close(same_images, images)
    assert torch.equal(same_masks, masks)
    assert same_masks.dtype == torch.uint8


@pytest.mark.parametrize("axis", range(3))
def test_each_axis_is_flipped_with_a_chance_of_its_own(axis: int) -> None:
    images, masks = windows()
    chances = tuple(float(axis == other) for other in range(3))
    flipped, flipped_masks = changed(flip_chances=chances)
    torch.testing.assert_close(flipped, images.flip(2 + axis))
    assert torch.equal(flipped_masks, masks.flip(1 + axis))


class Always(Draws):
    """Not random: what has a chance happens, and as much as it may."""

    def happens(self, chance: float) -> torch.Tensor:
        return torch.tensor([chance > 0])

    def between(self, low: float, high: float) -> torch.Tensor:
        return torch.tensor([high])


def affine(
    spacing_mm: tuple[float, float, float],
    read: tuple[int, int, int] = (10, 20, 5),
    **strengths: object,
) -> torch.Tensor:
    strong = Strengths(**(NONE | {"rotation_degrees": 0.0, "tilt_degrees": 0.0} | strengths))
    draws = Always(torch.Generator(), 1, slice(None))
    return volumes._affine(read, (10, 20, 5), spacing_mm, strong, draws)[0]


def test_a_quarter_turn_by_hand() -> None:
    """Half a window is 5 mm of i, 10 of j and 7.5 of k: 1 along i is half of 1 along j."""
    turned = affine((1, 1, 3), rotation_chance=1.0, rotation_degrees=90.0)
    expected = torch.tensor([[0, -2, 0], [0.5, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=0)
    # two quarter turns, about i and about j, hand every axis on to the next
    tilted = affine((1, 1, 3), rotation_chance=1.0, tilt_degrees=90.0)
    expected = torch.tensor([[0, 0, 1.5], [0.5, 0, 0], [0, 10 / 7.5, 0]])
    torch.testing.assert_close(tilted.abs(), expected.abs(), atol=1e-6, rtol=0)


def test_the_result_is_flipped_before_it_is_turned() -> None:
    both = affine((1, 1, 3), rotation_chance=1.0, rotation_degrees=90.0, flip_chances=(1.0, 0.0, 0.0))
    torch.testing.assert_close(both[1, 0].item(), -0.5)
    torch.testing.assert_close(both[0, 1].item(), -2.0)


def test_rotated_tissue_keeps_its_volume_whatever_the_voxels() -> None:
    """A ball of 8 mm in voxels of 1×1×4 mm stays one, turned about any axis."""
    i, j, k = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), torch.arange(8.0), indexing="ij")
    ball = ((i - 15.5) ** 2 + (j - 15.5) ** 2 + (4 * (k - 3.5)) ** 2 < 64).float()
    strong = Strengths(**(NONE | {"rotation_chance": 1.0, "rotation_degrees": 180.0, "tilt_degrees": 90.0}))
    for seed in range(5):
        image, mask = augment(
            ball[None, None],
            ball[None].byte(),
            1,
            strong,
            torch.Generator().manual_seed(seed),
            spacing_mm=(1.0, 1.0, 4.0),
        )
        assert float(mask.sum()) == pytest.approx(float(ball.sum()), rel=0.12)
        assert float((image[0, 0] - ball).abs().sum() / ball.sum()) < 0.4


def test_a_zoom_enlarges() -> None:
    _, before = windows()
    _, after = changed(scale_chance=1.0, scale_range=(1.3, 1.3))
    assert float((after == 1).sum()) == pytest.approx(1.3**3 * float((before == 1).sum()), rel=0.3)


def test_elastic_deformation_has_the_asked_strength() -> None:
    size = (40, 30, 20)
    strong = Strengths(elastic_chance=1.0, elastic_pixels=2.0, elastic_cells=5)
    cells = torch.stack(
        torch.meshgrid(*[(torch.arange(5) + 0.5) * 2 / 5 - 1] * 3, indexing="ij")[::-1], dim=-1
    ).expand(200, -1, -1, -1, -1)
    draws = Draws(torch.Generator().manual_seed(0), 200, slice(None))
    field = volumes._elastic_displacement(cells, size, strong, draws)
    voxels = field * torch.tensor([20, 30, 40]) / 2
    assert voxels.std(dim=(0, 1, 2, 3)).tolist() == pytest.approx([2.0] * 3, rel=0.03)


def test_intensity_and_holes_change_the_image_only() -> None:
    images, masks = windows()
    brighter, same = changed(brightness_chance=1.0, brightness=0.3, contrast=0.0)
    assert torch.equal(same, masks)
    inside = (brighter > 0) & (brighter < 1)
    for before, after, kept in zip(images, brighter, inside, strict=True):
        shifts = (after - before)[kept]
        torch.testing.assert_close(shifts, shifts.mean().expand_as(shifts))
    holes, same = changed(dropout_chance=1.0, dropout_holes=1, dropout_size=0.4)
    assert torch.equal(same, masks)
    torch.testing.assert_close(holes[holes > 0], images[holes > 0])
    # a hole of four tenths of each side, but where it sticks out
    assert 0 < (holes[:, 0] == 0).float().mean() <= math.prod([4 / 9, 4 / 8, 3 / 7])


def test_rows_of_a_batch_are_changed_as_within_it() -> None:
    images, masks = windows(4)
    strong = Strengths(scale_chance=0.5)
    whole = augment(images, masks, 2, strong, torch.Generator().manual_seed(5))
    part = augment(
        images[1:3], masks[1:3], 2, strong, torch.Generator().manual_seed(5), rows=slice(1, 3), total=4
    )
    for one, other in zip(part, whole, strict=True):
        assert torch.equal(one, other[1:3])


def test_a_window_is_the_middle_of_what_was_read() -> None:
    torch.testing.assert_close(affine((1, 1, 3), read=(20, 25, 5)).diag(), torch.tensor([0.5, 0.8, 1.0]))
    images, masks = windows()
    middle, its_mask = augment(
        images, masks, 2, Strengths(**NONE), torch.Generator(), window=(5, 6, 3), spacing_mm=(1, 2, 3)
    )
    torch.testing.assert_close(middle, images[:, :, 2:7, 1:7, 2:5])
    assert torch.equal(its_mask, masks[:, 2:7, 1:7, 2:5])


def test_margins_by_hand() -> None:
    """A quarter turn of 20 mm × 8 mm: at 8 of 9 tried angles the corner looks furthest, 10.8 mm at most."""
    turning = Strengths(**(NONE | {"rotation_chance": 1.0, "rotation_degrees": 90.0, "tilt_degrees": 0.0}))
    # half sides of 10 and 4 mm: along i 10·cos a + 4·sin a, largest at 22.5°: 10.77; along j at 67.5°
    assert volumes.margin_of((20, 4, 6), (1, 2, 1), turning) == (1, 4, 0)
    assert volumes.margin_of((20, 4, 6), (1, 2, 1), Strengths(**NONE)) == (0, 0, 0)
    zooming = Strengths(**(NONE | {"scale_chance": 1.0, "scale_range": (0.5, 1.0)}))
    assert volumes.margin_of((20, 4, 6), (1, 2, 1), zooming) == (10, 2, 3)
    bending = Strengths(**(NONE | {"elastic_chance": 0.1, "elastic_pixels": 1.5}))
    assert volumes.margin_of((20, 4, 6), (1, 2, 1), bending) == (3, 3, 3)


def test_with_its_margin_a_window_holds_nothing_from_beyond() -> None:
    strong = Strengths(
        **(NONE | {"rotation_chance": 1.0, "scale_chance": 1.0, "flip_chances": (0.5, 0.5, 0.5)})
    )
    window, spacing_mm = (24, 20, 8), (1.0, 1.5, 4.0)
    margin = volumes.margin_of(window, spacing_mm, strong)
    read = [side + 2 * more for side, more in zip(window, margin, strict=True)]
    ones, none = torch.ones(40, 1, *read), torch.zeros(40, *read, dtype=torch.uint8)
    whole, _ = augment(
        ones, none, 1, strong, torch.Generator().manual_seed(0), spacing_mm=spacing_mm, window=window
    )
    assert whole.shape == (40, 1, *window)
    assert whole.min() > 0.999
    without, _ = augment(
        ones[:, :, :24, :20, :8],
        none[:, :24, :20, :8],
        1,
        strong,
        torch.Generator().manual_seed(0),
        spacing_mm=spacing_mm,
    )
    assert without.min() == 0
