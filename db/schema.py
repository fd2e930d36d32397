"""The tables of the store, and how they and the views over them are made.

What a row means is said here, what a column means in the views (``db/views``), which are what a
person reads and asks. Times are UTC, durations seconds, sizes bytes. Numeric columns hold finite
numbers or NULL; a constraint on every one of them keeps it so.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Connection,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    inspect,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.errors import StoreError
from db.views import VIEWS

__all__ = [
    "JSON_VALUE", "SCHEMA_VERSION", "TRACE_COLUMNS", "UTC_TIME",
    "Artifact", "Base", "Blob", "Code", "Environment", "GradCheck", "Point", "RejectedEvent", "Run",
    "RunConfig", "RunOutput", "SchemaVersion", "Series", "Solve", "SolveTrace", "Tag",
    "create", "make_views", "version",
]  # fmt: skip

SCHEMA_VERSION = 2
TRACE_COLUMNS = ("evaluations", "seconds", "residual", "active")
LARGEST_FLOAT = "1.7976931348623157e308"


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime: TIMESTAMPTZ, or on SQLite ISO text that sorts as time does."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Text on SQLite, which has no type for times."""
        return dialect.type_descriptor(
            Text() if dialect.name == "sqlite" else DateTime(timezone=True)
        )

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Store UTC; a naive time is taken as UTC, which is what Sacred gives."""
        if value is None:
            return None
        value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if dialect.name != "sqlite":
            return value
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give back an aware datetime in UTC."""
        if value is None:
            return None
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


UTC_TIME = UtcTime()
JSON_VALUE = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Id = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself on SQLite

# The columns below are nullable unless said: what was not measured is NULL, never 0.
Num = Mapped[float | None]
Int = Mapped[int | None]
Txt = Mapped[str | None]
Jsn = Mapped[Any]


