"""The one place that opens a store, and all that is read from one."""

import contextlib
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from db import comparisons, queries, schema
from db.dialects import DEFAULT_PATH, Database, absent, away, database, reason
from db.errors import StoreAway, StoreError, closest, hidden
from db.views import VIEWS

__all__ = ["Store", "connect", "default_url", "locate", "reading", "version"]


def default_url() -> str:
    """The URL of the store: ``DEQ_STORE``, else ``sqlite:///results/store.db`` where one is.

    A value without ``://`` is a path to a SQLite file.
    """
    return os.environ.get("DEQ_STORE", "").strip() or f"sqlite:///{DEFAULT_PATH.as_posix()}"


def locate(url: str | os.PathLike[str] | None) -> Database:
    """The database that a URL or path names, which need not be there."""
    text = os.fspath(url) if url is not None else default_url()
    if "://" not in text:  # a path, whose own ? and % are no part of a URL
        return database(URL.create("sqlite", database=text))
    try:
        return database(make_url(text))
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            f"{hidden(text)!r} names no store: write sqlite:///path/to/store.db, a plain path, "
            "or postgresql://user@host/name"
        ) from error


def connect(url: str | os.PathLike[str] | None = None) -> Engine:
    """Open a store for writing; make its tables when it is empty.

    Several processes may do this at once with the same empty database.

    Parameters
    ----------
    url
        ``sqlite:///path``, a plain path, ``postgresql://…``, or None for ``default_url()``.

    Raises
    ------
    StoreError
        The URL is not understood, the place cannot be written, it is another kind of file or
        database, or it has another schema version. Nothing is made then.
    """
    place = locate(url)
    engine = place.engine(readonly=False)
    try:
        with engine.begin() as connection:
            place.lock(connection)
            if _checked(place, connection) is None:
                schema.create(connection)
    except DBAPIError as error:
        engine.dispose()
        raise _unusable(place, error) from error
    except StoreError:
        engine.dispose()
        raise
    return engine


def version(place: Database, connection: Connection) -> int | None:
    """The schema version, whichever it is; None for an empty database.

    Raises
    ------
    StoreError
        It is a database of something else.
    """
    try:
        return schema.version(connection)
    except StoreError as error:
        raise StoreError(
            f"{place.shown()} is no store of deq-lab ({error}): set DEQ_STORE to another place"
        ) from error


def _checked(place: Database, connection: Connection) -> int | None:
    """The schema version, None for an empty database; StoreError for one that is not ours."""
    found = version(place, connection)
    if found is not None and found != schema.SCHEMA_VERSION:
        newer = found > schema.SCHEMA_VERSION
        command = f"`deq db upgrade --store {shlex.quote(place.shown())}`"
        remedy = "use a newer deq-lab" if newer else f"run {command}"
        raise StoreError(
            f"the store {place.shown()} has schema version {found} and this deq-lab needs version "
            f"{schema.SCHEMA_VERSION}: {remedy}, or set DEQ_STORE to another store"
        )
    return found


def _unusable(place: Database, error: DBAPIError) -> StoreError:
    why = reason(error)
    if away(error):
        return StoreAway(
            f"the store {place.shown()} is down, busy or full for the moment ({why}): "
            "try again later, or set DEQ_STORE to another store"
        )
    return StoreError(
        f"the store {place.shown()} cannot be used ({why}): "
        "check that it is whole and may be read and written, or set DEQ_STORE to another store"
    )


