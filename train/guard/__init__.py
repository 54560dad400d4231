"""What a run survives: non-finite steps, spikes, hangs, preemption, broken examples.

Imports `devices`.
"""
