"""Reading a grid (params/grids/*.yaml) and planning it: which notebooks, with which parameters,
into which folders."""
from __future__ import annotations

import dataclasses
import os
import re
import shlex
import typing
from pathlib import Path

import yaml

from adlib.config import (
    FEATURE_MODELS,
    LANGUAGES,
    OWN,
    RENAMED_FILES,
    Config,
    InputError,
    check_known,
    deprecated,
    did_you_mean,
    given_path,
    project_root,
    study_root,
    upgrade,
)
from adlib.data import layout
from adlib.runs import run_folder
from adlib.runs.freshness import notebook_of

Values = dict[str, typing.Any]

EDA, COMPARISON = "01_eda.ipynb", "06_comparison.ipynb"
# {key of the grid, kind of task: its notebook}, of the first seed of the configurations named
AFTER_A_RUN = {"limits": "05_limits.ipynb", "how_many": "08_how_many.ipynb"}
KEYS = ("configs", "categories", "seeds", "set", "overrides", *AFTER_A_RUN, "lang")
PARAMETERS = tuple(field.name for field in dataclasses.fields(Config))
DECIDED_BY = {"name": "configs: in the grid", "save_as": "configs: in the grid",
              "category": "categories: in the grid", "seed": "seeds: in the grid",
              "data_root": "--data", "reports": "--reports"}
ONLY = ("category", "config", "seed")


@dataclasses.dataclass(frozen=True, eq=False)  # each task is itself: it can key a dict
class Task:
    """One notebook to execute in a process of its own."""

    kind: str  # eda | run | limits | how_many | comparison
    title: str
    notebook: Path
    output: Path  # the executed notebook; its log and parameters lie beside it
    params: Values
    config: Config | None  # of a run; None for the others
    retry: str  # the command that does this task again
    after: Task | None = None  # of AFTER_A_RUN: the run that has to be finished first
    made_by: str = ""  # of a comparison: the command that makes all of the grid that it shows

    @property
    def note(self) -> Path | None:
        """Where the runner notes what this was made from (freshness); a run does that itself."""
        return None if self.kind == "run" else self.output.with_name(f"{self.kind}.json")


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a grid's file says, checked for unknown names."""

    path: Path
    configs: dict[str, Values]  # {configuration: what its file says}
    categories: list[str]  # empty: all
    seeds: list[int]
    common: Values
    overrides: list[tuple[Values, Values]]  # (when, set), in the file's order
    data_root: str = ""  # only a single configuration's own file may say
    # {key of AFTER_A_RUN: configurations whose first seed is looked at so}
    after: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    lang: str = ""  # the report opens in it; empty: as last time, else English


def read(path: Path | str) -> Grid:
    """Read a grid, or a single configuration's file as a grid of one.

    Args:
        path: where it lies, from the working folder or the study's; a place of an earlier version
            (params/quick.yaml) is read as well.
    Raises:
        InputError: when the file, or a configuration it names, is missing, is not YAML, or holds an
            unknown name.
    """
    places = Path(path), study_root() / path
    path = _moved(next((place for place in places if place.is_file()), places[0]))
    content = _mapping(path)
    if not any(key in content for key in KEYS):
        return _single(path, content)
    check_known(content, KEYS, f"{path}: unknown key")
    seeds = _list(content, "seeds", path) if "seeds" in content else [0]
    categories = [] if content.get("categories", "all") == "all" else [
        str(name) for name in _list(content, "categories", path)]
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise InputError(f"{path}: seeds is {seeds!r}; give whole numbers, such as [0, 1, 2]")
    common = _settings(content.get("set"), f"{path}: set")
    overrides = content.get("overrides") or []
    if not isinstance(overrides, list):
        raise InputError(
            f"{path}: overrides is {overrides!r}; give a list of entries with `when:` and `set:`")
    pairs = [_override(entry, f"{path}: override {number}")
             for number, entry in enumerate(overrides, 1)]
    configs = dict(_configuration(path, str(name)) for name in _list(content, "configs", path))
    for number, (when, _) in enumerate(pairs, 1):
        check_known([when["name"]] if "name" in when else [], configs,
                    f"{path}: override {number}: when: no configuration")
    after = {key: [name if name in configs else RENAMED_FILES.get(name, name)
                   for name in map(str, _list(content, key, path))]
             for key in AFTER_A_RUN if key in content}
    for key, names in after.items():
        check_known(names, configs, f"{path}: {key}: no configuration")
    if (language := str(content.get("lang", ""))) not in ("", *LANGUAGES):
        raise InputError(f"{path}: lang is {language!r}; give {' or '.join(LANGUAGES)}")
    return Grid(path, configs, list(dict.fromkeys(categories)), list(dict.fromkeys(seeds)), common,
                pairs, after=after, lang=language)


