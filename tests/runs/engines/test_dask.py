"""The engine of a cluster, on one of this machine; a study on it, and a worker killed on the way,
are in test_faults."""
from __future__ import annotations

import sys
import time

import pytest

from adlib import cli
from adlib.config import InputError
from adlib.runs.engines import dask
from tests.tiny_study import workers

distributed = pytest.importorskip("distributed", reason="needs the extra [cluster]")


@pytest.mark.parametrize(("options", "slots"),
                         [({"threads_per_worker": 3}, 6),
                          ({"threads_per_worker": 3, "resources": {"GPU": 1}}, 2)])
def test_one_run_a_thread_or_one_a_gpu_by_label(tmp_path, options, slots):
    with workers(2, processes=False, **options) as local:
        engine = dask.Cluster(local.scheduler_address, tmp_path)
        assert engine.slots == slots and not list(tmp_path.glob(".cluster-*"))
        engine.close()


def test_no_scheduler_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(dask, "PATIENCE_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:9 "):
        dask.Cluster("tcp://127.0.0.1:9", tmp_path)
    with pytest.raises(InputError, match="no Dask scheduler answers at nonsense"):
        dask.Cluster("nonsense://", tmp_path)


def test_no_worker_and_another_version_are_one_sentence(tmp_path, monkeypatch):
    """And no client is left that asks for its scheduler for as long as this process lives."""
    made, connect = [], distributed.Client
    monkeypatch.setattr(distributed, "Client",
                        lambda *given, **named: made.append(connect(*given, **named)) or made[-1])
    with workers(0, processes=False) as local, pytest.raises(InputError,
                                                             match="has no workers; start some"):
        dask.Cluster(local.scheduler_address, tmp_path)
    with workers(1, processes=False) as local:
        monkeypatch.setattr(dask, "problem", lambda folders, version: "it does not see /data")
        with pytest.raises(InputError, match="cannot take part: it does not see /data"):
            dask.Cluster(local.scheduler_address, tmp_path)
    assert [client.status for client in made] == ["closed", "closed"]


def test_why_a_machine_cannot_take_part(tmp_path):
    assert dask.problem([tmp_path], dask.__version__) == ""
    assert dask.problem([tmp_path, tmp_path / "reports"],
                        dask.__version__) == f"it does not see {tmp_path / 'reports'}"
    assert "and this machine 0.0.1" in dask.problem([tmp_path], "0.0.1")


def test_a_scheduler_that_goes_away_is_one_sentence(tmp_path, monkeypatch):
    with workers(1, processes=False) as local:
        engine = dask.Cluster(local.scheduler_address, tmp_path)
        assert engine.slots == 1
        monkeypatch.setattr(dask, "PATIENCE_S", 1)  # not for what a busy machine has to start
        engine._client._timeout = 1
        under_way = dask.Remote(engine._client, engine._client.submit(time.sleep, 2), "stop")
    with pytest.raises(InputError, match="is gone"):
        assert engine.slots
    under_way.kill()  # says nothing more
    with pytest.raises(InputError, match="is gone; the same command goes on"):
        under_way.poll()
    engine.close()
    with pytest.raises(InputError, match="is gone"):
        assert engine.slots
    under_way.kill()


def test_one_that_waits_for_a_worker_beyond_its_time_was_killed_and_is_not_lost(
        tmp_path, monkeypatch):
    with workers(1, processes=False) as local:
        engine = dask.Cluster(local.scheduler_address, tmp_path)
        monkeypatch.setattr(dask, "PATIENCE_S", 0.5)  # not for what a busy machine has to start
        waiting = dask.Remote(engine._client,
                              engine._client.submit(time.sleep, 0, resources={"none has it": 1}),
                              "stop")
        assert waiting.poll() is None
        waiting.kill()
        assert waiting.poll() == -9
        engine.close()


def test_without_the_extra_and_with_jobs_it_says_so(course_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    words = [
        "run", "params/grids/smoke.yaml", "--data",
        str(course_root), "--reports",
        str(tmp_path), "--cluster", "tcp://127.0.0.1:9"
    ]
    assert cli.main([*words]) == 2 and "pip install -e '.[cluster]'" in capsys.readouterr().err
    assert cli.main([*words, "--jobs", "3"
                     ]) == 2 and "--jobs is for this machine" in capsys.readouterr().err
    # needs no cluster
    assert cli.main([*words, "--dry-run"]) == 0 and "due: " in capsys.readouterr().out
