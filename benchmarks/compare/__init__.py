"""How a Perceiver does beside what people would use in its place, on data that is everywhere.

    python -m benchmarks.compare [--only little lengths time] [--smoke] [--folder runs/compare]

  models       the contenders, all of about the same number of parameters
  trial        one training within an experiment of the project
  little_data  accuracy against the number of training examples, digits
  lengths      time and memory of a training step against the number of inputs
  equal_time   accuracy, or bits of masked bytes, after equal CPU time, against the number of inputs
  page         the Markdown page and its picture

Results are kept in the folder, one JSON line for each, so that a call that was interrupted goes on
where it stopped; `COMPARISON.md` and `compare.png` are made of them.
"""
