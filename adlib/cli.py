"""The command line: adlib new, run, report, predict, check, data. Thin: every command is one call into a room."""
from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from adlib import __version__
from adlib.config import InputError
from adlib.lang import LANGUAGES


def main(argv: list[str] | None = None) -> int:
    """Parse, call, and turn an InputError into one sentence on stderr and exit code 2."""
    args = _parser().parse_args(argv)
    sys.modules.setdefault("rfc3987_syntax", None)  # process.PAPERMILL says why
    try:
        return args.command(args)
    except InputError as error:
        print(f"adlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adlib: stopped", file=sys.stderr)
        return 130


def run(args: argparse.Namespace) -> int:
    from adlib import batch, grid, runs

    reports = runs.reports_dir(args.reports)
    language = args.lang or grid.read(args.grid).lang
    tasks = grid.plan(args.grid, data_root=args.data, reports=str(reports), only=args.only, weights=args.weights)
    code = batch.run(tasks, reports=reports, jobs=args.jobs, dry_run=args.dry_run, force=args.force, timeout_s=args.timeout)
    if args.report and not args.dry_run and code in (0, 1):
        code = max(code, report(argparse.Namespace(reports=args.reports, markdown="", again=False, lang=language)))
    return code


def report(args: argparse.Namespace) -> int:
    from adlib import answers, compare, files, runs, summary, tables
    from adlib import report as pages

    reports = runs.reports_dir(args.reports)
    index = pages.build(reports, again=args.again, language=args.lang)
    table = compare.performance(reports)
    if args.markdown:
        files.write_text(args.markdown, tables.markdown(table, reports))
        print(f"wrote {args.markdown}")
    rows = summary.rows(compare.without_ablations(table), reports)
    print(compare.provenance(table), answers.full(rows), tables.as_text(rows), f"Report: {index.resolve()}", sep="\n\n")
    return 0


def new(args: argparse.Namespace) -> int:
    """A folder of good pictures to a category, a fitted detector and a report, in one go."""
    from adlib import newpart, runs
    from adlib.config import project_root

    root = Path(args.data).expanduser() if args.data else project_root() / "data"
    made = newpart.plan(*(Path(folder) if folder else None for folder in (args.good, args.bad, args.masks)))
    print("\n".join([f"left out: {reason}" for reason in made.left_out] + [f"{args.name}: {newpart.describe(made)}"]))
    if not newpart.create(root, args.name, made):
        print(f"{root / args.name} holds these pictures already; going on with them")
    code = run(argparse.Namespace(grid=project_root() / "params" / "fused.yaml", data=str(root), reports=args.reports, weights=args.weights,
                                  only=f"category={args.name}", jobs=1, dry_run=False, force=False, timeout=3 * 3600.0, report=True,
                                  lang=args.lang))
    folder = runs.reports_dir(args.reports) / "runs" / args.name / "fused" / "seed-0"
    if code == 0:
        print(f"\nTo look at new pictures: adlib predict {folder} FOLDER")
    return code


def predict(args: argparse.Namespace) -> int:
    """One line a picture; 1 if an anomaly was found, 3 if none was, but some picture could not be read."""
    from adlib import predict as rooms
    from adlib import process, reopen

    run, out = reopen.detector(Path(args.run), args.weights), Path(args.out)
    if args.watch and (len(args.pictures) != 1 or not Path(args.pictures[0]).is_dir()):
        raise InputError("--watch looks at one folder; give a folder that is there")
    given = [] if args.watch else rooms.sources([Path(path) for path in args.pictures])
    found = rooms.begin(run, out)
    done = {one.path for one in found}
    due = [source for source in given if str(source.path) not in done]
    with process.stop_signals() as stop:
        coming = rooms.watched(Path(args.pictures[0]), done, stop) if args.watch else due
        for number, one in enumerate(rooms.predict(run, coming, out, ahead=0 if args.watch else rooms.AHEAD), 1):
            print(rooms.line(one), flush=True)
            rooms.progress(number, None if args.watch else len(due))
            found.append(one)
            if stop.is_set():
                break
    rooms.end(run, found, out)
    print(rooms.summary(found, out))
    return rooms.code(found)


def check(args: argparse.Namespace) -> int:
    """One line each: versions, device, data, weights, write access; 1 if a study could not run."""
    from adlib import runs

    ok = True
    print("versions:", ", ".join(f"{name} {version}" for name, version in runs.versions().items()))
    for name, look in (("device", _check_device), ("data", _check_data), ("weights", _check_weights), ("write access", _check_writing)):
        try:
            print(f"{name}: {look(args)}")
        except (InputError, ImportError) as error:
            ok = False
            print(f"{name}: NOT READY: {error}")
    print("ready: a study can run" if ok else "not ready: a study could not run; see the lines marked NOT READY")
    return 0 if ok else 1


def _check_device(args: argparse.Namespace) -> str:
    import torch

    from adlib import train

    return f"{train.pick_device('auto')}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"


def _check_data(args: argparse.Namespace) -> str:
    from adlib import data, datacheck

    root, source = data.find_root(args.data)
    lines, bad = [source], 0
    for name in data.categories(root):
        findings = datacheck.check(data.open_category(root, name))
        lines += [f"  {name}: " + "; ".join(f"{key} {value}" for key, value in findings.rows())]
        lines += [f"    problem: {problem}" for problem in findings.problems()]
        bad += len(findings.unreadable) + bool(findings.label_problem)
    if bad:
        raise InputError("\n".join([*lines, f"  {bad} of these problems would stop a run: unreadable images, or labels that do not fit"]))
    return "\n".join(lines)


