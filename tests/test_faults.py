"""Nothing is lost: faults that really happen to a real, tiny study. The same command again
completes it, to the byte."""
from __future__ import annotations

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from adlib.config import is_folder_name
from adlib.data import files
from adlib.runs import run_folder
from tests import forked
from tests.tiny_study import GRID, Study, kernel_of, wait_for, workers

KILLS = int(os.environ.get("KILLS", "9"))  # `make faults`: 50
CLOCK = """
import datetime, os, time
start, shift, pace = time.monotonic(), float(os.environ["CLOCK_SHIFT"]), float(os.environ["CLOCK_PACE"])
real_time, real_ns = time.time, time.time_ns
def off():
    return shift + (pace - 1) * (time.monotonic() - start)
class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + datetime.timedelta(seconds=off())
time.time = lambda: real_time() + off()
time.time_ns = lambda: real_ns() + int(off() * 1e9)
"""
# not for all: C code knows the class
DATES = "import sitecustomize\nfrom adlib.runs import run_folder\nrun_folder.datetime = sitecustomize.Wrong"

FULL_DISK = """
import ctypes, os, shutil, subprocess, sys
from pathlib import Path
from tests import forked
from tests.tiny_study import Study

def run():  # this process, warm and in namespaces of its own, forks it
    if not (child := os.fork()):
        forked._run("adlib", study.words(), study.place, dict(os.environ), sys.argv[4])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

study, like, kept = Study(Path(sys.argv[1])), *sys.argv[2:4]
maps = {"setgroups": "deny", "uid_map": f"0 {os.getuid()} 1", "gid_map": f"0 {os.getgid()} 1"}
assert not ctypes.CDLL(None).unshare(0x10020000)  # users and mounts, as unshare -rm
for name, text in maps.items():
    Path(f"/proc/self/{name}").write_text(text)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", study.reports], check=True)
shutil.copytree(like, study.reports, dirs_exist_ok=True)
shutil.rmtree(study.folder())
filler = study.reports / "filler"
filler.write_bytes(bytes(380 * 2**20))
assert run() == 1
filler.unlink()
assert run() == 0
shutil.copytree(study.reports, kept)
"""


@pytest.fixture
def study(undisturbed, tmp_path):
    """A study that has everything but the CAE's run (and what compares it)."""
    return Study(tmp_path / "study").made(undisturbed, done=True)


@pytest.fixture
def quick(undisturbed, tmp_path):
    """The same without the run that trains nothing: for what is no matter of training."""
    return Study(tmp_path / "study", lacks="mean_grey").made(undisturbed, done=True)


def victims(batch: subprocess.Popen) -> dict[str, list[psutil.Process]]:
    """The processes of a batch by what they are: itself, papermill, and the kernels that train."""
    found = collections.defaultdict(list)
    try:
        for member in (parent := psutil.Process(batch.pid)).children(recursive=True):
            words = " ".join([member.name(), *member.cmdline()])  # forked ones have names alone
            found["kernel" if words.startswith("kernel") or "ipykernel" in words else
                  "papermill" if "papermill" in words else "other"].append(member)
        found["batch"] = [parent]
    except psutil.NoSuchProcess:
        pass
    return found


def test_killed_again_and_again_at_random_moments(undisturbed, tmp_path):
    study = Study(tmp_path / "study").made(undisturbed)
    draw, kills, family, completed = random.Random(0), collections.Counter(), [], 0
    while kills.total() < KILLS:
        batch = study.begin("--report")
        while batch.poll() is None and kills.total() < KILLS:
            time.sleep(draw.uniform(0.05, draw.choice([0.5, 3.0])))
            living = victims(batch)
            family += [member for members in living.values() for member in members]
            kind = draw.choice(["batch", "papermill", "kernel", "kernel"])
            for victim in living[kind][:1]:
                victim.kill()
                kills[kind] += 1
        said = batch.communicate(timeout=300)[0]
        assert batch.returncode in (-signal.SIGKILL, 0, 1), said
        if study.complete():
            completed += 1
            assert study.numbers() == undisturbed.numbers()
            shutil.rmtree(study.reports)
    said = study.run("--report")
    assert study.complete() and study.numbers() == undisturbed.numbers(), said
    assert min(kills[kind] for kind in ("batch", "papermill", "kernel")) >= KILLS // 16  # of fifty
    wait_for(lambda: not [
        member for member in family
        if member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    ])
    again = study.run("--report")
    assert "due:" not in again, again
    print(f"{kills}, the study completed {completed} times on the way")


