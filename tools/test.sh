#!/usr/bin/env bash
# Format, lint, types and all tests but the slow ones; arguments go to pytest, -m too.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh
environment dev
export TF_CPP_MIN_LOG_LEVEL=2
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest -n 2 --dist loadgroup --no-loadscope-reorder \
  -m "not slow" "$@"
