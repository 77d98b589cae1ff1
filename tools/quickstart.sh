#!/usr/bin/env bash
# From a fresh clone to a distilled multi-exit student, on the built-in digits.
# Safe to repeat: finished runs are reused.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh
environment

runs=runs/digits
for name in student mskd oto; do
  "$PYTHON" -m tf_mskd.train --flagfile="configs/digits/$name.flags" \
    --run_dir="$runs/$name"
done
echo
"$PYTHON" -m tf_mskd.report --output="$runs/report" \
  --run_dirs="$runs/teacher,$runs/student,$runs/mskd,$runs/oto"
echo "run folders: $runs/teacher $runs/student $runs/mskd $runs/oto"
