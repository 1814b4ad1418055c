"""The header of one DICOM file, read within bounds: no pixels, no free text beyond what is shown, no trust.

pydicom parses. Only the first bytes of a file are read where they hold the whole header, which they nearly
always do, and the frames' sequences are left alone unless the file is a multi-frame image.
"""

import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from oncoseg.errors import DataError
from oncoseg.io.checks import check_regular

FIRST_BYTES = 1 << 16
"""How much of a file is read at first; most headers end before."""

LARGEST_HEADER_BYTES = 64 << 20
"""No header may be longer; that of a multi-frame file with ten thousand frames is half as long."""

MOST_ITEMS = 500_000
"""No header may hold more items of sequences, each of which takes about a kilobyte of memory."""

ITEM = b"\xfe\xff\x00\xe0"
"""The tag with which every item of a sequence begins."""

PREAMBLE_BYTES, META = 128, 2
"""Where the letters DICM stand, and the group of the meta header that comes next."""

PIXEL_DATA, PIXELS, CONTOURS, FRAMES = 0x7FE0_0010, 0x7FE0_0008, 0x3006, 0x5200
"""What ends a header: the tag of pixels, the first tag of pixels of any kind; the group of contours; and for
what is no multi-frame image the group of its frames."""

UNDEFINED_LENGTH = 0xFFFF_FFFF
"""Length of pixel data that is compressed, in fragments."""

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
"""Transfer syntaxes that are not compressed, or as a whole (PS3.5, annex A)."""

KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *(
        "Modality",
        "ManufacturerModelName",
        "SeriesDescription",
        "SeriesNumber",
        "ImageType",
        "PatientID",
        "IssuerOfPatientID",
    ),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "LossyImageCompression", "BurnedInAnnotation"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "Units", "ModalityLUTSequence"),
    *("RealWorldValueMappingSequence", "EchoTime", "DiffusionBValue", "DiffusionGradientOrientation"),
    *("AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime"),
    *("ProtocolName", "SequenceName", "RepetitionTime", "InversionTime", "ContrastBolusAgent"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""All that is ever taken from a header."""

IDENTITY = frozenset({"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"})
"""Every object has all of these; a header without any is a fragment."""

DIRECTORY = "1.2.840.10008.1.3.10"
"""SOP class of a DICOMDIR, which has none of them."""

BY_PIXELS = ("PixelPaddingValue", "PixelPaddingRangeLimit")
"""Keywords whose type depends on that of the pixels."""

LONGEST_REMEMBERED, MOST_REMEMBERED = 128, 4096
"""Values of at most so many bytes are remembered once converted, at most so many of them."""

UNREADABLE = object()
"""Stands for a value that is there and cannot be understood."""


class NotDicomError(DataError):
    """A file that is no DICOM file at all."""


@dataclass(frozen=True)
class Header:
    """What was read of one file.

    Attributes:
        file: where it lies.
        transfer_syntax: its UID.
        little_endian: byte order.
        values: by keyword, of `KEYWORDS`; only what is there and not empty.
        pixels_at: where the value of its pixel data begins (in the unpacked data, where it is deflated);
            None where there is none.
        pixels_length: in bytes, as declared; `UNDEFINED_LENGTH` where compressed.
    """

    file: Path
    transfer_syntax: str
    little_endian: bool
    values: dict[str, Any] = field(repr=False)
    pixels_at: int | None
    pixels_length: int

    def text(self, keyword: str) -> str:
        """A value as text, its components joined by a backslash; empty where there is none."""
        return text_of(self.values.get(keyword))

    def number(self, keyword: str) -> float | None:
        """A value as one number, or None where there is none.

        Raises:
            DataError: it is no number.
        """
        return number_of(self.values.get(keyword), keyword)

    def whole(self, keyword: str, otherwise: int | None = None) -> int:
        """A value as a whole number.

        Raises:
            DataError: it is missing, and there is nothing to take otherwise; or it is no whole number.
        """
        number = self.number(keyword)
        if number is None:
            if otherwise is None:
                raise DataError(f"{keyword} is missing")
            return otherwise
        if number != int(number):
            raise DataError(f"{keyword} is {number}, no whole number")
        return int(number)


def number_of(value: Any, keyword: str) -> float | None:
    """One finite number from a DICOM value; None for none.

    Raises:
        DataError: it is text, several numbers, not finite or unreadable.
    """
    if value is None:
        return None
    numbers = numbers_of([value], keyword, 1)
    return numbers[0] if numbers else None


def numbers_of(value: Any, keyword: str, count: int) -> tuple[float, ...] | None:
    """Finite numbers from a DICOM value; None for none.

    Raises:
        DataError: there are not `count` of them, or they are not all finite numbers.
    """
    if value is None:
        return None
    try:
        numbers = tuple(float(each) for each in value)
    except (TypeError, ValueError, OverflowError):
        numbers = (float("nan"),)
    if len(numbers) != count or not all(abs(each) < float("inf") for each in numbers):
        expected = "a number" if count == 1 else f"{count} numbers"
        raise DataError(f"{keyword} is damaged: expected {expected}")
    return numbers


def text_of(value: Any) -> str:
    """A DICOM value as text, its components joined by a backslash; empty for none, bytes and sequences."""
    if value is None or value is UNREADABLE or isinstance(value, bytes):
        return ""
    if isinstance(value, str | int | float):
        return str(value).strip()
    return "\\".join(str(part).strip() for part in value) if type(value).__name__ != "Sequence" else ""


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as a DICOM file does; also without the preamble that the standard asks for."""
    try:
        if not path.is_file():  # reading from a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return _begins_like_dicom(file.read(PREAMBLE_BYTES + 4))
    except OSError:
        return False


def read_header(path: Path, images: Collection[str] = ()) -> Header:
    """Read the header of a file; within `quiet`, where many are read.

    Args:
        path: the file.
        images: SOP classes that are read up to their pixels; what describes frames of others is left alone.

    Raises:
        NotDicomError: the file is no DICOM file.
        DataError: it cannot be read, is damaged, or is beyond the bounds above.
    """
    check_regular(path)
    try:
        with path.open("rb", buffering=0) as file:
            start = file.read(FIRST_BYTES)
            if not _begins_like_dicom(start):
                raise NotDicomError(f"{path} is no DICOM file.")
            header = _parse(path, start, whole=len(start) < FIRST_BYTES)
            if header is None or (header.pixels_at is None and header.text("SOPClassUID") in images):
                start += file.read(LARGEST_HEADER_BYTES)
                header = _parse_long(path, start, images)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if header.text("SOPClassUID") and (
        header.values.keys() & IDENTITY or header.text("SOPClassUID") == DIRECTORY
    ):
        return header
    if _has_preamble(start):
        raise DataError(f"{path} is damaged: it does not say what it is. Copy it again.")
    raise NotDicomError(f"{path} is no DICOM file.")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from checking values, and from warning and logging about them: they may name patients."""
    from pydicom.config import disable_value_validation, logger

    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def inflate(packed: bytes, most: int) -> bytes:
    """Unpack at most the first `most` bytes of deflated data (PS3.5, A.5).

    Raises:
        zlib.error: it is damaged.
    """
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)


def meta_of(start: bytes) -> tuple[Any, int]:
    """The meta header that a file begins with, and where the data set begins (PS3.10, section 7.1)."""
    from pydicom.filereader import read_dataset

    data = BytesIO(start)
    data.seek(PREAMBLE_BYTES + 4 if _has_preamble(start) else 0)
    meta = read_dataset(data, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != META)
    return meta, data.tell()


def data_set_begins(start: bytes) -> int:
    """Where the data set begins in a file that begins like this."""
    return meta_of(start)[1]


def _has_preamble(start: bytes) -> bool:
    return start[PREAMBLE_BYTES:][:4] == b"DICM"


def _begins_like_dicom(start: bytes) -> bool:
    """Whether there is a preamble, or else a first tag of the meta header or of the identifying group."""
    if _has_preamble(start):
        return True
    return start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08") and len(start) > PREAMBLE_BYTES


def _parse_long(path: Path, start: bytes, images: Collection[str]) -> Header:
    """Parse a header that does not end in the first bytes, or goes on with frames."""
    whole = path.stat().st_size <= len(start)
    _check_items(path, start)
    header = _parse(path, start, whole)
    if header is not None and header.text("SOPClassUID") in images:
        header = _parse(path, start, whole, frames=True)
    if header is None:
        raise DataError(
            f"{path} is damaged: its header does not end within {LARGEST_HEADER_BYTES >> 20} MiB. "
            "Copy it again."
        )
    return header


def _check_items(path: Path, header: bytes) -> None:
    if header.count(ITEM) > MOST_ITEMS:
        raise DataError(f"{path} has more than {MOST_ITEMS} items in its header; expected an image's header.")


def _parse(path: Path, start: bytes, whole: bool, frames: bool = False) -> Header | None:
    """Parse what a file begins with; None where its header goes on after that."""
    from pydicom.filereader import read_dataset

    stopped: list[tuple[int, int, int]] = []

    def ends(tag: int, _vr: str | None, length: int) -> bool:
        group = tag >> 16  # of pydicom's slow type for tags this is quick
        if group < CONTOURS:
            return False
        end = group == CONTOURS or (group == FRAMES and not frames) or tag >= PIXELS
        if end:
            stopped.append((tag, data.tell(), length))
        return end

    try:
        meta, begins = meta_of(start)
        syntax = str(meta.get("TransferSyntaxUID", ""))
        data = BytesIO(start)
        data.seek(begins)
        if syntax == DEFLATED:
            data = BytesIO(inflate(start[begins:], LARGEST_HEADER_BYTES))
            _check_items(path, data.getvalue())
        big_endian = syntax == BIG_ENDIAN or (not syntax and start[begins:][:2] == b"\x00\x08")
        implicit = syntax in ("", IMPLICIT)  # pydicom looks whether that is true
        dataset = read_dataset(
            data, implicit, not big_endian, stop_when=ends, specific_tags=list(_keywords())
        )
        values = {"SOPClassUID": str(meta.get("MediaStorageSOPClassUID", ""))} | _values(dataset)
    except DataError:
        raise
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        if whole:
            nested = ": its sequences are nested too deeply" if isinstance(error, RecursionError) else ""
            raise DataError(f"{path} has a damaged header{nested}. Export or copy it again.") from error
        return None
    if not stopped and not whole:
        return None
    tag, at, length = stopped[0] if stopped else (0, 0, 0)
    guessed = BIG_ENDIAN if big_endian else IMPLICIT if dataset.original_encoding[0] else EXPLICIT
    pixels_at = at if tag == PIXEL_DATA else None
    return Header(path, syntax or guessed, not big_endian, values, pixels_at, length)


@cache
def _keywords() -> dict[int, str]:
    """Tag → keyword of all that is taken."""
    from pydicom.tag import Tag

    return {Tag(keyword): keyword for keyword in KEYWORDS}


def _values(dataset: Any) -> dict[str, Any]:
    """What is there and not empty; each is converted on its own: a bad one spoils no other."""
    values: dict[str, Any] = {}
    characters = dataset.original_character_set
    characters = characters if isinstance(characters, str) else tuple(characters)
    for element in list(dataset.values()):
        keyword = _keywords().get(int(element.tag), "")
        try:
            if not element.is_raw or keyword in BY_PIXELS or element.length > LONGEST_REMEMBERED:
                value = dataset[element.tag].value
            else:
                value = _converted(element._replace(value_tell=0), characters)
        except RecursionError:
            raise
        except Exception:  # see _parse
            value = UNREADABLE
        if keyword and value is not None and not (hasattr(value, "__len__") and len(value) == 0):
            values[keyword] = value
    return values


@lru_cache(maxsize=MOST_REMEMBERED)
def _converted(element: Any, characters: str | tuple[str, ...]) -> Any:
    """The value of an element; most are the same in all files of a series."""
    from pydicom.dataelem import convert_raw_data_element

    encoding = characters if isinstance(characters, str) else list(characters)
    return convert_raw_data_element(element, encoding=encoding).value
