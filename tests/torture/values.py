"""Odd values, each in a run of its own: what is given, and what must be read back.

The same cases are given to Sacred's own observer, whose tables are read by the same words.
"""

from __future__ import annotations

import datetime
import json
import math
import random
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deeds
import numpy as np
import sqlalchemy

from db import RunObserver, Store

NOT_A_NUMBER, INF = math.nan, math.inf
HUGE = 10**400
UUID = "0f9eac7e-7e6c-4b3e-9fb1-9a1d9a5f6c11"
LONG = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=5000))  # packs badly
MEGABYTES = 10 << 20
MARK = "\ufffd"  # what stands for a character that no database takes
INJECTION = "'; drop table run; --\"`$${jndi:x}%s%(x)s{0}\\"


@dataclass
class Seen:
    """What a store tells of a run."""

    status: str
    experiment: str = ""
    config: Any = None
    result: Any = None
    info: Any = None
    output: str = ""
    fail_message: str = ""
    series: dict[str, list[float]] = field(default_factory=dict)
    steps: dict[str, list[float]] = field(default_factory=dict)
    solves: list[dict[str, Any]] = field(default_factory=list)
    traces: list[dict[str, list[float]]] = field(default_factory=list)
    artifacts: int = 0
    rejected: int = 0
    seed: Any = None
    comment: Any = None


@dataclass
class Case:
    """A run with something odd in it."""

    name: str
    main: Callable[[Any, Any], Any] = lambda _run, observer: None
    wanted: dict[str, Any] = field(default_factory=dict)  # of Seen; a function says it itself
    config: dict[str, Any] = field(default_factory=dict)
    status: Any = "COMPLETED"
    experiment: str = "odd"
    options: dict[str, Any] = field(default_factory=dict)
    peer: bool = False  # Sacred's own observer is asked too