class Base(DeclarativeBase):
    """Names of constraints follow one pattern, so that a migration can find them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        int: BigInteger().with_variant(Integer, "sqlite"),
        float: Double(),
        str: Text(),
        datetime: UTC_TIME,
        Any: JSON_VALUE,
    }


def _primary() -> Mapped[int]:
    return mapped_column(Id, primary_key=True, autoincrement=True)


def _run_id(**options: Any) -> Mapped[int]:
    return mapped_column(Id, ForeignKey("run.id", ondelete="CASCADE"), **options)


class SchemaVersion(Base):
    """One row: which schema this database has."""

    __tablename__ = "schema_version"
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[datetime]


class Environment(Base):
    """A machine and its software; runs on equal ones share a row."""

    __tablename__ = "environment"
    id: Mapped[int] = _primary()
    fingerprint: Mapped[str] = mapped_column(unique=True)  # sha256 of all that follows
    python: Txt
    torch: Txt
    os: Txt
    cpu: Txt
    gpu: Txt
    packages: Jsn = mapped_column(nullable=True)  # name -> version
    details: Jsn = mapped_column(nullable=True)  # whatever else was gathered


class Code(Base):
    """The program that ran; runs of equal programs share a row."""

    __tablename__ = "code"
    id: Mapped[int] = _primary()
    fingerprint: Mapped[str] = mapped_column(unique=True)  # sha256 of all that follows
    mainfile: Txt
    base_dir: Txt
    sources: Jsn = mapped_column(nullable=True)  # name -> sha256 of its content (table blob)
    repository: Txt
    commit_id: Txt
    dirty: Mapped[int | None] = mapped_column(SmallInteger)
    diff: Txt  # sha256 of the difference to that commit (table blob)
    __table_args__ = (CheckConstraint("dirty IN (0, 1)", name="dirty"),)


class Blob(Base):
    """A file by its content: a source, the difference to a commit, an artifact."""

    __tablename__ = "blob"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int]  # bytes before packing
    data: Mapped[bytes] = mapped_column(LargeBinary)  # zlib


class Run(Base):
    """One Sacred run."""

    __tablename__ = "run"
    id: Mapped[int] = _primary()
    uuid: Mapped[str] = mapped_column(unique=True)
    session: Mapped[str] = mapped_column(unique=True)  # the attempt that writes; its journal's name
    last_seq: Mapped[int] = mapped_column(server_default="0")  # the last event that is stored
    experiment: Mapped[str]
    command: Txt
    study: Txt
    trial: Txt
    status: Mapped[str]  # no CHECK: a SacredInterrupt may bring a status of its own
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    beat_interval: Num  # seconds between two signs of life
    stopped_at: Mapped[datetime | None]
    seconds: Num
    seed: Int
    config: Mapped[Any]
    config_hash: Mapped[str]  # sha256 of the config without its seed: equal for replicates
    result: Jsn = mapped_column(nullable=True)
    result_value: Num
    info: Jsn = mapped_column(nullable=True)
    meta: Jsn = mapped_column(nullable=True)  # Sacred's options, named configs, updates
    comment: Txt
    fail_type: Txt
    fail_message: Txt
    fail_trace: Txt
    host: Txt
    pid: Int
    pid_space: Txt  # the namespace that counts the pid: a container has its own
    boot_id: Txt  # with pid and proc_start: is the process of a RUNNING run still there?
    proc_start: Int  # clock ticks between boot and start of the process
    code_id: Mapped[int | None] = mapped_column(Id, ForeignKey("code.id"), index=True)
    environment_id: Mapped[int | None] = mapped_column(Id, ForeignKey("environment.id"), index=True)
    parent_id: Mapped[int | None] = mapped_column(
        Id, ForeignKey("run.id", ondelete="SET NULL"), index=True
    )
    deleted_at: Mapped[datetime | None]  # put away: in no view, until it is collected
    __table_args__ = (
        Index(None, "experiment", "started_at"),
        Index(None, "status"),
        Index(None, "config_hash"),
        Index(None, "trial"),
        Index(None, "study", "experiment"),
    )


class RunConfig(Base):
    """The leaves of ``run.config`` under dotted keys; made from it, for filters and columns."""

    __tablename__ = "run_config"
    run_id: Mapped[int] = _run_id(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    num: Num
    txt: Txt
    kind: Mapped[str]
    __table_args__ = (
        CheckConstraint("kind IN ('num', 'str', 'bool', 'null', 'json')", name="kind"),
        Index(None, "key", "num"),
        # a whole text may be longer than an index of PostgreSQL takes
        Index("ix_run_config_key_start", "key", literal_column("substr(txt, 1, 100)")),
        {"sqlite_with_rowid": False},
    )


class Tag(Base):
    """A word that somebody gave a run."""

    __tablename__ = "tag"
    run_id: Mapped[int] = _run_id(primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)
    __table_args__ = (Index(None, "tag"), {"sqlite_with_rowid": False})


class Artifact(Base):
    """A file that a run added (artifact) or read (resource)."""

    __tablename__ = "artifact"
    id: Mapped[int] = _primary()
    run_id: Mapped[int] = _run_id()
    kind: Mapped[str]
    name: Mapped[str]
    sha256: Txt  # of its content, in table blob unless it was too large; NULL if it was not there
    size: Int
    path: Txt  # where it was on the run's machine
    content_type: Txt
    meta: Jsn = mapped_column(nullable=True)
    __table_args__ = (
        UniqueConstraint("run_id", "kind", "name", "sha256"),
        CheckConstraint("kind IN ('artifact', 'resource')", name="kind"),
        Index(None, "sha256"),
    )


class RejectedEvent(Base):
    """What the database refused to store of a run, kept so that nothing is lost."""

    __tablename__ = "rejected_event"
    id: Mapped[int] = _primary()
    run_uuid: Mapped[str]
    session: Mapped[str]
    seq: Mapped[int]
    kind: Mapped[str]
    payload: Mapped[str]  # JSON
    error: Mapped[str]
    rejected_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("session", "seq"), Index(None, "run_uuid"))


class RunOutput(Base):
    """What a run printed, piece after piece."""

    __tablename__ = "run_output"
    run_id: Mapped[int] = _run_id(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Solve(Base):
    """One solve: forward, adjoint or tangent. Columns: ``views/v_solves.sql``."""

    __tablename__ = "solve"
    id: Mapped[int] = _primary()
    run_id: Mapped[int] = _run_id()
    ord: Mapped[int]
    outer_step: Int
    phase: Txt
    site: Txt
    problem: Txt
    solver: Txt
    options: Jsn = mapped_column(nullable=True)
    iterations: Int
    evaluations: Int
    sample_evaluations: Int
    jvps: Int
    vjps: Int
    syncs: Int
    history_bytes: Int
    retcode: Txt
    retcodes: Jsn = mapped_column(nullable=True)
    converged: Num
    message: Txt
    residual_first: Num
    residual_last: Num
    residual_min: Num
    residual_relative: Num
    seconds: Num
    seconds_q1: Num
    seconds_q3: Num
    repeats: Int
    abstol: Num
    reltol: Num
    norm: Txt
    max_evaluations: Int
    fixed_budget: Mapped[int | None] = mapped_column(SmallInteger)
    dtype: Txt
    device: Txt
    batch: Int
    dim: Int
    extra: Jsn = mapped_column(nullable=True)
    __table_args__ = (
        UniqueConstraint("run_id", "ord"),
        CheckConstraint("phase IN ('forward', 'adjoint', 'tangent')", name="phase"),
        CheckConstraint("converged BETWEEN 0 AND 1", name="converged"),
        CheckConstraint("fixed_budget IN (0, 1)", name="fixed_budget"),
        Index(None, "run_id", "phase", "outer_step"),
    )


class SolveTrace(Base):
    """One column of a solve's trace, packed by ``encode.pack``."""

    __tablename__ = "solve_trace"
    solve_id: Mapped[int] = mapped_column(
        Id, ForeignKey("solve.id", ondelete="CASCADE"), primary_key=True
    )
    column: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int]
    codec: Mapped[str]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    __table_args__ = (
        CheckConstraint(
            "\"column\" IN ('evaluations', 'seconds', 'residual', 'active')", name="column"
        ),
    )


