// Gram matrices of feature maps, straight off the NHWC layout.
//
//   forward    g[n][i][j] = sum over pixels p of x[n][p][i] x[n][p][j]
//   backward   dx[n][p][:] = x[n][p][:] (d[n] + d[n]^T)          d = dJ/dg, any square matrix
//
// x: (images, pixels, channels), contiguous; g and d: (images, channels, channels).
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct GramShape {
    std::int64_t images, pixels, channels;
};

#define NST_DECLARE_GRAM(ns)                                            \
    namespace ns {                                                      \
    template <class T>                                                  \
    void gram_forward_cpu(const T* x, GramShape s, T* g);               \
    template <class T>                                                  \
    void gram_backward_cpu(const T* x, const T* d, GramShape s, T* dx); \
    }
NST_FOR_EACH_ISA(NST_DECLARE_GRAM)

}  // namespace nst
