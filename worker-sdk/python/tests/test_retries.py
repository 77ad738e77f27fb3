"""When calls are sent again, and what their errors say."""

from __future__ import annotations

import socket
import threading
import unittest

from gangline import Producer, ProtocolError, Refused, Unavailable
from gangline._http import Address, Connection
from gangline._retry import Backoff


class Waits(unittest.TestCase):
    def test_waits_are_spread_over_all_of_a_bound_that_doubles(self) -> None:
        # That none of so many is in a tenth has a chance below 10^-45.
        drawn = [Backoff(0.1, 1.0).draw() for _ in range(1_000)]
        self.assertEqual({int(wait * 100) for wait in drawn if wait < 0.1}, set(range(10)))
        backoff = Backoff(0.1, 0.35)
        bounds = []
        for _ in range(4):
            bounds.append(min(backoff._bound, 0.35))
            self.assertLessEqual(backoff.draw(), bounds[-1])
        self.assertEqual(bounds, [0.1, 0.2, 0.35, 0.35])
        backoff.answered()
        self.assertLessEqual(backoff.draw(), 0.1)

    def test_what_the_service_asks_for_is_waited_at_least(self) -> None:
        wait = Backoff(0.1, 1.0).after(Unavailable("busy", retry_after=7.0))
        self.assertTrue(7.0 <= wait <= 7.1, wait)


class Errors(unittest.TestCase):
    def test_errors_tell_what_a_caller_may_do(self) -> None:
        for error, retryable, effect in (
            (Unavailable("away"), True, True),
            (Unavailable("away", arrived=False), True, False),
            (Refused(409, "queue_sealed", "sealed"), False, False),
            (Refused(400, "incomplete_stream", "broke off"), False, True),
            (ProtocolError("odd"), False, True),
        ):
            self.assertEqual((error.is_retryable, error.may_have_taken_effect),
                             (retryable, effect), error)

    def test_a_connection_that_was_never_made_took_no_effect(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with self.assertRaises(Unavailable) as raised:
            Connection(Address(f"http://127.0.0.1:{port}")).call("GET", "/v1/queues")
        self.assertFalse(raised.exception.may_have_taken_effect)

    def test_an_answer_that_was_lost_before_is_not_forgotten(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            producer = Producer(f"http://127.0.0.1:{port}", "q", patience=0.2)
            # Listens, and answers nothing before it is gone.
            def hang_up() -> None:
                peer, _ = server.accept()
                peer.recv(1 << 16)
                server.close()
                peer.close()

            thread = threading.Thread(target=hang_up)
            thread.start()
            with self.assertRaises(Unavailable) as raised:
                producer.seal()
            thread.join()
        self.assertTrue(raised.exception.may_have_taken_effect)


if __name__ == "__main__":
    unittest.main()
