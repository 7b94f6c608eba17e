"""DICOM volumes: slices by position, values by their own slopes, refused by name where they are no regular grid or damaged."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import CT, SECONDARY_CAPTURE, dataset, item, save, stack, voxels, write_enhanced, write_series, write_slice
from pydicom import uid

from autoseg.data.dicom import is_dicom_file, is_dicom_folder, read_volume
from autoseg.data.images import count_channels, read_geometry, read_image, read_label

PYDICOM_FILES = Path(pydicom.__file__).parent / "data/test_files"


def test_slices_come_in_order_with_their_geometry(tmp_path):
    volume = voxels()
    write_series(tmp_path / "d", volume, stack())
    assert is_dicom_folder(tmp_path / "d")
    image = read_image([tmp_path / "d"])
    np.testing.assert_array_equal(image.array[0], volume)
    assert image.geometry.shape == (6, 5, 6)
    assert image.geometry.spacing == (2.5, 0.8, 0.7)
    assert image.geometry.origin == (-5.0, -6.0, 10.0)
    assert read_geometry(tmp_path / "d") == image.geometry
    assert count_channels(tmp_path / "d") == 1


def test_an_oblique_series_is_where_itk_has_it(tmp_path):
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    row, column = turned[:, 0].round(9), turned[:, 1].round(9)
    positions = [(np.array([3, -40, 7]) + 3.1 * k * np.cross(row, column)).round(6).tolist() for k in range(6)]
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "SpacingBetweenSlices": 9}
    axes = (*row.tolist(), *column.tolist())
    write_series(tmp_path / "d", voxels(), positions, ImageOrientationPatient=axes, **tags)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "d")))
    expected, image = reader.Execute(), read_image([tmp_path / "d"])
    np.testing.assert_array_equal(image.array[0], sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(image.geometry.origin, expected.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(image.geometry.direction, expected.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(image.geometry.spacing[::-1], expected.GetSpacing(), atol=1e-6)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (np.delete(stack(), 3, axis=0), r"even slice gaps of 2\.5 mm, found 5 mm between slices 3 and 4"),
        (stack() + np.array([[0, np.tan(np.radians(12)) * 2.5 * i, 0] for i in range(6)]), r"gantry tilt of 12\.00 degrees"),
        (np.array(stack())[[0, 1, 2, 2, 4, 5]], "1 slices at the position of another"),
        (np.array(stack()) + np.array([[0, 2.0 * (i == 2), 0] for i in range(6)]), "slice 3 displaced by 2 mm to the side"),
    ],
)
def test_what_is_no_regular_grid_is_refused_with_its_measure(tmp_path, positions, message):
    write_series(tmp_path / "d", voxels(len(positions)), np.round(positions, 4).tolist())
    with pytest.raises(ValueError, match=rf"{tmp_path / 'd'}.*{message}"):
        read_volume(tmp_path / "d")


def test_one_slice_as_a_folder_or_a_file_with_or_without_its_ending(tmp_path):
    volume = voxels(1)
    file = write_series(tmp_path / "d", volume, stack(1))[0]
    for path in (tmp_path / "d", file, shutil.copyfile(file, tmp_path / "IM0001")):
        np.testing.assert_array_equal(read_image([path]).array[0], volume)
    assert read_geometry(tmp_path / "d").shape == (1, 5, 6)


def test_other_folders_and_tables_of_contents_are_no_dicom(tmp_path):
    assert not is_dicom_folder(tmp_path)
    assert not is_dicom_folder(tmp_path / "nothing")
    (tmp_path / "a.nii.gz").write_bytes(b"no dicom")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert not is_dicom_folder(tmp_path)
    assert not is_dicom_file(tmp_path / "DICOMDIR")
    with pytest.raises(ValueError, match="found none"):
        read_volume(tmp_path)


class TestValues:
    def test_each_slice_has_its_own_slope(self, tmp_path):
        activity = np.linspace(0, 80000, 6 * 30).reshape(6, 5, 6)
        slopes = [1.0, *(float(f"{plane.max() / 30000:.6g}") for plane in activity[1:])]
        stored = np.stack([np.rint(plane / slope) for plane, slope in zip(activity, slopes)]).astype(np.int16)
        write_series(tmp_path / "d", stored, stack(), RescaleSlope=slopes, RescaleIntercept=0, Modality="PT")
        np.testing.assert_allclose(read_image([tmp_path / "d"]).array[0], activity, atol=max(slopes))

    def test_integers_stay_integers(self, tmp_path):
        write_series(tmp_path / "d", voxels(), stack(), RescaleSlope=1, RescaleIntercept=-1024)
        label = read_label(tmp_path / "d").array
        assert label.dtype == np.int16
        np.testing.assert_array_equal(label, voxels() - 1024)

    def test_a_slope_in_some_slices_only_is_refused(self, tmp_path):
        write_series(tmp_path / "d", voxels(), stack(), RescaleSlope=[2, 2, None, 2, 2, 2], RescaleIntercept=[0, 0, None, 0, 0, 0])
        with pytest.raises(ValueError, match="s004.dcm: expected RescaleSlope"):
            read_volume(tmp_path / "d")

    @pytest.mark.parametrize("signed", [0, 1])
    def test_bits_above_those_in_use_do_not_count(self, tmp_path, signed):
        values = np.array([[0, 5, 2047], [-3 if signed else 3, -2048 if signed else 2048, 1]], np.int16)
        stored = (values & 0x0FFF) | np.int16(0x5000)  # an overlay
        tags = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
        write_slice(tmp_path / "a.dcm", stored.astype(np.int16), stack()[0], **tags)
        np.testing.assert_array_equal(read_image([tmp_path / "a.dcm"]).array[0, 0], values)

    def test_modality_lookup_table(self, tmp_path):
        table = item(LUTDescriptor=[4, 10, 16], LUTData=[7, 70, 700, 7000], ModalityLUTType="US")
        table["LUTData"].VR = "US"
        pixels = np.array([[0, 10, 11], [12, 13, 99]], np.uint16)
        write_slice(tmp_path / "a.dcm", pixels, stack()[0], ModalityLUTSequence=pydicom.sequence.Sequence([table]))
        np.testing.assert_array_equal(read_image([tmp_path / "a.dcm"]).array[0, 0], [[7, 7, 70], [700, 7000, 7000]])

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ({"PhotometricInterpretation": "PALETTE COLOR"}, r"colours \(PALETTE COLOR\)"),
            ({"HighBit": 14}, "lowest in use"),
            ({"RescaleSlope": 0}, "RescaleSlope is 0"),
            ({"ImageOrientationPatient": (1, 0, 0, 0.5, 1, 0)}, "right angle"),
            ({"PixelSpacing": (0, 1)}, "positive PixelSpacing"),
            ({"Rows": 4}, "expected 48 bytes of voxels .* found 60"),
            ({"Rows": 6}, "truncated: expected 72 bytes of voxels, found 60"),
        ],
    )
    def test_what_cannot_be_right_is_refused(self, tmp_path, tags, message):
        write_series(tmp_path / "d", voxels(2), stack(2), **tags)
        with pytest.raises(ValueError, match=rf"{tmp_path / 'd'}.*{message}"):
            read_volume(tmp_path / "d")


class TestTransferSyntaxes:
    @pytest.mark.parametrize("name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless"])
    def test_compressed_or_not_the_values_are_the_same(self, name):
        expected = read_image([PYDICOM_FILES / "MR_small.dcm"])
        image = read_image([PYDICOM_FILES / f"MR_small_{name}.dcm"])
        np.testing.assert_array_equal(image.array, expected.array)
        assert image.geometry == expected.geometry

    def test_rescale_of_compressed_voxels_is_that_of_the_header(self, tmp_path):
        header = pydicom.dcmread(PYDICOM_FILES / "MR_small_jp2klossless.dcm")
        header.RescaleSlope, header.RescaleIntercept = 0.5, 3
        header.save_as(tmp_path / "a.dcm")
        expected = read_image([PYDICOM_FILES / "MR_small.dcm"]).array * 0.5 + 3
        np.testing.assert_array_equal(read_image([tmp_path / "a.dcm"]).array, expected)

    def test_deflated_and_without_a_preamble(self, tmp_path):
        place = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [2, 2]}
        volume = voxels(1)
        save(tmp_path / "deflated", dataset(volume[0], **place), uid.DeflatedExplicitVRLittleEndian)
        plain = save(tmp_path / "plain", dataset(volume[0], **place), uid.ImplicitVRLittleEndian).read_bytes()
        meta = 132 + 12 + pydicom.dcmread(tmp_path / "plain").file_meta.FileMetaInformationGroupLength
        (tmp_path / "bare").write_bytes(plain[meta:])
        for name in ("deflated", "plain", "bare"):
            np.testing.assert_array_equal(read_image([tmp_path / name]).array[0], volume)

    @pytest.mark.parametrize("name", ["RLE", "jp2klossless", "jpeg_ls_lossless", "implicit"])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_truncated(self, tmp_path, name, share):
        whole = (PYDICOM_FILES / f"MR_small_{name}.dcm").read_bytes()
        (tmp_path / "a.dcm").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"a\.dcm"):
            read_image([tmp_path / "a.dcm"])

    def test_one_that_cannot_be_decoded_is_named(self, tmp_path):
        data = pydicom.dcmread(PYDICOM_FILES / "MR_small_jp2klossless.dcm")
        data.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
        data.save_as(tmp_path / "a.dcm")
        with pytest.raises(ValueError, match="High-Throughput JPEG 2000.*decompress it first"):
            read_image([tmp_path / "a.dcm"])


class TestEnhanced:
    @pytest.mark.parametrize("order", [range(6), range(5, -1, -1), [3, 0, 5, 1, 4, 2]])
    def test_frames_are_sorted_by_position(self, tmp_path, order):
        volume, positions = voxels(), stack()
        slopes = [{"PixelValueTransformationSequence": item(RescaleSlope=k + 1, RescaleIntercept=-k)} for k in order]
        write_enhanced(tmp_path / "a.dcm", volume[list(order)], [positions[k] for k in order], slopes)
        image = read_image([tmp_path / "a.dcm"])
        assert image.geometry.spacing == (2.5, 0.8, 0.7)
        assert image.geometry.origin == positions[0]
        np.testing.assert_array_equal(image.array[0], [volume[k] * (k + 1.0) - k for k in range(6)])

    def test_missing_frames_are_refused(self, tmp_path):
        write_enhanced(tmp_path / "a.dcm", voxels(5), np.delete(stack(), 2, axis=0).tolist())
        with pytest.raises(ValueError, match=r"a\.dcm: expected even slice gaps"):
            read_image([tmp_path / "a.dcm"])

    @pytest.mark.parametrize("sop_class", [SECONDARY_CAPTURE, "1.2.840.10008.5.1.4.1.1.3.1", CT])
    def test_frames_without_positions_are_refused(self, tmp_path, sop_class):
        save(tmp_path / "a.dcm", dataset(voxels(), SOPClassUID=sop_class))
        with pytest.raises(ValueError, match=r"a\.dcm.*without (a )?position"):
            read_image([tmp_path / "a.dcm"])


def test_mutated_files_are_refused_or_read(tmp_path):
    """Nothing but a ValueError gets through, and no memory is taken that the file's size does not warrant."""
    rng = random.Random(0)
    write_series(tmp_path / "s", voxels(1), stack(1), RescaleSlope=1.5, RescaleIntercept=2)
    write_enhanced(tmp_path / "e.dcm", voxels(3), stack(3))
    originals = [next((tmp_path / "s").iterdir()), tmp_path / "e.dcm"]
    originals += [PYDICOM_FILES / f"MR_small_{name}.dcm" for name in ("RLE", "jp2klossless", "jpeg_ls_lossless")]
    file, said = tmp_path / "m.dcm", []
    for original in originals:
        whole = original.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(rng.choice([1, 1, 4])):
                data[rng.randrange(132, min(len(data), 1500))] = rng.randrange(256)
            file.write_bytes(data)
            try:
                image = read_image([file])
            except ValueError as error:
                said.append(str(error))
            else:
                assert image.array[0].shape == image.geometry.shape
    assert said
    assert all(str(tmp_path) in text for text in said)


