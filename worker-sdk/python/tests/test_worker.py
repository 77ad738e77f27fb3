"""What a worker promises, against the real service."""

from __future__ import annotations

import os
import signal
import socket
import unittest

from gangline import Producer, RawJson

from .support import TOKEN, Program, Server, WithServer, runs, until

DOUBLE = """
    from gangline import Worker
    for item in Worker.from_env():
        item.done(item.payload * 2)
    print("after the loop")
"""

SLOW = """
    import sys, time
    from gangline import Worker
    for item in Worker.from_env():
        print("begun", flush=True)
        end = time.monotonic() + float(item.payload)
        while time.monotonic() < end and not item.cancelled:
            time.sleep(0.02)
        if item.cancelled:
            item.retry("cut short")
        else:
            item.done("slept")
"""


class Loop(WithServer):
    def test_a_loop_empties_its_queue_and_exits_0(self) -> None:
        self.fill(range(500))
        program = self.program(DOUBLE)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertIn("after the loop", program.stdout)
        certificate = self.producer.wait(10)
        self.assertEqual((certificate.phase, certificate.counts.done), ("drained", 500))
        results = {result.id: result.result for result in self.producer.results()}
        self.assertEqual(results, {number + 1: number * 2 for number in range(500)})

    def test_settles_of_every_kind(self) -> None:
        self.fill([{"kind": kind} for kind in
                   ("done", "retry", "dead", "release", "permanent", "spawn")])
        program = self.program("""
            from gangline import Permanent, Worker
            released = []
            for item in Worker.from_env():
                with item:
                    kind = item.payload["kind"]
                    if kind == "retry" and item.attempt < 3:
                        item.retry("not yet", delay=0.01)
                    elif kind == "dead":
                        item.dead("no use")
                    elif kind == "release" and not released:
                        released.append(item.id)
                        item.release()
                    elif kind == "permanent":
                        raise Permanent("never will")
                    else:
                        if kind == "spawn":
                            item.spawn({"kind": "child"}, key="child of " + str(item.id))
                        item.done({"kind": kind, "attempt": item.attempt, "key": item.key})
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        results = {result.result["kind"]: result.result for result in self.producer.results()}
        self.assertEqual(set(results), {"done", "retry", "release", "spawn", "child"})
        self.assertEqual(results["retry"]["attempt"], 3)
        self.assertEqual(results["release"]["attempt"], 1, "a release counts no attempt")
        self.assertEqual(results["child"]["key"], "child of 6")
        self.assertEqual({item["error"] for item in self.items("dead")}, {"no use", "never will"})

    def test_an_exception_in_a_with_block_is_a_retry_and_the_worker_lives_on(self) -> None:
        self.fill(["a", "b"], max_attempts=2)
        program = self.program("""
            from gangline import Worker
            for item in Worker.from_env():
                with item:
                    if item.payload == "a":
                        raise KeyError("the missing one")
                    item.done()
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        dead = self.items("dead")
        self.assertEqual([item["attempts"] for item in dead], [2])
        self.assertTrue(dead[0]["error"].endswith("KeyError: 'the missing one'"), dead[0])
        self.assertIn("Traceback", dead[0]["error"])

    def test_an_exception_that_leaves_the_loop_is_a_retry_with_its_traceback(self) -> None:
        self.fill([1], max_attempts=1)
        program = self.program("""
            from gangline import Worker
            for item in Worker.from_env():
                item.done(1 / 0)
        """)
        self.assertEqual(program.end(), 1)
        self.assertIn("ZeroDivisionError", program.stderr)
        certificate = self.producer.wait(10)
        self.assertEqual(certificate.counts.dead, 1)
        self.assertTrue(self.items("dead")[0]["error"].endswith(
            "ZeroDivisionError: division by zero"), self.items("dead"))

    def test_a_loop_that_is_left_gives_its_item_back_as_a_retry(self) -> None:
        self.fill([1], max_attempts=1)
        program = self.program("""
            from gangline import Worker
            try:
                for item in Worker.from_env():
                    raise ValueError
            except ValueError:
                pass
        """)
        program.end()
        self.assertIn("left its loop", self.items("dead")[0]["error"])

    def test_an_item_that_was_not_settled_is_an_error(self) -> None:
        self.fill([1], max_attempts=1)
        program = self.program("""
            from gangline import Worker
            for item in Worker.from_env():
                pass
        """)
        self.assertEqual(program.end(), 1)
        self.assertIn("was not settled before the next", program.stderr)
        self.assertIn("was not settled", self.items("dead")[0]["error"])

    def test_numbers_and_raw_json_survive(self) -> None:
        big = 2**63 + 12345678901234567890123
        spaced = '{"a" :  1.10, "\\u00e9":[1e2 ,[]], "end": "}]\\"" }'
        deep = "[" * 100 + "]" * 100
        self.fill([big, RawJson(spaced), RawJson(deep)])
        program = self.program("""
            from gangline import RawJson, Worker
            for item in Worker.from_env():
                if isinstance(item.payload, int):
                    item.done(item.payload + 1)
                else:
                    item.done(RawJson(item.raw))
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        results = {result.id: result for result in self.producer.results()}
        self.assertEqual(results[1].result, big + 1)
        self.assertEqual(results[2].raw, spaced)
        self.assertEqual(results[3].raw, deep)

    def test_a_payload_that_cannot_be_decoded_is_dead_and_takes_nothing_along(self) -> None:
        self.fill([RawJson("1" * 5_000), 7])
        program = self.program("""
            from gangline import Worker
            for item in Worker.from_env():
                with item:
                    item.done(item.payload)
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        certificate = self.producer.wait(10)
        self.assertEqual((certificate.counts.done, certificate.counts.dead), (1, 1))
        self.assertIn("the payload", self.items("dead")[0]["error"])


class Ends(WithServer):
    def test_sigterm_lets_the_item_end_and_exits_143(self) -> None:
        self.fill([1.5, 0, 0])
        program = self.program(SLOW, GANGLINE_GRACE_SECONDS="20")
        program.says("begun")
        program.signal(signal.SIGTERM)
        self.assertEqual(program.end(), 143, program.stderr)
        counts = self.producer.counts()
        self.assertEqual((counts.done, counts.ready, counts.leased), (1, 2, 0))

    def test_sigterm_cuts_short_at_the_end_of_the_grace_and_counts_no_attempt(self) -> None:
        self.fill([600])
        program = self.program(SLOW, GANGLINE_GRACE_SECONDS="3")
        self.leased()
        program.signal(signal.SIGTERM)
        self.assertEqual(program.end(), 143, program.stderr)
        items = self.items("ready")
        self.assertEqual([item["attempts"] for item in items], [0])

    def test_sigterm_ends_a_loop_that_heeds_nothing(self) -> None:
        self.fill([1])
        program = self.program("""
            import time
            from gangline import Worker
            for item in Worker.from_env():
                time.sleep(600)
        """, GANGLINE_GRACE_SECONDS="3")
        self.leased()
        program.signal(signal.SIGTERM)
        self.assertEqual(program.end(), 143, program.stderr)
        self.assertEqual(self.producer.counts().ready, 1)

    def test_sigterm_of_an_idle_worker_is_never_0(self) -> None:
        self.fill([], seal=False)
        program = self.program(DOUBLE)
        until("a session", lambda: self.producer.status()["sessions"] == 1)
        program.signal(signal.SIGTERM)
        self.assertEqual(program.end(), 143, program.stderr)
        self.assertEqual(self.producer.status()["sessions"], 0, "it has taken leave")

    def test_sigterm_to_what_a_handler_has_forked_ends_that_and_not_the_worker(self) -> None:
        self.fill([1, 2])
        program = self.program("""
            import multiprocessing, time
            from gangline import Worker
            def handler(item):
                child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
                child.start()
                child.terminate()
                child.join()
                return child.exitcode
            Worker.from_env().run(handler)
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertEqual([result.result for result in self.producer.results()], [-15, -15])

    def test_stop_by_the_first_success_ends_all_workers_with_0(self) -> None:
        self.fill(range(100))
        text = """
            import time
            from gangline import Worker
            for item in Worker.from_env():
                if item.payload == 2:
                    item.stop({"found": item.payload})
                else:
                    while not item.cancelled:
                        time.sleep(0.01)
                    item.retry("wanted no more")
        """
        programs = [self.program(text) for _ in range(3)]
        for program in programs:
            self.assertEqual(program.end(), 0, program.stderr)
        certificate = self.producer.wait(10)
        self.assertEqual((certificate.phase, certificate.cause, certificate.outcome),
                         ("stopped", "worker", "success"))
        self.assertEqual([result.result for result in self.producer.results()], [{"found": 2}])
        self.assertEqual(certificate.counts.abandoned, 99)

    def test_a_queue_that_was_stopped_as_failed_is_70(self) -> None:
        self.fill([1], seal=False)
        program = self.program(SLOW)
        self.leased()
        self.producer.stop(success=False, reason="a test")
        self.assertEqual(program.end(), 70, program.stderr)

    def test_fatal_stops_the_queue_as_failed(self) -> None:
        self.fill([1, 2])
        program = self.program("""
            from gangline import Fatal, Worker
            def handler(item):
                raise Fatal("no licence")
            Worker.from_env().run(handler)
        """)
        self.assertEqual(program.end(), 70, program.stderr)
        certificate = self.producer.wait(10)
        self.assertEqual((certificate.outcome, certificate.counts.dead), ("failure", 1))

    def test_a_body_that_does_not_heed_the_end_is_ended(self) -> None:
        self.fill([1], seal=False)
        program = self.program("""
            import time
            from gangline import Worker
            for item in Worker.from_env():
                time.sleep(600)
        """)
        self.leased()
        self.producer.stop(success=True)
        self.assertEqual(program.end(), 0, program.stderr)

    def test_a_service_that_is_away_is_69(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        program = self.program("""
            from gangline import Worker
            for item in Worker.from_env(service_deadline=0.5):
                pass
        """, url=f"http://127.0.0.1:{port}")
        self.assertEqual(program.end(), 69, program.stderr)

    def test_refused_credentials_are_77(self) -> None:
        program = self.program(DOUBLE, GANGLINE_TOKEN="another")
        self.assertEqual(program.end(), 77, program.stderr)

    def test_a_wrong_setting_is_2_and_named(self) -> None:
        for name, value, named in (("GANGLINE_QUEUE", "Not_A_Name", "DNS label"),
                                   ("GANGLINE_URL", "", "GANGLINE_URL is not set"),
                                   ("GANGLINE_URL", "ftp://x", "http://HOST:PORT"),
                                   ("GANGLINE_GRACE_SECONDS", "soon", "whole number of seconds")):
            program = self.program(DOUBLE, **{name: value})
            self.assertEqual(program.end(), 2, program.stderr)
            self.assertIn(named, program.stderr)


class Handlers(WithServer):
    def test_threads_run_handlers_beside_each_other(self) -> None:
        self.fill(range(4))
        program = self.program("""
            import threading
            from gangline import Worker
            met = threading.Barrier(4)
            def handler(item):
                met.wait(30)
                return item.payload
            Worker.from_env(concurrency=4).run(handler)
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertEqual(sorted(result.result for result in self.producer.results()), [0, 1, 2, 3])

    def test_what_a_handler_raises_or_cannot_return_fails_its_item_only(self) -> None:
        self.fill(["raise", "exit", "set", "nan", "late", "big", "fine"], max_attempts=2)
        program = self.program("""
            import sys
            from gangline import RetryLater, Worker
            def handler(item):
                if item.payload == "raise":
                    raise OSError("disk")
                if item.payload == "exit":
                    sys.exit(0)
                if item.payload == "late" and item.attempt == 1:
                    raise RetryLater("busy", 0.01)
                return {"set": {1}, "nan": float("nan"), "big": "x" * 2_000_000}.get(
                    item.payload, "good")
            Worker.from_env(concurrency=3).run(handler)
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        dead = {item["id"]: item["error"] for item in self.items("dead")}
        self.assertEqual(set(dead), {1, 2, 3, 4, 6})
        self.assertTrue(dead[1].endswith("OSError: disk"), dead[1])
        self.assertIn("the result", dead[3])
        self.assertIn("1048576 bytes, got 2000002", dead[6])

    def test_batches_are_handed_out_at_once(self) -> None:
        self.fill(range(100))
        program = self.program("""
            from gangline import Worker
            sizes = []
            def handler(items):
                sizes.append(len(items))
                return [item.payload + 1 for item in items]
            Worker.from_env().run_batch(32, 0.2, handler)
            print(max(sizes))
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertEqual(program.stdout.strip(), "32")
        results = sorted(result.result for result in self.producer.results())
        self.assertEqual(results, list(range(1, 101)))

    def test_a_batch_with_another_number_of_results_is_retried(self) -> None:
        self.fill([1, 2], max_attempts=1)
        program = self.program("""
            from gangline import Worker
            Worker.from_env().run_batch(2, 0.2, lambda items: [])
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertIn("one result an item", self.items("dead")[0]["error"])

    def test_processes_run_handlers_and_one_that_crashes_takes_nothing_along(self) -> None:
        self.fill(list(range(20)), max_attempts=2)
        program = self.program("""
            import os, signal
            from gangline import Worker
            def handler(item):
                if item.payload == 7:
                    os.kill(os.getpid(), signal.SIGSEGV)
                item.spawn(0, key="one") if item.payload == 3 else None
                return os.getpid() != int(os.environ["PARENT"])
            if __name__ == "__main__":
                os.environ["PARENT"] = str(os.getpid())
                Worker.from_env(concurrency=2).run(handler, processes=True)
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertEqual([result.result for result in self.producer.results()], [True] * 20)
        self.assertIn("SIGSEGV", self.items("dead")[0]["error"])

    def test_a_process_past_its_time_limit_is_ended(self) -> None:
        self.producer.configure(session_ms=20_000, max_attempts=1)
        self.producer.push("hang", time_limit=0.5)
        self.producer.push("fine")
        self.producer.seal()
        program = self.program("""
            import time
            from gangline import Worker
            def handler(item):
                while item.payload == "hang":
                    time.sleep(1)
                return 1
            if __name__ == "__main__":
                Worker.from_env().run(handler, processes=True)
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertEqual(self.items("dead")[0]["error"], "the time limit of 500 ms is over")

    def test_processes_without_a_main_guard_are_an_error_and_not_a_loop(self) -> None:
        self.fill([1])
        program = self.program("""
            from gangline import Worker
            def handler(item):
                return 1
            Worker.from_env().run(handler, processes=True)
        """)
        self.assertEqual(program.end(), 2, program.stderr)
        self.assertIn("__main__", program.stderr)

    def test_cancellation_reaches_a_handler_in_a_process(self) -> None:
        self.fill([1], seal=False)
        program = self.program("""
            from gangline import Worker
            def handler(item):
                print("begun", flush=True)
                item.wait_cancelled(600)
                print("heeded", flush=True)
            if __name__ == "__main__":
                Worker.from_env().run(handler, processes=True)
        """)
        assert program.process.stdout is not None
        self.assertEqual(program.process.stdout.readline(), "begun\n")
        self.producer.stop(success=True)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertIn("heeded", program.stdout)


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
                while not (here / "go").exists():
                    time.sleep(0.02)
                item.done("kept")
                (here / "said").touch()
        """)
        self.addCleanup(program.kill)
        until("a lease", lambda: producer.counts().leased == 1)
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
