"""Policies to compare against: one file each."""
