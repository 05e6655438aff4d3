"""Where work runs: in a thread, or, for a single worker that is idle, in the event loop itself."""

import asyncio
import threading
import time

import pytest

from pipeline.serving.refusal import Reason, RefusalError
from pipeline.serving.statistics import Statistics, Timing
from pipeline.serving.workers import BRIEF_NS, Workers


def ran_in(num_workers: int, expected_ns: float | None, *, occupied: bool = False) -> str:
    async def main() -> str:
        workers = Workers(num_workers)
        deadline = asyncio.get_running_loop().time() + 10
        go = threading.Event()
        other = asyncio.create_task(workers.run(go.wait, deadline, expected_ns=None)) if occupied else None
        await asyncio.sleep(0)
        if other:
            asyncio.get_running_loop().call_later(0.05, go.set)
        thread = await workers.run(threading.current_thread, deadline, expected_ns=expected_ns)
        if other:
            assert await other
        workers.close()
        return "loop" if thread is threading.current_thread() else thread.name.split("_")[0]

    return asyncio.run(main())


def test_brief_work_of_a_single_idle_worker_runs_in_the_loop() -> None:
    assert ran_in(1, BRIEF_NS - 1) == "loop"
    assert ran_in(1, BRIEF_NS + 1) == "inference"
    assert ran_in(1, None) == "inference"
    assert ran_in(2, BRIEF_NS - 1) == "inference"
    assert ran_in(1, BRIEF_NS - 1, occupied=True) == "inference"


@pytest.mark.parametrize("expected_ns", [None, 1.0])
def test_work_is_not_begun_after_its_deadline(expected_ns: float | None) -> None:
    done: list[int] = []

    async def main() -> None:
        workers = Workers(1)
        with pytest.raises(RefusalError, match="not ready in time") as error:
            await workers.run(lambda: done.append(1), asyncio.get_running_loop().time() - 1, expected_ns=expected_ns)
        assert error.value.reason is Reason.DEADLINE
        workers.close()

    asyncio.run(main())
    assert done == []


def test_what_waits_past_its_deadline_is_never_done() -> None:
    done: list[str] = []

    async def main() -> None:
        workers = Workers(1)
        now = asyncio.get_running_loop().time()
        first = asyncio.create_task(workers.run(lambda: time.sleep(0.2), now + 10, expected_ns=None))
        await asyncio.sleep(0.01)
        with pytest.raises(RefusalError):
            await workers.run(lambda: done.append("late"), now + 0.05, expected_ns=None)
        await first
        await workers.run(lambda: done.append("next"), now + 10, expected_ns=None)
        workers.close()

    asyncio.run(main())
    assert done == ["next"]


def test_expectation_is_the_mean_of_a_batch_size() -> None:
    statistics = Statistics()
    assert statistics.expected_ns(2) is None
    for ns in (100, 300):
        statistics.add_execution(2, Timing(input=1, queue=2, infer=ns, output=3))
    statistics.add_execution(4, Timing(input=1, queue=2, infer=900, output=3))
    assert (statistics.expected_ns(2), statistics.expected_ns(4), statistics.expected_ns(1)) == (200, 900, None)
    found = statistics.to_json("a", "1")
    assert (found["inference_count"], found["execution_count"]) == (8, 3)
    assert found["inference_stats"]["compute_infer"] == {"count": 3, "ns": 1300}
    sizes = {entry["batch_size"]: entry["compute_infer"] for entry in found["batch_stats"]}
    assert sizes == {2: {"count": 2, "ns": 400}, 4: {"count": 1, "ns": 900}}
