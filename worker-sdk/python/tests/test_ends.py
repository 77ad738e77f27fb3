"""How workers end, against the real service."""

from __future__ import annotations

import signal
import socket
import unittest

from .support import DOUBLE, SLOW, WithServer, until


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


if __name__ == "__main__":
    unittest.main()
