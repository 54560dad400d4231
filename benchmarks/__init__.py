"""Benchmarks: each prints what it finds; `--help` tells its options, `--smoke` mostly among them.

    python -m benchmarks.attention      cross-attends at the papers' sizes, every path
    python -m benchmarks.models         whole models, training memory and compile time
    python -m benchmarks.scaling        memory and time from a thousand to a million inputs, a PNG
    python -m benchmarks.training_step  a whole training step beside Hugging Face's PyTorch
    python -m benchmarks.report         the tables of RESULTS.md from the JSON files
    python -m benchmarks.compile_step   compile time and memory of full-size training steps
    python -m benchmarks.collectives    what a step exchanges on 8 devices, beside the theory
    python -m benchmarks.plan           memory and time of 256 chips, on paper
    python -m benchmarks.loop_overhead  what the training loop costs beside the step
    python -m benchmarks.input_pipeline images per second and core, beside tf.data
    python -m benchmarks.chaos          kills runs by the hundred, and looks for lost steps and bits
    python -m benchmarks.compare        Perceivers beside what people use in their place, a page
    python -m benchmarks.deepnet        1,000 layers: training, updates and memory against depth
    python -m benchmarks.performer      random features: errors, time and memory, a model swapped
    python -m benchmarks.sentences      embeddings of docstrings: retrieval, with three seeds
    python -m benchmarks.most_similar   the most similar of 10,000 sentences, by embeddings or pairs
    python -m benchmarks.clip_pipeline  clips per second and core, beside OpenCV's VideoCapture

The baseline is `dense`: DeepMind's formulas, as written in the papers. `measure` times and weighs,
`floor` counts operations on paper, `table` prints and records.
"""
