"""Side by side with peers; ratios within one run, never across runs."""
