"""Records as lines of JSON with random access: the file `dataset.jsonl` and its `index` in one folder.

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
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

LINES, INDEX = "dataset.jsonl", "index"
_MAGIC, _VERSION = b"COIGANIX", 1
_HEADER = struct.Struct("<8sIIQ")
_ADVICE = "Free some disk space, or choose another folder."


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
            write_whole(self.folder / INDEX, lambda file: file.write(header + offsets), _ADVICE)


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
