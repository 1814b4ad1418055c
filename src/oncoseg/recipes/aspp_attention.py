"""S4: Attention U-Net with three ASPP blocks, for one MRI sequence (Roy Chowdhury and Mirzaei 2025)."""

from oncoseg.recipe import (
    Augmentation,
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

UNAUGMENTED = Augmentation(
    flip_chance=0, rotation_chance=0, elastic_chance=0, brightness_chance=0, dropout_chance=0
)
"""For papers that name no augmentation."""

FEATURES = [64, 128, 256, 512, 1024]
"""Of Ronneberger et al. 2015 and Oktay et al. 2018, on which the paper builds without widths of its own."""


def aspp_attention_t1c() -> Recipe:
    """The published network and settings for T1 with contrast; see `_recipe`."""
    return _recipe("t1c", "T1ce", "T1 with contrast", {"dice": 0.6876, "iou": 0.4113, "accuracy": 0.9874})


def aspp_attention_flair() -> Recipe:
    """The published network and settings for FLAIR; see `_recipe`."""
    return _recipe("flair", "FLAIR", "FLAIR", {"dice": 0.7975, "iou": 0.4583, "accuracy": 0.9917})


def aspp_attention_t2w() -> Recipe:
    """The published network and settings for T2; see `_recipe`."""
    return _recipe("t2w", "T2", "T2", {"dice": 0.7546, "iou": 0.4249, "accuracy": 0.9904})


def _recipe(name: str, channel: str, sequence: str, scores: dict[str, float]) -> Recipe:
    """One of the paper's three data sets, which differ by their sequence alone.

    The other networks of its table are changes of `network.arguments`: context "spp", context none, and
    with that attention false. A slice of 240×240 is four poolings' 16 × 15, so that nothing is resized or
    padded. The printed mIoU lies far below what its DSC can mean under the same averaging (Dice 0.69 is IoU
    0.53); no evaluation here is tuned towards it.
    """
    return Recipe(
        name=f"aspp-attention-{name}",
        title=f"Attention U-Net with three ASPP blocks for brain tumours in {sequence}",
        source=(
            "S. Roy Chowdhury, G. Mirzaei: Hybridization of Attention UNet with Repeated Atrous Spatial "
            "Pyramid Pooling for Improved Brain Tumor Segmentation, 2025"
        ),
        modalities={"mri": Modality(channels=(channel,), loss=Loss(name="bce-dice"))},
        preparation=Preparation(slice_size=(240, 240)),
        augmentation=UNAUGMENTED,
        network=Network(
            name="attention-unet", arguments={"features": FEATURES, "dropout": 0.0, "context": "aspp"}
        ),
        training=Training(
            max_epochs=100,
            batch_size=32,
            optimiser=Optimiser(name="adam"),
            learning_rate=1e-3,
            schedule=Schedule(name="cosine"),
            weight_decay=0,
            clip_norm=None,
        ),
        split=Split(train=0.7994, validation=0.0999),
        published=(Published(row="mri", scores=scores),),
        deviations=(
            "Widths are not published: 64 to 1,024 as in the U-Net and Attention U-Net that it builds on, "
            "a quarter of the bottleneck's in each branch (256). 66.0 M parameters; 31.0 M for the U-Net, "
            "31.4 M with gates, 40.8 M with SPP.",
            "The blocks lie at the bottleneck, as published; that they follow its two convolutions is ours, "
            "so that the four networks differ by gates and context alone. SPP has three blocks, too.",
            "The rates are not published; 1, 6, 12, 18 here, beside a 1×1 convolution and the whole image. "
            "At the bottleneck's 15×15, rate 18 sees its own pixel only.",
            "The loss is not published; binary cross-entropy plus Dice here. Nor is a clipping of "
            "gradients, weight decay or dropout; none here.",
            "The minimum of the cosine and its restarts are not published; one cycle down to 0 here.",
            "No augmentation and no scaling of intensities is published; none, and each slice to [0, 1] "
            "here.",
            "The shares give 1,000, 125 and 126 of 1,251 patients, as published; which patients is not "
            "published. The paper speaks of images, and its axial slices of a patient stay on one side "
            "here.",
            "The kept weights are those with the best validation Dice per patient; the paper does not say "
            "which it kept.",
        ),
    )