def plan(grid_path: Path | str, *, data_root: str = "", reports: str = "", only: str = "",
         weights: str = "", exclude: str = "") -> list[Task]:
    """All tasks of a grid in order: for every category a look at the data, its runs, their limits
    and how many pictures they take; the comparison at the end.

    Args:
        data_root, reports: empty means the defaults of layout.find_root and run_folder.reports_dir.
        only: "category=zipper,config=cae_ssim,seed=0"; a key may be repeated for several values.
        weights: of the ResNet18.
        exclude: the parameter of all runs.
    Raises:
        InputError: for anything in the grid, or in `only`, that is unknown or wrong.
    """
    grid = read(grid_path)
    if data_root:
        data_root = str(given_path(data_root).absolute())
    elif data_root := grid.data_root:
        data_root = str((project_root() / os.path.expanduser(data_root)).absolute())
    on_disk = layout.categories(layout.find_root(data_root)[0])
    check_known(grid.categories, on_disk, f"{grid.path}: the data holds no category")
    place = {"data_root": data_root, "reports": str(run_folder.reports_dir(reports).absolute())}
    if exclude := Config(exclude=exclude).exclude:
        place["exclude"] = exclude
    whole = [_config(grid, name, category, seed, place, weights)
             for category in grid.categories or on_disk for name in grid.configs
             for seed in grid.seeds]
    for config in whole:
        if config.name in grid.after.get("how_many", ()) and config.model not in FEATURE_MODELS:
            raise InputError(f"{grid.path}: how_many: {config.name} is {config.model}, and it is "
                             "measured on a frozen ResNet18's features; take a configuration such "
                             "as fused")
    configs = _filter(whole, only)
    command = _command(grid.path, data_root, reports, weights, exclude)
    notebooks, folder, tasks = study_root() / "notebooks", Path(place["reports"]), []
    for notebook in (EDA, *{notebook_of(config.model) for config in configs},
                     *map(AFTER_A_RUN.get, grid.after), COMPARISON):
        if not (notebooks / notebook).is_file():
            raise InputError(
                f"there is no {notebooks / notebook}; run adlib inside the project's folder, or "
                f"install it again")
    for category in dict.fromkeys(config.category for config in configs):
        own = [config for config in configs if config.category == category]
        net = next((config for config in own if config.uses_weights), Config(weights="none"))
        look = {"weights": net.weights, "weights_fallback": not needs_weights(net),
                "exclude": own[0].exclude}
        tasks.append(Task("eda", f"{category}: the data", notebooks / EDA,
                          folder / "eda" / category / "notebook.ipynb",
                          {"category": category, **place, **look}, None,
                          command(f"category={category}")))
        runs = [Task("run", f"{category} {config.name} seed {config.seed}",
                     notebooks / notebook_of(config.model),
                     run_folder.folder(config) / "notebook.ipynb", config.as_dict(), config,
                     command(f"category={category},config={config.name},seed={config.seed}"))
                for config in own]
        tasks += [*runs, *(_after(run, kind, notebooks, folder) for run in runs
                           for kind, names in grid.after.items() if run.config.name in names
                           and run.config.seed == grid.seeds[0])]
    return [*tasks, Task("comparison", "comparison", notebooks / COMPARISON,
                         folder / "comparison.ipynb", {"reports": place["reports"]}, None,
                         command(only), made_by=command(_only_shown(whole, configs, only)))]


def needs_weights(config: Config) -> bool:
    """Does a run fail where its pretrained weights cannot be had? A detector of one's own may do
    without them."""
    return config.uses_weights and not (config.weights_fallback or OWN.fullmatch(config.model))


