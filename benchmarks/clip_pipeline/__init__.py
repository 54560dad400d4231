"""Clips per second and core of the data pipeline alone, beside OpenCV's VideoCapture.

    python -m benchmarks.clip_pipeline [--clips 64] [--hours 10] [--json FILE]

Clips of ten seconds (see `files`) are read by `data.load` as AudioSet is in training: a random
window of 32 frames, their crop, flip and colour, resized to 224, and its sound. A loader that opens
the MP4 files by VideoCapture does the same crop, flip and resize; neither it nor "picture alone"
has colour and sound. Each side is a process; they take turns, and who waits is stopped. Then the
parts of our side are timed in turn on one thread, and memory is watched over many hours of clips:
while they are read for training, and while they are prepared (small ones, one file by many names).
Linux only.

`files` writes the clips, `sides` are the processes.
"""
