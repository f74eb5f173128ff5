#include "../csrc/vector/vector.h"

#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
double dot_of(const Array<T>& a, const Array<T>& b) {
    const T *ap = a.data(), *bp = input_like(a, b, "b");
    const std::int64_t count = a.size();
    double sum = 0;
    py::gil_scoped_release release;
    NST_CALL(dot<T>(ap, bp, count, &sum));
    return sum;
}

template <class T>
void add_scaled_to(const Array<T>& x, double weight, Array<T>& y) {
    T* to = output_like(x, y, "y");
    const T* from = x.data();
    const std::int64_t count = x.size();
    py::gil_scoped_release release;
    NST_CALL(add_scaled<T>(from, static_cast<T>(weight), count, to));
}

template <class T>
void bind(py::module_& m) {
    using py::arg;
    m.def("dot", &dot_of<T>, arg("a").noconvert(), arg("b").noconvert());
    m.def("add_scaled", &add_scaled_to<T>, arg("x").noconvert(), arg("weight"), arg("y").noconvert());
}

}  // namespace

void bind_vector(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
