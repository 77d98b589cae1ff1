#!/usr/bin/env bash
# Format, lint, types and the fast tests: no process, no whole run; arguments go to pytest.
# First argument --fix: rewrites first. --slow: the slow tests instead.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == "--fix" ]]; then
  shift
  source tools/environment.sh
  environment dev
  "$PYTHON" -m ruff check --fix .
  "$PYTHON" -m ruff format .
fi
set="not run and not slow"
if [[ "${1:-}" == "--slow" ]]; then
  shift
  set="slow"
fi
exec bash tools/test.sh -m "$set" "$@"
