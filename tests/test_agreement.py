import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oncoseg.cli import main
from oncoseg.datasets import open_dataset
from oncoseg.datasets.base import Case
from oncoseg.errors import DataError, RunError
from oncoseg.evaluate import agreement, long_table
from oncoseg.evaluate.agreement import reader_agreement
from oncoseg.evaluate.scoring import CaseScores, Scoring
from oncoseg.evaluate.unfinished import Unfinished
from oncoseg.report import write_evaluation
from test_pairs import write as write_mask
from tiny import brats_case


def nodule(root: Path, patient: int, *readers: slice) -> None:
    """A nodule of one slice; each reader marks some pixels of one row."""
    folder = root / f"LIDC-IDRI-{patient:04d}" / "nodule-0"
    masks = [np.zeros((8, 8), np.uint8) for _ in readers]
    for mask, columns in zip(masks, readers, strict=True):
        mask[3, columns] = 255
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for kind, pixels in {"images": image, **{f"mask-{n}": mask for n, mask in enumerate(masks)}}.items():
        (folder / kind).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / kind / "slice-0.png")


def dice(data: Path, out: Path) -> dict[tuple[str, str], float]:
    found = reader_agreement(data, out, workers=0)
    return {(row.group, row.patient): row.values["dice"] for row in found.patients}


def test_three_readers_are_compared_by_hand(tmp_path: Path) -> None:
    nodule(tmp_path / "data", 1, slice(0, 4), slice(0, 4), slice(2, 6))
    found = dice(tmp_path / "data", tmp_path / "out")
    # intersections 4, 2 and 2 of 8 marked pixels in each pair, counted together
    assert found["reader-pair", "LIDC-IDRI-0001"] == pytest.approx(2 * 8 / 24)
    assert found["pair-both-marked", "LIDC-IDRI-0001"] == pytest.approx(2 * 8 / 24)
    # half of two others mark six pixels, against the first two readers; the first four against the last
    assert found["one-against-others", "LIDC-IDRI-0001"] == pytest.approx(2 * (4 + 4 + 2) / (10 + 10 + 8))


def test_who_saw_nothing_counts_in_the_pairs_and_not_where_both_marked(tmp_path: Path) -> None:
    nodule(tmp_path / "data", 1, slice(0, 4), slice(0, 4), slice(0, 0))
    found = dice(tmp_path / "data", tmp_path / "out")
    assert found["reader-pair", "LIDC-IDRI-0001"] == pytest.approx(2 * 4 / (8 + 4 + 4))
    assert found["pair-both-marked", "LIDC-IDRI-0001"] == 1


def test_no_reader_comes_first(tmp_path: Path) -> None:
    nodule(tmp_path / "data", 1, slice(0, 6), slice(0, 3))
    found = reader_agreement(tmp_path / "data", tmp_path / "out", workers=0)
    (pair,) = [row for row in found.patients if row.group == "reader-pair"]
    assert pair.values["precision"] == pair.values["recall"] == pytest.approx(6 / 9)


