"""Pictures and GIPL files: what their decoders do not check themselves, and the spacing that a picture has in a file beside it."""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from .streams import MOST_EXPANSION, damaged

_PNG = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_JPEG_PIXELS = 4096
"""Pixels that a byte of a JPEG can become at most."""
_GIPL_BYTES = {1: 1, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SUBFILE, _DESCRIPTION = 254, 270
_NO_PAGE = 1 | 4
"""Kinds of pages (`_SUBFILE`) that are a smaller copy or a mask: ITK passes over them with memory for fewer pages than there are."""
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES, _COUNTS, _PLANAR = 256, 257, 258, 259, 262, 273, 277, 279, 284
_TILE_OFFSETS, _TILE_COUNTS, _ORIENTATION, _SAMPLE_FORMAT = 324, 325, 274, 339
_TIFF_KINDS = {(8, 1), (8, 2), (16, 1), (16, 2), (32, 1), (32, 2), (32, 3)}
"""Bits and format (1: unsigned, 2: signed, 3: floating point) of the numbers that ITK reads from a TIFF file as they are."""
_RGB, _YCBCR = 2, 6
_TIFF_REQUIRED = {_WIDTH: "width", _HEIGHT: "height", _PHOTOMETRIC: "photometric interpretation"}
"""Tags without which ITK guesses."""


class FileBytes:
    """The bytes of an open file, read where they are asked for: of pixels without checksum nothing is."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        self._file.seek(start)
        return self._file.read(max(stop - start, 0))


def check_picture(path: Path) -> None:
    """Raises a ValueError where a picture or GIPL file is cut short, larger than its header says, or has a wrong checksum."""
    ending = path.suffix.lower()
    checks = {".png": _check_png, ".bmp": _check_bmp, ".jpg": _check_jpeg, ".jpeg": _check_jpeg, ".gipl": _check_gipl}
    try:
        if ending in checks:
            checks[ending](path, path.read_bytes())
        else:
            with path.open("rb") as file:
                _check_tiff(path, FileBytes(file, path.stat().st_size))
    except (struct.error, IndexError, KeyError) as error:
        raise damaged(path, f"its header is cut short or invalid ({error})") from error


def picture_channels(path: Path, decoded: int) -> int:
    """Channels that count of those that ITK decodes: without alpha, and one of the three equal ones of a grey palette."""
    return 1 if decoded > 1 and _is_grey(path) else decoded - 1 if decoded in (2, 4) else decoded


def _is_grey(path: Path) -> bool:
    """Whether a BMP or PNG file holds grey values as a palette of greys, of which ITK makes three equal channels."""
    ending = path.suffix.lower()
    if ending not in (".bmp", ".png"):
        return False
    content, palette, size = path.read_bytes(), b"", 3
    try:
        if ending == ".bmp":
            header, bits, used = (struct.unpack_from(kind, content, at)[0] for kind, at in (("<I", 14), ("<H", 28), ("<I", 46)))
            palette, size = (content[14 + header : 14 + header + 4 * (used or 2**bits)] if bits <= 8 else b""), 4
        elif content[25] == _PALETTE:
            at = content.index(b"PLTE")
            palette = content[at + 4 : at + 4 + struct.unpack_from(">I", content, at - 4)[0]]
    except (struct.error, IndexError, ValueError) as error:
        raise damaged(path, f"its header is cut short or invalid ({error})") from error
    return bool(palette) and palette[::size] == palette[1::size] == palette[2::size]


def sidecars_of(path: Path, stem: str) -> list[Path]:
    """The files that may say the spacing of a picture called `stem`: ``case_0000.json``, or ``case.json`` for all channels of a case."""
    names = dict.fromkeys((stem, re.sub(r"_\d{4}$", "", stem)))
    return [path.with_name(f"{name}.json") for name in names if name]


def sidecar_spacing(path: Path, axes: int, stem: str) -> tuple[float, ...] | None:
    """Spacing of a picture in array order, from ``case.json`` beside it (nnU-Net's convention); None where there is none.

    A file beside a picture of two axes may be about something else; one beside a stack must have a spacing.

    Raises:
        ValueError: The file is no JSON, or its ``spacing`` is not one positive number an axis.
    """
    sidecar = next((file for file in sidecars_of(path, stem) if file.is_file()), None)
    if sidecar is None:
        return None
    expected = f"{sidecar}: expected a JSON file with 'spacing', {axes} positive numbers in mm ({'Z, Y, X' if axes == 3 else 'Y, X'})"
    try:
        content: Any = json.loads(sidecar.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        if axes == 2:
            return None
        raise ValueError(f"{expected}, found no JSON ({error})") from error
    if not isinstance(content, dict) or "spacing" not in content:
        if axes == 2:
            return None
        raise ValueError(f"{expected}, found {'only ' + ', '.join(content) if isinstance(content, dict) else type(content).__name__}")
    values = content["spacing"]
    numbers = (
        [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)] if isinstance(values, list) else []
    )
    if len(numbers) != axes or len(values) != axes or not all(math.isfinite(value) and value > 0 for value in numbers):
        raise ValueError(f"{expected}, found {values}")
    return tuple(float(value) for value in numbers)


def written_spacing(sidecar: Path) -> str:
    """The field ``spacing`` of a sidecar as JSON, empty without one; of what is no JSON object its whole text."""
    try:
        text = sidecar.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    try:
        content: Any = json.loads(text)
    except ValueError:
        return text
    if not isinstance(content, dict):
        return text
    return json.dumps(content["spacing"]) if "spacing" in content else ""


def _check_png(path: Path, content: bytes) -> None:
    if not content.startswith(_PNG):
        raise damaged(path, "it does not begin like a PNG file")
    at, packed, needed, kind = len(_PNG), 0, 0, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        data = content[at + 8 : at + 8 + length]
        (crc,) = struct.unpack_from(">I", content, at + 8 + length)
        if zlib.crc32(kind + data) != crc:
            raise damaged(path, f"the checksum of its part {kind.decode('latin-1')} is wrong")
        if kind == b"IHDR":
            width, height, bits, colour = struct.unpack_from(">IIBB", data)
            needed = height * (1 + (width * bits * _PNG_CHANNELS[colour] + 7) // 8)
        packed += length if kind == b"IDAT" else 0
        at += 12 + length
    if at < len(content.rstrip(b"\0")):
        raise damaged(path, "other bytes follow its end")
    if needed > packed * MOST_EXPANSION["zlib"]:
        raise damaged(path, f"its header claims {needed} bytes of pixels, of which {packed} compressed ones are there")


def _check_bmp(path: Path, content: bytes) -> None:
    size, first, header = struct.unpack_from("<2xI4xII", content)
    if header < 40:
        raise damaged(path, f"its header has {header} bytes, expected at least 40")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", content, 18)
    if content[:2] != b"BM" or size != len(content):
        raise damaged(path, f"its header claims {size} bytes, {len(content)} are there")
    needed = first + abs(height) * ((abs(width) * bits + 31) // 32 * 4)
    if compression in (0, 3) and not needed <= len(content) <= needed + 3:
        raise damaged(path, f"its header claims {needed} bytes, {len(content)} are there")


def _check_jpeg(path: Path, content: bytes) -> None:
    if not content.startswith(b"\xff\xd8") or not content.rstrip(b"\0\r\n ").endswith(b"\xff\xd9"):
        raise damaged(path, "it lacks the beginning or the end of a JPEG file")
    at = 2
    while True:
        marker, kind, length = struct.unpack_from(">BBH", content, at)
        if marker != 0xFF or kind == 0xDA:
            raise damaged(path, "its header has no size")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            break
        at += 2 + length
    height, width, n_colours = struct.unpack_from(">HHB", content, at + 5)
    if n_colours == 4:
        raise _cmyk(path)
    if height * width > _JPEG_PIXELS * len(content):
        raise damaged(path, f"its header claims {height} x {width} pixels, {len(content)} bytes are there")


def _cmyk(path: Path) -> ValueError:
    return ValueError(f"{path}: cannot be read: expected grey values or red, green and blue, found the four inks of print (CMYK)")


def _check_gipl(path: Path, content: bytes) -> None:
    size, kind = struct.unpack_from(">4H", content), struct.unpack_from(">H", content, 8)[0]
    needed = 256 + math.prod(max(n, 1) for n in size) * _GIPL_BYTES[kind]
    if needed != len(content):
        raise damaged(path, f"its header claims {needed} bytes, {len(content)} are there")


def _check_tiff(path: Path, content: FileBytes) -> None:
    pages = list(_tiff_pages(path, content))
    _check_slices(path, pages)
    for number, page in enumerate(pages):
        differing = [tag for tag in (_WIDTH, _HEIGHT, _BITS, _SAMPLES, _COMPRESSION) if page.get(tag) != pages[0].get(tag)]
        if differing:
            raise damaged(path, f"page {number + 1} has another size, kind of numbers or compression than page 1")
        lacking = [name for tag, name in _TIFF_REQUIRED.items() if tag not in page]
        if lacking:
            raise damaged(path, f"page {number + 1} lacks its {', '.join(lacking)}")
        _check_kind(path, page)
        offsets = page.get(_OFFSETS) or page.get(_TILE_OFFSETS) or ()
        counts = page.get(_COUNTS) or page.get(_TILE_COUNTS) or ()
        ends = [start + count for start, count in zip(offsets, counts, strict=False)]
        if not offsets or len(offsets) != len(counts) or min(counts) < 1 or max(ends) > len(content):
            raise damaged(path, f"the pixels of page {number + 1} lie beyond its end, or are missing")
        compression = page.get(_COMPRESSION, (1,))[0]
        if compression in (8, 32946):
            for start, count in zip(offsets, counts, strict=True):
                _check_deflated(path, content[start : start + count], number)
        if compression == 1 and _OFFSETS in page:
            width, height, samples = page[_WIDTH][0], page[_HEIGHT][0], page.get(_SAMPLES, (1,))[0]
            across = samples if page.get(_PLANAR, (1,))[0] == 1 else 1
            needed = height * ((width * across * page.get(_BITS, (1,))[0] + 7) // 8) * (samples // across)
            if sum(counts) != needed:
                raise damaged(path, f"page {number + 1} has {sum(counts)} bytes of pixels, expected {needed}")


def _check_slices(path: Path, pages: Sequence[dict[int, tuple[int, ...]]]) -> None:
    """Refuses pages that are no slices, or not all: the descriptions of ImageJ, OME and tifffile say what they are."""
    text, samples = bytes(pages[0].get(_DESCRIPTION, ())).decode("utf-8", "replace"), pages[0].get(_SAMPLES, (1,))[0]
    said = re.findall(r"^(images|channels|frames)=(\d+)", text, re.MULTILINE) if text.startswith("ImageJ=") else []
    said += re.findall(r'\b(SizeC|SizeT)="(\d+)"', text) if "<OME" in text else []
    most = {"images": len(pages), **dict.fromkeys(("channels", "SizeC"), samples if len(pages) > 1 else math.inf)}
    found = [f"{name}={number}" for name, number in said if int(number) > most.get(name, 1 if len(pages) > 1 else math.inf)]
    if found or '"truncated": true' in text:
        raise ValueError(
            f"{path}: cannot be read: expected pages that are all slices of one volume, found {len(pages)} and in its description"
            f" {', '.join(found) or 'that pages are left out'}; write a file for each channel and time, with a page for each slice (if they"
            " are slices, say so: in ImageJ by Image > Properties)"
        )


def _check_kind(path: Path, page: dict[int, tuple[int, ...]]) -> None:
    """Refuses what ITK would read otherwise than it was meant: with less depth, mirrored, or samples as if they were pixels."""
    photometric, samples = page.get(_PHOTOMETRIC, (1,))[0], page.get(_SAMPLES, (1,))[0]
    if photometric == 5:
        raise _cmyk(path)
    kinds = {(bits, kind) for bits in page.get(_BITS, (1,)) for kind in page.get(_SAMPLE_FORMAT, (1,))}
    is_colour = photometric in (_RGB, _YCBCR)
    found = ""
    if not (samples in (3, 4) if is_colour else photometric in (0, 1) and samples == 1):
        found = "a palette" if photometric == 3 else f"{samples} samples a pixel (photometric interpretation {photometric})"
    elif not kinds <= _TIFF_KINDS:
        found = ", ".join(f"{'floating-point' if kind == 3 else 'whole'} numbers of {bits} bits" for bits, kind in sorted(kinds))
    elif page.get(_ORIENTATION, (1,))[0] != 1:
        found = f"an orientation tag that turns or mirrors the picture ({page[_ORIENTATION][0]})"
    elif _TILE_OFFSETS in page:
        found = "tiles"
    elif page.get(_SUBFILE, (0,))[0] & _NO_PAGE:
        found = "a page that is a smaller copy or a mask"
    elif samples > 1 and page.get(_PLANAR, (1,))[0] == 2 and (samples, kinds) != (3, {(8, 1)}):
        found = "planes of colours that are not three of 8 bits"
    if found:
        raise ValueError(
            f"{path}: cannot be read: expected upright strips of grey values, or of red, green and blue, as whole numbers of 8, 16 or 32"
            f" bits or floating-point ones of 32, found {found}; save it so"
        )


def _check_deflated(path: Path, packed: bytes, page: int) -> None:
    unpacker = zlib.decompressobj()
    try:
        while not unpacker.eof and packed:
            unpacker.decompress(packed, 1 << 20)
            packed = unpacker.unconsumed_tail
    except zlib.error as error:
        raise damaged(path, f"the checksum or stream of page {page + 1} is wrong ({error})") from error
    if not unpacker.eof:
        raise damaged(path, f"page {page + 1} is cut short")


def _tiff_pages(path: Path, content: FileBytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """The whole numbers among the tags of each page of a TIFF or BigTIFF file; a ValueError where the chain of pages leaves the file."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2], "")
    if not order:
        raise damaged(path, "it does not begin like a TIFF file")
    is_big = _unpack(order + "H", content, 2)[0] == 43
    number, entry, head, word = ("Q", 20, 8, 8) if is_big else ("H", 12, 2, 4)
    pointer = "Q" if is_big else "I"
    (at,) = _unpack(order + pointer, content, 8 if is_big else 4)
    seen: set[int] = set()
    while at:
        if at in seen or at + head > len(content):
            raise damaged(path, f"its page {len(seen) + 1} lies beyond its end")
        seen.add(at)
        (n_tags,) = _unpack(order + number, content, at)
        page = {}
        for index in range(n_tags):
            where = at + head + index * entry
            tag, kind, count = _unpack(order + "HH" + pointer, content, where)
            if kind in (3, 4, 16) or (kind, tag) == (2, _DESCRIPTION):
                inline = count * _TIFF_BYTES[kind] <= word
                value = where + 4 + word if inline else _unpack(order + pointer, content, where + 4 + word)[0]
                letter = {2: "B", 3: "H", 4: "I", 16: "Q"}[kind]
                page[tag] = _unpack(f"{order}{count}{letter}", content, value)
        yield page
        (at,) = _unpack(order + pointer, content, at + head + n_tags * entry)
    if not seen:
        raise damaged(path, "it has no page")


def _unpack(kind: str, content: FileBytes, at: int) -> tuple[Any, ...]:
    return struct.unpack(kind, content[at : at + struct.calcsize(kind)])
