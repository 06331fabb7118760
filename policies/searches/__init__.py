"""Searches that give a policy for one budget directly, without indicators: one file each, called by its file name.

A file holds two names; nothing in it imports torch at module level:

- `Settings`: a frozen model (`mixbit.config.Settings`); every setting has a documented default.
- `choose(*, model, layers, pictures, task, settings, search, seed, checkpoint, progress)`:

  - model: the float `nn.Module`, trained; it may be changed.
  - layers: content of layers.json.
  - pictures: `mixbit.training.batches.Pictures`, the proxy, on the model's device.
  - task: `mixbit.training.task.LearningTask`.
  - settings: a `Settings` of this file.
  - search: a `policies.search.Search`: the entries of each layer with their costs, limits and ties; its harm is 0.
  - seed: of all randomness, through `mixbit.training.batches.stream(seed, ...)`.
  - checkpoint: a folder that survives a kill; a started search must end with the same answer.
  - progress: called with (done, total, note).

  It returns (policy, evidence): layer -> entry within all limits and ties; and what led to it, as JSON, with `cost`
  ({forward_passes, backward_passes, samples}, as of indicators). It raises MixbitError when no policy fits.
"""