def same(found: Any, wanted: Any) -> bool:
    """Equality in which nan is nan, 1 is not True, and a function judges."""
    if callable(wanted):
        return bool(wanted(found))
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        return found == wanted or (math.isnan(wanted) and math.isnan(found))
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(key in found and same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return type(found) is type(wanted) and found == wanted


class BoomError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Hostile:
    """Raises whatever one asks it."""

    def _no(self, *_: Any) -> Any:
        raise ZeroDivisionError("no")

    __repr__ = __str__ = __float__ = __int__ = __len__ = __iter__ = __hash__ = __eq__ = _no
    __bool__ = __index__ = __getitem__ = __reduce__ = __copy__ = __deepcopy__ = _no  # type: ignore[assignment]

    @property
    def shape(self) -> Any:
        raise ZeroDivisionError("no shape")

    def item(self) -> Any:
        raise ZeroDivisionError("no item")


class Lying:
    """Seems to be an array."""

    shape = (2, "x")
    dtype = None

    def tolist(self) -> Any:
        return self


def _shortened(text: str) -> bool:
    """Whether this is ``LONG`` as far as an index takes it, and a digest of the rest."""
    return len(text) >= 400 and text.startswith(LONG[:400]) and text[-16:] not in LONG


def _status(text: str) -> Callable[[Any, Any], None]:
    class Custom(deeds.SacredInterrupt):
        STATUS = text

    def main(_run, observer):
        raise Custom("stopped")

    return main


def _logs(name: str, values: list[Any], steps: list[Any] | None = None):
    def main(_run, observer):
        for number, value in enumerate(values):
            _run.log_scalar(name, value, steps[number] if steps else number)

    return main


def _returns(value: Callable[[], Any]):
    return lambda _run, observer: value()


def _solves(**record: Any):
    def main(_run, observer):
        observer.solve(record)

    return main


def _raises(error: Callable[[], BaseException]):
    def main(_run, observer):
        raise error()

    return main


def _prints(text: str):
    def main(_run, observer):
        print(text, end="")

    return main


def _notes(value: Callable[[], Any]):
    def main(_run, observer):
        _run.info["odd"] = value()

    return main


def _loop() -> list[Any]:
    loop: list[Any] = [1]
    loop.append(loop)
    return loop


def _cycle() -> dict[str, Any]:
    cycle: dict[str, Any] = {"a": 1}
    cycle["self"] = cycle
    return cycle


def _deep() -> Any:
    value: Any = 1
    for _ in range(3000):
        value = [value]
    return value


def _artifact(name: str, content: bytes | None):
    def main(_run, observer):
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "file.bin"
            if content is not None:
                file.write_bytes(content)
            _run.add_artifact(str(file), name)
            good = Path(place) / "good.txt"
            good.write_text("good")
            _run.add_artifact(str(good), "good")

    return main


def cases() -> list[Case]:
    """All of them; torch is imported here."""
    import torch

    graph = torch.tensor([1.5, 2.5], requires_grad=True)
    some = "\ud800 and \0"
    seen = f"{MARK} and {MARK}"
    text = isinstance
    found = [
        Case("plain", peer=True, wanted={"result": None}),
        # configs
        *(
            Case(f"config {name}", config={"odd": value}, wanted={"config": {"odd": back}}, peer=p)
            for name, value, back, p in [
                ("nan", NOT_A_NUMBER, NOT_A_NUMBER, True),
                ("inf", INF, INF, True),
                ("-inf", -INF, -INF, False),
                ("1e400", float("1e400"), INF, False),
                ("10**400", HUGE, lambda v: int(v, 16) == HUGE, False),
                ("2**64", 2**64, 2**64, False),
                ("2**63 negative", -(2**63) - 1, -(2**63) - 1, False),
                ("10 MB", "x" * MEGABYTES, "x" * MEGABYTES, False),
                ("NUL and surrogate", some, lambda v: v in (some, seen), True),
                ("long key", {LONG: 1}, {LONG: 1}, False),
                ("long value", LONG, LONG, False),
                ("NUL key", {"a\0b": 1}, lambda v: v in ({"a\0b": 1}, {f"a{MARK}b": 1}), False),
                ("key of injection", {INJECTION.replace(".", ""): 1},
                 {INJECTION.replace(".", ""): 1}, False),
                ("mixed", [1, "x", None, NOT_A_NUMBER, {"a": [INF]}],
                 [1, "x", None, NOT_A_NUMBER, {"a": [INF]}], False),
                ("like a marked float", {"$float": "nan"}, None, False),
            ]
            if name != "like a marked float"  # Sacred refuses the key
        ),
        Case("many keys", config={f"key{n}": n for n in range(2000)},
             wanted={"config": {f"key{n}": n for n in range(2000)}}),
        # results
        *(
            Case(f"result {name}", _returns(value), {"result": back}, peer=p)
            for name, value, back, p in [
                ("nan", lambda: NOT_A_NUMBER, NOT_A_NUMBER, True),
                ("inf", lambda: INF, INF, False),
                ("dict", lambda: {"a": 1, "b": [INF]}, {"a": 1, "b": [INF]}, True),
                ("list", lambda: [1, "x"], [1, "x"], True),
                ("text", lambda: "good", "good", True),
                ("bool", lambda: True, True, True),
                ("0-d array", lambda: np.array(3.0), 3.0, True),
                ("numpy float16", lambda: np.float16(0.5), 0.5, False),
                ("numpy bool", lambda: np.bool_(True), True, False),
                ("torch scalar", lambda: torch.tensor(2.5), 2.5, True),
                ("bfloat16", lambda: torch.tensor(2.5, dtype=torch.bfloat16), 2.5, False),
                ("tensor with graph", (graph * 2).sum, 8.0, True),
                ("tensor", lambda: graph * 2, [3.0, 5.0], False),
                ("sparse tensor", lambda: torch.eye(3).to_sparse(), lambda v: v is not None, False),
                ("large tensor", lambda: torch.zeros(1000, 1000), lambda v: "$array" in v, False),
                ("complex", lambda: 1 + 2j, lambda v: v is not None, False),
                ("10**400", lambda: HUGE, lambda v: int(v, 16) == HUGE, False),
                ("bytes", lambda: b"\0\xff", lambda v: text(v, str), False),
                ("generator", lambda: (n for n in range(3)), lambda v: text(v, str), False),
                ("recursive list", _loop, lambda v: v[0] == 1, False),
                ("recursive dict", _cycle, lambda v: v["a"] == 1, False),
                ("lying", Lying, lambda v: v is not None, False),
                ("class", lambda: Hostile, lambda v: "Hostile" in v, False),
                ("NUL and surrogate", lambda: some, seen, False),
                ("10 MB", lambda: "y" * MEGABYTES, "y" * MEGABYTES, False),
                ("set", lambda: {3}, [3], False),
                ("time", lambda: datetime.datetime(2026, 1, 1), lambda v: "2026" in v, False),
                ("keys", lambda: {1: 2, None: 3, (4, 5): 6}, {"1": 2, "None": 3}, False),
                ("marked", lambda: {"$float": "x"}, lambda v: v is not None, False),
                ("structured array", lambda: np.zeros(2, dtype=[("a", "f8"), ("b", "i4")]),
                 lambda v: v is not None, False),
                ("object array", lambda: np.array([{"a": {1}}, 1], dtype=object),
                 lambda v: v is not None, False),
                ("time array", lambda: np.array(["2026-01-01", "NaT"], dtype="M8[ns]"),
                 lambda v: v is not None, False),
            ]
        ),
        # metrics
        Case("metric", _logs("m", [1.0, 2.0]), {"series": {"m": [1.0, 2.0]}}, peer=True),
        Case("metric nan and inf", _logs("m", [NOT_A_NUMBER, INF, -INF, 0.5]),
             {"series": {"m": [NOT_A_NUMBER, INF, -INF, 0.5]}}, peer=True),
        Case("metric huge", _logs("m", [float("1e400"), HUGE, -HUGE, 2**70]),
             {"series": {"m": [INF, INF, -INF, float(2**70)]}}),
        Case("metric tensors", _logs("m", [graph.sum(), torch.tensor([3]), np.float32(0.5),
                                           torch.tensor(1.5, dtype=torch.bfloat16), True]),
             {"series": {"m": [4.0, 3.0, 0.5, 1.5, 1.0]}}, peer=True),
        Case("metric of no number",
             _logs("m", ["x", None, [1], 1j, Hostile(), b"1", Lying(), {}, 7.0]),
             {"series": {"m": lambda v: len(v) == 9 and v[-1] == 7.0}}),
        Case("metric steps", _logs("m", [1.0] * 7, [3, 3, 0.5, NOT_A_NUMBER, 2**70, INF, -1]),
             {"series": {"m": [1.0] * 7}, "steps": {"m": lambda s: len(s) == 7 and s[0] == 3}}),
        Case("metric steps of no number", _logs("m", [1.0] * 3, ["x", [], Hostile()]),
             {"series": {"m": [1.0] * 3}}),
        Case("metric name of 400", _logs(LONG[:400], [1.0]), {"series": {LONG[:400]: [1.0]}}),
        Case("metric name long", _logs(LONG, [1.0]),
             {"series": lambda s: list(map(_shortened, s)) == [True]}),
        Case("metric names long and alike",
             lambda _run, o: [_run.log_scalar(LONG + end, 1.0) for end in "ab"],
             {"series": lambda s: list(s.values()) == [[1.0], [1.0]]}),
        Case("metric name odd", _logs(some, [1.0]), {"series": {seen: [1.0]}}),
        Case("metric name injection", _logs(INJECTION, [1.0]), {"series": {INJECTION: [1.0]}}),
        Case("metric name empty", _logs("", [1.0]), {"series": {"": [1.0]}}),
        Case("metric names alike", lambda _run, o: [_run.log_scalar(n, 1.0) for n in ("\0", MARK)],
             {"series": {MARK: [1.0, 1.0]}}),
        # info
        *(
            Case(f"info {name}", _notes(value), {"info": {"odd": back}}, peer=p)
            for name, value, back, p in [
                ("text", lambda: "good", "good", False),
                ("nan", lambda: NOT_A_NUMBER, NOT_A_NUMBER, False),
                ("tensor", lambda: graph * 2, [3.0, 5.0], False),
                ("recursive", _cycle, lambda v: v["a"] == 1, False),
                ("bytes", lambda: b"\0\xff", lambda v: text(v, str), False),
                ("deep", _deep, lambda v: v is not None, False),
                ("hostile", Hostile, lambda v: text(v, str), False),
                ("hostile inside", lambda: {"a": Hostile(), "b": 1}, lambda v: v["b"] == 1, False),
                ("NUL", lambda: some, seen, False),
                ("10 MB", lambda: "z" * MEGABYTES, "z" * MEGABYTES, False),
            ]
        ),
        # ends
        *(
            Case(f"status {name}", _status(given), {}, status=back, peer=p)
            for name, given, back, p in [
                ("DIVERGED", "DIVERGED", "DIVERGED", True),
                ("TIMEOUT", "TIMEOUT", "TIMEOUT", True),
                ("with NUL", some, seen, False),
                ("long", LONG, _shortened, False),
                ("injection", INJECTION, INJECTION, False),
            ]
        ),
        Case("again, after a custom status", peer=True),
        Case("exception", _raises(lambda: ValueError("bad")), {"fail_message": "bad"},
             status="FAILED"),
        Case("exception with NUL", _raises(lambda: ValueError(some)), {"fail_message": seen},
             status="FAILED"),
        Case("exception without text", _raises(BoomError), {}, status="FAILED"),
        Case("exception of 10 MB", _raises(lambda: ValueError("e" * MEGABYTES)), {},
             status="FAILED"),
        Case("exception group", _raises(lambda: ExceptionGroup("g", [ValueError("a")])), {},
             status="FAILED"),
        Case("KeyboardInterrupt", _raises(KeyboardInterrupt), {}, status="INTERRUPTED"),
        Case("GeneratorExit", _raises(GeneratorExit), {}, status="FAILED"),
        # names
        Case("experiment name of 40", experiment=LONG[:40], wanted={"experiment": LONG[:40]},
             peer=True),
        Case("experiment name long", experiment=LONG, wanted={"experiment": _shortened}),
        Case("experiment name odd", experiment=some, wanted={"experiment": seen}),
        Case("experiment name injection", experiment=INJECTION, wanted={"experiment": INJECTION}),
        Case("id long", options={"--id": "i" * 3000}),
        Case("id uuid", options={"--id": UUID}, peer=True),
        Case("again an id uuid", options={"--id": UUID}, peer=True),
        Case("id odd", options={"--id": some}),
        Case("comment odd", options={"--comment": some}, wanted={"comment": seen}),
        Case("seed negative and huge", config={"seed": 2**31 - 1}, wanted={"seed": 2**31 - 1}),
        # output
        Case("output odd", _prints("a\0\x1b[31m\r\n"), {"output": f"a{MARK}\x1b[31m\r\n"},
             options={"--capture": "sys"}),
        Case("output of 10 MB", _prints("o" * MEGABYTES),
             {"output": lambda v: v == "o" * MEGABYTES}, options={"--capture": "sys"}),
        # files
        Case("artifact", _artifact("a", b"x"), {"artifacts": 2}, peer=True),
        Case("artifact name long", _artifact(LONG, b"x"), {"artifacts": 2}, peer=True),
        Case("artifact name odd", _artifact(some, b"x"), {"artifacts": 2}),
        Case("artifact missing", _artifact("a", None), {"artifacts": lambda n: n >= 1}, peer=True),
        Case("artifact empty", _artifact("a", b""), {"artifacts": 2}),
        Case("artifact of 20 MB", _artifact("a", bytes(20 << 20)), {"artifacts": 2}),
        # solves
        Case("solve of odd numbers",
             _solves(seconds=NOT_A_NUMBER, residual_last=INF, abstol=HUGE, evaluations=np.int64(3),
                     reltol=torch.tensor(1e-3, dtype=torch.float64), converged=graph.mean() / 2),
             {"solves": [{"evaluations": 3, "reltol": 1e-3, "converged": 1.0}]}),
        Case("solve of odd texts", _solves(message=some, site=LONG, problem=INJECTION),
             {"solves": [{"message": seen, "site": lambda t: t == LONG or _shortened(t),
                          "problem": INJECTION}]}),
        Case("solve of odd options",
             _solves(options={"a": _loop(), "b": Hostile(), "c": graph, "d": b"x"}),
             {"solves": [{"options": lambda v: json.loads(v)["c"] == [1.5, 2.5]
                          if text(v, str) else v["c"] == [1.5, 2.5]}]}),
        Case("solve of 10 MB", _solves(message="m" * MEGABYTES),
             {"solves": [{"message": "m" * MEGABYTES}]}),
        Case("solve with odd trace",
             _solves(trace={"residual": graph * 2, "seconds": [NOT_A_NUMBER, -INF],
                            "evaluations": np.array([1, 2], dtype=np.uint8), "active": (1, 0)}),
             {"traces": [{"residual": [3.0, 5.0], "seconds": [NOT_A_NUMBER, -INF],
                          "evaluations": [1.0, 2.0], "active": [1.0, 0.0]}]}),
        # what Sacred itself cannot print ends its run, whose end is stored
        *(
            Case(f"result {name} that Sacred cannot print", _returns(value), status="FAILED")
            for name, value in [
                ("10**5000", lambda: 10**5000), ("deep", _deep), ("hostile", Hostile)
            ]
        ),
    ]  # fmt: skip
    assert len({case.name for case in found}) == len(found)
    return found


def ours(url: str, every: int = 1, first: int = 0) -> dict[str, str]:
    """Run every n-th case into a store of ours: what is wrong by case, empty when nothing is."""
    faults = {}
    for case in cases()[first::every]:
        observer = RunObserver(url)
        raised = _run(case, observer, lambda run, o=observer, c=case: c.main(run, o))
        try:
            faults[case.name] = _judge(case, _seen(Store(url), observer.uuid), raised)
        except Exception:
            faults[case.name] = traceback.format_exc()[-900:]
    return faults


def _run(case: Case, observer: Any, main: Callable[[Any], Any]) -> str:
    def captured(_run):  # Sacred goes by the names of arguments
        return main(_run)

    made = deeds.experiment(observer, captured, case.config, case.experiment)
    try:
        made.run(options=deeds.QUIET | {"--beat-interval": 0.02} | case.options)
    except BaseException as error:
        try:
            return f"{type(error).__name__}: {str(error)[:300]}"
        except Exception:
            return type(error).__name__
    return ""


def _judge(case: Case, seen: Seen, raised: str) -> str:
    wrong = []
    if not same(seen.status, case.status):
        wrong.append(f"status {seen.status[:40]!r}, not {case.status!r}; {raised}")
    if case.status == "COMPLETED" and raised:
        wrong.append(f"raised {raised}")
    for name, wanted in case.wanted.items():
        found = getattr(seen, name)
        if not same(found, wanted):
            wrong.append(f"{name} is {repr(found)[:300]}")
    if seen.rejected and "rejected" not in case.wanted:
        wrong.append(f"{seen.rejected} events rejected")
    return "; ".join(wrong)


def _seen(store: Store, uuid: str) -> Seen:
    run = store.run(uuid)
    number = run["id"]
    points = store.query(
        "select name, step, value, flag from point join series on series.id = series_id "
        f"where run_id = {number} order by series_id, ord"
    )
    special = {1: NOT_A_NUMBER, 2: INF, 3: -INF}
    series: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {}
    for name, step, value, flag in points.itertuples(index=False):
        series.setdefault(name, []).append(special.get(int(flag), value))
        steps.setdefault(name, []).append(step)
    solves = store.query(f"select * from solve where run_id = {number} order by ord")
    return Seen(
        status=run["status"],
        experiment=run["experiment"],
        config=run["config"],
        result=run["result"],
        info=run["info"],
        output=run["output"],
        fail_message=run["fail_message"],
        seed=run["seed"],
        comment=run["comment"],
        series=series,
        steps=steps,
        solves=[
            {k: v.item() if hasattr(v, "item") else v for k, v in row.items()}
            for row in solves.to_dict("records")
        ],
        traces=[store.trace(int(n)).to_dict("list") for n in solves["id"]],
        artifacts=_count(store, f"artifact where run_id = {number}"),
        rejected=_count(store, f"rejected_event where run_uuid = '{run['uuid']}'"),
    )


def _count(store: Store, what: str) -> int:
    return int(store.query(f"select count(*) as n from {what}")["n"][0])


def theirs(url: str) -> dict[str, str]:
    """The same for Sacred's SqlObserver and the cases that it can be asked, each on a new store.

    But those that ask what an earlier run leaves behind.
    """
    faults = {}
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    for case in cases():
        if not case.peer:
            continue
        if not case.name.startswith("again"):
            _clear(engine)
        before = _theirs(engine, "select count(*) from run") or 0
        try:
            raised = _run(case, deeds.SqlObserver(url), lambda run, c=case: c.main(run, None))
            after = _theirs(engine, "select count(*) from run")
            if after != before + 1:
                faults[case.name] = f"no run; {raised}"
                continue
            faults[case.name] = _judge(case, _their_run(engine), raised)
        except Exception as error:
            faults[case.name] = f"{type(error).__name__}: {str(error)[:300]}"
    engine.dispose()
    return faults


def _clear(engine: sqlalchemy.Engine) -> None:
    if engine.dialect.name == "sqlite":
        Path(engine.url.database).unlink(missing_ok=True)
        return
    with engine.begin() as connection:
        connection.exec_driver_sql("drop schema public cascade")
        connection.exec_driver_sql("create schema public")


def _theirs(engine: sqlalchemy.Engine, sql: str) -> Any:
    try:
        with engine.connect() as connection:
            return connection.exec_driver_sql(sql).scalar()
    except sqlalchemy.exc.DBAPIError:
        return None


def _their_run(engine: sqlalchemy.Engine) -> Seen:
    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    with engine.connect() as connection:
        row = connection.exec_driver_sql(
            "select run.*, experiment.name as experiment from run "
            "join experiment using (experiment_id) order by id desc limit 1"
        ).mappings().one()  # fmt: skip
        files = connection.exec_driver_sql(
            f"select count(*) from artifact where run_id = '{row['run_id']}'"
        ).scalar_one()
    return Seen(
        status=row["status"],
        experiment=row["experiment"],
        config=json.loads(row["config"], parse_constant=no_constant),
        result=row["result"],
        info=json.loads(row["info"] or "null"),
        output=row["captured_out"] or "",
        artifacts=files,
    )
