# Makes .venv in the repository and installs tf_mskd there, at the tested versions.
# Sourced by the other scripts: environment [EXTRA], "dev" for the tests; sets PYTHON.
# A second call with unchanged requirements installs nothing.

find_python() {
  local name
  for name in python3.12 python3.13 python3.11 python3; do
    if "$name" -c 'import sys, venv; exit(not (3, 11) <= sys.version_info < (3, 14))' \
      2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "error: Python 3.11, 3.12 or 3.13 with venv is needed, none was found." >&2
  return 1
}

environment() {
  local extra="${1:+[$1]}" stamp=".venv/installed${1:+_$1}" wanted base
  PYTHON="$PWD/.venv/bin/python"
  wanted=$(cat pyproject.toml setup.py requirements.txt constraints.txt | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    return
  fi
  if [ ! -x "$PYTHON" ]; then
    base=$(find_python) || return 1
    echo "making .venv with $("$base" --version)"
    "$base" -m venv .venv || return 1
  fi
  echo "installing tf_mskd$extra (minutes the first time)"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable ".$extra" || return 1
  echo "$wanted" >"$stamp"
}
