// What every row of a is to every row of b, the gradients of that, and the nearest rows.
//
//   pairwise_sqdist forward    out[i][j] = |a_i - b_j|^2
//   pairwise_sqdist backward   da_i = 2 sum_j g[i][j] (a_i - b_j),   db_j = 2 sum_i g[i][j] (b_j - a_i)
//   pairwise_inner forward     out[i][j] = a_i . b_j
//   pairwise_inner backward    da_i = sum_j g[i][j] b_j,             db_j = sum_i g[i][j] a_i
//   pairwise_cosine forward    u_i = a_i / |a_i|, v_j = b_j / |b_j| (0 for a row of zeros), out[i][j] = u_i . v_j
//   pairwise_cosine backward   e_i = sum_j g[i][j] v_j,  da_i = (e_i - (e_i . u_i) u_i) / |a_i|;  db_j likewise
//   nearest forward            the k best rows of p for each row i of q, and their index j; equal ones by j
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

// sqeuclidean: the smallest come first; inner, cosine: the largest.
enum class Metric : int { sqeuclidean, inner, cosine };

// da or db may be null: not wanted. values, indices: (rows, k), 1 <= k <= columns. inverse_a: 1 / |a_i|, or 0.
#define NST_DECLARE_PAIRWISE(ns)                                                                                \
    namespace ns {                                                                                              \
    template <class T>                                                                                          \
    void pairwise_sqdist_forward_cpu(const T* a, const T* b, PairwiseShape s, T* out);                          \
    template <class T>                                                                                          \
    void pairwise_sqdist_backward_cpu(const T* a, const T* b, const T* g, PairwiseShape s, T* da, T* db);       \
    template <class T>                                                                                          \
    void pairwise_inner_forward_cpu(const T* a, const T* b, PairwiseShape s, T* out);                           \
    template <class T>                                                                                          \
    void pairwise_inner_backward_cpu(const T* a, const T* b, const T* g, PairwiseShape s, T* da, T* db);        \
    template <class T>                                                                                          \
    void pairwise_cosine_forward_cpu(const T* a, const T* b, PairwiseShape s, T* u, T* v, double* inverse_a,    \
                                     double* inverse_b, T* out);                                                \
    template <class T>                                                                                          \
    void pairwise_cosine_backward_cpu(const T* u, const T* v, const double* inverse_a, const double* inverse_b, \
                                      const T* g, PairwiseShape s, T* da, T* db);                               \
    template <class T>                                                                                          \
    void nearest_forward_cpu(const T* q, const T* p, PairwiseShape s, std::int64_t k, Metric metric, T* values, \
                             std::int64_t* indices);                                                            \
    }
NST_FOR_EACH_ISA(NST_DECLARE_PAIRWISE)

}  // namespace nst
