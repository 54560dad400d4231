"""What a run writes for people: progress, metrics, speed, profiles, pictures, samples.

Imports `devices` and `objective`.
"""
