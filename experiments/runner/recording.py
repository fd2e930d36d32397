"""Sacred experiments whose config is checked and whose runs go to the store.

This is the only file that touches Sacred's globals and that listens to the solvers. An experiment
is a config dataclass and a function::

    def main(config: CompareConfig, recorder: Recorder) -> float | None: ...

    experiment = recording.experiment(CompareConfig, main, "compare")

    if __name__ == "__main__":
        commandline.command_line(experiment)

The config is checked and completed before the run exists, so a mistake leaves nothing in the store.

Two ways for code that is not ours, each of which records every solve that happens meanwhile:
:func:`attach` for somebody's Sacred experiment, and without Sacred::

    with record(name="my script", config={"width": 64}) as recorder:
        solution = solvers.solve(problem, Anderson())
"""
# mypy: untyped-calls-exclude=sacred

from __future__ import annotations

import contextlib
import contextvars
import copy
import inspect
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import solvers
from db import RunObserver, connect, default_url
from experiments.runner import config as configs
from experiments.runner import environment
from experiments.runner.rows import solve_row
from solvers import Solution

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pkg_resources, which nobody here can do anything about
    from sacred import SETTINGS, Experiment, cli_option
    from sacred.config.config_summary import ConfigSummary
    from sacred.dependencies import Source
    from sacred.run import Run
    from sacred.utils import SacredInterrupt

SETTINGS.CAPTURE_MODE = "sys"  # "fd" loses the output of short runs
SETTINGS.DEFAULT_BEAT_INTERVAL = 5.0  # seconds
SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = (
    False  # fails on boards with unified memory; ours: environment
)
SETTINGS.HOST_INFO.INCLUDE_CPU_INFO = False  # takes most of a second a run
SETTINGS.DISCOVER_SOURCES = "none"  # would look from this file, not from the experiment's
SETTINGS.DISCOVER_DEPENDENCIES = "none"

ConfigT = TypeVar("ConfigT")
Result = float | Mapping[str, float] | None
Announce = Callable[[int, str], None]

_on_start: contextvars.ContextVar[Announce | None] = contextvars.ContextVar(
    "on_start", default=None
)


class Terminated(SacredInterrupt):
    """The process was asked to end (SIGTERM)."""

    STATUS = "TERMINATED"


class Recorder:
    """Where an experiment puts what it measured; what is put there is in the store at once.

    In a run without an observer (``--unobserved``) it only counts.
    """

    def __init__(self, run: Run | _Script, observer: RunObserver | None) -> None:
        self._run = run
        self._observer = observer
        self._solves = 0
        self._gradients = 0

    @property
    def run_id(self) -> int | None:
        """The number of the run in its store."""
        return self._observer.run_id if self._observer else None

    @property
    def uuid(self) -> str | None:
        """The name of the run that is unique among all stores."""
        return self._observer.uuid if self._observer else None

    def solve(self, solution: Solution, **measured: object) -> int:
        """Record a solve and return its number within the run.

        Parameters
        ----------
        solution
            The row is read from it, its trace included.
        measured
            Columns of the row that the experiment knows better: ``outer_step``, or the median
            ``seconds`` of ``repeats``.

        Raises
        ------
        TypeError
            For a column that the store does not have.
        """
        row = {**solve_row(solution), **measured}
        self._solves += 1
        return self._observer.solve(row) if self._observer else self._solves - 1

    def gradient(self, **fields: object) -> int:
        """Record a gradient that was compared with its reference; return its number in the run.

        ``solve_ord`` and ``adjoint_ord`` are the numbers of its solves. An unknown column is a
        TypeError.
        """
        self._gradients += 1
        return self._observer.gradient(fields) if self._observer else self._gradients - 1

    def scalar(self, name: str, value: float, step: float | None = None) -> None:
        """Record a point of the series ``name``; it is in the store within a heartbeat."""
        self._run.log_scalar(name, value, step)

    @contextlib.contextmanager
    def observing(self, **measured: object) -> Iterator[list[tuple[int, Solution]]]:
        """Record every solve that finishes inside the block, backward and nested ones too.

        Yields the growing list of (number within the run, solution).
        """
        heard: list[tuple[int, Solution]] = []
        with solvers.observe(
            lambda solution: heard.append((self.solve(solution, **measured), solution))
        ):
            yield heard


class _Script:
    """What stands for Sacred's run where there is none: points go to the observer at once."""

    def __init__(self, observer: RunObserver) -> None:
        self._observer = observer

    def log_scalar(self, name: str, value: float, step: float | None = None) -> None:
        self._observer.log_metrics(
            {
                name: {
                    "steps": [step],
                    "values": [value],
                    "timestamps": [datetime.now(UTC)],
                }
            },
            {},
        )