def _after(run: Task, kind: str, notebooks: Path, folder: Path) -> Task:
    params = {key: run.params[key] for key in ("category", "name", "seed", "data_root", "reports")}
    title = f"{params['category']} {params['name']} {kind.replace('_', ' ')}"
    return Task(kind, title, notebooks / AFTER_A_RUN[kind],
                folder / kind / params["category"] / params["name"] / "notebook.ipynb", params,
                None, run.retry, after=run)


def _config(grid: Grid, name: str, category: str, seed: int, place: dict[str, str],
            weights: str) -> Config:
    where = f"{grid.path}, {name} on {category}"
    values = grid.configs[name] | grid.common | {"name": name, "category": category,
                                                 "seed": seed} | place
    before = Config.from_mapping(values, where)
    if weights and before.uses_weights:
        values["weights"] = weights if weights in ("imagenet", "none") else str(
            given_path(weights).absolute())
    for when, changes in grid.overrides:
        if all(getattr(before, key) == value for key, value in when.items()):
            values |= changes
    config = Config.from_mapping(values, where)
    if config.weights in ("imagenet", "none"):
        return config
    # The notebook and this process may stand in different folders: a relative path is one from the
    # project's.
    path = (project_root() / os.path.expanduser(config.weights)).absolute()
    if config.uses_weights and not os.path.isfile(path):  # before a finished run is touched
        raise InputError(f"{'--weights' if weights else where}: weights file {path} is "
                         f"{'a folder' if os.path.isdir(path) else 'missing'}; give the path of a "
                         "ResNet18 state dict, imagenet or none")
    return dataclasses.replace(config, weights=str(path))


def _filter(configs: list[Config], only: str) -> list[Config]:
    wanted: dict[str, set[str]] = {}
    # a category may hold commas, and begin with a space
    for part in re.split(rf",(?=\s*(?:{'|'.join(ONLY)})\s*=)", only):
        if not part.strip(" ,"):
            continue
        key, equals, value = part.partition("=")
        if not equals or (key := key.strip(" ,")) not in ONLY:
            raise InputError(f"--only {only}: {part!r} is not KEY=VALUE with a known "
                             f"key{did_you_mean(key, ONLY)}")
        values = sorted({_facets(config)[key] for config in configs})
        value = value if value in values else value.strip(" ,")
        if value not in values and (other := re.search(r",\s*(\w+)\s*=", value)):
            raise InputError(f"--only {only}: {other[1]!r} is no known key"
                             f"{did_you_mean(other[1], ONLY)}")
        check_known([value], values, f"--only {only}: the grid has no {key}")
        wanted.setdefault(key, set()).add(value)
    kept = [config for config in configs
            if all(_facets(config)[key] in values for key, values in wanted.items())]
    if not kept:
        raise InputError(f"--only {only} leaves no run"
                         if only else "the grid describes no run; name some configs")
    return kept


def _only_shown(whole: list[Config], planned: list[Config], only: str) -> str:
    """--only of the least part of a grid with what is planned and what has run before, which a
    comparison shows, too; "" = all of it."""
    before = [config for config in whole if config not in planned
              and (run_folder.folder(config) / "run.json").exists()]
    if not before:
        return only
    facets = [*map(_facets, whole)], [*map(_facets, planned + before)]
    every, shown = ({key: dict.fromkeys(one[key] for one in some) for key in ONLY}
                    for some in facets)
    return ",".join(f"{key}={value}" for key in ONLY if len(shown[key]) < len(every[key])
                    for value in shown[key])


def _facets(config: Config) -> dict[str, str]:
    return {"category": config.category, "config": config.name, "seed": str(config.seed)}


def _command(grid: Path, data_root: str, reports: str, weights: str,
             exclude: str) -> typing.Callable[[str], str]:
    if Path(reports).absolute() == run_folder.reports_dir().absolute():
        reports = ""
    given = {"--reports": reports, "--data": data_root, "--weights": weights, "--exclude": exclude}
    return lambda only: shlex.join(["adlib", "run", str(grid), *(
        word for option in {**given, "--only": only}.items() if option[1] for word in option)])


