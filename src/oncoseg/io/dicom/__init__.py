"""DICOM: series in, annotations in, masks out. DICOM's LPS becomes RAS+ here and nowhere else."""
