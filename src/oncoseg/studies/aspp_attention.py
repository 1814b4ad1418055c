"""S4's comparison: four networks on three MRI sequences (Roy Chowdhury and Mirzaei 2025)."""

from oncoseg.studies.study import Group, PublishedRow, PublishedTable, Study, Variant

PLAIN, GATED, SPP, ASPP = "U-Net", "Attention U-Net", "Attention U-Net + SPP", "Attention U-Net + ASPP"

TABLE_1: dict[tuple[str, str], tuple[float | None, ...]] = {
    ("T2W", PLAIN): (None, 0.3859, None),
    ("T1C", GATED): (0.6471, 0.3791, 0.9864),
    ("FLAIR", GATED): (0.7830, 0.4431, 0.9915),
    ("T2W", GATED): (0.7163, 0.3873, 0.9891),
    ("T1C", ASPP): (0.6876, 0.4113, 0.9874),
    ("FLAIR", ASPP): (0.7975, 0.4583, 0.9917),
    ("T2W", ASPP): (0.7546, 0.4249, 0.9904),
}
"""DSC, mIoU and pixel accuracy. Of U-Net and SPP one figure is legible in the text that we have."""

TABLE_2 = {
    ("T1C", PLAIN): (141 + 15.6 / 60, 13.6),
    ("FLAIR", PLAIN): (141 + 27.5 / 60, 13.8),
    ("T1C", GATED): (135 + 35.5 / 60, 14.5),
    ("FLAIR", GATED): (131 + 25 / 60, 14.3),
    ("T2W", GATED): (29 + 38.5 / 60, 13.0),
    ("T1C", SPP): (129 + 53.4 / 60, 31.6),
    ("FLAIR", SPP): (79 + 11.2 / 60, 31.4),
    ("T2W", SPP): (113 + 46.5 / 60, 30.7),
    ("T1C", ASPP): (45 + 35.1 / 60, 13.2),
    ("FLAIR", ASPP): (132 + 36.9 / 60, 14.7),
    ("T2W", ASPP): (31 + 17.2 / 60, 13.2),
}
"""Minutes of training, and seconds of inference on the test set.

U-Net on T2W is left out: its two cells read "26min" and "37.1s". These may be a training time of 26 min
37.1 s that lost its inference time, as all other training times have seconds, or one figure for each.
"""


def aspp_attention() -> Study:
    """Table 1, Table 2 and Figure 3 of the paper: twelve runs that differ by sequence and network alone."""
    return Study(
        name="aspp-attention",
        title="Gates, SPP and ASPP in U-Nets for brain tumours",
        source=(
            "S. Roy Chowdhury, G. Mirzaei: Hybridization of Attention UNet with Repeated Atrous Spatial "
            "Pyramid Pooling for Improved Brain Tumor Segmentation, 2025"
        ),
        groups={name: Group(recipe=f"aspp-attention-{name.lower()}") for name in ("T1C", "FLAIR", "T2W")},
        variants={
            PLAIN: Variant(changes={"network.arguments.attention": False, "network.arguments.context": None}),
            GATED: Variant(changes={"network.arguments.context": None}),
            SPP: Variant(changes={"network.arguments.context": "spp"}),
            ASPP: Variant(),
        },
        published=PublishedTable(
            data="BraTS 2023 adult glioma, 1,000 / 125 / 126 for training, validation and test; RTX 3090",
            rows=tuple(_row(group, variant) for group, variant in TABLE_2 | TABLE_1),
        ),
        deviations=(
            "Of Table 1, the rows of U-Net and of SPP are not legible in the text that we have, but for one "
            "figure. Of Table 2, the times of U-Net on T2W are left out: they read 26min and 37.1s there, "
            "which may be one training time that lost its inference time, or one figure for each.",
            "The paper does not define its mIoU. It lies below what its DSC allows under one averaging (DSC "
            "0.69 is IoU 0.53), so that it is averaged in another way: all of ours stand beside it.",
            "The paper has no tests and no intervals; ours are paired, by patient.",
            "Published times differ by more than the networks do (a U-Net with gates: 136 minutes on T1C, 30 "
            "on T2W) and are no measure of their cost; parameters and multiply-adds are.",
        ),
    )


def _row(group: str, variant: str) -> PublishedRow:
    scores = dict(zip(("dice", "miou", "accuracy"), TABLE_1.get((group, variant), ()), strict=False))
    times = TABLE_2.get((group, variant), ())
    scores |= dict(zip(("training_minutes", "inference_seconds"), times, strict=False))
    legible = {name: value for name, value in scores.items() if value is not None}
    return PublishedRow.model_validate({"group": group, "variant": variant, "scores": legible})
