"""A watched folder, on a clock of the test's own: what a camera, its disk and its network do to the
files in it, and which of them get a row."""
import datetime
import errno
import io
import itertools
import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from adlib.data import reading
from adlib.evaluation import calibration
from adlib.runs import inference, predictions, watch
from adlib.runs.prediction_record import Record
from tests.conftest import picture
from tests.handmade import small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fitted statistic: mean grey, which a white square raises."""
    root = tmp_path_factory.mktemp("watch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_CACHE", str(root / "cache"))
        patch.setattr(calibration, "SYNTHETIC", 8)
        for i in range(8):
            picture(root / "data" / "nut" / "train" / "good" / f"{i}.png", i)
            picture(root / "data" / "nut" / "test" / f"{i}.png", 20 + i, defect=i % 2 == 1)
        return inference.reopen(small_run(root / "data", root / "reports", model="mean_grey",
                                          name="mean_grey"))


def content(seed, defect=False, kind="png"):
    """A picture's file."""
    buffer, path = io.BytesIO(), os.path.join(os.environ["ADLIB_CACHE"], "drawn.png")
    picture(Path(path), seed, defect)
    Image.open(path).save(buffer, kind)
    return buffer.getvalue()


class Clock:
    """Time, and what happens at it: {second: action}. Stands in for the event that stops a watch,
    which then takes no time."""

    def __init__(self, events, end=40.0):
        self.now, self.end, self.events = 0.0, end, sorted(events.items())
        self._happen()

    def is_set(self):
        return self.now >= self.end

    def wait(self, seconds):
        self.now += seconds + 1e-6
        self._happen()
        return self.is_set()

    def _happen(self):
        while self.events and self.events[0][0] <= self.now:
            self.events.pop(0)[1]()


@pytest.fixture
def camera(tmp_path):
    folder = tmp_path / "camera"
    folder.mkdir()
    return folder


@pytest.fixture
def follow(run, camera, tmp_path, monkeypatch):
    """Watch the camera's folder while `events` happen; returns the predictions, and in `at` when
    each came."""
    def follow(events, end=40.0, out=tmp_path / "out", run=run):
        clock, found = Clock(events, end), []
        monkeypatch.setattr(watch, "monotonic", lambda: clock.now)
        with Record(run, out) as record:
            for one in predictions.predict(record, watch.watched(camera, record, clock), clock,
                                           ahead=0):
                found.append(one)
                follow.at.append(clock.now)
        return found

    follow.at, follow.run, follow.out = [], run, tmp_path / "out"
    return follow


def writes(path, data, mode="wb"):
    """An action: write into a file, which then was written at another time than any before."""
    def write():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as stream:
            stream.write(data)
        moment = next(TICKS) * 10**9
        os.utime(path, ns=(moment, moment))

    return write


TICKS = itertools.count(1_700_000_000)


def said(found, folder):
    return [(os.path.relpath(one.path, folder), one.verdict or "unreadable") for one in found]


def test_every_new_content_under_a_name_is_a_row(follow, camera, tmp_path):
    latest, part, cracked = camera / "latest.png", content(1), content(2, defect=True)
    found = follow({0: writes(latest, part), 5: writes(latest, cracked),
                    10: writes(latest, cracked), 15: lambda: os.utime(latest),  # nothing new
                    20: writes(latest, part), 25: writes(latest, content(3))})
    assert said(found, camera) == [("latest.png", "good"), ("latest.png", "anomalous"),
                                   ("latest.png", "good"), ("latest.png", "good")]
    assert found[0].content == found[2].content and len({one.content for one in found}) == 3
    # Three pictures, three overlays, none overwritten.
    overlays = {one.overlay for one in found}
    assert {f"overlays/{path.name}" for path in (tmp_path / "out" / "overlays").iterdir()
            } == overlays and len(overlays) == 3 and "overlays/latest.png.jpg" in overlays
    times = [datetime.datetime.fromisoformat(one.time) for one in found]
    assert times == sorted(times) and all(time.utcoffset() == datetime.timedelta(0)
                                          for time in times)
    assert len({one.modified for one in found}) == 4


