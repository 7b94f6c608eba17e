"""Pictures of many kinds: read right, or refused by name; and the spacing in the file beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from factories import make_geometry

from autoseg.data.images import count_channels, files_read, read_geometry, read_image, read_label, write_image, write_label
from autoseg.data.pictures import FileBytes, check_picture

GREY = (np.arange(10 * 12).reshape(10, 12) * 2).astype(np.uint8)
STACK = np.stack([GREY, GREY[::-1], GREY.T.reshape(10, 12)])
COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


def tiff(path: Path, array: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, array, **{"photometric": "minisblack", "metadata": None, **options})
    return path


def picture(path: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    PIL.Image.fromarray(array, mode).save(path, **options)
    return path


def palette(path: Path, greys: Any) -> Path:
    image = PIL.Image.fromarray(GREY).convert("P")
    image.putpalette([value for grey in greys for value in (grey, grey, grey)])
    image.save(path)
    return path


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
def test_tiff_of_every_number_type_and_byte_order(tmp_path, kind, order):
    array = STACK.astype(kind) - (np.array(50, kind) if kind[0] in "if" else 0)
    np.testing.assert_array_equal(read_image([tiff(tmp_path / "a.tif", array, byteorder=order)]).array, array[None].astype(np.float32))


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}])
def test_tiff_stacks_as_other_programs_write_them(tmp_path, options):
    np.testing.assert_array_equal(read_image([tiff(tmp_path / "a.tif", STACK, **options)]).array[0], STACK)


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}])
def test_colours_of_tiff_are_channels(tmp_path, options):
    array = np.moveaxis(COLOURS, -1, 0) if options else COLOURS
    image = read_image([tiff(tmp_path / "a.tif", array, photometric="rgb", **options)])
    np.testing.assert_array_equal(image.array, np.moveaxis(COLOURS, -1, 0))


REFUSED = {
    "tiles": (np.tile(GREY, (4, 4)), {"tile": (16, 16)}, "tiles"),
    "palette": (GREY, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}, "a palette"),
    "two samples": (COLOURS[..., :2], {"planarconfig": "contig"}, "2 samples a pixel"),
    "five samples": (np.dstack([COLOURS, COLOURS[..., :2]]), {"planarconfig": "contig"}, "5 samples a pixel"),
    "planes of 16 bits": (
        np.moveaxis(COLOURS, -1, 0).astype(np.uint16),
        {"photometric": "rgb", "planarconfig": "separate"},
        "planes of colours",
    ),
    "planes with alpha": (
        np.stack([GREY] * 4),
        {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["unassalpha"]},
        "planes of colours",
    ),
    "a smaller copy": (STACK, {"subfiletype": 1}, "a page that is a smaller copy or a mask"),
    "half precision": (GREY.astype(np.float16), {}, "floating-point numbers of 16 bits"),
    "mirrored": (GREY, {"extratags": [(274, 3, 1, 4, True)]}, "an orientation tag"),
    "turned": (GREY, {"extratags": [(274, 3, 1, 6, True)]}, "an orientation tag"),
}


@pytest.mark.parametrize(("array", "options", "found"), REFUSED.values(), ids=REFUSED)
def test_tiff_that_itk_reads_wrongly_is_refused_by_name(tmp_path, array, options, found):
    path = tiff(tmp_path / "a.tif", array, **options)
    for read in (lambda path: read_image([path]), read_label):
        with pytest.raises(ValueError, match=f"a.tif: cannot be read: expected upright strips .*, found {found}"):
            read(path)


@pytest.mark.parametrize("kind", ["f8", "i8", "u8"])
def test_tiff_of_64_bits_is_refused_by_name(tmp_path, kind):
    with pytest.raises(ValueError, match=r"a.tif: cannot be read: .*64-bit"):
        read_image([tiff(tmp_path / "a.tif", GREY.astype(kind))])


def test_single_bits_are_refused_by_name(tmp_path):
    for name in ("a.tif", "a.bmp"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read"):
            read_image([picture(tmp_path / name, GREY > 100)])


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_a_palette_of_greys_is_one_channel(tmp_path, name):
    for greys, expected in ((range(256), GREY), (range(255, -1, -1), 255 - GREY)):
        path = palette(tmp_path / name, greys)
        np.testing.assert_array_equal(read_image([path]).array, expected[None])
        assert count_channels(path) == 1
    coloured = picture(tmp_path / f"colour-{name}", np.dstack([GREY, GREY, GREY]))
    assert read_image([coloured]).array.shape == (3, *GREY.shape)
    assert count_channels(coloured) == 3


def test_grey_bmp_of_our_own_has_one_channel(tmp_path):
    path = write_image(tmp_path / "a.bmp", GREY[None], make_geometry(GREY.shape))
    np.testing.assert_array_equal(read_image([path]).array, GREY[None])


def test_alpha_of_colours_is_dropped_and_of_greys_refused(tmp_path):
    path = picture(tmp_path / "a.png", np.dstack([COLOURS, GREY]))
    np.testing.assert_array_equal(read_image([path]).array, np.moveaxis(COLOURS, -1, 0))
    path = picture(tmp_path / "b.png", np.dstack([GREY, GREY]), "LA")
    for read in (lambda path: read_image([path]), read_label, read_geometry, count_channels):
        with pytest.raises(ValueError, match=r"b.png: cannot be read: grey values with alpha; save it without alpha"):
            read(path)


SIDECARS = {
    "no JSON": "spacing: 1",
    "no spacing": '{"space": [1, 1, 1]}',
    "a list": "[1, 1, 1]",
    "two numbers": '{"spacing": [1, 1]}',
    "one number": '{"spacing": 1}',
    "a negative number": '{"spacing": [1, 1, -1]}',
    "zero": '{"spacing": [0, 1, 1]}',
    "infinite": '{"spacing": [1, 1, Infinity]}',
    "a word": '{"spacing": [1, 1, "1"]}',
    "true": '{"spacing": [1, 1, true]}',
}


@pytest.mark.parametrize("text", SIDECARS.values(), ids=SIDECARS)
def test_a_file_beside_a_stack_must_say_its_spacing(tmp_path, text):
    path = tiff(tmp_path / "case_0000.tif", STACK)
    (tmp_path / "case.json").write_text(text)
    for read in (lambda path: read_image([path]), read_geometry):
        with pytest.raises(
            ValueError, match=r"case.json: expected a JSON file with 'spacing', 3 positive numbers in mm \(Z, Y, X\), found"
        ):
            read(path)


def test_whether_a_stack_has_a_spacing_is_known(tmp_path):
    path = tiff(tmp_path / "a.tif", STACK)
    assert not read_geometry(path).has_spacing
    label = write_label(tmp_path / "unknown.tif", STACK, read_geometry(path))
    assert not read_geometry(label).has_spacing
    label = write_label(tmp_path / "known.tif", STACK, make_geometry(STACK.shape, (1.0, 1.0, 1.0)))
    assert json.loads((tmp_path / "known.json").read_text()) == {"spacing": [1.0, 1.0, 1.0]}
    assert read_geometry(label).has_spacing


def test_only_the_number_of_a_channel_is_dropped_from_the_name_of_the_file_beside(tmp_path):
    (tmp_path / "stack1.json").write_text('{"spacing": [9, 9, 9]}')
    for name, known in (("stack1_crop.tif", False), ("stack1_0001.tif", True), ("stack1.tif", True), ("stack1_00001.tif", False)):
        path = tiff(tmp_path / name, STACK)
        assert read_geometry(path).has_spacing == known, name
        assert (tmp_path / "stack1.json" in files_read(path)) == known, name


HYPERSTACKS = {
    "channels of ImageJ": ({"imagej": True, "metadata": {"axes": "ZCYX"}}, "channels=2"),
    "times of ImageJ": ({"imagej": True, "metadata": {"axes": "TZYX"}}, "frames=3"),
    "channels of OME": ({"ome": True, "metadata": {"axes": "ZCYX"}}, "SizeC=2"),
    "times of OME": ({"ome": True, "metadata": {"axes": "ZTYX"}}, "SizeT=2"),
    "pages left out": ({"metadata": {}, "truncate": True}, "that pages are left out"),
}


@pytest.mark.parametrize(("options", "found"), HYPERSTACKS.values(), ids=HYPERSTACKS)
def test_pages_that_are_no_slices_are_refused(tmp_path, options, found):
    path = tiff(tmp_path / "a.tif", np.stack([STACK, STACK[::-1]], axis=1), **options)
    with pytest.raises(ValueError, match=f"a.tif: cannot be read: expected pages that are all slices .* {found}"):
        read_image([path])


@pytest.mark.parametrize("options", [{"imagej": True, "metadata": {"axes": "ZYX"}}, {"ome": True, "metadata": {"axes": "ZYX"}}])
def test_slices_of_imagej_and_ome_are_read(tmp_path, options):
    np.testing.assert_array_equal(read_image([tiff(tmp_path / "a.tif", STACK, **options)]).array[0], STACK)


def test_of_pixels_without_a_checksum_nothing_is_read_to_check_them(tmp_path, monkeypatch):
    path = tiff(tmp_path / "a.tif", np.zeros((10, 200, 200), np.uint8))
    read, asked = FileBytes.__getitem__, []
    monkeypatch.setattr(FileBytes, "__getitem__", lambda self, part: asked.append(read(self, part)) or asked[-1])
    check_picture(path)
    assert sum(map(len, asked)) < 10_000 < path.stat().st_size
