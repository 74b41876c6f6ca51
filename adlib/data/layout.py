"""What is on disk: which layout, which categories, which images, labels and masks. Nothing is
decoded here.

Three layouts, distinguished by what is there, below ROOT/<category>:

    course  train/good, train/bad, a flat test/, and ROOT/image_anomaly_labels.json: that of the
            reference, the document that this study was asked from
    mvtec   MVTec AD's: train/good, test/<defect>, ground_truth/<defect>
    plain   train/good and an unlabelled flat test/: it can be scored, not evaluated
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import typing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from adlib.config import InputError, cache_dir, did_you_mean, log, project_root
from adlib.data import files, untrusted

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
LABELS = "image_anomaly_labels.json"
MARKER = "synthetic.json"  # in the root of every set that adlib drew: its pages say SYNTHETIC


@dataclass(frozen=True)
class Label:
    anomalous: bool
    defect: str  # "good", "bad", "crack", ...


@dataclass(frozen=True)
class Category:
    """One kind of workpiece to inspect, and its files; all tuples are sorted."""

    root: Path
    name: str
    layout: str  # course | mvtec | plain
    synthetic: bool
    train: tuple[Path, ...]  # good images alone
    test: tuple[Path, ...]
    train_bad: tuple[Path, ...]  # known bad ones, for evaluation only

    def key(self, path: Path) -> str:
        """The image's name in tables and label files: its path below the root, with '/'."""
        return path.relative_to(self.root).as_posix()


def find_root(data_root: str = "") -> tuple[Path, str]:
    """The folder of the data, and the rule that chose it, the first of these that names one.

    parameter    `data_root`
    environment  the variable ADLIB_DATA
    project      data/ of the project, if it holds a category
    drawn        the synthetic set, drawn into data/synthetic on first use

    Raises:
        InputError: a folder that is named is missing or no folder.
    """
    for rule, source, value in (
        ("parameter", "parameter data_root", data_root),
        ("environment", "environment variable ADLIB_DATA", os.environ.get("ADLIB_DATA"))):
        if value:
            root = Path(value).expanduser()
            if not root.is_dir():
                raise InputError(
                    f"{source} is {value!r}, which is {'a file' if root.exists() else 'missing'}; "
                    "give the folder that holds the categories")
            return root, rule
    own = project_root() / "data"
    if _names(own):
        return own, "project"
    drawn = own / "synthetic"
    if not (drawn / MARKER).is_file():
        from adlib.data.synthetic import drawing

        log.info("no data on disk: drawing the synthetic set into %s, once, in about half a minute",
                 drawn)
        drawing.write_dataset(drawn)
    return drawn, "drawn"


def categories(root: Path) -> list[str]:
    """The categories below `root`: its folders that hold train/good. InputError if there is none.
    """
    names = _names(root)
    for name in names:
        untrusted.check_category(root, name)
    if names:
        return names
    if (root / "train" / "good").is_dir():
        raise InputError(f"{root} is a category itself; give its parent {root.resolve().parent} as "
                         f"data_root, and category {root.resolve().name}")
    raise InputError(f"{root} has no folder <category>/train/good; give the folder that holds the "
                     "categories")


def below(folder: Path) -> list[Path]:
    """The images of a folder to any depth, sorted, hidden ones left out."""
    return sorted(path for path in folder.rglob("*") if _is_image(path) and not any(
        name.startswith(".") for name in path.relative_to(folder).parts))


def open_category(root: Path, name: str = "") -> Category:
    """List a category's files; an empty name means the first one found.

    Raises:
        InputError: an unknown category (naming the nearest), fewer than two good training images,
            images both in test/ and in folders there, untrusted names and links.
    """
    names = categories(root)
    name = name or names[0]
    if name not in names:
        raise InputError(f"category {name!r} is not in {root}{did_you_mean(name, names)}")
    good, test = root / name / "train" / "good", root / name / "test"
    train, train_bad, flat = _images(good), _images(good.with_name("bad")), _images(test)
    nested = tuple(path for folder in _folders(test) for path in _images(folder))
    if len(train) < 2:
        raise InputError(
            f"{good} holds {len(train)} images; at least 2 good ones are needed to train")
    if flat and nested:
        raise InputError(f"{test} holds both images and folders of images; use either a flat test "
                         f"folder or one folder a defect")
    untrusted.check_paths(root, name, (*train, *flat, *nested, *train_bad))
    layout = "mvtec" if nested else "course" if (root / LABELS).exists() or train_bad else "plain"
    return Category(root, name, layout, (root / MARKER).is_file(), train, nested or flat,
                    train_bad)


def open_from(data_root: str, name: str) -> tuple[Category, str]:
    """find_root and open_category in one: the category, and the rule that found its folder."""
    root, rule = find_root(data_root)
    return open_category(root, name), rule


def read_labels(category: Category) -> dict[str, Label]:
    """{key: Label} of the test and train_bad images; {} where there are none. Only evaluation and
    descriptions call this.

    Raises:
        InputError: a label file that is missing, not JSON, incomplete, or names what is not there.
    """
    labels = {category.key(path): Label(True, "bad") for path in category.train_bad}
    if category.layout == "mvtec":
        labels |= {category.key(path): Label(path.parent.name != "good", path.parent.name)
                   for path in category.test}
    elif category.layout == "course" and category.test:
        labels |= _label_file(category)
    return labels


