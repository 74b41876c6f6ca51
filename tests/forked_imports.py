"""What tests/forked.py forks from: everything that a batch, its notebooks and its report import,
and the templates that they fill."""
import gc
import os

import IPython.core.interactiveshell  # noqa: F401
import matplotlib_inline.backend_inline  # noqa: F401
import pandas.io.formats.style  # noqa: F401
import sklearn.manifold  # noqa: F401
import torch
import torch._dynamo
from PIL import Image

import adlib.cli
import adlib.report.explore
import adlib.report.readiness
import adlib.report.run_page
import adlib.report.study
import adlib.report.words.answers
import adlib.runs.batch
import adlib.runs.predictions  # noqa: F401
import tests.forked  # noqa: F401
from adlib.report.display import render
from adlib.report.pages import site
from adlib.runs import freshness
from adlib.runs.engines import warm

warm.prepare_papermill()
warm._import([])
freshness.numeric_code()
Image.init()
for name in render._environment().list_templates(["j2"]):
    render._environment().get_template(name)
for name in ("index.html.j2", "run.html.j2"):
    exporter = site._exporter(name)
    exporter.environment.filters |= {"highlight_code": str, "filter_data_type": str}  # a page's own
    assert exporter.template

# torch makes its pool of threads anew in what is forked once tests/forked.py has set their number:
# two threads that ask for it at once find none ("Invalid thread pool!"), so one asks before.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(torch.get_num_threads()))

gc.freeze()
