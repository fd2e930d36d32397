"""An exported part of a store: a directory with one file a table, and a manifest.

Files are Parquet (JSON as text, traces packed as in the store), or JSON lines. Every file of
something that belongs to runs has a column ``run_id`` and is sorted by it, so that a reader can go
through all files side by side, run after run, and hold little of them. Numbers (``id``, ``run_id``,
``solve_id``, …) are those of the store that was exported: they hold the files together and mean
nothing elsewhere.

A directory appears under its name when all of it is written. ``manifest.json`` has the size and the
sha256 of every file, which are checked before anything is read.
"""

import base64
import binascii
import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import uuid4

from sqlalchemy import JSON, Double, Integer, LargeBinary, SmallInteger, Text

from db.encode import canonical
from db.errors import StoreError, closest
from db.schema import SCHEMA_VERSION, Base, UtcTime

__all__ = ["COLUMNS", "FORMAT", "FORMS", "MANIFEST", "Reader", "Writer", "blocks"]

FORMAT = 1
FORMS = {"parquet": "parquet", "json": "jsonl"}  # and how the names of their files end
MANIFEST = "manifest.json"
BLOCK = 50_000  # rows that are held at once
BLOCK_BYTES = 32 * 2**20  # of texts and bytes in them

Record = tuple[Any, ...]


class Column(NamedTuple):
    """A column of a file: integer, small, number, text, json (as text), time or bytes."""

    name: str
    kind: str


KINDS = {  # the first that fits
    UtcTime: "time", JSON: "json", LargeBinary: "bytes", SmallInteger: "small",
    Integer: "integer", Double: "number", Text: "text",
}  # fmt: skip


def _columns(table: str) -> tuple[Column, ...]:
    found = [
        Column(c.name, next(kind for type_, kind in KINDS.items() if isinstance(c.type, type_)))
        for c in Base.metadata.tables[table].columns
    ]
    if table == "run":  # what names the parent in any store
        found += [Column("parent_uuid", "text"), Column("parent_session", "text")]
    if table in ("solve_trace", "point", "rejected_event"):
        found.insert(0, Column("run_id", "integer"))
    return tuple(found)


# A run's own tables follow those that runs share.
COLUMNS = {
    table: _columns(table)
    for table in (
        "run", "environment", "code", "blob", "run_config", "tag", "artifact", "run_output",
        "solve", "solve_trace", "grad_check", "series", "point", "rejected_event",
    )
}  # fmt: skip


LONG = {
    table: [n for n, column in enumerate(columns) if column.kind in ("text", "json", "bytes")]
    for table, columns in COLUMNS.items()
}


def blocks(table: str, rows: Iterable[Record]) -> Iterator[list[Record]]:
    """The rows of a table in lists that fit into memory."""
    long = LONG[table]
    rows = iter(rows)
    if not long:
        while short := list(itertools.islice(rows, BLOCK)):
            yield short
        return
    block: list[Record] = []
    size = 0
    for row in rows:
        block.append(row)
        for n in long:
            size += len(row[n] or "")
        if len(block) >= BLOCK or size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


