"""Pictures, video and sound on the host: files, windows, tiles, flow pictures, class labels.

Imports numpy, Pillow and, where a video file is opened, PyAV.
"""
