"""What is said of pictures in use whose conditions have changed; the terminal says it, too."""
from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

from adlib.report.words.i18n import Text, join, named, t

if typing.TYPE_CHECKING:
    from adlib.runs.prediction_record import Record

REFUSED = ("anomalous", "foreign")


def warning(record: Record) -> Text:
    """Since when pictures are not taken as the run's own were, how they differ, and what to do;
    nothing where no change was found."""
    if not record.changed:
        return Text("")
    return changed(dataclasses.asdict(record.conditions.change) | {
        "path": record.changed[0].path, "time": record.changed[0].time},
        [one.verdict for one in record.changed])


def changed(change: dict[str, typing.Any], verdicts: typing.Sequence[str]) -> Text:
    """change: as conditions.json has it. verdicts: of the pictures that brought the warning, since
    when they differ. It takes that their median does, so that bad parts explain it where they are
    half of these pictures; of bad ones half may be found. Those refused after the warning are what
    it warns of."""
    n, refused = len(verdicts), sum(verdict in REFUSED for verdict in verdicts)
    many = 4 * refused >= n
    return join([t("use.changed", since=change["since"], path=picture(change["path"]),
                   time=minute(change["time"]), cause=named("change", change["cause"]),
                   by=change["by"]),
                 t("use.or_bad", refused=refused, n=n) if many else t("use.unreliable"),
                 t("use.what_to_do")])


def picture(path: str) -> str:
    """A picture's name, and its folder's: two cameras into one folder number theirs alike."""
    return "/".join(part for part in Path(path).parts[-2:] if part != Path(path).anchor)


def minute(time: str) -> str:
    """A moment as a row has it (ISO 8601), to be read."""
    return time[:16].replace("T", " ")
