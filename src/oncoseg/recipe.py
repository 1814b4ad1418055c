"""`Recipe`: the complete, frozen, typed description of a run.

Everything that decides a result is a field here, with its published default; a run folder keeps the
resolved recipe as JSON. Code that computes takes plain arguments and never sees a recipe.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from oncoseg.errors import RecipeError, nearest
from oncoseg.recipe_fields import set_field, validated, wholes_first

FORMAT_VERSION: Literal[1] = 1
"""Version of run folders; raised when an older program could not read a newer folder rightly."""

ALL_MODALITIES = "all"
"""What tables call all modalities together; no modality may have this name."""

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Millimetres = Annotated[float, Field(gt=0)]

VOLUME_SCALINGS = ("volume-percentile", "volume-zscore", "window")
"""Ways of scaling in 3D; in 2D there are all."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Loss(_Part):
    """One modality's loss term."""

    name: str = "focal-tversky"
    """A name in LOSSES."""
    arguments: dict[str, float | tuple[float, ...]] = {}
    """What the loss takes, for example alpha (weight of FN), beta (weight of FP), gamma."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of this modality's term in the sum."""


class Modality(_Part):
    """How one kind of examination enters the network."""

    channels: tuple[str, ...]
    """Channel names in the network's order; a repeated name repeats the channel."""
    missing: Literal["error", "substitute"] = "error"
    """What happens to a case without one of the channels: refuse it, or use the stated substitute."""
    substitutes: dict[str, str] = {}
    """Missing channel → the channel used instead, or `zeros`."""
    consensus: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the readers that must mark a voxel; 0.5 is a majority vote with ties kept."""
    scaling: Literal["slice-minmax", "slice-percentile", "window", "volume-percentile", "volume-zscore"] = (
        "slice-minmax"
    )
    """To [0, 1]: each slice by its minimum and maximum, or by its percentiles; a fixed window; or the whole
    volume by its percentiles, or from 5 standard deviations below its mean to 5 above. 3D: not by slices."""
    scaling_over: Literal["nonzero", "all"] = "nonzero"
    """Which voxels of a volume count for `volume-…`: those that are not 0 (which stay 0), or all."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Lower and upper percentile for `slice-percentile` and `volume-percentile`."""
    window: tuple[float, float] = (-1000.0, 400.0)
    """Lower and upper intensity for `window`, in the image's own unit (HU for CT)."""
    max_slices: Positive | None = None
    """Leave out cases of more axial slices in training and evaluation, and tell each; None takes all."""
    loss: Loss = Loss()
    """This modality's loss term."""

    @model_validator(mode="after")
    def _ordered(self) -> "Modality":
        if not self.channels:
            raise ValueError("channels must name at least one channel, got none")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles must be 0 ≤ lower < upper ≤ 100, got {list(self.percentiles)}")
        if not self.window[0] < self.window[1]:
            raise ValueError(f"window must be lower < upper, got {list(self.window)}")
        return self


class Preparation(_Part):
    """From source slices to what the network sees."""

    spatial_dims: Literal[2, 3] = 2
    """2: the network sees axial slices; 3: it sees windows of volumes."""
    slice_size: tuple[Positive, Positive] = (128, 128)
    """2D: rows and columns of a prepared axial slice. Slices are padded to a square, then resized."""
    neighbours: Annotated[int, Field(ge=0)] = 0
    """2D: so many slices on either side join a slice as channels (2.5D); beyond the ends the last repeats."""
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] | None = None
    """3D: voxel size along right, anterior, superior to which volumes are resampled; None for unplanned."""
    patch: tuple[Positive, Positive, Positive] | None = None
    """3D: voxels along right, anterior, superior of the windows in training; None for unplanned."""

    @model_validator(mode="after")
    def _consistent(self) -> "Preparation":
        if self.spatial_dims == 3 and self.neighbours:
            raise ValueError(
                f"neighbours are for slices; expected 0 with spatial_dims 3, got {self.neighbours}"
            )
        for name in ("spacing_mm", "patch"):
            value = getattr(self, name)
            if self.spatial_dims == 2 and value is not None:
                raise ValueError(
                    f"{name} is for volumes; expected none with spatial_dims 2, got {list(value)}"
                )
        return self


