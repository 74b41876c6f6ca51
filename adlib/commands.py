"""What each command of the command line does: a few calls into the rooms, imported where they are
needed so that --help is quick."""
from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from adlib.config import InputError


def run(args: argparse.Namespace) -> int:
    from adlib.runs import batch, grid, run_folder
    from adlib.runs.engines import dask, process

    if args.cluster and args.jobs != 1:
        raise InputError(
            "--jobs is for this machine; how many runs a cluster takes at a time is its workers' "
            "to say")
    reports = run_folder.reports_dir(args.reports)
    language = args.lang or grid.read(args.grid).lang
    # a cluster's workers have their own environment
    where = args.data or (os.environ.get("ADLIB_DATA", "") if args.cluster else "")
    tasks = grid.plan(args.grid, data_root=where, reports=str(reports), only=args.only,
                      weights=args.weights)
    with contextlib.ExitStack() as after:
        engine = process.Local(args.jobs)
        if args.cluster and not args.dry_run:
            engine = dask.Cluster(args.cluster, reports)
            after.callback(engine.close)
        code = batch.run(tasks, engine, reports=reports, dry_run=args.dry_run, force=args.force,
                         timeout_s=args.timeout)
    if code == 1 and args.report and not (reports / "comparison.ipynb").is_file():
        print("no report: the comparison itself failed; the same command tries it again")
    elif args.report and not args.dry_run and code in (0, 1):
        code = max(
            code,
            report(argparse.Namespace(reports=args.reports, markdown="", again=False,
                                      lang=language)))
    return code


def report(args: argparse.Namespace) -> int:
    from adlib.data import files
    from adlib.report import answers, comparison, summary, tables
    from adlib.report import site as pages
    from adlib.runs import run_folder

    reports = run_folder.reports_dir(args.reports)
    index = pages.build(reports, again=args.again, language=args.lang)
    table = comparison.performance(reports)
    if args.markdown:
        files.write_text(args.markdown, tables.markdown(table, reports))
        print(f"wrote {args.markdown}")
    rows = summary.rows(comparison.without_ablations(table), reports)
    print(comparison.provenance(table), answers.full(rows), tables.as_text(rows),
          f"Report: {index.resolve()}", sep="\n\n")
    return 0


def new(args: argparse.Namespace) -> int:
    """A folder of good pictures to a category, a fitted detector and a report, in one go."""
    from adlib.config import project_root
    from adlib.data import importer
    from adlib.runs import run_folder

    root = Path(args.data).expanduser() if args.data else project_root() / "data"
    made = importer.plan(*(Path(folder) if folder else None
                           for folder in (args.good, args.bad, args.masks)))
    print("\n".join([f"left out: {reason}"
                     for reason in made.left_out] + [f"{args.name}: {importer.describe(made)}"]))
    if not importer.create(root, args.name, made):
        print(f"{root / args.name} holds these pictures already; going on with them")
    code = run(
        argparse.Namespace(grid=project_root() / "params" / "fused.yaml", data=str(root),
                           reports=args.reports, weights=args.weights, only=f"category={args.name}",
                           jobs=1, cluster="", dry_run=False, force=False, timeout=3 * 3600.0,
                           report=True, lang=args.lang))
    folder = run_folder.reports_dir(args.reports) / "runs" / args.name / "fused" / "seed-0"
    if code == 0:
        print(f"\nTo look at new pictures: adlib predict {folder} FOLDER")
    return code


def predict(args: argparse.Namespace) -> int:
    """One line a picture; 1 if an anomaly was found, 3 if none was, but some picture could not be
    read."""
    from adlib.runs import predict as rooms
    from adlib.runs import reopen
    from adlib.runs.engines import process

    run, out = reopen.detector(Path(args.run), args.weights), Path(args.out)
    if args.watch and (len(args.pictures) != 1 or not Path(args.pictures[0]).is_dir()):
        raise InputError("--watch looks at one folder; give a folder that is there")
    given = [] if args.watch else rooms.sources([Path(path) for path in args.pictures])
    found = rooms.begin(run, out)
    done = {one.path for one in found}
    due = [source for source in given if str(source.path) not in done]
    with process.stop_signals() as stop:
        coming = rooms.watched(Path(args.pictures[0]), done, stop) if args.watch else due
        for number, one in enumerate(
                rooms.predict(run, coming, out, ahead=0 if args.watch else rooms.AHEAD), 1):
            print(rooms.line(one), flush=True)
            rooms.progress(number, None if args.watch else len(due))
            found.append(one)
            if stop.is_set():
                break
    rooms.end(run, found, out)
    print(rooms.summary(found, out))
    if stop.is_set() and not args.watch:
        print("adlib: stopped before the last picture; the same command goes on from here",
              file=sys.stderr)
        return 130
    return rooms.code(found)


