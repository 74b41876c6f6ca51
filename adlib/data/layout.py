"""What is on disk: which layout, which categories, which images, labels and masks. Nothing is
decoded here.

Two layouts, told apart by what is there. The reference's: ROOT/<category>/train/{good,bad}, a flat
ROOT/<category>/test, and ROOT/image_anomaly_labels.json. MVTec AD's: train/good, test/<defect>,
ground_truth/<defect>. A category with an unlabelled flat test/ is `plain`: it can be scored, not
evaluated.
"""
from __future__ import annotations

import hashlib
import json
import os
import typing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from adlib.data import files, untrusted
from adlib.config import InputError, cache_dir, did_you_mean, project_root
from adlib.report.i18n import Text, t

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
LABELS = "image_anomaly_labels.json"


@dataclass(frozen=True)
class Label:
    anomalous: bool
    defect: str  # "good", "bad", "crack", ...


@dataclass(frozen=True)
class Category:
    """One part to inspect, and its files; all tuples are sorted. `train_bad` is for evaluation
    only."""

    root: Path
    name: str
    layout: str  # course | mvtec | plain
    synthetic: bool
    train: tuple[Path, ...]
    test: tuple[Path, ...]
    train_bad: tuple[Path, ...]

    def key(self, path: Path) -> str:
        """The image's name in tables and label files: its path below the root, with '/'."""
        return path.relative_to(self.root).as_posix()


def find_root(data_root: str = "") -> tuple[Path, Text]:
    """The folder of the data, and a sentence saying which rule chose it.

    The parameter, else the environment variable ADLIB_DATA, else data/ of the project if it holds a
    category, else the synthetic set, drawn into data/synthetic on first use. Raises InputError when
    a named folder is missing or no folder.
    """
    for value, rule in ((data_root, t("data.parameter_data_root")), (os.environ.get(
            "ADLIB_DATA", ""), t("data.environment_variable_adlib_data"))):
        if value:
            root = Path(value).expanduser()
            if not root.is_dir():
                raise InputError(
                    f"{rule} is {value!r}, which is {'a file' if root.exists() else 'missing'}; "
                    f"give the folder that "
                    "holds the categories")
            return root, t("data.data_folder_rule", folder=value, rule=rule)
    own = project_root() / "data"
    if _names(own):
        return own, t("data.data_folder_project_s_data", folder=own)
    drawn = own / "synthetic"
    if not (drawn / "synthetic.json").is_file():
        from adlib.data.synthetic import drawing

        drawing.write_dataset(drawn)
    return drawn, t("data.data_folder_drawn_adlib_because", folder=drawn, own=own)


def categories(root: Path) -> list[str]:
    """The categories below `root`: its folders that hold train/good. InputError if there is none.
    """
    names = _names(root)
    if not names:
        hint = (
            f"{root} is a category itself; give its parent {root.resolve().parent} as data_root, "
            f"and category {root.resolve().name}" if (root / "train" / "good").is_dir() else
            f"{root} has no folder <category>/train/good; give the folder that holds the categories"
        )
        raise InputError(hint)
    for name in names:
        untrusted.category(root, name)
    return names


def below(folder: Path) -> list[Path]:
    """The pictures of a folder to any depth, sorted, hidden ones left out."""
    return sorted(path for path in folder.rglob("*")
                  if path.suffix.lower() in SUFFIXES and path.is_file() and not any(
                      part.startswith(".") for part in path.relative_to(folder).parts))


def open_category(root: Path, name: str = "") -> Category:
    """List a category's files; an empty name means the first one found.

    Raises InputError for an unknown category (naming the nearest), for fewer than two good training
    images, and for what no stranger's folder may do (fence).
    """
    known = categories(root)
    name = name or known[0]
    if name not in known:
        raise InputError(f"category {name!r} is not in {root}{did_you_mean(name, known)}")
    here = root / name
    train, test_root = _pictures(here / "train" / "good"), here / "test"
    if len(train) < 2:
        raise InputError(
            f"{here / 'train' / 'good'} holds {len(train)} images; at least 2 good ones are "
            f"needed to train")
    flat = _pictures(test_root)
    nested = tuple(path for folder in _folders(test_root) for path in _pictures(folder))
    if flat and nested:
        raise InputError(
            f"{test_root} holds both images and folders of images; use either a flat test folder "
            f"or one folder a defect")
    train_bad = _pictures(here / "train" / "bad")
    untrusted.pictures(root, name, (*train, *flat, *nested, *train_bad))
    layout = "mvtec" if nested else "course" if (root / LABELS).exists() or train_bad else "plain"
    return Category(root, name, layout, (root / "synthetic.json").is_file(), train, nested or flat,
                    train_bad)


def open_from(data_root: str, name: str) -> tuple[Category, Text]:
    """find_root and open_category in one: the category, and the sentence saying where it was found.
    """
    root, source = find_root(data_root)
    return open_category(root, name), source


def read_labels(category: Category) -> dict[str, Label]:
    """{key: Label} of the test and train_bad images; {} where there are none. Only evaluation and
    descriptions call this.

    Raises InputError for a label file that is missing, not JSON, incomplete, or that names what is
    not there.
    """
    labels = {category.key(path): Label(True, "bad") for path in category.train_bad}
    if category.layout == "mvtec":
        labels |= {
            category.key(path): Label(path.parent.name != "good", path.parent.name)
            for path in category.test
        }
    elif category.layout == "course" and category.test:
        labels |= _label_file(category)
    return labels


