"""What runs handlers, against the real service."""

from __future__ import annotations

import unittest

from gangline import Item, Producer, Worker
from gangline.item import Leased, Progress

from .support import TOKEN, WithServer, until


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

    def test_an_exception_in_the_place_of_a_batch_result_settles_its_item_alone(self) -> None:
        self.fill(["good", "bad", "late"], max_attempts=2)
        program = self.program("""
            from gangline import Permanent, RetryLater, Worker
            worker = Worker.from_env()

            @worker.batch(3, max_wait=0.2)
            def handler(items):
                def outcome(item):
                    if item.payload == "bad":
                        return Permanent("no use")
                    if item.payload == "late" and item.attempt == 1:
                        return RetryLater("busy", 0.01)
                    return item.attempt
                return [outcome(item) for item in items]

            worker.run()
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertEqual([item["error"] for item in self.items("dead")], ["no use"])
        results = {result.id: result.result for result in self.producer.results()}
        self.assertEqual(results, {1: 1, 3: 2})

    def test_a_decorated_handler_is_what_run_runs(self) -> None:
        self.fill([1, 2])
        program = self.program("""
            from gangline import Worker
            worker = Worker.from_env()

            @worker.handler
            def double(item):
                return item.payload * 2

            try:
                worker.handler(double)
            except ValueError as error:
                print(error)
            worker.run()
        """)
        self.assertEqual(program.end(), 0, program.stderr)
        self.assertIn("the worker has a handler already", program.stdout)
        self.assertEqual(sorted(result.result for result in self.producer.results()), [2, 4])

    def test_how_far_a_handler_is_goes_with_the_heartbeats(self) -> None:
        for run in ("run(handler)", "run(handler, processes=True)"):
            with self.subTest(run):
                self.queue = f"progress-{int('processes' in run)}"
                self.producer = Producer(self.server.url, self.queue, TOKEN, patience=30)
                self.addCleanup(self.producer.close)
                self.fill(["a"], session_ms=60_000, heartbeat_ms=200)
                program = self.program(f"""
                    from gangline import Worker
                    def handler(item):
                        item.progress(float("nan"), "ä" * 1_000)
                        item.progress(7)
                        item.progress(0.25, "page 3")
                        item.wait_cancelled(600)
                        item.progress(0.5)
                    if __name__ == "__main__":
                        Worker.from_env().{run}
                """)
                # What it said before may be heard, too.
                until("progress", lambda: [
                    item for item in self.items("leased")
                    if item.get("progress", {}).get("fraction") == 0.25
                    and item["progress"]["text"] == "page 3"])
                self.producer._call("DELETE", "/items/1")
                self.assertEqual(program.end(), 0, program.stderr)

    def test_what_is_said_of_the_progress_is_brought_within_its_bounds(self) -> None:
        leased = Leased(1, 2, 1, None, None, None, "1")
        said: list[Progress] = []
        item = Item(leased, lambda verdict: None, said.append)
        for fraction in (None, float("nan"), -1, 7, 0.5):
            item.progress(fraction)
        item.progress(text="ä" * 1_000)
        item.done()
        item.progress(1.0)
        self.assertEqual([one.fraction for one in said], [None, None, 0.0, 1.0, 0.5, None])
        self.assertEqual(said[-1].text, "ä" * 100)
        self.assertEqual(said[2].wire(9), {"id": 1, "lease": 9, "fraction": 0.0})

    def test_run_without_a_handler_says_so(self) -> None:
        worker = Worker(self.server.url, self.queue, TOKEN)
        with self.assertRaisesRegex(TypeError, "wants a handler"):
            worker.run()
        with self.assertRaisesRegex(TypeError, "argument of run"):
            worker.run(processes=True)
        with self.assertRaisesRegex(ValueError, "size must be 1 to 1024"):
            worker.batch(1_025, max_wait=1.0)


if __name__ == "__main__":
    unittest.main()
