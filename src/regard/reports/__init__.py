"""Reports of runs, scores, class maps and data sets as self-contained HTML files."""