def label_entries(root: Path, name: str) -> dict[str, typing.Any]:
    """The entries of the reference's label file that belong to one category, unchecked except for
    being a JSON object."""
    path = root / LABELS
    entries = files.read_json(path)
    if not isinstance(entries, dict):
        raise InputError(
            f"{path} must hold one object of \"category/test/file.png\": {{\"label\": ...}}, "
            f"and holds a {type(entries).__name__}")
    for key in entries:
        there = PureWindowsPath(key)  # which knows absolute paths of either kind
        if there.anchor or ".." in there.parts or "\\" in key:
            raise InputError(f"{path}: the key {key!r} leads out of the data folder; keys are like "
                             f"\"zipper/test/001.png\"")
    return {
        key: entry
        for key, entry in entries.items() if PurePosixPath(key).parts[:1] == (name, )
    }


def mask_path(category: Category, path: Path) -> Path | None:
    """The ground-truth mask of a test image (MVTec layouts: NNN_mask.png or NNN.png), or None.
    InputError for one that lies elsewhere."""
    folder = category.root / category.name / "ground_truth" / path.parent.name
    return next((untrusted.inside(category.root, category.name, found)
                 for found in (folder / f"{path.stem}_mask.png", folder / f"{path.stem}.png")
                 if found.is_file()), None)


def fingerprint(category: Category) -> str:
    """16 hex digits of the content and the names of all images, masks and labels of a category."""
    lines = [
        value if name == LABELS else f"{name} {value}"
        for name, value in contents(category).items()
    ]
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:16]


def contents(category: Category) -> dict[str, str]:
    """{name below the root: hash of the content} of every image and mask; under the label file's
    name this category's labels."""
    masks = [mask for path in category.test
             if (mask := mask_path(category, path))] if category.layout == "mvtec" else []
    found = {
        category.key(path): value
        for path, value in content_hashes(
            [*category.train, *category.test, *category.train_bad, *masks]).items()
    }
    if category.layout == "course" and (category.root / LABELS).is_file():
        try:
            found[LABELS] = json.dumps(label_entries(category.root, category.name), sort_keys=True)
        except InputError:  # its reader will say what is wrong with it
            found[LABELS] = (category.root / LABELS).read_bytes().hex()
    return found


def changed(category: Category, before: dict[str, str]) -> list[str]:
    """The names of what was changed, added or removed since `contents` was `before`, in order."""
    now = contents(open_category(category.root, category.name))
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def content_hashes(paths: typing.Sequence[Path]) -> dict[Path, str]:
    """The hash of each file's content, remembered by its stamp so that a second look is quick.
    InputError names what cannot be opened."""
    folders = sorted({str(path.parent.resolve()) for path in paths})
    memory = cache_dir(
    ) / "hashes" / f"{hashlib.sha256(os.fsencode(chr(10).join(folders))).hexdigest()[:32]}.json"
    try:
        known = files.read_json(memory)
    except InputError:
        known = {}
    known = {key: value
             for key, value in known.items()
             if isinstance(value, str)} if isinstance(known, dict) else {}
    found, fresh = {}, {}
    for path in paths:
        stamp = stamp_of(path)
        try:
            found[path] = fresh[stamp] = known.get(stamp) or hashlib.sha256(
                path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not fresh.keys() <= known.keys():
        files.write_json(memory, known | fresh)
    return found


def stamp_of(path: Path) -> str:
    """What tells a file from what it was: place, size, times of change. InputError where it cannot
    be asked."""
    try:
        about = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    # Nobody can set the second time: copies that keep the first one, and clocks put back, change it
    # all the same.
    return f"{str(path.resolve())!a}|{about.st_size}|{about.st_mtime_ns}|{about.st_ctime_ns}"


def _label_file(category: Category) -> dict[str, Label]:
    path = category.root / LABELS
    if not path.is_file():
        raise InputError(f"{path} is missing, and without it the images in "
                         f"{category.root / category.name / 'test'} have no labels; "
                         "put it there, or sort the images into test/good and test/<defect>")
    labels = {}
    entries = label_entries(category.root, category.name)
    for key, entry in entries.items():
        word = entry.get("label") if isinstance(entry, dict) else entry
        if word not in ("good", "bad"):
            raise InputError(
                f"{path}: the label of {key!r} is {word!r}; it must be \"good\" or \"bad\"")
        labels[key] = Label(word == "bad", word)
    present = {category.key(image) for image in category.test}
    known_bad = {category.key(image) for image in category.train_bad}
    absent, unlabelled = sorted(set(labels) - present - known_bad), sorted(present - set(labels))
    if absent:
        raise InputError(
            f"{path} names {len(absent)} images that are not there ({some(absent)}); remove the "
            f"entries or add the files")
    if unlabelled:
        raise InputError(
            f"{path} has no entry for {len(unlabelled)} test images ({some(unlabelled)}); add "
            f"their labels")
    return labels


def some(names: typing.Sequence[str], most: int = 5) -> str:
    """The first few of a list, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _names(root: Path) -> list[str]:
    return [folder.name for folder in _folders(root) if (folder / "train" / "good").is_dir()]


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir()
                  if p.is_dir() and not p.name.startswith(".")) if path.is_dir() else []


def _pictures(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return ()
    return tuple(
        sorted(p for p in path.iterdir()
               if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")))
