"""A user's own photographs made into a category of the study: checked, split, and copied into MVTec
AD's layout."""
from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
import tempfile
import typing
from collections import Counter, defaultdict
from pathlib import Path, PureWindowsPath

import numpy as np

from adlib.config import InputError, is_folder_name
from adlib.data import files, layout, pairing, quality, reading, untrusted

TESTED = 0.2  # share of the good pictures that is kept for testing
FEW = 10  # of fewer good pictures none is kept for testing: each is needed to learn from
NOTE = "new.json"  # what a category was made from
# What may hold pictures and is none itself, with what to do about it.
HOLDERS = {suffix: what for what, suffixes in (
    ("is an archive; unpack it first", ".zip .tar .tgz .gz .bz2 .xz .7z .rar"),
    ("is a video; save its frames as pictures", ".mp4 .avi .mov .mkv .wmv .webm"))
    for suffix in suffixes.split()}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which picture goes where, and what was left out, a sentence each."""

    copies: dict[str, Path]  # path inside the category -> source
    left_out: list[str]
    folders: dict[str, int]  # good pictures by folder in theirs ("" = itself), few first

    def sources(self, split: str) -> list[Path]:
        """The pictures that go to a split, such as "train/"."""
        return [source for target, source in self.copies.items() if target.startswith(split)]

    def count(self, split: str) -> int:
        return len(self.sources(split))


def plan(good: Path, bad: Path | None = None, masks: Path | None = None) -> Plan:
    """Look at every picture and decide its place; nothing is written.

    One in five good pictures, drawn with a fixed seed, goes to test/good; of fewer than FEW none.
    Pictures that cannot be read and copies of others are left out and listed.

    Args:
        good: folder of good pictures.
        bad: folder of bad ones: of the defect "bad", in a subfolder of the defect of its name.
        masks: folder of masks, of the same place and name as the bad pictures (or NAME_mask), white
            where the defect is.

    Raises:
        InputError: no good picture; masks that belong to no picture; folders that call the same
            pictures good and bad.
    """
    left_out = {path: why for folder in filter(None, (good, bad))
                for path in layout.below(folder, images=False) if (why := _beside(path))}
    pictures = _pictures(good)
    pairing.check_good({path: path.relative_to(good).parts for path in pictures})
    good_paths = _readable(pictures, left_out)
    if not good_paths:
        raise InputError(
            f"{good} holds no good picture that can be used; give at least one, and 50 or more are "
            "better" + "".join(
                f"; {', '.join(names)} {why}" for why, names in _by_reason(left_out).items()))
    order = np.random.default_rng(0).permutation(len(good_paths))
    tested = set(order[:_tested(len(good_paths))].tolist())
    names = _names(good_paths, good)
    copies = {f"{'test' if i in tested else 'train'}/good/{names[path]}": path
              for i, path in enumerate(good_paths)}
    copies |= _place_bad(bad, masks, good_paths, left_out)
    folders = Counter("".join(path.relative_to(good).parts[:-1][:1]) for path in good_paths)
    return Plan(copies, [untrusted.sanitized(f"{path} {why}") for path, why in left_out.items()],
                dict(sorted(folders.items(), key=lambda entry: (entry[1], entry[0]))))


def _place_bad(bad: Path | None, masks: Path | None, good_paths: list[Path],
               left_out: dict[Path, str]) -> dict[str, Path]:
    """The bad pictures and their masks: {path inside the category: source}."""
    from adlib.data.masks import read as read_mask  # which needs torch

    paths, copies = _pictures(bad) if bad else [], {}
    readable = _readable(paths, left_out, good_paths)
    if bad and good_paths and not readable:
        good = "its pictures are among the good ones" if paths else "it holds no picture"
        raise InputError(f"{bad} holds no bad picture that can be used: {good}; give another "
                         "folder, or leave it out")
    names = _names(readable, bad)
    pairing.check_defective({path: ("bad", *path.relative_to(bad).parts) for path in readable})
    mask_of: dict[Path, Path] = {}
    if masks:
        mask_of, strays = pairing.pair(*(
            {path: path.relative_to(folder).parts for path in pictures}
            for folder, pictures in ((bad, paths), (masks, _pictures(masks)))))
        if strays:
            raise InputError(f"{len(strays)} masks belong to no bad picture: "
                             f"{layout.some(list(map(str, strays)))}; give each the place and name "
                             "of its picture, with or without _mask")
    for path in readable:
        folder = "_".join(path.relative_to(bad).parent.parts)
        defect = re.sub(r"^-+|[^\w.-]+", "_", folder) or "bad"
        copies[f"test/{defect}/{names[path]}"] = path
        if mask := mask_of.get(path):
            with files.saying(f"the mask {mask} cannot be used"):
                read_mask(mask, path)
            copies[f"ground_truth/{defect}/{Path(names[path]).stem}_mask{mask.suffix}"] = mask
    return copies


def check_name(name: str) -> None:
    """Raises InputError for what cannot be a part's name."""
    if not re.fullmatch(r"[^\W_][\w.-]*", name) or not is_folder_name(name):
        raise InputError(f"{name!r} cannot be a part's name; use letters, digits, '-', '_' and "
                         "'.', such as my-part")


