"""`deflow demo`: what `make demo` runs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deflow.cli.result import print_json
from deflow.core.errors import DeFlowError

if TYPE_CHECKING:
    from deflow.training.config import TrainConfig
    from deflow.training.run_folder import RunFolder

TASK = "cube-single-play-singletask-task1-v0"
RESULT = "demo.json"


@dataclass
class Demo:
    """From nothing to a policy that picks up a cube: data, training, evaluation.

    Generates play data with OGBench's own oracle, trains DeFlow with the flow first, and evaluates
    the policy beside its own base flow, 50 episodes each. Seven to fourteen minutes on two cores.
    Call it again to go on where it was stopped, or to see the result of a finished one.

    Examples:
      deflow demo
      deflow demo --seed 1 --dir demo-1
    """

    seed: int = 0
    """Seed of the training run; the data are the same for all."""
    dir: Path = Path("runs/demo")
    """Where everything is kept."""
    episodes: int = 300
    """Episodes of data."""
    steps: int = 5_000
    """Gradient steps of the policy."""
    flow_steps: int = 25_000
    """Gradient steps of the flow."""
    json: bool = False
    """Print one JSON document instead of text."""

    def run(self) -> int:
        result = self._kept() or self._made()
        if self.json:
            print_json(result)
            return 0
        print(f"DeFlow       {100 * result['policy']:5.1f}% of 50 episodes solved")
        print(f"base flow    {100 * result['prior']:5.1f}%")
        pictures = [self._folder.path / "curve.png", result["picture"]]
        shown = " and ".join(str(picture) for picture in pictures if picture)
        print(f"in {result['seconds']:.0f} seconds; look at {shown}")
        return 0

    @property
    def _folder(self) -> RunFolder:
        from deflow.training.run_folder import RunFolder

        return RunFolder(self.dir / f"seed{self.seed}")

    def _config(self) -> TrainConfig:
        from deflow.agents.deflow import DeFlow
        from deflow.training.config import TrainConfig

        # A few minutes on two cores: small networks, a high rate, a wider trust region.
        agent = DeFlow(
            hidden=(256, 256, 256), prior_steps=self.flow_steps, learning_rate=1e-3, delta=0.003
        )
        return TrainConfig(
            TASK,
            agent,
            schedule="flow-first",
            steps=self.steps,
            seeds=(self.seed,),
            eval_every=max(1, self.steps // 5),
            eval_episodes=20,
            run_dir=self._folder.path,
            data_dir=self.dir / "data",
        )

    def _kept(self) -> dict[str, Any] | None:
        """What an earlier call has found, with the same options; else `DeFlowError`, or None where
        it did not come so far."""
        folder = self._folder
        if not folder.exists():
            return None
        folder.refuse_other(self._config(), "give the same options, or another --dir")
        episodes = folder.dataset()["episodes"]
        if episodes != self.episodes:
            raise DeFlowError(
                f"{folder.path} learnt from {episodes} episodes: give --episodes {episodes}, or "
                "another --dir."
            )
        return folder.read_json(RESULT) if (folder.path / RESULT).is_file() else None

    def _made(self) -> dict[str, Any]:
        from deflow.core.progress import console
        from deflow.data.generate import generate
        from deflow.data.names import parse_task
        from deflow.envs.render import rendering_backend
        from deflow.training.judge import film, judge
        from deflow.training.train import resume, train

        began = time.perf_counter()
        console.rule("1 of 3  data: OGBench's oracle plays with a cube")
        generate(
            parse_task(TASK).dataset,
            episodes=self.episodes,
            workers=os.cpu_count() or 1,
            seed=0,
            data_dir=self.dir / "data",
        )
        console.rule("2 of 3  training: the flow learns what the data do, then a residual climbs Q")
        folder, config = self._folder, self._config()
        if folder.exists():
            resume(folder.path, data_dir=config.data_dir)
        else:
            train(config)
        console.rule("3 of 3  evaluation: 50 episodes of the policy, and of its base flow alone")
        policy, prior = (judge(folder, episodes=50, seed=1, policy=p) for p in ("policy", "prior"))
        result: dict[str, Any] = {
            "task": TASK,
            "seed": self.seed,
            **{each.policy: each.results[0].success or 0.0 for each in (policy, prior)},
            "seconds": round(time.perf_counter() - began, 1),
            "run_dir": str(folder.path),
            "picture": None,
        }
        if rendering_backend():
            won = [e.episode for e in policy.results[0].episodes if e.success]
            picture = folder.path / "episode.png"
            film(folder, picture, episode=(won or [0])[0], seed=1)
            result["picture"] = str(picture)
        folder.write_json(RESULT, result)
        return result
