// Convolution (cross-correlation, as the field calls it) of NHWC feature maps.
//
//   forward         y[n][p][q][k] = act(sum over r, s, c of x[n][p sh + r - ph][q sw + s - pw][c] w[k][r][s][c] + b[k])
//   backward_input  dx = that sum's transpose applied to dy
//   backward_weight dw[k][r][s][c] = sum over n, p, q of dy[n][p][q][k] x[n][p sh + r - ph][q sw + s - pw][c]
//   backward_bias   db[k] = sum over n, p, q of dy[n][p][q][k]
//
// Outside of x there are zeros. `positive` is the mask of a fused ReLU, a bit an element of y (common/bits.h): forward
// writes it, the others take dy as 0 where it is 0. It may be null: not wanted, or no ReLU.
//
// The winograd functions give the same results, to rounding, for 3x3 kernels of stride 1 whose c and k are multiples of
// winograd_channels. They work on tiles of edge x edge outputs, 4 or 6 (the gradient of the weights always on 4 x 4).
// pool: y is (n, p / 2, q / 2, k), the largest result of each 2 x 2 window, and a bit of `positive`, still one a
// result, also says that it was its window's largest; dy then is that small one, and its bits may not be null. Bits of
// an odd last row or column, in no window, are left as they were.
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

#define NST_DECLARE_CONV(ns)                                                                                           \
    namespace ns {                                                                                                     \
    template <class T>                                                                                                 \
    void conv2d_forward_cpu(const T* x, const T* w, const T* bias, const ConvShape& s, bool relu, T* y,                \
                            std::uint8_t* positive);                                                                   \
    template <class T>                                                                                                 \
    void conv2d_backward_input_cpu(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s, T* dx);  \
    template <class T>                                                                                                 \
    void conv2d_backward_weight_cpu(const T* x, const T* dy, const std::uint8_t* positive, const ConvShape& s, T* dw); \
    template <class T>                                                                                                 \
    void conv2d_backward_bias_cpu(const T* dy, const std::uint8_t* positive, const ConvShape& s, T* db);               \
    template <class T>                                                                                                 \
    void conv2d_forward_winograd_cpu(const T* x, const T* w, const T* bias, const ConvShape& s, int edge, bool relu,   \
                                     bool pool, T* y, std::uint8_t* positive);                                         \
    template <class T>                                                                                                 \
    void conv2d_backward_winograd_cpu(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s,       \
                                      int edge, bool pool, T* dx);                                                     \
    template <class T>                                                                                                 \
    void conv2d_backward_weight_winograd_cpu(const T* x, const T* dy, const std::uint8_t* positive,                    \
                                             const ConvShape& s, bool pool, T* dw);                                    \
    }
NST_FOR_EACH_ISA(NST_DECLARE_CONV)

}  // namespace nst
