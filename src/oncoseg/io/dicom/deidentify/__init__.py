"""De-identification of DICOM files by PS3.15 Annex E, with a list of what stays rather than of what goes.

`deidentify` cleans one object, `deidentify_folder` a folder. What neither can do: see a face or a name in the
pixels. The one is warned of, and images that show signs of the other are left out (`risks.py`).
"""

from oncoseg.io.dicom.deidentify.dataset import deidentify
from oncoseg.io.dicom.deidentify.folder import Deidentified, deidentify_folder

__all__ = ["Deidentified", "deidentify", "deidentify_folder"]
