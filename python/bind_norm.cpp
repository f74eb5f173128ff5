#include <pybind11/stl.h>

#include <optional>

#include "../csrc/norm/norm.h"
#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
NormShape shape_of(const Array<T>& x, double eps, bool relu, bool given) {
    expect_rank(x, 2, "x");
    return {x.shape(0), x.shape(1), eps, relu, given};
}

template <class T>
void forward(const Array<T>& x, const Array<T>& scale, const Array<T>& shift, double eps, bool relu, bool given,
             Array<double>& moments, Array<T>& y) {
    const NormShape s = shape_of(x, eps, relu, given);
    const T *xp = x.data(), *scales = input(scale, {s.channels}, "scale"),
            *shifts = input(shift, {s.channels}, "shift");
    double* mp = output(moments, {2, s.channels}, "moments");
    T* yp = output(y, {s.positions, s.channels}, "y");
    py::gil_scoped_release release;
    NST_CALL(batch_norm_forward_cpu<T>(xp, scales, shifts, s, mp, yp));
}

template <class T>
void backward(const Array<T>& x, const Array<T>& dy, const Array<T>& scale, const Array<T>& shift,
              const Array<double>& moments, double eps, bool relu, bool given, std::optional<Array<T>>& dx,
              Array<T>& dscale, Array<T>& dshift) {
    const NormShape s = shape_of(x, eps, relu, given);
    const T *xp = x.data(), *dyp = input(dy, {s.positions, s.channels}, "dy");
    const T *scales = input(scale, {s.channels}, "scale"), *shifts = input(shift, {s.channels}, "shift");
    const double* mp = input(moments, {2, s.channels}, "moments");
    T* to = dx ? output(*dx, {s.positions, s.channels}, "dx") : nullptr;
    T *dscales = output(dscale, {s.channels}, "dscale"), *dshifts = output(dshift, {s.channels}, "dshift");
    py::gil_scoped_release release;
    NST_CALL(batch_norm_backward_cpu<T>(xp, dyp, scales, shifts, mp, s, to, dscales, dshifts));
}

template <class T>
NormPoolShape pool_shape_of(const Array<T>& x, double eps, bool given) {
    expect_rank(x, 4, "x");
    return {x.shape(0), x.shape(1), x.shape(2), x.shape(3), eps, given};
}

template <class T>
void forward_pooled(const Array<T>& x, const Array<T>& scale, const Array<T>& shift, double eps, bool given,
                    Array<double>& moments, Array<T>& y, Array<T>& top) {
    const NormPoolShape s = pool_shape_of(x, eps, given);
    const T *xp = x.data(), *scales = input(scale, {s.c}, "scale"), *shifts = input(shift, {s.c}, "shift");
    double* mp = output(moments, {2, s.c}, "moments");
    T *yp = output(y, {s.n, s.h / 2, s.w / 2, s.c}, "y"), *tp = output(top, {s.n, s.h / 2, s.w / 2, s.c}, "top");
    py::gil_scoped_release release;
    NST_CALL(batch_norm_pool2d_forward_cpu<T>(xp, scales, shifts, s, mp, yp, tp));
}

template <class T>
void backward_pooled(const Array<T>& x, const Array<T>& top, const Array<T>& dy, const Array<T>& scale,
                     const Array<T>& shift, const Array<double>& moments, double eps, bool given,
                     std::optional<Array<T>>& dx, Array<T>& dscale, Array<T>& dshift) {
    const NormPoolShape s = pool_shape_of(x, eps, given);
    const T *xp = x.data(), *tp = input(top, {s.n, s.h / 2, s.w / 2, s.c}, "top");
    const T* dyp = input(dy, {s.n, s.h / 2, s.w / 2, s.c}, "dy");
    const T *scales = input(scale, {s.c}, "scale"), *shifts = input(shift, {s.c}, "shift");
    const double* mp = input(moments, {2, s.c}, "moments");
    T* to = dx ? output(*dx, {s.n, s.h, s.w, s.c}, "dx") : nullptr;
    T *dscales = output(dscale, {s.c}, "dscale"), *dshifts = output(dshift, {s.c}, "dshift");
    py::gil_scoped_release release;
    NST_CALL(batch_norm_pool2d_backward_cpu<T>(xp, tp, dyp, scales, shifts, mp, s, to, dscales, dshifts));
}

template <class T>
std::int64_t picture_size(const Array<T>& x) {
    if (x.ndim() < 1) throw wrong_shape("x");
    return x.shape(0) ? x.size() / x.shape(0) : 0;
}

template <class T>
void standardize_forward(const Array<T>& x, double eps, Array<double>& moments, Array<T>& y) {
    const std::int64_t size = picture_size(x), n = x.shape(0);
    const T* from = x.data();
    T* to = output_like(x, y, "y");
    double* found = output(moments, {n, 2}, "moments");
    py::gil_scoped_release release;
    NST_CALL(standardize_forward_cpu<T>(from, n, size, eps, found, to));
}

template <class T>
void standardize_backward(const Array<T>& x, const Array<T>& dy, const Array<double>& moments, Array<T>& dx) {
    const std::int64_t size = picture_size(x), n = x.shape(0);
    const T *from = x.data(), *slopes = input_like(x, dy, "dy");
    const double* found = input(moments, {n, 2}, "moments");
    T* to = output_like(x, dx, "dx");
    py::gil_scoped_release release;
    NST_CALL(standardize_backward_cpu<T>(from, slopes, n, size, found, to));
}

template <class T>
void bind(py::module_& m) {
    using py::arg;
    m.def("batch_norm_forward_cpu", &forward<T>, arg("x").noconvert(), arg("scale").noconvert(),
          arg("shift").noconvert(), arg("eps"), arg("relu"), arg("given"), arg("moments").noconvert(),
          arg("y").noconvert());
    m.def("batch_norm_backward_cpu", &backward<T>, arg("x").noconvert(), arg("dy").noconvert(),
          arg("scale").noconvert(), arg("shift").noconvert(), arg("moments").noconvert(), arg("eps"), arg("relu"),
          arg("given"), arg("dx").noconvert().none(), arg("dscale").noconvert(), arg("dshift").noconvert());
    m.def("batch_norm_pool2d_forward_cpu", &forward_pooled<T>, arg("x").noconvert(), arg("scale").noconvert(),
          arg("shift").noconvert(), arg("eps"), arg("given"), arg("moments").noconvert(), arg("y").noconvert(),
          arg("top").noconvert());
    m.def("batch_norm_pool2d_backward_cpu", &backward_pooled<T>, arg("x").noconvert(), arg("top").noconvert(),
          arg("dy").noconvert(), arg("scale").noconvert(), arg("shift").noconvert(), arg("moments").noconvert(),
          arg("eps"), arg("given"), arg("dx").noconvert().none(), arg("dscale").noconvert(), arg("dshift").noconvert());
    m.def("standardize_forward_cpu", &standardize_forward<T>, arg("x").noconvert(), arg("eps"),
          arg("moments").noconvert(), arg("y").noconvert());
    m.def("standardize_backward_cpu", &standardize_backward<T>, arg("x").noconvert(), arg("dy").noconvert(),
          arg("moments").noconvert(), arg("dx").noconvert());
}

}  // namespace

void bind_norm(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
