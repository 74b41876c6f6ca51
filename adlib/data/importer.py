"""A person's own photographs made into a category of the study: checked, split, and copied into
MVTec AD's layout."""
from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
import typing
from pathlib import Path

import numpy as np
from PIL import Image

from adlib.data import files, layout, untrusted
from adlib.config import InputError

TESTED = 0.2  # share of the good pictures that is kept for testing
LEAST = 10  # good pictures below which nothing can be said
NOTE = "new.json"  # what a category was made from


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which picture goes where: {path inside the category: source}, and what was left out, a
    sentence each."""

    copies: dict[str, Path]
    left_out: list[str]

    def count(self, split: str) -> int:
        return sum(target.startswith(split) for target in self.copies)


def plan(good: Path, bad: Path | None = None, masks: Path | None = None) -> Plan:
    """Look at every picture and decide its place; nothing is written.

    One in five good pictures, drawn with a fixed seed, goes to test/good. bad: pictures are of the
    defect "bad", those of a subfolder of the defect that it is named after. masks: pictures of the
    same place and name as the bad ones (or NAME_mask), white where the defect is. Pictures that
    cannot be read and copies of others are left out and listed. Raises InputError for too few good
    pictures, and for masks that belong to no picture.
    """
    left_out: list[str] = []
    fine = _readable(_inside(good), left_out)
    if len(fine) < LEAST:
        raise InputError(
            f"{good} holds {len(fine)} good pictures that can be used; at least {LEAST} are "
            f"needed, and 50 or more are better" + "".join(f"; {reason}" for reason in left_out))
    order = np.random.default_rng(0).permutation(len(fine))
    tested = set(order[:max(1, round(TESTED * len(fine)))].tolist())
    names = _names(fine, good)
    copies = {
        f"{'test' if i in tested else 'train'}/good/{names[path]}": path
        for i, path in enumerate(fine)
    }
    defective = _readable(_inside(bad), left_out, fine) if bad else []
    masked = {_key(path, masks).removesuffix("_mask"): path
              for path in _inside(masks)} if masks else {}
    names = _names(defective, bad) if bad else {}
    for path in defective:
        inner = path.relative_to(bad).parent
        defect = re.sub(r"[^\w.-]+", "_", "_".join(inner.parts)).lstrip("-") or "bad"
        defect = f"{defect}_defect" if defect == "good" else defect
        copies[f"test/{defect}/{names[path]}"] = path
        if mask := masked.pop(_key(path, bad), None):
            copies[f"ground_truth/{defect}/{Path(names[path]).stem}_mask.png"] = mask
    for path in _inside(bad) if bad else []:  # what was left out may have had a mask
        masked.pop(_key(path, bad), None)
    if masked:
        raise InputError(f"{len(masked)} masks belong to no bad picture: "
                         f"{', '.join(map(str, list(masked.values())[:5]))}; give each the "
                         "place and name of its picture, with or without _mask")
    return Plan(copies, left_out)


def create(root: Path, name: str, made: Plan) -> bool:
    """Copy the pictures into root/name, all of them or nothing; False where they are there already,
    from the same pictures.

    Raises InputError for a name that is no folder name, where root/name holds something else, and
    where it cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(
            f"{name!r} cannot be a part's name; use letters, digits, '-', '_' and '.', such as "
            f"my-part")
    hashes = layout.content_hashes(list(made.copies.values()))
    note = {"pictures": {target: hashes[source] for target, source in made.copies.items()}}
    if (root / name).exists():
        if (root / name / NOTE).is_file() and files.read_json(root / name / NOTE) == note:
            return False
        raise InputError(
            f"{root / name} is there already, from other pictures; choose another name, or delete "
            f"it")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".new-") as place:
            _copy(made, Path(place) / name)
            files.write_json(Path(place) / name / NOTE, note)
            (Path(place) / name).rename(root / name)
    except OSError as error:
        raise InputError(
            f"cannot write {root / name} ({error.strerror or error}); nothing was left there; "
            f"make room, or give another "
            "--data") from error
    return True


def _copy(made: Plan, folder: Path) -> None:
    for target, source in made.copies.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if target.startswith("ground_truth/"):
            with Image.open(source) as mask:
                mask.convert("L").save(path)
        else:
            shutil.copyfile(source, path)


def describe(made: Plan) -> str:
    """The split in a sentence."""
    bad = made.count("test/") - made.count("test/good/")
    text = f"{made.count('train/')} good pictures to learn from, {made.count('test/good/')} good ones to test with"
    return text + (f", {bad} bad ones ({made.count('ground_truth/')} with a mask)." if bad else ".")


def _inside(folder: Path) -> list[Path]:
    """The pictures of a folder that somebody gives by hand. Links among them are followed, wherever
    they lead: they are that person's own, and what becomes of them is a copy."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return layout.below(folder)


def _readable(paths: list[Path], left_out: list[str],
              before: typing.Sequence[Path] = ()) -> list[Path]:
    """Those that decode to their end and are no copy of another, of `before` neither."""
    seen, fine = {digest: path for path, digest in layout.content_hashes(list(before)).items()}, []
    for path, digest in layout.content_hashes(paths).items():
        try:
            with Image.open(path) as image:
                image.load()
        # whatever a decoder trips over in a damaged file, the file is named
        except Exception as error:
            left_out.append(
                untrusted.shown(f"{path} cannot be read ({str(error) or type(error).__name__})"))
            continue
        if digest in seen:
            left_out.append(untrusted.shown(f"{path} is a copy of {seen[digest]}"))
            continue
        seen[digest] = path
        fine.append(path)
    return fine


def _names(paths: list[Path], folder: Path) -> dict[Path, str]:
    """Each picture's own name, its subfolders before it; a number after it where two would be the
    same, or have the same mask. What no name in a category may hold (fence) becomes an underscore.
    """
    taken, names = set(), {}
    for path in paths:
        parts = path.relative_to(folder)
        stem, number = untrusted.shown("_".join([*parts.parent.parts, path.stem]), "_"), 1
        while (unique := stem if number == 1 else f"{stem}-{number}").lower() in taken:
            number += 1
        taken.add(unique.lower())
        names[path] = unique + path.suffix
    return names


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()
