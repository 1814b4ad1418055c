"""The tables of docs/metrics.md, computed anew: the page must say what the code and the libraries do."""

import math
import pkgutil
import re
import warnings
from importlib.metadata import version

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff

from metrics_page import PAGE, TOLERANCE_MM, Masks, boxes, is_said, ours, rows_below
from oncoseg.evaluate.scoring import NEEDS_SPACING
from oncoseg.metrics import calibration, ranking, surface
from oncoseg.metrics.catalogue import METRICS, POLICIES, SITUATIONS, outcome
from oncoseg.metrics.lesions import find_lesions


def ball(radius: int, axes: int = 3) -> np.ndarray:
    return ((np.indices((31,) * axes) - 15) ** 2).sum(axis=0) <= radius**2


def cube_moved_by(steps: int) -> Masks:
    return Masks(*(boxes(20, ((2, 6), (2, 6), (start, start + 4))) for start in (2, 2 + steps)))


CUBE, EMPTY = boxes(20, ((2, 6),) * 3), boxes(20)
FILLED, HOLLOW = boxes(11, ((0, 11),) * 3), boxes(11, ((0, 11),) * 3) & ~boxes(11, ((3, 8),) * 3)
TWO_OF_FIVE = np.array([True, True, False, False, False])


def five(*probability: float, truth: np.ndarray = TWO_OF_FIVE) -> Masks:
    return Masks(truth, TWO_OF_FIVE, probability=np.array(probability, np.float32))


MASKS: dict[str, Masks | list[Masks]] = {
    "moved cube": Masks(boxes(14, ((4, 10),) * 3), boxes(14, ((4, 10), (4, 10), (5, 11))), (1, 1, 3)),
    "vessel": Masks(boxes(44, ((1, 11),) * 3), boxes(44, ((1, 11),) * 3, ((5, 6), (5, 6), (11, 41)))),
    "balls": Masks(ball(12), ball(10)),
    "hole": Masks(FILLED, HOLLOW),
    "border": Masks(boxes(10, ((0, 6),) * 3), boxes(10, ((1, 6), (0, 6), (0, 6)))),
    "discs in 2D": Masks(ball(12, axes=2), ball(8, axes=2), (1, 1)),
    "discs, one slice": Masks(ball(12, axes=2)[..., None], ball(8, axes=2)[..., None]),
    "corner": Masks(boxes(8, ((0, 2),) * 3, ((2, 4),) * 3), boxes(8, ((0, 2),) * 3)),
    "both empty": Masks(EMPTY, EMPTY),
    "truth empty": Masks(EMPTY, CUBE),
    "prediction empty": Masks(CUBE, EMPTY),
    "third case 12 mm off": [cube_moved_by(2), cube_moved_by(4), cube_moved_by(12)],
    "third case missed": [cube_moved_by(2), cube_moved_by(4), Masks(CUBE, EMPTY)],
    "ties": five(0.5, 0.5, 0.5, 0.5, 0.1),
    "no ties": five(0.9, 0.66, 0.68, 0.3, 0.1),
    "no tumour": five(0.9, 0.6, 0.4, 0.3, 0.1, truth=np.zeros(5, bool)),
}


def sums(masks: Masks) -> calibration.CalibrationSums:
    return calibration.calibration_sums(masks.probability, masks.truth)


def tensors(*arrays: np.ndarray):
    import torch

    return (torch.from_numpy(array.astype(np.float32))[None, None] for array in arrays)


def pair(masks: Masks):
    return tensors(masks.prediction, masks.truth)


def vectors(masks: Masks):
    return (tensor[0, 0] for tensor in tensors(masks.probability, masks.truth))


def monai_mean(metric, cases: list[Masks]) -> float:
    for case in cases:
        metric(*pair(case), spacing=case.spacing_mm)
    return metric.aggregate()


def monai_calibration(metric, masks: Masks) -> float:
    metric(*tensors(masks.probability, masks.truth))
    return metric.aggregate()


def monai_panoptic(monai, masks: Masks) -> float:
    """Of the instances that SciPy labels by default, since MONAI leaves finding them to others."""
    instances = tensors(*(ndimage.label(mask)[0] for mask in (masks.prediction, masks.truth)))
    return monai.compute_panoptic_quality(*(each[0, 0] for each in instances))


def deepmind(name: str, *more: float):
    def value(library, masks: Masks) -> float:
        return np.mean(getattr(library, name)(library.compute_surface_distances(*masks[:3]), *more))

    return value


