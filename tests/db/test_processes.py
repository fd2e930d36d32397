"""Several processes on one store, and processes that are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from db import Store, StoreError

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

TOGETHER = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
import toy

number, url = int(sys.argv[1]), sys.argv[2]
gate = time.time() + 0.3
for seed in range(number):
    if os.fork() == 0:
        time.sleep(max(0.0, gate - time.time()))
        observer = toy.RunObserver(url)
        def main(_run):
            toy.measure(observer, config, seed)
            for step in range(100):
                _run.log_scalar("m", step)
        config = toy.CONFIG | {"seed": seed}
        try:
            toy.make(observer, main, config).run(options={"--capture": "no", "--loglevel": "ERROR"})
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
sys.exit(sum(os.waitpid(-1, 0)[1] != 0 for _ in range(number)))
"""

ALONE = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
import toy

observer = toy.RunObserver(sys.argv[1])
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
def test_eight_processes_start_together_on_a_fresh_store(url):
    for _ in range(3):
        process = start(TOGETHER, 8, url)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        store = Store(url)
        runs = store.runs()
        assert list(runs["status"]) == ["COMPLETED"] * 8 and runs["uuid"].is_unique
        assert sorted(runs["seed"]) == list(range(8))
        assert len(store.solves()) == 16 and len(store.series()) == 800
        assert len(store.query("select * from environment")) == 1
        assert store.query("select * from schema_version").shape == (1, 2)
        url.unlink()


def test_a_killed_process_leaves_a_readable_store(url):
    process = start(ALONE, url)
    assert process.stdout.readline() == "going\n", process.stderr.read()
    during = Store(url)
    assert during.runs()["status"][0] == "RUNNING"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = Store(url)
    run = store.run(1)
    assert (run["status"], run["pid"], run["stopped_at"]) == ("RUNNING", process.pid, None)
    solves = store.solves()
    assert len(solves) > 20 and list(solves["evaluations"]) == list(range(len(solves)))
    assert len(store.traces(solves["solve_id"])) == 20 * len(solves)
    assert store.query("select count(*) as n from run_config")["n"][0] > 5
    again = start(TOGETHER, 1, url)
    again.communicate(timeout=60)
    assert list(Store(url).runs()["status"]) == ["RUNNING", "COMPLETED"]


def test_ctrl_c_ends_a_run_as_interrupted(url):
    process = start(ALONE, url)
    assert process.stdout.readline() == "going\n", process.stderr.read()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    run = Store(url).run(1)
    assert (run["status"], run["fail_type"]) == ("INTERRUPTED", "KeyboardInterrupt")
    assert run["counts"]["solves"] > 20
    assert sorted(p.name for p in url.parent.iterdir()) == ["store.db"]


def test_reading_needs_no_sacred(url):
    script = (
        "import sys\nfrom db import Store, StoreError\n"
        f"Store({str(url)!r}, create=True).runs()\n"
        "assert not {'sacred', 'torch'} & sys.modules.keys()"
    )
    process = start(script)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err


def test_a_reader_during_the_creation_sees_a_store_or_none(url):
    process = start(TOGETHER, 4, url)
    seen = set()
    while process.poll() is None:
        try:
            seen.add(len(Store(url).runs()))
        except StoreError as error:
            assert "there is no store at" in str(error), error
    assert process.returncode == 0 and max(seen) == 4, process.stderr.read()
    process.communicate()
