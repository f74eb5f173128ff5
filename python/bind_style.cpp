#include "../csrc/style/style.h"

#include <pybind11/stl.h>

#include <vector>

#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
PictureShape shape_of(const Array<T>& x) {
    expect_rank(x, 4, "x");
    return {x.shape(0), x.shape(1), x.shape(2), x.shape(3)};
}

template <class T>
double content_forward(const Array<T>& a, const Array<T>& target) {
    const T *ap = a.data(), *tp = input_like(a, target, "target");
    const std::int64_t count = a.size();
    double j = 0;
    py::gil_scoped_release release;
    NST_CALL(content_loss_forward_cpu<T>(ap, tp, count, &j));
    return j;
}

template <class T>
void content_backward(const Array<T>& a, const Array<T>& target, double weight, bool add, Array<T>& da) {
    const T *ap = a.data(), *tp = input_like(a, target, "target");
    T* to = output_like(a, da, "da");
    const std::int64_t count = a.size();
    py::gil_scoped_release release;
    NST_CALL(content_loss_backward_cpu<T>(ap, tp, static_cast<T>(weight), count, add, to));
}

template <class T>
double variation_forward(const Array<T>& x) {
    const PictureShape s = shape_of(x);
    const T* from = x.data();
    double j = 0;
    py::gil_scoped_release release;
    NST_CALL(total_variation_forward_cpu<T>(from, s, &j));
    return j;
}

template <class T>
void variation_backward(const Array<T>& x, double weight, Array<T>& dx) {
    const PictureShape s = shape_of(x);
    T* to = output_like(x, dx, "dx");
    const T* from = x.data();
    py::gil_scoped_release release;
    NST_CALL(total_variation_backward_cpu<T>(from, static_cast<T>(weight), s, to));
}

using Channels = std::vector<double>;

void expect_channels(const Channels& values, std::int64_t channels) {
    if (static_cast<std::int64_t>(values.size()) != channels)
        throw std::invalid_argument("native kernel: not one scale and shift a channel");
}

template <class T>
void normalize_forward(const Array<T>& x, const Channels& scale, const Channels& shift, bool reverse, Array<T>& y) {
    const PictureShape s = shape_of(x);
    expect_channels(scale, s.channels);
    expect_channels(shift, s.channels);
    T* to = output_like(x, y, "y");
    const T* from = x.data();
    py::gil_scoped_release release;
    NST_CALL(normalize_channels_forward_cpu<T>(from, scale.data(), shift.data(), reverse, s, to));
}

template <class T>
void normalize_backward(const Array<T>& dy, const Channels& scale, bool reverse, Array<T>& dx) {
    const PictureShape s = shape_of(dy);
    expect_channels(scale, s.channels);
    T* to = output_like(dy, dx, "dx");
    const T* from = dy.data();
    py::gil_scoped_release release;
    NST_CALL(normalize_channels_backward_cpu<T>(from, scale.data(), reverse, s, to));
}

template <class T>
void bind(py::module_& m) {
    using py::arg;
    m.def("content_loss_forward_cpu", &content_forward<T>, arg("a").noconvert(), arg("target").noconvert());
    m.def("content_loss_backward_cpu", &content_backward<T>, arg("a").noconvert(), arg("target").noconvert(),
          arg("weight"), arg("add"), arg("da").noconvert());
    m.def("total_variation_forward_cpu", &variation_forward<T>, arg("x").noconvert());
    m.def("total_variation_backward_cpu", &variation_backward<T>, arg("x").noconvert(), arg("weight"),
          arg("dx").noconvert());
    m.def("normalize_channels_forward_cpu", &normalize_forward<T>, arg("x").noconvert(), arg("scale"), arg("shift"),
          arg("reverse"), arg("y").noconvert());
    m.def("normalize_channels_backward_cpu", &normalize_backward<T>, arg("dy").noconvert(), arg("scale"),
          arg("reverse"), arg("dx").noconvert());
}

}  // namespace

void bind_style(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
