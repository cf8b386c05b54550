"""`deflow demo`: what `make demo` runs."""

from __future__ import annotations

import json as jsonlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TASK = "cube-single-play-singletask-task1-v0"


@dataclass
class Demo:
    """From nothing to a policy that picks up a cube: data, training, evaluation.

    Generates play data with OGBench's own oracle, trains DeFlow with the flow first, and evaluates
    the policy beside its own base flow, 50 episodes each. About seven minutes on two cores.

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
    """Print the result as JSON."""

    def run(self) -> int:
        from deflow.agents.deflow import DeFlow
        from deflow.api import train
        from deflow.core.progress import console
        from deflow.data.generate import generate
        from deflow.data.names import parse_task
        from deflow.envs.render import rendering_backend
        from deflow.training.judge import film, judge

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
        # A few minutes on two cores: small networks, a high rate, a wider trust region.
        agent = DeFlow(
            hidden=(256, 256, 256), prior_steps=self.flow_steps, learning_rate=1e-3, delta=0.003
        )
        folder = train(
            TASK,
            agent,
            schedule="flow-first",
            steps=self.steps,
            seeds=[self.seed],
            eval_every=max(1, self.steps // 5),
            eval_episodes=20,
            run_dir=self.dir / f"seed{self.seed}",
            data_dir=self.dir / "data",
        )
        console.rule("3 of 3  evaluation: 50 episodes of the policy, and of its base flow alone")
        policy, prior = (judge(folder, episodes=50, seed=1, policy=p) for p in ("policy", "prior"))
        scores: dict[str, float] = {
            found.policy: found.results[0].success or 0.0 for found in (policy, prior)
        }
        result: dict[str, Any] = {
            "task": TASK,
            "seed": self.seed,
            **scores,
            "seconds": round(time.perf_counter() - began, 1),
            "run_dir": str(folder.path),
            "picture": None,
        }
        if rendering_backend():
            won = [e.episode for e in policy.results[0].episodes if e.success]
            result["picture"] = str(
                film(folder, folder.path / "episode.png", episode=(won or [0])[0], seed=1)
            )
        folder.write_json("demo.json", result)
        if self.json:
            print(jsonlib.dumps(result))
        else:
            print(f"DeFlow       {100 * scores['policy']:5.1f}% of 50 episodes solved")
            print(f"base flow    {100 * scores['prior']:5.1f}%")
            print(
                f"in {result['seconds']:.0f} seconds; look at {folder.path / 'curve.png'}", end=""
            )
            print(f" and {result['picture']}" if result["picture"] else "")
        return 0
