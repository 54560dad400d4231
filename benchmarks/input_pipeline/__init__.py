"""Images per second and core of the data pipeline alone, beside tf.data.

    python -m benchmarks.input_pipeline [--images 512] [--peer-python PYTHON] [--json FILE]

Photographs as large as ImageNet's (500 x 375, about 90 kB) are written as TFDS does, and read by
`data.load` as in training: decode, Inception crop, flip, resize to 224, normalise, batch; with and
without RandAugment (4 layers, magnitude 5). TensorFlow does the same crop and flip from TFRecord
files, by the calls of the released Perceiver's own pipeline; without TensorFlow (`--peer-python`: a
Python of another environment that has it) its rows are left out. Each side is a process; they take
turns, and who waits is stopped, with its buffers as full as it left them. Linux only.

`sides` are the processes.
"""
