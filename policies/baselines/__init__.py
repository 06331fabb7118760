"""Policies to compare a searched one with: one file each, named in YAML by its file name.

A file holds two names; nothing in it imports torch:

- `HARM`: which table of indicators.json fills `Search.table`: `layers` (what the search read), `initial` (the same
  before anything was trained), or None for a baseline that reads no indicators: it gets the candidates only.
- `choose(policy, layers, search)` -> layer -> entry. policy is what the baseline is compared with, layers the content
  of layers.json, search a `policies.search.Search`. It raises MixbitError when it finds no policy.
"""
