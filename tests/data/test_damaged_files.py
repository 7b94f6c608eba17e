"""Files that are damaged, cut short or lie about their size are refused by name; unusual but legal ones are read right."""

from __future__ import annotations

import bz2
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from dicom_files import stack, voxels, write_series
from PIL import Image as Picture

from autoseg.data import images

VOLUME = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(np.int16)
PICTURE = np.random.default_rng(1).integers(0, 200, (16, 17)).astype(np.uint8)


def packed(path: Path) -> Path:
    """A file of that ending, compressed where its format can be."""
    if path.suffix == ".tif":
        pages = [Picture.fromarray(plane) for plane in VOLUME.astype(np.uint8)]
        pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_adobe_deflate")
    else:
        array = PICTURE if path.suffix in (".png", ".bmp", ".jpg") else VOLUME
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path), useCompression=path.suffix not in (".nii", ".gipl"))
    return path


def plain(path: Path) -> Path:
    if path.suffix == ".tif":
        pages = [Picture.fromarray(plane) for plane in VOLUME.astype(np.uint8)]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    else:
        sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(path), useCompression=False)
    return path


def header_bytes(path: Path) -> int:
    """Bytes before the first that a checksum covers."""
    content = path.read_bytes()
    if path.suffix == ".mha":
        return content.index(b"LOCAL\n") + 6
    if path.suffix == ".nrrd":
        return content.index(b"\n\n") + 2
    return 0


