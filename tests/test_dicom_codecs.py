"""Compressed DICOM: every syntax against the uncompressed original, and damage that must do no harm."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pydicom import FileDataset, dcmread
from pydicom.uid import (
    JPEG2000,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_files import compressed, multi_frame, slices, write
from oncoseg.errors import DataError
from oncoseg.io.dicom import decoder
from oncoseg.io.dicom.decoder import Frame, decode
from oncoseg.io.dicom.series import Series
from oncoseg.io.dicom.survey import find_series, survey
from oncoseg.io.dicom.voxels import open_series, read_series

SALT = b"x" * 32
LOSS = "the images were compressed with loss: small structures may have changed"


def picture(kind: str = "u2", bits: int = 12, slices: int = 3) -> np.ndarray:
    """Smooth, so that lossy codecs stay near it, and using the bits to their ends."""
    i, j, k = np.meshgrid(np.arange(32), np.arange(24), np.arange(slices), indexing="ij")
    waves = np.sin(i / 5 + k) * np.cos(j / 4) / 2
    middle = 0 if kind.startswith("i") else 2 ** (bits - 1)
    return np.round(middle + waves * (2**bits - 1) * 0.99).astype(kind)


def _gdcm(dataset: FileDataset, folder: Path, name: str, lossy: bool = False) -> FileDataset:
    gdcm = pytest.importorskip("gdcm")
    plain, packed = str(folder / "plain.dcm"), str(folder / "packed.dcm")
    dataset.save_as(plain, enforce_file_format=True)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(plain)
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    if lossy:
        codec = gdcm.JPEGCodec()
        codec.SetLossless(False)
        change.SetUserCodec(codec)
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(packed)
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return dcmread(packed)


def _pydicom(syntax: str) -> Callable[[FileDataset, Path], FileDataset]:
    def compress(dataset: FileDataset, folder: Path) -> FileDataset:
        dataset.compress(syntax, generate_instance_uid=False)
        return dataset

    return compress


def decoded(series: Series) -> np.ndarray:
    """Every slice, decoded here and not in another process, as starting one takes long; axes `i j k`."""
    frames = [Frame(each.file, each.frame or 0, each.pixels) for each in series.slices if each.pixels]
    return np.stack([decode(frame).T for frame in frames], axis=2)


LOSSLESS: dict[str, Callable[[FileDataset, Path], FileDataset]] = {
    RLELossless: _pydicom(RLELossless),
    JPEGLSLossless: _pydicom(JPEGLSLossless),
    JPEGLosslessSV1: lambda dataset, folder: _gdcm(dataset, folder, "JPEGLosslessProcess14_1"),
    JPEGLossless: lambda dataset, folder: _gdcm(dataset, folder, "JPEGLosslessProcess14"),
    JPEG2000Lossless: lambda dataset, folder: _gdcm(dataset, folder, "JPEG2000Lossless"),
}


@pytest.mark.parametrize(("kind", "bits"), [("u2", 12), ("u2", 16), ("i2", 16), ("i2", 12), ("u1", 8)])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_lossless_syntaxes_give_the_original(tmp_path: Path, syntax: str, kind: str, bits: int) -> None:
    if kind == "i2" and bits == 12 and syntax in (JPEGLosslessSV1, JPEGLossless):
        pytest.skip("the encoder takes twelve bits with a sign for an error")
    stored = picture(kind, bits)
    datasets = slices(stored, modality="MR", BitsStored=bits, HighBit=bits - 1)
    packed = [LOSSLESS[syntax](dataset, tmp_path) for dataset in datasets]
    assert {dataset.file_meta.TransferSyntaxUID for dataset in packed} == {syntax}
    write(packed, tmp_path / "series")
    (series,) = find_series(tmp_path / "series", salt=SALT)
    assert series.remarks == ()
    np.testing.assert_array_equal(decoded(series), stored)


def _near_lossless(dataset: FileDataset, folder: Path) -> FileDataset:
    dataset.compress(JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
    return dataset


@pytest.mark.parametrize(
    ("syntax", "bits", "compress", "off"),
    [
        (JPEGLSNearLossless, 12, _near_lossless, 2),
        (JPEGBaseline8Bit, 8, lambda d, f: _gdcm(d, f, "JPEGBaselineProcess1", lossy=True), 6),
        (JPEGExtended12Bit, 12, lambda d, f: _gdcm(d, f, "JPEGExtendedProcess2_4", lossy=True), 40),
        (JPEG2000, 12, lambda d, f: _gdcm(d, f, "JPEG2000"), 40),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_lossy_syntaxes_stay_near_the_original_and_are_remarked_on(
    tmp_path: Path, syntax: str, bits: int, compress: Callable[[FileDataset, Path], FileDataset], off: int
) -> None:
    stored = picture("u1" if bits == 8 else "u2", bits)
    datasets = slices(stored, modality="MR", BitsStored=bits, HighBit=bits - 1, LossyImageCompression="01")
    write([compress(dataset, tmp_path) for dataset in datasets], tmp_path / "series")
    (series,) = find_series(tmp_path / "series", salt=SALT)
    assert series.slices[0].pixels is not None
    assert series.slices[0].pixels.format.transfer_syntax == syntax
    assert series.remarks == (LOSS,)
    difference = np.abs(decoded(series).astype(int) - stored.astype(int))
    assert difference.max() <= off


def test_hounsfield_units_of_compressed_ct(tmp_path: Path) -> None:
    stored = picture()
    write([LOSSLESS[JPEGLSLossless](each, tmp_path) for each in slices(stored)], tmp_path / "series")
    (series,) = find_series(tmp_path / "series", salt=SALT)
    np.testing.assert_array_equal(read_series(series).array[0], stored.astype(int) - 1024)


def test_frames_of_a_compressed_multi_frame_image(tmp_path: Path) -> None:
    stored = picture(slices=7)
    dataset = multi_frame(stored)
    dataset.compress(RLELossless, generate_instance_uid=False)
    write([dataset], tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    with open_series(series) as slabs:
        np.testing.assert_array_equal(slabs.slab(2, 4, 6), stored[..., 4:6].astype(int) - 1024)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_damaged_compressed_data_is_an_error_or_an_image_but_never_a_crash(
    tmp_path: Path, syntax: str
) -> None:
    datasets = slices(picture()[:12, :8])
    files = write([LOSSLESS[syntax](each, tmp_path) for each in datasets], tmp_path / "series")
    (series,) = find_series(tmp_path / "series", salt=SALT)
    whole = files[1].read_bytes()
    begin, end = len(whole) - 80, len(whole) - 10
    noise = np.random.default_rng(0).integers(0, 256, end - begin, np.uint8).tobytes()
    outcomes = []
    with open_series(series) as slabs:
        for damage in (whole[:begin], whole[:begin] + noise + whole[end:], whole[:-500] + bytes(500), b""):
            files[1].write_bytes(damage)
            with suppress(DataError):
                assert slabs.slab(2, 1, 2).shape == (12, 8, 1)
                continue
            outcomes.append("refused")
        files[1].write_bytes(whole)  # after all that, decoding goes on
        np.testing.assert_array_equal(slabs.slab(2, 1, 2), picture()[:12, :8, 1:2].astype(int) - 1024)
    assert "refused" in outcomes


def test_fragments_that_are_no_image_are_named(tmp_path: Path) -> None:
    datasets = [
        compressed(each, JPEGLSLossless, [b"this is no picture, surely"]) for each in slices(picture())
    ]
    write(datasets, tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    with pytest.raises(DataError, match=r"00\d\.dcm is damaged: its compressed pixels cannot be decoded"):
        read_series(series)


def test_a_compressed_image_of_another_size_is_refused(tmp_path: Path) -> None:
    packed = [LOSSLESS[JPEGLSLossless](each, tmp_path) for each in slices(picture())]
    for dataset in packed:
        dataset.Rows = 48
    write(packed, tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    with pytest.raises(DataError, match="damaged"):
        read_series(series)


def test_a_decoder_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write([LOSSLESS[JPEGLSLossless](each, tmp_path) for each in slices(picture())], tmp_path / "series")
    (series,) = find_series(tmp_path / "series", salt=SALT)
    monkeypatch.setattr(decoder, "DECODER_SECONDS", 0.0)  # as if it hung: no answer is there yet
    with pytest.raises(DataError, match=r"the decoder of its compressed pixels took more than 0 seconds"):
        read_series(series)


def test_syntaxes_that_are_no_still_images_are_refused(tmp_path: Path) -> None:
    mpeg = "1.2.840.10008.1.2.4.102"
    write([compressed(each, mpeg, [b"film"]) for each in slices(picture())], tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    with pytest.raises(
        DataError, match=r"is compressed as MPEG-4 .*, which is not read. Export it uncompressed"
    ):
        read_series(series)


def test_a_missing_decoder_tells_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import HTJ2KLosslessDecoder

    (file, *_) = write([compressed(each, HTJ2KLossless, [b"x"]) for each in slices(picture())], tmp_path)
    (series,) = find_series(tmp_path, salt=SALT)
    monkeypatch.setattr(HTJ2KLosslessDecoder, "_available", {})
    assert series.slices[0].pixels is not None
    with pytest.raises(DataError, match=r'reading that needs pip install "oncoseg\[codecs\]"'):
        decode(Frame(file, 0, series.slices[0].pixels))


def test_more_pixels_than_the_file_can_hold_are_refused(tmp_path: Path) -> None:
    datasets = [
        compressed(each, JPEGLSLossless, [b"x"]) for each in slices(picture(), Rows=8192, Columns=8192)
    ]
    write(datasets, tmp_path)
    (left_out,) = survey(tmp_path, salt=SALT).left_out
    assert "it declares 1 frames of 8192×8192 pixels, more than its" in left_out.reason


def test_pixels_that_are_not_stored_as_the_syntax_says_are_refused(tmp_path: Path) -> None:
    datasets = slices(picture())
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.PixelData = b"\xfe\xff\x00\xe0" + bytes(len(dataset.PixelData) - 4)
        dataset["PixelData"].is_undefined_length = False
    for k, file in enumerate(write(datasets, tmp_path)):
        data = file.read_bytes()
        at = data.rfind(b"\xe0\x7f\x10\x00O")
        file.write_bytes(data[: at + 8] + struct.pack("<L", len(datasets[k].PixelData)) + data[at + 12 :])
    (left_out,) = survey(tmp_path, salt=SALT).left_out
    assert "not stored as its transfer syntax says" in left_out.reason
