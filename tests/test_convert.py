"""Converting data sets: what is written, under which names, and what happens when something goes wrong."""

import csv
import gzip
import json
import stat
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from dicom_files import numbered, slices, write
from oncoseg import cli, io
from oncoseg.convert import convert
from oncoseg.convert import write as writing
from oncoseg.convert.names import read_salt
from oncoseg.datasets import open_dataset
from oncoseg.errors import DataError, RunError
from oncoseg.io import ImageRef
from oncoseg.io.dicom.patients import patient_key
from test_itk import nrrd

GRID = (5, 4, 3)

SALT = b"a salt that only the clinic knows"


def save(path: Path, value: int = 1, affine: np.ndarray | None = None, **header: Any) -> Path:
    """An image that names a patient wherever NIfTI lets it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = (np.arange(np.prod(GRID)).reshape(GRID) % 7 * value).astype(np.int16)
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1, 2, 1]) if affine is None else affine)
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[field] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"Jane Doe, born 1.1.1970"))
    for field, number in header.items():
        image.header[field] = number
    image.to_filename(path)
    return path


def clinic(root: Path, cases: int = 2, readers: int = 1) -> Path:
    """A table whose names are patients' names."""
    lines = ["case,patient,CT,site," + ",".join(f"label.{n}" for n in range(readers))]
    for number in range(cases):
        name = f"Jane-Doe-{number}"
        save(root / f"{name}.nii.gz", 1 + number)
        masks = []
        for reader in range(readers):
            mask = np.zeros(GRID, np.uint8)
            mask[: reader + 1] = 1
            masks.append(f"{name}-mask-{reader}.nii.gz")
            nib.Nifti1Image(mask, np.diag([-1.0, -1, 2, 1])).to_filename(root / masks[-1])
        lines.append(f"{name},Jane Doe,{name}.nii.gz,Ulm,{','.join(masks)}")
    (root / "cases.csv").write_text("\n".join(lines))
    return root


