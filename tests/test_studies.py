"""Studies as data: what they resolve to, and what is wrong with one that a user wrote."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from oncoseg import models
from oncoseg.cli import main
from oncoseg.errors import RecipeError
from oncoseg.recipes import get_recipe
from oncoseg.studies import STUDIES, open_study
from oncoseg.studies.study import Group, Study, Variant
from oncoseg.study_folder import StudyFolder
from tiny_study import study_file, tiny_study

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_comes_back_from_json_and_has_runs(name: str) -> None:
    study = open_study(name)
    assert Study.from_json(study.to_json()) == study
    assert len(study.runs()) == len(study.groups) * len(study.variants)


def test_the_published_study_has_twelve_runs_that_differ_by_sequence_and_network_alone() -> None:
    runs = open_study("aspp-attention").runs()
    assert len(runs) == 12
    names = ("title", "published", "name", "deviations")
    shared = [
        {
            key: value
            for key, value in run.recipe.model_dump().items()
            if key not in (*names, "modalities", "network")
        }
        for run in runs
    ]
    assert all(one == shared[0] for one in shared)
    channels = {run.group: run.recipe.modalities["mri"].channels for run in runs}
    assert channels == {"T1C": ("T1ce",), "FLAIR": ("FLAIR",), "T2W": ("T2",)}
    arguments = {run.variant: run.recipe.network.arguments for run in runs}
    assert {name: (of.get("attention", True), of["context"]) for name, of in arguments.items()} == {
        "U-Net": (False, None),
        "Attention U-Net": (True, None),
        "Attention U-Net + SPP": (True, "spp"),
        "Attention U-Net + ASPP": (True, "aspp"),
    }


def test_a_run_shows_the_papers_figures_of_its_own_network_only() -> None:
    published = {run.name: run.recipe.published for run in open_study("aspp-attention").runs()}
    assert published["T1C, U-Net"] == ()
    assert published["FLAIR, Attention U-Net"][0].scores == {"dice": 0.783, "iou": 0.4431}
    assert published["FLAIR, Attention U-Net + ASPP"][0].scores == {"dice": 0.7975, "iou": 0.4583}


def test_changes_are_those_of_the_group_then_the_variant_then_all_runs() -> None:
    study = tiny_study(
        groups={
            "G": Group(recipe="aspp-attention-flair", changes={"training.seed": 1, "training.patience": 1})
        },
        variants={"V": Variant(changes={"training.seed": 2, "training.max_epochs": 2})},
        changes={"training.max_epochs": 3},
        published=None,
    )
    training = study.runs()[0].recipe.training
    assert (training.patience, training.seed, training.max_epochs) == (1, 2, 3)
    assert study.with_changes({"training.max-epochs": "4"}).runs()[0].recipe.training.max_epochs == 4


def test_a_group_may_hold_a_recipe_of_its_own() -> None:
    recipe = get_recipe("aspp-attention-flair").with_changes({"name": "mine"})
    study = tiny_study(groups={"G": Group(recipe=recipe)}, published=None)
    again = Study.from_json(study.to_json())
    assert again == study
    assert [run.recipe.name for run in again.runs()] == ["mine", "mine"]


def test_a_part_of_the_runs_can_be_chosen() -> None:
    assert [run.name for run in tiny_study().runs(["T1C"], ["ASPP"])] == ["T1C, ASPP"]
    assert [run.name for run in tiny_study().runs(variants=["U-Net"])] == ["FLAIR, U-Net", "T1C, U-Net"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 3}, "Study field minutes: unknown field, did you mean 'minutes_each'?"),
        ({"minutes_each": 0}, "Study field minutes_each: Input should be greater than 0; got 0."),
        ({"groups": {}}, "groups must name at least one, got none"),
        ({"variants": {"A B": {}, "a-b": {}}}, "must differ by letters, digits, '.', '_' or '-'"),
        ({"variants": {"..": {}}}, "the names of variants become folders"),
        ({"variants": {"A": {"change": {}}}, "published": None}, "unknown field, did you mean 'changes'?"),
        ({"tested": ["dise"]}, "tested names 'dise'; did you mean 'dice'."),
        ({"tested": []}, "tested must name at least one metric, got none"),
        ({"tested": ["dice", "volume_difference_ml"]}, "tested names volume_difference_ml, which has a sign"),
        ({"variants": {"A": {}}}, "published names 'ASPP'; expected one of A."),
        ({"groups": {"A": {}}}, "Study field groups.A.recipe: Field required."),
        ({"seeds": [1, 2, 1]}, "seeds must differ, got [1, 2, 1]"),
        (
            {"seeds": [1], "changes": {"training.seed": 2}},
            "training.seed is changed, and the seeds [1] set it",
        ),
        ({"seeds": [0, -1]}, "FLAIR, U-Net: Recipe field training.seed: Input should be greater than"),
    ],
)
def test_a_study_that_cannot_be_is_told_in_a_sentence(
    tmp_path: Path, capsys: Capture, changes: dict[str, Any], message: str
) -> None:
    assert main(["studies", "describe", str(study_file(tmp_path, **changes))]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"groups": {"G": Group(recipe="aspp-attention-flare")}}, "G, U-Net: Unknown recipe"),
        ({"changes": {"training.epochs": 3}}, "FLAIR, U-Net: Unknown recipe field 'training.epochs'"),
        (
            {"variants": {"A": Variant(), "B": Variant(changes={"split.train": 0.5})}},
            "FLAIR, A and FLAIR, B differ in `split`; expected the same",
        ),
        (
            {"variants": {"A": Variant(), "B": Variant(changes={"modalities.mri.max_slices": 9})}},
            "FLAIR, A and FLAIR, B differ in modalities.mri.max_slices",
        ),
        ({"changes": {"training.max_minutes": 3}}, "Use --max-minutes for the whole call, or --minutes-each"),
    ],
)
def test_runs_that_cannot_be_are_told_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        tiny_study(**({"changes": {}, "published": None} | fields)).runs()
    assert message in str(error.value)


def test_every_network_is_trained_with_every_seed_one_seed_after_the_other() -> None:
    runs = tiny_study(seeds=(4, 2)).runs(["T1C"])
    assert [run.name for run in runs] == [
        f"T1C, {name}, seed {seed}" for seed in (4, 2) for name in ("U-Net", "ASPP")
    ]
    assert [run.recipe.training.seed for run in runs] == [4, 4, 2, 2]
    assert runs[3].recipe.title == "Two networks on two sequences: T1C, ASPP, seed 2"
    folder = StudyFolder(Path("out"))
    assert folder.run(runs[3]).path == Path("out/runs/T1C/ASPP/seed-2")
    for one, other in zip(runs[:2], tiny_study().runs(["T1C"]), strict=True):
        plain = {"title": "", "training": other.recipe.training}
        assert one.recipe.model_copy(update=plain) == other.recipe.model_copy(update=plain)


def test_one_seed_is_a_study_as_ever_with_that_seed() -> None:
    one, none = tiny_study(seeds=(7,)), tiny_study()
    assert [run.name for run in one.runs()] == [run.name for run in none.runs()]
    assert [StudyFolder(Path()).run(run).path for run in one.runs()] == [
        StudyFolder(Path()).run(run).path for run in none.runs()
    ]
    assert one.runs()[0].recipe == none.with_changes({"training.seed": 7}).runs()[0].recipe
    assert Study.from_json(one.to_json()) == one
    assert "seeds" not in json.loads(none.to_json())  # older programs read it


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'aspp-attention'"):
        open_study("asp-attention")
    with pytest.raises(RecipeError, match="does not exist"):
        open_study(str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(RecipeError, match="Expected a study as JSON"):
        open_study(str(tmp_path / "bad.json"))
    with pytest.raises(RecipeError, match="has no group 'FLARE'; did you mean 'FLAIR'"):
        tiny_study().runs(["FLARE"])


def test_studies_are_listed_shown_and_described(tmp_path: Path, capsys: Capture) -> None:
    assert main(["studies"]) == 0
    assert "3 × 4" in capsys.readouterr().out
    assert main(["studies", "show", "aspp-attention"]) == 0
    assert Study.from_json(capsys.readouterr().out) == open_study("aspp-attention")
    assert main(["studies", "describe", str(study_file(tmp_path))]) == 0
    assert "two-by-two: 4 runs" in capsys.readouterr().out
    assert main(["studies", "shw"]) == 2
    assert "did you mean `studies show`?" in capsys.readouterr().err


def test_a_dry_run_shows_the_plan_with_the_flags_and_writes_nothing(tmp_path: Path, capsys: Capture) -> None:
    file, out = study_file(tmp_path), tmp_path / "out"
    flags = ["--training.max-epochs", "7", "--minutes-each", "30", "--only-group", "T1C"]
    assert main(["study", str(file), "--dry-run", "--out", str(out), *flags]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith("T1C")]
    assert [row[:5] for row in rows] == [
        ["T1C", "U-Net", "attention-unet", "7", "1×16×16"],
        ["T1C", "ASPP", "attention-unet", "7", "1×16×16"],
    ]
    parameters = json.loads(rows[0][5].replace(",", ""))
    assert parameters < json.loads(rows[1][5].replace(",", ""))
    assert "Budget of each run: 30 minutes, or all epochs where these take less." in printed
    assert not out.exists()


def test_a_dry_run_counts_the_trainings_with_several_seeds(tmp_path: Path, capsys: Capture) -> None:
    assert main(["study", str(study_file(tmp_path)), "--dry-run", "--seeds", "[0,1,2]"]) == 0
    assert "two-by-two: 4 runs, each with the seeds 0, 1, 2: 12 trainings" in capsys.readouterr().out
    assert main(["studies", "describe", str(study_file(tmp_path, seeds=[5, 6]))]) == 0
    assert "two-by-two: 4 runs, each with the seeds 5, 6: 8 trainings" in capsys.readouterr().out


def test_help_lists_the_fields_with_the_first_runs_values(capsys: Capture) -> None:
    assert main(["study", "aspp-attention", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--only-variant" in words
    assert "--training.max-epochs Epochs of joint training" in words
    assert "{int > 0} [default: 100]" in words


def test_the_documented_study_can_be_described(tmp_path: Path, capsys: Capture) -> None:
    document = Path(__file__).parents[1] / "docs" / "studies.md"
    (example,) = re.findall(r"```json\n({.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "gates.json").write_text(example, encoding="utf-8")
    assert main(["studies", "describe", str(tmp_path / "gates.json")]) == 0
    printed = capsys.readouterr().out
    assert "gates: 3 runs" in printed
    assert "Metrics of the paired tests: dice, hd95_max_mm." in printed


def test_the_documented_costs_are_the_networks() -> None:
    document = (Path(__file__).parents[1] / "docs" / "studies.md").read_text(encoding="utf-8")
    for run in open_study("aspp-attention").runs(["FLAIR"]):
        network, size = run.recipe.network, run.recipe.preparation.slice_size
        cost = models.describe(network.name, network.arguments, 1, 1, size)
        row = f"| {run.variant} | {cost.parameters:,} | {cost.multiply_adds / 1e9:.1f} G |"
        assert row in document
