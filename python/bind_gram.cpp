#include "../csrc/gram/gram.h"
#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
GramShape shape_of(const Array<T>& x) {
    expect_rank(x, 4, "x");
    return {x.shape(0), x.shape(1) * x.shape(2), x.shape(3)};
}

template <class T>
void forward(const Array<T>& x, Array<T>& g) {
    const GramShape s = shape_of(x);
    T* to = output(g, {s.images, s.channels, s.channels}, "g");
    const T* from = x.data();
    py::gil_scoped_release release;
    NST_CALL(gram_forward_cpu<T>(from, s, to));
}

template <class T>
void backward(const Array<T>& x, const Array<T>& d, Array<T>& dx) {
    const GramShape s = shape_of(x);
    const T* dp = input(d, {s.images, s.channels, s.channels}, "d");
    T* to = output(dx, {x.shape(0), x.shape(1), x.shape(2), x.shape(3)}, "dx");
    const T* from = x.data();
    py::gil_scoped_release release;
    NST_CALL(gram_backward_cpu<T>(from, dp, s, to));
}

template <class T>
void bind(py::module_& m) {
    m.def("gram_forward_cpu", &forward<T>, py::arg("x").noconvert(), py::arg("g").noconvert());
    m.def("gram_backward_cpu", &backward<T>, py::arg("x").noconvert(), py::arg("d").noconvert(),
          py::arg("dx").noconvert());
}

}  // namespace

void bind_gram(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