class Augmentation(_Part):
    """Random changes of each training slice; each with its own probability `*_chance`."""

    flip_chance: Share = 0.5
    """2D: chance of a horizontal and, independently, of a vertical flip."""
    flip_chances: tuple[Share, Share, Share] = (0.5, 0.0, 0.0)
    """3D: chances of a flip left–right, front–back and head–feet."""
    rotation_chance: Share = 0.5
    """Chance of a rotation."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Largest rotation to either side; in 3D about the axis from head to feet."""
    tilt_degrees: Annotated[float, Field(ge=0, le=180)] = 5.0
    """3D: largest rotation about each of the other axes, where there is a rotation."""
    scale_chance: Share = 0.0
    """Chance of a zoom (not in the paper, off by default)."""
    scale_range: tuple[float, float] = (0.85, 1.2)
    """Smallest and largest zoom factor."""
    elastic_chance: Share = 0.3
    """Chance of an elastic deformation."""
    elastic_pixels: Annotated[float, Field(ge=0)] = 2.0
    """Standard deviation of the displacement at the cells' centres, in prepared pixels (3D: voxels)."""
    elastic_cells: Positive = 8
    """Cells of the displacement field along each axis of a slice or patch; fewer is smoother."""
    brightness_chance: Share = 0.5
    """Chance of a change of brightness and contrast."""
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Largest shift of intensity, on the [0, 1] scale."""
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Largest relative change of contrast about the slice's mean."""
    dropout_chance: Share = 0.3
    """Chance of coarse dropout: square (3D: cubic) holes set to 0 in the image, never in the mask."""
    dropout_holes: Positive = 4
    """Number of holes."""
    dropout_size: Share = 0.125
    """Side of a hole as a share of the slice's or patch's side."""
    crop: tuple[Positive, Positive] | None = None
    """2D: train on windows of this size, at most a slice's, instead of whole slices (not in the paper)."""
    crop_on_tumour: Share = 0.5
    """Chance that the window of a slice with tumour lies on the tumour; otherwise anywhere."""

    @model_validator(mode="after")
    def _ordered(self) -> "Augmentation":
        if not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(f"scale_range must be 0 < smallest ≤ largest, got {list(self.scale_range)}")
        return self


class Network(_Part):
    """Which network."""

    name: str = "attention-unet"
    """A name in MODELS."""
    arguments: dict[str, Any] = {}
    """Its arguments besides the number of channels and classes; `oncoseg networks show` lists them."""


class Optimiser(_Part):
    """How gradients become steps."""

    name: str = "adamw"
    """A name in OPTIMISERS: adam, adamw or sgd (with Nesterov's momentum)."""
    arguments: dict[str, float] = {}
    """Besides learning rate and decay: beta1 and beta2, or momentum; one-cycle moves what is not given."""


class Schedule(_Part):
    """The learning rate over a stage."""

    name: str = "one-cycle"
    """A name in SCHEDULES: constant, cosine, one-cycle, plateau or polynomial."""
    arguments: dict[str, float] = {}
    """What it takes, for example warmup_share (one-cycle), cycles (cosine), power (polynomial)."""


class Unlabelled(_Part):
    """Learning from scans without a mask: mean teacher, Tarvainen & Valpola 2017 (arXiv:1703.01780)."""

    weight: Annotated[float, Field(ge=0)] = 0.0
    """Largest weight of the consistency term beside the loss of the scans with a mask; 0 for none of it. The
    teacher is the moving average of the weights, so that `training.average_decay` is needed, too."""
    ramp_share: Share = 0.3
    """Share of the joint stage's steps over which the weight rises."""


