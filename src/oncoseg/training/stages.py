"""What is trained, in which order and how long."""

from typing import NamedTuple

from oncoseg.recipe import Recipe


class Stage(NamedTuple):
    """A part of the training with a schedule of its own.

    Attributes:
        name: `pretrain`, `joint`, or `extension-1` and so on.
        modalities: whose slices it sees.
        epochs: how many at most; early stopping may end it before.
        keeps_best: whether its best weights are kept.
    """

    name: str
    modalities: tuple[str, ...]
    epochs: int
    keeps_best: bool


def stages_of(recipe: Recipe) -> list[Stage]:
    """Pretraining if the recipe wants it, joint training (S1, section 4.4), and its extensions."""
    training, every = recipe.training, tuple(recipe.modalities)
    stages = []
    if training.pretrain_on is not None and training.pretrain_epochs > 0:
        stages.append(Stage("pretrain", (training.pretrain_on,), training.pretrain_epochs, keeps_best=False))
    stages.append(Stage("joint", every, training.max_epochs, keeps_best=True))
    for number, epochs in enumerate(training.extensions, 1):
        stages.append(Stage(f"extension-{number}", every, epochs, keeps_best=True))
    return stages