def surface_voxels(ndimage, masks: Masks) -> np.ndarray:
    """Distances both ways between the voxels that an erosion takes away, as MedPy makes them of SciPy."""
    one, other = (mask ^ ndimage.binary_erosion(mask) for mask in masks[:2])
    to_one, to_other = (ndimage.distance_transform_edt(~edge, masks.spacing_mm) for edge in (one, other))
    return np.concatenate([to_other[one], to_one[other]])


def all_voxels(_, masks: Masks) -> float:
    one, other = (np.argwhere(mask) * masks.spacing_mm for mask in masks[:2])
    return max(directed_hausdorff(one, other)[0], directed_hausdorff(other, one)[0])


def answers(name: str):
    return lambda sklearn, masks: getattr(sklearn, name)(masks.truth.ravel(), masks.prediction.ravel())


def scores(name: str):
    return lambda sklearn, masks: getattr(sklearn, name)(masks.truth, masks.probability)


SPHERE = 4 * math.pi * 12**2
OURS_HD95 = ours("hd95_max_mm", surface.hd95_max)
LIBRARIES = {
    "oncoseg": {
        "Dice": ours("dice"),
        "precision": ours("precision"),
        "recall": ours("recall"),
        "Hausdorff distance": ours("hausdorff_mm"),
        "HD95, pooled": ours("hd95_pooled_mm"),
        "HD95, larger": OURS_HD95,
        "HD95, by area": ours("hd95_area_mm"),
        "average surface distance": ours("assd_mm", surface.average_surface_distance),
        "surface Dice at 1 mm": ours("surface_dice", lambda found: surface.surface_dice(found, TOLERANCE_MM)),
        "area / 4πr²": lambda _, m: surface.surface_distances(*m[:3]).truth_areas.sum() / SPHERE,
        "true lesions": lambda _, m: len(find_lesions(m.truth, m.spacing_mm).boxes),
        "panoptic quality": ours("panoptic_quality"),
        "mean HD95, larger": lambda _, cases: np.mean([OURS_HD95(_, case) for case in cases]),
        "ROC-AUC": lambda _, m: ranking.roc_auc_exact(m.probability, m.truth),
        "average precision": lambda _, m: ranking.average_precision_exact(m.probability, m.truth),
        "Brier score": lambda _, m: calibration.brier(sums(m)),
        "calibration error": lambda _, m: calibration.expected_calibration_error(sums(m)),
    },
    "MONAI": {
        "Dice": lambda monai, m: monai.compute_dice(*pair(m)),
        "precision": lambda monai, m: monai.compute_confusion_matrix_metric(
            "precision", monai.get_confusion_matrix(*pair(m))
        ),
        "recall": lambda monai, m: monai.compute_confusion_matrix_metric(
            "recall", monai.get_confusion_matrix(*pair(m))
        ),
        "Hausdorff distance": lambda monai, m: monai.compute_hausdorff_distance(
            *pair(m), spacing=m.spacing_mm
        ),
        "HD95, larger": lambda monai, m: monai.compute_hausdorff_distance(
            *pair(m), percentile=95, spacing=m.spacing_mm
        ),
        "HD95, larger, no spacing given": lambda monai, m: monai.compute_hausdorff_distance(
            *pair(m), percentile=95
        ),
        "average surface distance": lambda monai, m: monai.compute_average_surface_distance(
            *pair(m), symmetric=True, spacing=m.spacing_mm
        ),
        "average surface distance, by default": lambda monai, m: monai.compute_average_surface_distance(
            *pair(m), spacing=m.spacing_mm
        ),
        "surface Dice at 1 mm": lambda monai, m: monai.compute_surface_dice(
            *pair(m), [TOLERANCE_MM], spacing=m.spacing_mm
        ),
        "panoptic quality": monai_panoptic,
        "mean HD95, larger": lambda monai, m: monai_mean(monai.HausdorffDistanceMetric(percentile=95), m),
        "ROC-AUC": lambda monai, m: monai.compute_roc_auc(*vectors(m)),
        "average precision": lambda monai, m: monai.compute_average_precision(*vectors(m)),
        "calibration error": lambda monai, m: monai_calibration(monai.CalibrationErrorMetric(), m),
    },
    "surface-distance": {
        "Dice": lambda library, m: library.compute_dice_coefficient(*m[:2]),
        "Hausdorff distance": deepmind("compute_robust_hausdorff", 100),
        "HD95, by area": deepmind("compute_robust_hausdorff", 95),
        "average surface distance": deepmind("compute_average_surface_distance"),
        "surface Dice at 1 mm": deepmind("compute_surface_dice_at_tolerance", TOLERANCE_MM),
        "area / 4πr²": lambda library, m: (
            library.compute_surface_distances(*m[:3])["surfel_areas_gt"].sum() / SPHERE
        ),
    },
    "SciPy": {
        "Hausdorff distance": all_voxels,
        "HD95, pooled": lambda ndimage, m: np.percentile(surface_voxels(ndimage, m), 95),
        "average surface distance": lambda ndimage, m: surface_voxels(ndimage, m).mean(),
        "true lesions": lambda ndimage, m: ndimage.label(m.truth)[1],
    },
    "scikit-learn": {
        "Dice": answers("f1_score"),
        "precision": answers("precision_score"),
        "recall": answers("recall_score"),
        "ROC-AUC": scores("roc_auc_score"),
        "average precision": scores("average_precision_score"),
        "Brier score": scores("brier_score_loss"),
    },
}
MODULES = {
    "oncoseg": "oncoseg",
    "MONAI": "monai.metrics",
    "surface-distance": "surface_distance",
    "SciPy": "scipy.ndimage",
    "scikit-learn": "sklearn.metrics",
}
HEAD, *ROWS = rows_below("Where libraries differ")
CELLS = [
    pytest.param(masks, quantity, name.rpartition(" ")[0] or name, text, id=f"{masks}: {quantity}: {name}")
    for masks, quantity, *texts in ROWS
    for name, text in zip(HEAD[2:], texts, strict=True)
]