class Writer:
    """Writes an export under a name of its own, and gives it its name at the end.

    As a context manager: what is left by an exception is removed.

    Raises
    ------
    StoreError
        The form is unknown, there is something with that name, or it cannot be written.
    """

    def __init__(self, folder: Path, form: str):
        if form not in FORMS:
            raise StoreError(f"form = {form!r}: {closest(form, FORMS)}")
        self.folder, self.form = folder.expanduser().absolute(), form
        self.rows = dict.fromkeys(COLUMNS, 0)
        self.bytes = 0
        if not self.folder.name or self.folder.name == "..":
            raise StoreError(f"{folder} is no name for a new directory")
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise StoreError(f"{self.folder} is not empty: export to a new directory")
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"{self.folder} is a file: export to a new directory")
        if not self.folder.parent.is_dir():
            raise StoreError(f"the directory {self.folder.parent} does not exist: make it first")
        self._place = self.folder.with_name(f".{self.folder.name[:100]}.{uuid4().hex}")
        self._waiting: dict[str, list[Record]] = {table: [] for table in COLUMNS}
        self._sizes = dict.fromkeys(COLUMNS, 0)
        self._files: dict[str, _Lines | _Parquet] = {}

    def __enter__(self) -> "Writer":
        kind = _Parquet if self.form == "parquet" else _Lines
        try:
            with self._telling():
                self._place.mkdir()
                for table, columns in COLUMNS.items():
                    self._files[table] = kind(self._place / _name(table, self.form), columns)
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def _clear(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError, ValueError):
                file.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def write(self, table: str, rows: Iterable[Record]) -> None:
        """Add rows to the file of a table."""
        waiting, long = self._waiting[table], LONG[table]
        for block in blocks(table, rows):
            waiting += block
            self._sizes[table] += sum(len(row[n] or "") for row in block for n in long)
            if len(waiting) >= BLOCK or self._sizes[table] >= BLOCK_BYTES:
                self._flush(table)

    def _flush(self, table: str) -> None:
        waiting = self._waiting[table]
        if waiting:
            with self._telling():
                self._files[table].write(waiting)
            self.rows[table] += len(waiting)
            waiting.clear()
            self._sizes[table] = 0

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write what waits and the manifest, which says ``about`` too; give the export its name."""
        files = {}
        with self._telling():
            for table, file in self._files.items():
                self._flush(table)
                file.close()
                path = self._place / _name(table, self.form)
                files[path.name] = {
                    "rows": self.rows[table], "bytes": path.stat().st_size, "sha256": _sha256(path),
                }  # fmt: skip
                self.bytes += path.stat().st_size
            manifest = {
                "format": FORMAT, "schema": SCHEMA_VERSION, "form": self.form,
                "made_at": datetime.now(UTC).isoformat(), **about, "files": files,
            }  # fmt: skip
            text = json.dumps(manifest, indent=2, ensure_ascii=False)
            (self._place / MANIFEST).write_text(text + "\n", encoding="utf-8")
            self._place.rename(self.folder)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.folder} cannot be written ({error.strerror or error}): "
                "nothing of it is left; export to another place"
            ) from error


def _name(table: str, form: str) -> str:
    return f"{table}.{FORMS[form]}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Reader:
    """Reads an export, all of which is checked first.

    Raises
    ------
    StoreError
        It is no export, a damaged one, or one of another format or schema.
    """

    def __init__(self, folder: Path):
        self.folder = folder.expanduser().absolute()
        manifest = self._manifest()
        self.form = str(manifest["form"])
        self._check(manifest["files"])

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / MANIFEST
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise StoreError(f"{self.folder} is no export: it has no {MANIFEST}") from error
        except (OSError, ValueError) as error:
            raise self._damaged(f"{MANIFEST} cannot be read: {error}") from error
        if not isinstance(found, dict) or "format" not in found:
            raise StoreError(f"{self.folder} is no export: its {MANIFEST} names no format")
        if found["format"] != FORMAT:
            raise StoreError(
                f"the export {self.folder} has the format {found['format']!r} and this deq-lab "
                f"reads {FORMAT}: use the deq-lab that made it, or export again"
            )
        if found.get("schema") != SCHEMA_VERSION:
            raise StoreError(
                f"the export {self.folder} has schema version {found.get('schema')!r} and this "
                f"deq-lab needs version {SCHEMA_VERSION}: bring the store that it was made from to "
                "that version (`deq db upgrade`) and export again"
            )
        if found.get("form") not in FORMS or not isinstance(found.get("files"), dict):
            raise self._damaged(f"{MANIFEST} names no form or no files")
        return found

    def _check(self, files: Mapping[str, Any]) -> None:
        expected = {_name(table, self.form) for table in COLUMNS}
        if files.keys() != expected:
            names = ", ".join(sorted(files.keys() ^ expected))
            raise self._damaged(f"{MANIFEST} should list a file a table, and differs in {names}")
        for name, about in files.items():
            path = self.folder / name
            try:
                found = _sha256(path)
            except OSError as error:
                raise self._damaged(f"{name}: {error.strerror}") from error
            if not isinstance(about, dict) or found != about.get("sha256"):
                raise self._damaged(f"{name} is not what was written: its sha256 is {found}")

    def rows(self, table: str) -> Iterator[Record]:
        """The rows of a table, in the order of the runs."""
        path, columns = self.folder / _name(table, self.form), COLUMNS[table]
        reading = _read_parquet if self.form == "parquet" else _read_lines
        try:
            yield from reading(path, columns)
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(f"{path.name}: {error}") from error

    def _damaged(self, how: str) -> StoreError:
        return StoreError(f"the export {self.folder} is damaged ({how}): copy or make it again")


class _Lines:
    """Strict JSON, a line a row; bytes in base64, times in ISO format."""

    _encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

    def __init__(self, path: Path, columns: Sequence[Column]):
        self._names = [column.name for column in columns]
        self._special = [
            (n, SPECIAL[kind][0]) for n, (_, kind) in enumerate(columns) if kind in SPECIAL
        ]
        self._file: IO[bytes] = path.open("wb")

    def write(self, rows: Iterable[Record]) -> None:
        for row in rows:
            cells = list(row)
            for n, convert in self._special:
                if cells[n] is not None:
                    cells[n] = convert(cells[n])
            line = self._encode(dict(zip(self._names, cells, strict=True)))
            self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"this is no base64: {text[:50]!r}") from error


SPECIAL: dict[str, tuple[Any, Any]] = {  # into JSON, and out of it
    "json": (json.loads, canonical),
    "time": (datetime.isoformat, datetime.fromisoformat),
    "bytes": (lambda value: base64.b64encode(value).decode(), _bytes),
}
PLAIN = {
    "integer": (int,), "small": (int,), "number": (int, float), "text": (str,), "time": (str,),
    "bytes": (str,),
}  # fmt: skip


def _read_lines(path: Path, columns: Sequence[Column]) -> Iterator[Record]:
    names = {column.name for column in columns}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            row = json.loads(line, parse_constant=_no_number)
            if not isinstance(row, dict) or row.keys() != names:
                raise ValueError(f"line {number} does not have the columns of its table")
            yield tuple(_cell(row[name], name, kind) for name, kind in columns)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _cell(value: Any, name: str, kind: str) -> Any:
    if value is None:
        return None
    if kind in PLAIN and (isinstance(value, bool) or not isinstance(value, PLAIN[kind])):
        raise ValueError(f"{name} is no {kind}: {str(value)[:50]!r}")
    return SPECIAL[kind][1](value) if kind in SPECIAL else value


class _Parquet:
    """Typed columns, packed; a block is a row group."""

    def __init__(self, path: Path, columns: Sequence[Column]):
        import pyarrow.parquet

        self._schema = _schema(columns)
        self._file = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, rows: Iterable[Record]) -> None:
        import pyarrow as pa

        columns = zip(*rows, strict=True)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, self._schema, strict=True)]
        self._file.write_batch(pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        self._file.close()


def _schema(columns: Sequence[Column]) -> Any:
    import pyarrow as pa

    types = {
        "integer": pa.int64(), "small": pa.int16(), "number": pa.float64(), "text": pa.string(),
        "json": pa.string(), "time": pa.timestamp("us", tz="UTC"), "bytes": pa.binary(),
    }  # fmt: skip
    return pa.schema([pa.field(name, types[kind]) for name, kind in columns])


def _read_parquet(path: Path, columns: Sequence[Column]) -> Iterator[Record]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        if not file.schema_arrow.equals(_schema(columns)):
            raise ValueError("it does not have the columns of its table")
        for batch in file.iter_batches(batch_size=10_000):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
