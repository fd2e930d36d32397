"""Running a study: the trials that are missing, live, whatever happens to one of them."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

from sqlalchemy import make_url

from db import Store, StoreAway, StoreError, mark_died, provenance, reap, sync
from experiments import catalogue, errors
from experiments.runner import config as configs
from experiments.runner import sources
from experiments.runner.config import Device
from experiments.runner.engines import Engine, Event, Kind, LocalProcesses, Raised
from experiments.runner.trials import Trial, expand
from experiments.studies import Study
from solvers.options import check_value

if TYPE_CHECKING:
    from experiments.runner.progress import Display

DONE = "COMPLETED"
RESULTS = (DONE, "DIVERGED")  # a training that blows up is an answer, too, and would do so again
CHANGED = "SOURCE CHANGED"


@dataclass(frozen=True)
class Plan:
    """What a call of a study would do.

    Attributes
    ----------
    trials
        All, in the order of the file.
    missing
        Those whose newest attempt gave no result, or ran another version of a user's file.
    status
        Status of the newest attempt of each trial, if there was one.
    store
        Where the runs go, without a password.
    """

    study: Study
    trials: Sequence[Trial]
    missing: Sequence[Trial]
    status: Mapping[str, str]
    store: str


@dataclass(frozen=True)
class Failure:
    """A trial that gave no result."""

    trial: Trial
    status: str
    run_id: int | None
    message: str


@dataclass
class Summary:
    """How a call of a study went."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0, 1 after failed trials, 130 after ctrl-C."""
        return errors.INTERRUPTED if self.interrupted else int(bool(self.failures))


def plan(
    study: Study, overrides: Mapping[str, Any], *, device: str = "auto", store: str | None = None
) -> Plan:
    """Check every trial of a study and find out which are missing from the store.

    ``overrides`` goes over every trial, and so does ``device`` (``auto`` is resolved here); on a
    CUDA device the study's ``gpu`` sections count, and with ``quick: true`` among the overrides its
    ``quick`` sections. The store is made if there is none; what killed
    runs left in their journals is stored before it is asked, and runs whose process is gone DIED.

    Raises
    ------
    OptionError, StoreError
        Before anything ran.
    """
    from experiments.runner.recording import config_class

    place = f"{study.path}:{study.line(('experiment',))}: experiment"
    experiment = catalogue.load(study.experiment, place)
    configured = config_class(experiment)
    chosen = check_value(Device, overrides.get("device", device), "device")
    if chosen.startswith("cuda"):
        study = study.on_gpu()
    quick = check_value(bool, overrides.get("quick", False), "quick")
    if quick:
        study = study.in_a_hurry()
    overrides = {key: value for key, value in overrides.items() if key != "quick"}
    over = (
        {**overrides, "device": chosen} if "device" in configs.defaults(configured) else overrides
    )
    trials = expand(study, configured, over, strict=not overrides)
    opened = Store(store, create=True)
    sync(store)
    reap(store)
    newest = opened.trials(study.name, str(experiment.path))
    status: dict[str, str] = dict(zip(newest["trial"], newest["status"], strict=True))
    run_ids: dict[str, int] = dict(zip(newest["trial"], newest["run_id"], strict=True))
    for trial in trials:
        if status.get(trial.id) in RESULTS and sources.modules(trial.config):
            run = opened.run(int(run_ids[trial.id]))
            if not _same_sources(trial.config, run["code"] or {}):
                status[trial.id] = CHANGED
    missing = [trial for trial in trials if status.get(trial.id) not in RESULTS]
    return Plan(study, trials, missing, status, _shown(opened.url))


def _shown(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True) if "://" in url else url


def _same_sources(config: Mapping[str, Any], code: Mapping[str, Any]) -> bool:
    """Whether the user's own files of a config are, now, those that a run was made with.

    Runs of the first schema know the files that the config names, by md5; later ones know by sha256
    what these import, too.
    """
    digests = {digest for digest in (code.get("sources") or {}).values() if digest}
    hashed = provenance.sha256 if any(len(d) == 64 for d in digests) else provenance.md5
    named = sources.modules(config)
    files = [s for s in sources.used(named) if hashed is provenance.sha256 or s.module in named]
    try:
        return all(hashed(file.path.read_bytes()) in digests for file in files)
    except OSError:  # gone since it was imported
        return False


