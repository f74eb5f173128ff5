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
void step_adam(const Array<T>& slope, double to_mean, double to_square, double rate, double eps, double decay,
               double keep, Array<T>& mean, Array<T>& square, Array<T>& theta) {
    const AdamStep step{to_mean, to_square, rate, eps, decay, keep};
    T *m = output_like(slope, mean, "mean"), *v = output_like(slope, square, "square");
    T* to = output_like(slope, theta, "theta");
    const T* from = slope.data();
    const std::int64_t count = slope.size();
    py::gil_scoped_release release;
    NST_CALL(adam_step<T>(from, count, step, m, v, to));
}

template <class T>
void step_sgd(const Array<T>& slope, double momentum, double rate, double decay, bool nesterov, Array<T>& velocity,
              Array<T>& theta) {
    const SgdStep step{momentum, rate, decay, nesterov};
    T *v = output_like(slope, velocity, "velocity"), *to = output_like(slope, theta, "theta");
    const T* from = slope.data();
    const std::int64_t count = slope.size();
    py::gil_scoped_release release;
    NST_CALL(sgd_step<T>(from, count, step, v, to));
}

template <class T>
void bind(py::module_& m) {
    using py::arg;
    m.def("dot", &dot_of<T>, arg("a").noconvert(), arg("b").noconvert());
    m.def("add_scaled", &add_scaled_to<T>, arg("x").noconvert(), arg("weight"), arg("y").noconvert());
    m.def("adam_step", &step_adam<T>, arg("slope").noconvert(), arg("to_mean"), arg("to_square"), arg("rate"),
          arg("eps"), arg("decay"), arg("keep"), arg("mean").noconvert(), arg("square").noconvert(),
          arg("theta").noconvert());
    m.def("sgd_step", &step_sgd<T>, arg("slope").noconvert(), arg("momentum"), arg("rate"), arg("decay"),
          arg("nesterov"), arg("velocity").noconvert(), arg("theta").noconvert());
}

}  // namespace

void bind_vector(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
