"""S1: one Attention U-Net for brain MRI and lung CT (Rai and Dahal 2025)."""

from oncoseg.recipe import Loss, Modality, Network, Published, Recipe, Training

_SCORES = ("dice", "iou", "precision", "recall", "f1", "auc")


def unified_mri_ct() -> Recipe:
    """The published system with its published settings.

    The paper's Table 1 prints F1 beside Dice with other values, though both are the same function
    of the same counts; its text gives the pooled AUC as 0.89 and its table as 0.90. Neither its
    averaging nor its rule for empty slices is stated. No evaluation here is tuned towards it.
    """
    focal: dict[str, float | tuple[float, ...]] = {"gamma": 0.75, "smooth": 1.0}
    return Recipe(
        name="unified-mri-ct",
        title="One Attention U-Net for brain MRI and lung CT, trained on half-and-half batches",
        source=(
            "N. Rai, P. R. Dahal: A Unified Attention U-Net Framework for Cross-Modality Tumor "
            "Segmentation in MRI and CT, 2025"
        ),
        modalities={
            "mri": Modality(
                channels=("T1", "T1ce", "T2", "FLAIR"),
                substitutes={"T1": "T1ce", "T1ce": "T1", "T2": "FLAIR", "FLAIR": "T2"},
                loss=Loss(arguments={"alpha": 0.8, "beta": 0.2, **focal}),
            ),
            "ct": Modality(
                channels=("CT", "CT", "CT", "CT"),
                loss=Loss(arguments={"alpha": 0.5, "beta": 0.5, **focal}),
            ),
        },
        network=Network(name="attention-unet", arguments={"features": [64, 128, 256], "dropout": 0.3}),
        training=Training(pretrain_on="ct", pretrain_epochs=5),
        published=(
            Published(
                row="mri", scores=dict(zip(_SCORES, (0.83, 0.80, 0.86, 0.92, 0.84, 0.97), strict=True))
            ),
            Published(row="ct", scores=dict(zip(_SCORES, (0.55, 0.49, 0.74, 0.69, 0.57, 0.83), strict=True))),
            Published(
                row="all", scores=dict(zip(_SCORES, (0.64, 0.59, 0.78, 0.77, 0.66, 0.90), strict=True))
            ),
        ),
        deviations=(
            "The number of joint epochs is not published; 30 by default.",
            "The published 7.3 G multiply–adds count transposed convolutions four times; they are 6.5 G.",
            "(α, β) for MRI are not published; (0.8, 0.2) here. γ is not published; 0.75 here, as in "
            "Abraham and Khan 2019 (their 1/γ with γ = 4/3).",
            "The split is by patient, 70/10/20; the paper does not say how it split.",
            "The kept checkpoint is chosen by Dice per patient; the paper does not say over what its "
            "validation Dice is averaged.",
            "Strengths of the augmentations are ours; the paper names them without figures, except ±15°.",
            "Gradients are clipped to norm 1 and slices that are not square are padded, not stretched.",
        ),
    )