def check_excluded(names: typing.Sequence[str], name: str, planned: Plan) -> None:
    """Raises InputError where the names of pictures to leave out are another part's: all would be
    learned from, and nobody told; or those of pictures that are kept for testing."""
    learned, tested = ({pairing.folded(one) for target in planned.copies if target.startswith(split)
                        for one in (f"{name}/{target}", target.rpartition("/")[2])}
                       for split in ("train/good/", "test/"))
    given = {one: pairing.folded(PureWindowsPath(one).as_posix()) for one in names}
    if kept := [one for one, key in given.items() if key in tested - learned]:
        raise InputError(f"exclude names {len(kept)} pictures of {name} that are kept for testing "
                         f"and not learned from ({layout.some(kept)}); remove these names")
    if names and learned.isdisjoint(given.values()):
        raise InputError(f"exclude names no picture that {name} learns from "
                         f"({layout.some(names)}); give paths such as {name}/train/good/NAME")


def create(root: Path, name: str, planned: Plan) -> bool:
    """Copy the pictures into root/name, all of them or nothing; False where they are there already,
    from the same pictures.

    Raises:
        InputError: the name is no folder name, root/name holds something else or cannot be written.
    """
    check_name(name)
    hashes = files.content_hashes(list(planned.copies.values()))
    note = {"pictures": {target: hashes[source] for target, source in planned.copies.items()}}
    folder = root / name
    if folder.exists():
        if (folder / NOTE).is_file() and files.read_json(folder / NOTE) == note:
            return False
        raise InputError(f"{folder} is there already, from other pictures; choose another name, or "
                         f"delete it")
    with files.saying(f"cannot write {folder}", "nothing was left there; make room, or give "
                      "another --data", OSError):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".new-") as temporary:
            for target, source in planned.copies.items():
                path = Path(temporary) / name / target
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, path)
            files.write_json(Path(temporary) / name / NOTE, note)
            (Path(temporary) / name).rename(folder)
    return True


def describe(planned: Plan) -> str:
    """The split, and the folders that are taken for good ones: a folder of bad parts among them
    would be learned from as well."""
    bad = planned.count("test/") - planned.count("test/good/")
    folders = [untrusted.sanitized(f"{name or 'the folder itself'} ({n})")
               for name, n in planned.folders.items()]
    masked = f", {bad} bad ones ({planned.count('ground_truth/')} with a mask)" if bad else ""
    return (f"{planned.count('train/')} good pictures to learn from, {planned.count('test/good/')} "
            f"good ones to test with{masked}."
            + (f" Pictures of all these folders count as good: {layout.some(folders)}."
               if len(folders) > 1 else ""))


def missing(planned: Plan, least: int) -> int:
    """How many more good pictures it takes until there are `least` to learn from."""
    given = planned.count("train/") + planned.count("test/good/")
    return next(n for n in itertools.count(given) if n - _tested(n) >= least) - given


def _tested(n: int) -> int:
    """How many of n good pictures are kept for testing."""
    return round(TESTED * n) if n >= FEW else 0


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder that a user gives by hand. Links among them are followed, wherever
    they lead: they are the user's own, and what becomes of them is a copy."""
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give its folder" if folder.exists() else
                         f"there is no folder {folder}")
    return layout.below(folder)


def _beside(path: Path) -> str:
    """Why a file whose name is none of a picture's is worth a word; empty if it is not."""
    if reading.is_picture(path):
        return "is a picture, and its name does not end as one's does"
    return HOLDERS.get(path.suffix.lower(), "")


def _by_reason(left_out: dict[Path, str]) -> dict[str, list[str]]:
    """{why: names}: of twenty files of one kind the reason is said once."""
    names = defaultdict(list)
    for path, why in left_out.items():
        names[untrusted.sanitized(why)].append(untrusted.sanitized(path.name))
    return names


def _readable(paths: list[Path], left_out: dict[Path, str],
              earlier: typing.Sequence[Path] = ()) -> list[Path]:
    """Those that decode to their end and are no copy of another one or of an earlier one."""
    seen = {digest: path for path, digest in files.content_hashes(list(earlier)).items()}
    decoded, readable = [], []
    for path, found in zip(paths, files.in_threads(quality.examine, paths), strict=True):
        if isinstance(found, str):
            left_out[path] = f"cannot be read ({found})"
        else:
            decoded.append(path)
    for path, digest in files.content_hashes(decoded).items():
        if digest in seen:
            left_out[path] = ("is one of the good pictures" if path == seen[digest] else
                              f"is a copy of {seen[digest]}")
            continue
        seen[digest] = path
        readable.append(path)
    return readable


def _names(paths: list[Path], folder: Path) -> dict[Path, str]:
    """Each picture's own name, its subfolders before it; a number after it where two would be the
    same, or have the same mask. What no name in a category may hold becomes an underscore."""
    taken, names = set(), {}
    for path in paths:
        inner = path.relative_to(folder)
        stem, number = untrusted.sanitized("_".join([*inner.parent.parts, path.stem]), "_"), 1
        if not is_folder_name(stem + path.suffix):  # nor any name on Windows
            stem = "_" + re.sub(r'[:<>"|?*\\]', "_", stem)
        while (unique := stem if number == 1 else f"{stem}-{number}").lower() in taken:
            number += 1
        taken.add(unique.lower())
        names[path] = unique + path.suffix
    return names
