"""A chest as functions of position: wall, ribs, spine, heart, lungs and vessels, in Hounsfield units.

Positions are millimetres from the middle of the chest: x to the patient's left, y backwards, z up.
"""

from dataclasses import dataclass

import numpy as np

from oncoseg.phantom.shapes import Axes, SmoothField, blend, ellipsoid, inside, mesh, tube
from oncoseg.phantom.vessels import Tree, Vessels, grow, vessel_distance

LOW_MM, HIGH_MM = (-200.0, -160.0, -160.0), (200.0, 160.0, 200.0)
"""Corners of the box in which a chest may be sampled."""

CAVITY_CENTRE, CAVITY_RADII = (0.0, -5.0, 20.0), (132.0, 92.0, 165.0)
"""The inside of the rib cage."""

AIR, LUNG, FAT, MUSCLE, MARROW, CORTICAL = -1000.0, -860.0, -100.0, 50.0, 220.0, 750.0
"""Hounsfield units of tissues."""

RIB_PITCH_MM = 27.0
"""Distance between ribs."""

RIB_SLOPE = 0.6
"""How far ribs fall for each millimetre forwards."""

ROOTS = 10
"""Vessels that enter each lung."""

TREE = Tree(generations=9, root_length_mm=22.0, root_radius_mm=3.8, least_radius_mm=0.45)
"""How they branch."""


@dataclass(frozen=True, eq=False)
class Chest:
    """One person's chest; lengths in millimetres.

    Attributes:
        scale: size relative to the average along x, y, z.
        warps: displacement along x, y, z, in units of `warp_mm`.
        warp_mm: how far positions are displaced.
        wall_mm: thickness of the wall from the cavity to the skin.
        fat_mm: part of the wall that is fat.
        rib_phase: height of the ribs, 0 to 1 of their pitch.
        blood: Hounsfield units of blood, higher after contrast agent.
        streaks: where fat lies between muscles and around the heart.
        texture: unevenness of the lung.
        vessels: of both lungs.
    """

    scale: np.ndarray
    warps: tuple[SmoothField, SmoothField, SmoothField]
    warp_mm: float
    wall_mm: float
    fat_mm: float
    rib_phase: float
    blood: float
    streaks: SmoothField
    texture: SmoothField
    vessels: Vessels


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A chest on a grid, `i j k`, in millimetres.

    Attributes:
        lung: signed distance to the lungs, negative inside.
        cavity: signed distance to the inside of the rib cage.
        position: x, y, z in the average chest.
    """

    lung: np.ndarray
    cavity: np.ndarray
    position: Axes


def draw_chest(rng: np.random.Generator) -> Chest:
    """Draw one person's chest."""
    wall = rng.uniform(22, 48)
    return Chest(
        scale=rng.uniform(0.9, 1.08) * rng.uniform(0.95, 1.05, 3),
        warps=(_field(rng, 60), _field(rng, 60), _field(rng, 60)),
        warp_mm=rng.uniform(2, 5),
        wall_mm=wall,
        fat_mm=rng.uniform(0.15, 0.6) * wall,
        rib_phase=rng.uniform(),
        blood=rng.uniform(130, 250) if rng.uniform() < 0.5 else rng.uniform(35, 55),
        streaks=_field(rng, 12),
        texture=_field(rng, 4),
        vessels=_grow_vessels(rng),
    )


def locate(chest: Chest, axes: Axes) -> Anatomy:
    """Find the lungs on a grid."""
    x, y, z = (
        np.broadcast_to(p, [len(axis) for axis in axes]) / np.float32(s)
        + np.float32(chest.warp_mm) * w.on(axes)
        for p, s, w in zip(mesh(axes), chest.scale, chest.warps, strict=True)
    )
    cavity = ellipsoid(x, y, z, CAVITY_CENTRE, CAVITY_RADII)
    middle = np.minimum.reduce(
        [
            ellipsoid(x, y, z, (0, -15, 20), (26, 95, 400)),
            ellipsoid(x, y, z, (22, -28, -50), (58, 46, 58)),
            ellipsoid(x, y, z, (0, 66, 0), (30, 26, 2000)),
            ellipsoid(x, y, z, (24, 42, 0), (15, 15, 1200)),
            ellipsoid(x, y, z, (-68, -8, -170), (85, 100, 85)),
            ellipsoid(x, y, z, (68, -8, -178), (85, 100, 85)),
        ]
    )
    return Anatomy(np.maximum(cavity, -middle), cavity, (x, y, z))


