"""Threads that work beside the calling one, each with one-thread or smaller loops of its own.

TVM keeps one pool of workers per calling thread, and its calls release Python's lock: calls from
several threads run at the same time. Handing work to a thread that waits takes 10 microseconds,
starting one 300, so threads are kept from call to call.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from .thread_pool import fewer_threads, use_threads

Task = Callable[[], None]


class Crew:
    """Carries out tasks at the same time; safe to call from several threads.

    Every call has helpers to itself, those that no other call uses at the time, or new ones. They
    wait without using a core, and end with the crew. A child process starts with none: threads do
    not survive a fork.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._waiting = _Waiting()
        # Not at exit: a thread that waits ends with the process.
        weakref.finalize(self, self._waiting.dismiss).atexit = False

    def run(self, tasks: Iterable[Task], at_once: int, threads: int) -> None:
        """Carry out all tasks; they are begun in order.

        Args:
            tasks: what to do.
            at_once: how many are under way at a time. The calling thread does its part.
            threads: threads of each task's loops; the calling thread's pool has as many at least.

        Raises:
            Whatever a task raised first; those that were not begun are left, then.
        """
        if self._process != os.getpid():
            self._process, self._waiting = os.getpid(), _Waiting()
        shared, done = _Shared(tasks), SimpleQueue()
        helpers = [self._waiting.helper(threads) for _ in range(at_once - 1)]
        for helper in helpers:
            helper.begin(shared, done)
        with fewer_threads(threads):
            shared.work()
        for _ in helpers:
            done.get()
        if shared.errors:
            raise shared.errors[0]


class _Shared:
    """Tasks that several threads take from, until there is none or one has failed."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = list(tasks)[::-1]
        self.errors: list[BaseException] = []

    def work(self) -> None:
        """Take and carry out tasks."""
        while self._tasks and not self.errors:
            try:
                task = self._tasks.pop()
            except IndexError:  # another thread was faster
                return
            self.attempt(task)

    def attempt(self, task: Task) -> None:
        """Carry out one task; its error is kept for the caller."""
        try:
            task()
        except BaseException as error:  # whatever it is, nobody is to wait for ever
            self.errors.append(error)


class _Waiting:
    """Helpers without work, by the threads of their loops: TVM's pools cannot grow."""

    def __init__(self) -> None:
        self._idle: dict[int, list[_Helper]] = {}  # append and pop are atomic
        self._dismissed = False

    def helper(self, threads: int) -> _Helper:
        """One whose loops have ``threads`` threads; nobody else has it."""
        try:
            return self._idle.setdefault(threads, []).pop()
        except IndexError:
            return _Helper(threads, self)

    def back(self, helper: _Helper) -> None:
        """Take a helper that is through, or let it end where nobody will ask for it."""
        self._idle[helper.threads].append(helper)
        if self._dismissed:
            self.dismiss()

    def dismiss(self) -> None:
        """Let all threads end."""
        self._dismissed = True
        for idle in self._idle.values():
            while idle:
                try:
                    idle.pop().end()
                except IndexError:  # another thread was faster
                    break


class _Helper:
    """One thread.

    Args:
        threads: of its loops.
        waiting: where it goes when it is through.
    """

    def __init__(self, threads: int, waiting: _Waiting) -> None:
        self.threads = threads
        self._waiting = waiting
        self._orders: SimpleQueue[tuple[_Shared, SimpleQueue[None]] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="sparsewino", daemon=True).start()

    def begin(self, shared: _Shared, done: SimpleQueue[None]) -> None:
        """Let the thread work, and then put something into ``done``."""
        self._orders.put((shared, done))

    def end(self) -> None:
        """Let the thread end."""
        self._orders.put(None)

    def _serve(self) -> None:
        while order := self._orders.get():
            shared, done = order
            shared.attempt(lambda: use_threads(self.threads, self.threads))
            shared.work()
            del order, shared  # tensors and the network are not kept while there is no work
            self._waiting.back(self)
            done.put(None)
