#!/bin/sh
# Makes the folder .venv with the first Python that can build nstcore, or says what this machine lacks.
set -eu

fail() {
    echo "nstcore: $1" >&2
    exit 1
}

compiler=""
for candidate in "${CXX:-}" c++ g++ clang++; do
    if [ -n "$candidate" ] && command -v "${candidate%% *}" >/dev/null 2>&1; then
        compiler=$candidate
        break
    fi
done
[ -n "$compiler" ] || fail "no C++ compiler found. Install g++ or clang++ (Debian, Ubuntu: apt install g++; macOS: xcode-select --install)."

# Prints what is missing from a Python; nothing when it will do.
lacks() {
    "$1" - <<'PYTHON' 2>/dev/null || echo "does not start"
import importlib.util, os, platform, sys, sysconfig

def problem():
    if sys.version_info < (3, 10):
        return "is version %s" % platform.python_version()
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            return "has no %s (Debian, Ubuntu: apt install python3-venv)" % module
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return "has no Python.h (Debian, Ubuntu: apt install python3-dev)"

print(problem() or "")
PYTHON
}

tried=""
for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
    command -v "$python" >/dev/null 2>&1 || continue
    missing=$(lacks "$python")
    if [ -z "$missing" ]; then
        rm -rf .venv
        log=$("$python" -m venv .venv 2>&1) && exit 0
        rm -rf .venv
        missing="cannot make a virtual environment: $log"
    fi
    tried="$tried
  $python $missing"
done
fail "no usable Python found: 3.10 or later with venv and headers is needed. Tried:${tried:-
  none is installed}"
