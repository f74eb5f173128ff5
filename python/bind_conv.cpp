#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "../csrc/conv/conv.h"
#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
using Optional = std::optional<Array<T>>;

template <class T>
ConvShape shape_of(const Array<T>& x, const Array<T>& w, const Array<T>& y, py::tuple stride, py::tuple padding) {
    expect_rank(x, 4, "x");
    expect_rank(w, 4, "w");
    expect_rank(y, 4, "y");
    const auto at = [](const py::tuple& pair, int i) { return pair[i].cast<std::int64_t>(); };
    const ConvShape s{x.shape(0), x.shape(1), x.shape(2),    x.shape(3),    w.shape(0),     w.shape(1),    w.shape(2),
                      y.shape(1), y.shape(2), at(stride, 0), at(stride, 1), at(padding, 0), at(padding, 1)};
    input(w, {s.k, s.r, s.s, s.c}, "w");
    input(y, {s.n, s.p, s.q, s.k}, "y");
    if (s.stride_h < 1 || s.stride_w < 1 || s.pad_top < 0 || s.pad_left < 0)
        throw std::invalid_argument("native kernel: stride below 1 or negative padding");
    return s;
}

template <class T>
const T* data_or_null(const Optional<T>& a, std::initializer_list<py::ssize_t> shape, const char* name) {
    return a ? input(*a, shape, name) : nullptr;
}

using Bits = std::optional<Array<std::uint8_t>>;

// A bit an element of y, or null.
std::uint8_t* bits_or_null(Bits& bits, const ConvShape& s) {
    return bits ? output(*bits, {(s.n * s.p * s.q * s.k + 7) / 8}, "positive") : nullptr;
}

template <class T>
void forward(const Array<T>& x, const Array<T>& w, const Optional<T>& bias, py::tuple stride, py::tuple padding,
             bool relu, Array<T>& y, Bits& positive) {
    const ConvShape s = shape_of(x, w, y, stride, padding);
    std::uint8_t* bits = bits_or_null(positive, s);
    const T *xp = x.data(), *wp = w.data(), *bp = data_or_null(bias, {s.k}, "bias");
    T* yp = y.mutable_data();
    py::gil_scoped_release release;
    NST_CALL(conv2d_forward_cpu<T>(xp, wp, bp, s, relu, yp, bits));
}

template <class T>
void backward_input(const Array<T>& dy, Bits& positive, const Array<T>& w, py::tuple stride, py::tuple padding,
                    Array<T>& dx) {
    const ConvShape s = shape_of(dx, w, dy, stride, padding);
    const T *dyp = dy.data(), *wp = w.data();
    const std::uint8_t* bits = bits_or_null(positive, s);
    T* dxp = dx.mutable_data();
    py::gil_scoped_release release;
    NST_CALL(conv2d_backward_input_cpu<T>(dyp, bits, wp, s, dxp));
}

template <class T>
void backward_weight(const Array<T>& x, const Array<T>& dy, Bits& positive, py::tuple stride, py::tuple padding,
                     Array<T>& dw) {
    const ConvShape s = shape_of(x, dw, dy, stride, padding);
    const T *xp = x.data(), *dyp = dy.data();
    const std::uint8_t* bits = bits_or_null(positive, s);
    T* dwp = dw.mutable_data();
    py::gil_scoped_release release;
    NST_CALL(conv2d_backward_weight_cpu<T>(xp, dyp, bits, s, dwp));
}

template <class T>
void backward_bias(const Array<T>& dy, Bits& positive, Array<T>& db) {
    expect_rank(dy, 4, "dy");
    ConvShape s{};
    s.n = dy.shape(0), s.p = dy.shape(1), s.q = dy.shape(2), s.k = dy.shape(3);
    const T* dyp = dy.data();
    const std::uint8_t* bits = bits_or_null(positive, s);
    T* dbp = output(db, {s.k}, "db");
    py::gil_scoped_release release;
    NST_CALL(conv2d_backward_bias_cpu<T>(dyp, bits, s, dbp));
}

// p and q of the result before it is pooled; none: it is not.
using Unpooled = std::optional<std::pair<std::int64_t, std::int64_t>>;

template <class T>
ConvShape winograd_shape(const Array<T>& x, const Array<T>& w, const Array<T>& y, py::tuple padding, int edge,
                         const Unpooled& unpooled) {
    ConvShape s = shape_of(x, w, y, py::make_tuple(1, 1), padding);
    if (s.r != 3 || s.s != 3 || s.c % winograd_channels || s.k % winograd_channels || (edge != 4 && edge != 6))
        throw std::invalid_argument("native kernel: these shapes do not fit the Winograd convolution");
    if (!unpooled) return s;
    if (unpooled->first / 2 != s.p || unpooled->second / 2 != s.q)
        throw std::invalid_argument("native kernel: y is not half of what it is pooled from");
    s.p = unpooled->first, s.q = unpooled->second;
    return s;
}

