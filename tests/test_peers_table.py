"""The table of docs/metrics.md about programs that get environments of their own.

Our column is computed anew in every run of the tests; theirs in the slow tests, which install them first
(2 GB, once, into the user's cache) and are skipped where that cannot be done.
"""

import json
import math
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from _environments import NNUNET, PANOPTICA, Peer, Unavailable, python_of
from metrics_page import Masks, boxes, is_said, rows_below, scored
from oncoseg.metrics.lesion_matches import match_lesions, panoptic_quality
from oncoseg.metrics.lesions import Overlaps, find_lesions, lesion_overlaps

CUBE, EMPTY = boxes(20, ((2, 6),) * 3), boxes(20)
BLOBS_GRID, BLOBS_SPACING_MM = (48, 48, 24), (0.7, 0.7, 5.0)


def blobs(seed: int) -> Masks:
    """Balls of 2 to 5 voxels' radius; predicted a voxel off in the plane, some larger, some not at all."""
    chance = np.random.RandomState(seed)  # its stream is frozen
    truth, prediction = np.zeros((2, *BLOBS_GRID), bool)
    for _ in range(9):
        centre, radius = chance.randint(5, np.subtract(BLOBS_GRID, 5)), chance.randint(2, 6)
        moved, grown = centre + chance.randint(-1, 2, 3) * (1, 1, 0), radius + chance.randint(0, 2)
        true, predicted = chance.randint(0, 5, 2) > 0
        truth |= true & ball(centre, radius)
        prediction |= predicted & ball(moved, grown)
    return Masks(truth, prediction, BLOBS_SPACING_MM)


def ball(centre: np.ndarray, radius: int) -> np.ndarray:
    offsets = np.indices(BLOBS_GRID) - centre[:, None, None, None]
    return (offsets**2).sum(axis=0) <= radius**2


MASKS = {
    "moved cube": Masks(boxes(14, ((4, 10),) * 3), boxes(14, ((4, 10), (4, 10), (5, 11))), (1, 1, 3)),
    "corner": Masks(boxes(8, ((0, 2),) * 3, ((2, 4),) * 3), boxes(8, ((0, 2),) * 3)),
    "three lesions": Masks(
        boxes(24, ((2, 6),) * 3, ((2, 6), (2, 6), (12, 16)), ((2, 6), (12, 16), (2, 6))),
        boxes(24, ((2, 6),) * 3, ((2, 6), (2, 6), (13, 17)), ((14, 18),) * 3),
    ),
    "two in one": Masks(
        boxes(16, ((2, 6), (2, 6), (2, 6)), ((2, 6), (2, 6), (7, 11))), boxes(16, ((2, 6), (2, 6), (2, 11)))
    ),
    "apart": Masks(CUBE, boxes(20, ((10, 14),) * 3)),
    "both empty": Masks(EMPTY, EMPTY),
    "truth empty": Masks(EMPTY, CUBE),
    "prediction empty": Masks(CUBE, EMPTY),
    "blobs 1": blobs(1),
    "blobs 2": blobs(2),
    "blobs 3": blobs(3),
}


def overlaps(masks: Masks) -> Overlaps:
    return lesion_overlaps(*(find_lesions(mask, masks.spacing_mm) for mask in masks[:2]))


def lesions(masks: Masks) -> tuple[int, ...]:
    found = overlaps(masks)
    matched = match_lesions(found, "iou", 0.5).counts.found
    return len(found.truth_voxels), len(found.prediction_voxels), matched


def ours(name: str) -> Callable[[Masks], tuple[float]]:
    return lambda masks: (scored(masks).values[name],)


OURS: dict[str, Callable[[Masks], tuple[float, ...]]] = {
    "Dice": ours("dice"),
    "IoU": ours("iou"),
    "TP, FP, FN, TN": lambda masks: scored(masks).counts,
    "Hausdorff distance": ours("hausdorff_mm"),
    "HD95, pooled": ours("hd95_pooled_mm"),
    "average surface distance": ours("assd_mm"),
    "lesions: true, predicted, matched": lesions,
    "lesion sensitivity": ours("lesion_sensitivity"),
    "lesion precision": ours("lesion_precision"),
    "lesion F1": ours("lesion_f1"),
    "recognition quality": lambda masks: (panoptic_quality(overlaps(masks)).rq,),
    "panoptic quality": ours("panoptic_quality"),
}
THEIRS = {
    "nnU-Net": {"Dice": ("Dice",), "IoU": ("IoU",), "TP, FP, FN, TN": ("TP", "FP", "FN", "TN")},
    "panoptica": {
        "Dice": ("global_bin_dsc",),
        "IoU": ("global_bin_iou",),
        "Hausdorff distance": ("global_bin_hd",),
        "HD95, pooled": ("global_bin_hd95",),
        "average surface distance": ("global_bin_assd",),
        "average surface distance, matched lesions": ("sq_assd",),
        "lesions: true, predicted, matched": ("n_ref_instances", "n_pred_instances", "tp"),
        "lesion sensitivity": ("rec",),
        "lesion precision": ("prec",),
        "recognition quality": ("rq",),
        "panoptic quality": ("pq",),
    },
}
LIBRARIES = {"nnU-Net": NNUNET, "panoptica": PANOPTICA}
FIXTURES = {"nnU-Net": "nnunet", "panoptica": "panoptica"}

Scores = Mapping[str, Mapping[str, Any]]
"""Masks → their name of a value → value."""


