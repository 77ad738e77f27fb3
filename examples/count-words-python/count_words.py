"""Counts the words of text files, on any number of machines that see the same files.

    count_words.py push FILE...   fills the queue and waits for the sum
    count_words.py work           is one of the workers
"""

import sys
from collections import Counter

from gangline import Item, Permanent, Producer, Worker


def count(item: Item) -> dict:
    """Counts one file; one that is no text will be none at the next attempt either."""
    try:
        with open(item.payload["path"], encoding="utf-8") as file:
            words = Counter(word for line in file for word in line.lower().split())
    except (UnicodeDecodeError, FileNotFoundError) as error:
        raise Permanent(error) from error
    return {"words": sum(words.values()), "top": words.most_common(3)}


def push(paths: list) -> int:
    """Pushes the files, prints what was counted, and returns the exit code."""
    with Producer.from_env() as files:
        for path in paths:
            files.push({"path": path}, key=path)
        files.seal()
        certificate = files.wait()
        total = 0
        for result in files.results():
            total += result.result["words"]
            print(f"{result.result['words']:8} {result.key}")
        print(f"{total:8} total")
    counts = certificate.counts
    if counts.dead:
        print(f"{counts.dead} files could not be counted", file=sys.stderr)
    return 0 if certificate.succeeded and not counts.dead else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["push"]:
        sys.exit(push(sys.argv[2:]))
    elif sys.argv[1:] == ["work"]:
        Worker.from_env(concurrency=4).run(count)
    else:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
