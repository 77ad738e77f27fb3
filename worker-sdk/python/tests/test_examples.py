"""What the documents show runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from .support import DEADLINE, ROOT, SOURCE, TOKEN, WithServer

README = Path(__file__).resolve().parents[1] / "README.md"
GUIDE = ROOT / "docs" / "workers.md"
DOCUMENTS = (README, GUIDE)
COUNT_WORDS = ROOT / "examples" / "count-words-python" / "count_words.py"


def blocks(kind: str) -> list[str]:
    """The programs of the documents that begin with ``# kind``."""
    text = "".join(document.read_text() for document in DOCUMENTS)
    return re.findall(rf"```python\n(# {kind}\n.*?)```", text, re.DOTALL)


class Documents(WithServer):
    def test_every_block_is_a_program_of_a_known_kind(self) -> None:
        count = sum(document.read_text().count("```python\n") for document in DOCUMENTS)
        self.assertEqual(count, len(blocks("worker")) + len(blocks("producer")))

    def test_every_worker_does_its_items(self) -> None:
        name = self.queue
        for number, text in enumerate(blocks("worker")):
            with self.subTest(number):
                self.queue = f"{name}-{number}"[-60:].strip("-")
                self.producer._path = f"/v1/queues/{self.queue}"
                self.fill([{"text": "one"}, {"text": "one two"}])
                program = self.program(text)
                self.assertEqual(program.end(), 0, program.stderr)
                words = [result.result["words"] for result in self.producer.results()]
                self.assertEqual(sorted(words), [1, 2])

    def test_every_producer_gets_its_results(self) -> None:
        name = self.queue
        for number, text in enumerate(blocks("producer")):
            with self.subTest(number):
                self.queue = f"{name}-{number}"[-60:].strip("-")
                worker, producer = self.program(blocks("worker")[0]), self.program(text)
                self.assertEqual(producer.end(), 0, producer.stderr)
                self.assertEqual(worker.end(), 0, worker.stderr)
                self.assertIn("10", producer.stdout)
                if "text-{number}" in text:
                    self.assertIn("text-9 4", producer.stdout)


class CountWords(WithServer):
    def run_program(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "GANGLINE_URL": self.server.url,
                       "GANGLINE_QUEUE": self.queue, "GANGLINE_TOKEN": TOKEN}
        program = subprocess.Popen([sys.executable, str(COUNT_WORDS), *arguments], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment)
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        return program

    def test_it_counts_the_words_of_all_files(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            paths = []
            for number in range(20):
                path = os.path.join(directory, f"{number}.txt")
                Path(path).write_text("word " * number)
                paths.append(path)
            Path(directory, "image").write_bytes(b"\xff\xfe\xff")
            workers = [self.run_program("work") for _ in range(2)]
            producer = self.run_program("push", *paths, os.path.join(directory, "image"))
            stdout, stderr = producer.communicate(timeout=DEADLINE)
            self.assertIn(f"{sum(range(20)):8} total", stdout, stderr)
            self.assertEqual(producer.returncode, 1)
            self.assertIn("1 files could not be counted", stderr)
            for worker in workers:
                _, stderr = worker.communicate(timeout=DEADLINE)
                self.assertEqual(worker.returncode, 0, stderr)


if __name__ == "__main__":
    unittest.main()
