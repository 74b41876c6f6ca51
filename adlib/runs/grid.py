"""Reading a grid (params/*.yaml) and planning it: which notebooks, with which parameters, into
which folders."""
from __future__ import annotations

import dataclasses
import re
import shlex
import typing
from dataclasses import dataclass
from pathlib import Path

import yaml

from adlib.config import STATISTICS, Config, InputError, did_you_mean, project_root
from adlib.data import layout
from adlib.report.i18n import LANGUAGES
from adlib.runs import run_folder

EDA, LIMITS, COMPARISON = "01_eda.ipynb", "05_limits.ipynb", "06_comparison.ipynb"
KEYS = ("configs", "categories", "seeds", "set", "overrides", "limits", "lang")
PARAMETERS = tuple(field.name for field in dataclasses.fields(Config))
OWNED = {
    "name": "configs:", "category": "categories:", "seed": "seeds:", "data_root": "--data",
    "reports": "--reports"
}
ONLY = ("category", "config", "seed")


@dataclass(frozen=True, eq=False)  # each task is itself: it can key a dict
class Task:
    """One notebook to execute in a process of its own."""

    kind: str  # eda | run | limits | comparison
    title: str
    notebook: Path
    output: Path  # the executed notebook; its log and parameters lie beside it
    params: dict[str, typing.Any]
    config: Config | None  # of a run; None for the others
    retry: str  # the command that does this task again
    after: Task | None = None  # of limits: the run that has to be finished first

    @property
    def note(self) -> Path | None:
        """Where the runner notes what this was made from (adlib.notes); a run does that itself."""
        return self.output.with_name(f"{self.kind}.json") if self.kind in ("eda",
                                                                           "limits") else None


@dataclass(frozen=True)
class Grid:
    """What a file of params/ says, checked for unknown names; `configs` are the plain mappings of
    its configurations."""

    path: Path
    configs: dict[str, dict[str, typing.Any]]
    categories: list[str]  # empty = all
    seeds: list[int]
    common: dict[str, typing.Any]
    # (when, set), in the file's order
    overrides: list[tuple[dict[str, typing.Any], dict[str, typing.Any]]]
    data_root: str = ""  # only a single configuration's own file may say
    limits: tuple[str, ...] = ()  # configurations whose first seed is taken to its limits
    # the language that the report opens in: en | zh; empty = as last time, else English
    lang: str = ""


def read(path: Path | str) -> Grid:
    """Read a grid, or a single configuration's flat file as a grid of one.

    Raises InputError when the file, or a configuration it names, is missing, is not YAML or holds
    an unknown name.
    """
    path = Path(path)
    content = _mapping(path)
    if not any(key in content for key in KEYS):
        return _single(path, content)
    _known(content, KEYS, str(path))
    seeds = _list(content, "seeds", path) if "seeds" in content else [0]
    categories = [] if content.get("categories", "all") == "all" else [
        str(name) for name in _list(content, "categories", path)
    ]
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise InputError(f"{path}: seeds is {seeds!r}; give whole numbers, such as [0, 1, 2]")
    common = _settings(content.get("set"), f"{path}: set")
    overrides = content.get("overrides") or []
    if not isinstance(overrides, list):
        raise InputError(
            f"{path}: overrides is {overrides!r}; give a list of entries with `when:` and `set:`")
    pairs = [
        _override(entry, f"{path}: override {number}") for number, entry in enumerate(overrides, 1)
    ]
    configs = {str(name): _config_file(path, str(name)) for name in _list(content, "configs", path)}
    for number, (when, _) in enumerate(pairs, 1):
        if when.get("name", next(iter(configs))) not in configs:
            raise InputError(f"{path}: override {number}: when: no configuration "
                             f"{when['name']!r}{did_you_mean(when['name'], configs)}")
    limits = tuple(
        str(name) for name in _list(content, "limits", path)) if "limits" in content else ()
    for name in limits:
        if name not in configs:
            raise InputError(
                f"{path}: limits: no configuration {name!r}{did_you_mean(name, configs)}")
    if (language := str(content.get("lang", ""))) not in ("", *LANGUAGES):
        raise InputError(f"{path}: lang is {language!r}; give {' or '.join(LANGUAGES)}")
    return Grid(path, configs, list(dict.fromkeys(categories)), list(dict.fromkeys(seeds)), common,
                pairs, limits=limits, lang=language)


