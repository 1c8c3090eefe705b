"""The plans in docs/open-instruct.md, as ``--dry-run`` prints them, for a model that fits into no test.

``python tools/make_plans.py`` rewrites them; ``--check`` exits 1 if they are out of date (a test runs that).
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from rft_ilab.config import OpenInstructSettings
from rft_ilab.scaleout.openinstruct.flags import flags_of
from rft_ilab.scaleout.openinstruct.model_shape import Shape
from rft_ilab.scaleout.openinstruct.plan import Data, make_plan
from rft_ilab.scaleout.openinstruct.plan_text import plan_lines

TARGET = Path(__file__).resolve().parents[1] / "docs" / "open-instruct.md"
#: from its config.json
LLAMA = Shape(
    name="Llama-3.1-8B-Instruct", parameters=8_030_261_248, layers=32, hidden=4096, kv_heads=8, head=128,
    vocabulary=128_256, context=131_072,
)  # fmt: skip
DATA = Data(rows=4000, longest=480, mean=300.0, response=1024)
PLANS = {
    "8 GPUs": (1, 8, OpenInstructSettings(prompts=32)),
    "64 GPUs": (8, 8, OpenInstructSettings(prompts=128, group_size=16)),
}


def block(name: str) -> str:
    nodes, gpus, settings = PLANS[name]
    plan = make_plan(LLAMA, DATA, settings, nodes=nodes, gpus=gpus)
    flags = flags_of(plan, model=Path("MODEL"), data=Path("DATA"), work=Path("RUN/open-instruct"), seed=0)
    flag_lines = re.sub(r" --", "\n  --", shlex.join(["PYTHON", "launcher.py", *flags]))
    return "\n".join([*plan_lines(plan), *flag_lines.splitlines()])


def rewritten(text: str) -> str:
    for name in PLANS:
        begin = f"<!-- plan: {name} -->\n```text\n"
        head, found, rest = text.partition(begin)
        if not found:
            sys.exit(f"{TARGET} has no place for the plan: {begin.splitlines()[0]}")
        _, _, tail = rest.partition("\n```\n")
        text = f"{head}{begin}{block(name)}\n```\n{tail}"
    return text


def main() -> int:
    before = TARGET.read_text(encoding="utf-8")
    after = rewritten(before)
    if "--check" in sys.argv:
        if after != before:
            print(f"{TARGET} is out of date; run: python tools/make_plans.py", file=sys.stderr)
        return int(after != before)
    TARGET.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
