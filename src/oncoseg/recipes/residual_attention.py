"""S5: residual attention U-Net for the liver, its vessels and their tumours in CT."""

from oncoseg.recipe import (
    Loss,
    Modality,
    Network,
    Optimiser,
    Preparation,
    Published,
    Recipe,
    Schedule,
    Split,
    Training,
)
from oncoseg.recipes.aspp_attention import UNAUGMENTED

SOFT_TISSUE_HU = (-160.0, 240.0)
"""Window 400 about 40 HU, in which radiologists look at the abdomen."""

SHARED_DEVIATIONS = (
    "The published split has no test set (its figures are of the patients that chose the weights): here a "
    "fifth of the patients is kept for testing, and the rest divided as published, about 4 to 1.",
    "The scaling of intensities and the size of slices are not published; a soft-tissue window of -160 to "
    "240 HU and the scanner's 512×512 here.",
    "Learning rate and stopping follow the validation Dice; the published follow its loss. The rate is "
    "halved at the third epoch without a better one, and training ends at the fifth. The kept weights follow "
    "this Dice, too: of each patient the mean over organ and tumour, so that both count the same.",
    "Queries come from the decoder, keys and values from the skip, a sigmoid makes α of them; the source "
    "names the softmax and F_att = α ⊙ F alone. Keys and values are of 256 cells at most.",
    "No augmentation, clipping or weight decay is published; none here. The number of epochs is not "
    "published, only when it stopped; 100 at most here.",
)
"""Of both recipes."""


def residual_attention_liver() -> Recipe:
    """Liver and tumour of the Medical Segmentation Decathlon's Task03; see `_recipe`."""
    return _recipe(
        "liver", 8, 300, (0.88, 0.73), "It stopped after 25 epochs. The source says 54 images, 43 and 11."
    )


def residual_attention_vessel() -> Recipe:
    """Hepatic vessels and tumour of the Medical Segmentation Decathlon's Task08; see `_recipe`."""
    return _recipe(
        "vessel",
        16,
        80,
        (0.73, 0.66),
        "It stopped after 18 epochs. The source says 303 images, of which 172 and 44 have fewer than 80 "
        "slices; a volume of exactly 80 is taken here.",
    )


def _recipe(organ: str, first: int, slices: int, scores: tuple[float, float], told: str) -> Recipe:
    """One of the two systems, which differ by data, width and the largest number of slices."""
    titles = {"liver": "the liver and its tumours", "vessel": "the liver's vessels and tumours"}
    return Recipe(
        name=f"residual-attention-{organ}",
        title=f"Residual attention U-Net for {titles[organ]} in CT",
        source=(
            "Building an Attention Residual UNet for CT Liver Segmentation, its author's account on the "
            "web, which bears no date; as it was in 2026"
        ),
        modalities={
            "ct": Modality(
                channels=("CT",),
                scaling="window",
                window=SOFT_TISSUE_HU,
                max_slices=slices,
                loss=Loss(name="dice-cross-entropy"),
            )
        },
        classes={organ: (organ,), "tumour": ("tumour",)},
        preparation=Preparation(slice_size=(512, 512)),
        augmentation=UNAUGMENTED,
        network=Network(
            name="residual-attention-unet",
            arguments={"features": [first * 2**level for level in range(5)], "attention": "dot-product"},
        ),
        training=Training(
            max_epochs=100,
            batch_size=32,
            tumour_class="tumour",
            optimiser=Optimiser(name="adam"),
            learning_rate=1e-4,
            schedule=Schedule(name="plateau", arguments={"factor": 0.5, "patience": 2}),
            weight_decay=0,
            patience=5,
            clip_norm=None,
        ),
        split=Split(train=0.64, validation=0.16),
        published=tuple(
            Published(row="ct", of_class=name, scores={"dice": score})
            for name, score in zip((organ, "tumour"), scores, strict=True)
        ),
        deviations=(*SHARED_DEVIATIONS, told),
    )