@pytest.mark.skipif(sys.platform != "linux",
                    reason="needs a limit on a process's memory that holds (Linux)")
def test_out_of_memory_in_a_kernel(quick, undisturbed):
    notebook = quick.place / "notebooks" / "04_feature_space.ipynb"
    sound = notebook.read_text()
    # Room for a traceback is left: whether a kernel that has none says so, hangs or dies is chance.
    quick.insert(
        "04_feature_space", "import psutil, resource, torch\n"
        "resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**28, "
        "resource.RLIM_INFINITY))\n"
        "torch.ones(2**30)", before="calibrate(")
    quick.run(code=1)
    assert run_folder.status(quick.folder()).state == "failed" and "memory" in run_folder.status(
        quick.folder()).reason
    notebook.write_text(sound)
    quick.run()
    assert quick.numbers() == undisturbed.numbers()


def test_a_full_disk(study, undisturbed, tmp_path):
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none",
                       str(tmp_path)], check=False, capture_output=True).returncode:
        pytest.skip("needs a file system of its own size (Linux, with user namespaces)")
    log = tmp_path / "log.txt"
    log.touch()
    child = forked.begin("python", [FULL_DISK, study.place, undisturbed.reports, tmp_path / "kept",
                                    log])
    said = child.communicate(timeout=300)[0] + log.read_text()
    assert not child.returncode and "free some space" in said, said
    study.reports = tmp_path / "kept"
    assert study.numbers() == undisturbed.numbers()


def test_a_notebook_that_raises_and_its_page(quick, undisturbed):
    notebook = quick.place / "notebooks" / "04_feature_space.ipynb"
    sound = notebook.read_text()
    quick.insert("04_feature_space", "print('the last words')\nraise ValueError('the sky fell')",
                 before="calibrate(")
    quick.run("--report", code=1)
    page = (quick.folder() / "index.html").read_text()
    for words in ("ValueError: the sky fell", "the last words", "To try again",
                  "adlib run params/grids/faults.yaml"):
        assert words in page
    # papermill's own markup would be shown as text
    assert "An Exception was encountered" not in page
    assert run_folder.status(quick.folder("cae_ssim")).state == "finished"
    notebook.write_text(sound)
    quick.run("--report")
    assert quick.numbers() == undisturbed.numbers() and "the sky fell" not in (
        quick.folder() / "index.html").read_text()


def test_a_time_limit(quick, undisturbed):
    said = quick.run("--only", "config=mean_grey", "--timeout", "0.2", code=1)
    assert "time limit of 0.2 s" in said and run_folder.status(quick.folder()).state == "failed"
    quick.run()
    assert quick.numbers() == undisturbed.numbers()


def test_reports_of_an_older_version(study, undisturbed):
    shutil.copytree(undisturbed.folder(), study.folder())
    for name in GRID["configs"]:
        about, found = (files.read_json(study.folder(name) / file)
                        for file in ("run.json", "metrics.json"))
        files.write_json(
            study.folder(name) / "run.json",
            {key: about[key]
             for key in ("status", "params", "data", "weights", "started")})
        files.write_json(
            study.folder(name) / "metrics.json",
            {key: found[key]
             for key in ("auroc", "config", "score") if key in found})
    for name in ("batch.json", "comparison.json", "report.json", "eda/hazelnut/eda.json"):
        (study.reports / name).write_text('{"version": 1}')
    said = study.run("--report")
    assert said.count("made by another version of adlib") == 2 and study.complete()
    assert study.numbers() == undisturbed.numbers()


def test_a_clock_that_goes_backwards(study, undisturbed):
    (study.place / "sitecustomize.py").write_text(CLOCK)
    study.insert("02_cae_baseline", DATES)
    wrong = {"PYTHONPATH": str(study.place), "CLOCK_SHIFT": "86400", "CLOCK_PACE": "1"}  # tomorrow
    batch = study.begin(**wrong)
    wait_for(lambda: (study.folder() / "checkpoint.pt").exists() or batch.poll() is not None)
    batch.kill()
    batch.communicate(timeout=60)  # what it had started has ended, too
    # today, and three seconds back with every second
    study.run(**wrong | {"CLOCK_SHIFT": "0", "CLOCK_PACE": "-3"})
    assert study.numbers() == undisturbed.numbers()
    about = run_folder.manifest(study.folder())
    assert about["seconds"] > 0 and about["finished"] < about["started"]
    # at the right time nothing is due
    assert "due:" not in study.run(PYTHONPATH=str(study.place), CLOCK_SHIFT="0", CLOCK_PACE="1")


