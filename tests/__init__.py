"""Imported before any test, and before what tests fork from."""
import gc
import sys

# as a batch does (warm.prepare_papermill): seconds of a grammar for addresses that nobody has
sys.modules.setdefault("rfc3987_syntax", None)
# and a third of the time of all imports (warm.serve), until conftest.py or forked.py enables it
gc.disable()
