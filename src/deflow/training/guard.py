"""Members whose loss stops being finite are frozen at their last good state; the others go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from deflow.core.agent import State
from deflow.core.errors import DeFlowError
from deflow.training.family import Member, choose, finite_members
from deflow.training.metrics import Arrays


@dataclass(frozen=True)
class Frozen:
    """A member that diverged: where, and in which term."""

    member: str
    phase: str
    step: int
    term: str

    def sentence(self) -> str:
        return (
            f"{self.member} is frozen at {self.phase} step {self.step}, in the last state known to "
            f"be good: {self.term} stopped being finite."
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def first_bad_step(metrics: Arrays, member: int) -> tuple[int, str] | None:
    """The first step of a chunk at which a loss of this member is not finite, and which loss."""
    bad = {
        name: int(np.argmin(finite))
        for name, values in metrics.items()
        if name.endswith("loss") and not (finite := np.isfinite(values[:, member])).all()
    }
    if not bad:
        return None
    term = min(bad, key=lambda name: bad[name])
    return bad[term], term


class Guard:
    """Watches a family, chunk by chunk.

    Nothing is added to the training step: where a chunk went wrong, it is run again from its
    beginning up to the last step that was good, which is cheap because it is rare.

    A resumed run does not know the state before its checkpoint's last update. Where the very next
    loss is not finite, the member is frozen at the checkpoint's state: its parameters are finite,
    as of every state that passed `check`, but its own loss is not.
    """

    def __init__(self, members: tuple[Member, ...], frozen: tuple[Frozen, ...] = ()):
        self.members = members
        self.frozen = list(frozen)
        self._previous: Callable[[], State] | None = None

    @property
    def alive(self) -> np.ndarray:
        """Which members still learn."""
        gone = {entry.member for entry in self.frozen}
        return np.array([member.label not in gone for member in self.members])

    def check(
        self,
        before: State,
        after: State,
        metrics: Arrays,
        phase: str,
        step_of: Callable[[int], int],
        replay: Callable[[int], State],
    ) -> State:
        """The state to go on from; who is frozen just now comes last in `frozen`.

        `step_of(n)` is the step of the chunk's n-th update (from 0; of -1, the one before),
        `replay(n)` the state after n of them. Raises `DeFlowError` if no member is left.
        """
        finite = np.asarray(finite_members(after))
        length = len(next(iter(metrics.values())))
        held = before
        for index in np.flatnonzero(self.alive):
            found = first_bad_step(metrics, int(index))
            if found is None and finite[index]:
                continue
            steps, term = found or (length, "a parameter")
            good = self._last_good(before, steps, replay)
            held = choose(jnp.arange(len(self.members)) == index, good, held)
            label, step = self.members[index].label, step_of(steps - 1)
            self.frozen.append(Frozen(label, phase, step, term))
        if not self.alive.any():
            last = self.frozen[-1].sentence()
            raise DeFlowError(
                f"No member of the run is left to train. {last} A smaller learning_rate, or data "
                "with smaller rewards, may help."
            )
        self._previous = partial(replay, length - 1) if length > 1 else lambda: before
        if self.alive.all():
            return after
        return choose(jnp.asarray(self.alive), after, held)

    def _last_good(self, before: State, steps: int, replay: Callable[[int], State]) -> State:
        """The last state whose own losses were finite.

        A loss that is not finite after n updates was computed on what the n-th update made, so
        the state to keep is the one before that update. It may lie in the chunk before.
        """
        if steps > 1:
            return replay(steps - 1)
        if steps == 1 or self._previous is None:
            return before
        return self._previous()
