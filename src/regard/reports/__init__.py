"""One self-contained HTML file about a run, scores, or a map."""
