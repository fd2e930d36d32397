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

Whose solve is it? That of the innermost block (``record``, ``Recorder.observing``, a run of an
attached experiment) of the thread that solves, and of no other. A thread without a block, as a pool
or autograd on an accelerator has, solves for the block that began last and still goes on. So one
process may record several runs one after the other or one inside another; runs side by side whose
solves happen in further threads belong in processes of their own.
"""
# mypy: untyped-calls-exclude=sacred

from __future__ import annotations

import collections
import contextlib
import contextvars
import copy
import inspect
import io
import logging
import math
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import solvers
from db import RunObserver, StoreError, connect, default_url, provenance
from db.errors import hidden
from db.records import solve_row as checked_row
from experiments.runner import config as configs
from experiments.runner import environment, sources
from experiments.runner.checksums import Data, checksums
from experiments.runner.interrupts import Diverged, Terminated, Termination, interrupt_behind
from experiments.runner.output import heard
from experiments.runner.rows import solve_row
from solvers import Solution
from solvers.options import OptionError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pkg_resources, which nobody here can do anything about
    from sacred import SETTINGS, Experiment, cli_option
    from sacred.commandline_options import CLIOption
    from sacred.config.config_summary import ConfigSummary
    from sacred.dependencies import Source
    from sacred.run import Run
    from sacred.utils import SacredInterrupt

SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = (
    False  # fails on boards with unified memory; ours: environment
)
SETTINGS.HOST_INFO.INCLUDE_CPU_INFO = False  # takes most of a second a run

BEAT = 5.0  # seconds between two signs of life; kill -9 loses the scalars since the last one

__all__ = [
    "Announce", "Diverged", "Outcome", "Recorder", "Resume", "Terminated",
    "attach", "config_class", "experiment", "is_experiment", "record", "run_experiment",
]  # fmt: skip

LOG = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT")
Result = float | Mapping[str, float] | None
Resume = Literal["no", "possible", "must", "changed"]
"""Whether a run goes on from the checkpoint of an earlier one: never; if there is one that fits; or
else fail; or even one that other code has written."""
Announce = Callable[[int | None, str], None]
"""Called with a run's number, None while the store is away, and its uuid."""


class _Block:
    """A block of code whose solves are taken; see the rule at the top of this file."""

    def __init__(self, take: Callable[[Solution], object]) -> None:
        self._take = take
        self._lost = 0
        self._warned = False
        self._process = os.getpid()
        self._listening = contextlib.ExitStack()
        self.open = False
        self.outer: _Block | None = None

    def __enter__(self) -> _Block:
        self.outer, self.open = _block.get(), True
        _block.set(self)
        _blocks.append(self)
        self._listening.enter_context(solvers.observe(self._hear))
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        if self.open:
            self.open = False
            _blocks.remove(self)
            _block.set(self.outer)
        if self._lost > 1:
            LOG.error("%d solves in all could not be recorded", self._lost)

    def _hear(self, solution: Solution) -> None:
        if not self._is_meant():
            return
        try:
            self._take(solution)
        except SacredInterrupt:  # SIGTERM, while the solve was being recorded
            raise
        except Exception as error:  # the solve is good, whatever becomes of its record
            self._lost += 1
            if self._lost == 1:
                LOG.exception("a solve could not be recorded: %s", error)

    def _is_meant(self) -> bool:
        if os.getpid() != self._process:  # a fork, whose solves are no part of this run
            return False
        block = _block.get()
        while block is not None and not block.open:
            block = block.outer
        if block is not None:
            return block is self
        newest = tuple(_blocks)[-1:]
        if newest != (self,):
            return False
        if not self._warned and not set(_blocks) <= set(self._around()):
            self._warned = True
            LOG.warning(
                "several runs are recorded side by side, and a solve came from a thread of none of"
                " them: it goes to the one that began last; record them in processes of their own"
            )
        return True

    def _around(self) -> Iterator[_Block]:
        block: _Block | None = self
        while block is not None:
            yield block
            block = block.outer


_block: contextvars.ContextVar[_Block | None] = contextvars.ContextVar("block", default=None)
_blocks: list[_Block] = []  # of all threads, those that go on, the newest last


