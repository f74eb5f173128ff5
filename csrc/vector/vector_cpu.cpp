// Limited by memory: one job a chunk, and the chunks' sums added in their order.
#include "vector.h"

#include "../common/sums.h"

namespace nst::NST_ISA_NS {

using std::int64_t;

namespace {

template <class T>
struct Product {
    const T *a, *b;
    double operator()(int64_t i) const { return static_cast<double>(a[i]) * static_cast<double>(b[i]); }
};

}  // namespace

template <class T>
void dot(const T* a, const T* b, int64_t count, double* sum) {
    *sum = sum_by_chunks(count, Product<T>{a, b});
}

template <class T>
void add_scaled(const T* x, T weight, int64_t count, T* y) {
    parallel_for(ceil_div(count, chunk_of_sum), [&](int64_t job, int) {
        const int64_t last = min_of((job + 1) * chunk_of_sum, count);
        for (int64_t i = job * chunk_of_sum; i < last; i++) y[i] += weight * x[i];
    });
}

template void dot<float>(const float*, const float*, int64_t, double*);
template void dot<double>(const double*, const double*, int64_t, double*);
template void add_scaled<float>(const float*, float, int64_t, float*);
template void add_scaled<double>(const double*, double, int64_t, double*);

}  // namespace nst::NST_ISA_NS
