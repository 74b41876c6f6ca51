"""The command line: adlib new, run, report, predict, export, check, data; what they do is in
adlib.commands."""
from __future__ import annotations

import argparse
import sys

from adlib import __version__, commands
from adlib.config import InputError
from adlib.report.i18n import LANGUAGES


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adlib",
                                     description="Find defective parts having seen only good ones.")
    parser.add_argument("--version", action="version", version=f"adlib {__version__}")
    sub = parser.add_subparsers(required=True, metavar="COMMAND")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--reports", default="",
                       help="folder of the results (default: reports/ of the project)")
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--data", default="", metavar="PATH",
                        help="folder of the data (default: ADLIB_DATA, data/, else synthetic)")
    source.add_argument("--weights", default="", metavar="PATH",
                        help="ResNet18 weights: imagenet, none, or a state dict's path")

    words = argparse.ArgumentParser(add_help=False)
    words.add_argument("--lang", choices=tuple(LANGUAGES), default="",
                       help="the report's language (default: as last time, else English)")

    one = sub.add_parser("run", parents=[place, source, words],
                         help="run a grid of notebooks: what is due, each in its own process")
    one.add_argument("grid",
                     help="params/study.yaml, params/quick.yaml, or one configuration's file")
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
    one.set_defaults(command=commands.run)

    one = sub.add_parser("report", parents=[place, words],
                         help="render the executed notebooks to reports/index.html")
    one.add_argument("--markdown", default="", metavar="FILE",
                     help="write the results as markdown, too (docs/results.md)")
    one.set_defaults(command=commands.report, again=True)

    one = sub.add_parser("new", parents=[place, words],
                         help="your own photographs of good parts to a detector and a report")
    one.add_argument("name", help="what to call the part, such as my-part")
    one.add_argument("--good", required=True, metavar="DIR",
                     help="photographs of good parts: 50 or more")
    one.add_argument("--bad", default="", metavar="DIR",
                     help="photographs of bad ones, if you have any; a subfolder a kind of defect")
    one.add_argument("--masks", default="", metavar="DIR",
                     help="where the defects are: white on black, named like the bad photographs")
    one.add_argument("--data", default="", metavar="PATH",
                     help="where the part's folder is made (default data/ of the project)")
    one.add_argument("--weights", default="", metavar="PATH",
                     help="ResNet18 weights: imagenet, none, or a state dict's path")
    one.set_defaults(command=commands.new)

    one = sub.add_parser(
        "predict",
        help="new pictures through a finished run's detector; exit code 1: an anomaly was found")
    one.add_argument("run",
                     help="folder of a finished run, such as reports/runs/hazelnut/fused/seed-0")
    one.add_argument("pictures", nargs="+", help="pictures, or folders of pictures")
    one.add_argument("--out", default="predictions", metavar="DIR",
                     help="where tables and overlays go (default predictions/)")
    one.add_argument("--weights", default="", metavar="PATH",
                     help="ResNet18 weights, where they are not where the run found them")
    one.add_argument("--watch", action="store_true",
                     help="go on with whatever is written into the folder, until Ctrl-C")
    one.set_defaults(command=commands.predict)

    one = sub.add_parser("export",
                         help="a finished run as one ONNX file, from the picture to the verdict")
    one.add_argument("run", help="folder of a finished run")
    one.add_argument("--onnx", required=True, metavar="FILE", help="the file to write")
    one.add_argument("--weights", default="", metavar="PATH",
                     help="ResNet18 weights, where they are not where the run found them")
    one.set_defaults(command=commands.export)

    one = sub.add_parser("check", parents=[place, source],
                         help="could a study run here? versions, device, data, weights")
    one.set_defaults(command=commands.check)

    sub = sub.add_parser("data", help="get MVTec AD, or draw synthetic data").add_subparsers(
        required=True, metavar="COMMAND")
    one = sub.add_parser("get", help="download categories of MVTec AD from its official archive")
    one.add_argument("category", nargs="*", help="such as hazelnut zipper; none = all")
    one.add_argument("--root", default="data", help="where to put them (default data/)")
    one.add_argument("--accept-license", action="store_true",
                     help="you have read and accept CC BY-NC-SA 4.0")
    one.add_argument("--url", default=None,
                     help="another address, or the path of an archive already here")
    one.add_argument("--sha256", default=None, help="the hash that archive must have")
    one.set_defaults(command=commands.data_get)
    one = sub.add_parser(
        "synthesize", help="draw the synthetic hazelnut and zipper, with defects and exact masks")
    one.add_argument("--root", default="data/synthetic",
                     help="where to put them (default data/synthetic)")
    for name, default in (("train", 200), ("good", 60), ("anomalous", 100), ("seed", 0), ("pixels",
                                                                                          256)):
        one.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    for name in ("size", "contrast"):
        one.add_argument(f"--{name}", type=float, default=1.0,
                         help=f"{name} of the defects; 1 = like the real ones")
    one.set_defaults(command=commands.data_synthesize)
    return parser


if __name__ == "__main__":
    sys.exit(main())
