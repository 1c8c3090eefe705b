"""What a skill's candidates came to: lines for people, and what stops a run that would train on nothing."""

from __future__ import annotations

from rft_ilab.errors import GraderError, RunError
from rft_ilab.pipeline.request import Workspace
from rft_ilab.rl.signal import measure_signal, refuse_without_signal
from rft_ilab.rollouts import Environment
from rft_ilab.synth import ledger
from rft_ilab.synth.verify import Verified


def ledger_lines(name: str, verified: Verified) -> list[str]:
    """Dispositions of answers and of tasks, the commonest first."""

    def listed(kind: str) -> str:
        return ", ".join(f"{n} {d.replace('_', ' ')}" for d, n in ledger.counts(verified.ledger, kind).most_common())

    return [
        f"  {name}: {len(verified.examples)} verified ({listed('answer')})",
        f"    tasks: {listed('task')}",
    ]


def check_errors(name: str, verified: Verified, most: float) -> None:
    """Raises GraderError when more than a share ``most`` of the answers could not be graded.

    Of a teacher's question that is no sign of trouble: a grader may refuse what was proposed as its reference.
    """
    answers = [line for line in verified.ledger if line.kind == "answer"]
    failed = [line for line in answers if line.disposition == "error"]
    share = len(failed) / max(1, len(answers))
    if share > most:
        raise GraderError(
            f"{name}: {share:.0%} of the answers could not be graded (limit {most:.0%}); the first: {failed[0].reason}",
            fix="run: ilab taxonomy lint, then fix the grader",
        )


def check_yield(environment: Environment, verified: Verified, space: Workspace) -> None:
    """pass@k with demonstrations, from the candidates just graded: without it training is hopeless."""
    groups: dict[str, list[bool | None]] = {}
    for line in verified.ledger:
        if line.kind == "answer" and line.task_id and line.disposition != "reference":
            passed = None if line.disposition == "error" else line.disposition in ("kept", "duplicate", "surplus")
            groups.setdefault(line.task_id, []).append(passed)
    signal = measure_signal(
        environment.skill.name,
        list(groups.items()),
        classes=environment.classes,
        samples=space.settings.data.samples,
        group_size=space.settings.train.group_size,
        after="base",
    )
    refuse_without_signal(signal, space.settings.train.signal_floor)
    if not verified.examples:
        raise RunError(
            f"{environment.skill.name}: not one answer was kept ({ledger_lines('', verified)[0].strip(' :')})",
            fix="show more demonstrations or raise samples (rft.toml), or use a stronger teacher (--endpoint)",
        )
