"""JPEG Extended with twelve bits, which GDCM decodes though pydicom does not ask it to (PS3.5, A.4.1)."""

from typing import BinaryIO

import numpy as np

from oncoseg.io.dicom.series import PixelFormat

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
"""The transfer syntax."""


def twelve_bit_jpeg(stored: PixelFormat) -> bool:
    """Whether a file is of this kind; with eight bits any decoder of JPEG will do."""
    return stored.transfer_syntax == JPEG_EXTENDED and stored.bits_stored > 8


def decode_twelve_bits(file: BinaryIO, frame: int, stored: PixelFormat) -> np.ndarray:
    """Decode one frame, axes row, column.

    Args:
        file: at the beginning of its pixel data.
        frame: its number.
        stored: how the pixels are stored.

    Raises:
        ImportError: GDCM is missing.
        ValueError: the data is damaged.
    """
    import gdcm
    from pydicom.encaps import get_frame

    packed = get_frame(file, frame, number_of_frames=stored.frames)
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(packed)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((stored.columns, stored.rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    image.SetPhotometricInterpretation(grey)
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, stored.bits_stored, stored.high_bit, int(stored.signed)))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    pixels = image.GetBuffer()
    if pixels is None:
        raise ValueError("GDCM cannot decode it")
    if isinstance(pixels, str):  # the bindings of Python take bytes for text
        pixels = pixels.encode("utf-8", "surrogateescape")
    numbers = np.frombuffer(pixels, "<i2" if stored.signed else "<u2")
    return numbers.reshape(stored.rows, stored.columns)
