"""What a loop over a worker promises, against the real service."""

from __future__ import annotations

import unittest

from gangline import RawJson

from .support import DOUBLE, WithServer


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


if __name__ == "__main__":
    unittest.main()
