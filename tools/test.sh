#!/usr/bin/env bash
# All tests from a fresh clone; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh
environment dev
export TF_CPP_MIN_LOG_LEVEL=2
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest -n 2 --dist loadfile "$@"
