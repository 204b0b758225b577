"""Comparing models on data sets: `anomalib-lamp compare` and `anomalib-lamp report`."""
