// The costs of style transfer that need no Gram matrix, and what a network does to a picture first, each in one pass
// over memory.
//
//   content_loss     J = 1/2 sum (a - target)^2                                          da = weight (a - target)
//   total_variation  J = sum (x[i+1][j] - x[i][j])^2 + (x[i][j+1] - x[i][j])^2           dx = weight dJ/dx
//
//   normalize_channels  y[p][k] = x[p][from] scale[k] + shift[k]                         dx[p][from] = dy[p][k]
//   scale[k]
//                       from = k, or reversed channels - 1 - k
//
// Sums run in float64, in an order that the shape alone decides. All arrays are contiguous; x: (images, height, width,
// channels).
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct PictureShape {
    std::int64_t images, height, width, channels;
};

#define NST_DECLARE_STYLE(ns)                                                                                    \
    namespace ns {                                                                                               \
    template <class T>                                                                                           \
    void content_loss_forward_cpu(const T* a, const T* target, std::int64_t count, double* j);                   \
    template <class T>                                                                                           \
    void content_loss_backward_cpu(const T* a, const T* target, T weight, std::int64_t count, bool add, T* da);  \
    template <class T>                                                                                           \
    void total_variation_forward_cpu(const T* x, PictureShape s, double* j);                                     \
    template <class T>                                                                                           \
    void total_variation_backward_cpu(const T* x, T weight, PictureShape s, T* dx);                              \
    template <class T>                                                                                           \
    void normalize_channels_forward_cpu(const T* x, const double* scale, const double* shift, bool reverse,      \
                                        PictureShape s, T* y);                                                   \
    template <class T>                                                                                           \
    void normalize_channels_backward_cpu(const T* dy, const double* scale, bool reverse, PictureShape s, T* dx); \
    }
NST_FOR_EACH_ISA(NST_DECLARE_STYLE)

}  // namespace nst
