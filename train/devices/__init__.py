"""Devices and hosts: meshes, shardings, the three placements, the processes of a job.

Imports nothing else of `train`.
"""
