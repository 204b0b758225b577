"""Comparing models on data sets: `anomalib-lamp compare`."""
