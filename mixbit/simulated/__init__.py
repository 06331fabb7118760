"""Simulated latency: one file for each model, its name is the model's. None of them measures anything."""
