// The rectifier whose negative side has a slope of its own in each channel.
//
//   forward   y[p][k] = x[p][k] > 0 ? x[p][k] : slope[k] x[p][k]
//   backward  dx[p][k] = dy[p][k] (x[p][k] > 0 ? 1 : slope[k]),  dslope[k] = sum over p with x[p][k] <= 0 of dy x
//
// x: (rows, channels), contiguous. dx or dslope may be null: it is not wanted. The sum runs in float64, in an order
// that the shape alone decides.
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

#define NST_DECLARE_PRELU(ns)                                                                                         \
    namespace ns {                                                                                                    \
    template <class T>                                                                                                \
    void prelu_forward_cpu(const T* x, const T* slope, std::int64_t rows, std::int64_t channels, T* y);               \
    template <class T>                                                                                                \
    void prelu_backward_cpu(const T* x, const T* slope, const T* dy, std::int64_t rows, std::int64_t channels, T* dx, \
                            T* dslope);                                                                               \
    }
NST_FOR_EACH_ISA(NST_DECLARE_PRELU)

}  // namespace nst
