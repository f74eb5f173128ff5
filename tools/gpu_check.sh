#!/bin/sh
# Runs the tests marked gpu under each tool of compute-sanitizer, on a machine with a GPU. Called by `make gpu-check`;
# the first argument is the Python to run, the others go to pytest.
set -eu
cd "$(dirname "$0")/.."
python=$1
shift
if ! command -v compute-sanitizer >/dev/null; then
    echo "gpu-check: compute-sanitizer is not on the path; it comes with the CUDA toolkit" >&2
    exit 1
fi
reason=$("$python" -c "import nstcore.backend; print(nstcore.backend.why_no_cuda())")
if [ -n "$reason" ]; then
    echo "gpu-check: no GPU to check on: $reason" >&2
    exit 1
fi
# Of memory that a pool hands out again the tools know neither the bounds nor that it was never written.
export NSTCORE_TEST_NO_POOL=1
for tool in memcheck racecheck initcheck synccheck; do
    echo "gpu-check: $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -m pytest -q -p no:cacheprovider -n 0 -m gpu \
        tests/kernels "$@" || {
        echo "gpu-check: $tool failed" >&2
        exit 1
    }
done
echo "gpu-check: memcheck, racecheck, initcheck and synccheck found nothing"
