"""The folder of masks: what a second call keeps, adds and refuses, and what a full disk leaves."""

from pathlib import Path

import pytest

from oncoseg import predict
from oncoseg.errors import DataError, RunError
from oncoseg.predict import Predictor
from test_files import largest_file
from test_predict import Bright, bright, oriented, write_marked
from tiny import brats_case, tiny_data


def test_a_second_call_keeps_what_is_there(tmp_path: Path) -> None:
    tiny_data(tmp_path, mri=2, ct=0)
    first = bright().predict([tmp_path / "mri"], tmp_path / "out")
    first[0].unlink()
    again = bright()
    assert again.predict([tmp_path / "mri"], tmp_path / "out") == first
    assert 0 < again.networks[0].slices_seen <= 4
    other = Predictor(again.recipe, Bright(), "other weights")
    with pytest.raises(RunError, match="exists already"):
        other.predict([tmp_path / "mri"], tmp_path / "out")


def test_probabilities_are_added_to_masks_that_are_there(tmp_path: Path) -> None:
    folder = brats_case(tmp_path / "mri", 1)
    bright().predict([folder], tmp_path / "out")
    bright().predict([folder], tmp_path / "out", probabilities=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"prediction.json", "BraTS2021_00001.nii.gz", "BraTS2021_00001_probability.nii.gz"}
    again = bright()
    again.predict([folder], tmp_path / "out", probabilities=True)
    assert again.networks[0].slices_seen == 0


def test_more_inputs_join_the_folder_of_one_predictor(tmp_path: Path) -> None:
    one, two = brats_case(tmp_path / "mri", 1), brats_case(tmp_path / "mri", 2)
    bright().predict([one], tmp_path / "out")
    second = bright()
    bright_masks = second.predict([two, one], tmp_path / "out")
    assert [path.name for path in bright_masks] == ["BraTS2021_00002.nii.gz", "BraTS2021_00001.nii.gz"]
    assert second.networks[0].slices_seen == 4


def test_another_patients_image_of_the_same_name_never_gets_the_old_mask(tmp_path: Path) -> None:
    for patient in ("A", "B"):
        (tmp_path / patient).mkdir()
        write_marked(tmp_path / patient / "scan.nii", oriented(0))
    bright().predict([tmp_path / "A" / "scan.nii"], tmp_path / "out", modality="ct")
    with pytest.raises(RunError, match=r"scan\.nii\.gz belongs to another image"):
        bright().predict([tmp_path / "B" / "scan.nii"], tmp_path / "out", modality="ct")
    write_marked(tmp_path / "A" / "scan.nii", oriented(3))
    with pytest.raises(RunError, match="or the image has changed"):
        bright().predict([tmp_path / "A" / "scan.nii"], tmp_path / "out", modality="ct")


def test_a_mask_is_of_one_modality_and_one_threshold(tmp_path: Path) -> None:
    write_marked(tmp_path / "scan.nii", oriented(0))
    both = {"modalities__mri__channels": ["CT"] * 4, "modalities__mri__substitutes": {}}
    bright(**both).predict([tmp_path / "scan.nii"], tmp_path / "out", modality="ct")
    with pytest.raises(RunError, match="belongs to another"):
        bright(**both).predict([tmp_path / "scan.nii"], tmp_path / "out", modality="mri")
    with pytest.raises(RunError, match="exists already"):
        bright(**both, prediction__threshold=0.6).predict(
            [tmp_path / "scan.nii"], tmp_path / "out", modality="ct"
        )


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    write_marked(tmp_path / "scan.nii", oriented(0))
    with pytest.raises(RunError, match=r"The output folder .* is not empty"):
        bright().predict([tmp_path / "scan.nii"], tmp_path, modality="ct")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]


def test_results_that_would_overwrite_each_other_are_refused(tmp_path: Path) -> None:
    for name in ("a", "a_probability"):
        write_marked(tmp_path / f"{name}.nii", oriented(0))
    inputs = [tmp_path / "a.nii", tmp_path / "a_probability.nii"]
    with pytest.raises(DataError, match=r"2 results would be written as .*a_probability\.nii\.gz"):
        bright().predict(inputs, tmp_path / "out", probabilities=True, modality="ct")
    assert len(bright().predict(inputs, tmp_path / "out", modality="ct")) == 2


@pytest.mark.parametrize("limit", [100, 9000])
def test_a_full_disk_is_one_sentence_and_leaves_no_mask(tmp_path: Path, limit: int) -> None:
    write_marked(tmp_path / "scan.nii", oriented(0), shape=(40, 40, 20))
    (tmp_path / "out").mkdir()
    with largest_file(limit), pytest.raises(RunError, match="Could not write"):
        bright().predict([tmp_path / "scan.nii"], tmp_path / "out", modality="ct")
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"prediction.json"}
    assert bright().predict([tmp_path / "scan.nii"], tmp_path / "out", modality="ct")[0].is_file()


def test_a_full_disk_while_a_mask_is_written_leaves_no_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_marked(tmp_path / "scan.nii", oriented(0))
    write = predict.io.write_labels

    def with_little_room(path: Path, *rest: object) -> None:
        with largest_file(200):
            write(path.with_suffix("").with_suffix(".nii"), *rest)

    monkeypatch.setattr(predict.io, "write_labels", with_little_room)
    with pytest.raises(RunError, match="Could not write"):
        bright().predict([tmp_path / "scan.nii"], tmp_path / "out", modality="ct")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.json"]
