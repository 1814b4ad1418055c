"""The commands, run in this process: what they print, what they pass on, and their exit codes."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import oncoseg.train
from oncoseg.cli import app, main
from oncoseg.cli.data import parse_data
from oncoseg.cli.fields import check_flags, recipe_flags
from oncoseg.errors import DataError, OncosegError, RecipeError
from oncoseg.files import atomic_file
from oncoseg.recipe import Recipe
from oncoseg.recipes import get_recipe
from oncoseg.stopping import Terminated
from tiny import brats_case, lidc_nodule, tiny_data

NAME = "unified-mri-ct"
COMMANDS = (
    *(["recipes"], ["recipes", "show"], ["recipes", "describe"]),
    *(["networks"], ["networks", "show"]),
    *(["studies"], ["studies", "show"], ["studies", "describe"], ["study"]),
    *(
        ["inspect"],
        ["convert"],
        ["phantom"],
        ["prepare"],
        ["plan"],
        ["train"],
        ["rerun"],
        ["predict"],
        ["evaluate"],
        ["compare"],
    ),
    *(["agreement"], ["leaks"], ["report"], ["demo"]),
)
DATA = ["--data", "mri=some/mri", "--data", "ct=some/ct"]

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


# help and version


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_shows_an_example_of_its_command(command: list[str], capsys: Capture) -> None:
    assert main([*command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert "Example" in printed
    assert "  oncoseg " + " ".join(command) in printed


def test_the_list_of_commands_above_is_complete() -> None:
    assert {name for name in app if not name.startswith("-")} == {command[0] for command in COMMANDS}


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == oncoseg.__version__


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_help_lists_the_fields_of_a_recipe_with_its_values(command: str, capsys: Capture) -> None:
    assert main([command, NAME, "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--training.max-epochs Epochs of joint training" in words
    assert "{int > 0} [default: 30]" in words
    assert "--modalities.ct.scaling" in words
    assert "--network.arguments.features" in words


def test_help_without_a_recipe_lists_the_types_own_fields(capsys: Capture) -> None:
    assert main(["train", "--help"]) == 0
    assert "--modalities.NAME.scaling" in capsys.readouterr().out


# recipes


def test_recipes_lists_names_and_titles(capsys: Capture) -> None:
    assert main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert NAME in printed
    assert get_recipe(NAME).title in printed


def test_recipes_show_prints_json_that_train_can_read_and_the_paper_beside_it(capsys: Capture) -> None:
    assert main(["recipes", "show", NAME]) == 0
    printed = capsys.readouterr()
    assert Recipe.from_json(printed.out) == get_recipe(NAME)
    assert get_recipe(NAME).source in printed.err
    assert "Published (mri): dice 0.83" in printed.err
    assert printed.err.count("Deviation: ") == len(get_recipe(NAME).deviations)


def test_recipes_describe_counts_the_papers_parameters(capsys: Capture) -> None:
    assert main(["recipes", "describe", NAME]) == 0
    printed = capsys.readouterr().out
    assert "parameters: 1,885,863" in printed
    assert "(6.5 G)" in printed


# misspelt input


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["evalute"], '"evaluate"'),
        (["recipes", "shwo"], "`recipes show`"),
        (["recipes", "show", "unifed-mri-ct"], "'unified-mri-ct'"),
        (["recipes", "describe", "unifed-mri-ct"], "'unified-mri-ct'"),
        (["train", "unified-mri", "--out", "x"], "'unified-mri-ct'"),
        (["train", NAME, "--ouput", "x"], "--out?"),
        (["train", NAME, "--resum", "--out", "x"], "--resume?"),
        (["train", NAME, "--seed", "1", "--out", "x"], "--training.seed?"),
        (["train", NAME, "--out", "x", "--training.max-epoch", "3"], "--training.max-epochs?"),
        (["train", NAME, "--out", "x", "--modalities.cr.scaling", "window"], "--modalities.ct.scaling?"),
        (["prepare", NAME, "--data", "mri=x", "--preparation.slice", "9"], "--preparation.slice-size?"),
        (["evaluate", "run", "--splt", "test"], "--split?"),
        (["phantom", "brain", "x"], "'brain-mri'"),
        (["inspect", ".", "--layout", "brat"], "'brats'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_nearest_is_suggested(arguments: list[str], suggestion: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "did you mean" in message.lower()
    assert suggestion in message
    assert "Traceback" not in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--out", "x"], "Expected a recipe"),
        (["train", NAME], "--out requires an argument"),
        (["train", NAME, "--out", "x", "--data", "mri"], "--data mri=data/lgg"),
        (["train", NAME, "--out", "x", "--data", "mri=y"], "or use a part of it with --only mri."),
        (["train", NAME, "--out", "x", "--training.max-epochs", "0"], "greater than 0"),
        (["train", NAME, "--out", "x", "--training.seed", "1", "--training.seed", "2"], "multiple times"),
        (["train", "no/recipe.json", "--out", "x"], "does not exist"),
        (["train", "--resume", "--out", "no/run"], "no/run does not exist; expected a run folder"),
        (["predict", "run", "--out", "x"], "Expected something to predict"),
        (["inspect", "no/such/folder"], "does not exist"),
        (["phantom", "brain-mri", "x", "--cases", "0"], "got 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], expected: str, capsys: Capture, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message
    assert not list(tmp_path.iterdir())


# exit codes


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (OncosegError("Mend it."), 2, "Mend it."),
        (PermissionError(13, "Permission denied", "some/file"), 2, "some/file: Permission denied"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (Terminated(), 143, "Stopped by SIGTERM"),
        (Terminated(signal.SIGUSR1), 138, "Stopped by SIGUSR1"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "The memory did not suffice"),
        (MemoryError("std::bad_alloc"), 2, "The memory did not suffice"),
        (OSError(12, "Cannot allocate memory"), 2, "The memory did not suffice"),
        (ValueError("odd"), 1, "ValueError: odd"),
    ],
    ids=["ours", "system", "ctrl-c", "sigterm", "sigusr1", "tensor", "object", "system call", "bug"],
)
def test_errors_become_messages_and_exit_codes(
    error: BaseException, code: int, expected: str, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(oncoseg.train, "train", failing(error))
    command = ["train", NAME, *DATA, "--out", "x"]
    assert main(command) == code
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message
    assert main(["--debug", *command]) == code
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_leaves_nothing_half_written(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    def train(recipe: Recipe, data: Any, out: Path, **more: Any) -> None:
        with atomic_file(out / "mask.nii") as temporary:
            temporary.touch()
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(oncoseg.train, "train", train)
    assert main(["train", NAME, *DATA, "--out", str(tmp_path)]) == 143
    assert "what was finished is kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# fields


def test_every_listed_field_can_be_given_as_listed() -> None:
    recipe = get_recipe(NAME)
    flags = [flag for flag in recipe_flags(recipe) if not flag.flag.endswith(".NAME")]
    for flag in flags:
        assert flag.meaning, flag.flag
        assert flag.default is not None, flag.flag
        assert recipe.with_changes({flag.flag: flag.default}) == recipe
    check_flags(recipe, [flag.flag for flag in flags])


def test_types_are_shown_in_words() -> None:
    values = {flag.flag: flag.values for flag in recipe_flags()}
    assert values["training.max-epochs"] == "int > 0"
    assert values["training.max-minutes"] == "float > 0 | none"
    assert values["training.tumour-share"] == "float ≥ 0, ≤ 1 | none"
    assert values["prediction.flips"] == "true | false"
    assert values["preparation.slice-size"] == "[int > 0, int > 0]"
    assert values["modalities.NAME.missing"] == "error | substitute"
    assert values["modalities.NAME.channels"] == "[text, …]"
    assert values["network.arguments.NAME"] == "JSON"


def test_keys_of_open_dictionaries_are_free() -> None:
    check_flags(get_recipe(NAME), ["network.arguments.depth", "modalities.ct.substitutes.T1"])
    with pytest.raises(RecipeError, match=r"did you mean --network\.name"):
        check_flags(get_recipe(NAME), ["network.nam"])


# data


@pytest.mark.parametrize("given", [["mri"], ["=x"], ["mri="], ["mri=a", "mri=b"]])
def test_data_flags_need_a_name_and_a_path_each(given: list[str]) -> None:
    with pytest.raises(DataError, match="--data"):
        parse_data(given)


def test_a_path_may_hold_an_equals_sign() -> None:
    assert parse_data(["mri=a=b"]) == {"mri": Path("a=b")}


def test_phantom_then_inspect(tmp_path: Path, capsys: Capture) -> None:
    folder, found = tmp_path / "mri", tmp_path / "found.json"
    assert main(["phantom", "brain-mri", str(folder), "--cases", "1", "--seed", "3"]) == 0
    assert "synthetic" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--json", str(found)]) == 0
    printed = capsys.readouterr().out
    assert "1 cases of 1 patients" in printed
    assert "T1 T1ce T2 FLAIR" in printed
    assert json.loads(found.read_text())["case_count"] == 1


def table_rows(printed: str) -> list[list[str]]:
    """The cells of every printed line."""
    return [re.split(r" {2,}", line.strip()) for line in printed.splitlines()]


def test_inspect_prints_every_case_and_every_problem(tmp_path: Path, capsys: Capture) -> None:
    spacing = np.diag([1.0, 2.0, 5.0, 1.0])  # a voxel of 10 mm³; 32 voxels are marked
    for number in (0, 1):
        brats_case(tmp_path, number, affine=spacing)
    case = tmp_path / "BraTS2021_00001"
    (case / "BraTS2021_00001_t2.nii.gz").unlink()
    mask = case / "BraTS2021_00001_seg.nii.gz"
    wrong = 9 * (np.asarray(nib.load(mask).dataobj) > 0)
    nib.Nifti1Image(wrong.astype(np.uint8), spacing).to_filename(mask)
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    ids, sound = ["BraTS2021_00000"] * 2, ["14×10×4", "1 × 2 × 5", "1", "4 enhancing tumour 0.32 ml", "2"]
    assert [*ids, "T1 T1ce T2 FLAIR", *sound] in table_rows(printed)
    ids, wrong_label = ["BraTS2021_00001"] * 2, [*sound[:3], "9 unexpected 0.32 ml", "2"]
    assert [*ids, "T1 T1ce FLAIR", *wrong_label] in table_rows(printed)
    assert "2 problems found" in printed
    missing, label = (line for line in printed.splitlines() if line.startswith("  ["))
    assert missing.startswith("  [missing-channel] BraTS2021_00001: ")
    assert "T2 is missing" in missing
    assert label.startswith("  [unexpected-label] BraTS2021_00001: the mask holds the value 9; expected only")


def test_inspect_of_exchanged_image_and_mask_says_so_in_few_words(tmp_path: Path, capsys: Capture) -> None:
    voxels = np.arange(1000, dtype=np.int16).reshape(10, 10, 10) - 1
    for name, array in {"image": voxels, "mask": (voxels > 500).astype(np.uint8)}.items():
        nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / f"{name}.nii")
    (tmp_path / "cases.csv").write_text("case,patient,CT,label\na,A,mask.nii,image.nii\n")
    assert main(["inspect", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "and 991 other values" in shown
    assert "An image has so many values (999): check that image and mask are not exchanged." in shown
    assert len(shown) < 2000


def test_inspect_counts_readers_and_says_where_no_size_is_known(tmp_path: Path, capsys: Capture) -> None:
    lidc_nodule(tmp_path, 1)  # two slices of 5×5 pixels, marked by three of four readers
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    row = ["LIDC-IDRI-0001_nodule-0", "LIDC-IDRI-0001", "CT", "16×16×3"]
    assert [*row, "unknown", "4", "255 nodule 50 voxels", "2"] in table_rows(printed)
    assert "No problems found" in printed


def test_prepare_says_what_is_wrong_with_the_data_and_bounds_its_memory(
    tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    tiny_data(tmp_path, mri=2, ct=0)
    (tmp_path / "mri" / "BraTS2021_00001" / "BraTS2021_00001_t2.nii.gz").unlink()
    bounds: list[float] = []
    monkeypatch.setattr(
        "oncoseg.prepare.prepare", lambda *_, memory_gib, **__: (bounds.append(memory_gib), [])[1]
    )
    data = ["--data", f"mri={tmp_path / 'mri'}", "--store", str(tmp_path / "store")]
    assert main(["prepare", NAME, *data, "--memory-gib", "2.5"]) == 0
    assert bounds == [2.5]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mri: [missing-channel] ")
    assert "BraTS2021_00001" in line


def test_prepare_a_part_of_the_modalities(tmp_path: Path, capsys: Capture, monkeypatch: Patch) -> None:
    tiny_data(tmp_path, mri=1, ct=1)
    monkeypatch.setattr("oncoseg.prepare.prepare", lambda *_, **__: [])
    data = ["--data", f"mri={tmp_path / 'mri'}", "--store", str(tmp_path / "store")]
    assert main(["prepare", NAME, "--only", "mri", *data]) == 0
    assert main(["prepare", NAME, "--only", "mri", *data, "--data", f"ct={tmp_path / 'ct'}"]) == 2
    assert "needs data for mri; got mri and ct" in capsys.readouterr().err


def test_an_existing_folder_is_not_written_into(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "kept.txt").touch()
    assert main(["phantom", "brain-mri", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize(
    ("command", "function"),
    [
        (["evaluate", "x"], "evaluate.run.evaluate_run"),
        (["agreement", "x", "--out", "y"], "evaluate.agreement.reader_agreement"),
        (["compare", "x", "y", "--out", "z"], "evaluate.compare.compare"),
        (["leaks", "x"], "evaluate.leaks.sides_of_run"),
        (["inspect", "x"], "inspect.inspect_dataset"),
    ],
)
def test_an_interrupted_command_claims_to_have_kept_something_only_where_it_has(
    command: list[str], function: str, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(f"oncoseg.{function}", failing(KeyboardInterrupt()))
    assert main(command) == 130
    assert "Interrupted; there is no complete result." in capsys.readouterr().err
