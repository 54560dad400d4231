"""Performer: the error of random features, what they save, and a trained model swapped to them.

    python -m benchmarks.performer [--smoke] [--json FILE] [--png FILE] [--folder runs/performer]
        [--parts error scaling swap]

Prints three tables and draws `performer.png` (2009.14794, figures 2 and 4, 3 and 5 in small). The
swap trains five small models; what is interrupted goes on where it stopped.

  error    of exp(x . y) and of attention, beside the closed forms
  scaling  time and memory against the number of elements
  swap     a trained model that goes on with random features
"""
