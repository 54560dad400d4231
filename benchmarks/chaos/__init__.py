"""Kills runs at random moments, starts them again, and checks that nothing is lost or changed.

    python -m benchmarks.chaos --kills 100 [--seed 0] [--setups single,pmap,...] [--folder DIR]

Runs of a tiny digits model (dropout, averaged parameters, micro-batches) through the true `python
-m train`: in one process (one device, eight by `pmap`, eight by `sharded`), and in two with four
devices each. SIGKILL and SIGTERM come while a run starts, at a random step, and inside a save; of
two processes to one or to both. After each the same command is started again. Checked:

- it resumes at the newest complete checkpoint that lay there when it died, never before;
- SIGTERM, once the program listens, ends it with code 75 and loses no step;
- of two processes the one that is left ends with an error that says so, and does not hang;
- at the end the whole state (parameters, optimiser, average) and all metrics but those of time are
  bit-equal to those of a run of the same setup that nobody disturbed.

A line tells each kill and a table sums up. A violation is told at once, and makes the exit code 1.

  life        a run between a start and its end, by a kill or by itself
  child       a process of it that kills itself inside a save
  trial       the lives of a setup, and what must hold after each
  difference  what differs between two complete runs
"""