def test_two_processes_find_the_same(tmp_path: Path) -> None:
    for patient in (1, 2, 3):
        nodule(tmp_path / "data", patient, slice(0, 4), slice(patient, 5))
    seen: list[tuple[int, int]] = []
    reader_agreement(tmp_path / "data", tmp_path / "one", workers=0)
    reader_agreement(tmp_path / "data", tmp_path / "two", workers=2, progress=lambda *done: seen.append(done))
    for name in ("cases.csv", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_one_reader_agrees_with_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brats_case(tmp_path / "data", 1)
    with pytest.raises(DataError, match="masks of several readers"):
        reader_agreement(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    nodule(tmp_path / "two", 1, slice(0, 4), slice(1, 5))
    assert main(["agreement", str(tmp_path / "two"), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert "reader-pair tumour" in said
    assert "one-against-others tumour" not in said  # the other one is half of a pair already


def table_of_two(folder: Path, second: tuple[int, ...]) -> Path:
    """A patient with a case for each number of voxels that the second reader marks; the first marks two."""
    lines = ["case,patient,label.anna,label.berta"]
    for number, marked in enumerate(second):
        for reader, length in (("anna", 2), ("berta", marked)):
            mask = np.zeros((8, 8, 8), np.uint8)
            mask[:length, 4, 4] = 1
            write_mask(folder / f"{reader}{number}.nii.gz", mask)
        lines.append(f"c{number},P,anna{number}.nii.gz,berta{number}.nii.gz")
    (folder / "readers.csv").write_text("\n".join(lines) + "\n")
    return folder / "readers.csv"


def test_volumes_of_two_readers_do_not_cancel(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    found = reader_agreement(table_of_two(tmp_path / "data", (4, 1)), tmp_path / "out", workers=0)
    (pair,) = [row for row in found.patients if row.group == "reader-pair"]
    # 2 against 4 voxels: 2/2 and 2/4 of the truth; 2 against 1: 1/2 and 1/1
    assert pair.values["volume_error"] == pytest.approx((1 + 0.5 + 0.5 + 1) / 4)
    assert math.isnan(pair.values["volume_difference_ml"])
    assert pair.rules["volume_difference_ml"] == "both_orders"
    page = write_evaluation(tmp_path / "out").read_text(encoding="utf-8")
    assert "<h1>Agreement of readers of 1 patient</h1>" in page
    assert "the mean difference of volumes is 0 by its making" in page
    assert "0 of 2 predictions missing" not in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


def test_one_bad_case_costs_no_other_its_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    table = table_of_two(tmp_path / "data", (2, 2, 2))
    write_mask(tmp_path / "data" / "berta1.nii.gz", np.ones((8, 8, 7), np.uint8))
    assert main(["agreement", str(table), "--out", str(tmp_path / "out"), "--workers", "0"]) == 2
    said = capsys.readouterr()
    assert "1 case could not be used and had to be left out:\n  c1: " in said.err
    assert "1 case was left out" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    cases = {row.case.partition(":")[0] for row in long_table.read(tmp_path / "out", long_table.CASES)}
    assert cases == {"c0", "c2"}
    (tmp_path / "data" / "berta0.nii.gz").unlink()
    for number in (0, 2):
        write_mask(tmp_path / "data" / f"berta{number}.nii.gz", np.ones((8, 8, 7), np.uint8))
    with pytest.raises(DataError, match="No case can be used"):
        reader_agreement(table, tmp_path / "none", workers=0)
    assert not (tmp_path / "none").exists()


def test_a_stopped_agreement_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for patient in range(4):
        nodule(tmp_path / "data", patient, slice(0, 4), slice(patient, 5), slice(0, 0))
    reader_agreement(tmp_path / "data", tmp_path / "whole", workers=0)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reader_agreement(tmp_path / "data", tmp_path / "out", workers=0, progress=stop)
    scored: list[str] = []
    real = agreement._score_readers

    def watched(scoring: Scoring, share: float, case: Case) -> list[CaseScores]:
        scored.append(case.id)
        return real(scoring, share, case)

    monkeypatch.setattr(agreement, "_score_readers", watched)
    seen: list[tuple[int, int]] = []
    reader_agreement(tmp_path / "data", tmp_path / "out", workers=0, progress=lambda *d: seen.append(d))
    assert len(scored) == 1
    assert seen == [(3, 4), (4, 4)]
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not (tmp_path / "out" / ".unfinished").exists()
    with pytest.raises(RunError, match="exists already"):
        reader_agreement(tmp_path / "data", tmp_path / "out", workers=0)


def test_nothing_is_taken_from_before_where_settings_or_files_have_changed(tmp_path: Path) -> None:
    nodule(tmp_path / "data", 1, slice(0, 4), slice(2, 6), slice(2, 6))
    (case,) = open_dataset(tmp_path / "data", need_images=False).cases
    rows = agreement._score_readers(Scoring(), 0.5, case)
    before = Unfinished(tmp_path / "out", "The folder", ["strict"])
    before.keep(case, rows)
    again = before.recall(case)
    assert again is not None
    assert [row.counts for row in again] == [row.counts for row in rows]
    assert [row.rules for row in again] == [row.rules for row in rows]
    np.testing.assert_equal([row.values for row in again], [row.values for row in rows])
    assert Unfinished(tmp_path / "out", "The folder", ["drop"]).recall(case) is None
    file = case.masks[0].files[0]
    os.utime(file, ns=(0, 0))
    assert before.recall(case) is None


def test_processes_are_as_many_as_fit_with_all_readers_of_the_largest_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodule(tmp_path, 1, slice(0, 4), slice(0, 4))
    nodule(tmp_path, 2, slice(0, 4), slice(0, 4), slice(0, 4), slice(0, 4))
    cases = open_dataset(tmp_path).cases
    monkeypatch.setattr(agreement.io, "voxel_bytes", lambda ref: 1 << 27)  # 512×512×512 of one byte
    assert agreement._gib_of(cases) == agreement.GIB_PER_PROCESS + 4 * 4 / 8
