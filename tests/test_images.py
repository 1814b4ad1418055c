from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oncoseg import io
from oncoseg.errors import DataError
from oncoseg.evaluate.images import with_images
from oncoseg.evaluate.pairs import Pair
from oncoseg.io import ImageRef
from tiny import brats_case

PAIRS = [Pair(name, name, (ImageRef((Path(f"{name}.nii.gz"),)),), {}) for name in ("a", "a_1", "b")]


def channels(folder: Path, pairs: list[Pair] = PAIRS) -> dict[str, dict[str, str]]:
    """Case → channel → name of the first file."""
    return {
        pair.case: {channel: ref.files[0].name for channel, ref in (pair.images or {}).items()}
        for pair in with_images(pairs, folder)
    }


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_images_are_found_by_the_cases_names_and_usual_ends(tmp_path: Path) -> None:
    folder = touch(
        tmp_path,
        *("a.nii.gz", "a_pet.nii", "a-CT.NII.GZ", "a_1.nii.gz"),
        *("a_seg.nii.gz", "a_probability.nii.gz", "a_2.nii.gz", "c.nii.gz", "b_0001.nii.gz", "b_0000.nii.gz"),
        *("notes.txt", "b.docx"),
    )
    assert channels(folder) == {
        "a": {"CT": "a-CT.NII.GZ", "image": "a.nii.gz", "PET": "a_pet.nii"},
        "a_1": {"image": "a_1.nii.gz"},  # a case of that name, and not another image of a
        "b": {"image 0000": "b_0000.nii.gz", "image 0001": "b_0001.nii.gz"},
    }


def test_a_data_set_gives_its_channels_and_what_lies_beside_it_is_found_too(tmp_path: Path) -> None:
    brats_case(tmp_path, 1)
    pairs = [PAIRS[0]._replace(case="BraTS2021_00001"), PAIRS[2]]
    found = channels(touch(tmp_path, "b.nii.gz"), pairs)
    assert list(found["BraTS2021_00001"]) == ["T1", "T1ce", "T2", "FLAIR"]
    assert found["b"] == {"image": "b.nii.gz"}


def test_a_folder_of_slices_is_a_stack_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "b_ct").mkdir()
    for number in (2, 10, 1):
        Image.fromarray(np.full((4, 5), number, np.uint8)).save(tmp_path / "b_ct" / f"slice{number}.png")
    *_, pair = with_images(PAIRS, tmp_path)
    assert io.read(pair.images["CT"]).array[0, 0, 0].tolist() == [1, 2, 10]


def test_a_case_without_an_image_has_none_and_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    assert channels(touch(tmp_path / "some", "b.nii.gz"))["a"] == {}
    with pytest.raises(DataError, match=r"No image in .*none belongs to a case\. .* such as a\.nii\.gz"):
        with_images(PAIRS, touch(tmp_path / "none", "c.nii.gz"))
    with pytest.raises(DataError, match="does not exist"):
        with_images(PAIRS, tmp_path / "nowhere")
