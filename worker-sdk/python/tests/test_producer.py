"""What a producer promises, against the real service."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import threading
import unittest
from typing import Any, Callable

from gangline import Producer, ProtocolError, RawJson, Refused, Unauthorized, Unavailable

from .support import TOKEN, WithServer, until

DRAIN = """
    from gangline import Worker
    for item in Worker.from_env():
        item.done(item.payload)
"""


class Pushes(WithServer):
    def drained(self) -> None:
        program = self.program(DRAIN)
        self.assertEqual(program.end(), 0, program.stderr)

    def test_a_with_block_sends_everything_in_batches(self) -> None:
        proxy = self.proxy(lambda request: False)
        with Producer(proxy.url, self.queue, TOKEN) as producer:
            for number in range(2_500):
                producer.push(number)
        self.assertEqual(self.producer.counts().ready, 2_500)
        pushes = [request for request in proxy.requests if b"/items" in request]
        self.assertEqual(len(pushes), 3)

    def test_an_exception_in_a_with_block_sends_nothing_more(self) -> None:
        self.producer.configure()
        with self.assertRaises(KeyError), Producer(self.server.url, self.queue, TOKEN) as producer:
            producer.push(1)
            raise KeyError
        self.assertEqual(self.producer.counts().ready, 0)

    def test_a_batch_goes_after_its_time_without_a_flush(self) -> None:
        with Producer(self.server.url, self.queue, TOKEN, linger=0.01) as producer:
            producer.push("first")
            until("the first batch", lambda: producer.flush().added or self.producer.counts().ready)
            producer.push("second")
            # Nothing but the time sends it.
            until("the second batch", lambda: self.producer.counts().ready == 2)

    def test_what_fails_when_it_has_lingered_is_raised_by_the_next_call(self) -> None:
        self.producer.configure()
        self.producer.seal()
        with Producer(self.server.url, self.queue, TOKEN, linger=0.0) as producer:
            producer.push("late")
            until("the refusal", lambda: producer._failed)
            with self.assertRaises(Refused) as raised:
                producer.push("later")
            self.assertEqual(raised.exception.code, "queue_over")
            self.assertEqual(producer.flush().added, 0)

    def test_threads_may_push_into_one_producer(self) -> None:
        with Producer(self.server.url, self.queue, TOKEN, linger=0.001) as producer:
            def push() -> None:
                for number in range(300):
                    producer.push(number)

            threads = [threading.Thread(target=push) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(producer.flush().added, 1_200)

    def test_keys_are_taken_once(self) -> None:
        for _ in range(2):
            self.producer.push("a", key="one")
        report = self.producer.flush()
        self.assertEqual((report.added, report.duplicates), (1, 1))

    def test_a_batch_whose_reply_was_lost_is_added_once(self) -> None:
        lost: list[bytes] = []

        def lose(request: bytes) -> bool:
            if b"/items" in request and len(lost) < 2:
                lost.append(request)
                return True
            return False

        proxy = self.proxy(lose)
        with Producer(proxy.url, self.queue, TOKEN) as producer:
            for number in range(10):
                producer.push(number)
        self.assertEqual(len(lost), 2)
        self.assertEqual(self.producer.counts().ready, 10)

    def test_wait_gives_the_certificate_and_results_agree_with_its_digest(self) -> None:
        for number in range(1_200):
            self.producer.push({"number": number}, key=f"k{number}")
        self.producer.seal()
        self.drained()
        certificate = self.producer.wait(10)
        self.assertTrue(certificate.succeeded)
        self.assertEqual((certificate.queue, certificate.counts.done), (self.queue, 1_200))
        total = 0
        for result in self.producer.results():
            self.assertEqual(result.key, f"k{result.result['number']}")
            hashed = hashlib.sha256(result.id.to_bytes(8, "big") + result.raw.encode())
            total += int.from_bytes(hashed.digest(), "big")
        self.assertEqual(f"{total % 2**256:064x}", certificate.digest)
        self.assertEqual("synced", certificate.durability)

    def test_wait_has_a_time_limit(self) -> None:
        self.producer.push(1)
        with self.assertRaisesRegex(TimeoutError, "is not over after 0.1 s"):
            self.producer.wait(0.1)

    def test_results_are_followed_until_the_end(self) -> None:
        self.producer.push(1)
        self.producer.flush()
        found: list[Any] = []
        other = Producer(self.server.url, self.queue, TOKEN)
        self.addCleanup(other.close)
        follower = threading.Thread(target=lambda: found.extend(
            result.result for result in other.results(follow=True)))
        follower.start()
        program = self.program(DRAIN)
        until("the first", lambda: found == [1])
        self.producer.push(2)
        self.producer.seal()
        follower.join(30)
        self.assertEqual(found, [1, 2])
        self.assertEqual(program.end(), 0, program.stderr)

    def test_refusals_name_what_is_wrong(self) -> None:
        self.producer.push(1)
        self.producer.seal()
        self.producer.push(2)
        with self.assertRaises(Refused) as caught:
            self.producer.flush()
        self.assertEqual(caught.exception.code, "queue_sealed")
        with self.assertRaises(Refused) as caught:
            self.producer.configure(session_ms=10)
        self.assertEqual(caught.exception.field, "sessionMs")
        other = Producer(self.server.url, self.queue, "another")
        self.addCleanup(other.close)
        with self.assertRaises(Unauthorized):
            other.status()

    def test_bounds_are_named_before_anything_is_sent(self) -> None:
        push: Callable[..., None] = self.producer.push
        for wanted, settings in (
                ("item key must be 1 to 512 bytes", {"key": "x" * 513}),
                ("priority must be 0 to 9, got 10", {"priority": 10}),
                ("delay must be 0 to 2.592e\\+06 s, got -1", {"delay": -1}),
                ("delay must be 0 to 2.592e\\+06 s, got nan", {"delay": float("nan")}),
                ("time_limit must be 0.001 to 2.592e\\+06 s", {"time_limit": 0}),
                ("max_attempts must be 1 to 100, got 0", {"max_attempts": 0})):
            with self.subTest(wanted), self.assertRaisesRegex(ValueError, wanted):
                push(1, **settings)
        with self.assertRaisesRegex(ValueError, "payload must be 0 to 1048576 bytes, got 2000002"):
            push("x" * 2_000_000)
        with self.assertRaises(ValueError):
            push(float("nan"))
        with self.assertRaises(ValueError):
            push(RawJson("{no json"))
        with self.assertRaises(TypeError):
            push({1})
        self.producer.configure()
        self.producer.flush()
        self.assertEqual(self.producer.counts().ready, 0)


class Streams(WithServer):
    def test_a_stream_of_any_length_is_taken_and_sealed(self) -> None:
        report = self.producer.push_stream(lambda: range(25_000), "all", seal=True)
        self.assertEqual((report.added, report.sealed), (25_000, True))
        again = self.producer.push_stream(range(25_000), "all", seal=True)
        self.assertEqual(again.added, 25_000, "a repeat gets the first answer")
        self.assertEqual(self.producer.counts().ready, 25_000)

    def test_another_stream_under_the_same_key_is_refused(self) -> None:
        self.producer.push_stream(range(2_000), "all")
        with self.assertRaises(Refused) as caught:
            self.producer.push_stream(range(1, 3_000), "all")
        self.assertEqual(caught.exception.code, "idempotency_mismatch")

    def test_connections_that_all_break_are_enough_for_a_long_stream(self) -> None:
        cut = _Cut(self.server.port, 1_500_000, always=True)
        self.addCleanup(cut.close)
        payloads = (f"{number:>300}" for number in range(20_000))
        with Producer(cut.url, self.queue, TOKEN) as producer:
            report = producer.push_stream(payloads, "breaking", seal=True)
        self.assertGreaterEqual(cut.count, 4, "6 MB over connections of 1.5 MB each")
        self.assertEqual((report.added, report.duplicates, report.sealed), (20_000, 0, True))
        self.assertEqual(self.producer.counts().ready, 20_000)

    def test_a_stream_goes_on_when_the_service_was_started_again(self) -> None:
        def source() -> Any:
            for number in range(20_000):
                if number == 10_000:
                    self.server.kill()
                    threading.Thread(target=self.server.start).start()
                yield f"{number:>300}"

        report = self.producer.push_stream(source, "restarted", seal=True)
        self.assertEqual((report.added, report.duplicates, report.sealed), (20_000, 0, True))
        self.assertEqual(self.producer.counts().ready, 20_000)

    def _broken(self, source: Any) -> None:
        cut = _Cut(self.server.port, 200_000)
        self.addCleanup(cut.close)
        with Producer(cut.url, self.queue, TOKEN) as producer:
            report = producer.push_stream(source, "broken", seal=True)
        # A try may come before the service has missed the first connection, and be told to wait.
        self.assertGreaterEqual(cut.count, 2, "it was cut")
        self.assertTrue(report.sealed)
        # Items without keys: a line that was taken twice would be counted twice.
        self.assertEqual(self.producer.counts().ready, 30_000)

    def test_a_broken_stream_of_a_collection_continues(self) -> None:
        self._broken(range(30_000))

    def test_a_broken_stream_of_an_iterator_continues(self) -> None:
        self._broken(iter(range(30_000)))

    def test_an_error_of_the_source_is_raised_and_does_not_seal(self) -> None:
        def source() -> Any:
            yield 1
            raise OSError("the disk is gone")

        self.producer.configure()
        with self.assertRaisesRegex(OSError, "the disk is gone"):
            self.producer.push_stream(source, "source", seal=True)
        self.assertEqual(self.producer.status()["phase"], "open")
        report = self.producer.push_stream([1, 2], "source", seal=True)
        self.assertEqual((report.added, report.sealed), (2, True))


class _Cut:
    """Passes bytes on; cuts its first connection, or each, after so many from the client."""

    def __init__(self, port: int, after: int, always: bool = False) -> None:
        self._port, self._after, self.count = port, after, 0
        self._always = always
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.count += 1
            server = socket.create_connection(("127.0.0.1", self._port))
            left = self._after if self.count == 1 or self._always else 1 << 60
            for pair in ((client, server, left), (server, client, 1 << 60)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, left: int) -> None:
        try:
            while left > 0:
                part = source.recv(1 << 14)
                if not part:
                    break
                left -= len(part)
                target.sendall(part)
        except OSError:
            pass
        for peer in (source, target):
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        source.close()


class _Answers(http.server.BaseHTTPRequestHandler):
    """A service that is scripted, for answers that the real one gives only when it is full."""

    protocol_version = "HTTP/1.1"
    script: list[tuple[int, dict[str, str], Any]] = []
    keys: list[Any] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.keys.append(self.headers["idempotency-key"])
        status, headers, body = self.script.pop(0)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class BackPressure(unittest.TestCase):
    def setUp(self) -> None:
        class Answers(_Answers):
            script = []
            keys = []

        self.answers = Answers
        service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.answers)
        threading.Thread(target=service.serve_forever, daemon=True).start()
        self.addCleanup(service.server_close)
        self.addCleanup(service.shutdown)
        self.url = f"http://127.0.0.1:{service.server_address[1]}"

    def test_a_full_service_is_waited_for_with_the_same_key(self) -> None:
        full = {"status": 503, "code": "unavailable", "detail": "near its memory limit"}
        taken = {"uid": "u", "added": 1, "duplicates": 0, "sealed": False}
        self.answers.script += [(503, {"retry-after": "1"}, full), (429, {"retry-after": "0"}, b""),
                                (502, {}, b"<html>"), (200, {}, taken)]
        with Producer(self.url, "full", patience=0.5) as producer:
            producer.push(1)
            # The second of waiting does not count as silence.
            self.assertEqual(producer.flush().added, 1)
        self.assertEqual(len(self.answers.keys), 4)
        self.assertEqual(len(set(self.answers.keys)), 1)
        self.assertIsNotNone(self.answers.keys[0])

    def test_patience_has_an_end_and_the_batch_is_kept(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        producer = Producer(f"http://127.0.0.1:{port}", "away", patience=0.2)
        producer.push(1)
        for _ in range(2):
            with self.assertRaisesRegex(Unavailable, "does not answer"):
                producer.flush()

    def test_what_is_no_gangline_service_is_said(self) -> None:
        self.answers.script += [(404, {}, b"<html>")]
        producer = Producer(self.url, "other")
        self.addCleanup(producer.close)
        producer.push(1)
        with self.assertRaisesRegex(ProtocolError, "HTTP status 404"):
            producer.flush()


if __name__ == "__main__":
    unittest.main()
