"""Leakage between the sides of a split: one patient, or one image, that is on two of them.

Patients are compared by their ids, images by fingerprints of a few kB. What is found looks the same;
whether it is, the user judges.
"""

from oncoseg.leakage.fingerprints import NO_IMAGE, ImageFingerprint, fingerprint
from oncoseg.leakage.reading import Entry, fingerprint_cases
from oncoseg.leakage.remembered import forget_oldest
from oncoseg.leakage.sides import Leak, find_leaks

__all__ = [
    "NO_IMAGE",
    "Entry",
    "ImageFingerprint",
    "Leak",
    "find_leaks",
    "fingerprint",
    "fingerprint_cases",
    "forget_oldest",
]
