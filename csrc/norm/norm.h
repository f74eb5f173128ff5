// Batch normalisation over all positions of a map, with the ReLU behind it fused when asked.
//
//   z = (x - mean) / sqrt(variance + eps)     y = act(scale z + shift), a channel at a time
//
// x, y: (positions, channels). moments: (2, channels), the mean and the (biased) variance of each channel: measured by
// forward from x, or, when they are `given`, read. Whether the ReLU let an element through is computed again by
// backward from x, by the same expression, so that neither y nor a mask has to be kept.
//
// The pooled functions have a ReLU and a 2x2 max pool of stride 2 behind it; a last row or column without a partner is
// dropped. They keep, for each window, x where the normalised value is largest (the first of equal ones; a NaN before
// everything), by which backward finds it again, and write no map of the full size but dx.
//
// standardize: each of n pictures of `size` numbers to mean 0 and variance 1, y = (x - mean) / sqrt(variance + eps);
// moments: (n, 2), its mean and 1 / sqrt(variance + eps), which backward reads.
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct NormShape {
    std::int64_t positions, channels;
    double eps;
    bool relu, given;  // given moments are constants: no gradient passes through them
};

struct NormPoolShape {
    std::int64_t n, h, w, c;
    double eps;
    bool given;
    NormShape norm() const { return {n * h * w, c, eps, true, given}; }
};

#define NST_DECLARE_NORM(ns)                                                                                         \
    namespace ns {                                                                                                   \
    template <class T>                                                                                               \
    void batch_norm_forward_cpu(const T* x, const T* scale, const T* shift, const NormShape& s, double* moments,     \
                                T* y);                                                                               \
    template <class T>                                                                                               \
    void batch_norm_backward_cpu(const T* x, const T* dy, const T* scale, const T* shift, const double* moments,     \
                                 const NormShape& s, T* dx, T* dscale, T* dshift); /* dx may be null: not wanted */  \
    template <class T>                                                                                               \
    void batch_norm_pool2d_forward_cpu(const T* x, const T* scale, const T* shift, const NormPoolShape& s,           \
                                       double* moments, T* y, T* top);                                               \
    template <class T>                                                                                               \
    void batch_norm_pool2d_backward_cpu(const T* x, const T* top, const T* dy, const T* scale, const T* shift,       \
                                        const double* moments, const NormPoolShape& s, T* dx, T* dscale,             \
                                        T* dshift); /* dx may be null */                                             \
    template <class T>                                                                                               \
    void standardize_forward_cpu(const T* x, std::int64_t n, std::int64_t size, double eps, double* moments, T* y);  \
    template <class T>                                                                                               \
    void standardize_backward_cpu(const T* x, const T* dy, std::int64_t n, std::int64_t size, const double* moments, \
                                  T* dx);                                                                            \
    }
NST_FOR_EACH_ISA(NST_DECLARE_NORM)

}  // namespace nst