def write(folder: Path, masks: Mapping[str, np.ndarray], spacing_mm: tuple[float, ...] = (1, 1, 1)) -> Path:
    folder.mkdir(exist_ok=True)
    for name, mask in masks.items():
        image = nib.Nifti1Image(mask.astype(np.uint8), np.diag([*spacing_mm, 1.0]))
        image.to_filename(folder / f"{name}.nii.gz")
    return folder


def run(peer: Peer, folder: Path, *options: str, labels: tuple[int, ...] = (1,)) -> Any:
    """What a peer's driver writes about the folders `truth` and `prediction`."""
    try:
        python = python_of(peer)
    except Unavailable as reason:
        pytest.skip(f"{peer.name} cannot be installed: {reason}")
    out = folder / "out.json"
    command = [python, "-I", peer.driver, folder / "truth", folder / "prediction", out, *options, "--labels"]
    done = subprocess.run([*map(str, command), *map(str, labels)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    for name, masks in MASKS.items():
        for kind in ("truth", "prediction"):
            write(folder / kind, {name: getattr(masks, kind)}, masks.spacing_mm)
    return folder


@pytest.fixture(scope="module")
def nnunet(folder: Path) -> Scores:
    return by_case(run(NNUNET, folder))


def by_case(summary: Any) -> Scores:
    """nnU-Net's values of label 1."""
    return {
        Path(case["prediction_file"]).name.removesuffix(".nii.gz"): case["metrics"]["1"]
        for case in summary["metric_per_case"]
    }


@pytest.fixture(scope="module")
def panoptica(folder: Path) -> Scores:
    # apart, since one that fails takes the others with it
    lenient = run(PANOPTICA, folder, "--whole", "DSC", "IOU", "ASSD")
    strict = run(PANOPTICA, folder, "--whole", "HD", "HD95")
    return {name: strict[name]["1"] | lenient[name]["1"] for name in MASKS}


HEAD, *ROWS = rows_below("nnU-Net and panoptica")


@pytest.mark.parametrize(
    ("masks", "quantity", "text"), [pytest.param(*row[:3], id=": ".join(row[:2])) for row in ROWS]
)
def test_the_page_says_what_oncoseg_computes(masks: str, quantity: str, text: str) -> None:
    if text == "–":
        assert quantity not in OURS
    else:
        check(text, OURS[quantity](MASKS[masks]))


def check(text: str, values: tuple[float, ...]) -> None:
    for part, value in zip(text.split(", "), values, strict=True):
        assert is_said(part, value), (text, values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("masks", "quantity", "library", "text"),
    [
        pytest.param(*row[:2], library, text, id=f"{': '.join(row[:2])}: {library}")
        for row in ROWS
        for library, text in zip(LIBRARIES, row[3:], strict=True)
    ],
)
def test_the_page_says_what_others_compute(
    masks: str, quantity: str, library: str, text: str, request: pytest.FixtureRequest
) -> None:
    names = THEIRS[library].get(quantity)
    if text == "–":
        assert names is None
        return
    scores = request.getfixturevalue(FIXTURES[library])[masks]
    if text == "error":
        assert "NotImplementedError" in scores["error"]
        assert not set(names) & set(scores)
    else:
        check(text, tuple(scores.get(name, math.nan) for name in names))


def test_every_quantity_and_every_pair_of_masks_has_its_place_in_the_table() -> None:
    assert HEAD[2:] == ["oncoseg", *(f"{name} {peer.version}" for name, peer in LIBRARIES.items())]
    assert [*dict.fromkeys(row[0] for row in ROWS)] == list(MASKS)
    assert {row[1] for row in ROWS} == OURS.keys() | THEIRS["nnU-Net"].keys() | THEIRS["panoptica"].keys()


@pytest.mark.slow
class TestWhatThePageSaysOfNnunet:
    def test_means_leave_out_what_is_undefined_and_the_mean_over_labels_does_not(
        self, tmp_path: Path
    ) -> None:
        for kind in ("truth", "prediction"):
            write(tmp_path / kind, {"found": CUBE, "empty": EMPTY})
        summary = run(NNUNET, tmp_path, labels=(1, 2))
        assert summary["mean"]["1"]["Dice"] == summary["mean"]["1"]["IoU"] == 1
        assert math.isnan(summary["mean"]["2"]["Dice"])
        assert math.isnan(summary["foreground_mean"]["Dice"])
        assert summary["mean"]["1"]["TP"] == 32  # of both cases

    def test_a_truth_without_a_prediction_stops_it_or_is_left_out(self, tmp_path: Path) -> None:
        write(tmp_path / "truth", {"found": CUBE, "missing": CUBE})
        write(tmp_path / "prediction", {"found": CUBE})
        with pytest.raises(RuntimeError, match="Not all files in folder_ref exist in folder_pred"):
            run(NNUNET, tmp_path)
        assert list(by_case(run(NNUNET, tmp_path, "--chill"))) == ["found"]

    def test_voxels_of_an_ignore_label_are_not_counted(self, tmp_path: Path) -> None:
        ignored = boxes(20, ((10, 14),) * 3)
        write(tmp_path / "truth", {"case": CUBE + 2 * ignored})
        write(tmp_path / "prediction", {"case": CUBE | ignored})
        counts = by_case(run(NNUNET, tmp_path, "--ignore", "2"))["case"]
        assert [counts[name] for name in ("TP", "FP", "FN", "TN")] == [64, 0, 0, 20**3 - 2 * 64]

    def test_where_the_files_say_that_the_voxels_lie_is_not_looked_at(self, tmp_path: Path) -> None:
        write(tmp_path / "truth", {"case": CUBE}, (1, 1, 1))
        write(tmp_path / "prediction", {"case": CUBE}, (2, 1, 3))
        assert by_case(run(NNUNET, tmp_path))["case"]["Dice"] == 1
