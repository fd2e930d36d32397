"""Programs, files, tags and refused events; sums of series; journals, and runs put away."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from db.encode import digest

revision = "2"
down_revision = "1"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON_VALUE = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
LARGEST_FLOAT = "1.7976931348623157e308"

RUN = sa.table(
    "run",
    sa.column("id", ID),
    sa.column("uuid", sa.Text()),
    sa.column("session", sa.Text()),
    sa.column("meta", JSON_VALUE),
    sa.column("code", JSON_VALUE),
    sa.column("code_id", ID),
)
CODE = sa.table(
    "code",
    sa.column("id", ID),
    sa.column("fingerprint", sa.Text()),
    sa.column("mainfile", sa.Text()),
    sa.column("base_dir", sa.Text()),
    sa.column("sources", JSON_VALUE),
    sa.column("repository", sa.Text()),
    sa.column("commit_id", sa.Text()),
    sa.column("dirty", sa.SmallInteger()),
    sa.column("diff", sa.Text()),
)
SERIES = sa.table(
    "series",
    sa.column("id", ID),
    *(sa.column(name, ID) for name in ("n", "nonfinite")),
    *(
        sa.column(name, sa.Double())
        for name in ("last_step", "last_value", "least", "least_step", "largest")
    ),
)
POINT = sa.table(
    "point",
    *(sa.column(name, ID) for name in ("series_id", "ord", "flag")),
    *(sa.column(name, sa.Double()) for name in ("step", "value")),
)

# The columns of the tables that are made anew on SQLite, in the order of a new store.
RUN_ORDER = (
    "id", "uuid", "session", "last_seq", "experiment", "command", "study", "trial", "status",
    "queued_at", "started_at", "heartbeat_at", "beat_interval", "stopped_at", "seconds", "seed",
    "config", "config_hash", "result", "result_value", "info", "meta", "comment", "fail_type",
    "fail_message", "fail_trace", "host", "pid", "pid_space", "boot_id", "proc_start", "code_id",
    "environment_id", "parent_id", "deleted_at",
)  # fmt: skip


def upgrade() -> None:
    """From version 1 to version 2."""
    _make_tables()
    _change_runs()
    _change_series()


def _make_tables() -> None:
    op.create_table(
        "code",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("mainfile", sa.Text()),
        sa.Column("base_dir", sa.Text()),
        sa.Column("sources", JSON_VALUE),
        sa.Column("repository", sa.Text()),
        sa.Column("commit_id", sa.Text()),
        sa.Column("dirty", sa.SmallInteger()),
        sa.Column("diff", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_code")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_code_fingerprint")),
        sa.CheckConstraint("dirty IN (0, 1)", name=op.f("ck_code_dirty")),
    )
    op.create_table(
        "blob",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", ID, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blob")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_blob_size_count")),
    )
    op.create_table(
        "tag",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "tag", name=op.f("pk_tag")),
        _of_run("tag"),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_tag_tag"), "tag", ["tag"])
    op.create_table(
        "artifact",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text()),
        sa.Column("size", ID),
        sa.Column("path", sa.Text()),
        sa.Column("content_type", sa.Text()),
        sa.Column("meta", JSON_VALUE),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact")),
        _of_run("artifact"),
        sa.UniqueConstraint(
            "run_id", "kind", "name", "sha256", name=op.f("uq_artifact_run_id_kind_name_sha256")
        ),
        sa.CheckConstraint("kind IN ('artifact', 'resource')", name=op.f("ck_artifact_kind")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_artifact_size_count")),
    )
    op.create_index(op.f("ix_artifact_sha256"), "artifact", ["sha256"])
    op.create_table(
        "rejected_event",
        sa.Column("id", ID, autoincrement=True, nullable=False),
        sa.Column("run_uuid", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("seq", ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("rejected_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected_event")),
        sa.UniqueConstraint("session", "seq", name=op.f("uq_rejected_event_session_seq")),
    )
    op.create_index(op.f("ix_rejected_event_run_uuid"), "rejected_event", ["run_uuid"])


def _of_run(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_run_id_run")
    return sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=name, ondelete="CASCADE")


def _change_runs() -> None:
    for column in (
        sa.Column("session", sa.Text()),
        sa.Column("last_seq", ID, nullable=False, server_default="0"),
        sa.Column("beat_interval", sa.Double()),
        sa.Column("pid_space", sa.Text()),
        sa.Column("code_id", ID),
        sa.Column("deleted_at", TIME),
    ):
        op.add_column("run", column)
    op.execute(sa.update(RUN).values(session=RUN.c.uuid))
    _move_code()
    with op.batch_alter_table("run", partial_reordering=[RUN_ORDER]) as run:
        run.drop_column("code")
        run.alter_column("session", existing_type=sa.Text(), nullable=False)
        run.create_unique_constraint(op.f("uq_run_session"), ["session"])
        run.create_check_constraint(op.f("ck_run_last_seq_count"), "last_seq >= 0")
        run.create_check_constraint(
            op.f("ck_run_beat_interval_finite"), f"abs(beat_interval) <= {LARGEST_FLOAT}"
        )
        run.create_foreign_key(op.f("fk_run_code_id_code"), "code", ["code_id"], ["id"])
        run.create_index(op.f("ix_run_code_id"), ["code_id"])


def _move_code() -> None:
    """What each run had for itself becomes a row that runs of equal programs share."""
    connection = op.get_bind()
    numbers: dict[str, int] = {}
    changes: list[dict[str, Any]] = []
    found = connection.execute(sa.select(RUN.c.id, RUN.c.meta, RUN.c.code).order_by(RUN.c.id))
    for number, meta, code in found.all():
        if code is None:
            continue
        row = _code_row(code)
        fingerprint = digest(row)
        if fingerprint not in numbers:
            connection.execute(sa.insert(CODE), {"fingerprint": fingerprint} | row)
            made = sa.select(CODE.c.id).where(CODE.c.fingerprint == fingerprint)
            numbers[fingerprint] = connection.scalars(made).one()
        if not _is_whole(row, code):  # several repositories, or what else there may be
            kept = (meta if isinstance(meta, dict) else {"meta": meta}) | {"code": code}
        else:
            kept = meta
        changes.append({"run": number, "new_code": numbers[fingerprint], "new_meta": kept})
    if changes:
        change = sa.update(RUN).where(RUN.c.id == sa.bindparam("run"))
        new_meta = sa.bindparam("new_meta", type_=JSON_VALUE)
        connection.execute(change.values(code_id=sa.bindparam("new_code"), meta=new_meta), changes)


def _code_row(code: Any) -> dict[str, Any]:
    """The columns of ``code``. The sources keep their digests, which are MD5."""
    known = code if isinstance(code, dict) else {}
    sources, repositories = known.get("sources"), known.get("repositories")
    if isinstance(sources, list) and all(isinstance(s, list) and len(s) == 2 for s in sources):
        sources = {str(name): what for name, what in sources}
    else:
        sources = None
    first = repositories[0] if isinstance(repositories, list) and repositories else {}
    first = first if isinstance(first, dict) else {}
    dirty = first.get("dirty")
    return {
        "mainfile": _text(known.get("mainfile")),
        "base_dir": _text(known.get("base_dir")),
        "sources": sources,
        "repository": _text(first.get("url")),
        "commit_id": _text(first.get("commit")),
        "dirty": int(dirty) if isinstance(dirty, bool) else None,
        "diff": None,
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _is_whole(row: dict[str, Any], code: Any) -> bool:
    """Whether the columns say all that the JSON said."""
    dirty = row["dirty"]
    repository = {
        "url": row["repository"],
        "commit": row["commit_id"],
        "dirty": dirty if dirty is None else bool(dirty),
    }
    empty = all(value is None for value in repository.values())
    sources = row["sources"]
    again = {
        "mainfile": row["mainfile"],
        "base_dir": row["base_dir"],
        "sources": sources if sources is None else sorted(map(list, sources.items())),
        "repositories": [] if empty else [repository],
    }
    if not isinstance(code, dict):
        return False
    told = {name: value for name, value in code.items() if value is not None}
    if isinstance(told.get("sources"), list) and sources is not None:
        told["sources"] = sorted(told["sources"])
    told.setdefault("repositories", [])
    return told == {name: value for name, value in again.items() if value is not None}


def _change_series() -> None:
    for name in ("n", "nonfinite"):
        op.add_column("series", sa.Column(name, ID, nullable=False, server_default="0"))
    sums = ("last_step", "last_value", "least", "least_step", "largest")
    for name in sums:
        op.add_column("series", sa.Column(name, sa.Double()))
    _sum_up()
    with op.batch_alter_table("series", recreate="auto") as series:
        for name in ("n", "nonfinite"):
            series.create_check_constraint(op.f(f"ck_series_{name}_count"), f"{name} >= 0")
        for name in sums:
            series.create_check_constraint(
                op.f(f"ck_series_{name}_finite"), f"abs({name}) <= {LARGEST_FLOAT}"
            )
        series.create_index(op.f("ix_series_name"), ["name"])


def _sum_up() -> None:
    """What the writer keeps of a series, from the points that are there."""
    finite = POINT.c.value.is_not(None)
    of = POINT.c.series_id
    total = (
        sa.select(
            of,
            sa.func.count().label("n"),
            sa.func.sum(sa.case((POINT.c.flag != 0, 1), else_=0)).label("nonfinite"),
            sa.func.min(POINT.c.value).label("least"),
            sa.func.max(POINT.c.value).label("largest"),
            sa.func.max(sa.case((finite, POINT.c.ord))).label("last"),
        )
        .group_by(of)
        .subquery()
    )
    last = POINT.alias("last_point")
    sums = {name: total.c[name] for name in ("n", "nonfinite", "least", "largest")}
    op.execute(sa.update(SERIES).values(sums).where(SERIES.c.id == total.c.series_id))
    op.execute(
        sa.update(SERIES)
        .values(last_step=last.c.step, last_value=last.c.value)
        .where(
            SERIES.c.id == total.c.series_id,
            last.c.series_id == total.c.series_id,
            last.c.ord == total.c.last,
        )
    )
    least = POINT.alias("least_point")
    first = (
        sa.select(of, sa.func.min(POINT.c.ord).label("ord"))
        .where(POINT.c.series_id == SERIES.c.id, POINT.c.value == SERIES.c.least)
        .group_by(of)
        .subquery()
    )
    op.execute(
        sa.update(SERIES)
        .values(least_step=least.c.step)
        .where(
            SERIES.c.id == first.c.series_id,
            least.c.series_id == first.c.series_id,
            least.c.ord == first.c.ord,
        )
    )