def plan(grid_path: Path | str, *, data_root: str = "", reports: str = "", only: str = "",
         weights: str = "") -> list[Task]:
    """All tasks of a grid in order: for every category a look at the data, its runs, their limits;
    the comparison at the end.

    data_root, reports: empty means the defaults of `data.find_root` and `runs.reports_dir`. only:
    "category=zipper,config=cae_ssim,seed=0"; a key may be repeated for several values. weights: for
    the ResNets. Raises InputError for anything in the grid, or in `only`, that is unknown or wrong.
    """
    grid = read(grid_path)
    base = Path.cwd() if data_root else project_root()
    data_root = str((base / Path(data_root or grid.data_root).expanduser()
                     ).absolute()) if data_root or grid.data_root else ""
    found = layout.categories(layout.find_root(data_root)[0])
    for name in grid.categories:
        if name not in found:
            raise InputError(
                f"{grid.path}: the data holds no category {name!r}{did_you_mean(name, found)}")
    place = {"data_root": data_root, "reports": str(run_folder.reports_dir(reports).absolute())}
    configs = _filter([
        _config(grid, name, category, seed, place, weights) for category in grid.categories or found
        for name in grid.configs for seed in grid.seeds
    ], only)
    command = _command(grid_path, data_root, reports, weights)
    notebooks, folder, tasks = project_root() / "notebooks", Path(place["reports"]), []
    for notebook in (EDA, *{run_folder.NOTEBOOKS[config.model]
                            for config in configs}, *([LIMITS] if grid.limits else []), COMPARISON):
        if not (notebooks / notebook).is_file():
            raise InputError(
                f"there is no {notebooks / notebook}; run adlib inside the project's folder")
    for category in dict.fromkeys(config.category for config in configs):
        own = [config for config in configs if config.category == category]
        net = next((config for config in own if config.model not in ("cae", *STATISTICS)),
                   Config(weights="none"))
        look = {
            "image_size": own[0].image_size, "weights": net.weights,
            "weights_fallback": net.weights_fallback
        }
        tasks.append(
            Task("eda", f"{category}: the data", notebooks / EDA,
                 folder / "eda" / category / "notebook.ipynb",
                 {"category": category, **place, **look}, None, command(f"category={category}")))
        mine = [
            Task("run", f"{category} {config.name} seed {config.seed}",
                 notebooks / run_folder.NOTEBOOKS[config.model],
                 run_folder.folder(config) / "notebook.ipynb", config.as_dict(), config,
                 command(f"category={category},config={config.name},seed={config.seed}"))
            for config in own
        ]
        tasks += [
            *mine, *(_limits(run, notebooks / LIMITS, folder / "limits") for run in mine
                     if run.config.name in grid.limits and run.config.seed == grid.seeds[0])
        ]
    return [
        *tasks,
        Task("comparison", "comparison", notebooks / COMPARISON, folder / "comparison.ipynb",
             {"reports": place["reports"]}, None, command(only))
    ]


def _limits(run: Task, notebook: Path, folder: Path) -> Task:
    params = {key: run.params[key] for key in ("category", "name", "seed", "data_root", "reports")}
    return Task("limits", f"{params['category']} {params['name']} limits", notebook,
                folder / params["category"] / params["name"] / "notebook.ipynb", params, None,
                run.retry, after=run)


def _config(grid: Grid, name: str, category: str, seed: int, place: dict[str, str],
            weights: str) -> Config:
    where = f"{grid.path}, {name} on {category}"
    values = grid.configs[name] | grid.common | {"name": name, "category": category, "seed": seed
                                                 } | place
    model = values.get("model", Config.model)
    if weights and model not in ("cae", *STATISTICS):
        values["weights"] = weights if weights in ("imagenet", "none") else str(
            Path(weights).expanduser().absolute())
    before = Config.from_mapping(values, where)
    for when, changes in grid.overrides:
        if all(getattr(before, key) == value for key, value in when.items()):
            values |= changes
    config = Config.from_mapping(values, where)
    if config.weights in ("imagenet", "none"):
        return config
    # The notebook and this process may stand in different folders: a relative path is one from the
    # project's.
    return dataclasses.replace(
        config, weights=str((project_root() / Path(config.weights).expanduser()).absolute()))


