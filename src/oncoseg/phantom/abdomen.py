"""An upper abdomen as functions of position: liver, vessels, other organs, bones, in Hounsfield units.

Positions are millimetres from a point in front of the spine at the liver's hilum: x to the patient's left,
y backwards, z up.
"""

from dataclasses import dataclass

import numpy as np

from oncoseg.phantom.shapes import Axes, Point, SmoothField, blend, ellipsoid, inside, mesh, tube
from oncoseg.phantom.vessels import Tree, Vessels, grow, join, vessel_distance

LOW_MM, HIGH_MM = (-230.0, -230.0, -220.0), (230.0, 230.0, 220.0)
"""Corners of the box in which an abdomen may be sampled."""

AIR, LUNG, FAT, MUSCLE, WATER, MARROW, CORTICAL = -1000.0, -850.0, -100.0, 55.0, 8.0, 200.0, 700.0
"""Hounsfield units of what contrast agent does not change."""

PORTAL_TREE = Tree(generations=6, root_length_mm=30.0, root_radius_mm=6.0, least_radius_mm=0.8)
HEPATIC_TREE = Tree(generations=5, root_length_mm=38.0, root_radius_mm=5.0, least_radius_mm=0.8)
"""How the portal vein and the hepatic veins branch within the liver."""

PORTAL_ROOTS = ((-1.0, -0.1, 0.35), (-0.8, 0.5, -0.4), (0.75, -0.65, 0.3))
HEPATIC_ROOTS = ((-1.0, -0.1, -0.45), (-0.5, -0.75, -0.5), (0.6, -0.8, -0.3))
"""Directions of the first vessels, to the right, middle and left of the liver."""

HILUM, CONFLUENCE = (-14.0, -2.0, 0.0), (-18.0, 24.0, 68.0)
"""Where the portal vein enters, and where the hepatic veins meet the inferior vena cava."""

LOBES = (((-76.0, 0.0, 16.0), (68.0, 82.0, 88.0)), ((-6.0, -44.0, 36.0), (82.0, 36.0, 44.0)))
"""Middle and radii of the right and left lobe."""

ROUNDING_MM = 14.0
"""Width over which both lobes flow into each other."""

WALL_RADII = (172.0, 118.0, 2000.0)
"""Of the wall of muscles and ribs below the fat; there is no end to it up and down."""

LUNG_BASE = (0.0, 0.0, -40.0), (140.0, 98.0, 150.0)
"""Middle and radii of the dome of the diaphragm; above it, inside the ribs, is lung."""


@dataclass(frozen=True)
class Phase:
    """Hounsfield units that contrast agent changes, at one time after its injection.

    Attributes:
        share: of all scans.
        liver: liver tissue.
        portal: portal vein.
        hepatic: hepatic veins.
        aorta: aorta and its branches.
        spleen: spleen.
        kidney: cortex of the kidneys.
        tumour: poorly perfused tumour.
        lively: well perfused tumour.
    """

    share: float
    liver: float
    portal: float
    hepatic: float
    aorta: float
    spleen: float
    kidney: float
    tumour: float
    lively: float


PHASES = {
    "portal venous": Phase(0.8, 108, 170, 160, 150, 122, 185, 68, 92),
    "late arterial": Phase(0.12, 68, 110, 70, 300, 130, 190, 50, 105),
    "native": Phase(0.08, 58, 42, 42, 42, 48, 32, 38, 44),
}
"""Time → values of an average patient."""


@dataclass(frozen=True, eq=False)
class Abdomen:
    """One person's abdomen; lengths in millimetres.

    Attributes:
        phase: when it was scanned.
        scale: size relative to the average along x, y, z.
        warps: displacement along x, y, z, in units of `warp_mm`.
        warp_mm: how far positions are displaced.
        fat_mm: thickness of the fat below the skin.
        steatosis_hu: by how much fat in the liver darkens it.
        streaks: where fat lies between organs.
        texture: unevenness of organs.
        portal: the portal vein's tree.
        hepatic: the hepatic veins' tree.
        bowel: (middle, radius, Hounsfield units) of loops, gas among them.
        rib_phase: height of the ribs, 0 to 1 of their distance.
    """

    phase: Phase
    scale: np.ndarray
    warps: tuple[SmoothField, SmoothField, SmoothField]
    warp_mm: float
    fat_mm: float
    steatosis_hu: float
    streaks: SmoothField
    texture: SmoothField
    portal: Vessels
    hepatic: Vessels
    bowel: tuple[tuple[np.ndarray, float, float], ...]
    rib_phase: float


def draw_abdomen(rng: np.random.Generator, phase: str | None = None) -> Abdomen:
    """Draw one person's abdomen, at a phase in PHASES or one drawn by their shares."""
    drawn = str(rng.choice(list(PHASES), p=[p.share for p in PHASES.values()]))
    return Abdomen(
        phase=PHASES[phase or drawn],
        scale=rng.uniform(0.9, 1.08) * rng.uniform(0.95, 1.05, 3),
        warps=(_field(rng, 70), _field(rng, 70), _field(rng, 70)),
        warp_mm=rng.uniform(2, 6),
        fat_mm=rng.uniform(6, 35),
        steatosis_hu=rng.uniform(0, 45) if rng.uniform() < 0.3 else 0.0,
        streaks=_field(rng, 16),
        texture=_field(rng, 4),
        portal=_tree(rng, PORTAL_TREE, HILUM, PORTAL_ROOTS),
        hepatic=_tree(rng, HEPATIC_TREE, CONFLUENCE, HEPATIC_ROOTS),
        bowel=_draw_bowel(rng),
        rib_phase=rng.uniform(),
    )


