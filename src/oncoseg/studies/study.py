"""`Study`: several networks on the same data and the same sides, as frozen typed data like a recipe."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from oncoseg.datasets.folders import safe_id
from oncoseg.errors import RecipeError, nearest
from oncoseg.recipe import Published, Recipe
from oncoseg.recipe_fields import validated
from oncoseg.recipes import get_recipe

FORMAT_VERSION: Literal[1] = 1
"""Version of study files; raised when an older program could not read a newer one rightly."""

PRINTED_SCORES = ("dice", "miou", "iou", "precision", "recall", "accuracy")
PRINTED_COSTS = ("training_minutes", "inference_seconds")
"""What papers print of each network; scores in [0, 1]."""

Scores = dict[
    Literal[
        "dice", "miou", "iou", "precision", "recall", "accuracy", "training_minutes", "inference_seconds"
    ],
    float,
]

Shown = Literal["dice", "miou_foreground", "miou_classes", "precision", "recall", "accuracy"]
"""Columns of table 1; see `evaluate.overlap_table.MEANINGS`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Group(_Part):
    """What all variants are trained on, such as one MRI sequence: a row of the paper's figure."""

    recipe: str | Recipe
    """A name in RECIPES, or a whole recipe."""
    changes: dict[str, Any] = {}
    """Of the recipe's fields, as in `Recipe.with_changes`."""


class Variant(_Part):
    """One of the networks that are compared."""

    changes: dict[str, Any] = {}
    """Of the recipe's fields, after the group's."""


class PublishedRow(_Part):
    """What a paper prints of one network on one group."""

    group: str
    variant: str
    scores: Scores


class PublishedTable(_Part):
    """A paper's figures, to stand beside ours."""

    data: str
    """On what they were reached, in words."""
    same_data: bool = False
    """Whether these are the very patients of the study, on the same sides; False marks them as other data."""
    rows: tuple[PublishedRow, ...]


class Run(NamedTuple):
    """One of a study's trainings.

    Attributes:
        group: on which it is trained.
        variant: the network.
        recipe: complete.
        seed: which training of the network it is; None where there is only one.
    """

    group: str
    variant: str
    recipe: Recipe
    seed: int | None = None

    @property
    def name(self) -> str:
        """For people."""
        return _name(self.group, self.variant, self.seed)


