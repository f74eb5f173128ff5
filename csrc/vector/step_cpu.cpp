// Limited by memory: everything that a step does to an element in one pass.
#include <cmath>

#include "../common/sums.h"
#include "vector.h"

namespace nst::NST_ISA_NS {

using std::int64_t;

template <class T>
void adam_step(const T* slope, int64_t count, const AdamStep& step, T* mean, T* square, T* theta) {
    const T to_mean = static_cast<T>(step.to_mean), to_square = static_cast<T>(step.to_square);
    const T rate = static_cast<T>(step.rate), eps = static_cast<T>(step.eps);
    const T decay = static_cast<T>(step.decay), keep = static_cast<T>(step.keep);
    parallel_for(ceil_div(count, chunk_of_sum), [=](int64_t job, int) {
        const int64_t last = min_of((job + 1) * chunk_of_sum, count);
        for (int64_t i = job * chunk_of_sum; i < last; i++) {
            const T g = slope[i] + decay * theta[i];
            const T m = mean[i] + to_mean * (g - mean[i]), v = square[i] + to_square * (g * g - square[i]);
            mean[i] = m;
            square[i] = v;
            theta[i] = keep * theta[i] - rate * m / (std::sqrt(v) + eps);
        }
    });
}

template <class T>
void sgd_step(const T* slope, int64_t count, const SgdStep& step, T* velocity, T* theta) {
    const T momentum = static_cast<T>(step.momentum), rate = static_cast<T>(step.rate);
    const T decay = static_cast<T>(step.decay);
    const bool nesterov = step.nesterov;
    parallel_for(ceil_div(count, chunk_of_sum), [=](int64_t job, int) {
        const int64_t last = min_of((job + 1) * chunk_of_sum, count);
        for (int64_t i = job * chunk_of_sum; i < last; i++) {
            const T g = slope[i] + decay * theta[i], v = momentum * velocity[i] + g;
            velocity[i] = v;
            theta[i] -= rate * (nesterov ? g + momentum * v : v);
        }
    });
}

#define NST_STEP(T)                                                             \
    template void adam_step<T>(const T*, int64_t, const AdamStep&, T*, T*, T*); \
    template void sgd_step<T>(const T*, int64_t, const SgdStep&, T*, T*);
NST_STEP(float)
NST_STEP(double)

}  // namespace nst::NST_ISA_NS