def export(args: argparse.Namespace) -> int:
    from adlib.runs import export as room
    from adlib.runs import reopen, run_folder

    run, about = reopen.detector(Path(args.run), args.weights), run_folder.manifest(Path(args.run))
    room.onnx(
        run, Path(args.onnx), {
            "configuration": run.config.name, "category": run.config.category,
            "seed": run.config.seed, "weights": about["weights"],
            "data": about["data"]["fingerprint"], "git": about["git"]
        })
    print(f"wrote {args.onnx}: {run.score} of {run.config.category} {run.config.name}, input "
          f"{run.config.image_size} px, threshold "
          f"{run.threshold:.6g}" +
          ("; computed in float32, the run in bf16: scores may differ in the third digit" if about.
           get("precision") == "bf16" else ""))
    return 0


def check(args: argparse.Namespace) -> int:
    """One line each: versions, device, data, weights, write access; 1 if a study could not run."""
    from adlib.runs import provenance

    ok = True
    print("versions:", ", ".join(
        f"{name} {version}" for name, version in provenance.versions().items()))
    for name, look in (("device", _check_device), ("data", _check_data),
                       ("weights", _check_weights), ("write access", _check_writing)):
        try:
            print(f"{name}: {look(args)}")
        except (InputError, ImportError) as error:
            ok = False
            print(f"{name}: NOT READY: {error}")
    print("ready: a study can run"
          if ok else "not ready: a study could not run; see the lines marked NOT READY")
    return 0 if ok else 1


def _check_device(args: argparse.Namespace) -> str:
    import torch

    from adlib.models import training

    return f"{training.pick_device('auto')}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"


def _check_data(args: argparse.Namespace) -> str:
    from adlib.data import layout, quality
    from adlib.report import data_sentences

    root, rule = layout.find_root(args.data)
    lines, bad = [data_sentences.data_source(rule, root.resolve().name)], 0
    for name in layout.categories(root):
        findings = quality.check(layout.open_category(root, name))
        rows = data_sentences.findings_rows(findings)
        lines += [f"  {name}: " + "; ".join(f"{key} {value}" for key, value in rows)]
        lines += [f"    problem: {problem}"
                  for problem in data_sentences.findings_problems(findings)]
        bad += len(findings.unreadable) + bool(findings.label_problem)
    if bad:
        raise InputError("\n".join([
            *lines,
            f"  {bad} of these problems would stop a run: unreadable images, or labels that do "
            f"not fit"
        ]))
    return "\n".join(lines)


def _check_weights(args: argparse.Namespace) -> str:
    from adlib.config import Config
    from adlib.models import autoencoders

    config = Config(model="resnet18", weights=args.weights or "imagenet",
                    weights_fallback=not args.weights)
    weights = autoencoders.build(config)[1]
    return weights + (" (the CAE needs none; give a file with --weights PATH)"
                      if weights.startswith("RANDOM") else "")


def _check_writing(args: argparse.Namespace) -> str:
    from adlib.config import cache_dir
    from adlib.runs import run_folder

    for folder in (run_folder.reports_dir(args.reports), cache_dir()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(
                f"cannot write in {folder} ({error.strerror}); make it writable, or set "
                f"ADLIB_CACHE or --reports") from error
    return f"{run_folder.reports_dir(args.reports)} and {cache_dir()}"


def data_get(args: argparse.Namespace) -> int:
    from adlib.data import mvtec

    mvtec.get(args.category, Path(args.root), accept_license=args.accept_license, url=args.url,
              sha256=args.sha256)
    return 0


def data_synthesize(args: argparse.Namespace) -> int:
    from adlib.data.synthetic import drawing

    root = drawing.write_dataset(Path(
        args.root), train=args.train, good=args.good, anomalous=args.anomalous, seed=args.seed,
                                 size=args.size, contrast=args.contrast, pixels=args.pixels)
    print(f"wrote {root}")
    return 0
