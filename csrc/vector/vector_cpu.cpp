// Limited by memory: one job a chunk, and the chunks' sums added in their order.
#include "vector.h"

#include "../common/parallel.h"
#include "../common/scratch.h"
#include "../common/simd.h"

namespace nst::NST_ISA_NS {
namespace {

using std::int64_t;

constexpr int64_t chunk = 1 << 15;
constexpr int partial_sums = 16;  // as many as two of the widest vectors of float64 hold

template <class T>
double dot_of_chunk(const T* a, const T* b, int64_t count) {
    double sums[partial_sums] = {};
    int64_t i = 0;
    for (; i + partial_sums <= count; i += partial_sums)
        for (int k = 0; k < partial_sums; k++) sums[k] += static_cast<double>(a[i + k]) * static_cast<double>(b[i + k]);
    for (; i < count; i++) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
}

}  // namespace

template <class T>
void dot(const T* a, const T* b, int64_t count, double* sum) {
    const int64_t chunks = ceil_div(count, chunk);
    Scratch<double> sums(chunks);
    parallel_for(chunks, [&](int64_t i, int) {
        sums.get()[i] = dot_of_chunk(a + i * chunk, b + i * chunk, min_of(chunk, count - i * chunk));
    });
    *sum = 0;
    for (int64_t i = 0; i < chunks; i++) *sum += sums.get()[i];
}

template <class T>
void add_scaled(const T* x, T weight, int64_t count, T* y) {
    parallel_for(ceil_div(count, chunk), [&](int64_t job, int) {
        const int64_t last = min_of((job + 1) * chunk, count);
        for (int64_t i = job * chunk; i < last; i++) y[i] += weight * x[i];
    });
}

template void dot<float>(const float*, const float*, int64_t, double*);
template void dot<double>(const double*, const double*, int64_t, double*);
template void add_scaled<float>(const float*, float, int64_t, float*);
template void add_scaled<double>(const double*, double, int64_t, double*);

}  // namespace nst::NST_ISA_NS
