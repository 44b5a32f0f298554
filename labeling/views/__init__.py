"""Pages of the labeling site, one file for each kind of work."""