@contextlib.contextmanager
def record(
    store: str | None = None,
    *,
    name: str,
    config: Mapping[str, Any] | None = None,
    study: str | None = None,
) -> Iterator[Recorder]:
    """Record every solve of the block in a run of its own, without Sacred.

    Forward, backward and nested solves of ``solvers.solve``, ``implicit.solve`` and ``DEQ`` land in
    the store by themselves; ``recorder.gradient`` and ``recorder.scalar`` add what you measured.
    An exception ends the run as FAILED, ctrl-C as INTERRUPTED and SIGTERM as TERMINATED; it goes on
    to the caller.

    Parameters
    ----------
    store
        A URL or the path of an SQLite file; ``None`` is ``DEQ_STORE`` or ``results/store.db``.
    name
        What the store calls the experiment.
    config
        What the run depends on, any plain data; ``seed`` in it becomes the run's seed.
    study
        What the run is a part of, if anything.

    Raises
    ------
    ValueError
        If there is no name.
    StoreError
        If the store cannot be opened; the block does not run then.
    """
    if not name.strip():
        raise ValueError(f"name = {name!r}: a run needs a name to be found by")
    observer = RunObserver(store, study=study, environment=environment.describe())
    begun = datetime.now(UTC)
    observer.started_event({"name": name}, "record", {}, begun, dict(config or {}), {}, None)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(SETTINGS.DEFAULT_BEAT_INTERVAL):
            observer.heartbeat_event({}, "", datetime.now(UTC), None)

    heart = threading.Thread(target=beat, daemon=True, name=f"heartbeat of run {observer.run_id}")
    heart.start()
    recorder = Recorder(_Script(observer), observer)
    try:
        with _terminable(), recorder.observing():
            yield recorder
    except (KeyboardInterrupt, SacredInterrupt) as interrupt:
        status = getattr(interrupt, "STATUS", "INTERRUPTED")
        observer.interrupted_event(datetime.now(UTC), status)
        raise
    except BaseException as error:
        trace = traceback.format_exception(type(error), error, error.__traceback__)
        observer.failed_event(datetime.now(UTC), trace)
        raise
    else:
        observer.completed_event(datetime.now(UTC), None)
    finally:
        ended.set()
        heart.join()
        observer.join()


class _Attached(RunObserver):
    """The observer of one run of a foreign experiment, which also listens to the solvers."""

    def __init__(self, store: str | None) -> None:
        super().__init__(store, environment=environment.describe())
        self._listening = contextlib.ExitStack()

    def started_event(self, *event: Any, **more: Any) -> int:
        """Begin to listen when the run is in the store."""
        number = super().started_event(*event, **more)
        self._listening.enter_context(solvers.observe(self._heard))
        return number

    def _heard(self, solution: Solution) -> None:
        self.solve(solve_row(solution))

    def join(self) -> None:
        """End listening, whatever ended the run."""
        self._listening.close()
        super().join()


def attach(foreign: Experiment, store: str | None = None) -> Experiment:
    """Record the runs of somebody's Sacred experiment, and every solve in them; return it.

    Each run gets an observer of its own, beside those that the experiment has. ``-u`` (unobserved)
    leaves the store out too.

    Parameters
    ----------
    foreign
        A Sacred experiment, made as usual.
    store
        As in :func:`record`.

    Raises
    ------
    TypeError
        If it is no experiment, or one of ours, which is recorded anyway.
    """
    if not isinstance(foreign, Experiment):
        raise TypeError(f"expected a sacred.Experiment, got {type(foreign).__name__}")
    if is_experiment(foreign):
        raise TypeError(f"the experiment {foreign.path!r} is recorded already: run it as it is")

    def prepare(options: dict[str, Any]) -> None:
        foreign.observers[:] = [o for o in foreign.observers if not isinstance(o, _Attached)]
        if not options.get("--unobserved"):
            foreign.observers.append(_Attached(store))

    foreign.option_hook(prepare)
    return foreign


class _CompleteConfig:
    """A config scope that gives Sacred the checked and complete config."""

    def __init__(self, config_class: type[Any], experiment: Experiment) -> None:
        self.config_class = config_class
        self._experiment = experiment

    def __call__(
        self, fixed: dict[str, Any] | None = None, preset: object = None, fallback: object = None
    ) -> ConfigSummary:
        fixed = {} if fixed is None else fixed
        given = set(configs.flatten(fixed))
        complete = configs.complete(self.config_class, fixed)
        # Sacred puts what was typed over every scope's and hook's result; so the checked values
        # take the place of what was typed.
        if fixed:
            fixed.clear()
            fixed.update(copy.deepcopy(complete))
        own = (Source.create(f, save_git_info=False) for f in configs.source_files(complete))
        self._experiment.sources = {self._experiment.mainfile, *own}
        summary = ConfigSummary(modified=given & set(configs.flatten(complete)))
        summary.update(complete)
        return summary


