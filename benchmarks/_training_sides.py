"""The ways of training that `train_speed.py` compares; each runs in a process of its own.

All train on the same slices with batches of the same size, with flips, rotation, elastic
deformation, brightness, contrast and coarse dropout at the same chances, on the CPU.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from oncoseg.augment import Strengths
from oncoseg.losses import focal_tversky
from oncoseg.recipe import Recipe

SEQUENCES = ("t1", "t1ce", "t2", "flair")
LOADER_WORKERS = 2
"""Of the common way's DataLoader."""

ELASTIC_SMOOTHING = 16 / 3
"""Standard deviation, in pixels, of the common way's smoothing of its random displacements."""

RESULT = "STEPS "
"""Begins the line in which a side tells its times."""


@dataclass(frozen=True)
class Setup:
    """What all sides share."""

    work: Path
    data: Path
    slice_size: tuple[int, int]
    features: tuple[int, ...]
    batch_size: int
    warm_up: int

    def folders(self) -> list[Path]:
        """Every case's; the last is for validation, which is never reached."""
        return sorted(folder for folder in self.data.iterdir() if folder.is_dir())

    def cases(self) -> list[dict[str, Path]]:
        """Sequence or `seg` → file, for every case that is trained on."""
        names = (*SEQUENCES, "seg")
        used = self.folders()[:-1]
        return [{name: folder / f"{folder.name}_{name}.nii.gz" for name in names} for folder in used]

    def recipe(self) -> Recipe:
        """System S1 on MRI alone."""
        from oncoseg.recipes import get_recipe

        values = get_recipe("unified-mri-ct").model_dump(mode="json")
        del values["modalities"]["ct"]
        values["training"] |= {"pretrain_on": None, "batch_size": self.batch_size, "device": "cpu"}
        values["preparation"]["slice_size"] = self.slice_size
        values["network"]["arguments"]["features"] = self.features
        return Recipe.model_validate(values)


class Clock:
    """Takes the times of each step, and stops the side between its turns."""

    def __init__(self, warm_up: int) -> None:
        self._wanted = warm_up
        self._steps: list[tuple[float, float]] = []
        self._started = time.perf_counter()

    def batch_is_ready(self) -> None:
        """From here on the network computes."""
        self._ready = time.perf_counter()

    def step_is_done(self) -> None:
        """Note the step; after the turn's last one, tell the times and wait for the next turn."""
        now = time.perf_counter()
        self._steps.append((self._ready - self._started, now - self._ready))
        if len(self._steps) == self._wanted:
            print(RESULT + json.dumps(self._steps), flush=True)
            self._wanted, self._steps = int(sys.stdin.readline()), []
        self._started = time.perf_counter()


def train_with_oncoseg(setup: Setup, clock: Clock) -> None:
    """`oncoseg.train.train` itself: prepared store, fused augmentation, allocator, precision, layout."""
    from oncoseg.train import train
    from oncoseg.training import feed

    names = [folder.name for folder in setup.folders()]
    taught, validation = ({name: [name] for name in part} for part in (names[:-1], names[-1:]))
    split = {"train": taught, "validation": validation, "test": {}}
    split_file = setup.work / "split.json"
    split_file.write_text(json.dumps({"modalities": {"mri": split}}))
    augment = feed.augment

    def timed(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        augmented = augment(*arguments, **named)
        clock.batch_is_ready()
        return augmented

    feed.augment = timed
    train(
        setup.recipe(),
        {"mri": setup.data},
        setup.work / "run",
        store=setup.work / "store",
        split_file=split_file,
        monitor=lambda status: clock.step_is_done(),
    )


def train_the_common_way(setup: Setup, clock: Clock) -> None:
    """Plain fp32 PyTorch; every slice is read from its `.nii.gz` files when it is needed."""
    _train(_s1_network(setup), _forever(_common_loader(setup)), clock)


def train_on_one_batch(setup: Setup, clock: Clock) -> None:
    """The common way without its loader: what its network alone costs."""
    batch = next(iter(_common_loader(setup)))
    _train(_s1_network(setup), itertools.repeat(batch), clock)


def train_with_monai(setup: Setup, clock: Clock) -> None:
    """MONAI's CacheDataset, dictionary transforms, DataLoader and AttentionUnet, with their defaults."""
    from monai.data import DataLoader as MonaiLoader
    from monai.networks.nets import AttentionUnet

    strides = (2,) * (len(setup.features) - 1)
    network = AttentionUnet(2, len(SEQUENCES), 1, setup.features, strides, dropout=0.3)
    loader = MonaiLoader(_monai_dataset(setup), batch_size=setup.batch_size, shuffle=True)
    batches = ((b["image"].as_tensor(), b["seg"].as_tensor()[:, 0]) for b in _forever(loader))
    _train(network, batches, clock)


SIDES: dict[str, Callable[[Setup, Clock], None]] = {
    "oncoseg": train_with_oncoseg,
    "common way": train_the_common_way,
    "common way, one batch": train_on_one_batch,
    "MONAI": train_with_monai,
}


def _s1_network(setup: Setup) -> nn.Module:
    from oncoseg.models.attention_unet import attention_unet

    return attention_unet(len(SEQUENCES), 1, features=setup.features)


def _train(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], clock: Clock) -> None:
    """The usual loop, with S1's optimiser, schedule and loss for MRI."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-4, total_steps=10_000)
    network.train()
    for images, masks in batches:
        clock.batch_is_ready()
        optimiser.zero_grad()
        loss = focal_tversky(network(images), masks, alpha=0.8, beta=0.2)
        loss.backward()
        optimiser.step()
        schedule.step()
        loss.item()
        clock.step_is_done()


def _forever(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _common_loader(setup: Setup) -> DataLoader[Any]:
    dataset = SlicesFromFiles(setup)
    return DataLoader(dataset, batch_size=setup.batch_size, shuffle=True, num_workers=LOADER_WORKERS)


class SlicesFromFiles(Dataset[Any]):
    """Every access loads the case's five files, as much published code does."""

    def __init__(self, setup: Setup) -> None:
        import nibabel

        self.cases, self.size = setup.cases(), setup.slice_size
        depths = [nibabel.load(case["seg"]).shape[2] for case in self.cases]
        self.places = [(case, index) for case, depth in enumerate(depths) for index in range(depth)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        import nibabel

        case, index = self.places[number]
        slices = {name: nibabel.load(path).get_fdata()[..., index] for name, path in self.cases[case].items()}
        image = np.stack([_scaled(slices[name]) for name in SEQUENCES])
        mask = (slices["seg"] > 0)[None]
        image, mask = (torch.from_numpy(part.astype(np.float32))[None] for part in (image, mask))
        image = functional.interpolate(image, self.size, mode="bilinear")
        mask = functional.interpolate(mask, self.size, mode="nearest")
        image, mask = augment_one(image, mask, Strengths())
        return image[0], mask[0, 0]


def _scaled(image: np.ndarray) -> np.ndarray:
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)