def test_what_is_written_can_be_copied_to_any_system(undisturbed):
    names = {path.name for path in undisturbed.reports.rglob("*")}
    assert len(names) > 30 and {name for name in names if not is_folder_name(name)} == set()


@pytest.mark.parametrize("by_hand", [True, False], ids=["papermill", "adlib run"])
def test_a_finished_run_that_is_killed_when_run_again_keeps_its_numbers(undisturbed, tmp_path,
                                                                       by_hand):
    study = Study(tmp_path / "study").made(undisturbed, done=True)
    shutil.copytree(undisturbed.folder(), study.folder())
    before = {path.name: path.read_bytes() for path in study.folder().iterdir()
              if path.suffix in (".json", ".csv", ".png", ".ipynb", ".pt")}
    params = study.folder() / "params.yaml"
    if by_hand:
        given = yaml.safe_load(params.read_text()) | {
            "data_root": str(study.data), "reports": str(study.reports)}
        (study.place / "given.yaml").write_text(yaml.safe_dump(given))
        running = forked.begin("papermill", [
            "notebooks/02_cae_baseline.ipynb", "out.ipynb", "-k", "python3", "-f", "given.yaml"],
            study.place)
    else:
        running = study.begin("--force", "--only", "config=cae_ssim")
    again = study.folder() / ".again" / "run.json"
    wait_for(lambda: again.exists() or running.poll() is not None)
    psutil.Process(files.read_json(again)["pid"]).kill()
    running.communicate(timeout=300)
    assert running.returncode != 0
    assert run_folder.status(study.folder()).state == "finished"
    assert {name: (study.folder() / name).read_bytes() for name in before} == before
    if not by_hand:
        study.run("--force", "--only", "config=cae_ssim")
        assert study.numbers() == undisturbed.numbers() and not again.exists()


def test_two_batches_at_once(quick, undisturbed):
    first = quick.begin()
    wait_for((quick.reports / ".batch.lock").exists)
    assert "another batch is at work" in quick.run(code=2)
    assert first.wait(timeout=300) == 0 and "due:" not in quick.run()
    assert quick.numbers() == undisturbed.numbers()


def test_a_picture_changed_between_and_during_runs(study, undisturbed):
    picture = study.data / "hazelnut" / "train" / "good" / "003.png"
    sound = picture.read_bytes()
    other = (study.data / "hazelnut" / "train" / "good" / "004.png").read_bytes()
    batch = study.begin()
    kernel_of(batch, study)
    picture.write_bytes(other)
    said = batch.communicate(timeout=300)[0]
    assert batch.returncode == 1 and "train/good/003.png" in run_folder.status(
        study.folder()).reason, said
    study.run()
    changed = study.numbers()
    assert changed != undisturbed.numbers()
    picture.write_bytes(sound)
    assert study.run().count("the data changed") == 3  # two runs and the look at the data
    assert study.numbers() == undisturbed.numbers()
    assert json.loads(undisturbed.numbers()["cae_ssim/metrics.json"]) != json.loads(
        changed["cae_ssim/metrics.json"])


def test_a_worker_of_a_cluster_is_killed_and_another_goes_on(study, undisturbed):
    distributed = pytest.importorskip("distributed", reason="needs the extra [cluster]")
    with workers(2) as local:
        study.engine = ["--cluster", local.scheduler_address]
        batch = study.begin()
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
    assert run_folder.manifest(study.folder())["threads"] == run_folder.manifest(
        undisturbed.folder())["threads"]


def test_a_batch_on_a_cluster_is_interrupted_and_no_worker_goes_on(study):
    pytest.importorskip("distributed", reason="needs the extra [cluster]")
    with workers(1) as local:
        study.engine = ["--cluster", local.scheduler_address]
        batch = study.begin()
        kernel = kernel_of(batch, study)
        batch.send_signal(signal.SIGTERM)
        said = batch.communicate(timeout=300)[0]
        assert batch.returncode == 130 and "stopped" in said and "Traceback" not in said
        wait_for(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE,
                 seconds=60)
    assert run_folder.status(study.folder()).state == "interrupted"