def _check_weights(args: argparse.Namespace) -> str:
    from adlib import models
    from adlib.config import Config

    config = Config(model="resnet18", weights=args.weights or "imagenet", weights_fallback=not args.weights)
    weights = models.build(config)[1]
    return weights + (" (the CAE needs none; give a file with --weights PATH)" if weights.startswith("RANDOM") else "")


def _check_writing(args: argparse.Namespace) -> str:
    from adlib import runs
    from adlib.config import cache_dir

    for folder in (runs.reports_dir(args.reports), cache_dir()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(f"cannot write in {folder} ({error.strerror}); make it writable, or set ADLIB_CACHE or --reports") from error
    return f"{runs.reports_dir(args.reports)} and {cache_dir()}"


def data_get(args: argparse.Namespace) -> int:
    from adlib import download

    download.get(args.category, Path(args.root), accept_license=args.accept_license, url=args.url, sha256=args.sha256)
    return 0


def data_synthesize(args: argparse.Namespace) -> int:
    from adlib import synthetic

    root = synthetic.write_dataset(Path(args.root), train=args.train, good=args.good, anomalous=args.anomalous, seed=args.seed,
                                   size=args.size, contrast=args.contrast, pixels=args.pixels)
    print(f"wrote {root}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adlib", description="Find defective parts having seen only good ones.")
    parser.add_argument("--version", action="version", version=f"adlib {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--reports", default="", help="folder of the results (default: reports/ of the project)")
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--data", default="", metavar="PATH", help="folder of the data (default: ADLIB_DATA, data/, else synthetic)")
    source.add_argument("--weights", default="", metavar="PATH", help="ResNet18 weights: imagenet, none, or a state dict's path")

    words = argparse.ArgumentParser(add_help=False)
    words.add_argument("--lang", choices=tuple(LANGUAGES), default="", help="the report's language (default: as last time, else English)")

    one = commands.add_parser("run", parents=[place, source, words], help="run a grid of notebooks: what is due, each in its own process")
    one.add_argument("grid", help="params/study.yaml, params/quick.yaml, or one configuration's file")
    one.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time; they share the cores (default 1)")
    one.add_argument("--only", default="", metavar="KEY=VALUE,...", help="only some runs: category=zipper,config=cae_ssim,seed=0")
    one.add_argument("--dry-run", action="store_true", help="say what would run, and why")
    one.add_argument("--force", action="store_true", help="run what is up to date, too")
    one.add_argument("--timeout", type=float, default=3 * 3600.0, metavar="S", help="time limit of one run in seconds (default 10800)")
    one.add_argument("--report", action="store_true", help="render the report afterwards")
    one.set_defaults(command=run)

    one = commands.add_parser("report", parents=[place, words], help="render the executed notebooks to reports/index.html")
    one.add_argument("--markdown", default="", metavar="FILE", help="write the results as markdown, too (docs/results.md)")
    one.set_defaults(command=report, again=True)

    one = commands.add_parser("new", parents=[place, words], help="your own photographs of good parts to a detector and a report")
    one.add_argument("name", help="what to call the part, such as my-part")
    one.add_argument("--good", required=True, metavar="DIR", help="photographs of good parts: 50 or more")
    one.add_argument("--bad", default="", metavar="DIR", help="photographs of bad ones, if you have any; a subfolder a kind of defect")
    one.add_argument("--masks", default="", metavar="DIR", help="where the defects are: white on black, named like the bad photographs")
    one.add_argument("--data", default="", metavar="PATH", help="where the part's folder is made (default data/ of the project)")
    one.add_argument("--weights", default="", metavar="PATH", help="ResNet18 weights: imagenet, none, or a state dict's path")
    one.set_defaults(command=new)

    one = commands.add_parser("predict", help="new pictures through a finished run's detector; exit code 1: an anomaly was found")
    one.add_argument("run", help="folder of a finished run, such as reports/runs/hazelnut/fused/seed-0")
    one.add_argument("pictures", nargs="+", help="pictures, or folders of pictures")
    one.add_argument("--out", default="predictions", metavar="DIR", help="where tables and overlays go (default predictions/)")
    one.add_argument("--weights", default="", metavar="PATH", help="ResNet18 weights, where they are not where the run found them")
    one.add_argument("--watch", action="store_true", help="go on with whatever is written into the folder, until Ctrl-C")
    one.set_defaults(command=predict)

    one = commands.add_parser("check", parents=[place, source], help="could a study run here? versions, device, data, weights")
    one.set_defaults(command=check)

    sub = commands.add_parser("data", help="get MVTec AD, or draw synthetic data").add_subparsers(required=True, metavar="COMMAND")
    one = sub.add_parser("get", help="download categories of MVTec AD from its official archive")
    one.add_argument("category", nargs="*", help="such as hazelnut zipper; none = all")
    one.add_argument("--root", default="data", help="where to put them (default data/)")
    one.add_argument("--accept-license", action="store_true", help="you have read and accept CC BY-NC-SA 4.0")
    one.add_argument("--url", default=None, help="another address, or the path of an archive already here")
    one.add_argument("--sha256", default=None, help="the hash that archive must have")
    one.set_defaults(command=data_get)
    one = sub.add_parser("synthesize", help="draw the synthetic hazelnut and zipper, with defects and exact masks")
    one.add_argument("--root", default="data/synthetic", help="where to put them (default data/synthetic)")
    for name, default in (("train", 200), ("good", 60), ("anomalous", 100), ("seed", 0), ("pixels", 256)):
        one.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    for name in ("size", "contrast"):
        one.add_argument(f"--{name}", type=float, default=1.0, help=f"{name} of the defects; 1 = like the real ones")
    one.set_defaults(command=data_synthesize)
    return parser


if __name__ == "__main__":
    sys.exit(main())
