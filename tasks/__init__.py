"""The stages: one file each, named by the artifact it makes."""
