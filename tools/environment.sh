# Makes .venv in the repository and installs what the given requirement files ask for.
# Sourced by the other scripts: environment REQUIREMENTS_FILE...; sets PYTHON.
# A second call with unchanged files installs nothing.

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
  local stamp file
  PYTHON="$PWD/.venv/bin/python"
  for file in "$@"; do
    stamp=".venv/installed.$(echo "$file" | tr '/' '_')"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$(cksum <"$file")" ]; then
      continue
    fi
    if [ ! -x "$PYTHON" ]; then
      local base
      base=$(find_python) || return 1
      echo "making .venv with $("$base" --version)"
      "$base" -m venv .venv || return 1
    fi
    echo "installing $file (minutes the first time)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$file" || return 1
    cksum <"$file" >"$stamp"
  done
}
