"""Imported before any test, and before what tests fork from."""
import sys

# as a batch does (warm.prepare_papermill): seconds of a grammar for addresses that nobody has
sys.modules.setdefault("rfc3987_syntax", None)
