#!/usr/bin/env bash
# Format check, lint and the fast tests. --fix rewrites first; --slow adds slow tests.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ " $* " == *" --fix "* ]]; then
  source tools/environment.sh
  environment dev
  "$PYTHON" -m ruff check --fix .
  "$PYTHON" -m ruff format .
fi
if [[ " $* " == *" --slow "* ]]; then
  exec bash tools/test.sh
fi
exec bash tools/test.sh -m "not slow"
