"""DICOM: series in, annotations in, masks out. DICOM's LPS becomes RAS+ here and nowhere else.

`find_series` (in `survey.py`) looks through a folder, `read_series` (in `voxels.py`) decodes what was found.
"""
