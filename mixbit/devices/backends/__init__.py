"""Runtimes that a device can measure with: one file each, by the protocol of `mixbit.devices.backend`."""
