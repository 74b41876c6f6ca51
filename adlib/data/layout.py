"""What is on disk: which layout, which categories, which images, labels and masks. Nothing is
decoded here.

Three layouts, distinguished by what is there, below ROOT/<category>:

    course  train/good, train/bad, a flat test/, and ROOT/image_anomaly_labels.json: that of the
            reference, the document that this study was asked from
    mvtec   MVTec AD's: train/good, test/<defect>, ground_truth/<defect>
    plain   train/good and an unlabelled flat test/: it can be scored, not evaluated

The case of these names does not matter, and each folder is read to any depth. The mask of
test/PLACE/NAME.* is ground_truth/PLACE/NAME.* or NAME_mask.*, or lies in the defect's own folder.
Masks in roi/ show where every picture is looked at, masks in ignore/ where it is not.
"""
from __future__ import annotations

import hashlib
import json
import os
import typing
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath

from adlib.config import InputError, did_you_mean, given_path, log, project_root
from adlib.data import files, pairing, untrusted

HEIC = {".heic", ".heif", ".hif"}
SUFFIXES = HEIC | {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".tif", ".tiff",
                   ".webp", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".gif"}
# Pictures, too: whoever lists a folder names them, and `reading` says why they cannot be read.
NOT_READ = {".dng", ".crw", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2",
            ".rwl", ".raf", ".pef", ".srw", ".3fr", ".iiq", ".x3f", ".raw", ".psd", ".xcf", ".svg",
            ".jxl", ".jxr", ".exr", ".hdr", ".pfm", ".tga", ".pcx", ".dib", ".ico", ".dcm", ".fits"}
HIDDEN = (".", "@eaDir", "__MACOSX")  # what hidden files and a NAS's and macOS's copies begin with
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
    masks: dict[Path, Path] = field(default_factory=dict, hash=False)  # of test images
    unread: tuple[Path, ...] = ()  # images without a place in the layout, masks of no image
    roi: tuple[Path, ...] = ()  # masks of what is looked at, in every picture
    ignore: tuple[Path, ...] = ()  # of what is not
    excluded: tuple[Path, ...] = ()  # good images that are not to be learned from

    def defect(self, path: Path) -> str:
        """The defect that a test image's folder names, "good" in any case as "good"; "" in a flat
        test folder."""
        name = "".join(path.relative_to(self.root).parts[2:-1][:1])
        return "good" if name.lower() == "good" else name

    def key(self, path: Path) -> str:
        """The image's name in tables and label files: its path below the root, with '/'."""
        return path.relative_to(self.root).as_posix()

    def looking(self, roi: str, ignore: str) -> Category:
        """The same with the masks that the parameters roi and ignore name ("" = none; of roi "auto"
        is none either). Raises InputError where there is no such file in the category's folder."""
        place, added = self.root / self.name, {}
        for key, given in (("roi", "" if roi == "auto" else roi), ("ignore", ignore)):
            path = place / given
            if given and (not path.is_file() or ".." in path.parts or Path(given).is_absolute()):
                raise InputError(f"{key} is {given!r}, and there is no such file in the folder "
                                 f"{place}; give a mask's path from there on")
            added[key] = tuple(sorted({*getattr(self, key), *([path] if given else [])}))
        return replace(self, **added)


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
            root = given_path(value)
            if not os.path.isdir(root):
                what = "a file" if os.path.exists(root) else "missing, or may not be looked at"
                raise InputError(f"{source} is {value!r}, which is {what}; give the folder that "
                                 "holds the categories")
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
        untrusted.check_category(name)
    if names:
        return names
    if _good_folders(root):
        raise InputError(f"{root} is a category itself; give its parent {root.resolve().parent} as "
                         f"data_root, and category {root.resolve().name}")
    nearest = [f"{path} has one" for path in folders(root) if _names(path)] + near_misses(root)
    raise InputError(f"{root} has no folder <category>/train/good; give the folder that holds the "
                     "categories, or make one of your photographs by adlib new"
                     + "".join(f"; {words}" for words in nearest))


