// What optimisers do with long vectors.
//
//   dot         sum of a[i] b[i], in float64 and in an order that the length alone decides
//   add_scaled  y[i] += weight x[i]
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

#define NST_DECLARE_VECTOR(ns)                                         \
    namespace ns {                                                     \
    template <class T>                                                 \
    void dot(const T* a, const T* b, std::int64_t count, double* sum); \
    template <class T>                                                 \
    void add_scaled(const T* x, T weight, std::int64_t count, T* y);   \
    }
NST_FOR_EACH_ISA(NST_DECLARE_VECTOR)

}  // namespace nst
