"""Annotated images as records with random access: dataset.jsonl, its index, params.json and a folder of pictures.

A record is {"img": file name, "size": [height, width], "polygons": [a region each, see `regions.to_record`]}, and where
there are objects of classes that were left out, also "others" with a region each. A record of whole images has the path
of its picture in the source as "from", and a fingerprint for near-duplicates as "print" (see `split.fingerprint`).

The index, all numbers little-endian:

    offset  size       what
    0       8          the bytes "COIGANIX"
    8       4          version of this format, 1
    12      4          CRC-32 of dataset.jsonl
    16      8          n, the number of records
    24      8 (n + 1)  where each line of dataset.jsonl begins, and its size in bytes

Eight bytes an offset leave no limit at 4 GiB. Both files appear only once they are whole, the index last.
"""

import json
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coigan.data.regions import Region, from_record, to_coco_rle
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import write_whole

LINES, INDEX = "dataset.jsonl", "index"
_MAGIC, _VERSION = b"COIGANIX", 1
_HEADER = struct.Struct("<8sIIQ")


class LineWriter:
    """Writes a store; a context manager. After an exception within the block nothing has appeared in the folder.

    Args:
        folder: made if need be.
        dump_every: so many records are kept in memory between two writes.
    """

    def __init__(self, folder: str | Path, dump_every: int = 1000) -> None:
        self.folder = Path(folder)
        self.dump_every = dump_every
        self._lines: list[bytes] = []
        self._offsets = [0]
        self._checksum = 0

    def __enter__(self) -> "LineWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._part = self.folder / f"{LINES}.part"
        self._file = open(self._part, "wb")  # noqa: SIM115
        return self

    def add(self, record: dict[str, Any]) -> None:
        """Append one record."""
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        self._lines.append(line)
        self._offsets.append(self._offsets[-1] + len(line))
        self._checksum = zlib.crc32(line, self._checksum)
        if len(self._lines) >= self.dump_every:
            self._dump()

    def _dump(self) -> None:
        self._file.writelines(self._lines)
        self._lines.clear()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._dump()
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
            if kind is not None:
                self._part.unlink(missing_ok=True)
        if kind is None:
            # the old index must not speak for the new lines
            (self.folder / INDEX).unlink(missing_ok=True)
            self._part.replace(self.folder / LINES)
            header = _HEADER.pack(_MAGIC, _VERSION, self._checksum, len(self._offsets) - 1)
            offsets = np.array(self._offsets, "<u8").tobytes()
            write_whole(self.folder / INDEX, header + offsets)


class LineStore:
    """The records in `folder`, read one at a time. Each process that uses it opens the file for itself.

    Raises:
        UserError: there is no store, or the index does not fit the lines.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LINES
        self._offsets, self.checksum = _read_index(self.folder)
        self._descriptor: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Record `number`, 0-based; negative numbers count from the end.

        Raises:
            IndexError: there is no such record.
            UserError: the line is no JSON object.
        """
        count = len(self)
        if not -count <= number < count:
            raise IndexError(f"record {number} of {count}")
        number %= count
        start, end = int(self._offsets[number]), int(self._offsets[number + 1])
        try:
            record = json.loads(os.pread(self._open(), end - start, start))
        except ValueError as error:
            raise UserError(f"{self.path}, line {number + 1}: {error}; prepare this data set again.") from error
        if not isinstance(record, dict):
            raise UserError(f"{self.path}, line {number + 1} is no JSON object; prepare this data set again.")
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def _open(self) -> int:
        # a descriptor inherited by a forked worker would be closed under it by its parent's
        if self._descriptor is None or self._descriptor[0] != os.getpid():
            self._descriptor = os.getpid(), os.open(self.path, os.O_RDONLY)
        return self._descriptor[1]

    def close(self) -> None:
        """Close this process's file; reading opens it again."""
        if self._descriptor is not None and self._descriptor[0] == os.getpid():
            os.close(self._descriptor[1])
        self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def verify(self) -> None:
        """Compare the whole file with the checksum.

        Raises:
            UserError: they differ.
        """
        checksum = 0
        with open(self.path, "rb") as file:
            while block := file.read(1 << 20):
                checksum = zlib.crc32(block, checksum)
        if checksum != self.checksum:
            raise UserError(f"{self.path} has been damaged or changed; prepare this data set again.")