def near_misses(root: Path) -> list[str]:
    """What `root`, or a folder in it, lacks to be a category that it nearly is, in words: of its
    folders train, test and ground_truth some are there."""
    said = []
    for folder in (root, *folders(root)):
        own = {path.name.lower(): path for path in folders(folder)}
        if not _good_folders(folder) and own.keys() & {"train", "test", "ground_truth"}:
            place, lacking = (own["train"], "good") if "train" in own else (folder, "train")
            there = some([path.name for path in folders(place)])
            said.append(untrusted.sanitized(
                f"{place} has no folder {lacking}" + (f", but {there}" if there else "")))
    return said


def below(folder: Path, enter: typing.Callable[[Path], object] = lambda link: None,
          entered: tuple[str, ...] = (), linked: bool = False, images: bool = True) -> list[Path]:
    """The images of a folder to any depth, or its other files, sorted, hidden ones left out.

    Linked folders are read, too, after `enter` was asked; not those that lead back to where they
    lie. Raises InputError for a link in a linked folder, which could multiply without end.
    """
    paths, entered = [], (*entered, os.path.realpath(folder))
    for path in _visible(folder):
        if not path.is_dir():  # a link to nothing or a pipe is an image, too, and named when read
            paths += [path] * ((path.suffix.lower() in SUFFIXES | NOT_READ) == images)
        elif not path.is_symlink():
            paths += below(path, enter, entered, linked, images)
        elif (real := os.path.realpath(path)) not in entered:
            enter(path)
            if linked:
                raise InputError(f"{path} is a link in a linked folder; link to {real} directly")
            paths += below(path, enter, entered, linked=True, images=images)
    return sorted(paths)


def open_category(root: Path, name: str = "", exclude: typing.Sequence[str] = ()) -> Category:
    """List a category's files; an empty name means the first one found.

    Args:
        exclude: keys, or names in train/good, to leave out; other categories' are passed over.

    Raises:
        InputError: an unknown category (naming the nearest), no good training image,
            images both in test/ and in folders there, images that are or share a mask, untrusted
            names and links, a name to exclude that is not there.
    """
    names = categories(root)
    name = name or names[0]
    if name not in names:
        raise InputError(f"category {name!r} is not in {root}{did_you_mean(name, names)}")
    place, by_role = root / name, defaultdict(list)
    for path in below(place, lambda link: untrusted.check_inside(root, name, link)):
        by_role[_role(path.relative_to(place).parts)].append(path)
    train, flat, nested, marks = (by_role[role] for role in ("train", "flat", "nested", "mask"))
    excluded = _excluded(root, name, train, [*flat, *nested], exclude)
    if not (train := [path for path in train if path not in excluded]):
        raise InputError(f"{place / 'train' / 'good'} holds no image"
                         + f" beside {len(excluded)} excluded ones" * bool(excluded)
                         + "; give at least a good one")
    if flat and nested:
        raise InputError(
            f"{flat[0].parent} holds both images and folders of images ({flat[0].name}, "
            f"{nested[0].relative_to(flat[0].parent)}); use either a flat test folder or one "
            "folder a defect")
    untrusted.check_paths(root, name, sum(by_role.values(), []))
    for about in (labels := label_file(root), root / MARKER):
        if os.path.lexists(about):
            untrusted.check_inside(root, name, about)
    layout = "mvtec" if nested else (
        "course" if labels.exists() or by_role["train_bad"] else "plain")
    readable = [path for path in marks if path.suffix.lower() not in NOT_READ]
    test, mirrored = (
        {path: path.relative_to(place).parts[1:] for path in paths} for paths in (nested or flat,
                                                                                  readable))
    masks, strays = pairing.pair(test, mirrored)
    category = Category(root, name, layout, (root / MARKER).is_file(), tuple(train),
                        tuple(test), tuple(by_role["train_bad"]), masks,
                        (*by_role[""], *strays, *(path for path in marks if path not in mirrored)),
                        tuple(by_role["roi"]), tuple(by_role["ignore"]), tuple(sorted(excluded)))
    pairing.check_good({path: path.relative_to(place).parts[2:] for path in train})
    pairing.check_defective({path: at for path, at in test.items()
                             if category.defect(path) not in ("", "good")})
    return category