def hounsfield(
    chest: Chest, axes: Axes, pixel_mm: float, nodule_share: np.ndarray, nodule_hu: float | np.ndarray
) -> np.ndarray:
    """Noise-free Hounsfield units on a grid.

    Args:
        chest: the person.
        axes: positions of the voxels.
        pixel_mm: distance of voxels in a slice, for partial volume.
        nodule_share: share of each voxel that a nodule fills, counted within the lung only.
        nodule_hu: Hounsfield units of the nodule.
    """
    anatomy = locate(chest, axes)
    lung = LUNG + np.float32(0.35) * anatomy.position[1] + np.float32(14) * chest.texture.on(axes)
    vessels = inside(vessel_distance(chest.vessels, axes), 1.5 * pixel_mm)
    lung = blend(lung, chest.blood, vessels)
    lung = blend(lung, nodule_hu, nodule_share)
    return blend(_around_lungs(chest, anatomy, axes, pixel_mm), lung, inside(anatomy.lung, 1.5 * pixel_mm))


def _around_lungs(chest: Chest, anatomy: Anatomy, axes: Axes, pixel_mm: float) -> np.ndarray:
    """Everything but lungs: muscle and fat, then organs, bones and the air around the body."""
    x, y, z = anatomy.position
    streaks = chest.streaks.on(axes)
    tissue = blend(np.full_like(x, MUSCLE), FAT, np.float32(0.9) * inside(1.1 - streaks, 0.6))
    to_skin = anatomy.cavity - np.float32(chest.wall_mm)
    tissue = blend(tissue, FAT, inside(-to_skin - np.float32(chest.fat_mm), 2.0))
    heart = ellipsoid(x, y, z, (22, -28, -50), (50, 38, 50))
    aorta = ellipsoid(x, y, z, (24, 42, 0), (12.5, 12.5, 1200))
    tissue = blend(tissue, chest.blood, inside(np.minimum(heart, aorta), 2 * pixel_mm))
    airway = np.minimum(
        tube(x, y, z, (0, 2, 220), (0, 2, 50), (8.5, 8.0)),
        tube(np.abs(x), y, z, (0, 2, 50), (40, 8, 18), (7.0, 5.0)),
    )
    tissue = blend(tissue, AIR, inside(airway, pixel_mm))
    tissue = _bone(tissue, _ribs(chest, anatomy), pixel_mm)
    tissue = _bone(tissue, _spine(x, y, z), pixel_mm)
    return blend(tissue, AIR, inside(-to_skin, pixel_mm))


def _bone(tissue: np.ndarray, distance: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Cover tissue with bone: a dense shell of about a millimetre around marrow."""
    tissue = blend(tissue, CORTICAL, inside(distance, pixel_mm))
    return blend(tissue, MARROW, inside(distance + np.float32(1.3), 1.5 * pixel_mm))


def _ribs(chest: Chest, anatomy: Anatomy) -> np.ndarray:
    _, y, z = anatomy.position
    phase = (z + np.float32(RIB_SLOPE) * -y) / np.float32(RIB_PITCH_MM) + np.float32(chest.rib_phase)
    height = np.abs(phase - np.rint(phase)) * np.float32(RIB_PITCH_MM / np.hypot(1, RIB_SLOPE))
    outwards = anatomy.cavity - np.float32(6.5)
    distance: np.ndarray = np.hypot(outwards / np.float32(4.0), height / np.float32(6.5)) * 4 - 4
    return distance


def _spine(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    body = ellipsoid(x, y, z, (0, 66, 0), (20, 17, 2000))
    arch = np.minimum(
        ellipsoid(x, y, z, (0, 108, 0), (4, 18, 2000)),
        ellipsoid(np.abs(x), y, z, (20, 92, 0), (20, 6, 2000)),
    )
    canal = ellipsoid(x, y, z, (0, 89, 0), (9, 8, 2000))
    distance: np.ndarray = np.maximum(np.minimum(body, arch), -canal)
    return distance


def _grow_vessels(rng: np.random.Generator) -> Vessels:
    """Grow both lungs' trees from each hilum; a vessel that leaves the chest ends."""
    side = np.repeat([-1.0, 1.0], ROOTS)
    starts = np.stack([30 * side, np.full(2 * ROOTS, 5.0), rng.uniform(-15, 30, 2 * ROOTS)], axis=1)
    directions = rng.standard_normal((2 * ROOTS, 3)) * (0.7, 1.0, 1.3)
    directions[:, 0] = side * np.abs(directions[:, 0])
    return grow(rng, TREE, starts, directions, _in_chest)


def _in_chest(points: np.ndarray) -> np.ndarray:
    within: np.ndarray = (((points - CAVITY_CENTRE) / CAVITY_RADII) ** 2).sum(axis=1) < 1.05
    return within


def _field(rng: np.random.Generator, step_mm: float) -> SmoothField:
    return SmoothField.draw(rng, LOW_MM, HIGH_MM, step_mm)