@pytest.mark.parametrize(("spacing", "known"), [((0.8, 0.7), True), (None, False)])
def test_one_slice_without_pixel_spacing_has_an_unknown_one(tmp_path, spacing, known):
    write_slice(tmp_path / "a.dcm", voxels()[0], stack()[0], PixelSpacing=spacing, ImagePositionPatient=None)
    assert read_geometry(tmp_path / "a.dcm").has_spacing == known


@pytest.mark.parametrize("key", ["ImagerPixelSpacing", "NominalScannedPixelSpacing"])
def test_a_projection_has_the_spacing_at_its_detector(tmp_path, key):
    path = save(tmp_path / "a.dcm", dataset(voxels(1)[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.1", **{key: (0.2, 0.1)}))
    geometry = read_geometry(path)
    assert (geometry.spacing[1:], geometry.has_spacing, geometry.oriented) == ((0.2, 0.1), True, False)


def with_tail(path: Path, tail: bytes) -> Path:
    """A slice with bytes behind its voxels."""
    write_slice(path, voxels(1)[0], stack()[0])
    path.write_bytes(path.read_bytes() + tail)
    return path


CREATOR = b"\xe1\x7f\x10\x00LO\x04\x00GEMS"
VALUE = b"\xe1\x7f\x01\x10UL\x04\x00\x07\x00\x00\x00"


def test_whole_private_attributes_behind_the_voxels_are_no_damage(tmp_path):
    np.testing.assert_array_equal(read_image([with_tail(tmp_path / "a.dcm", CREATOR + VALUE)]).array[0], voxels(1))
    tails = {"cut": (CREATOR + VALUE)[:-2], "rest": CREATOR + b"abcd", "nobody's": VALUE, "public": b"\xe0\x7f\x01\x10" + VALUE[4:]}
    for name, tail in tails.items():
        with pytest.raises(ValueError, match=f"{name}.dcm: .*expected the file to end with its voxels"):
            read_image([with_tail(tmp_path / f"{name}.dcm", tail)])