def _excluded(root: Path, name: str, train: list[Path], test: list[Path],
              exclude: typing.Sequence[str]) -> set[Path]:
    keys = {key: path for path in train for key in (
        path.relative_to(root).as_posix(), "/".join(path.relative_to(root).parts[3:]))}
    spelled = {pairing.folded(key): path for key, path in keys.items()}
    named = {key: keys.get(key, spelled.get(pairing.folded(PureWindowsPath(key).as_posix())))
             for key in exclude}
    others = {folder.name for folder in folders(root)} - {name}
    if absent := [key for key, path in named.items()
                  if not path and "".join(PureWindowsPath(key).parts[:1]) not in others]:
        in_test = {pairing.folded(key) for path in test
                   for key in (path.relative_to(root).as_posix(), path.name)}
        tested = [key for key in absent
                  if pairing.folded(PureWindowsPath(key).as_posix()) in in_test]
        raise InputError(f"exclude names {len(absent)} images that are not among the good training "
                         f"images of {root / name} ({untrusted.sanitized(some(absent))})"
                         + f", {len(tested)} of them among its test images" * bool(tested)
                         + "; correct or remove the names")
    return set(filter(None, named.values()))


def read_labels(category: Category) -> dict[str, Label]:
    """{key: Label} of the test and train_bad images; {} where there are none. Only evaluation and
    descriptions call this.

    Raises:
        InputError: a label file that is missing, not JSON, incomplete, or names what is not there.
    """
    labels = {category.key(path): Label(True, "bad") for path in category.train_bad}
    if category.layout == "mvtec":
        path = label_file(category.root)
        if path.is_file() and label_entries(category.root, category.name):
            raise InputError(f"{path} has labels of {category.name}, whose test "
                             "images lie in folders that say it, too; remove these entries, or "
                             "put the images into test/ itself", "in_folders_too")
        for path in category.test:
            defect = category.defect(path)
            labels[category.key(path)] = Label(defect != "good", defect)
    elif category.layout == "course" and category.test:
        labels |= _label_file(category)
    return labels


def label_file(root: Path) -> Path:
    """ROOT/image_anomaly_labels.json, in whatever case its name is there."""
    return next((path for path in _visible(root) if path.name.lower() == LABELS), root / LABELS)


def label_entries(root: Path, name: str) -> dict[str, typing.Any]:
    """The entries of the label file that belong to one category, by name or, where no other folder
    has it, by its other case: their keys are checked for path traversal, their values are not."""
    path = label_file(root)
    entries = files.read_json(path)
    if not isinstance(entries, dict):
        raise InputError(
            f"{path} must hold one object of \"category/test/file.png\": {{\"label\": ...}}, "
            f"and holds a {type(entries).__name__}", "no_object", kind=type(entries).__name__)
    others, own = {folder.name for folder in folders(root)} - {name}, {}
    for key, entry in entries.items():
        path_of_key = PureWindowsPath(key)  # which knows separators and absolute paths of any kind
        if path_of_key.anchor or ".." in path_of_key.parts:
            raise InputError(f"{path}: the key {key!r} leads out of the data folder; keys are like "
                             f"\"zipper/test/001.png\"", "leads_out", entry=key)
        first = "".join(path_of_key.parts[:1])
        if first not in others and pairing.folded(first) == pairing.folded(name):
            own[key] = entry
    return own


def fingerprint(category: Category) -> str:
    """16 hex digits of the content and the names of all images, masks and labels of a category."""
    lines = [value if name == LABELS else f"{name} {value}"
             for name, value in contents(category).items()]
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:16]