class GradCheck(Base):
    """One gradient against its reference. Columns: ``views/v_gradients.sql``."""

    __tablename__ = "grad_check"
    id: Mapped[int] = _primary()
    run_id: Mapped[int] = _run_id()
    ord: Mapped[int]
    outer_step: Int
    solve_id: Mapped[int | None] = mapped_column(
        Id, ForeignKey("solve.id", ondelete="CASCADE"), index=True
    )
    adjoint_id: Mapped[int | None] = mapped_column(
        Id, ForeignKey("solve.id", ondelete="CASCADE"), index=True
    )
    target: Txt
    method: Txt
    options: Jsn = mapped_column(nullable=True)
    reference: Txt
    rel_err: Num
    cosine: Num
    norm: Num
    norm_ref: Num
    norm_ratio: Num
    n: Int
    fwd_residual: Num
    bwd_residual: Num
    reltol: Num
    dtype: Txt
    kept_bytes: Int
    history_bytes: Int
    peak_bytes: Int
    forward_seconds: Num
    forward_seconds_q1: Num
    forward_seconds_q3: Num
    backward_seconds: Num
    backward_seconds_q1: Num
    backward_seconds_q3: Num
    products: Int
    loss: Num
    loss_ref: Num
    state_err: Num
    extra: Jsn = mapped_column(nullable=True)
    __table_args__ = (
        UniqueConstraint("run_id", "ord"),
        Index(None, "method"),
        Index(None, "run_id", "outer_step"),
    )


class Series(Base):
    """One named metric of a run. Columns, which sum up its points: ``views/v_series.sql``."""

    __tablename__ = "series"
    id: Mapped[int] = _primary()
    run_id: Mapped[int] = _run_id()
    name: Mapped[str]
    n: Mapped[int] = mapped_column(server_default="0")
    nonfinite: Mapped[int] = mapped_column(server_default="0")
    last_step: Num
    last_value: Num
    least: Num
    least_step: Num
    largest: Num
    __table_args__ = (UniqueConstraint("run_id", "name"), Index(None, "name"))


class Point(Base):
    """One value of a series. The key is ``ord``: a step may repeat, and need not be whole."""

    __tablename__ = "point"
    series_id: Mapped[int] = mapped_column(
        Id, ForeignKey("series.id", ondelete="CASCADE"), primary_key=True
    )
    ord: Mapped[int] = mapped_column(primary_key=True)
    step: Num
    value: Num
    flag: Mapped[int] = mapped_column(SmallInteger)  # encode.FINITE, NAN, INF, …: why value is NULL
    t: Num  # seconds since 1970-01-01 UTC
    __table_args__ = (
        CheckConstraint("flag BETWEEN 0 AND 4", name="flag"),
        {"sqlite_with_rowid": False},
    )


def _constrain_numbers() -> None:
    """No NaN and no infinity in any numeric column, no negative count in any counter."""
    counters = {
        "iterations", "evaluations", "sample_evaluations", "jvps", "vjps", "syncs", "history_bytes",
        "kept_bytes", "peak_bytes", "products", "repeats", "batch", "dim", "n", "nonfinite", "size",
        "last_seq",
    }  # fmt: skip
    for table in Base.metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, Double):
                # true of no NaN: PostgreSQL puts it above every number, SQLite stores it as NULL
                rule, name = f"abs({column.name}) <= {LARGEST_FLOAT}", f"{column.name}_finite"
            elif column.name in counters:
                rule, name = f"{column.name} >= 0", f"{column.name}_count"
            else:
                continue
            table.append_constraint(CheckConstraint(rule, name=name))


_constrain_numbers()


def version(connection: Connection) -> int | None:
    """The schema version of an open database; None when it is empty.

    Raises
    ------
    StoreError
        The database holds tables, but not ours.
    """
    tables = inspect(connection).get_table_names()
    if SchemaVersion.__tablename__ in tables:
        return connection.scalar(select(SchemaVersion.version))
    if tables:
        raise StoreError(
            f"it is a database of something else, with the tables {', '.join(sorted(tables)[:5])}"
        )
    return None


def make_views(connection: Connection) -> None:
    """Make the views over tables that are there."""
    for view in VIEWS.values():
        connection.exec_driver_sql(view.statement(connection.dialect.name))


def create(connection: Connection) -> None:
    """Make the tables and views in an empty database, within the caller's transaction and lock."""
    Base.metadata.create_all(connection, checkfirst=False)
    make_views(connection)
    connection.execute(
        SchemaVersion.__table__.insert(),  # type: ignore[attr-defined]
        {"version": SCHEMA_VERSION, "created_at": datetime.now(UTC)},
    )