def body_width_mm(abdomen: Abdomen) -> float:
    """From the right to the left side."""
    return 2 * float(abdomen.scale[0]) * (WALL_RADII[0] + abdomen.fat_mm + abdomen.warp_mm)


def position(abdomen: Abdomen, axes: Axes) -> Axes:
    """Where the voxels of a grid lie in the average abdomen: x, y, z, float32 `i j k`."""
    x, y, z = (
        np.broadcast_to(p, [len(axis) for axis in axes]) / np.float32(s)
        + np.float32(abdomen.warp_mm) * w.on(axes)
        for p, s, w in zip(mesh(axes), abdomen.scale, abdomen.warps, strict=True)
    )
    return x, y, z


def liver_distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signed distance to the liver in the average abdomen, negative inside."""
    right, left = (ellipsoid(x, y, z, centre, radii) for centre, radii in LOBES)
    mixed = np.clip(0.5 + 0.5 * (left - right) / np.float32(ROUNDING_MM), 0, 1)
    lobes = left + mixed * (right - left) - np.float32(ROUNDING_MM) * mixed * (1 - mixed)
    underside = (-z + 0.35 * x - 0.55 * y - 38) / np.float32(np.hypot(1, np.hypot(0.35, 0.55)))
    fossa = ellipsoid(x, y, z, (-34, -46, -18), (17, 22, 34))
    distance: np.ndarray = np.maximum.reduce([lobes, underside, -fossa, lung_distance(x, y, z) * -1 + 3])
    return distance


def lung_distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Positive below the dome of the diaphragm, negative above it."""
    dome: np.ndarray = -ellipsoid(x, y, z, *LUNG_BASE)
    return dome


