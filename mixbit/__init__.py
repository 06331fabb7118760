"""Numerics and values of mixed-precision quantization; importable without Prefect, DVC or MLflow."""