def label_entries(root: Path, name: str) -> dict[str, typing.Any]:
    """The entries of the label file that belong to one category: their keys are checked for path
    traversal, their values are not."""
    path = root / LABELS
    entries = files.read_json(path)
    if not isinstance(entries, dict):
        raise InputError(
            f"{path} must hold one object of \"category/test/file.png\": {{\"label\": ...}}, "
            f"and holds a {type(entries).__name__}")
    for key in entries:
        path_of_key = PureWindowsPath(key)  # which knows absolute paths of either kind
        if path_of_key.anchor or ".." in path_of_key.parts or "\\" in key:
            raise InputError(f"{path}: the key {key!r} leads out of the data folder; keys are like "
                             f"\"zipper/test/001.png\"")
    return {key: entry for key, entry in entries.items()
            if PurePosixPath(key).parts[:1] == (name, )}


def mask_path(category: Category, path: Path) -> Path | None:
    """The ground-truth mask of a test image (mvtec: NNN_mask.png or NNN.png), or None. InputError
    for one that lies elsewhere."""
    folder = category.root / category.name / "ground_truth" / path.parent.name
    return next((untrusted.check_inside(category.root, category.name, mask)
                 for mask in (folder / f"{path.stem}_mask.png", folder / f"{path.stem}.png")
                 if mask.is_file()), None)


def fingerprint(category: Category) -> str:
    """16 hex digits of the content and the names of all images, masks and labels of a category."""
    lines = [value if name == LABELS else f"{name} {value}"
             for name, value in contents(category).items()]
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:16]


def contents(category: Category) -> dict[str, str]:
    """{name below the root: hash of the content} of every image and mask; under the label file's
    name this category's labels."""
    masks = [mask for path in category.test
             if (mask := mask_path(category, path))] if category.layout == "mvtec" else []
    paths = [*category.train, *category.test, *category.train_bad, *masks]
    hashes = {category.key(path): value for path, value in content_hashes(paths).items()}
    if category.layout == "course" and (category.root / LABELS).is_file():
        try:
            hashes[LABELS] = json.dumps(label_entries(category.root, category.name), sort_keys=True)
        except InputError:  # its reader will say what is wrong with it
            hashes[LABELS] = (category.root / LABELS).read_bytes().hex()
    return hashes


def changed(category: Category, before: dict[str, str]) -> list[str]:
    """The names of what was changed, added or removed since `contents` was `before`, in order."""
    now = contents(open_category(category.root, category.name))
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def content_hashes(paths: typing.Sequence[Path]) -> dict[Path, str]:
    """The hash of each file's content, remembered by its stamp so that a second look is quick.
    InputError names what cannot be opened."""
    folders = sorted({str(path.parent.resolve()) for path in paths})
    name = hashlib.sha256(os.fsencode("\n".join(folders))).hexdigest()[:32]
    memory, remembered = cache_dir() / "hashes" / f"{name}.json", {}
    with contextlib.suppress(InputError, AttributeError):  # missing, damaged, no mapping
        remembered = {stamp: digest for stamp, digest in files.read_json(memory).items()
                      if isinstance(digest, str)}
    hashes, stamped = {}, {}
    for path in paths:
        stamp = stamp_of(path)
        try:
            hashes[path] = stamped[stamp] = remembered.get(stamp) or hashlib.sha256(
                path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not stamped.keys() <= remembered.keys():
        files.write_json(memory, remembered | stamped)
    return hashes


def stamp_of(path: Path) -> str:
    """What a changed file has another of: place, size, times of change. InputError where it cannot
    be asked."""
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    # Nobody can set the second time: copies that keep the first one, and clocks put back, change it
    # all the same.
    return f"{str(path.resolve())!a}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"


def _label_file(category: Category) -> dict[str, Label]:
    path = category.root / LABELS
    if not path.is_file():
        raise InputError(f"{path} is missing, and without it the images in "
                         f"{category.root / category.name / 'test'} have no labels; "
                         "put it there, or sort the images into test/good and test/<defect>")
    labels = {}
    for key, entry in label_entries(category.root, category.name).items():
        word = entry.get("label") if isinstance(entry, dict) else entry
        if word not in ("good", "bad"):
            raise InputError(
                f"{path}: the label of {key!r} is {word!r}; it must be \"good\" or \"bad\"")
        labels[key] = Label(word == "bad", word)
    test, train_bad = ({category.key(image) for image in paths}
                       for paths in (category.test, category.train_bad))
    if absent := sorted(labels.keys() - test - train_bad):
        raise InputError(f"{path} names {len(absent)} images that are not there ({some(absent)}); "
                         f"remove the entries or add the files")
    if unlabelled := sorted(test - labels.keys()):
        raise InputError(f"{path} has no entry for {len(unlabelled)} test images "
                         f"({some(unlabelled)}); add their labels")
    return labels


def some(names: typing.Sequence[str], most: int = 5) -> str:
    """The first few of a list, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _names(root: Path) -> list[str]:
    return [folder.name for folder in _folders(root) if (folder / "train" / "good").is_dir()]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _images(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in _visible(folder) if _is_image(path))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir()
                  if not path.name.startswith(".")) if folder.is_dir() else []


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
