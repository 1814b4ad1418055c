"""What a comparison says of empty and missing masks: the policy, whom it touched, and what was handed in."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from oncoseg.evaluate.entrants import Entrant, Key

Touched = dict[str, dict[str, int]]
"""System → rule → patients whose value it decided; of several trainings, counted in each."""


def touched_by_rules(systems: Mapping[str, Sequence[Entrant]], key: Key) -> Touched:
    """Whose values of one metric were decided by rules for empty or missing masks."""
    return {
        system: dict(sum((Counter(entrant.rules.get(key, {})) for entrant in several), Counter()))
        for system, several in systems.items()
    }


def in_words(rules: Mapping[str, int]) -> str:
    """As in `prediction_empty 1, prediction_missing 2`; empty where no rule decided anything."""
    return ", ".join(f"{rule} {count}" for rule, count in rules.items())


def touched_sentence(title: str, touched: Touched) -> str:
    """Of all systems; empty where no rule decided anything."""
    found = "; ".join(f"{system} {in_words(rules)}" for system, rules in touched.items() if rules)
    return (
        f"{title}, patients whose value a rule for empty or missing masks decided: {found}" if found else ""
    )


def policy_sentence(scoring: Mapping[str, Any]) -> str:
    """By which policy all were scored.

    Args:
        scoring: as in summary.json; what an early version did not write is left out.
    """
    changed = "".join(f", {name} = {value}" for name, value in scoring.get("outcomes", {}).items())
    said = f"Empty and missing masks: policy {scoring['policy']}{changed}, the same for all."
    return f"{said} Surface Dice at {scoring['tolerance_mm']:g} mm." if "tolerance_mm" in scoring else said


def handed_in(entrants: Sequence[Entrant]) -> list[str]:
    """Who lacks predictions; a mean tells it only where it is asked for."""
    said = []
    for entrant in entrants:
        missing, unusable = (len(entrant.summary.get(name) or ()) for name in ("missing", "failures"))
        if missing or unusable:
            said.append(
                f"{entrant.name}: {missing} of {entrant.summary['cases']} predictions missing, {unusable} "
                "unusable; they count as missing."
            )
    return said
