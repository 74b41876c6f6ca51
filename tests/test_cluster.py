"""The study on a Dask cluster of this machine: real workers in processes of their own, one of them killed on the way."""
from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys

import psutil
import pytest

from adlib import cluster, runs
from adlib.config import InputError
from tests.tiny_study import Study, kernel_of, wait_for

distributed = pytest.importorskip("distributed", reason="needs the extra [cluster]")


@contextlib.contextmanager
def workers(n, **options):
    """A cluster of n workers with one thread each, unless `options` say otherwise."""
    usual = {"threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1", "protocol": "tcp", "silence_logs": logging.CRITICAL}
    options = usual | options
    with distributed.LocalCluster(n_workers=n, **options) as local:
        yield local


@pytest.fixture
def study(undisturbed, tmp_path):
    return Study(tmp_path / "study", undisturbed)


def on(local):
    return ["--cluster", local.scheduler_address]


def test_two_workers_one_killed_on_the_way(study, undisturbed):
    with workers(2) as local:
        study.engine = on(local)
        batch = study.begin("--report")
        kernel = kernel_of(batch, study)
        with distributed.Client(local, set_as_default=False) as client:
            pids = client.run(os.getpid).values()
        lost = next(parent for parent in kernel.parents() if parent.pid in pids)
        lost.kill()
        said = batch.communicate(timeout=300)[0]
        assert batch.returncode == 0, said
        wait_for(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)
        assert "due:" not in study.run()
    assert study.complete() and study.numbers() == undisturbed.numbers()
    assert runs.manifest(study.folder())["threads"] == runs.manifest(undisturbed.folder())["threads"]


def test_interrupted_no_worker_goes_on(study):
    with workers(1) as local:
        study.engine = on(local)
        batch = study.begin()
        kernel = kernel_of(batch, study)
        batch.send_signal(signal.SIGTERM)
        said = batch.communicate(timeout=60)[0]
        assert batch.returncode == 130 and "stopped" in said and "Traceback" not in said
        wait_for(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE, seconds=2)
    assert runs.status(study.folder()).state == "interrupted"


@pytest.mark.parametrize(("options", "slots"), [({"threads_per_worker": 3}, 6), ({"threads_per_worker": 3, "resources": {"GPU": 1}}, 2)])
def test_one_run_a_thread_or_one_a_gpu_by_label(tmp_path, options, slots):
    with workers(2, processes=False, **options) as local:
        engine = cluster.Cluster(local.scheduler_address, tmp_path)
        assert engine.slots == slots and not list(tmp_path.glob(".cluster-*"))
        engine.close()


def test_no_scheduler_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:9 "):
        cluster.Cluster("tcp://127.0.0.1:9", tmp_path)
    with pytest.raises(InputError, match="no Dask scheduler answers at nonsense"):
        cluster.Cluster("nonsense://", tmp_path)


def test_no_worker_and_another_version_are_one_sentence(tmp_path, monkeypatch):
    with workers(0, processes=False) as local, pytest.raises(InputError, match="has no workers; start some"):
        cluster.Cluster(local.scheduler_address, tmp_path)
    with workers(1, processes=False) as local:
        monkeypatch.setattr(cluster, "problem", lambda folders, version: "it does not see /data")
        with pytest.raises(InputError, match="cannot take part: it does not see /data"):
            cluster.Cluster(local.scheduler_address, tmp_path)


def test_why_a_machine_cannot_take_part(tmp_path):
    assert cluster.problem([tmp_path], cluster.__version__) == ""
    assert cluster.problem([tmp_path, tmp_path / "reports"], cluster.__version__) == f"it does not see {tmp_path / 'reports'}"
    assert "and this machine 0.0.1" in cluster.problem([tmp_path], "0.0.1")


def test_a_scheduler_that_goes_away_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 1)
    with workers(1, processes=False) as local:
        engine = cluster.Cluster(local.scheduler_address, tmp_path)
        assert engine.slots == 1
    with pytest.raises(InputError, match="is gone"):
        assert engine.slots
    engine.close()


def test_without_the_extra_and_with_jobs_it_says_so(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="pip install -e '.\\[cluster\\]'"):
        cluster.Cluster("tcp://127.0.0.1:9", study.reports)
    study.engine = ["--cluster", "tcp://127.0.0.1:9", "--jobs", "3"]
    assert "--jobs is for this machine" in study.run(code=2)
    study.engine = ["--cluster", "tcp://127.0.0.1:9"]
    assert "would run" in study.run("--dry-run")  # needs no cluster