class Recorder:
    """Where an experiment puts what it measured.

    What is put there is in the run's journal at once and in the store within a second. In a run
    without an observer (``--unobserved``) it only counts.

    Attributes
    ----------
    info
        A dict of whatever else should be known of the run; the store has its state at every
        heartbeat, and at the end.
    resume
        Whether to go on from the checkpoint of an earlier run.
    told
        Called with a line about how far the run is, where somebody wants to know.
    """

    def __init__(
        self,
        run: Run | _Script,
        observer: RunObserver | None,
        *,
        resume: Resume = "no",
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._run = run
        self.resume, self.told = resume, told
        self._observer = observer
        self._solves = 0
        self._gradients = 0
        self.info: dict[str, Any] = run.info

    @property
    def run_id(self) -> int | None:
        """The number of the run in its store; None without one, and while that is away."""
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

        Yields the growing list of (number within the run, solution). A solve that cannot be
        recorded is logged, and goes on. A block around this one does not hear of these solves.

        Raises
        ------
        TypeError
            For a column of ``measured`` that the store does not have.
        """
        checked_row(measured)
        heard: list[tuple[int, Solution]] = []
        with _Block(lambda solution: heard.append((self.solve(solution, **measured), solution))):
            yield heard


class _Turn:
    """One run of an experiment at a time: Sacred gives those that go on the newest one's config."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._lock = threading.Lock()
        self._taken = False

    def check(self) -> None:
        """Refuse to make a run while another one goes on.

        Raises
        ------
        StoreError
            With what to do.
        """
        run = self._experiment.current_run
        if run is not None and run.status == "RUNNING":
            raise self._refusal()
        self._taken = False

    def take(self) -> None:
        """Begin a run."""
        with self._lock:
            if self._taken:
                raise self._refusal()
            self._taken = True

    def end(self) -> None:
        """End the run."""
        self._taken = False

    def _refusal(self) -> StoreError:
        return StoreError(
            f"the experiment {self._experiment.path!r} is being run already, and Sacred would mix"
            " the configs of two runs of one Experiment at a time: run one after the other, make an"
            " Experiment for each, or run them in processes of their own"
        )


class _Observer(RunObserver):
    """The observer of one Sacred run, which takes its turn and ends on SIGTERM."""

    def __init__(self, store: str | None, turn: _Turn, **more: Any) -> None:
        super().__init__(store, environment=environment.describe(), **more)
        self.begun = False
        self._turn = turn
        self._signals = Termination()
        self._meanwhile = contextlib.ExitStack()

    def started_event(self, *event: Any, **more: Any) -> int | str:
        """Begin, if no other run of the experiment goes on."""
        self._turn.take()
        try:
            known = super().started_event(*event, **more)
        except BaseException:
            self._turn.end()
            raise
        self.begun = True
        self._meanwhile.enter_context(self._signals)
        return known

    # Sacred would swallow what a signal raises while it tells the end.

    def completed_event(self, *event: Any, **more: Any) -> None:
        """See ``RunObserver``."""
        self._signals.ending = True
        super().completed_event(*event, **more)

    def interrupted_event(self, *event: Any, **more: Any) -> None:
        """See ``RunObserver``."""
        self._signals.ending = True
        super().interrupted_event(*event, **more)

    def failed_event(self, *event: Any, **more: Any) -> None:
        """See ``RunObserver``."""
        self._signals.ending = True
        super().failed_event(*event, **more)

    def join(self) -> None:
        """End all that went on meanwhile, however the run ended."""
        if self.begun:
            self._turn.end()
        try:
            super().join()
        finally:
            self._meanwhile.close()


class _Script:
    """What stands for Sacred's run where there is none: points go to the observer at once."""

    def __init__(self, observer: RunObserver) -> None:
        self._observer = observer
        self._steps: collections.Counter[str] = collections.Counter()
        self.info: dict[str, Any] = {}

    def log_scalar(self, name: str, value: float, step: float | None = None) -> None:
        if step is None:  # as Sacred counts
            step = self._steps[name]
            self._steps[name] += 1
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


def record(
    store: str | None = None,
    *,
    name: str,
    config: Mapping[str, Any] | None = None,
    study: str | None = None,
    data: Data | None = None,
    output: bool = True,
    require_store: bool = False,
) -> contextlib.AbstractContextManager[Recorder]:
    """Record every solve of the block in a run of its own, without Sacred.

    Forward, backward and nested solves of ``solvers.solve``, ``implicit.solve`` and ``DEQ`` land in
    the store by themselves; ``recorder.gradient`` and ``recorder.scalar`` add what you measured.
    The script and all that it imports of your own is kept by content, with commit and differences.
    An exception ends the run as FAILED, ctrl-C as INTERRUPTED and SIGTERM as TERMINATED; it goes on
    to the caller. ``sys.exit()`` without an error completes it.

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
    data
        What the run was made with: ``{"train": "data/train.npz"}``. A path, bytes, a tensor or a
        sha256; the sha256 is stored.
    output
        Whether to keep what Python prints meanwhile, from whichever thread.
    require_store
        Whether the block may not begin while the store is away, its server down or the disk full.
        Else the run goes on and waits in its journal, for the store or for ``deq db sync``.

    Raises
    ------
    TypeError, ValueError
        If there is no name, the config is no mapping, or some data cannot be read.
    StoreError
        If the store cannot be used; the block does not run then.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name = {name!r}: a run needs a name, a text, to be found by")
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"config is of type {type(config).__name__}: expected a mapping")
    caller = sys._getframe(1).f_globals.get("__name__", "__main__")
    info, meta = _program(name, caller)
    meta |= {"data": checksums(data)} if data else {}
    observer = RunObserver(
        store, study=study, environment=environment.describe(), require_store=require_store
    )
    return _recorded_block(observer, info, dict(config or {}), meta, output)


def _program(name: str, caller: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What Sacred would say of a script, and the meta data of its run."""
    used = sources.used(["__main__", caller])
    by_name = {source.module: source for source in used}
    main = by_name.get("__main__") or by_name.get(caller)
    base = main.path.parent if main else Path.cwd()
    names = {source.module: os.path.relpath(source.path, base) for source in used}
    info = {
        "name": name,
        "base_dir": str(base),
        "mainfile": main and names[main.module],
        "sources": [(names[source.module], source.md5) for source in used],
    }
    argv = [hidden(word) for word in sys.argv]
    return info, {"argv": argv, "modules": names, "options": {"--beat-interval": BEAT}}


@contextlib.contextmanager
def _recorded_block(
    observer: RunObserver,
    info: dict[str, Any],
    config: dict[str, Any],
    meta: dict[str, Any],
    output: bool,
) -> Iterator[Recorder]:
    try:
        observer.started_event(info, "record", {}, datetime.now(UTC), config, meta, None)
    except KeyboardInterrupt:  # while the run began, which it may have
        if observer.started:
            observer.interrupted_event(datetime.now(UTC), "INTERRUPTED")
            observer.join()
        raise
    process, printed, script = os.getpid(), io.StringIO(), _Script(observer)
    ended = threading.Event()

    def beat() -> None:
        observer.heartbeat_event(script.info, printed.getvalue(), datetime.now(UTC), None)

    def live() -> None:
        while not ended.wait(BEAT):
            beat()

    def end(tell: Callable[..., None], *details: object) -> None:
        if os.getpid() == process:  # not a fork's to say
            signals.ending = True
            ended.set()
            heart.join()
            beat()
            tell(datetime.now(UTC), *details)
            observer.join()

    heart = threading.Thread(target=live, daemon=True, name=f"heartbeat of run {observer.uuid}")
    heart.start()
    recorder = Recorder(script, observer)
    signals = Termination()
    with signals:
        try:
            hearing = heard(printed.write) if output else contextlib.nullcontext()
            with hearing, _Block(recorder.solve):
                yield recorder
        except BaseException as error:
            interrupt = interrupt_behind(error)
            if interrupt is not None:
                end(observer.interrupted_event, getattr(interrupt, "STATUS", "INTERRUPTED"))
            elif isinstance(error, SystemExit) and error.code in (None, 0):
                end(observer.completed_event, None)
            else:
                trace = traceback.format_exception(type(error), error, error.__traceback__)
                end(observer.failed_event, trace)
            raise
        else:
            end(observer.completed_event, None)


class _Attached(_Observer):
    """The observer of one run of a foreign experiment, which also listens to the solvers."""

    def __init__(self, attachment: _Attachment) -> None:
        store, required = attachment.store, attachment.require_store
        super().__init__(store, attachment.turn, require_store=required)
        self._data = checksums(attachment.data)
        self._block = _Block(lambda solution: self.solve(solve_row(solution)))

    def started_event(self, *event: Any, **more: Any) -> int | str:
        """Begin to listen when the run is recorded."""
        if self._data:
            more["meta_info"] = {**more["meta_info"], "data": self._data}
        known = super().started_event(*event, **more)
        self._meanwhile.enter_context(self._block)
        return known


class _Attachment(CLIOption):
    """An option that is always given, so that Sacred hands over each run before it begins."""

    def __init__(
        self, foreign: Experiment, store: str | None, data: Data | None, require_store: bool
    ) -> None:
        super().__init__(self.observe, "-o", "--deq-lab", is_flag=True)
        self.turn = _Turn(foreign)
        self.store, self.data, self.require_store = store, data, require_store

    def prepare(self, options: dict[str, Any]) -> None:
        """Before a run is made."""
        self.turn.check()
        _check_beat(options)
        options["--deq-lab"] = True

    def observe(self, _: object, run: Run) -> None:
        """Give the run an observer, which no other run has."""
        run.meta_info["options"].pop("--deq-lab", None)
        if not run.unobserved:
            run.observers = [*run.observers, _Attached(self)]


def attach(
    foreign: Experiment,
    store: str | None = None,
    *,
    data: Data | None = None,
    require_store: bool = False,
) -> Experiment:
    """Record the runs of somebody's Sacred experiment, and every solve in them; return it.

    Each run gets an observer of its own, beside those that the experiment has. A run is refused
    while another one of the same ``Experiment`` goes on, since Sacred mixes their configs. ``-u``
    (unobserved) leaves the store out. SIGTERM ends a run in the main thread as TERMINATED; a
    handler that was there is called first. Attached again, the experiment is recorded as said last.

    Parameters
    ----------
    foreign
        A Sacred experiment, made as usual.
    store, data, require_store
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
    before = next((o for o in foreign.additional_cli_options if isinstance(o, _Attachment)), None)
    if before is not None:
        before.store, before.data, before.require_store = store, data, require_store
        return foreign
    attachment = _Attachment(foreign, store, data, require_store)
    foreign.additional_cli_options = [*foreign.additional_cli_options, attachment]
    foreign.option_hook(attachment.prepare)
    return foreign


def _check_beat(options: dict[str, Any]) -> None:
    """Let a run have a heartbeat, which is what brings its scalars and its output."""
    given = options.get("--beat-interval")
    try:
        seconds = BEAT if given is None else float(given)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise OptionError(
            f"--beat-interval {given}: expected a number of seconds above 0; without a heartbeat"
            " Sacred delivers no metrics and no output, and they would not be recorded"
        )
    options["--beat-interval"] = seconds


class _CompleteConfig:
    """A config scope that gives Sacred the checked and complete config."""

    def __init__(self, config_class: type[Any], experiment: Experiment, module: str) -> None:
        self.config_class = config_class
        self.turn = _Turn(experiment)
        # python -m calls it __main__, under which nobody else could import it
        spec = getattr(sys.modules.get(module), "__spec__", None)
        self.module = spec.name if module == "__main__" and spec else module
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
        own = {Source(str(s.path), s.md5, None, None, None) for s in self.sources(complete)}
        self._experiment.sources = {self._experiment.mainfile, *own}
        summary = ConfigSummary(modified=given & set(configs.flatten(complete)))
        summary.update(complete)
        return summary

    def sources(self, config: Mapping[str, Any]) -> list[sources.Source]:
        """Return the files that the user wrote, beside the experiment's own."""
        return sources.used([*sources.modules(config), self.module])


def _store_option(complete: _CompleteConfig) -> CLIOption:
    @cli_option("-o", "--store")  # type: ignore[untyped-decorator]
    def store(url: str, run: Run) -> None:
        """Record the run in this store: a URL or the path of an SQLite file, not DEQ_STORE."""
        options = run.meta_info["options"]  # the URL may hold a password
        run.meta_info["options"] = {k: v for k, v in options.items() if k != "--store"}
        if run.unobserved:
            return
        if run.capture_mode is None:
            run.capture_mode = "sys"  # Sacred's "fd" loses the output of short runs
        base = os.path.realpath(run.experiment_info["base_dir"])
        used = complete.sources(run.config)
        run.meta_info["module"] = complete.module
        run.meta_info["modules"] = {s.module: os.path.relpath(s.path, base) for s in used}
        request = _request.get()
        if request.require_store:
            connect(url).dispose()  # one that cannot be opened is refused before the run begins
        observer = _Observer(
            url,
            complete.turn,
            study=request.study,
            trial=request.trial,
            parent=request.parent,
            require_store=request.require_store,
        )
        run.observers = [*run.observers, observer]

    option: CLIOption = store
    return option


def experiment(
    config_class: type[ConfigT], main: Callable[[ConfigT, Recorder], Result], name: str
) -> Experiment:
    """Return the Sacred experiment that runs ``main`` on configs of ``config_class``."""
    file = inspect.getsourcefile(main)
    if file is None:
        raise ValueError(f"the experiment '{name}' must be defined in a file")
    with _discovering_nothing():
        made = Experiment(name, base_dir=str(Path(file).parent), save_git_info=False)
    # Sacred took the file that called it, which is this one, for the experiment's.
    made.mainfile = Source(os.path.realpath(file), provenance.keep(file), None, None, None)
    made.sources = {made.mainfile}
    made.doc = (inspect.getdoc(inspect.getmodule(main)) or "").split("\n\n")[0]
    complete = _CompleteConfig(config_class, made, main.__module__)
    made.configurations.append(complete)
    option = _store_option(complete)
    made.additional_cli_options = [*made.additional_cli_options, option]
    made.all_cli_options = [*made.all_cli_options, option]

    def prepare(options: dict[str, Any]) -> None:
        complete.turn.check()
        # An option that is not given is not applied, and each run needs an observer of its own.
        options["--store"] = options.get("--store") or default_url()
        _check_beat(options)

    def captured_main(_run: Run) -> Result:
        observer = _recorded(_run)
        request = _request.get()
        recorder = Recorder(_run, observer, resume=request.resume, told=request.on_progress)
        announce = request.on_start
        if announce and observer is not None:
            announce(observer.run_id, observer.uuid)
        try:
            return main(config_class(**copy.deepcopy(_run.config)), recorder)
        except BaseException as error:
            _run._get_captured_output()  # else what a failing run printed last would be lost
            interrupt = interrupt_behind(error)
            if interrupt is not None and interrupt is not error:
                raise interrupt  # noqa: B904  # the error that it caused is no failure of its own
            raise

    made.option_hook(prepare)
    captured_main.__name__ = "main"
    captured_main.__doc__ = main.__doc__
    made.main(captured_main)
    return made


@contextlib.contextmanager
def _discovering_nothing() -> Iterator[None]:
    """Keep Sacred from looking for sources from this file on, and from listing what it imports."""
    names = ("DISCOVER_SOURCES", "DISCOVER_DEPENDENCIES")
    before = {name: SETTINGS[name] for name in names}
    SETTINGS.update(dict.fromkeys(names, "none"))
    try:
        yield
    finally:
        SETTINGS.update(before)


@dataclass(frozen=True)
class _Request:
    """What whoever starts a run of ours says of it, which is no option of Sacred's."""

    study: str | None = None
    trial: str | None = None
    parent: int | None = None
    require_store: bool = True
    on_start: Announce | None = None
    resume: Resume = "no"
    on_progress: Callable[[str], None] | None = None


_ALONE = _Request()
_request: contextvars.ContextVar[_Request] = contextvars.ContextVar("request", default=_ALONE)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its status, its number and name in the store, its result or error.

    There is no number as long as the store is away.
    """

    status: str
    run_id: int | None
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
    parent: int | None = None,
    comment: str | None = None,
    require_store: bool = True,
    on_start: Announce | None = None,
    resume: Resume = "no",
    on_progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Run an experiment once; what its main function raises becomes the outcome.

    Parameters
    ----------
    made, config
        The experiment, and what differs from its defaults.
    store, require_store
        As in :func:`record`.
    study, trial, parent
        What the run is a part of, and the number of the run that it goes on from.
    comment
        A sentence about the run.
    on_start
        Called with the run's number (None while the store is away) and uuid once it has begun.
    resume
        Whether the run goes on from the checkpoint of an earlier one, if its experiment makes any.
    on_progress
        Called with a line about how far the run is, if its experiment says so.

    Raises
    ------
    OptionError, StoreError
        If the run could not begin; nothing is recorded then.
    KeyboardInterrupt
        Once the run is recorded as interrupted.
    """
    _complete(made).turn.check()
    made.current_run = None
    token = _request.set(
        _Request(study, trial, parent, require_store, on_start, resume, on_progress)
    )
    error = ""
    try:
        made.run(
            config_updates=copy.deepcopy(dict(config)),
            options={"--store": store, "--loglevel": "ERROR", "--comment": comment},
        )
    except Exception as raised:
        if _recorded(made.current_run) is None:
            raise
        error = f"{type(raised).__name__}: {raised}"
    finally:
        _request.reset(token)
    run: Any = made.current_run
    observer: Any = _recorded(run)
    return Outcome(run.status, observer.run_id, observer.uuid, run.result, error)


def _recorded(run: Run | None) -> RunObserver | None:
    """Return the observer of a run that has begun."""
    observers = run.observers if run else ()
    return next((o for o in observers if isinstance(o, _Observer) and o.begun), None)


def is_experiment(thing: object) -> bool:
    """Whether this is an experiment that :func:`experiment` made."""
    scopes = thing.configurations if isinstance(thing, Experiment) else ()
    return any(isinstance(scope, _CompleteConfig) for scope in scopes)


def config_class(made: Experiment) -> type[Any]:
    """Return the config dataclass of an experiment that :func:`experiment` made."""
    return _complete(made).config_class


def _complete(made: Experiment) -> _CompleteConfig:
    return next(s for s in made.configurations if isinstance(s, _CompleteConfig))
