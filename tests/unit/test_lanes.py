"""Lanes: turns by key, a share of the threads for each, nothing run for those who have left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from rft_ilab.scaleout.lanes import Gone, Lanes


async def stays() -> None:
    await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.002)


class Work:
    """Work that runs until it is let go; remembers what was begun, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go: dict[str, threading.Event] = {}

    def __call__(self, name: str) -> Callable[[], str]:
        self.go[name] = threading.Event()

        def work() -> str:
            self.begun.append(name)
            assert self.go[name].wait(20)
            return name

        return work


def test_a_key_gets_its_share_and_others_the_rest() -> None:
    async def main() -> None:
        lanes, work = Lanes(4, 2), Work()
        jobs = [asyncio.ensure_future(lanes.run("slow", work(f"slow{i}"), stays)) for i in range(5)]
        await settle()
        assert work.begun == ["slow0", "slow1"]
        quick = asyncio.ensure_future(lanes.run("quick", work("quick"), stays))
        await settle()
        assert work.begun[2:] == ["quick"]
        for event in work.go.values():
            event.set()
        assert await asyncio.gather(*jobs, quick) == ["slow0", "slow1", "slow2", "slow3", "slow4", "quick"]

    asyncio.run(main())


def test_keys_take_turns() -> None:
    async def main() -> None:
        lanes, work = Lanes(1, 1), Work()
        names = ["a0", "a1", "a2", "b0", "c0", "b1"]
        jobs = [asyncio.ensure_future(lanes.run(name[0], work(name), stays)) for name in names]
        await settle()
        for name in ("a0", "a1", "b0", "c0", "a2", "b1"):
            assert work.begun[-1] == name
            work.go[name].set()
            await settle()
        assert await asyncio.gather(*jobs) == names

    asyncio.run(main())


def test_nothing_is_run_for_those_who_have_left() -> None:
    async def main() -> None:
        lanes, work = Lanes(1, 1), Work()
        first = asyncio.ensure_future(lanes.run("a", work("first"), stays))
        leaves = asyncio.Event()

        async def gone() -> None:
            await leaves.wait()

        left: Awaitable[str] = asyncio.ensure_future(lanes.run("a", work("left"), gone))
        last = asyncio.ensure_future(lanes.run("a", work("last"), stays))
        await settle()
        leaves.set()
        with pytest.raises(Gone):
            await left
        for event in work.go.values():
            event.set()
        assert [await first, await last] == ["first", "last"] == work.begun

    asyncio.run(main())


def test_a_waiter_that_is_cancelled_and_work_that_raises_keep_no_thread() -> None:
    def broken() -> str:
        raise ValueError("broken")

    async def main() -> None:
        lanes, work = Lanes(1, 1), Work()
        first = asyncio.ensure_future(lanes.run("a", work("first"), stays))
        waiting = asyncio.ensure_future(lanes.run("b", work("waiting"), stays))
        fails = asyncio.ensure_future(lanes.run("c", broken, stays))
        last = asyncio.ensure_future(lanes.run("d", work("last"), stays))
        await settle()
        waiting.cancel()
        for event in work.go.values():
            event.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(ValueError, match="broken"):
            await fails
        assert [await first, await last] == work.begun == ["first", "last"]

    asyncio.run(main())
