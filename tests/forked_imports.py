"""What tests/forked.py forks from: everything that a batch, its notebooks and its report import."""
import IPython.core.interactiveshell  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import torch._dynamo  # noqa: F401

import adlib.cli
import adlib.report.answers
import adlib.report.explore
import adlib.report.readiness
import adlib.report.run_page
import adlib.report.site
import adlib.report.study
import adlib.runs.batch
import adlib.runs.predictions  # noqa: F401
import tests.forked  # noqa: F401
from adlib.runs import freshness
from adlib.runs.engines import warm

warm.prepare_papermill()
warm._import([])
freshness.numeric_code()
