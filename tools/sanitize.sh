#!/bin/sh
# Builds the kernels with the address and undefined-behaviour sanitizers beside a copy of the package, and runs the
# tests of the kernels on it. Called by `make sanitize`; arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/.venv
work=$venv/sanitize
site=$work/site
rm -rf "$site"
mkdir -p "$site"
cp -r nstcore "$site/"
rm -f "$site"/nstcore/_native*
PATH="$venv/bin:$PATH"
cmake -S . -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DNST_SANITIZE=ON \
    -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$site/nstcore" -DPython_EXECUTABLE="$venv/bin/python" \
    -Dpybind11_DIR="$(pybind11-config --cmakedir)" >/dev/null
cmake --build "$work/build"
runtime=$("${CXX:-g++}" -print-file-name=libasan.so)
# Python leaves much unfreed at its end; what leaks from the kernels would be seen as growth.
LD_PRELOAD=$runtime ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONPATH=$site \
    NSTCORE_NUM_THREADS=2 python -m pytest -q -n 2 -p no:cacheprovider tests/ops "$@"