@pytest.mark.parametrize(("masks", "quantity", "library", "text"), CELLS)
def test_the_page_says_what_a_library_computes(masks, quantity, library, text):
    compute = LIBRARIES[library].get(quantity)
    if text == "–":
        assert compute is None
        return
    module = pytest.importorskip(MODULES[library])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of empty masks, and of what they will change
        if text == "error":
            with pytest.raises(AttributeError, match=r"NumPy 2\.0"):
                compute(module, MASKS[masks])
            return
        value = float(compute(module, MASKS[masks]))
    assert is_said(text, value), value


@pytest.mark.parametrize("name", HEAD[3:])
def test_the_page_names_the_versions_that_it_is_about(name):
    library, _, stated = name.rpartition(" ")
    pytest.importorskip(MODULES[library])
    assert f"{version(library)}.".startswith(f"{stated}.")


def test_every_library_and_situation_has_its_place_in_the_table():
    assert [name.rpartition(" ")[0] or name for name in HEAD[2:]] == list(LIBRARIES)
    assert set(MASKS) == {row[0] for row in ROWS}
    assert {quantity for of in LIBRARIES.values() for quantity in of} == {row[1] for row in ROWS}


def test_the_page_defines_every_metric_with_its_unit_and_which_way_is_better():
    stated = [(name, unit, better) for name, _, unit, better in rows_below("Definitions")[1:]]
    assert stated == [(f"`{name}`", metric.unit, metric.better) for name, metric in METRICS.items()]


def words(value: object) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def test_the_page_states_the_default_policy():
    stated = rows_below("Empty and missing masks")[1:]
    assert stated == [
        [f"`{name}`", *(words(outcome(name, situation, "strict", {})) for situation in SITUATIONS)]
        for name in METRICS
    ]


def test_the_page_states_the_presets():
    stated = rows_below("Presets")[1:]
    assert {row[0] for row in stated} | {"`strict`"} == {f"`{name}`" for name in POLICIES}
    for preset, metrics, *outcomes in stated:
        for name in re.findall(r"`(\w+)`", metrics):
            found = [outcome(name, situation, preset.strip("`"), {}) for situation in SITUATIONS]
            assert [words(value) for value in found] == outcomes, name


def test_the_page_lists_what_needs_a_voxel_size():
    sentence = PAGE.split("Undefined without a voxel size:")[1].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == NEEDS_SPACING


@pytest.mark.parametrize(("constant", "text"), [row[:2] for row in rows_below("Settings")[1:]])
def test_the_page_states_the_settings(constant, text):
    value = pkgutil.resolve_name("oncoseg." + constant.strip("`"))
    assert (f"{value:,}" if isinstance(value, int) else words(value)) == text
