"""The RL stage on the tiny model, in as many processes as ``torchrun`` started.

``torchrun --nproc-per-node 2 -m tests.parallel_stage HOME``: rank r leaves its run in ``HOME/rank-r``. The variable
MODEL names the model's directory; STOP a rank that is interrupted after its second GRPO step.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import rft_ilab.policy.local.model as local_model
import rft_ilab.rl.export as export
from rft_ilab.rl import parallel
from rft_ilab.rl.lessons import Lesson
from rft_ilab.rl.stage import RLStage
from rft_ilab.store import Cache
from tests.durable_stage import TRAIN, environment


def main(home: Path) -> None:
    torch.set_num_threads(1)
    export.GGUF_AGREEMENT = 0.5
    # Sums in another order differ by rounding; in bf16 that would change what is sampled.
    local_model.choose_dtype = lambda: torch.float32
    with parallel.joined():
        run = home / f"rank-{parallel.rank()}"
        target, watched = (environment(run / "taxonomy", name) for name in ("area/target", "area/other"))
        lessons = [
            Lesson(skill="area/target", prompt=t.messages, completion="eoe", replay=False)
            for t in target.split("train")[:16]
        ]

        def tick(row: dict[str, Any]) -> None:
            if os.environ.get("STOP") == str(parallel.rank()) and (row["stage"], row["step"]) == ("grpo", 2):
                os.kill(os.getpid(), signal.SIGINT)

        stage = RLStage(run, [target], [watched], TRAIN, Cache(run / "cache.sqlite"), lambda line: None, tick)
        try:
            stage.run(Path(os.environ["MODEL"]), lessons, {"area/other": 1.0})
        except KeyboardInterrupt:
            (run / "interrupted").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