def refuse_or_equal(path: Path, expected: np.ndarray) -> bool:
    """Whether the file is refused by name; reading it wrong fails the test."""
    try:
        found = images.read_image([path]).array[0]
    except ValueError as error:
        return path.name in str(error)
    np.testing.assert_array_equal(found, expected)
    return False


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd", "a.png"])
def test_one_flipped_bit_under_a_checksum_is_refused_or_changes_nothing(tmp_path, name):
    path = packed(tmp_path / name)
    content, expected = path.read_bytes(), images.read_image([path]).array[0]
    rng, start = np.random.default_rng(5), header_bytes(path)
    refused = 0
    for _ in range(60):
        flipped = bytearray(content)
        flipped[rng.integers(start, len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        refused += refuse_or_equal(path, expected)
    assert refused >= 50  # name, time and flags in the header of gzip mean nothing


def test_one_flipped_bit_in_the_pixels_of_a_deflated_tiff_is_refused(tmp_path):
    path = packed(tmp_path / "a.tif")
    content = path.read_bytes()
    at = content.index(b"\x78", 8)
    for offset in range(2, 40):
        path.write_bytes(content[: at + offset] + bytes([content[at + offset] ^ 4]) + content[at + offset + 1 :])
        with pytest.raises(ValueError, match=r"a\.tif: cannot be read.*copy or download it again"):
            images.read_image([path])


@pytest.mark.parametrize("make", [packed, plain])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd", "a.gipl", "a.tif", "a.png", "a.bmp", "a.jpg"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path, make, name, share):
    if make is plain and name.endswith((".png", ".bmp", ".jpg", ".gz")):
        pytest.skip("one way to write it")
    path = make(tmp_path / name)
    images.read_image([path])
    path.write_bytes(path.read_bytes()[: min(int(path.stat().st_size * share), path.stat().st_size - 20)])
    with pytest.raises(ValueError, match=f"{name}: cannot be read"):
        images.read_image([path])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd", "a.gipl", "a.png", "a.bmp"])
def test_bytes_after_the_last_voxel_are_refused(tmp_path, name):
    path = packed(tmp_path / name)
    path.write_bytes(path.read_bytes() + b"surplus!")
    with pytest.raises(ValueError, match=name):
        images.read_image([path])


@pytest.mark.parametrize(("name", "padding"), [("a.nii.gz", 1), ("a.nii.gz", 2_000_000), ("a.nrrd", 512), ("a.png", 512), ("a.jpg", 512)])
def test_zeros_behind_a_stream_that_says_its_end_are_padding(tmp_path, name, padding):
    path = packed(tmp_path / name)
    expected = images.read_image([path]).array
    path.write_bytes(path.read_bytes() + bytes(padding))
    np.testing.assert_array_equal(images.read_image([path]).array, expected)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=name):
        images.read_image([path])


@pytest.mark.parametrize(("make", "name"), [(plain, "a.nii"), (plain, "a.mha"), (packed, "a.mha"), (plain, "a.nrrd"), (plain, "a.gipl")])
def test_zeros_behind_voxels_that_do_not_say_their_end_are_surplus(tmp_path, make, name):
    path = make(tmp_path / name)
    path.write_bytes(path.read_bytes() + bytes(8))
    with pytest.raises(ValueError, match=name):
        images.read_image([path])


@pytest.mark.parametrize(("code", "kind"), [(1024, "<i8"), (1280, "<u8"), (64, "<f8")])
def test_nifti_of_64_bits_is_read(tmp_path, code, kind):
    content = bytearray(plain(tmp_path / "a.nii").read_bytes()[:352])
    struct.pack_into("<2h", content, 70, code, 64)
    (tmp_path / "a.nii").write_bytes(bytes(content) + VOLUME.astype(kind).tobytes())
    np.testing.assert_array_equal(images.read_image([tmp_path / "a.nii"]).array[0], VOLUME)
    np.testing.assert_array_equal(images.read_label(tmp_path / "a.nii").array, VOLUME)
    struct.pack_into("<h", content, 72, 32)
    (tmp_path / "a.nii").write_bytes(bytes(content) + VOLUME.astype(kind).tobytes())
    with pytest.raises(ValueError, match=r"a\.nii: .*64 bits a voxel.*found 32"):
        images.read_image([tmp_path / "a.nii"])


@pytest.mark.parametrize("times", [1, 3])
def test_nifti_of_four_axes_has_a_channel_for_each_of_its_times(tmp_path, times):
    content = bytearray(plain(tmp_path / "a.nii").read_bytes())
    struct.pack_into("<h", content, 40, 4)
    struct.pack_into("<h", content, 48, times)
    (tmp_path / "a.nii").write_bytes(bytes(content) + VOLUME.tobytes() * (times - 1))
    assert images.count_channels(tmp_path / "a.nii") == times
    np.testing.assert_array_equal(images.read_image([tmp_path / "a.nii"]).array, np.stack([VOLUME] * times))


def test_nifti_of_colours_has_three_channels_and_is_no_grey_image(tmp_path):
    content = bytearray(plain(tmp_path / "scan.nii").read_bytes()[:352])
    struct.pack_into("<2h", content, 70, 128, 24)
    colours = np.random.default_rng(0).integers(0, 200, (*VOLUME.shape, 3)).astype(np.uint8)
    (tmp_path / "scan.nii").write_bytes(bytes(content) + colours.tobytes())
    np.testing.assert_array_equal(images.read_image([tmp_path / "scan.nii"]).array, np.moveaxis(colours, -1, 0))
    with pytest.raises(ValueError, match=r"scan\.nii: expected a label map with one number a voxel, found 3 channels"):
        images.read_label(tmp_path / "scan.nii")


@pytest.mark.parametrize(("name", "change"), [("a.raw", -1), ("a.raw", 1), ("a.zraw", -1)])
def test_voxels_in_a_second_file_have_the_size_of_the_header(tmp_path, name, change):
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME), str(tmp_path / "a.mhd"), useCompression=name == "a.zraw")
    np.testing.assert_array_equal(images.read_image([tmp_path / "a.mhd"]).array[0], VOLUME)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:change] if change < 0 else content + b"x")
    with pytest.raises(ValueError, match=rf"a.mhd: .*{name}: cannot be read"):
        images.read_image([tmp_path / "a.mhd"])
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}.*found nothing"):
        images.read_image([tmp_path / "a.mhd"])


def test_compressed_files_may_have_several_members_and_any_name(tmp_path):
    content = plain(tmp_path / "a.nii").read_bytes()
    for name, other in (
        ("b.nii.gz", gzip.compress(content[:99]) + gzip.compress(content[99:]) + bytes(512)),
        ("c.nii", gzip.compress(content)),
        ("d.nii.gz", content),
    ):
        (tmp_path / name).write_bytes(other)
        np.testing.assert_array_equal(images.read_image([tmp_path / name]).array[0], VOLUME)
        assert images.read_geometry(tmp_path / name) == images.read_geometry(tmp_path / "a.nii")


def nrrd(path: Path, encoding: str, data: bytes, *further: str) -> Path:
    lines = [
        "NRRD0004",
        "type: short",
        "dimension: 3",
        "sizes: 7 6 5",
        "spacings: 1 2 3",
        "endian: little",
        f"encoding: {encoding}",
        *further,
    ]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + data)
    return path


