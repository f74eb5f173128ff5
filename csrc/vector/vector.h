// What optimisers do with long vectors.
//
//   dot         sum of a[i] b[i], in float64 and in an order that the length alone decides
//   add_scaled  y[i] += weight x[i]
//   adam_step   m += to_mean (g - m), v += to_square (g^2 - v), theta = keep theta - rate m / (sqrt(v) + eps)
//   sgd_step    v = momentum v + g, theta -= rate v, or rate (g + momentum v) with Nesterov
//
// each with g = slope + decay theta.
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct AdamStep {
    double to_mean, to_square, rate, eps, decay, keep;
};

struct SgdStep {
    double momentum, rate, decay;
    bool nesterov;
};

#define NST_DECLARE_VECTOR(ns)                                                                              \
    namespace ns {                                                                                          \
    template <class T>                                                                                      \
    void dot(const T* a, const T* b, std::int64_t count, double* sum);                                      \
    template <class T>                                                                                      \
    void add_scaled(const T* x, T weight, std::int64_t count, T* y);                                        \
    template <class T>                                                                                      \
    void adam_step(const T* slope, std::int64_t count, const AdamStep& step, T* mean, T* square, T* theta); \
    template <class T>                                                                                      \
    void sgd_step(const T* slope, std::int64_t count, const SgdStep& step, T* velocity, T* theta);          \
    }
NST_FOR_EACH_ISA(NST_DECLARE_VECTOR)

}  // namespace nst
