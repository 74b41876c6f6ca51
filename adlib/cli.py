"""The command line. What a command needs is imported there, so that --help is quick."""
from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import typing
from pathlib import Path

from adlib import __version__
from adlib.config import LANGUAGES, InputError, deprecated, log, show_log

if typing.TYPE_CHECKING:
    from adlib.runs.engines.local import Local
    from adlib.runs.inference import Reopened


def main(argv: list[str] | None = None) -> int:
    """Parse, call, and turn an InputError into one sentence on stderr and exit code 2."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a pipe of Windows has not all characters
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    show_log()
    sys.modules.setdefault("rfc3987_syntax", None)  # warm.prepare_papermill says why
    try:
        return args.command(args)
    except InputError as error:
        print(f"adlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adlib: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read this has seen enough: adlib predict ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
        return 141


def run(args: argparse.Namespace, prepared: Local | None = None) -> int:
    """Run a grid; 1 if something failed, 130 if it was stopped."""
    from adlib.runs import batch, grid, run_folder
    from adlib.runs.engines import dask, local

    if args.cluster and args.jobs != 1:
        raise InputError("--jobs is for this machine; how many runs a cluster takes at a time is "
                         "its workers' to say")
    reports = run_folder.reports_dir(args.reports)
    # a cluster's workers have their own environment
    where = args.data or (os.environ.get("ADLIB_DATA", "") if args.cluster else "")
    tasks = grid.plan(args.grid, data_root=where, reports=str(reports), only=args.only,
                      weights=args.weights, exclude=args.exclude)
    language = args.lang or grid.read(args.grid).lang
    with contextlib.ExitStack() as after:
        engine = prepared or local.Local(args.jobs)
        if args.cluster and not args.dry_run:
            engine = dask.Cluster(args.cluster, reports)
        after.callback(engine.close)
        live_report = None
        if args.report and not args.dry_run:
            from adlib.report.pages.live_report import LiveReport

            live_report = after.enter_context(contextlib.closing(LiveReport(reports, language)))
        code = batch.run(tasks, engine, reports=reports, dry_run=args.dry_run, force=args.force,
                         timeout_s=args.timeout, notify=live_report)
    if code == 1 and args.report and not (reports / "comparison.ipynb").is_file():
        print("no report: the comparison itself failed; the same command tries it again")
    elif args.report and not args.dry_run and code in (0, 1):
        _report(reports, language=language, only={task.params.get("category") for task in tasks})
    return code


def report(args: argparse.Namespace) -> int:
    """Render the pages, and print what they say in short; or a page of predictions."""
    from adlib.runs import run_folder

    if args.use:
        from adlib.report.pages import use_report

        print(f"Report of use: {use_report.build(Path(args.use), args.lang)}")
        return 0
    _report(run_folder.reports_dir(args.reports), language=args.lang, markdown=args.markdown,
            pages=args.pages)
    return 0


def _report(reports: Path, *, language: str, markdown: str = "", pages: str = "",
            only: typing.Collection[str | None] = ()) -> None:
    from adlib.data import files
    from adlib.report import ranking, study
    from adlib.report.display import matrix
    from adlib.report.pages import report_copy, site
    from adlib.report.words import answers
    from adlib.runs import forecast, terminal

    log.info("drawing the pages")
    index = site.build(reports, again=not only, language=language)  # a batch's are drawn already
    seen = study.Study(reports, only)
    if markdown:
        files.write_text(markdown, seen.markdown())
        print(f"wrote {markdown}")
    if pages:
        print(f"copied the pages to {pages}, {report_copy.copy(reports, Path(pages)) / 1e6:.1f} MB")
    by_category = [ranking.answer(seen.rows, category) for category in seen.categories]
    print("", terminal.closing_table(matrix.closing(seen.rows)), "", sep="\n")
    print(*map(answers.short, by_category), f"\nReport: {forecast.near(index)}", sep="\n")
    done = seen.table.loc[seen.table["status"] == "finished", "folder"]
    for folder in [*(one.best["folder"] for one in by_category if one.best), *done][:1]:
        print(f"Next: adlib predict {shlex.quote(forecast.near(reports / folder))} FOLDER")


def new(args: argparse.Namespace) -> int:
    """A folder of good pictures to a category, a fitted detector and a report, in one go."""
    from adlib.config import Config, project_root, study_root
    from adlib.data import images, importer
    from adlib.evaluation.conformal import min_calibration_size
    from adlib.runs import freshness, grid
    from adlib.runs.engines import local

    best = study_root() / "params" / "configurations" / "fused.yaml"
    fused = grid.read(best).configs["fused"]  # before anything is copied
    root = Path(args.data).expanduser() if args.data else project_root() / "data"
    importer.check_name(args.name)
    made = importer.plan(*(Path(folder) if folder else None
                           for folder in (args.good, args.bad, args.masks)))
    importer.check_excluded(Config(exclude=args.exclude).excluded, args.name, made)
    for reason in made.left_out:
        print(f"left out: {reason}")
    print(f"{args.name}: {importer.describe(made)}")
    needed = min_calibration_size(fused.get("target_fpr", Config().target_fpr))
    if more := importer.missing(made, needed):
        print("They are too few for a threshold: pictures will be ranked by their scores, and none "
              f"is called anomalous. It takes {more} more good pictures.")
    if grey_range := images.grey_range(made.sources("train/")):
        print("They have more than 8 bits: values of {:g} to {:g} become 0 to 255.".format(
            *grey_range))
    with contextlib.closing(local.Local(1)) as engine:
        engine.prepare(study_root() / "notebooks" / freshness.notebook_of(fused["model"]))
        from adlib.models import backbone
        from adlib.report import readiness

        weights = {"weights": os.path.expanduser(args.weights)} if args.weights else {}
        backbone.load_backbone(Config.from_mapping(fused | weights))  # before anything is copied
        if not importer.create(root, args.name, made):
            print(f"{root / args.name} holds these pictures already; going on with them")
        if not args.exclude:
            print(readiness.suspects_of(root, args.name, args.weights, args.reports, args.lang))
        words = ["run", str(best), "--report", "--data", str(root), "--only",
                 f"category={args.name}"]
        for option in ("reports", "weights", "lang", "exclude"):
            words += [f"--{option}", value] if (value := getattr(args, option)) else []
        return run(_parser().parse_args(words), engine)


def predict(args: argparse.Namespace) -> int:
    """One line a picture; the exit code is predictions.exit_code."""
    from adlib.report.words import use_sentences
    from adlib.runs import predictions, terminal, watch
    from adlib.runs.engines import local
    from adlib.runs.prediction_record import Record

    run, given = _reopened(args), [Path(path) for path in args.pictures]
    if args.target_fpr is not None:
        run = run.at(args.target_fpr)
    if args.watch and (len(given) != 1 or not given[0].is_dir()):
        raise InputError(f"--watch looks at one folder, and {shlex.join(map(str, given))} is "
                         "none; give a folder that is there")
    warned, printed, due = False, 0, [] if args.watch else predictions.sources(given)
    bar = terminal.progress_bar()
    with local.stop_signals() as stop, Record(run, Path(args.out)) as record, bar:
        if args.watch:
            print(f"watching {given[0]}, {len(record.latest)} pictures known; Ctrl-C ends",
                  flush=True)
        coming = watch.watched(given[0], record, stop) if args.watch else bar.track(due)
        ahead, overlaid = 0 if args.watch else predictions.AHEAD, not args.no_overlays
        for latest in predictions.predict(record, coming, stop, ahead=ahead, overlaid=overlaid):
            print(terminal.prediction_line(latest), flush=True)
            printed += 1
            if record.changed and not warned:
                print(use_sentences.warning(record), flush=True)
                warned = True
    if due and not printed and not stop.is_set():
        print(f"all of these pictures have a row in {args.out} already")
    print(terminal.predictions_summary(record), *filter(None, [use_sentences.warning(record)]),
          sep="\n")
    if stop.is_set() and not args.watch:
        print("adlib: stopped before the last picture; the same command goes on from here",
              file=sys.stderr)
        return 130
    return predictions.exit_code(record)


def recalibrate(args: argparse.Namespace) -> int:
    """A new threshold from good pictures taken as they are taken now."""
    from adlib.runs import predictions, recalibration

    given = predictions.sources([Path(path) for path in args.pictures])
    run = recalibration.recalibrate(Path(args.run), given, Path(args.out))
    print(f"wrote {args.out}: threshold {run.threshold.value:.6g} from {len(given)} pictures\n"
          f"To look at new pictures: {shlex.join(['adlib', 'predict', args.out])} FOLDER")
    return 0


def _reopened(args: argparse.Namespace) -> Reopened:
    from adlib.runs import inference

    if args.weights:
        deprecated("--weights here, since a run keeps its own")
    return inference.reopen(Path(args.run))


def export(args: argparse.Namespace) -> int:
    """Write a finished run as one ONNX file."""
    from adlib.runs import onnx_export, run_folder

    run, about = _reopened(args), run_folder.manifest(Path(args.run))
    config = run.config
    onnx_export.export(run, Path(args.onnx), {
        "configuration": config.name, "category": config.category, "seed": config.seed,
        "weights": about["weights"], "data": about["data"]["fingerprint"], "git": about["git"]})
    rounded = ("; the run scores in bf16, and its scores may differ in the third digit"
               if about.get("precision") == "bf16" else "")
    print(f"wrote {args.onnx}: {run.decision.score} of {config.category} {config.name}, pictures "
          f"of any size, threshold {run.threshold.value:.6g}{rounded}")
    if run.detector.tile:
        print(f"it takes squares: {onnx_export.script_beside(Path(args.onnx))} cuts pictures and "
              "stitches maps, and does not ask whether a picture shows the part at all")
    return 0


def check(args: argparse.Namespace) -> int:
    """One line each on what a study needs; 1 if one could not run, 0 otherwise."""
    if args.detector:
        return _check_detector(args)
    from adlib.report import readiness

    ready = True
    for name, ok, said in readiness.checks(args.data, args.weights, args.reports):
        ready &= ok
        print(f"{name}: {said}" if ok else f"{name}: NOT READY: {said}")
    print("ready: a study can run" if ready else
          "not ready: a study could not run; see the lines marked NOT READY")
    return 0 if ready else 1


def _check_detector(args: argparse.Namespace) -> int:
    from adlib.config import Config
    from adlib.models import contract

    given, failed = contract.named(args.detector), 0
    for finding in contract.check(given, Config(options=args.options).options):
        bad = not finding.ok and finding.needed
        failed += bad
        print(f"{'ok  ' if finding.ok else 'FAIL' if bad else 'note'}  {finding.requirement}"
              + (f": {finding.advice}" if finding.advice else ""))
    print("not ready: see the lines marked FAIL, and docs/your_detector.md" if failed else
          f"ready: give model: {given} in a configuration")
    return int(failed > 0)


def data_get(args: argparse.Namespace) -> int:
    """Download categories of MVTec AD."""
    from adlib.data import mvtec

    mvtec.get(args.category, Path(args.root), accept_license=args.accept_license, url=args.url,
              sha256=args.sha256)
    return 0


def data_synthesize(args: argparse.Namespace) -> int:
    """Draw the synthetic data set."""
    from adlib.data.synthetic import drawing

    root = drawing.write_dataset(Path(args.root), **{
        name: value for name, value in vars(args).items() if name not in ("command", "root")})
    print(f"wrote {root}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adlib", description="Find defective parts having seen only good ones.")
    parser.add_argument("--version", action="version", version=f"adlib {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = {
        "run": {"help": "a run's folder, such as reports/runs/hazelnut/fused/seed-0"},
        "--reports": {"help": "folder of the results (default: reports/ of the project)"},
        "--data": {"metavar": "PATH", "help": "folder of the data (default: ADLIB_DATA, data/, "
                                              "else synthetic)"},
        "--weights": {"metavar": "PATH", "help": "ResNet18 weights: imagenet, none, or a state "
                      "dict's path (default: what the configuration says)"},
        "--exclude": {"metavar": "FILE", "help": "a list of good training pictures to leave out, "
                                                 "one a line"},
        "--lang": {"choices": LANGUAGES, "help": "the report's language (default: as last time, "
                                                 "else English)"}}

    def command(name: str, do: typing.Callable[[argparse.Namespace], int], said: str, *flags: str,
                among: typing.Any = commands) -> argparse.ArgumentParser:
        one = among.add_parser(name, help=said)
        one.set_defaults(command=do)
        for flag in flags:
            one.add_argument(flag, default="", **shared[flag])
        return one

    one = command("run", run, "run a grid of notebooks: what is due, each in its own process",
                  "--reports", "--data", "--weights", "--lang", "--exclude")
    one.add_argument("grid", help="params/grids/reference.yaml, params/grids/quick.yaml, or one "
                                  "configuration's file")
    one.add_argument("--jobs", type=int, default=1, metavar="N",
                     help="runs at a time; they share the cores (default 1)")
    one.add_argument("--cluster", default="", metavar="ADDRESS",
                     help="run on a Dask cluster, such as tcp://head:8786 (docs/cluster.md)")
    one.add_argument("--only", default="", metavar="KEY=VALUE,...",
                     help="only some runs: category=zipper,config=cae_ssim,seed=0")
    one.add_argument("--dry-run", action="store_true", help="say what would run, and why")
    one.add_argument("--force", action="store_true", help="run what is up to date, too")
    one.add_argument("--timeout", type=float, default=3 * 3600.0, metavar="S",
                     help="time limit of one run in seconds (default 10800)")
    one.add_argument("--report", action="store_true", help="render the report afterwards")

    one = command("report", report, "render the executed notebooks to reports/index.html",
                  "--reports", "--lang")
    one.add_argument("--markdown", default="", metavar="FILE",
                     help="write the results as markdown, too (docs/results.md)")
    one.add_argument("--use", default="", metavar="DIR",
                     help="instead, a page of a folder of predictions")
    one.add_argument("--pages", default="", metavar="DIR",
                     help="copy the pages there, to be passed on, without what a run needs")

    one = command("new", new, "your own photographs of good parts to a detector and a report",
                  "--reports", "--weights", "--lang", "--exclude")
    one.add_argument("name", help="what to call the part, such as my-part")
    one.add_argument("--good", required=True, metavar="DIR",
                     help="photographs of good parts: 50 or more")
    one.add_argument("--bad", default="", metavar="DIR",
                     help="photographs of bad ones, if you have any; a subfolder a kind of defect")
    one.add_argument("--masks", default="", metavar="DIR",
                     help="where the defects are: white on black, named like the bad photographs")
    one.add_argument("--data", default="", metavar="PATH",
                     help="where the part's folder is made (default data/ of the project)")

    one = command("predict", predict, "new pictures through a finished run's detector; exit code "
                                      "1: an anomaly was found; else 4: a picture does not show "
                                      "the part; else 5: the conditions have changed; else 3: one "
                                      "is unreadable; 2: called wrongly",
                  "run", "--weights")
    one.add_argument("pictures", nargs="+", help="pictures, or folders of pictures")
    one.add_argument("--out", default="predictions", metavar="DIR",
                     help="where tables and overlays go (default predictions/)")
    one.add_argument("--no-overlays", action="store_true", help="tables alone")
    one.add_argument("--watch", action="store_true",
                     help="go on with whatever is written into the folder, until Ctrl-C "
                          "(docs/in_use.md)")
    one.add_argument("--target-fpr", type=float, default=None, metavar="SHARE",
                     help="share of good parts that may be refused (default: the run's own)")

    one = command("recalibrate", recalibrate, "a finished run's threshold anew, from good pictures "
                                              "taken after a change", "run")
    one.add_argument("pictures", nargs="+", help="good pictures, or folders of them: 40, say")
    one.add_argument("--out", default="recalibrated", metavar="DIR",
                     help="the new run's folder (default recalibrated/)")

    one = command("export", export, "a finished run as one ONNX file, from the picture to the "
                                    "verdict", "run", "--weights")
    one.add_argument("--onnx", required=True, metavar="FILE", help="the file to write")

    one = command("check", check, "could a study run here? versions, device, data, weights; or: "
                                  "does a detector of your own keep its contract?",
                  "--reports", "--data", "--weights")
    one.add_argument("detector", nargs="?", default="", metavar="FILE.py[:CLASS]")
    one.add_argument("--options", default="", help="of its constructor, as YAML or JSON")

    datasets = commands.add_parser(
        "data", help="get MVTec AD, or draw synthetic data").add_subparsers(
            required=True, metavar="COMMAND")
    one = command("get", data_get, "download categories of MVTec AD from its official archive",
                  among=datasets)
    one.add_argument("category", nargs="*", help="such as hazelnut zipper; none = all")
    one.add_argument("--root", default="data", help="where to put them (default data/)")
    one.add_argument("--accept-license", action="store_true",
                     help="you have read and accept CC BY-NC-SA 4.0")
    one.add_argument("--url", default=None,
                     help="another address, or the path of an archive already here")
    one.add_argument("--sha256", default=None, help="the hash that archive must have")
    one = command("synthesize", data_synthesize, "draw the synthetic hazelnut and zipper, with "
                                                 "defects and exact masks", among=datasets)
    one.add_argument("--root", default="data/synthetic",
                     help="where to put them (default data/synthetic)")
    for name, count in (("train", 200), ("good", 60), ("anomalous", 100), ("seed", 0),
                        ("pixels", 256), ("across", 1), ("down", 1)):
        one.add_argument(f"--{name}", type=int, default=count, help=f"default {count}")
    for name in ("size", "contrast"):
        one.add_argument(f"--{name}", type=float, default=1.0,
                         help=f"{name} of the defects; 1 = like the real ones")
    return parser


if __name__ == "__main__":
    sys.exit(main())
