"""A study on a local dask cluster, one of whose workers is killed, ends like one in a single process."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import studies
from coc_study import cli

pytest.importorskip("distributed", reason="dask is an optional extra: coc-deploy[cluster]")

PATIENCE = 300
TEXT = studies.TEXT.replace("epochs = 2\n[e]", "epochs = 12\n[e]").replace('"PQ", "QE"', '"QE"')
"""Q is long enough to be killed in."""


def arguments(folder: Path, out: str) -> list[str]:
    return ["pairs", str(folder / "study.toml"), "--out", str(folder / out), "--threads", "1"]


def kill_a_worker(out: Path, process: subprocess.Popen[str]) -> str:
    """SIGKILL the worker of a stage that has finished an epoch, but not the stage; the stage's key."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, "the study ended before a worker could be killed"
        for progress in out.glob("stages/*/progress.pt"):
            holder = re.match(r"process (\d+) ", (progress.parent / "lock").read_text())
            if holder is None or (progress.parent / "result.json").exists():
                continue
            os.kill(int(holder[1]), signal.SIGKILL)
            if not (progress.parent / "result.json").exists():
                return progress.parent.name
        time.sleep(0.005)
    raise AssertionError("no stage came to its second epoch")


def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path) -> None:
    studies.write(tmp_path, TEXT)
    assert cli.main(arguments(tmp_path, "alone")) == 0
    command = [sys.executable, "-m", "coc_study.cli", *arguments(tmp_path, "cluster")]
    with subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        struck = kill_a_worker(tmp_path / "cluster", process)
        printed, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, complaints
    assert "dashboard: http://" in printed and "Traceback" not in complaints
    assert studies.lasting(tmp_path / "cluster") == studies.lasting(tmp_path / "alone")
    rows = {row["key"]: row for row in studies.rows(tmp_path / "cluster", "stages")}
    assert len(rows) == 5 and struck in rows
    log = (tmp_path / "cluster" / "stages" / struck / "log.txt").read_text()
    epochs = re.findall(r"epoch (\d+)/", log)
    assert sorted(set(epochs), key=int) == epochs, "no finished epoch was trained again"


def test_a_scheduler_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("coc_study.executor.CONNECT_SECONDS", 1)
    studies.write(tmp_path, TEXT)
    assert cli.main([*arguments(tmp_path, "out"), "--scheduler", "tcp://127.0.0.1:9"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coc-study: error: --scheduler tcp://127.0.0.1:9: cannot be reached")


@contextlib.contextmanager
def process(name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dask scheduler` or `dask worker` with options."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{name}", "--host", "127.0.0.1", *options]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as running:
        try:
            yield running
        finally:
            running.terminate()


def test_stages_go_to_the_workers_of_a_cluster_that_offer_what_they_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from distributed import Client

    text = studies.TEXT.replace("[study]", "[study]\nresources = { GPU = 1 }").replace('"PQ", "QE"', '"QE"')
    studies.write(tmp_path, text)
    assert cli.main(arguments(tmp_path, "alone")) == 0
    file = tmp_path / "scheduler.json"
    where = ("--scheduler-file", str(file))
    worker = (*where, "--nthreads", "1", "--no-nanny", "--no-dashboard")
    with (
        process("scheduler", "--port", "0", "--no-dashboard", *where),
        process("worker", *worker) as plain,
        process("worker", *worker, "--resources", "GPU=1") as first,
        process("worker", *worker, "--resources", "GPU=1") as second,
    ):
        end = time.monotonic() + PATIENCE
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(3, timeout=PATIENCE)
            address = client.scheduler.address
        assert cli.main([*arguments(tmp_path, "cluster"), "--scheduler", address]) == 0
        pids = {row["worker"].rpartition(":")[2] for row in studies.rows(tmp_path / "cluster", "stages")}
        assert pids <= {str(first.pid), str(second.pid)} and str(plain.pid) not in pids
    assert "workers now: 3" in capsys.readouterr().out
    assert studies.lasting(tmp_path / "cluster") == studies.lasting(tmp_path / "alone")


def test_ctrl_c_ends_the_command_and_its_workers_in_one_line(tmp_path: Path) -> None:
    """A terminal sends it to all processes at once."""
    studies.write(tmp_path, TEXT)
    command = [sys.executable, "-m", "coc_study.cli", *arguments(tmp_path, "out"), "--workers", "1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("dashboard: ")
        os.killpg(process.pid, signal.SIGINT)
        # Ends only when no worker holds the pipes any more.
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert told == "coc-study: stopped; the same command continues from the last finished epoch\n"
