"""Sensitivity indicators: one file each, named in YAML by its file name.

A file holds two names; nothing in it imports torch at module level:

- `Settings`: a frozen model (`mixbit.config.Settings`); every setting has a documented default.
- `compute_indicators(*, model, layers, pictures, task, settings, num_bits, searched, seed, checkpoint, progress)`:

  - model: the float `nn.Module`, trained; it may be changed.
  - layers: content of layers.json.
  - pictures: `mixbit.training.batches.Pictures`, the proxy, on the model's device.
  - task: `mixbit.training.task.LearningTask`.
  - settings: a `Settings` of this file.
  - num_bits: candidates, ascending, `float` last if it is one of them.
  - searched: names of the layers to judge; every other layer stays float.
  - seed: of all randomness, through `mixbit.training.batches.stream(seed, ...)`.
  - checkpoint: a folder that survives a kill; a started run must end with the same bytes.
  - progress: called with (done, total, note).

  It returns (indicators, tensors). indicators: `layers` (layer -> {weight, activation} -> num_bits as text, and
  always `float` = 0.0 -> harm; finite, not negative, never rising with num_bits; activations as
  `mixbit.indicators.share_activations` leaves them), `raw` (the same before repair), `repairs`, `cost`
  ({forward_passes, backward_passes, samples}: pictures that went forward, each time anew; calibration is not counted),
  and `step_movement` ({} where nothing is learned). `mixbit.indicators.measured` makes all but `cost` of a plain table.
  Where harm is learned, `initial` is that table as it was before, for the baseline statistics_init_only, and the file
  says `INITIAL = True`. What else a method found may stand beside them, as JSON.
  tensors: a super-net's state_dict to start fine-tuning from, or {}.
"""