def everything(folder: Path) -> bytes:
    """Names and contents, unpacked."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            data = path.read_bytes()
            parts.append(gzip.decompress(data) if path.suffix == ".gz" else data)
    return b"\n".join(parts)


# names


def test_names_of_a_table_become_pseudonyms_and_nothing_names_the_patient(tmp_path: Path) -> None:
    done = convert(clinic(tmp_path / "in"), "nifti", tmp_path / "out", salt=SALT, workers=0)
    assert (done.names, done.cases, done.patients) == ("pseudonyms", 2, 1)
    content = everything(tmp_path / "out")
    for secret in (b"Jane", b"Doe", b"Ulm", str(tmp_path / "in").encode(), SALT):
        assert secret not in content
    first, second = open_dataset(tmp_path / "out").cases
    assert first.patient == second.patient
    assert first.id.startswith(f"{first.patient}-")
    assert first.site == second.site is not None


def test_one_salt_gives_one_pseudonym_and_another_gives_others(tmp_path: Path) -> None:
    clinic(tmp_path / "in")
    for name, salt in {"a": SALT, "b": SALT, "c": SALT + b"!"}.items():
        convert(tmp_path / "in", "nifti", tmp_path / name, salt=salt, workers=0)
    names = {name: [case.id for case in open_dataset(tmp_path / name).cases] for name in "abc"}
    assert names["a"] == names["b"]
    assert not set(names["a"]) & set(names["c"])


def test_a_data_set_whose_names_are_public_keeps_them_unless_asked(tmp_path: Path) -> None:
    for case in ("BraTS2021_00001", "BraTS2021_00002"):
        for end in ("t1", "seg"):
            save(tmp_path / "in" / case / f"{case}_{end}.nii.gz", value=1 if end == "t1" else 0)
    assert convert(tmp_path / "in", "nnunet", tmp_path / "kept", workers=0).names == "keep"
    assert (tmp_path / "kept" / "imagesTr" / "BraTS2021_00001_0000.nii.gz").is_file()
    convert(tmp_path / "in", "nnunet", tmp_path / "hidden", names="pseudonyms", salt=SALT, workers=0)
    assert b"BraTS2021" not in everything(tmp_path / "hidden")


def test_without_a_salt_the_users_own_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    clinic(tmp_path / "in")
    for name in "ab":
        convert(tmp_path / "in", "nifti", tmp_path / name, workers=0)
    assert (tmp_path / "a" / "cases.csv").read_text() == (tmp_path / "b" / "cases.csv").read_text()
    (salt,) = [path for path in (tmp_path / "config").rglob("*") if path.is_file()]
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600


def test_a_salt_is_made_once_for_this_user_alone(tmp_path: Path) -> None:
    salt = read_salt(tmp_path / "deep" / "salt")
    assert len(salt) == 32
    assert read_salt(tmp_path / "deep" / "salt") == salt
    assert stat.S_IMODE((tmp_path / "deep" / "salt").stat().st_mode) == 0o600
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(DataError, match="has 1 bytes; expected at least 16"):
        read_salt(tmp_path / "short")


def test_the_key_says_whose_pseudonym_is_whose_and_stays_outside(tmp_path: Path) -> None:
    clinic(tmp_path / "in")
    out, key = tmp_path / "out", tmp_path / "key.csv"
    convert(tmp_path / "in", "nifti", out, salt=SALT, key_file=key, workers=0)
    with key.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {"Jane-Doe-0", "Jane-Doe-1"}
    assert {row["pseudonym"] for row in rows} == {case.id for case in open_dataset(out).cases}
    assert {row["patient"] for row in rows} == {"Jane Doe"}
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for place in (out / "key.csv", key):
        with pytest.raises(DataError, match="must be a new file outside"):
            convert(tmp_path / "in", "nifti", out, salt=SALT, key_file=place, workers=0)


def test_a_salt_or_a_key_asks_for_pseudonyms(tmp_path: Path) -> None:
    for end in ("t1", "seg"):
        save(tmp_path / "in" / "BraTS2021_00001" / f"BraTS2021_00001_{end}.nii.gz", value=int(end == "t1"))
    assert convert(tmp_path / "in", "nnunet", tmp_path / "out", salt=SALT, workers=0).names == "pseudonyms"
    with pytest.raises(DataError, match="names are to be kept"):
        convert(tmp_path / "in", "nnunet", tmp_path / "two", salt=SALT, names="keep", workers=0)


# geometry and numbers


def test_conflicting_forms_become_one(tmp_path: Path) -> None:
    root = clinic(tmp_path / "in", 1)
    image = nib.load(root / "Jane-Doe-0.nii.gz")
    image.header.set_qform(np.diag([3.0, 3, 3, 1]), 1)
    image.to_filename(root / "Jane-Doe-0.nii.gz")
    convert(root, "nifti", tmp_path / "out", workers=0, salt=SALT)
    for file in (tmp_path / "out").rglob("*.nii.gz"):
        header = nib.load(file).header
        assert (int(header["qform_code"]), int(header["sform_code"]) > 0) == (0, True)
        np.testing.assert_array_equal(header.get_sform(), np.diag([-1.0, -1, 2, 1]))


def test_nifti_2_becomes_nifti_1_which_every_program_reads(tmp_path: Path) -> None:
    affine = np.array([[-0.9, 0, 0, 90.1], [0, 0.1, 2.5, -126], [0, 1.1, -0.2, 72], [0, 0, 0, 1]])
    (tmp_path / "in").mkdir()
    voxels = np.arange(np.prod(GRID), dtype=np.int16).reshape(GRID)
    nib.Nifti2Image(voxels, affine).to_filename(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "cases.csv").write_text("case,patient,CT\na,A,a.nii.gz\n")
    convert(tmp_path / "in", "nnunet", tmp_path / "out", names="keep", workers=0)
    image = nib.load(tmp_path / "out" / "imagesTs" / "a_0000.nii.gz")
    assert type(image) is nib.Nifti1Image
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), voxels)


def test_sheared_axes_are_kept_and_nnunet_is_told_to_read_them_with_nibabel(tmp_path: Path) -> None:
    tilted = np.diag([-1.0, -1, 2, 1])
    tilted[1, 2] = 0.5  # a gantry tilted by 14 degrees
    save(tmp_path / "in" / "a.nii.gz", affine=tilted)
    (tmp_path / "in" / "cases.csv").write_text("case,patient,CT\na,A,a.nii.gz\n")
    convert(tmp_path / "in", "nnunet", tmp_path / "out", names="keep", workers=0)
    volume = io.read(open_dataset(tmp_path / "out").cases[0].images["CT"])
    np.testing.assert_allclose(volume.affine_ras, tilted, atol=1e-6)
    index = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert index["overwrite_image_reader_writer"] == "NibabelIO"


def test_channels_of_other_types_share_a_file_only_without_rounding(tmp_path: Path) -> None:
    affine = np.eye(4)
    (tmp_path / "in").mkdir()
    numbers = {"T1": np.full(GRID, 2**24 + 1, np.int32), "T2": np.full(GRID, 0.5, np.float32)}
    for name, voxels in numbers.items():
        nib.Nifti1Image(voxels, affine).to_filename(tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "cases.csv").write_text("case,patient,T1,T2\na,A,T1.nii.gz,T2.nii.gz\n")
    convert(tmp_path / "in", "decathlon", tmp_path / "out", names="keep", workers=0)
    (case,) = open_dataset(tmp_path / "out").cases
    both = io.read_channels(case.images)
    assert both.array.dtype == np.float64
    assert both.array[:, 0, 0, 0].tolist() == [2**24 + 1, 0.5]
    nib.Nifti1Image(np.full(GRID, 2**60 + 1), affine, dtype=np.int64).to_filename(
        tmp_path / "in" / "T1.nii.gz"
    )
    with pytest.raises(DataError, match="T1 cannot share a file with the other channels without rounding"):
        convert(tmp_path / "in", "decathlon", tmp_path / "other", names="keep", workers=0)
    assert convert(tmp_path / "in", "nnunet", tmp_path / "third", names="keep", workers=0).cases == 1


def test_nrrd_becomes_nifti_in_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = nrrd(tmp_path / "in" / "a.nrrd")
    (tmp_path / "in" / "cases.csv").write_text("case,patient,CT\na,A,a.nrrd\n")
    convert(tmp_path / "in", "nifti", tmp_path / "out", names="keep", workers=0)
    image = nib.load(tmp_path / "out" / "images" / "a_CT.nii.gz")
    expected = io.read(ImageRef((source,)))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), expected.array[0])
    np.testing.assert_allclose(image.affine, expected.affine_ras, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"


# masks


@pytest.mark.parametrize(("share", "rows"), [(0.3, 3), (0.5, 3), (0.6, 2), (1.0, 1)])
def test_readers_are_joined_by_the_share_asked_for(tmp_path: Path, share: float, rows: int) -> None:
    clinic(tmp_path / "in", 1, readers=4)  # they mark 1, 2, 3 and 4 of five rows
    convert(tmp_path / "in", "nnunet", tmp_path / "out", consensus=share, names="keep", workers=0)
    (case,) = open_dataset(tmp_path / "out").cases
    assert int(io.read(case.masks[0]).array[0, :, 0, 0].sum()) == rows


def test_every_readers_mask_can_be_kept(tmp_path: Path) -> None:
    clinic(tmp_path / "in", 2, readers=3)
    lines = (tmp_path / "in" / "cases.csv").read_text().splitlines()
    (tmp_path / "in" / "cases.csv").write_text("\n".join([*lines[:2], lines[2].rsplit(",", 1)[0]]))
    convert(tmp_path / "in", "nifti", tmp_path / "out", all_readers=True, names="keep", workers=0)
    first, second = open_dataset(tmp_path / "out").cases
    assert [int(io.read(mask).array[0, :, 0, 0].sum()) for mask in first.masks] == [1, 2, 3]
    assert len(second.masks) == 2
    with pytest.raises(DataError, match="--to nifti"):
        convert(tmp_path / "in", "nnunet", tmp_path / "other", all_readers=True, workers=0)


def test_labels_of_one_name_get_one_value_and_values_are_consecutive(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "a.nii.gz")
    mask = np.zeros(GRID, np.float32)
    mask[0], mask[1], mask[2] = 4, 7, 2
    nib.Nifti1Image(mask, np.diag([-1.0, -1, 2, 1])).to_filename(tmp_path / "in" / "m.nii.gz")
    (tmp_path / "in" / "cases.csv").write_text("case,patient,CT,label\na,A,a.nii.gz,m.nii.gz\n")
    (tmp_path / "in" / "labels.json").write_text('{"4": "tumour", "7": "tumour", "2": "liver"}')
    done = convert(tmp_path / "in", "nnunet", tmp_path / "out", names="keep", workers=0)
    assert done.plan.labels == {"liver": 1, "tumour": 2}
    written = nib.load(tmp_path / "out" / "labelsTr" / "a.nii.gz")
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(written.dataobj)[:, 0, 0], [2, 2, 1, 0, 0])
    index = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert index["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert index["channel_names"] == {"0": "CT"}
    assert (index["numTraining"], index["file_ending"]) == (1, ".nii.gz")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [({"background": 0, "ignore": 1}, "named ignore"), ({f"n{n}": n for n in range(1, 300)}, "299 labels")],
)
def test_labels_that_cannot_be_written(tmp_path: Path, labels: dict[str, int], reason: str) -> None:
    clinic(tmp_path / "in", 1)
    (tmp_path / "in" / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(DataError, match=reason):
        convert(tmp_path / "in", "nnunet", tmp_path / "out", names="keep", workers=0)


def test_cases_without_a_mask_are_test_cases(tmp_path: Path) -> None:
    clinic(tmp_path / "in", 2)
    lines = (tmp_path / "in" / "cases.csv").read_text().splitlines()
    (tmp_path / "in" / "cases.csv").write_text("\n".join([*lines[:2], lines[2].rsplit(",", 1)[0]]))
    for to, image in {"nnunet": "Jane-Doe-1_0000.nii.gz", "decathlon": "Jane-Doe-1.nii.gz"}.items():
        convert(tmp_path / "in", to, tmp_path / to, names="keep", workers=0)
        assert (tmp_path / to / "imagesTs" / image).is_file()
        assert [len(case.masks) for case in open_dataset(tmp_path / to).cases] == [1, 0]


# channels


def sequences(root: Path) -> Path:
    for name in ("a_T1", "a_T2", "b_T1"):
        save(root / f"{name}.nii.gz")
    (root / "cases.csv").write_text("case,patient,T1,T2\na,A,a_T1.nii.gz,a_T2.nii.gz\nb,B,b_T1.nii.gz,\n")
    return root


def test_cases_with_other_channels_must_be_chosen_among_where_a_format_wants_them_alike(
    tmp_path: Path,
) -> None:
    root = sequences(tmp_path / "in")
    with pytest.raises(
        DataError, match=r"1 cases have T1, T2; 1 cases have T1\. Choose some with --channels"
    ):
        convert(root, "nnunet", tmp_path / "out", workers=0)
    assert convert(root, "nnunet", tmp_path / "one", channels=["T1"], workers=0, salt=SALT).left_out == ()
    two = convert(root, "nnunet", tmp_path / "two", channels=["T2", "T1"], workers=0, salt=SALT)
    assert (two.cases, two.left_out, two.plan.channels) == (1, ("b",), ("T2", "T1"))
    assert convert(root, "nifti", tmp_path / "all", workers=0, salt=SALT).cases == 2
    with pytest.raises(DataError, match="No case has the channel PET; expected T1, T2"):
        convert(root, "nifti", tmp_path / "none", channels=["PET"], workers=0)


# going wrong, and going on


def test_a_case_that_cannot_be_used_does_not_keep_the_others(tmp_path: Path) -> None:
    root = clinic(tmp_path / "in", 3)
    whole = (root / "Jane-Doe-1.nii.gz").read_bytes()
    (root / "Jane-Doe-1.nii.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"1 of 3 cases cannot be converted; the others are in"):
        convert(root, "nnunet", tmp_path / "out", names="keep", workers=0)
    assert [case.id for case in open_dataset(tmp_path / "out").cases] == ["Jane-Doe-0", "Jane-Doe-2"]
    assert not open_dataset(tmp_path / "out").problems
    (root / "Jane-Doe-1.nii.gz").write_bytes(whole)
    assert convert(root, "nnunet", tmp_path / "out", names="keep", workers=0).cases == 3
    assert len(open_dataset(tmp_path / "out").cases) == 3


def test_what_is_written_already_is_not_written_again_unless_its_source_changed(tmp_path: Path) -> None:
    root, out = clinic(tmp_path / "in", 3), tmp_path / "out"
    convert(root, "nifti", out, names="keep", workers=0)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    (out / "images" / "Jane-Doe-0_CT.nii.gz").unlink()
    save(root / "Jane-Doe-1.nii.gz", 5)
    done: list[tuple[int, int]] = []
    convert(root, "nifti", out, names="keep", workers=0, progress=lambda *at: done.append(at))
    assert done == [(1, 3), (2, 3), (3, 3)]
    same = {path.name for path, time in times.items() if path.stat().st_mtime_ns == time}
    assert same == {"Jane-Doe-2_CT.nii.gz", "Jane-Doe-2.nii.gz"}
    (_, case, _) = open_dataset(out).cases
    assert int(io.read(case.images["CT"]).array.max()) == 30


def test_an_interruption_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = clinic(tmp_path / "in", 3), tmp_path / "out"
    original, calls = writing.write_volumes, []

    def interrupted(path: Path, *rest: Any) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        original(path, *rest)

    monkeypatch.setattr(writing, "write_volumes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(root, "nnunet", out, names="keep", workers=0)
    with pytest.raises(DataError, match="no known layout"):
        open_dataset(out)
    assert convert(root, "nnunet", out, names="keep", workers=0).cases == 3
    assert len(calls) == 4 + 2 * 2  # the first case was whole and is not written again
    assert len(open_dataset(out).cases) == 3


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    root, out = clinic(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("keep me")
    with pytest.raises(RunError, match="not empty"):
        convert(root, "nifti", out, workers=0, salt=SALT)
    assert [path.name for path in out.iterdir()] == ["precious.txt"]
    convert(root, "nifti", tmp_path / "other", names="keep", workers=0)
    with pytest.raises(RunError, match="not empty"):
        convert(root, "nifti", tmp_path / "other", names="keep", consensus=0.7, workers=0)


def test_the_result_lies_outside_of_its_source(tmp_path: Path) -> None:
    root = clinic(tmp_path / "in" / "deep", 1)
    for out in (root, root / "out", tmp_path / "in"):
        with pytest.raises(DataError, match="overlap"):
            convert(root, "nifti", out, names="keep", workers=0)
    convert(root / "cases.csv", "nifti", root / "out", names="keep", workers=0)  # a table finds nothing else


def test_files_of_one_name_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "in" / "x.nii.gz")
    lines = "case,patient,late,b_late\na_b,A,x.nii.gz,\na,B,,x.nii.gz\n"
    (tmp_path / "in" / "cases.csv").write_text(lines)
    with pytest.raises(DataError, match=r"2 images would be written as .*a_b_late\.nii\.gz"):
        convert(tmp_path / "in", "nifti", tmp_path / "out", names="keep", workers=0)
    assert convert(tmp_path / "in", "nifti", tmp_path / "out", salt=SALT, workers=0).cases == 2


def test_grids_that_differ_and_undeclared_labels_are_refused(tmp_path: Path) -> None:
    root = clinic(tmp_path / "in", 1)
    nib.Nifti1Image(np.full(GRID, 9, np.uint8), np.diag([-1.0, -1, 2, 1])).to_filename(
        root / "Jane-Doe-0-mask-0.nii.gz"
    )
    with pytest.raises(DataError, match=r"label values \[9\.?0?\]"):
        convert(root, "nifti", tmp_path / "a", names="keep", workers=0)
    nib.Nifti1Image(np.ones(GRID, np.uint8), np.eye(4)).to_filename(root / "Jane-Doe-0-mask-0.nii.gz")
    with pytest.raises(DataError, match="must lie on one grid"):
        convert(root, "nifti", tmp_path / "b", names="keep", workers=0)
    assert not list((tmp_path / "b").rglob("*.nii.gz"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"to": "nnunett"}, "did you mean 'nnunet'"),
        ({"consensus": 0.0}, "above 0"),
        ({"consensus": 2}, "above 0"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        convert(clinic(tmp_path / "in"), **{"to": "nifti", "out": tmp_path / "out", "workers": 0} | settings)


# the command


def test_the_command_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = sequences(tmp_path / "in")
    out = tmp_path / "out"
    words = ["convert", str(root), "--to", "nnunet", "--out", str(out), "--workers", "0"]
    assert cli.main([*words, "--channels", "T2", "--salt-file", str(tmp_path / "salt")]) == 0
    shown = capsys.readouterr()
    assert f"1 cases of 1 patients (table) in {out}" in shown.out
    assert "Channels: T2. Labels: none." in shown.out
    assert "replaced by salted pseudonyms" in shown.out
    assert "1 cases are left out, because they lack a channel" in shown.err
    assert "finds data sets by names such as Dataset501_out alone. Rename the folder." in shown.err
    assert cli.main([*words, "--pseudonyms", "--keep-names"]) == 2
    assert "got both" in capsys.readouterr().err


def test_dicom_can_be_deidentified_and_keeps_its_pseudonyms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = slices(numbered(), modality="CT", name="a", PatientID="Jane Doe", PatientName="Doe^Jane")
    write(image, tmp_path / "in" / "Jane Doe")
    (tmp_path / "salt").write_bytes(SALT)
    words = [
        "convert",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--salt-file",
        str(tmp_path / "salt"),
    ]
    assert cli.main([*words, "--deidentify"]) == 0
    assert f"6 DICOM files of 1 patients in {tmp_path / 'out'}" in capsys.readouterr().out
    assert b"Jane" not in everything(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == [
        f"P{patient_key('Jane Doe', '', SALT)}"
    ]
    (case,) = open_dataset(tmp_path / "out").cases
    (before,) = open_dataset(tmp_path / "in").cases
    np.testing.assert_array_equal(io.read(case.images["CT"]).array, io.read(before.images["CT"]).array)
    for more, reason in (
        ([], "Expected --to"),
        (["--deidentify", "--to", "nifti"], "only --out and --salt-file"),
    ):
        assert cli.main([*words, *more]) == 2
        assert reason in capsys.readouterr().err


def test_several_processes_write_the_same(tmp_path: Path) -> None:
    root = clinic(tmp_path / "in", 3, readers=2)
    for name, workers in {"a": 0, "b": 2}.items():
        convert(root, "nifti", tmp_path / name, names="keep", workers=workers)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