template <class T>
void forward_winograd(const Array<T>& x, const Array<T>& w, const Optional<T>& bias, py::tuple padding, int edge,
                      bool relu, const Unpooled& unpooled, Array<T>& y, Bits& positive) {
    const ConvShape s = winograd_shape(x, w, y, padding, edge, unpooled);
    const T *xp = x.data(), *wp = w.data(), *bp = data_or_null(bias, {s.k}, "bias");
    std::uint8_t* bits = bits_or_null(positive, s);
    const bool pool = unpooled.has_value();
    T* yp = y.mutable_data();
    py::gil_scoped_release release;
    NST_CALL(conv2d_forward_winograd_cpu<T>(xp, wp, bp, s, edge, relu, pool, yp, bits));
}

template <class T>
void backward_winograd(const Array<T>& dy, Bits& positive, const Array<T>& w, py::tuple padding, int edge,
                       const Unpooled& unpooled, Array<T>& dx) {
    const ConvShape s = winograd_shape(dx, w, dy, padding, edge, unpooled);
    const T *dyp = dy.data(), *wp = w.data();
    const std::uint8_t* bits = bits_or_null(positive, s);
    const bool pool = unpooled.has_value();
    if (pool && !bits) throw std::invalid_argument("native kernel: a pooled gradient needs its bits");
    T* dxp = dx.mutable_data();
    py::gil_scoped_release release;
    NST_CALL(conv2d_backward_winograd_cpu<T>(dyp, bits, wp, s, edge, pool, dxp));
}

template <class T>
void backward_weight_winograd(const Array<T>& x, const Array<T>& dy, Bits& positive, py::tuple padding,
                              const Unpooled& unpooled, Array<T>& dw) {
    const ConvShape s = winograd_shape(x, dw, dy, padding, 4, unpooled);
    const T *xp = x.data(), *dyp = dy.data();
    const std::uint8_t* bits = bits_or_null(positive, s);
    const bool pool = unpooled.has_value();
    if (pool && !bits) throw std::invalid_argument("native kernel: a pooled gradient needs its bits");
    T* dwp = dw.mutable_data();
    py::gil_scoped_release release;
    NST_CALL(conv2d_backward_weight_winograd_cpu<T>(xp, dyp, bits, s, pool, dwp));
}

template <class T>
void bind(py::module_& m) {
    using py::arg;
    m.def("conv2d_forward_cpu", &forward<T>, arg("x").noconvert(), arg("w").noconvert(), arg("bias").noconvert().none(),
          arg("stride"), arg("padding"), arg("relu"), arg("y").noconvert(), arg("positive").noconvert().none());
    m.def("conv2d_backward_input_cpu", &backward_input<T>, arg("dy").noconvert(), arg("positive").noconvert().none(),
          arg("w").noconvert(), arg("stride"), arg("padding"), arg("dx").noconvert());
    m.def("conv2d_backward_weight_cpu", &backward_weight<T>, arg("x").noconvert(), arg("dy").noconvert(),
          arg("positive").noconvert().none(), arg("stride"), arg("padding"), arg("dw").noconvert());
    m.def("conv2d_backward_bias_cpu", &backward_bias<T>, arg("dy").noconvert(), arg("positive").noconvert().none(),
          arg("db").noconvert());
    m.def("conv2d_forward_winograd_cpu", &forward_winograd<T>, arg("x").noconvert(), arg("w").noconvert(),
          arg("bias").noconvert().none(), arg("padding"), arg("edge"), arg("relu"), arg("unpooled").none(),
          arg("y").noconvert(), arg("positive").noconvert().none());
    m.def("conv2d_backward_weight_winograd_cpu", &backward_weight_winograd<T>, arg("x").noconvert(),
          arg("dy").noconvert(), arg("positive").noconvert().none(), arg("padding"), arg("unpooled").none(),
          arg("dw").noconvert());
    m.def("conv2d_backward_winograd_cpu", &backward_winograd<T>, arg("dy").noconvert(),
          arg("positive").noconvert().none(), arg("w").noconvert(), arg("padding"), arg("edge"), arg("unpooled").none(),
          arg("dx").noconvert());
}

}  // namespace

void bind_conv(py::module_& m) {
    m.attr("winograd_channels") = winograd_channels;
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
