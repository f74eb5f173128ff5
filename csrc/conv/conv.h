// Convolution (cross-correlation, as the field calls it) of NHWC feature maps.
//
//   forward          y[n][p][q][k] = act( sum over r, s, c of x[n][p sh + r - ph][q sw + s - pw][c] w[k][r][s][c] +
//   b[k] ) backward_input   dx = that sum's transpose applied to dy backward_weight  dw[k][r][s][c] = sum over n, p, q
//   of dy[n][p][q][k] x[n][p sh + r - ph][q sw + s - pw][c] backward_bias    db[k] = sum over n, p, q of dy[n][p][q][k]
//
// Outside of x there are zeros. With a fused ReLU, `active` is the forward result y: dy counts only where y > 0.
//
// The winograd functions give the same results, to rounding, for 3x3 kernels of stride 1 whose c and k are multiples of
// winograd_channels; they take weights transformed by `..._weights`, an array
// of winograd_size elements.
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct ConvShape {
    std::int64_t n, h, w, c;  // x
    std::int64_t k, r, s;     // w: (k, r, s, c)
    std::int64_t p, q;        // y: (n, p, q, k)
    std::int64_t stride_h, stride_w;
    std::int64_t pad_top, pad_left;  // padding below and on the right follows from p and q
};

constexpr std::int64_t winograd_channels = 16;

// Elements of the transformed weights, enough for every instruction set: 36 planes of inputs x outputs (in panels of up
// to 32), each padded by at most 4 KiB and a cache line.
template <class T>
constexpr std::int64_t winograd_size(std::int64_t inputs, std::int64_t outputs) {
    return 36 * (inputs * ((outputs + 31) / 32 * 32) + (4096 + 64) / static_cast<std::int64_t>(sizeof(T)));
}

#define NST_DECLARE_CONV(ns)                                                                                      \
    namespace ns {                                                                                                \
    template <class T>                                                                                            \
    void conv2d_forward_cpu(const T* x, const T* w, const T* bias, const ConvShape& s, bool relu, T* y);          \
    template <class T>                                                                                            \
    void conv2d_backward_input_cpu(const T* dy, const T* active, const T* w, const ConvShape& s, T* dx);          \
    template <class T>                                                                                            \
    void conv2d_backward_weight_cpu(const T* x, const T* dy, const T* active, const ConvShape& s, T* dw);         \
    template <class T>                                                                                            \
    void conv2d_backward_bias_cpu(const T* dy, const T* active, const ConvShape& s, T* db);                       \
    template <class T>                                                                                            \
    void conv2d_forward_winograd_weights_cpu(const T* w, const ConvShape& s, T* u);                               \
    template <class T>                                                                                            \
    void conv2d_backward_winograd_weights_cpu(const T* w, const ConvShape& s, T* u);                              \
    template <class T>                                                                                            \
    void conv2d_forward_winograd_cpu(const T* x, const T* u, const T* bias, const ConvShape& s, bool relu, T* y); \
    template <class T>                                                                                            \
    void conv2d_backward_winograd_cpu(const T* dy, const T* active, const T* u, const ConvShape& s, T* dx);       \
    }
NST_FOR_EACH_ISA(NST_DECLARE_CONV)

}  // namespace nst
