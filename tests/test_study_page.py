"""What a study concludes from its paired tests, in plain words."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from oncoseg.evaluate.compare import compare
from oncoseg.report.study import MAY_TURN, conclude
from test_compare import PATIENTS, evaluation

GOOD = [0.8 + number / 100 for number in range(len(PATIENTS))]
MIXED = [value + (0.05 if number % 2 else -0.05) for number, value in enumerate(GOOD)]
WORSE = [value - 0.1 for value in GOOD]


def conclusion(folder: Path, *systems: Sequence[float], n: int = len(PATIENTS)) -> tuple[str, bool]:
    """Of networks with these Dice in the first n patients."""
    folders = {
        f"net{number}": evaluation(folder / f"net{number}", dict(zip(PATIENTS[:n], values[:n], strict=True)))
        for number, values in enumerate(systems)
    }
    found = conclude("FLAIR", compare(folders, metrics=("dice",)))
    return found.text, found.any


@pytest.mark.parametrize(
    ("systems", "said"),
    [
        ((GOOD, MIXED), "no difference shown between the two networks (1 paired test)"),
        ((GOOD, MIXED, GOOD), "no difference shown between any two of the 3 networks (3 paired tests)"),
        ((GOOD, WORSE), "1 of 1 paired test shows a difference"),
        ((GOOD, WORSE, GOOD), "2 of 3 paired tests show a difference"),
    ],
)
def test_what_the_tests_show_is_said(tmp_path: Path, systems: Sequence[Sequence[float]], said: str) -> None:
    assert conclusion(tmp_path, *systems) == (f"FLAIR: {said}.", True)


def test_too_few_patients_say_nothing_however_they_differ(tmp_path: Path) -> None:
    text = "FLAIR: nothing can be said, as no test of 5 patients could have shown a difference."
    assert conclusion(tmp_path, GOOD, WORSE, n=5) == (text, False)


def test_without_a_patient_that_two_networks_share_nothing_can_be_said(tmp_path: Path) -> None:
    """Each of two networks is undefined where the other is not; a third is the first again."""
    half, none = len(PATIENTS) // 2, float("nan")
    one, other = [*GOOD[:half], *[none] * half], [*[none] * half, *GOOD[half:]]
    text = "FLAIR: nothing can be said, as no patient has a score of two networks."
    assert conclusion(tmp_path / "two", one, other) == (text, False)
    text, could = conclusion(tmp_path / "three", GOOD, MIXED, [none] * len(PATIENTS))
    tests = "3 paired tests, of which 2 could not have shown one"
    assert text == f"FLAIR: no difference shown between any two of the 3 networks ({tests})."
    assert could


@pytest.mark.parametrize(
    ("shifts", "doubt"),
    [((-0.1, -0.09), ""), ((-0.3, 0.05), f"; in 1 of them {MAY_TURN}")],
)
def test_a_difference_that_one_bad_training_makes_is_doubted(
    tmp_path: Path, shifts: Sequence[float], doubt: str
) -> None:
    """All patients agree in both cases; in the second the one network's trainings lie around the other's."""
    trainings = {"net0": (0.0, 0.01), "net1": shifts}
    folders = {
        name: [
            evaluation(
                tmp_path / f"{name}-{number}",
                {patient: value + shift for patient, value in zip(PATIENTS, GOOD, strict=True)},
            )
            for number, shift in enumerate(of)
        ]
        for name, of in trainings.items()
    }
    found = conclude("FLAIR", compare(folders, metrics=("dice",)))
    assert found.text == f"FLAIR: 1 of 1 paired test shows a difference{doubt}."
