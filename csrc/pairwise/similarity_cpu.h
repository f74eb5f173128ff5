// Inner products of two rows, and rows of unit length.
#pragma once

#include "distances_cpu.h"

namespace nst::NST_ISA_NS {

template <class T>
inline T direct_dot(const T* a, const T* b, int64_t depth) {
    constexpr int W = lanes<T>;
    Vec<T> s[4] = {};
    int64_t k = 0;
    for (; k + 4 * W <= depth; k += 4 * W)
        for (int u = 0; u < 4; u++) s[u] += load(a + k + u * W) * load(b + k + u * W);
    for (; k + W <= depth; k += W) s[0] += load(a + k) * load(b + k);
    T sums[W];
    store(sums, (s[0] + s[1]) + (s[2] + s[3]));
    T total = lane_sum(sums);
    for (; k < depth; k++) total += a[k] * b[k];
    return total;
}

// u = a / |a|; gives 1 / |a|. A row of zeros stays so, and gives 0. The norm is taken in double, of elements divided by
// the largest where the squares leave its range.
template <class T>
inline double unit_row(const T* a, int64_t depth, T* u) {
    constexpr double tiny = 1e-280, most = 1e280;
    double sum = squared_norm_double(a, depth);
    if (sum <= tiny || sum >= most) {
        double largest = 0;
        for (int64_t k = 0; k < depth; k++) largest = max_of(largest, __builtin_fabs(static_cast<double>(a[k])));
        if (largest == 0) {
            for (int64_t k = 0; k < depth; k++) u[k] = T(0);
            return 0;
        }
        sum = 0;
        for (int64_t k = 0; k < depth; k++) {
            const double x = static_cast<double>(a[k]) / largest;
            sum += x * x;
        }
        const double inverse = 1 / __builtin_sqrt(sum);
        for (int64_t k = 0; k < depth; k++) u[k] = static_cast<T>(static_cast<double>(a[k]) / largest * inverse);
        return inverse / largest;
    }
    const double inverse = 1 / __builtin_sqrt(sum);
    for (int64_t k = 0; k < depth; k++) u[k] = static_cast<T>(static_cast<double>(a[k]) * inverse);
    return inverse;
}

}  // namespace nst::NST_ISA_NS
