"""Speed and memory of regard, beside the usual ways to compute the same. Run: ``python -m benchmarks``."""
