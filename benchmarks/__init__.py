"""Speed and memory of regard, next to the usual ways to compute the same: ``python -m benchmarks``."""

from __future__ import annotations

import argparse


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m benchmarks NAME``, whose help is the docstring of the benchmark's file."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python -m benchmarks {name}", description=about, formatter_class=form)