def run(
    plan: Plan,
    display: Display,
    *,
    store: str | None = None,
    workers: int = 1,
    engine: Engine | None = None,
) -> Summary:
    """Run the missing trials of a plan and return how it went.

    A trial that raises or whose process dies is counted and left behind. One that was interrupted
    goes on from its checkpoint, if its experiment made one. Ctrl-C ends the running
    trials, which are then recorded as interrupted, and leaves the rest for the next call.

    Raises
    ------
    StoreError
        The store was lost on the way.
    """
    engine = engine or LocalProcesses(workers)
    trials = {trial.id: trial for trial in plan.missing}
    specs = {
        trial.id: {
            "experiment": plan.study.experiment,
            "config": dict(trial.config),
            "study": plan.study.name,
            "trial": trial.id,
            "store": store,
            "path": list(sys.path),
        }
        for trial in plan.missing
    }
    summary = Summary()
    running: dict[str, tuple[int | None, str]] = {}
    began = time.monotonic()
    try:
        events = engine.imap("experiments.runner.study:run_trial", specs)
        with display, _terminable(), contextlib.closing(events):  # type: ignore[type-var]
            for event in events:
                if event.kind is Kind.REPORTED and isinstance(event.value, str):
                    display.went_on(trials[event.key].label, event.value)
                elif event.kind is Kind.REPORTED:
                    running[event.key] = event.value
                elif event.kind is Kind.STARTED:
                    display.started(trials[event.key].label)
                else:
                    failure = _ended(event, trials[event.key], running.pop(event.key, None), store)
                    status = failure.status if failure else DONE
                    summary.counts[status] += 1
                    if failure and status not in RESULTS:
                        summary.failures.append(failure)
                    display.ended(
                        trials[event.key].label, status, failure.message if failure else None
                    )
    except KeyboardInterrupt:
        summary.interrupted = True
    finally:
        for _, uuid in running.values():  # those that could not record their end
            _mark_died(store, uuid, "the study ended and its worker did not answer")
        with contextlib.suppress(StoreAway):  # then the next call of a study does it
            sync(store)
        summary.seconds = time.monotonic() - began
    return summary


def _ended(
    event: Event, trial: Trial, run: tuple[int | None, str] | None, store: str | None
) -> Failure | None:
    """Return the failure of a trial that ended, in numbers at least; or None."""
    if event.kind is Kind.RETURNED:
        outcome = event.value
        if outcome["status"] == DONE:
            return None
        return Failure(trial, outcome["status"], outcome["run_id"], outcome["error"])
    run_id, uuid = run or (None, None)
    if event.kind is Kind.DIED:
        if uuid is not None:
            _mark_died(store, uuid, event.value)
        return Failure(trial, "DIED", run_id, event.value)
    if event.kind is Kind.INTERRUPTED:
        return Failure(trial, "INTERRUPTED", run_id, "its process was interrupted")
    raised: Raised = event.value
    if raised.type == StoreError.__name__:  # every other trial would end in the same way
        raise StoreError(raised.message)
    # Before its run began: nothing is in the store that could tell more.
    return Failure(trial, "FAILED", run_id, f"{raised.type}: {raised.message}\n{raised.trace}")


def _mark_died(store: str | None, uuid: str, message: str) -> None:
    with contextlib.suppress(StoreAway):  # its journal tells that it did not end
        mark_died(store, uuid, message)


def run_trial(spec: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Run one trial in a worker; ``report`` gets the run's id and uuid once it has begun.

    Then it gets texts that say how far the run is, if the experiment tells.

    While the store is away the trial goes on, without an id, and waits in its journal.
    """
    sys.path.extend(place for place in spec["path"] if place not in sys.path)
    from experiments.runner.recording import run_experiment

    outcome = run_experiment(
        catalogue.load(spec["experiment"]),
        spec["config"],
        store=spec["store"],
        study=spec["study"],
        trial=spec["trial"],
        require_store=False,
        on_start=lambda run_id, uuid: report((run_id, uuid)),
        resume="possible",
        on_progress=report,
    )
    return {"status": outcome.status, "run_id": outcome.run_id, "error": outcome.error}


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a study as ctrl-C does, with the exit code of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(errors.TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
