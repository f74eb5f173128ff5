// A job is a picture, which mostly stays in L2 over its three passes: mean, squared deviations, result.
#include <cmath>

#include "../common/sums.h"
#include "norm.h"

namespace nst::NST_ISA_NS {

using std::int64_t;

template <class T>
void standardize_forward_cpu(const T* x, int64_t n, int64_t size, double eps, double* moments, T* y) {
    parallel_for(n, [&](int64_t picture, int) {
        const T* from = x + picture * size;
        const double mean =
            sum_of(0, size, [&](int64_t i) { return static_cast<double>(from[i]); }) / static_cast<double>(size);
        const double squares = sum_of(0, size, [&](int64_t i) {
            const double off = static_cast<double>(from[i]) - mean;
            return off * off;
        });
        moments[2 * picture] = mean;
        moments[2 * picture + 1] = 1 / std::sqrt(squares / static_cast<double>(size) + eps);
        const T middle = static_cast<T>(mean), weight = static_cast<T>(moments[2 * picture + 1]);
        T* to = y + picture * size;
        for (int64_t i = 0; i < size; i++) to[i] = (from[i] - middle) * weight;
    });
}

template <class T>
void standardize_backward_cpu(const T* x, const T* dy, int64_t n, int64_t size, const double* moments, T* dx) {
    parallel_for(n, [&](int64_t picture, int) {
        const T *from = x + picture * size, *slopes = dy + picture * size;
        const double mean = moments[2 * picture], weight = moments[2 * picture + 1], count = static_cast<double>(size);
        const double slope = sum_of(0, size, [&](int64_t i) { return static_cast<double>(slopes[i]); }) / count;
        const double along = sum_of(
            0, size, [&](int64_t i) { return static_cast<double>(slopes[i]) * (static_cast<double>(from[i]) - mean); });
        const T w = static_cast<T>(weight), s = static_cast<T>(slope), middle = static_cast<T>(mean);
        const T a = static_cast<T>(along * weight * weight / count);
        T* to = dx + picture * size;
        for (int64_t i = 0; i < size; i++) to[i] = w * (slopes[i] - s - (from[i] - middle) * a);
    });
}

#define NST_STANDARDIZE(T)                                                                     \
    template void standardize_forward_cpu<T>(const T*, int64_t, int64_t, double, double*, T*); \
    template void standardize_backward_cpu<T>(const T*, const T*, int64_t, int64_t, const double*, T*);
NST_STANDARDIZE(float)
NST_STANDARDIZE(double)

}  // namespace nst::NST_ISA_NS