def augment_one(image: Tensor, mask: Tensor, s: Strengths) -> tuple[Tensor, Tensor]:
    """Change one slice `1 c h w` with its mask, one transform after the other, like Albumentations."""
    for axis in (-1, -2):
        if np.random.rand() < s.flip_chance:
            image, mask = image.flip(axis), mask.flip(axis)
    if np.random.rand() < s.rotation_chance:
        angle = np.radians(np.random.uniform(-s.rotation_degrees, s.rotation_degrees))
        cosine, sine = np.cos(angle), np.sin(angle)
        theta = torch.tensor([[[cosine, -sine, 0], [sine, cosine, 0]]], dtype=torch.float32)
        image, mask = _resampled(image, mask, functional.affine_grid(theta, list(mask.shape), False))
    if np.random.rand() < s.elastic_chance:
        image, mask = _resampled(image, mask, _elastic_grid(mask.shape, s.elastic_pixels))
    if np.random.rand() < s.brightness_chance:
        gain = 1 + np.random.uniform(-s.contrast, s.contrast)
        image = (image - image.mean()) * gain + image.mean() + np.random.uniform(-s.brightness, s.brightness)
        image = image.clamp(0, 1)
    if np.random.rand() < s.dropout_chance:
        side = round(s.dropout_size * image.shape[-1])
        for top, left in np.random.randint(0, image.shape[-1] - side, (s.dropout_holes, 2)):
            image[..., top : top + side, left : left + side] = 0
    return image, mask


def _elastic_grid(shape: torch.Size, pixels: float) -> Tensor:
    from scipy.ndimage import gaussian_filter

    noise = np.random.randn(*shape[-2:], 2)
    field = gaussian_filter(noise, (ELASTIC_SMOOTHING, ELASTIC_SMOOTHING, 0))
    field *= pixels / field.std() * 2 / shape[-1]
    identity = functional.affine_grid(torch.eye(2, 3)[None], list(shape), False)
    return identity + torch.from_numpy(field.astype(np.float32))


def _resampled(image: Tensor, mask: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    image = functional.grid_sample(image, grid, mode="bilinear", align_corners=False)
    return image, functional.grid_sample(mask, grid, mode="nearest", align_corners=False)


def _monai_dataset(setup: Setup) -> Any:
    """Loaded, sliced, resized and scaled once and kept in memory; only what is random runs per access."""
    from monai import transforms as t
    from monai.data import CacheDataset

    both, s = ["image", "seg"], Strengths()
    load = t.Compose(
        [
            t.LoadImaged([*SEQUENCES, "seg"]),
            t.EnsureChannelFirstd([*SEQUENCES, "seg"]),
            t.ConcatItemsd(SEQUENCES, "image"),
        ]
    )
    items = []
    for case in setup.cases():
        volume = load(case)
        image, mask = volume["image"], (volume["seg"] > 0).float()
        items += [{"image": image[..., k], "seg": mask[..., k]} for k in range(image.shape[-1])]
    modes = ("bilinear", "nearest")
    each = t.Compose(
        [
            t.Resized(both, setup.slice_size, mode=modes),
            t.ScaleIntensityd("image", channel_wise=True),
            t.RandFlipd(both, prob=s.flip_chance, spatial_axis=0),
            t.RandFlipd(both, prob=s.flip_chance, spatial_axis=1),
            t.RandRotated(
                both, np.radians(s.rotation_degrees), prob=s.rotation_chance, mode=modes, padding_mode="zeros"
            ),
            t.Rand2DElasticd(
                both,
                spacing=[size / s.elastic_cells for size in setup.slice_size],
                magnitude_range=(0, s.elastic_pixels),
                prob=s.elastic_chance,
                mode=modes,
                padding_mode="zeros",
            ),
            t.RandShiftIntensityd("image", offsets=s.brightness, prob=s.brightness_chance),
            t.RandScaleIntensityd("image", factors=s.contrast, prob=s.brightness_chance),
            t.RandCoarseDropoutd(
                "image",
                holes=s.dropout_holes,
                spatial_size=round(s.dropout_size * setup.slice_size[0]),
                fill_value=0,
                prob=s.dropout_chance,
            ),
        ]
    )
    return CacheDataset(items, each, progress=False)
