"""Datasets, splits and proxy subsets."""
