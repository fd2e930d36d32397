"""All that a store holds, without the numbers that every store gives anew."""

import zlib

from sqlalchemy import select

from db import connect
from db.schema import Base

TABLES = Base.metadata.tables
LARGE = 2**63  # a float beyond it comes back from PostgreSQL's JSON as a whole number


def content(url, *, deleted=True):
    """The rows of every table but ``schema_version``, by their keys; equal for equal stores.

    A key is made of what means the same in every store: sessions, names, places (``ord``), sha256.
    So do references: to a run by its session, to a solve by session and place. Without ``deleted``,
    what belongs to runs that are put away is left out.
    """
    engine = connect(url)
    with engine.connect() as connection:
        rows = {
            name: [dict(row._mapping) for row in connection.execute(select(table))]
            for name, table in TABLES.items()
            if name != "schema_version"
        }
    engine.dispose()
    shown = {row["id"] for row in rows["run"] if deleted or row["deleted_at"] is None}
    sessions = {row["id"]: row["session"] for row in rows["run"]}
    solves = {row["id"]: (sessions[row["run_id"]], row["ord"]) for row in rows["solve"]}
    series = {row["id"]: (sessions[row["run_id"]], row["name"]) for row in rows["series"]}
    of_solve = {row["id"]: row["run_id"] for row in rows["solve"]}
    of_series = {row["id"]: row["run_id"] for row in rows["series"]}
    names = {
        "run_id": sessions, "parent_id": sessions, "solve_id": solves, "adjoint_id": solves,
        "series_id": series,
        "environment_id": {row["id"]: row["fingerprint"] for row in rows["environment"]},
        "code_id": {row["id"]: row["fingerprint"] for row in rows["code"]},
    }  # fmt: skip
    keys = {
        "environment": ("fingerprint",), "code": ("fingerprint",), "blob": ("sha256",),
        "run": ("session",), "run_config": ("run_id", "key"), "tag": ("run_id", "tag"),
        "artifact": ("run_id", "kind", "name", "sha256", "path"),
        "rejected_event": ("session", "seq"),
        "run_output": ("run_id", "seq"), "solve": ("run_id", "ord"),
        "solve_trace": ("solve_id", "column"), "grad_check": ("run_id", "ord"),
        "series": ("run_id", "name"), "point": ("series_id", "ord"),
    }  # fmt: skip
    assert keys.keys() == rows.keys(), "a new table: say here what its key is"
    found = {}
    for table, all_ in rows.items():
        found[table] = {}
        for row in all_:
            owner = {
                "run": row.get("id"),
                "solve_trace": of_solve.get(row.get("solve_id")),
                "point": of_series.get(row.get("series_id")),
            }.get(table, row.get("run_id"))
            if owner is not None and owner not in shown:
                continue
            row.pop("id", None)
            for link in names.keys() & row.keys():
                row[link] = names[link].get(row[link])
            if table == "blob":
                row["data"] = zlib.decompress(row["data"])
            key = tuple(str(row[name]) for name in keys[table])
            assert key not in found[table], (table, key)
            found[table][key] = {name: _plain(value) for name, value in row.items()}
    return found


def _plain(value):
    """A value as both databases give it back."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGE:
        return float(value)
    return value