def test_a_writer_that_stalls_is_waited_for(follow, camera):
    whole = content(1, kind="bmp")
    found = follow({0: writes(camera / "a.bmp", whole[:2000]),
                    4: writes(camera / "a.bmp", whole[2000:], "ab")})
    assert said(found, camera) == [("a.bmp", "good")] and 4 < follow.at[0] < 8


def test_one_that_stalls_for_long_is_reported_and_read_at_last(follow, camera):
    whole = content(1)
    found = follow({0: writes(camera / "a.png", whole[:500]),
                    20: writes(camera / "a.png", whole[500:], "ab")})
    assert said(found, camera) == [("a.png", "unreadable"), ("a.png", "good")]
    assert watch.STILL_S <= follow.at[0] < watch.STILL_S + 2 and 20 < follow.at[1] < 24
    assert "runcated" in found[0].problem and found[0].time <= found[1].time


def test_an_unreadable_file_is_one_row_however_long_it_stays(follow, camera, tmp_path):
    assert len(follow({0: writes(camera / "a.png", b"no picture")}, end=100)) == 1
    found = follow({}, end=100)  # a restart says it again, and adds no row
    assert said(found, camera) == [("a.png", "unreadable")]
    assert (tmp_path / "out" / "predictions.csv").read_text().count("\n") == 2


def test_a_name_that_cannot_be_is_told_once(follow, camera):
    found = follow({0: writes(camera / "new\nline.png", content(1))})
    assert len(found) == 1 and "holds control characters" in found[0].problem


def test_a_file_that_never_stands_still_is_looked_at(follow, camera):
    """A camera that overwrites one file twice a second."""
    events = {0.5 * i: writes(camera / "live.bmp", content(i, kind="bmp")) for i in range(80)}
    found = follow(events)
    assert len(found) > 20 and not any(one.problem for one in found)


def test_one_that_stood_still_and_is_written_again_is_waited_for(follow, camera):
    first, half, whole = (content(i, kind="bmp") for i in range(3))
    found = follow({0: writes(camera / "a.bmp", first), 10.3: writes(camera / "a.bmp", half),
                    11.3: writes(camera / "a.bmp", whole)})
    assert len(found) == 2 and 12 < follow.at[1] < 14


def test_content_counts_and_not_the_time_of_writing(follow, camera):
    """Written again within the resolution of a share's clock, or with its time put back
    (samuelcolvin/watchfiles, pull request 388)."""
    path = camera / "a.bmp"

    def rewritten():
        times = path.stat()
        path.write_bytes(content(2, defect=True, kind="bmp"))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    found = follow({0: writes(path, content(1, kind="bmp")), 5: rewritten})
    assert said(found, camera) == [("a.bmp", "good"), ("a.bmp", "anomalous")]
    assert found[0].modified == found[1].modified
    assert 5 < follow.at[1] < 9  # and not when it has stood still


def test_what_changes_without_a_trace_is_found_by_the_second_look(follow, camera, monkeypatch):
    path, stamp = camera / "a.bmp", watch._stamp
    monkeypatch.setattr(watch, "_stamp", lambda path: (stamp(path)[0], 0, 0, *stamp(path)[3:]))
    found = follow({0: writes(path, content(1, kind="bmp")),
                    5: writes(path, content(2, defect=True, kind="bmp"))})
    assert said(found, camera) == [("a.bmp", "good"), ("a.bmp", "anomalous")]


def test_a_share_that_invents_inodes_is_as_good(follow, camera, monkeypatch):
    stamp, inodes = watch._stamp, itertools.count()
    monkeypatch.setattr(watch, "_stamp", lambda path: (*stamp(path)[:4], next(inodes)))
    found = follow({0: writes(camera / "a.png", b"no picture"),
                    5: writes(camera / "b.png", content(1))}, end=100)
    assert said(found, camera) == [("b.png", "good"), ("a.png", "unreadable")]