class Store:
    """A store, to read from. Never writes; holds nothing open between questions.

    Every ``where`` is a filter such as ``solver.name=broyden and status=COMPLETED and reltol<1e-5``
    (``db/where.py``). Every frame has the columns of its view (``docs/store.md``).

    Parameters
    ----------
    url
        ``sqlite:///path``, a plain path, ``postgresql://…``, or None for ``default_url()``.
    create
        Make an empty store first when there is none.

    Raises
    ------
    StoreError
        There is no store there, or it cannot be used; by every method too, for a filter, an id or a
        statement that makes no sense.
    """

    def __init__(self, url: str | os.PathLike[str] | None = None, create: bool = False):
        self.url = os.fspath(url) if url is not None else default_url()
        self._database = locate(self.url)
        if create:
            connect(self.url).dispose()
        self._engine = self._database.engine(readonly=True)
        with self._reading() as connection:
            if _checked(self._database, connection) is None:
                raise absent(self._database)

    def __repr__(self) -> str:
        return f"Store({self._database.shown()!r})"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise _unusable(self._database, error) from error

    def runs(
        self,
        where: str | None = None,
        *,
        config: Sequence[str] = (),
        metrics: Sequence[str] = (),
        deleted: bool = False,
    ) -> pd.DataFrame:
        """The rows of ``v_runs``, newest last.

        Parameters
        ----------
        where
            Which runs.
        config
            Dotted config keys, each of which becomes a column; None where a run does not have it.
        metrics
            Names of series, each of which becomes a column with their last finite values.
        deleted
            The runs that were put away, in the place of all others.

        A key or name that is a column already gets the prefix ``config.`` or ``series.``.
        """
        with self._reading() as connection:
            return queries.runs(connection, where, _names(config), _names(metrics), deleted)

    def solves(self, where: str | None = None) -> pd.DataFrame:
        """The rows of ``v_solves``, by run and order."""
        with self._reading() as connection:
            return queries.rows(connection, "v_solves", where)

    def gradients(self, where: str | None = None) -> pd.DataFrame:
        """The rows of ``v_gradients``, by run and order."""
        with self._reading() as connection:
            return queries.rows(connection, "v_gradients", where)

    def series(
        self, where: str | None = None, names: str | Iterable[str] | None = None
    ) -> pd.DataFrame:
        """The logged metrics of the runs that ``where`` lets through, one row a point.

        Columns: run_id, experiment, study, name, ord, step, value (nan and inf as logged), time
        (UTC). ``names`` keeps only these series.
        """
        with self._reading() as connection:
            return queries.series(connection, where, names)

    def summaries(self, where: str | None = None) -> pd.DataFrame:
        """The rows of ``v_series``: what the points of each logged metric come to."""
        with self._reading() as connection:
            return queries.rows(connection, "v_series", where)

    def comparisons(self, where: str | None = None) -> pd.DataFrame:
        """The rows of ``v_comparisons``: two solvers on one task.

        ``left=broyden and right=anderson and phase=forward`` gives the pairs that ``compare`` puts
        into one row.
        """
        with self._reading() as connection:
            return queries.rows(connection, "v_comparisons", where)

    def trace(self, solve_id: int) -> pd.DataFrame:
        """The trace of one solve: evaluations, seconds, residual, active; empty without one."""
        return self.traces([solve_id]).drop(columns="solve_id")

    def traces(self, solve_ids: Iterable[int]) -> pd.DataFrame:
        """The traces of several solves in one frame, with ``solve_id`` first."""
        with self._reading() as connection:
            return queries.traces(connection, solve_ids)

    def run(self, name: int | str) -> dict[str, Any]:
        """All about one run, by its number or the start of its uuid; also of one put away.

        The columns of table ``run`` (config, result, info and meta as Python values, fail_trace as
        text), ``environment`` and ``code`` (a dict or None), ``tags``, ``artifacts`` (as
        ``artifacts`` gives them), ``output`` (all that it printed) and ``counts`` of its solves,
        gradients, series, points and rejected events.
        """
        with self._reading() as connection:
            return queries.run(connection, queries.run_id(connection, name))

    def config(self, name: int | str) -> dict[str, Any]:
        """The config of one run, by its number or the start of its uuid."""
        with self._reading() as connection:
            return queries.config(connection, queries.run_id(connection, name))

    def diff(self, *names: int | str) -> pd.DataFrame:
        """In what runs differ: a row a key, a column a run, None for what a run does not have.

        Keys are those of the config, and ``run.…``, ``environment.…`` and ``code.…`` for the
        experiment, for machine and versions, for commit and sources. Files stand there by name and
        the start of their digest: ``patch`` gives their difference, ``file`` their content.
        """
        if len(names) < 2:
            raise StoreError("a difference needs at least two runs")
        with self._reading() as connection:
            numbers = [queries.run_id(connection, name) for name in names]
            return comparisons.diff(queries.facts(connection, numbers))

    def patch(self, left: int | str, right: int | str) -> str:
        """The difference between the sources of two runs, as ``diff -u`` prints it."""
        with self._reading() as connection:
            numbers = [queries.run_id(connection, name) for name in (left, right)]
            return queries.patch(connection, *numbers)

    def tags(self, where: str | None = None) -> pd.DataFrame:
        """The tags that are in use: tag, runs (how many of those that ``where`` lets through)."""
        with self._reading() as connection:
            return queries.tags(connection, where)

    def artifacts(self, name: int | str) -> pd.DataFrame:
        """The files that a run added (kind artifact) or read (resource), in their order.

        Columns: kind, name, sha256, size (bytes), path (on the run's machine), content_type, meta,
        stored (whether the content is in the store).
        """
        with self._reading() as connection:
            return queries.artifacts(connection, queries.run_id(connection, name))

    def file(self, name: int | str, file: str) -> bytes:
        """The content of a file of a run.

        It is an artifact, a resource or a source by its name (the newest of a name), or ``diff``:
        the changes to the commit that were there when the run started.
        """
        with self._reading() as connection:
            return queries.file(connection, queries.run_id(connection, name), file)

    def blob(self, sha256: str) -> bytes:
        """The content with this digest, or with the only digest that begins so."""
        with self._reading() as connection:
            return queries.blob(connection, sha256)

    def rejected(self, where: str | None = None) -> pd.DataFrame:
        """What the database refused, of the runs that ``where`` lets through, oldest first.

        Columns: run_id (missing for what has no run), run_uuid, seq, kind, payload (JSON text),
        error, rejected_at.
        """
        with self._reading() as connection:
            return queries.rejected(connection, where)

    def best(
        self, value: str, where: str | None = None, *, k: int = 5, largest: bool = False
    ) -> pd.DataFrame:
        """The ``k`` runs with the least (or largest) value, the best first.

        Parameters
        ----------
        value
            A numeric column of ``v_runs``; ``result.NAME``, what the run returned under that name;
            or ``series.NAME``, the last value of a logged metric. It is the frame's first column.
        where
            Which runs.
        """
        if k < 1:
            raise StoreError(f"k = {k}: expected a whole number of at least 1")
        kind, _, name = value.partition(".")
        with self._reading() as connection:
            wanted = ["id", value] if value in VIEWS["v_runs"].columns else ["id"]
            runs = queries.rows(connection, "v_runs", where, list(dict.fromkeys(wanted)))
            if kind == "result" and name:
                numbers = queries.results(connection, runs["id"], name)
            elif kind == "series" and name:
                numbers = queries.last_values(connection, runs["id"], name)
            else:
                numbers = comparisons.single(runs, value, "v_runs")
            ranked = pd.Series(numbers.to_numpy(), runs["id"]).dropna()
            ranked = ranked.sort_values(ascending=not largest, kind="stable").head(k)
            if ranked.empty:
                raise StoreError(
                    f"no run here has a number {value!r}: name another value or filter"
                )
            found = queries.rows(connection, "v_runs", None, ids=ranked.index.tolist())
        best = found.set_index("id", drop=False).loc[ranked.index].reset_index(drop=True)
        best = best.drop(columns=value, errors="ignore")
        best.insert(0, value, ranked.to_numpy())
        return best

    def replicates(
        self,
        value: str,
        where: str | None = None,
        *,
        of: str = "solves",
        by: Sequence[str] | None = None,
        confidence: float = 0.95,
    ) -> pd.DataFrame:
        """Mean and interval of a column over the seeds of each group.

        Parameters
        ----------
        value
            A numeric column of the view.
        where
            Which rows.
        of
            ``runs``, ``solves``, ``gradients`` or ``series``: the view.
        by
            Columns that a group shares; ``None`` is config_hash for runs, else model, problem,
            phase, solver, gradient, reltol and name as far as the view has them.
        confidence
            Of Student's interval ``low`` to ``high``.
        """
        view = self._view(of)
        if by is None:
            usual = ("model", "problem", "phase", "solver", "gradient", "reltol", "name")
            by = [c for c in usual if c in VIEWS[view].columns]
            by = ["config_hash"] if of == "runs" else by
        frame = self._columns(view, where, (value, *by, "seed"))
        return comparisons.replicates(frame, value, by, view, confidence)

    def compare(
        self,
        value: str,
        left: str,
        right: str,
        *,
        where: str | None = None,
        key: str = "solver",
        of: str = "solves",
        confidence: float = 0.95,
    ) -> pd.DataFrame:
        """A paired comparison of two solvers, gradients or whatever ``key`` names.

        Rows are paired by model, problem, seed, tolerance and phase. One row for all pairs, and one
        a model: ``ratio`` is the geometric mean of left over right with its interval, ``p`` that of
        Wilcoxon's signed-rank test, ``effect`` the rank-biserial correlation, −1 where left is less
        in every pair.
        """
        view = self._view(of)
        frame = self._columns(view, where, (value, key, *comparisons.PAIRED))
        return comparisons.compare(
            frame, value, (left, right), key=key, view=view, confidence=confidence
        )

    def _view(self, of: str) -> str:
        views = {"runs": "v_runs", "solves": "v_solves", "gradients": "v_gradients"}
        views["series"] = "v_series"
        if of not in views:
            raise StoreError(f"of = {of!r}: {closest(of, set(views))}")
        return views[of]

    def _columns(self, view: str, where: str | None, names: Iterable[str]) -> pd.DataFrame:
        """Those of these columns that the view has: to read all takes ten times as long."""
        wanted = [name for name in VIEWS[view].columns if name in set(names)]
        with self._reading() as connection:
            return queries.rows(connection, view, where, wanted)

    def trials(self, study: str, experiment: str | None = None) -> pd.DataFrame:
        """The newest attempt at every trial of a study: trial, status, run_id."""
        with self._reading() as connection:
            return queries.trials(connection, study, experiment)

    def query(self, sql: str) -> pd.DataFrame:
        """The answer to one SELECT over the views (or tables).

        The database is opened for reading only, and a statement that would write, change a setting
        or attach a file is refused. Values come as the database gives them: JSON and, on SQLite,
        times as text.
        """
        try:
            return queries.sql(self._database, self._engine, sql)
        except DBAPIError as error:
            raise _unusable(self._database, error) from error


def _names(given: Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


@contextlib.contextmanager
def reading(url: str | os.PathLike[str] | None) -> Iterator[Connection]:
    """A connection to read with, for what a ``Store`` has no method for.

    Raises
    ------
    StoreError
        As ``Store``.
    """
    with Store(url)._reading() as connection:
        yield connection