class Study(_Part):
    """A complete description: every group is trained with every variant."""

    name: str
    """The study's name."""
    title: str
    """One line for people."""
    source: str
    """The paper, or whose idea it is."""
    format_version: Literal[1] = FORMAT_VERSION
    """Version of this description."""
    groups: dict[str, Group]
    """What is trained on, in the order of the tables."""
    variants: dict[str, Variant]
    """The networks, in the order of the tables; the first chooses the figure's case."""
    changes: dict[str, Any] = {}
    """Of the recipe's fields, in every run, after the group's and the variant's."""
    seeds: tuple[int, ...] = ()
    """Each run is trained once with each of these as its `training.seed`, all on one split; empty for one
    training with the recipe's own."""
    minutes_each: Annotated[float, Field(gt=0)] | None = None
    """Training time of each run, after which its best weights so far are kept; None for all its epochs."""
    shown: tuple[Shown, ...] = ("dice", "miou_foreground", "miou_classes", "accuracy")
    """Scores of table 1 on the page, in order; the file has all of them."""
    tested: tuple[str, ...] = ("dice",)
    """Metrics of the paired tests; every further one makes Holm's correction harsher."""
    published: PublishedTable | None = None
    """What the paper reports."""
    deviations: tuple[str, ...] = ()
    """Where we differ from the paper or settle what it leaves open."""

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        for what, names in (("groups", self.groups), ("variants", self.variants)):
            if not names:
                raise ValueError(f"{what} must name at least one, got none")
            folders = [safe_id(name).lower() for name in names]
            if len(set(folders)) < len(folders) or not all(name.strip("-. ") for name in folders):
                raise ValueError(
                    f"the names of {what} become folders and must differ by letters, digits, '.', '_' or "
                    f"'-', got {list(names)}"
                )
        for row in self.published.rows if self.published else ():
            for name, known in ((row.group, self.groups), (row.variant, self.variants)):
                if name not in known:
                    raise ValueError(f"published names {name!r}; {nearest(name, known).rstrip('.?')}")
        _check_metrics(self.tested)
        _check_seeds(self.seeds, [self.changes, *(of.changes for of in self._parts())])
        return self

    @property
    def several(self) -> bool:
        """Whether each network is trained several times."""
        return len(self.seeds) > 1

    @property
    def first_seed(self) -> int | None:
        """`Run.seed` of the first training of each network."""
        return self.seeds[0] if self.several else None

    def to_json(self) -> str:
        """The complete study as indented JSON; without `seeds`, as ever, where there are none."""
        return self.model_dump_json(indent=2, exclude=set() if self.seeds else {"seeds"})

    @classmethod
    def from_json(cls, text: str) -> "Study":
        """Read what `to_json` wrote.

        Raises:
            RecipeError: not JSON, an unknown field, or a value out of its range.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise RecipeError(f"Expected a study as JSON, but {error}.") from error
        return validated(Study, values)

    def with_changes(
        self, changes: Mapping[str, Any], minutes_each: float | None = None, seeds: Sequence[int] = ()
    ) -> "Study":
        """A copy with some of the recipes' fields changed in every run.

        Args:
            changes: as in `Recipe.with_changes`.
            minutes_each: see the field; None leaves it.
            seeds: see the field; none leave it.

        Raises:
            RecipeError: an unfit budget, or unfit seeds. Unfit fields are found by `runs`.
        """
        values = self.model_dump(mode="json")
        values["changes"] |= dict(changes)
        given = {"minutes_each": minutes_each, "seeds": list(seeds) or None}
        return validated(Study, values | {name: value for name, value in given.items() if value is not None})

    def runs(self, groups: Iterable[str] = (), variants: Iterable[str] = ()) -> list[Run]:
        """Every training with its complete recipe: group by group, all with one seed before the next.

        Args:
            groups: only of these; none named for all.
            variants: likewise.

        Raises:
            RecipeError: an unknown group, variant or recipe, a change that does not fit one, or runs that
                could not share one split.
        """
        runs = [
            Run(group, variant, self._recipe(group, variant, seed), seed if self.several else None)
            for seed in self.seeds or (None,)
            for group in self.groups
            for variant in self.variants
        ]
        _check_shared(runs)
        chosen = _chosen("group", groups, self.groups), _chosen("variant", variants, self.variants)
        return [run for run in runs if run.group in chosen[0] and run.variant in chosen[1]]

    def printed(self, group: str, variant: str) -> Mapping[str, float]:
        """What the paper prints of a run; nothing where it prints nothing."""
        rows = self.published.rows if self.published else ()
        return {
            str(name): value
            for row in rows
            if (row.group, row.variant) == (group, variant)
            for name, value in row.scores.items()
        }

    def _parts(self) -> "list[Group | Variant]":
        return [*self.groups.values(), *self.variants.values()]

    def _recipe(self, group: str, variant: str, seed: int | None) -> Recipe:
        of, sown = self.groups[group], {} if seed is None else {"training.seed": seed}
        try:
            recipe = get_recipe(of.recipe) if isinstance(of.recipe, str) else of.recipe
            for changes in (of.changes, self.variants[variant].changes, self.changes, sown):
                recipe = recipe.with_changes(changes)
        except RecipeError as error:
            raise RecipeError(f"{group}, {variant}: {error}") from error
        # the recipe's own are of the paper's best network, which the others are not
        title = f"{self.title}: {_name(group, variant, seed if self.several else None)}"
        return recipe.model_copy(update={"title": title, "published": self._beside(recipe, group, variant)})

    def _beside(self, recipe: Recipe, group: str, variant: str) -> tuple[Published, ...]:
        printed = self.printed(group, variant)
        scores = {
            ours: printed[name] for name, ours in (("dice", "dice"), ("miou", "iou")) if name in printed
        }
        return (Published(row=next(iter(recipe.modalities)), scores=scores),) if scores else ()


def _name(group: str, variant: str, seed: int | None) -> str:
    return f"{group}, {variant}" if seed is None else f"{group}, {variant}, seed {seed}"


def _check_seeds(seeds: Sequence[int], changes: Iterable[Mapping[str, Any]]) -> None:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must differ, got {list(seeds)}")
    if seeds and any("training.seed" in of for of in changes):
        raise ValueError(
            f"training.seed is changed, and the seeds {list(seeds)} set it, too; expected one of both"
        )


def _check_metrics(names: Iterable[str]) -> None:
    from oncoseg.metrics.catalogue import METRICS  # late: listing studies needs no arrays

    for name in names:
        if name not in METRICS:
            raise ValueError(f"tested names {name!r}; {nearest(name, METRICS).rstrip('.?')}")
        if METRICS[name].better == "zero":
            raise ValueError(
                f"tested names {name}, which has a sign, so that neither more nor less of it is better; "
                "expected another, such as volume_error"
            )
    if not list(names):
        raise ValueError("tested must name at least one metric, got none")


def _check_shared(runs: list[Run]) -> None:
    """Check that one split serves all runs, and that their budgets are the study's.

    Raises:
        RecipeError: they differ; says in what.
    """
    first = runs[0]
    for run in runs:
        if run.recipe.training.max_minutes is not None:
            raise RecipeError(
                f"{run.name}: training.max_minutes bounds a call of `train`; expected none in a study. Use "
                "--max-minutes for the whole call, or --minutes-each for each run."
            )
        if run.recipe.split != first.recipe.split:
            raise RecipeError(
                f"{first.name} and {run.name} differ in `split`; expected the same, as all runs of a study "
                "share one split. Change it in all of them (the study's `changes`)."
            )
    limits: dict[str, tuple[Run, int | None]] = {}
    for run in runs:
        for name, modality in run.recipe.modalities.items():
            other, limit = limits.setdefault(name, (run, modality.max_slices))
            if limit != modality.max_slices:
                raise RecipeError(
                    f"{other.name} and {run.name} differ in modalities.{name}.max_slices; expected the same, "
                    "as all runs of a study have the same patients."
                )


def _chosen(what: str, wanted: Iterable[str], known: Iterable[str]) -> set[str]:
    chosen = set(wanted)
    for name in sorted(chosen - set(known)):
        raise RecipeError(f"The study has no {what} {name!r}; {nearest(name, known)}")
    return chosen or set(known)