def test_a_file_that_is_moved_is_the_same_picture(follow, camera, tmp_path):
    def moves(source, target):
        def move():
            (camera / target).parent.mkdir(exist_ok=True)
            (camera / source).rename(camera / target)

        return move

    found = follow({0: writes(camera / "a.png", content(1)), 5: moves("a.png", "done/a.png"),
                    10.4: writes(camera / "b.png", content(2)),  # moved before it was looked at
                    11.5: moves("b.png", "c.png"), 15: writes(camera / "a.png", content(3))})
    assert said(found, camera) == [("a.png", "good"), ("c.png", "good"), ("a.png", "good")]
    moves("c.png", "done/c.png")()  # while nobody watches
    assert said(follow({}), camera) == []


def test_a_copy_and_a_frozen_camera_are_pictures_of_their_own(follow, camera):
    """The same pixels again under another name: one is there still, the other one was taken away."""
    part = content(1)
    found = follow({0: writes(camera / "1.png", part), 2: writes(camera / "2.png", part),
                    8: (camera / "2.png").unlink, 10: writes(camera / "3.png", part)})
    assert said(found, camera) == [("1.png", "good"), ("2.png", "good"), ("3.png", "good")]


def test_what_is_gone_before_it_was_read_has_a_row(follow, camera):
    found = follow({0.5: writes(camera / "brief.png", content(1)),
                    1.5: (camera / "brief.png").unlink,
                    5: writes(camera / "read.png", content(2)), 9: (camera / "read.png").unlink,
                    15: writes(camera / "half.png", content(2)[:90]),
                    20: (camera / "half.png").unlink})
    assert said(found, camera) == [("brief.png", "unreadable"), ("read.png", "good"),
                                   ("half.png", "unreadable")]
    assert found[0].problem == found[2].problem == "it has gone before it could be read"


def test_what_was_written_again_and_is_gone_before_it_was_read_has_a_row(follow, camera):
    one, other = content(1, kind="bmp"), content(2, kind="bmp")
    assert len(one) == len(other)
    found = follow({0: writes(camera / "a.bmp", one), 4.5: writes(camera / "a.bmp", other),
                    5.5: (camera / "a.bmp").unlink})
    assert said(found, camera) == [("a.bmp", "good"), ("a.bmp", "unreadable")]


def test_a_link_to_nothing_has_a_row_and_is_read_when_there_is_something(follow, camera, tmp_path):
    (camera / "link.png").symlink_to(tmp_path / "later.png")
    found = follow({20: writes(tmp_path / "later.png", content(1))})
    assert said(found, camera) == [("link.png", "unreadable"), ("link.png", "good")]
    assert found[0].problem == "it is a link to nothing"


def test_a_folder_out_of_reach_is_waited_for(follow, camera, tmp_path, caplog):
    away = tmp_path / "away"
    with caplog.at_level(logging.WARNING, logger="adlib"):
        found = follow({0: writes(camera / "a.png", content(1)),
                        # asked but once meanwhile: nothing to tell
                        1.5: lambda: camera.rename(away), 2.5: lambda: away.rename(camera),
                        5: lambda: camera.rename(away),
                        15: lambda: away.rename(camera),
                        16: writes(camera / "b" / "c" / "d.png", content(2))})
    assert said(found, camera) == [("a.png", "good"), ("b/c/d.png", "good")]
    assert caplog.text.count("cannot be listed") == 1 and str(camera) in caplog.text


def test_a_watch_does_not_look_at_what_it_draws(follow, camera, run):
    """Nor at what another watch of the folder draws (statiqdev/Statiq, issue 156)."""
    found = follow({0: writes(camera / "a.png", content(1))}, out=camera / "one")
    again = follow({0: writes(camera / "b.png", content(2))}, out=camera / "two")
    assert said(found, camera) == [("a.png", "good")]
    assert said(again, camera) == [("a.png", "good"), ("b.png", "good")]
    assert [one.name for one in predictions.sources([camera])] == ["a.png", "b.png"]


