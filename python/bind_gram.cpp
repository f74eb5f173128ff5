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
void backward(const Array<T>& x, const Array<T>& d, double weight, bool add, Array<T>& dx) {
    const GramShape s = shape_of(x);
    const T* dp = input(d, {s.images, s.channels, s.channels}, "d");
    T* to = output(dx, {x.shape(0), x.shape(1), x.shape(2), x.shape(3)}, "dx");
    const T* from = x.data();
    py::gil_scoped_release release;
    NST_CALL(gram_backward_cpu<T>(from, dp, static_cast<T>(weight), s, add, to));
}

template <class T>
double style_forward(const Array<T>& x, const Array<T>& target, double scale, Array<T>& d) {
    const GramShape s = shape_of(x);
    const T* wanted = input(target, {s.images, s.channels, s.channels}, "target");
    T* to = output(d, {s.images, s.channels, s.channels}, "d");
    const T* from = x.data();
    double j = 0;
    py::gil_scoped_release release;
    NST_CALL(style_loss_forward_cpu<T>(from, wanted, scale, s, to, &j));
    return j;
}

template <class T>
void bind(py::module_& m) {
    using py::arg;
    m.def("gram_forward_cpu", &forward<T>, arg("x").noconvert(), arg("g").noconvert());
    m.def("gram_backward_cpu", &backward<T>, arg("x").noconvert(), arg("d").noconvert(), arg("weight"), arg("add"),
          arg("dx").noconvert());
    m.def("style_loss_forward_cpu", &style_forward<T>, arg("x").noconvert(), arg("target").noconvert(), arg("scale"),
          arg("d").noconvert());
}

}  // namespace

void bind_gram(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