def contents(category: Category) -> dict[str, str]:
    """{name below the root: hash of the content} of every image and mask; under the label file's
    name this category's labels."""
    paths = [*category.train, *category.test, *category.train_bad, *category.masks.values()]
    hashes = {category.key(path): value for path, value in files.content_hashes(paths).items()}
    for key in ("roi", "ignore"):  # one file may be either
        by_path = files.content_hashes(getattr(category, key))
        hashes |= {f"{key} {category.key(path)}": value for path, value in by_path.items()}
    path = label_file(category.root)
    if category.layout == "course" and path.is_file():
        try:
            hashes[LABELS] = json.dumps(label_entries(category.root, category.name), sort_keys=True)
        except InputError:  # its reader will say what is wrong with it
            hashes[LABELS] = path.read_bytes().hex()
    return hashes


def changed(category: Category, before: dict[str, str]) -> list[str]:
    """The names of what was changed, added or removed since `contents` was `before`, in order."""
    again = open_category(category.root, category.name, [
        category.key(path) for path in category.excluded])
    now = contents(replace(again, roi=category.roi, ignore=category.ignore))
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _label_file(category: Category) -> dict[str, Label]:
    path = label_file(category.root)
    if not path.exists():
        raise InputError(f"{path} is missing, and without it the images in "
                         f"{category.root / category.name / 'test'} have no labels; "
                         "put it there, or sort the images into test/good and test/<defect>",
                         "missing")
    test, train_bad = ({category.key(image) for image in paths}
                       for paths in (category.test, category.train_bad))
    spelled = {pairing.folded(key): key for key in test | train_bad}
    labels: dict[str, Label] = {}
    for key, entry in label_entries(category.root, category.name).items():
        given = entry.get("label") if isinstance(entry, dict) else entry
        word = given.strip().lower() if isinstance(given, str) else given
        if word not in ("good", "bad"):
            raise InputError(
                f"{path}: the label of {key!r} is {given!r}; it must be \"good\" or \"bad\"",
                "neither", entry=key, given=repr(given))
        key = PureWindowsPath(key).as_posix()
        key = key if key in test | train_bad else spelled.get(pairing.folded(key), key)
        if key in labels:
            raise InputError(f"{path} names {key!r} twice; keep one entry", "twice", entry=key)
        labels[key] = Label(word == "bad", word)
    if absent := sorted(labels.keys() - test - train_bad):
        raise InputError(f"{path} names {len(absent)} images that are not there ({some(absent)}); "
                         "remove the entries or add the files", "absent", names=absent)
    if unlabelled := sorted(test - labels.keys()):
        raise InputError(f"{path} has no entry for {len(unlabelled)} test images "
                         f"({some(unlabelled)}); add their labels, under these names",
                         "unlabelled", names=unlabelled)
    return labels


def some(names: typing.Sequence[str]) -> str:
    """The first few of a list."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def folders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted."""
    return [path for path in _visible(folder) if path.is_dir()]


def _names(root: Path) -> list[str]:
    names = []
    for folder in folders(root):
        try:
            names += [folder.name] * bool(_good_folders(folder))
        except InputError as error:  # a disk's lost+found, say
            log.warning("%s; it is left out", error)
    return names


def _good_folders(category: Path) -> list[Path]:
    return [good for train in folders(category) if train.name.lower() == "train"
            for good in folders(train) if good.name.lower() == "good"]


def _role(parts: tuple[str, ...]) -> str:
    """What an image is for, by its path in its category: train, train_bad, flat, nested, mask, roi,
    ignore; "" = nothing."""
    first, second, *_ = (*map(str.lower, parts[:-1]), "", "")
    if first == "train":
        return {"good": "train", "bad": "train_bad"}.get(second, "")
    return {"test": "nested" if second else "flat", "ground_truth": "mask", "roi": "roi",
            "ignore": "ignore"}.get(first, "")


def _visible(folder: Path) -> list[Path]:
    try:
        os.stat(os.path.join(folder, "."))  # to list names is not yet to look at files
        return sorted(path for path in folder.iterdir() if not path.name.startswith(HIDDEN))
    except (FileNotFoundError, NotADirectoryError):  # gone meanwhile, maybe
        return []
    except OSError as error:
        why = files.reason_of(error)
        raise InputError(f"cannot read the folder {folder}: {why}", "unread",
                         why=f"{folder.name}/: {why}") from error
