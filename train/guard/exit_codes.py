"""How `python -m train` ends, for the scheduler that started it.

0: the run is complete. 1: it cannot go on as it is; the message says what to change. 2: the command
line is wrong. 130: stopped by hand (Ctrl-C): everything is saved. The others here: start the same
command again.
"""

STOPPED = 130  # as shells have it of SIGINT

PREEMPTED = 75  # told to stop (SIGTERM): everything is saved (EX_TEMPFAIL of sysexits.h)
HUNG = 76  # a step, of this host or another, did not end: the last checkpoint stays
