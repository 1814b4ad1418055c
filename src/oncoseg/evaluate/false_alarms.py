"""False alarms on patients without tumour: where a rightly empty mask has no Dice, they would go unseen."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from oncoseg.evaluate.truths import Part, Scored

FALSE_ALARM = "false_alarm"
"""The metric that they are read from."""


class FalseAlarms(NamedTuple):
    """What systems mark in patients of one group whose truth holds nothing of one class.

    Attributes:
        group: the modality, or empty.
        label: the class.
        patients: how many there are.
        alarms: system → in how many of them it marks something, or has no file. Several cases of a patient,
            and several trainings of a system, count by their share.
    """

    group: str
    label: str
    patients: int
    alarms: dict[str, float]

    @property
    def sentence(self) -> str:
        """The same in words."""
        what = " ".join(filter(None, (self.group, self.label)))
        found = ", ".join(f"{system} in {count:.3g}" for system, count in self.alarms.items())
        return f"{self.patients} patients have no {what} in the truth; of these a false alarm has {found}"


def false_alarms(
    part: Part, cases: Mapping[str, Scored], values: Mapping[str, Mapping[str, float]]
) -> FalseAlarms | None:
    """Count them.

    Args:
        part: group and class.
        cases: case → whose it is, and whether its truth is empty.
        values: system → patient → value of the metric FALSE_ALARM.

    Returns:
        None where every patient has tumour.
    """
    empty = _without_tumour(cases.values())
    common = sorted(empty.intersection(*values.values()))
    if not common:
        return None
    alarms = {system: sum(of[patient] for patient in common) for system, of in values.items()}
    return FalseAlarms(*part, len(common), alarms)


def _without_tumour(cases: Collection[Scored]) -> set[str]:
    return {case.patient for case in cases} - {case.patient for case in cases if not case.empty}
