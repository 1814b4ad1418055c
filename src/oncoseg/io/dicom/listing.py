"""What a survey found, as rows to show."""

from oncoseg.io.dicom.findings import Survey


def rows(survey: Survey) -> list[dict[str, str]]:
    """One row for each series, annotation and group of files that was left out.

    Descriptions may name a patient: rows are for the screen, and are not stored.

    Returns:
        Rows with `what` (`volume`, `annotation`, or why files are no volume), `number`, `modality`, `size`
        (voxels), `spacing_mm`, `files`, `description` and `remarks`.
    """
    found = [
        _row(
            what="volume",
            number="" if each.number is None else str(each.number),
            modality=each.modality,
            size="×".join(map(str, each.grid)),
            spacing_mm="×".join(f"{length:.4g}" for length in each.spacing_mm),
            files=str(len(each.files)),
            description=each.description,
            remarks="; ".join(filter(None, [each.part, *each.remarks])),
        )
        for each in survey.series
    ]
    found += [
        _row(what="annotation", modality=each.kind, files="1", description=each.description)
        for each in survey.annotations
    ]
    found += [
        _row(
            what=each.kind,
            number="" if each.number is None else str(each.number),
            modality=each.modality,
            files=str(len(each.files)),
            description=each.description,
            remarks=each.reason,
        )
        for each in survey.left_out
    ]
    return found


def _row(**values: str) -> dict[str, str]:
    names = ("what", "number", "modality", "size", "spacing_mm", "files", "description", "remarks")
    return {name: values.get(name, "") for name in names}
