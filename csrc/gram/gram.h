// Gram matrices of feature maps, straight off the NHWC layout, and the style loss that is made of them.
//
//   gram        forward    g[n][i][j] = sum over pixels p of x[n][p][i] x[n][p][j]
//               backward   dx[n][p][:] = x[n][p][:] (d[n] + d[n]^T)          d = dJ/dg, any square matrix
//   style_loss  forward    J = sum of (scale (g - target))^2, in float64;  d = dJ/dg = 2 scale^2 (g - target)
//               backward   dx as above, with weight d for d
//
// x, dx: (images, pixels, channels), contiguous; g, target, d: (images, channels, channels). With `add`, dx is added
// to.
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct GramShape {
    std::int64_t images, pixels, channels;
};

#define NST_DECLARE_GRAM(ns)                                                                              \
    namespace ns {                                                                                        \
    template <class T>                                                                                    \
    void gram_forward_cpu(const T* x, GramShape s, T* g);                                                 \
    template <class T>                                                                                    \
    void gram_backward_cpu(const T* x, const T* d, T weight, GramShape s, bool add, T* dx);               \
    template <class T>                                                                                    \
    void style_loss_forward_cpu(const T* x, const T* target, double scale, GramShape s, T* d, double* j); \
    }
NST_FOR_EACH_ISA(NST_DECLARE_GRAM)

}  // namespace nst
