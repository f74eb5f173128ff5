#include "../csrc/pool/pool.h"
#include "bindings.h"
#include "convert.h"

#include <array>

namespace nst {
namespace {

// (window, stride, padding) of one axis, as the operation's record passes it.
using Axis = std::array<std::int64_t, 3>;

Axis axis_of(const py::tuple& t) {
    if (t.size() != 3) throw std::invalid_argument("native kernel: an axis is (window, stride, padding)");
    return {t[0].cast<std::int64_t>(), t[1].cast<std::int64_t>(), t[2].cast<std::int64_t>()};
}

// The kernels rely on every window holding a real pixel; that is checked here for both axes.
PoolAxis checked(std::int64_t in, std::int64_t out, const Axis& a, const char* name) {
    const auto [window, stride, padding] = a;
    const bool sane = in >= 1 && out >= 1 && window >= 1 && stride >= 1 && padding >= 0 && 2 * padding <= window;
    if (!sane || (out - 1) * stride - padding >= in)
        throw std::invalid_argument(std::string("native kernel: windows leave the picture along ") + name);
    return {in, out, window, stride, padding};
}

template <class T>
PoolShape shape_of(const Array<T>& x, const Array<T>& y, const py::tuple& down, const py::tuple& across,
                   bool count_padding) {
    expect_rank(x, 4, "x");
    expect_rank(y, 4, "y");
    if (y.shape(0) != x.shape(0) || y.shape(3) != x.shape(3))
        throw std::invalid_argument("native kernel: x and y differ in images or channels");
    return {x.shape(0), x.shape(3), checked(x.shape(1), y.shape(1), axis_of(down), "y"),
            checked(x.shape(2), y.shape(2), axis_of(across), "x"), count_padding};
}

// `at` has the shape of y, or no elements when the winners are not wanted.
template <class T, class Index>
void max_forward(const Array<T>& x, Array<T>& y, Array<Index>& at, const py::tuple& down, const py::tuple& across) {
    const PoolShape s = shape_of(x, y, down, across, false);
    Index* winners = at.size() ? output(at, {y.shape(0), y.shape(1), y.shape(2), y.shape(3)}, "at") : nullptr;
    T* to = y.mutable_data();
    const T* from = x.data();
    py::gil_scoped_release release;
    NST_CALL(max_pool2d_forward_cpu<T, Index>(from, s, to, winners));
}

template <class T, class Index>
void max_backward(const Array<T>& dy, const Array<Index>& at, Array<T>& dx, const py::tuple& down,
                  const py::tuple& across) {
    const PoolShape s = shape_of(dx, dy, down, across, false);
    const Index* winners = input(at, {dy.shape(0), dy.shape(1), dy.shape(2), dy.shape(3)}, "at");
    T* to = dx.mutable_data();
    const T* from = dy.data();
    py::gil_scoped_release release;
    NST_CALL(max_pool2d_backward_cpu<T, Index>(from, winners, s, to));
}

template <class T>
void avg_forward(const Array<T>& x, Array<T>& y, const py::tuple& down, const py::tuple& across, bool count_padding) {
    const PoolShape s = shape_of(x, y, down, across, count_padding);
    T* to = y.mutable_data();
    const T* from = x.data();
    py::gil_scoped_release release;
    NST_CALL(avg_pool2d_forward_cpu<T>(from, s, to));
}

template <class T>
void avg_backward(const Array<T>& dy, Array<T>& dx, const py::tuple& down, const py::tuple& across,
                  bool count_padding) {
    const PoolShape s = shape_of(dx, dy, down, across, count_padding);
    T* to = dx.mutable_data();
    const T* from = dy.data();
    py::gil_scoped_release release;
    NST_CALL(avg_pool2d_backward_cpu<T>(from, s, to));
}

template <class T>
void peaks_forward(const Array<T>& x, Array<T>& value, Array<std::int64_t>& at) {
    expect_rank(x, 4, "x");
    const py::ssize_t images = x.shape(0), pixels = x.shape(1) * x.shape(2), channels = x.shape(3);
    T* to = output(value, {images, channels}, "value");
    std::int64_t* places = output(at, {images, channels}, "at");
    const T* from = x.data();
    py::gil_scoped_release release;
    NST_CALL(channel_peaks_forward_cpu<T>(from, images, pixels, channels, to, places));
}

template <class T, class Index>
void bind_max(py::module_& m) {
    m.def("max_pool2d_forward_cpu", &max_forward<T, Index>, py::arg("x").noconvert(), py::arg("y").noconvert(),
          py::arg("at").noconvert(), py::arg("down"), py::arg("across"));
    m.def("max_pool2d_backward_cpu", &max_backward<T, Index>, py::arg("dy").noconvert(), py::arg("at").noconvert(),
          py::arg("dx").noconvert(), py::arg("down"), py::arg("across"));
}

template <class T>
void bind(py::module_& m) {
    bind_max<T, std::uint8_t>(m);
    bind_max<T, std::int32_t>(m);
    m.def("avg_pool2d_forward_cpu", &avg_forward<T>, py::arg("x").noconvert(), py::arg("y").noconvert(),
          py::arg("down"), py::arg("across"), py::arg("count_padding"));
    m.def("avg_pool2d_backward_cpu", &avg_backward<T>, py::arg("dy").noconvert(), py::arg("dx").noconvert(),
          py::arg("down"), py::arg("across"), py::arg("count_padding"));
    m.def("channel_peaks_forward_cpu", &peaks_forward<T>, py::arg("x").noconvert(), py::arg("value").noconvert(),
          py::arg("at").noconvert());
}

}  // namespace

void bind_pool(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