def test_a_restart_goes_on_with_what_is_new(follow, camera):
    for name, seed in (("a.bmp", 1), ("b.bmp", 2), ("c.bmp", 3)):
        writes(camera / name, content(seed, kind="bmp"))()
    assert len(follow({})) == 3
    times = (camera / "a.bmp").stat()
    (camera / "a.bmp").write_bytes(content(4, defect=True, kind="bmp"))
    os.utime(camera / "a.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(camera / "b.bmp")
    found = follow({0: writes(camera / "new.bmp", content(5, kind="bmp"))})
    assert said(found, camera) == [("new.bmp", "good"), ("a.bmp", "anomalous")]


def test_new_names_need_not_wait_for_those_that_a_restart_reads_again(follow, camera, monkeypatch):
    for i in range(16):
        writes(camera / f"{i:02d}.png", content(i))()
    assert len(follow({})) == 16
    seen, look = [], predictions._read

    def slow(record, source):
        clock.now += watch.ROUND_S / 3
        seen.append(source.name)
        return look(record, source)

    clock = Clock({4: writes(camera / "new.png", content(9))}, end=60)
    monkeypatch.setattr(watch, "monotonic", lambda: clock.now)
    monkeypatch.setattr(predictions, "_read", slow)
    with Record(follow.run, follow.out) as record:
        list(predictions.predict(record, watch.watched(camera, record, clock), clock, ahead=0))
    assert seen.index("new.png") < seen.index("15.png")


def test_a_slow_share_is_asked_less_often_and_its_files_are_looked_at(follow, camera, monkeypatch):
    """Listing it takes longer than a round of looking may."""
    clock, below = Clock({0: writes(camera / "a.png", content(1))}, end=200), watch.below
    asked = []

    def slow(*given):
        asked.append(clock.now)
        clock.now += 2 * watch.ROUND_S
        return below(*given)

    monkeypatch.setattr(watch, "monotonic", lambda: clock.now)
    monkeypatch.setattr(watch, "below", slow)
    with Record(follow.run, follow.out) as record:
        found = list(predictions.predict(record, watch.watched(camera, record, clock), clock,
                                         ahead=0))
    assert said(found, camera) == [("a.png", "good")]
    assert min(b - a for a, b in itertools.pairwise(asked)) >= 4 * watch.ROUND_S - 1


def test_what_is_no_picture_is_opened_once_until_it_changes(camera, follow, monkeypatch):
    opened = []
    look = reading.is_picture
    monkeypatch.setattr(reading, "is_picture", lambda path: opened.append(path.name) or look(path))
    for name in ("log.txt", "other.dat", "picture"):
        (camera / name).write_bytes(b"no picture")
    assert [one.path for one in follow({
        5: lambda: (camera / "log.txt").write_bytes(b"no picture, longer"),
        10: lambda: (camera / "picture").write_bytes(content(1)),
        15: lambda: (camera / "other.dat").unlink()})] == [str(camera / "picture")]
    assert sorted(opened) == ["log.txt", "log.txt", "other.dat", "picture", "picture"]


def test_a_folder_in_it_that_is_out_of_reach_for_a_while_ends_no_watch(follow, camera, monkeypatch,
                                                                       caplog):
    writes(camera / "sub" / "a.png", content(1))()
    listed, gone = Path.iterdir, []

    def iterdir(path):
        if gone and path.name == "sub":
            raise OSError(errno.ESTALE, "Stale file handle")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = follow({5: lambda: gone.append(1), 10: writes(camera / "sub" / "b.png", content(2)),
                    20: gone.clear})
    assert said(found, camera) == [("sub/a.png", "good"), ("sub/b.png", "good")]
    assert caplog.text.count("cannot be listed (cannot read the folder") == 1