def _moved(path: Path) -> Path:
    """Where a file of params/ lies now that grids and configurations have folders of their own."""
    name = f"{RENAMED_FILES.get(path.stem, path.stem)}{path.suffix}"
    for now in (path.with_name("grids") / name, path.with_name("configurations") / name):
        if not path.is_file() and now.is_file():
            deprecated(f"{path} is now {now}")
            return now
    return path


def _single(path: Path, content: Values) -> Grid:
    check_known(content, (*PARAMETERS, *KEYS), f"{path}: unknown key")
    _named_like_file(path, content)
    for key, what in (("reports", "the command line; take it out and use --reports"),
                      ("save_as", "the file's name; take it out and name the file so")):
        if content.get(key):
            raise InputError(f"{path}: {key} is decided by {what}")
    config = Config.from_mapping(content, str(path))
    rest = {key: value for key, value in content.items() if key not in DECIDED_BY}
    return Grid(path, {path.stem: rest}, [config.category] if config.category else [],
                [config.seed], {}, [], config.data_root)


def _configuration(grid: Path, name: str) -> tuple[str, Values]:
    """A configuration's name and settings: its file lies beside the grid, in `configurations`
    beside or below the grid's folder, or is one of the study's own."""
    folders = (grid.parent, grid.parent.parent / "configurations", grid.parent / "configurations",
               study_root() / "params" / "configurations")
    for now in (name, RENAMED_FILES.get(name, name)):
        for path in (folder / f"{now}.yaml" for folder in folders):
            if path.is_file() and path != grid:
                if now != name:
                    deprecated(f"{grid}: the configuration {name} is now {now}")
                content = _mapping(path)
                check_known(content, PARAMETERS, f"{path}: unknown key")
                _named_like_file(path, content)
                content.pop("name", None)
                return now, _settings(content, str(path))
    others = {path.stem for folder in folders for path in folder.glob("*.yaml")} - {grid.stem}
    raise InputError(f"{grid}: there is no configuration file {name}.yaml beside it, in "
                     f"{folders[1]} or among the study's{did_you_mean(name, others)}")


def _named_like_file(path: Path, content: Values) -> None:
    if content.get("name", path.stem) != path.stem:
        raise InputError(f"{path}: name is {content['name']!r}; a configuration's name must be "
                         f"that of its file, {path.stem!r}")


def _override(entry: object, where: str) -> tuple[Values, Values]:
    if not isinstance(entry, dict) or not entry.get("when") or not entry.get("set"):
        raise InputError(f"{where} is {entry!r}; give a mapping with `when:` and `set:`")
    check_known(entry, ("when", "set"), f"{where}: unknown key")
    if not isinstance(entry["when"], dict):
        raise InputError(
            f"{where}: when is {entry['when']!r}; give a mapping such as {{category: zipper}}")
    when = upgrade(entry["when"], f"{where}: when")
    check_known(when, PARAMETERS, f"{where}: when: unknown key")
    # lr: 1e-4 is a string in YAML and would never be equal
    typed = Config.from_mapping(when, f"{where}: when")
    return {key: getattr(typed, key) for key in when}, _settings(entry["set"], f"{where}: set")


def _settings(values: object, where: str) -> Values:
    """A mapping of parameters, none of which is the grid's or the command line's to decide."""
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise InputError(f"{where} is {values!r}; give a mapping such as {{epochs: 12}}")
    values = upgrade(values, where)
    check_known(values, PARAMETERS, f"{where}: unknown key")
    for key in values:
        if key in DECIDED_BY:
            raise InputError(f"{where}: {key} cannot be set here; use {DECIDED_BY[key]}")
    return values


def _list(content: Values, key: str, path: Path) -> list[typing.Any]:
    if not isinstance(content.get(key), list) or not content[key]:
        raise InputError(
            f"{path}: {key} is {content.get(key)!r}; give a list with at least one entry")
    return content[key]


def _mapping(path: Path) -> Values:
    """A YAML file's content, with the parameters among its keys as this version names them."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = [str(other) for other in path.parent.glob("*.yaml")]
        raise InputError(
            f"cannot read {path}: {error.strerror}{did_you_mean(str(path), near)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no mapping; give `key: value` lines (see "
                         f"params/grids/quick.yaml)")
    name = {"name": content.pop("name")} if "name" in content else {}  # it is the file's
    return name | upgrade(content, str(path))
