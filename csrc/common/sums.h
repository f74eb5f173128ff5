// Sums over long arrays in float64, in an order that the length alone decides.
#pragma once

#include "parallel.h"
#include "scratch.h"
#include "simd.h"

namespace nst::NST_ISA_NS {

constexpr std::int64_t chunk_of_sum = 1 << 15;  // elements of one job
constexpr int partial_sums = 16;                // as many as two of the widest vectors of float64 hold

// Sum of term(i), a double, over first <= i < last.
template <class Term>
inline double sum_of(std::int64_t first, std::int64_t last, const Term& term) {
    double sums[partial_sums] = {};
    std::int64_t i = first;
    for (; i + partial_sums <= last; i += partial_sums)
        for (int k = 0; k < partial_sums; k++) sums[k] += term(i + k);
    for (; i < last; i++) sums[0] += term(i);
    double total = 0;
    for (const double sum : sums) total += sum;
    return total;
}

inline double sum_in_order(const double* sums, std::int64_t count) {
    double total = 0;
    for (std::int64_t i = 0; i < count; i++) total += sums[i];
    return total;
}

// The same over 0 <= i < count by all threads: a chunk a job, the chunks added in their order.
template <class Term>
inline double sum_by_chunks(std::int64_t count, const Term& term) {
    const std::int64_t chunks = ceil_div(count, chunk_of_sum);
    Scratch<double> sums(chunks);
    parallel_for(chunks, [&](std::int64_t i, int) {
        sums.get()[i] = sum_of(i * chunk_of_sum, min_of((i + 1) * chunk_of_sum, count), term);
    });
    return sum_in_order(sums.get(), chunks);
}

}  // namespace nst::NST_ISA_NS
