"""What sessions outlive, against the real service."""

from __future__ import annotations

import os
import signal
import unittest

from gangline import Producer

from .support import DOUBLE, SLOW, TOKEN, Program, Server, WithServer, runs, until

HOLD_THE_LOCK = """
    import ctypes
    from gangline import Worker
    def handler(item):
        # PyDLL calls keep the interpreter's lock: nothing else of Python runs meanwhile.
        ctypes.PyDLL(None).usleep(7_000_000)
        return item.attempt
    Worker.from_env().run(handler)
"""


class Sessions(WithServer):
    def test_a_handler_that_holds_the_interpreters_lock_keeps_its_session(self) -> None:
        self.fill([1], session_ms=2_500, heartbeat_ms=300)
        program = self.program(HOLD_THE_LOCK)
        self.assertEqual(program.end(), 0, program.stderr)
        (result,) = self.producer.results()
        self.assertEqual(result.result, 1, "its first attempt, which took longer than a session")
        self.assertGreaterEqual(result.took_ms, 7_000)
        self.assertEqual(self.producer.status()["retried"], 0)
        self.assertNotIn("session has ended", program.stderr)

    def test_what_a_killed_worker_held_is_done_by_another(self) -> None:
        self.fill(range(50), session_ms=2_000, heartbeat_ms=300)
        first = self.program("""
            import time
            from gangline import Worker
            for item in Worker.from_env(concurrency=1):
                if item.payload == 20:
                    time.sleep(600)
                item.done("first")
        """)
        until("the middle", lambda: self.producer.counts().done >= 20)
        self.leased()
        children = first.children()
        self.assertTrue(children, "there is a process for heartbeats")
        first.signal(signal.SIGKILL)
        self.assertEqual(first.end(), -9)
        until("its children to die", lambda: not any(map(runs, children)))
        second = self.program("""
            from gangline import Worker
            for item in Worker.from_env():
                item.done("second")
        """)
        self.assertEqual(second.end(), 0, second.stderr)
        results = [result.result for result in self.producer.results()]
        self.assertEqual((results.count("first"), results.count("second")), (20, 30))

    def test_processes_die_with_a_killed_worker_though_they_hold_the_lock(self) -> None:
        self.fill([1])
        program = self.program("""
            import ctypes
            from gangline import Worker
            def handler(item):
                print("begun", flush=True)
                ctypes.PyDLL(None).sleep(600)
            if __name__ == "__main__":
                Worker.from_env().run(handler, processes=True)
        """)
        assert program.process.stdout is not None
        self.assertEqual(program.process.stdout.readline(), "begun\n")
        children = program.children()
        program.signal(signal.SIGKILL)
        until("its children to die", lambda: not any(map(runs, children)))

    def test_a_heartbeat_process_that_dies_is_started_again(self) -> None:
        self.fill([8], session_ms=4_000, heartbeat_ms=300)
        program = self.program(SLOW)
        self.leased()
        (heart,) = program.children()
        os.kill(heart, signal.SIGKILL)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertIn("starting another", program.stderr)
        self.assertEqual(self.producer.status()["retried"], 0, program.stderr)

    def test_a_result_of_a_lost_session_is_settled_late(self) -> None:
        self.fill([0.0, 1.0])
        program = self.program("""
            import time
            from gangline import Worker
            for item in Worker.from_env(name="one"):
                end = time.monotonic() + 3 * item.payload
                while time.monotonic() < end:
                    time.sleep(0.02)
                item.done(item.attempt)
        """)
        until("the second", lambda: self.producer.counts().done == 1)
        self.leased()
        self.producer._call("POST", "/pause")
        self.producer._call("POST", "/workers/one/revoke", b'{"counted":true}')
        until("the result", lambda: self.producer.counts().done == 2)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertEqual([result.result for result in self.producer.results()], [1, 1])

    def test_lost_replies_lose_no_attempt_and_no_result(self) -> None:
        seen: list[int] = []

        def lose(request: bytes) -> bool:
            seen.append(1)
            return len(seen) % 3 == 0

        self.fill(range(60))
        proxy = self.proxy(lose)
        program = self.program("""
            import time
            from gangline import Worker
            for item in Worker.from_env():
                time.sleep(0.02)
                item.done([item.payload, item.attempt])
        """, url=proxy.url)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertGreater(proxy.lost, 3)
        results = sorted(result.result for result in self.producer.results())
        self.assertEqual(results, [[number, 1] for number in range(60)])

    def test_a_lease_request_whose_reply_was_lost_is_repeated_by_its_number(self) -> None:
        lost: list[bytes] = []

        def lose(request: bytes) -> bool:
            if b'"lease":' in request and len(lost) < 2:
                lost.append(request)
                return True
            return False

        self.fill([5])
        proxy = self.proxy(lose)
        program = self.program(DOUBLE, url=proxy.url)
        self.assertEqual(program.end(), 0, program.stderr)
        asks = [request for request in proxy.requests if b'"lease":' in request]
        self.assertTrue(all(b'"number": 1,' in request for request in asks[:3]), asks)
        (result,) = self.producer.results()
        self.assertEqual((result.result, result.attempt), (10, 1))


class Restart(unittest.TestCase):
    def test_a_result_in_hand_outlives_the_service(self) -> None:
        server = Server()
        self.addCleanup(server.remove)
        producer = Producer(server.url, "restart", TOKEN)
        producer.configure(session_ms=4_000, heartbeat_ms=300)
        producer.push("work")
        producer.seal()
        program = Program(server.url, "restart", """
            import pathlib, time
            from gangline import Worker
            here = pathlib.Path(__file__).parent
            for item in Worker.from_env(service_deadline=0.5):
                (here / "has").touch()
                while not (here / "go").exists():
                    time.sleep(0.02)
                item.done("kept")
                (here / "said").touch()
        """)
        self.addCleanup(program.kill)
        # The service may have leased it, and the answer be lost with it.
        until("an item", lambda: os.path.exists(os.path.join(program.dir, "has")))
        server.kill()
        open(os.path.join(program.dir, "go"), "w").close()
        until("the result in hand", lambda: os.path.exists(os.path.join(program.dir, "said")))
        # Longer than the deadline after which a worker with nothing in hand gives up.
        self.assertIsNone(_code_within(program, 1.5))
        server.start()
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertEqual([(one.result, one.attempt) for one in producer.results()], [("kept", 1)])
        producer.close()


def _code_within(program: Program, seconds: float) -> object:
    import subprocess

    try:
        return program.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    unittest.main()
