"""Lets all processes of a job learn what happened to each: in the background, beside training.

Collectives on devices must run in the same order on all hosts, so a thread in the background may
not use them. This is a table of words that JAX's coordination service keeps, which is on the CPU
and the network only.
"""

import itertools
import json

import jax
from jax._src import distributed  # no public name leads to the coordination service

_SECONDS = 1200  # that the slowest host may be behind the fastest; a dead one ends the job anyway


class Consensus:
    """Rounds in which every process says one thing and hears all; one thread at a time."""

    def __init__(self, name: str):
        """Starts with round 0; `name` is used once in a process, the same on all."""
        self._name = f"perceiver/{name}"
        self._rounds = itertools.count()
        self._old: str | None = None

    def gather(self, said: str | None) -> list[str | None]:
        """Returns what each process said in this round, in the order of processes.

        Raises:
          TimeoutError: one of them said nothing for 20 minutes.
        """
        if jax.process_count() == 1:
            return [said]
        client = distributed.global_state.client
        prefix = f"{self._name}/{next(self._rounds)}/"
        own = f"{prefix}{jax.process_index()}"
        client.key_value_set(own, json.dumps(said))
        heard = []
        for index in range(jax.process_count()):
            try:
                heard.append(client.blocking_key_value_get(f"{prefix}{index}", _SECONDS * 1000))
            except jax.errors.JaxRuntimeError as error:
                raise TimeoutError(
                    f"process {index} did not respond within {_SECONDS} s: it hangs or has ended"
                ) from error
        if self._old is not None:  # all have passed the round before this one
            client.key_value_delete(self._old)
        self._old = own
        return [json.loads(words) for words in heard]