@cli_option("-o", "--store")  # type: ignore[untyped-decorator]
def _store_option(url: str, run: Run) -> None:
    """Record the run in this store: a URL or the path of an SQLite file (default: DEQ_STORE)."""
    # The URL may hold a password.
    run.meta_info["options"] = {k: v for k, v in run.meta_info["options"].items() if k != "--store"}
    if run.unobserved:
        return
    connect(url).dispose()  # a store that cannot be opened is refused before the run begins
    run.observers.append(
        RunObserver(
            url,
            study=run.meta_info.pop("study", None),
            trial=run.meta_info.pop("trial", None),
            environment=environment.describe(),
        )
    )


def experiment(
    config_class: type[ConfigT], main: Callable[[ConfigT, Recorder], Result], name: str
) -> Experiment:
    """Return the Sacred experiment that runs ``main`` on configs of ``config_class``."""
    file = inspect.getsourcefile(main)
    if file is None:
        raise ValueError(f"the experiment '{name}' must be defined in a file")
    made = Experiment(
        name,
        base_dir=str(Path(file).parent),
        additional_cli_options=[_store_option],
        save_git_info=False,
    )
    # Sacred took the file that called it, which is this one, for the experiment's.
    made.mainfile = Source.create(file, save_git_info=False)
    made.sources = {made.mainfile}
    made.doc = (inspect.getdoc(inspect.getmodule(main)) or "").split("\n\n")[0]
    made.configurations.append(_CompleteConfig(config_class, made))

    def prepare(options: dict[str, Any]) -> None:
        # An option that is not given is not applied, and each run needs an observer of its own.
        options["--store"] = options.get("--store") or default_url()
        if repository := environment.repository(Path(file)):
            made.mainfile.repo = repository.url
            made.mainfile.commit = repository.commit
            made.mainfile.is_dirty = repository.dirty

    def captured_main(_run: Run) -> Result:
        observer = next((o for o in _run.observers if isinstance(o, RunObserver)), None)
        recorder = Recorder(_run, observer)
        announce = _on_start.get()
        if announce and recorder.run_id is not None and recorder.uuid is not None:
            announce(recorder.run_id, recorder.uuid)
        try:
            with _terminable():
                return main(config_class(**copy.deepcopy(_run.config)), recorder)
        except BaseException:
            _run._get_captured_output()  # else what a failing run printed last would be lost
            raise

    made.option_hook(prepare)
    captured_main.__name__ = "main"
    captured_main.__doc__ = main.__doc__
    made.main(captured_main)
    return made


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an interrupt that Sacred records."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated("SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its status, its number and name in the store, its result or error."""

    status: str
    run_id: int
    uuid: str
    result: Any = None
    error: str = ""


def run_experiment(
    made: Experiment,
    config: Mapping[str, Any],
    *,
    store: str | None = None,
    study: str | None = None,
    trial: str | None = None,
    on_start: Announce | None = None,
) -> Outcome:
    """Run an experiment once; what its main function raises becomes the outcome.

    ``on_start`` is called with the run's id and uuid once it is recorded.

    Raises
    ------
    OptionError, StoreError
        If the run could not begin; nothing is recorded then.
    KeyboardInterrupt
        Once the run is recorded as interrupted.
    """
    made.current_run = None
    token = _on_start.set(on_start)
    error = ""
    try:
        made.run(
            config_updates=copy.deepcopy(dict(config)),
            meta_info={"study": study, "trial": trial},
            options={"--store": store, "--loglevel": "ERROR"},
        )
    except Exception as raised:
        if _recorded(made.current_run) is None:
            raise
        error = f"{type(raised).__name__}: {raised}"
    finally:
        _on_start.reset(token)
    run: Any = made.current_run
    observer: Any = _recorded(run)
    return Outcome(run.status, observer.run_id, observer.uuid, run.result, error)


def _recorded(run: Run | None) -> RunObserver | None:
    """Return the observer of a run that is in the store."""
    observers = run.observers if run else ()
    return next((o for o in observers if isinstance(o, RunObserver) and o.run_id is not None), None)


def is_experiment(thing: object) -> bool:
    """Whether this is an experiment that :func:`experiment` made."""
    scopes = thing.configurations if isinstance(thing, Experiment) else ()
    return any(isinstance(scope, _CompleteConfig) for scope in scopes)


def config_class(made: Experiment) -> type[Any]:
    """Return the config dataclass of an experiment that :func:`experiment` made."""
    return next(s.config_class for s in made.configurations if isinstance(s, _CompleteConfig))
