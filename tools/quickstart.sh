#!/usr/bin/env bash
# From a fresh clone to a distilled multi-exit student, on the built-in digits.
# Safe to repeat: finished runs are reused.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh
environment requirements.txt

export TF_CPP_MIN_LOG_LEVEL=2
runs=runs/digits
for name in student mskd oto; do
  "$PYTHON" -m tf_mskd.train --flagfile="configs/digits/$name.flags" \
    --run_dir="$runs/$name" 2> >(grep -v -e '^[IW]0000' -e '^WARNING: All log' \
      -e '^To enable the following' >&2)
done
echo
"$PYTHON" -m tf_mskd.report --output="$runs/report" \
  --run_dirs="$runs/teacher,$runs/student,$runs/mskd,$runs/oto" \
  2> >(grep -v -e '^[IW]0000' -e '^WARNING: All log' -e '^To enable the foll' >&2)
echo "run folders: $runs/teacher $runs/student $runs/mskd $runs/oto"
