#include "../csrc/prelu/prelu.h"

#include <optional>

#include <pybind11/stl.h>

#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
void forward(const Array<T>& x, const Array<T>& slope, Array<T>& y) {
    expect_rank(x, 2, "x");
    const std::int64_t rows = x.shape(0), channels = x.shape(1);
    const T *from = x.data(), *sp = input(slope, {channels}, "slope");
    T* to = output(y, {rows, channels}, "y");
    py::gil_scoped_release release;
    NST_CALL(prelu_forward_cpu<T>(from, sp, rows, channels, to));
}

template <class T>
void backward(const Array<T>& x, const Array<T>& slope, const Array<T>& dy, std::optional<Array<T>> dx,
              std::optional<Array<T>> dslope) {
    expect_rank(x, 2, "x");
    const std::int64_t rows = x.shape(0), channels = x.shape(1);
    const T *from = x.data(), *sp = input(slope, {channels}, "slope"), *dyp = input(dy, {rows, channels}, "dy");
    T* dxp = dx ? output(*dx, {rows, channels}, "dx") : nullptr;
    T* dsp = dslope ? output(*dslope, {channels}, "dslope") : nullptr;
    py::gil_scoped_release release;
    NST_CALL(prelu_backward_cpu<T>(from, sp, dyp, rows, channels, dxp, dsp));
}

template <class T>
void bind(py::module_& m) {
    using py::arg;
    m.def("prelu_forward_cpu", &forward<T>, arg("x").noconvert(), arg("slope").noconvert(), arg("y").noconvert());
    m.def("prelu_backward_cpu", &backward<T>, arg("x").noconvert(), arg("slope").noconvert(), arg("dy").noconvert(),
          arg("dx").noconvert(), arg("dslope").noconvert());
}

}  // namespace

void bind_prelu(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