def _filter(configs: list[Config], only: str) -> list[Config]:
    wanted: dict[str, set[str]] = {}
    # a category may hold a comma
    for part in filter(None, (part.strip(" ,") for part in re.split(r",(?=\s*\w+\s*=)", only))):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or key not in ONLY:
            raise InputError(f"--only {only}: {part!r} is not KEY=VALUE with a known "
                             f"key{did_you_mean(key, ONLY)}")
        known = sorted({_facets(config)[key] for config in configs})
        if value not in known:
            raise InputError(
                f"--only {only}: the grid has no {key} {value!r}{did_you_mean(value, known)}")
        wanted.setdefault(key, set()).add(value)
    kept = [
        config for config in configs if all(
            _facets(config)[key] in values for key, values in wanted.items())
    ]
    if not kept:
        raise InputError(f"--only {only} leaves no run"
                         if only else "the grid describes no run; name some configs")
    return kept


def _facets(config: Config) -> dict[str, str]:
    return {"category": config.category, "config": config.name, "seed": str(config.seed)}


def _command(grid_path: Path | str, data_root: str, reports: str,
             weights: str) -> typing.Callable[[str], str]:
    words = ["adlib", "run", str(grid_path)]
    if reports and Path(reports).absolute() != run_folder.reports_dir().absolute():
        words += ["--reports", reports]
    words += ["--data", data_root] if data_root else []
    words += ["--weights", weights] if weights else []
    return lambda only: shlex.join(words + (["--only", only] if only else []))


def _single(path: Path, content: dict[str, typing.Any]) -> Grid:
    _known(content, (*PARAMETERS, *KEYS), str(path))
    _named_like_file(path, content)
    if content.get("reports"):
        raise InputError(
            f"{path}: reports is decided by the command line; take it out and use --reports")
    config = Config.from_mapping(content, str(path))
    rest = {key: value for key, value in content.items() if key not in OWNED}
    return Grid(path, {path.stem: rest}, [config.category] if config.category else [],
                [config.seed], {}, [], config.data_root)


def _config_file(grid: Path, name: str) -> dict[str, typing.Any]:
    path = grid.parent / f"{name}.yaml"
    if not path.is_file():
        beside = [other.stem for other in grid.parent.glob("*.yaml") if other != grid]
        raise InputError(
            f"{grid}: there is no configuration file {path}{did_you_mean(name, beside)}")
    content = _mapping(path)
    _known(content, PARAMETERS, str(path))
    _named_like_file(path, content)
    return _settings({key: value for key, value in content.items() if key != "name"}, str(path))


def _named_like_file(path: Path, content: dict[str, typing.Any]) -> None:
    if content.get("name", path.stem) != path.stem:
        raise InputError(
            f"{path}: name is {content['name']!r}; a configuration's name must be that of its "
            f"file, {path.stem!r}")


def _override(entry: object, where: str) -> tuple[dict[str, typing.Any], dict[str, typing.Any]]:
    if not isinstance(entry, dict) or not entry.get("when") or not entry.get("set"):
        raise InputError(f"{where} is {entry!r}; give a mapping with `when:` and `set:`")
    _known(entry, ("when", "set"), where)
    if not isinstance(entry["when"], dict):
        raise InputError(
            f"{where}: when is {entry['when']!r}; give a mapping such as {{category: zipper}}")
    _known(entry["when"], PARAMETERS, f"{where}: when")
    # lr: 1e-4 is a string in YAML and would never be equal
    typed = Config.from_mapping(entry["when"], f"{where}: when")
    return {key: getattr(typed, key)
            for key in entry["when"]}, _settings(entry["set"], f"{where}: set")


def _settings(values: object, where: str) -> dict[str, typing.Any]:
    """A mapping of parameters, none of which is the grid's or the command line's to decide."""
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise InputError(f"{where} is {values!r}; give a mapping such as {{epochs: 12}}")
    _known(values, PARAMETERS, where)
    for key in values:
        if key in OWNED:
            raise InputError(f"{where}: {key} cannot be set here; use "
                             f"{OWNED[key]}{' in the grid' if OWNED[key][-1] == ':' else ''}")
    return values


def _known(values: dict[str, typing.Any], known: typing.Iterable[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}{did_you_mean(str(key), known)}")


def _list(content: dict[str, typing.Any], key: str, path: Path) -> list[typing.Any]:
    if not isinstance(content.get(key), list) or not content[key]:
        raise InputError(
            f"{path}: {key} is {content.get(key)!r}; give a list with at least one entry")
    return content[key]


def _mapping(path: Path) -> dict[str, typing.Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = [str(other) for other in path.parent.glob("*.yaml")]
        raise InputError(
            f"cannot read {path}: {error.strerror}{did_you_mean(str(path), near)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"{path} holds no mapping; give `key: value` lines (see params/quick.yaml)")
    return content
