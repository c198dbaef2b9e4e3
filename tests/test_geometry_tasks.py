"""Every block of every panel is one thread's work, and threads have equally much of it."""

from hypothesis import given
from hypothesis import strategies as st

from tvm_sparsewino.geometry_tasks import share_out


def decoded(tasks):
    """What each thread computes: (panel, block) pairs, as the kernel decodes numbers of tasks."""
    work = [[] for _ in range(tasks.threads)]
    for task in range(tasks.count):
        thread, place = divmod(task, tasks.each)
        if place < tasks.whole:
            panel = thread * tasks.whole + place
            work[thread] += [(panel, block) for block in range(tasks.blocks)]
            continue
        part = thread * tasks.parts + place - tasks.whole
        if part < tasks.left * tasks.blocks:
            panel, block = divmod(part, tasks.blocks)
            work[thread].append((tasks.threads * tasks.whole + panel, block))
    return work


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_all_is_shared_out_once(panels, blocks, threads):
    tasks = share_out(panels, blocks, threads)
    work = decoded(tasks)
    every = [(panel, block) for panel in range(panels) for block in range(blocks)]
    assert sorted(pair for part in work for pair in part) == every
    # No thread has more than an even share, rounded up.
    assert max(map(len, work)) == -(-panels * blocks // threads)
    assert tasks.all_exist == (len(set(map(len, work))) == 1)


def test_five_panels_of_two_blocks_for_two_threads():
    tasks = share_out(5, 2, 2)
    assert (tasks.whole, tasks.parts, tasks.count) == (2, 1, 6)
    assert [len(part) for part in decoded(tasks)] == [5, 5]
