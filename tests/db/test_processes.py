"""Several processes on one store, and processes that are killed."""

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from db import RunObserver, Store, StoreError, connect, sync
from db.sync import Synced

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

TOGETHER = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
import toy
from db import RunObserver

def child(url, seed, gate):
    time.sleep(max(0.0, gate - time.time()))
    observer = RunObserver(url)
    config = toy.CONFIG | {"seed": seed}
    def main(_run):
        toy.measure(observer, config, seed)
        for step in range(100):
            _run.log_scalar("m", step)
    toy.make(observer, main, config).run(options={"--capture": "no", "--loglevel": "ERROR"})

failed = 0
for url in sys.argv[1:]:
    gate = time.time() + 0.2
    for seed in range(8):
        if os.fork() == 0:
            try:
                child(url, seed, gate)
            except BaseException as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
    failed += sum(os.waitpid(-1, 0)[1] != 0 for _ in range(8))
sys.exit(failed)
"""

ALONE = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
import toy
from db import RunObserver

observer = RunObserver(sys.argv[1])
def main(_run):
    for number in range(1000000):
        observer.solve({"evaluations": number, "trace": {"residual": [1.0] * 20}})
        if number == 20:
            print("going", flush=True)
toy.make(observer, main).run(options={"--capture": "no"})
"""


def start(script, *arguments):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")
def test_eight_processes_start_together_on_a_fresh_store(tmp_path):
    urls = [tmp_path / f"{n}.db" for n in range(2)]
    process = start(TOGETHER, *urls)
    while process.poll() is None:  # a reader meanwhile sees a whole store or none
        try:
            assert len(Store(urls[-1]).runs()) <= 8
        except StoreError as error:
            assert "there is no store at" in str(error), error
        time.sleep(0.05)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    for url in urls:
        store = Store(url)
        runs = store.runs()
        assert list(runs["status"]) == ["COMPLETED"] * 8 and runs["uuid"].is_unique
        assert sorted(runs["seed"]) == list(range(8))
        assert len(store.solves()) == 16 and len(store.series()) == 800
        assert len(store.query("select * from environment")) == 1
        assert store.query("select * from schema_version").shape == (1, 2)


def test_a_killed_process_leaves_a_readable_store(either):
    process = start(ALONE, either)
    assert process.stdout.readline() == "going\n", process.stderr.read()
    during = Store(either)
    assert during.runs()["status"][0] == "RUNNING"
    assert sync(either).runs == [] and during.runs()["status"][0] == "RUNNING"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = Store(either)
    run = store.run(1)
    assert (run["status"], run["pid"], run["stopped_at"]) == ("RUNNING", process.pid, None)
    known = len(store.solves())
    done = sync(either)
    assert done.died == done.runs == [run["uuid"]] and not done.left and not done.problems
    solves = store.solves()
    assert len(solves) >= known
    assert len(solves) > 20 and list(solves["evaluations"]) == list(range(len(solves)))
    assert len(store.traces(solves["solve_id"])) == 20 * len(solves)
    assert store.query("select count(*) as n from run_config")["n"][0] > 5
    after = store.runs()
    assert list(after["status"]) == ["DIED"]
    assert after["stopped_at"][0] == after["heartbeat_at"][0]
    assert "ended without a word" in after["fail_message"][0]
    assert sync(either) == Synced()


def test_ctrl_c_ends_a_run_as_interrupted(url):
    process = start(ALONE, url)
    assert process.stdout.readline() == "going\n", process.stderr.read()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    run = Store(url).run(1)
    assert (run["status"], run["fail_type"]) == ("INTERRUPTED", "KeyboardInterrupt")
    assert run["counts"]["solves"] > 20
    assert sorted(p.name for p in url.parent.iterdir()) == ["store.db"]


def test_whoever_opens_a_store_leaves_the_locks_of_its_process(url):
    observer = RunObserver(url)
    observer.started_event({"name": "bare"}, "main", {}, datetime(2026, 1, 31), {}, {}, None)
    connect(url).dispose()
    Store(url).runs()
    # Another process closes the store, and would clear its log away were it the last to have it.
    other = start(f"from db import connect\nconnect({str(url)!r}).dispose()")
    out, err = other.communicate(timeout=60)
    assert other.returncode == 0, out + err
    observer.solve({"evaluations": 1})
    assert observer.flush(60)
    count = f"from db import Store\nprint(len(Store({str(url)!r}).solves()))"
    assert start(count).communicate(timeout=60)[0] == "1\n"
    observer.join()


def test_reading_needs_no_sacred(url):
    script = (
        "import sys\nfrom db import Store, StoreError\n"
        f"Store({str(url)!r}, create=True).runs()\n"
        "assert not {'sacred', 'torch'} & sys.modules.keys()"
    )
    process = start(script)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