def vessels_in_liver(abdomen: Abdomen, axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances to the portal and the hepatic veins, large where there are none."""
    return vessel_distance(abdomen.portal, axes), vessel_distance(abdomen.hepatic, axes)


def marked_vessels(abdomen: Abdomen, radius_mm: float) -> Vessels:
    """The liver's vessels that are thick enough to be outlined by a reader."""
    return join(abdomen.portal.thicker_than(radius_mm), abdomen.hepatic.thicker_than(radius_mm))


def hounsfield(abdomen: Abdomen, axes: Axes, pixel_mm: float) -> np.ndarray:
    """Noise-free Hounsfield units on a grid, before there are lesions.

    Args:
        abdomen: the person.
        axes: positions of the voxels, rising.
        pixel_mm: distance of voxels in a slice, for partial volume.
    """
    x, y, z = position(abdomen, axes)
    edge, phase = 1.5 * pixel_mm, abdomen.phase
    streaks = abdomen.streaks.on(axes)
    wall = ellipsoid(x, y, z, (0, 8, 0), WALL_RADII)
    skin = wall - np.float32(abdomen.fat_mm)
    cavity = ellipsoid(x, y, z, (0, 0, 0), (152, 98, 2000))
    tissue = np.full_like(x, FAT)
    tissue = blend(tissue, MUSCLE, inside(np.maximum(wall, -cavity), 3.0) * inside(-streaks - 0.9, 0.5))
    tissue = blend(tissue, MUSCLE - 35, inside(cavity, edge) * inside(0.4 - streaks, 0.8))
    tissue = blend(tissue, MUSCLE, inside(ellipsoid(np.abs(x), y, z, (42, 82, 0), (34, 26, 2000)), edge))
    tissue = _organs(abdomen, tissue, (x, y, z), edge)
    tissue = blend(tissue, LUNG, inside(np.maximum(lung_distance(x, y, z), cavity + 4), edge))
    tissue = _liver(abdomen, tissue, (x, y, z), axes, edge)
    for start, end, radii, hu in _great_vessels(phase):
        tissue = blend(tissue, hu, inside(tube(x, y, z, start, end, radii), edge))
    tissue = _bone(tissue, _ribs(abdomen, wall, y, z), pixel_mm)
    tissue = _bone(tissue, _spine(x, y, z), pixel_mm)
    return blend(tissue, AIR, inside(-skin, pixel_mm))


def _liver(abdomen: Abdomen, tissue: np.ndarray, place: Axes, axes: Axes, edge: float) -> np.ndarray:
    """Cover tissue with the liver, its vessels and the gallbladder in its fossa."""
    phase = abdomen.phase
    portal, hepatic = vessels_in_liver(abdomen, axes)
    liver = np.float32(phase.liver - abdomen.steatosis_hu) + 4 * abdomen.texture.on(axes)
    liver = blend(liver, phase.portal, inside(portal, edge))
    liver = blend(liver, phase.hepatic, inside(hepatic, edge))
    tissue = blend(tissue, liver, inside(liver_distance(*place), edge))
    return blend(tissue, WATER, inside(ellipsoid(*place, (-34, -48, -20), (13, 18, 29)), edge))


def _organs(abdomen: Abdomen, tissue: np.ndarray, place: Axes, edge: float) -> np.ndarray:
    """Cover tissue with stomach, spleen, pancreas, kidneys and bowel."""
    x, y, z = place
    phase = abdomen.phase
    for centre, radius, hu in abdomen.bowel:
        loop = ellipsoid(x, y, z, centre, (1.5 * radius, radius, radius))
        tissue = blend(tissue, MUSCLE, inside(loop - 2.5, edge))
        tissue = blend(tissue, hu, inside(loop, edge))
    stomach = ellipsoid(x, y, z, (62, -40, 34), (46, 40, 46))
    tissue = blend(tissue, MUSCLE + 15, inside(stomach, edge))
    tissue = blend(tissue, WATER + 15, inside(stomach + 5, edge))
    tissue = blend(tissue, AIR, inside(np.maximum(stomach + 5, y + 52), edge))
    spleen = ellipsoid(x, y, z, (108, 40, 40), (27, 42, 50))
    tissue = blend(tissue, phase.spleen, inside(spleen, edge))
    pancreas = tube(x, y, z, (-22, 6, -24), (78, 26, 18), (13.0, 9.0))
    tissue = blend(tissue, 0.75 * phase.liver + 10, inside(pancreas, edge))
    kidney = ellipsoid(np.abs(x + 4), y, z, (66, 54, -42), (29, 27, 54))
    tissue = blend(tissue, phase.kidney, inside(kidney, edge))
    return blend(tissue, 0.6 * phase.kidney, inside(kidney + 9, 6.0))


def _great_vessels(phase: Phase) -> tuple[tuple[Point, Point, tuple[float, float], float], ...]:
    return (
        ((8, 34, -220), (8, 40, 220), (9.5, 11.0), phase.aorta),
        ((-20, 34, -220), (-18, 26, 80), (11.0, 13.0), 0.5 * (phase.hepatic + phase.portal)),
        ((18, 12, -40), HILUM, (6.5, 7.0), phase.portal),
        ((95, 30, 20), (16, 14, -14), (4.0, 5.0), phase.portal),
    )


def _bone(tissue: np.ndarray, distance: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Cover tissue with bone: a dense shell of about a millimetre around marrow."""
    tissue = blend(tissue, CORTICAL, inside(distance, pixel_mm))
    return blend(tissue, MARROW, inside(distance + np.float32(1.3), 1.5 * pixel_mm))


def _ribs(abdomen: Abdomen, wall: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Ribs within the wall, falling forwards; none below the arch of the ribs."""
    phase = (z - 0.6 * y) / np.float32(28) + np.float32(abdomen.rib_phase)
    height = np.abs(phase - np.rint(phase)) * np.float32(28 / np.hypot(1, 0.6))
    distance: np.ndarray = np.hypot((wall + 9) / np.float32(4), height / np.float32(6.5)) * 4 - 4
    above_arch: np.ndarray = np.maximum(distance, -(z + 40 + 0.6 * y))
    return above_arch


def _spine(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    body = np.maximum(
        ellipsoid(x, y, z, (0, 66, 0), (22, 18, 2000)), np.float32(12) - np.abs(np.mod(z, 34) - 17) - 10.5
    )
    arch = np.minimum(
        ellipsoid(x, y, z, (0, 108, 0), (4, 18, 2000)),
        ellipsoid(np.abs(x), y, z, (20, 92, 0), (20, 6, 2000)),
    )
    canal = ellipsoid(x, y, z, (0, 90, 0), (9, 8, 2000))
    distance: np.ndarray = np.maximum(np.minimum(body, arch), -canal)
    return distance


def _tree(
    rng: np.random.Generator, tree: Tree, start: Point, directions: tuple[tuple[float, ...], ...]
) -> Vessels:
    starts = np.repeat(np.asarray(start, float)[None], len(directions), axis=0)
    bent = np.asarray(directions) + rng.normal(0, 0.12, (len(directions), 3))
    return grow(rng, tree, starts, bent, _in_liver)


def _in_liver(points: np.ndarray) -> np.ndarray:
    x, y, z = points.T.astype(np.float32)
    within: np.ndarray = liver_distance(x, y, z) < -5
    return within


def _draw_bowel(rng: np.random.Generator) -> tuple[tuple[np.ndarray, float, float], ...]:
    loops = []
    for _ in range(rng.integers(14, 24)):
        centre = np.array([rng.uniform(-115, 125), rng.uniform(-70, 15), rng.uniform(-180, -75)])
        filling = AIR if rng.uniform() < 0.25 else rng.uniform(10, 60)
        loops.append((centre, rng.uniform(9, 19), float(filling)))
    return tuple(loops)


def _field(rng: np.random.Generator, step_mm: float) -> SmoothField:
    return SmoothField.draw(rng, LOW_MM, HIGH_MM, step_mm)
