// Squared Euclidean distances between rows, their gradient, and the nearest rows.
//
//   pairwise_sqdist forward    out[i][j] = |a_i - b_j|^2
//   pairwise_sqdist backward   da_i = 2 sum_j g[i][j] (a_i - b_j),   db_j = 2 sum_i g[i][j] (b_j - a_i)
//   nearest forward            the k smallest |q_i - p_j|^2 of each row i, ascending, and their j; equal ones by j
//
// a, q: (rows, depth), b, p: (columns, depth), out, g: (rows, columns); contiguous. Distances are never negative, and
// exactly 0 where two finite rows are equal. A NaN in a row gives NaN, which `nearest` puts last.
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct PairwiseShape {
    std::int64_t rows, columns, depth;
};

// da or db may be null: not wanted. distances, indices: (rows, k), 1 <= k <= columns.
#define NST_DECLARE_PAIRWISE(ns)                                                                          \
    namespace ns {                                                                                        \
    template <class T>                                                                                    \
    void pairwise_sqdist_forward_cpu(const T* a, const T* b, PairwiseShape s, T* out);                    \
    template <class T>                                                                                    \
    void pairwise_sqdist_backward_cpu(const T* a, const T* b, const T* g, PairwiseShape s, T* da, T* db); \
    template <class T>                                                                                    \
    void nearest_forward_cpu(const T* q, const T* p, PairwiseShape s, std::int64_t k, T* distances,       \
                             std::int64_t* indices);                                                      \
    }
NST_FOR_EACH_ISA(NST_DECLARE_PAIRWISE)

}  // namespace nst