def test_other_encodings_of_nrrd(tmp_path):
    raw = VOLUME.astype("<i2").tobytes()
    for name, path in {
        "ascii": nrrd(tmp_path / "a.nrrd", "ascii", " ".join(map(str, VOLUME.ravel())).encode()),
        "detached": nrrd(tmp_path / "b.nrrd", "gzip", b"", "data file: voxels.gz"),
    }.items():
        (tmp_path / "voxels.gz").write_bytes(gzip.compress(raw))
        np.testing.assert_array_equal(images.read_image([path]).array[0], VOLUME, err_msg=name)
    refuse_or_equal(nrrd(tmp_path / "c.nrrd", "bzip2", bz2.compress(raw)), VOLUME)
    broken = nrrd(tmp_path / "d.nrrd", "bzip2", bz2.compress(raw)[:-9])
    assert refuse_or_equal(broken, VOLUME)
    assert refuse_or_equal(nrrd(tmp_path / "e.nrrd", "raw", raw[:-1]), VOLUME)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "b.mha", "a.nrrd", "b.nrrd"])
def test_a_header_that_claims_a_monstrous_volume_is_refused_before_memory_is_taken(tmp_path, name):
    path = (packed if name.startswith("a") else plain)(tmp_path / name)
    content = path.read_bytes()
    if ".nii" in name:
        content = bytearray(gzip.decompress(content) if name.endswith("gz") else content)
        struct.pack_into("<3h", content, 42, 30000, 30000, 30000)
        content = gzip.compress(content) if name.endswith("gz") else content
    else:
        content = content.replace(b"DimSize = 7 6 5", b"DimSize = 30000 30000 30000").replace(b"sizes: 7 6 5", b"sizes: 30000 30000 30000")
    path.write_bytes(content)
    for read in (images.read_geometry, lambda one: images.read_image([one]), images.read_label):
        with pytest.raises(ValueError, match=f"{name}: cannot be read.*54000000"):
            read(path)


@pytest.mark.parametrize(
    ("field", "kind", "value", "said"),
    [
        (108, "f", np.inf, "vox_offset"),
        (108, "f", np.nan, "vox_offset"),
        (108, "f", -4.0, "vox_offset"),
        (0, "i", 349, "348"),
        (344, "i", 0, "n\\+1"),
        (40, "h", 9, "dim"),
        (40, "h", 0, "dim"),
        (42, "h", -7, "dim"),
        (70, "h", 32, "complex"),
        (70, "h", 999, "number type 999"),
        (72, "h", 8, "bitpix"),
        (112, "f", np.inf, "scl_slope"),
        (123, "B", 7, "xyzt_units"),
    ],
)
def test_nifti_fields_that_cannot_be_are_named(tmp_path, field, kind, value, said):
    content = bytearray(plain(tmp_path / "a.nii").read_bytes())
    struct.pack_into("<" + kind, content, field, value)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.nii: cannot be read.*{said}"):
        images.read_image([tmp_path / "a.nii"])
    with pytest.raises(ValueError, match=rf"a\.nii: cannot be read.*{said}"):
        images.read_geometry(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"ElementSpacing", b"ElementSpbcing", "is ElementSpacing meant"),
        (b"DimSize = 7 6 5", b"DimSize = 7 6", "DimSize"),
        (b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 x 1", "could not convert"),
        (b"MET_SHORT", b"MET_SHPRT", "SHPRT"),
    ],
)
def test_metaimage_headers_that_itk_would_guess_from(tmp_path, old, new, said):
    content = plain(tmp_path / "a.mha").read_bytes()
    assert old in content
    (tmp_path / "a.mha").write_bytes(content.replace(old, new))
    with pytest.raises(ValueError, match=rf"a\.mha.*{said}"):
        images.read_image([tmp_path / "a.mha"])


@pytest.mark.parametrize("surplus", [6, 24])
def test_bytes_that_were_put_into_the_voxels_of_a_dicom_slice_are_noticed(tmp_path, surplus):
    file = write_series(tmp_path / "series", voxels(), stack())[2]
    content = file.read_bytes()
    file.write_bytes(content[:-16] + (b"\x81\x04\x71\x71" * 6)[:surplus] + content[-16:])
    with pytest.raises(ValueError, match=f"{file.name}.*behind them"):
        images.read_image([tmp_path / "series"])


def test_a_tiff_page_that_differs_from_the_first_is_noticed(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.arange(60, dtype=np.uint16).reshape(3, 4, 5), photometric="minisblack", metadata=None)
    content = bytearray((tmp_path / "x.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        tag = file.pages[2].tags["BitsPerSample"].offset
    content[tag] ^= 0x40  # another, unknown tag: the page has one bit a voxel then
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.tif.*page 3 has another size, kind of numbers or compression"):
        images.read_image([tmp_path / "x.tif"])
