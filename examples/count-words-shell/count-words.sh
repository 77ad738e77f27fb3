#!/bin/sh
# Counts the lines and words of one file, and writes them as JSON.
# The item, a path, is the argument; what is written to stdout is the result; any exit code but 0
# is a failed attempt, and the end of stderr its error.
set -eu
counts=$(wc -lw < "$1")
# Unquoted on purpose: two numbers.
set -- $counts
printf '{"lines":%d,"words":%d}\n' "$1" "$2"