class Training(_Part):
    """How the network is trained."""

    pretrain_on: str | None = None
    """The modality that is trained alone first; None for no pretraining."""
    pretrain_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs of that first stage."""
    max_epochs: Positive = 30
    """Epochs of joint training; in one epoch the largest modality's slices are seen once."""
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Stop cleanly after a checkpoint when one call has taken this long, with preparing and validating."""
    batch_size: Positive = 8
    """Slices or patches in a batch, shared equally among the stage's modalities."""
    tumour_share: Share | None = None
    """2D: share of slices with tumour in each modality's part of a batch; None takes them as they come."""
    tumour_class: str | None = None
    """2D: the class that `tumour_share` is about, such as the tumour beside its organ; None for any class."""
    foreground_share: Share = 0.33
    """3D: least share of an epoch's patches that lie on a voxel of a class, all classes equally often."""
    patches_per_case: Positive = 4
    """3D: so many patches of each case of the largest modality make an epoch."""
    balance: Literal["class", "site"] | None = None
    """Draw equally often from every class of cases, or every site, of a modality; None as they come."""
    accumulate: Positive = 1
    """Batches whose gradients are averaged for one step; each has a loss and batch statistics of its own."""
    optimiser: Optimiser = Optimiser()
    learning_rate: Annotated[float, Field(gt=0, le=1e38)] = 1e-4
    """The highest learning rate; the schedule says when."""
    schedule: Schedule = Schedule()
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """The optimiser's weight decay: decoupled with adamw, an L2 penalty with the others."""
    average_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep a moving average of the weights with this decay per step; None for the weights."""
    unlabelled: Unlabelled = Unlabelled()
    patience: Positive | None = None
    """End joint training after so many epochs without a better validation Dice; None for all epochs."""
    extensions: tuple[Positive, ...] = ()
    """Epochs added after the end by `train --resume --extend`, each time with a schedule of its own."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; None for no clipping."""
    seed: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Of the split, the initial weights, the sampler and the augmentation."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """`auto` takes bf16 where the processor computes in it."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` takes a GPU when there is one."""
    deterministic: bool = False
    """Compute on a GPU only in ways that give the same bits each time, which is slower."""
    compiled: bool = False
    """Have torch.compile fuse small operations; needs a C++ compiler, and takes a minute at first."""
    weights: Literal["copied", "sharded"] = "copied"
    """Whether each of several processes holds all weights, gradients and optimiser state, or a share of them
    (FSDP: for large networks; slower). One process holds them all in either case."""

    @model_validator(mode="after")
    def _has_a_teacher(self) -> "Training":
        if self.unlabelled.weight > 0 and self.average_decay is None:
            raise ValueError(
                "unlabelled.weight needs a teacher, the moving average of the weights; expected "
                "training.average_decay with it, such as 0.99, got none"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _older(cls, values: Any) -> Any:
        """Read recipes of run folders made before there was a choice of schedules."""
        if isinstance(values, dict) and "warmup_share" in values:
            values = dict(values)
            share = values.pop("warmup_share")
            values.setdefault("schedule", {"name": "one-cycle", "arguments": {"warmup_share": share}})
        return values


class Split(_Part):
    """Shares of the patients of each modality; the rest is the test set."""

    train: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Share of patients that are trained on."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of patients that choose the kept checkpoint."""
    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training patients whose masks are used; the others are left without, to see what few masks
    are worth. At least one is used."""

    @model_validator(mode="after")
    def _some_left(self) -> "Split":
        if self.train + self.validation >= 1:
            raise ValueError("train + validation must stay below 1, so that a test set is left")
        return self


class Prediction(_Part):
    """From the network's output to a mask."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability from which a voxel is tumour, of several classes that of all together; stated with every
    result."""
    flips: bool = False
    """Average over a slice's four mirror images, in 3D a window's eight (test-time augmentation)."""
    batch_size: Positive = 16
    """2D: slices computed at a time; bounds the memory."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """3D: share of a window of the patch's size that the next one covers at least."""
    window_batch_size: Positive = 1
    """3D: windows computed at a time; bounds the memory."""


class Cascade(_Part):
    """Two stages: the first finds an organ in the whole image, the second works in a box around it."""

    organ: str | None = None
    """What stage 1 finds: a class or label, taken together with all labels of all classes; None for no
    cascade."""
    margin_mm: Annotated[float, Field(ge=0)] = 20.0
    """By how much the box reaches beyond what stage 1 found, on every side."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Networks of stage 1, each of which leaves out a part of the patients; together they predict."""
    first: dict[str, Any] = {}
    """Other fields of stage 1, as in {"preparation.slice_size": [128, 128]}."""


class Published(_Part):
    """One row of the paper's table of results."""

    row: str
    """The modality, or `all`."""
    of_class: str | None = None
    """Of which of several classes; None for all together."""
    scores: dict[str, float]
    """Metric → value as printed."""


class Recipe(_Part):
    """A complete run description."""

    name: str
    """The system's name."""
    title: str
    """One line for people."""
    source: str
    """The paper."""
    format_version: Literal[1] = FORMAT_VERSION
    """Version of this description."""
    modalities: dict[str, Modality]
    """Modality name, as in `--data NAME=PATH` → how it enters."""
    classes: dict[str, tuple[str, ...]] = {"tumour": ("*",)}
    """Class → the data set's label names it joins; `*` is every label. Order gives the index, from 1."""
    preparation: Preparation = Preparation()
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    training: Training = Training()
    split: Split = Split()
    prediction: Prediction = Prediction()
    cascade: Cascade = Cascade()
    published: tuple[Published, ...] = ()
    """What the paper reports, for the report's comparison."""
    deviations: tuple[str, ...] = ()
    """Where we differ from the paper or settle what it leaves open."""

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if ALL_MODALITIES in self.modalities:
            raise ValueError(f"no modality may be called {ALL_MODALITIES!r}; choose another name for it")
        if not self.classes or not all(self.classes.values()):
            raise ValueError(
                f"classes must name at least one class, each with at least one label, got {self.classes}"
            )
        sizes = {name: len(modality.channels) for name, modality in self.modalities.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"every modality must give the network as many channels, got {sizes}")
        share, tumour = self.training.tumour_share, self.training.tumour_class
        if share is not None and tumour is not None and tumour not in self.classes:
            raise ValueError(f"training.tumour_class must be one of {list(self.classes)}, got {tumour!r}")
        self._check_dimensions()
        crop, size = self.augmentation.crop, self.preparation.slice_size
        if crop is not None and (crop[0] > size[0] or crop[1] > size[1]):
            raise ValueError(f"augmentation.crop must fit into slice_size {size}, got {crop}")
        pretrain = self.training.pretrain_on
        if pretrain is not None and pretrain not in self.modalities:
            raise ValueError(f"pretrain_on must be one of {sorted(self.modalities)}, got {pretrain!r}")
        return self

    def _check_dimensions(self) -> None:
        dims, volumes = self.preparation.spatial_dims, self.preparation.spatial_dims == 3
        if volumes and self.augmentation.crop is not None:
            raise ValueError("augmentation.crop is for slices; in 3D set preparation.patch instead")
        if volumes and self.training.tumour_share is not None:
            raise ValueError(
                "training.tumour_share is for slices; in 3D set training.foreground_share instead"
            )
        for name, modality in self.modalities.items():
            if volumes and modality.scaling not in VOLUME_SCALINGS:
                raise ValueError(
                    f"modalities.{name}.scaling must be {' or '.join(VOLUME_SCALINGS)} with "
                    f"preparation.spatial_dims 3, got {modality.scaling}"
                )
        given = self.network.arguments.get("spatial_dims", dims)
        if given != dims:
            raise ValueError(
                f"network.arguments.spatial_dims follows preparation, {dims}; leave it out, got {given}"
            )

    @property
    def in_channels(self) -> int:
        """Channels that the network takes: those of a modality, once for each slice that is seen together."""
        channels = next(iter(self.modalities.values())).channels
        return len(channels) * (2 * self.preparation.neighbours + 1)

    @property
    def network_arguments(self) -> dict[str, Any]:
        """What the network is built with: its own arguments, and in 3D that it is for volumes."""
        volumes = {"spatial_dims": 3} if self.preparation.spatial_dims == 3 else {}
        return {**self.network.arguments, **volumes}

    @property
    def examples(self) -> str:
        """What the network is trained on, in a word."""
        return "slices" if self.preparation.spatial_dims == 2 else "windows"

    @property
    def example_size(self) -> tuple[int, ...]:
        """Pixels or voxels along each axis of what the network is trained on.

        Raises:
            RecipeError: of volumes, where it was not planned yet.
        """
        chosen = self.preparation
        if chosen.spatial_dims == 2:
            return self.augmentation.crop or chosen.slice_size
        if chosen.patch is None:
            raise RecipeError(
                "Training in 3D needs preparation.patch, the voxels of a training window, such as "
                "--preparation.patch [96,96,64]; got none."
            )
        return chosen.patch

    def to_json(self) -> str:
        """The complete recipe as indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read what `to_json` wrote.

        Raises:
            RecipeError: not JSON, an unknown field, or a value out of its range.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise RecipeError(f"Expected a recipe as JSON, but {error}.") from error
        return validated(Recipe, values)

    def with_changes(self, changes: Mapping[str, Any]) -> "Recipe":
        """A copy with some fields changed.

        Another network or loss loses the arguments of the one it replaces: its own defaults hold, unless
        its arguments are among the changes.

        Args:
            changes: dotted field (`training.max_epochs`, `modalities.ct.scaling`) → value, in any order;
                text is read as JSON where the field is not itself text.

        Raises:
            RecipeError: an unknown field (the nearest one is suggested) or an unfit value.
        """
        values = self.model_dump(mode="json")
        for dotted in sorted(changes, key=wholes_first):
            set_field(Recipe, values, dotted, changes[dotted])
        return validated(Recipe, values)

    def with_only(self, names: Iterable[str]) -> "Recipe":
        """A copy for a part of the modalities; pretraining on one that is left out is left out, too.

        The published figures stay, as they are of the whole system.

        Args:
            names: of the modalities to keep.

        Raises:
            RecipeError: an unknown modality (the nearest is suggested), or none at all.
        """
        kept = set(names)
        for name in sorted(kept - set(self.modalities)):
            raise RecipeError(
                f"Recipe {self.name} has no modality {name!r}; {nearest(name, self.modalities)}"
            )
        values = self.model_dump(mode="json")
        values["modalities"] = {name: part for name, part in values["modalities"].items() if name in kept}
        if self.training.pretrain_on not in kept:
            values["training"]["pretrain_on"] = None
        return validated(Recipe, values)