def _read_index(folder: Path) -> tuple[np.ndarray, int]:
    index = folder / INDEX
    try:
        content = index.read_bytes()
        size = (folder / LINES).stat().st_size
    except OSError as error:
        raise UserError(
            f"{folder} holds no data set: {error.filename} {(error.strerror or '').lower()}; run inpaint.py prepare."
        ) from error
    damaged = UserError(f"{index} does not fit {folder / LINES}; prepare this data set again.")
    if len(content) < _HEADER.size:
        raise damaged
    magic, version, checksum, count = _HEADER.unpack_from(content)
    if magic != _MAGIC or version != _VERSION:
        raise UserError(f"{index} is no index of version {_VERSION} of this program; prepare this data set again.")
    if len(content) != _HEADER.size + 8 * (count + 1):
        raise damaged
    offsets = np.frombuffer(content, "<u8", offset=_HEADER.size)
    if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets.astype(np.int64)) <= 0).any():
        raise damaged
    return offsets, checksum


PARAMS = "params.json"
OTHERS, ORIGIN, PRINT = "others", "from", "print"


class LineSet:
    """The annotated images in a folder, read one record at a time.

    Attributes:
        folder: of the set.
        classes: names; a region's label is an index into them.
        params: what params.json says of how the set was made.
        store: the records.

    Raises:
        UserError: there is no set in the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.store = LineStore(self.folder)
        with as_user_error(f"{self.folder / PARAMS} cannot be read", "prepare this data set again"):
            self.params: dict[str, Any] = json.loads((self.folder / PARAMS).read_text(encoding="utf-8"))
            self.classes = tuple(str(name) for name in self.params["classes"])
            self.images = self.folder / self.params["images"]

    def __len__(self) -> int:
        return len(self.store)

    def path(self, record: Mapping[str, Any]) -> Path:
        """The picture of a record."""
        return self.images / record["img"]

    def image(self, record: Mapping[str, Any]) -> np.ndarray:
        """The picture of a record, (H, W, 3) uint8 RGB.

        Raises:
            UserError: it is missing, does not decode, or has another size than the record says.
        """
        pixels = read_rgb(self.path(record))
        if list(pixels.shape[:2]) != list(record["size"]):
            raise UserError(f"{self.path(record)} has another size than its record; prepare this data set again.")
        return pixels

    def regions(self, record: Mapping[str, Any]) -> list[Region]:
        """The objects of a record.

        Raises:
            UserError: one of them is damaged; the sentence names the line.
        """
        return self._regions(record, "polygons", len(self.classes))

    def others(self, record: Mapping[str, Any]) -> list[Region]:
        """The objects of a record whose classes were left out; of their labels there are no names.

        Raises:
            UserError: as of `regions`.
        """
        return self._regions(record, OTHERS, math.inf) if OTHERS in record else []

    def _regions(self, record: Mapping[str, Any], key: str, classes: float) -> list[Region]:
        try:
            height, width = record["size"]
            found = [from_record(entry, height, width) for entry in record[key]]
            regions = [region for region in found if region is not None]
            for region in regions:
                if not 0 <= region.label < classes:
                    raise ValueError(f"the label {region.label} of {classes} classes")
        except (KeyError, TypeError, ValueError) as error:
            line = next((n for n, other in enumerate(self.store, start=1) if other == record), "?")
            raise UserError(
                f"{self.store.path}, line {line}: the record of {record.get('img')} is damaged "
                f"({type(error).__name__}: {error}); prepare this data set again."
            ) from error
        return regions


def write_line_set(
    folder: Path, records: Iterable[Mapping[str, Any]], classes: tuple[str, ...], images: str, **params: Any
) -> None:
    """Write the records and params.json; the pictures are there or come later.

    Args:
        folder: made if need be.
        records: as described above.
        classes: names of the labels.
        images: the folder of pictures, seen from `folder`.
        params: more to keep about how the set was made.
    """
    count = 0
    with LineWriter(folder) as writer:
        for record in records:
            writer.add(dict(record))
            count += 1
    content = {"classes": list(classes), "images": images, "count": count, **params}
    write_json(folder / PARAMS, content)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON that is whole or absent."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def categories_of(classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Categories with the ids 1, 2, ..."""
    return [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]


def annotation(key: int, image: int, label: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """One object: `mask` (H, W) bool of the whole image, not empty, as exact run lengths, so with its holes."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "id": key,
        "image_id": image,
        "category_id": label + 1,
        "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": to_coco_rle(mask),
        **more,
    }


def coco_content(lines: LineSet) -> dict[str, Any]:
    """The whole JSON of a line set; image ids count from 1 in the order of its records."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(lines.store, start=1):
        height, width = record["size"]
        images.append({"id": number, "file_name": record["img"], "height": height, "width": width})
        for region in lines.regions(record):
            annotations.append(_of_region(len(annotations) + 1, number, region, height, width))
    return {
        "info": {"description": str(lines.folder.name)},
        "categories": categories_of(lines.classes),
        "images": images,
        "annotations": annotations,
    }


def _of_region(key: int, image: int, region: Region, height: int, width: int) -> dict[str, Any]:
    return annotation(key, image, region.label, region.painted(height, width))
