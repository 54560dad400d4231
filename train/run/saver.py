"""When a run saves: nothing that is not finite, and through a disk that is full for a while."""

from collections.abc import Callable

from train.checkpoint.checkpoint import Checkpoints, SaveError
from train.experiment import Experiment
from train.guard import finite
from train.run.window import MetricWindow, NonFiniteError
from train.step import TrainState


class Saver:
    """Saves the state of one run, with all that its future depends on.

    Args:
        experiment: The parts of the run.
        checkpoints: Where to.
        batches: Whose position is saved.
        window: Whose open metrics are saved.
        log: Prints a line.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        batches,
        window: MetricWindow,
        log: Callable[[str], None],
    ):
        self._experiment, self._checkpoints = experiment, checkpoints
        self._batches, self._window, self._log = batches, window, log
        self._limit = experiment.config.guard.failed_saves
        self._failed = 0  # saves in a row

    def check(self) -> None:
        """Waits for all steps and looks at their losses and gradients.

        Raises:
          NonFiniteError: one is not finite; says which checkpoint is kept, and what to do.
        """
        try:
            self._window.totals()
        except NonFiniteError as error:
            raise NonFiniteError(
                f"loss or gradient is not finite at {error}; {self._kept()}. Lower optim.lr, set "
                "optim.clip_norm, check the data of that step, or skip such steps with "
                "guard.non_finite=skip; then run the command again"
            ) from None

    def save(self, step: int, state: TrainState, *, evaluated: bool = True) -> None:
        """Starts to save, in the background.

        A save that fails (no space) is told when the next one begins, and the run goes on: the
        checkpoint before is still there.

        Args:
          step: steps taken so far.
          state: of that step.
          evaluated: False: an evaluation at this step was dropped; the next process makes it up.

        Raises:
          NonFiniteError: as `check`, or a number of the state itself is not finite, which the
            optimiser may make out of finite gradients: what is not finite is never saved.
          SaveError: `guard.failed_saves` in a row have failed.
        """
        self.check()
        self._settle()
        run_state = {
            "batches": self._batches.state(),
            "window": self._window.totals(),
            "evaluated": evaluated,
        }
        placement = self._experiment.placement
        canonical = placement.canonical(state)
        broken = finite.broken_arrays(canonical, placement.mesh)
        if broken:
            raise NonFiniteError(
                f"the state of step {step} is not finite, though its losses and gradients are: "
                f"{len(broken)} arrays, the first is {broken[0]}; {self._kept()}. The optimiser "
                "update caused it: raise optim.eps, lower optim.lr, or skip such steps with "
                "guard.non_finite=skip; then run the command again"
            )
        config = self._experiment.config.to_dict()
        try:
            self._checkpoints.save(step, canonical, run_state, config)
        except SaveError as error:
            self._count(error)

    def finish(self) -> None:
        """Waits for the last save.

        Raises:
          SaveError: it failed; the run is not complete without it.
        """
        self._checkpoints.wait()

    def _kept(self) -> str:
        self._settle()
        good = max(self._checkpoints.steps(), default=None)
        if good is None:
            return "no checkpoint has been saved yet"
        return f"the checkpoint of step {good} is kept"

    def _settle(self) -> None:
        try:
            self._checkpoints.wait()
        except SaveError as error:
            self._count(error)
        else:
            self._failed = 0

    def _count(self, error: SaveError) -> None:
        self._failed += 1
        if self._failed >= self._limit:
            raise error
        self._log(
            f"{error} ({self._failed} of at most {self._limit - 1} in a row; the run continues)"
        )
