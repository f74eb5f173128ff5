// Triplet losses: of given triplets, and of all that a labelled batch holds.
//
//   triplet_loss forward          losses[i] = max(|a_i - p_i|^2 - |a_i - n_i|^2 + margin, 0)
//   triplet_loss backward         its gradient times scale, where losses[i] > 0 (or NaN); else 0
//   batch_triplet_loss forward    the same hinge, summed over the triplets (a, p, n) that the mining takes from z,
//                                 where class[a] = class[p] != class[n] and a != p; and half the gradient of that
//                                 sum: of an active triplet dz_a += z_n - z_p, dz_p += z_p - z_a, dz_n += z_a - z_n
//
// Mining, for every ordered pair (a, p), with D the squared distances; among equal ones the lower index is taken:
//   batch_all    every negative n
//   semi_hard    the nearest n with D[a][p] < D[a][n] < D[a][p] + margin; where there is none, the farthest n
//   batch_hard   one triplet an anchor: its farthest p and its nearest n
//
// anchors, positives, negatives: (count, depth); z, dz: (batch, depth); classes: (batch), 0 <= class < batch.
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

enum class Mining : int { batch_all, semi_hard, batch_hard };

struct TripletSum {
    double loss;  // NaN when an anchor that has triplets has a distance that is NaN, or infinite to a positive
    std::int64_t triplets, active;  // taken by the mining; of these with a loss above 0
};

template <class T>
struct TripletRows {
    const T *anchors, *positives, *negatives;
    std::int64_t count, depth;
};

// dz may be null: no gradient is wanted.
#define NST_DECLARE_TRIPLET(ns)                                                                                \
    namespace ns {                                                                                             \
    template <class T>                                                                                         \
    void triplet_loss_forward_cpu(const TripletRows<T>& rows, T margin, T* losses);                            \
    template <class T>                                                                                         \
    void triplet_loss_backward_cpu(const TripletRows<T>& rows, const T* losses, T scale, T* da, T* dp, T* dn); \
    template <class T>                                                                                         \
    void batch_triplet_loss_forward_cpu(const T* z, const std::int32_t* classes, std::int64_t batch,           \
                                        std::int64_t depth, T margin, Mining mining, T* dz, TripletSum* sum);  \
    }
NST_FOR_EACH_ISA(NST_DECLARE_TRIPLET)

}  // namespace nst
