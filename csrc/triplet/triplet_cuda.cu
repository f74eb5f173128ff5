// Triplet losses, given or mined from a labelled batch, on a GPU; the contract stands in triplet.h.
//
// Of a batch the squared distances come from pairwise_cuda.cu. A block an anchor then mines its row (mining_cuda.cuh):
// nothing of size batch^3 exists. What it leaves, how often each distance enters the loss, makes the gradient one
// weighted sum of differences. Losses and counts are added up by one block, in a fixed order.
//
//   triplet_loss_forward                      a warp a triplet, 8 a block; _total one block; _backward an element a
//   thread batch_triplet_loss_forward_all, _semi_hard, _hard    a block an anchor batch_triplet_loss_forward_gradient
//   grid (batch / 64, depth / 64): half of what the sum's gradient is
#include "../common/cuda_differences.cuh"
#include "mining_cuda.cuh"

constexpr int nan_bits = 0x7fc00000;

// The reductions in the order of the Python side: what the sum of the losses is multiplied with.
enum class Reduction : int { sum, mean, mean_active };
__device__ __forceinline__ double share_of(int reduction, count_t triplets, count_t active) {
    count_t among = 1;
    if (reduction == static_cast<int>(Reduction::mean)) among = triplets;
    if (reduction == static_cast<int>(Reduction::mean_active)) among = active;
    return 1.0 / static_cast<double>(max(among, static_cast<count_t>(1)));
}

extern "C" __global__ void __launch_bounds__(mining_threads, element_blocks)
    triplet_loss_forward_cuda(const real* __restrict__ a, const real* __restrict__ p, const real* __restrict__ n,
                              real* __restrict__ losses, int count, int depth, real margin) {
    const int row = static_cast<int>(blockIdx.x) * mining_warps + static_cast<int>(threadIdx.x) / lanes;
    const int lane = static_cast<int>(threadIdx.x) % lanes;
    if (row >= count) return;  // the whole warp
    const offset_t from = static_cast<offset_t>(row) * depth;
    real near = 0, far = 0;
#pragma unroll 2
    for (int k = lane; k < depth; k += lanes) {
        const real to_positive = a[from + k] - p[from + k], to_negative = a[from + k] - n[from + k];
        near += to_positive * to_positive;
        far += to_negative * to_negative;
    }
    const real loss = warp_sum(near) - warp_sum(far) + margin;
    if (lane == 0) losses[row] = loss <= 0 ? real(0) : loss;  // a NaN stays
}

extern "C" __global__ void __launch_bounds__(mining_threads, element_blocks)
    triplet_loss_forward_total_cuda(const real* __restrict__ losses, real* __restrict__ value,
                                    double* __restrict__ share, int count, int reduction) {
    double sum = 0;
    count_t active = 0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += mining_threads) {
        sum += static_cast<double>(losses[i]);
        active += losses[i] != 0;
    }
    sum = block_sum<mining_threads>(sum);
    active = block_sum<mining_threads>(active);
    if (threadIdx.x != 0) return;
    *share = share_of(reduction, count, active);
    *value = static_cast<real>(sum * *share);
}

// Of da, dp and dn those that are wanted; `grad` is one number on the device.
extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    triplet_loss_backward_cuda(const real* __restrict__ a, const real* __restrict__ p, const real* __restrict__ n,
                               const real* __restrict__ losses, const double* __restrict__ share,
                               const real* __restrict__ grad, real* __restrict__ da, real* __restrict__ dp,
                               real* __restrict__ dn, offset_t elements, int depth) {
    const offset_t e = element_index();
    if (e >= elements) return;
    const real factor = losses[e / depth] != 0 ? static_cast<real>(2 * *share * static_cast<double>(*grad)) : real(0);
    if (da) da[e] = factor * (n[e] - p[e]);
    if (dp) dp[e] = factor * (p[e] - a[e]);
    if (dn) dn[e] = factor * (a[e] - n[e]);
}

// What a block does for its anchor: mine(anchor, positives) where there are triplets, all distances are
// numbers, and those to positives finite.
template <class Mine>
__device__ __forceinline__ void mine_anchor(const real* distances, const long long* labels, real* weights,
                                            double* losses, count_t* triplets, count_t* active, int batch, real margin,
                                            const Mine& mine) {
    const int place = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
    const offset_t start = static_cast<offset_t>(place) * batch;
    Anchor a{place, batch, margin, distances + start, labels, weights ? weights + start : nullptr};
    int positives = 0, negatives = 0, not_numbers = 0;
    for (int j = thread; j < batch; j += mining_threads) {
        positives += a.positive(j);
        negatives += a.negative(j);
        not_numbers += a.row[j] != a.row[j] || (a.positive(j) && a.row[j] - a.row[j] != 0);  // infinite
    }
    positives = block_sum<mining_threads>(positives);
    negatives = block_sum<mining_threads>(negatives);
    not_numbers = block_sum<mining_threads>(not_numbers);
    const bool any = positives > 0 && negatives > 0;
    if (any && !not_numbers) mine(a, positives);
    else clear_weights(a);
    if (any && not_numbers) a.loss = static_cast<double>(__int_as_float(nan_bits));
    a.loss = block_sum<mining_threads>(a.loss);
    a.triplets = block_sum<mining_threads>(a.triplets);
    a.active = block_sum<mining_threads>(a.active);
    if (thread != 0) return;
    losses[place] = a.loss;
    triplets[place] = a.triplets;
    active[place] = a.active;
}

// distances, weights (or null): [batch][batch]; losses, triplets, active: of each anchor.
extern "C" __global__ void __launch_bounds__(mining_threads, element_blocks)
    batch_triplet_loss_forward_all_cuda(const real* __restrict__ distances, const long long* __restrict__ labels,
                                        real* weights, double* __restrict__ losses, count_t* __restrict__ triplets,
                                        count_t* __restrict__ active, int batch, real margin) {
    mine_anchor(distances, labels, weights, losses, triplets, active, batch, margin,
                [](Anchor& a, count_t positives) { mine_all(a, positives); });
}

extern "C" __global__ void __launch_bounds__(mining_threads, element_blocks)
    batch_triplet_loss_forward_semi_hard_cuda(const real* __restrict__ distances, const long long* __restrict__ labels,
                                              real* weights, double* __restrict__ losses,
                                              count_t* __restrict__ triplets, count_t* __restrict__ active, int batch,
                                              real margin) {
    mine_anchor(distances, labels, weights, losses, triplets, active, batch, margin,
                [](Anchor& a, count_t) { mine_semi_hard(a); });
}

extern "C" __global__ void __launch_bounds__(mining_threads, element_blocks)
    batch_triplet_loss_forward_hard_cuda(const real* __restrict__ distances, const long long* __restrict__ labels,
                                         real* weights, double* __restrict__ losses, count_t* __restrict__ triplets,
                                         count_t* __restrict__ active, int batch, real margin) {
    mine_anchor(distances, labels, weights, losses, triplets, active, batch, margin,
                [](Anchor& a, count_t) { mine_hard(a); });
}

extern "C" __global__ void __launch_bounds__(mining_threads, element_blocks)
    batch_triplet_loss_forward_total_cuda(const double* __restrict__ losses, const count_t* __restrict__ triplets,
                                          const count_t* __restrict__ active, real* __restrict__ value,
                                          double* __restrict__ share, int batch, int reduction) {
    double sum = 0;
    count_t taken = 0, counted = 0;
    for (int i = static_cast<int>(threadIdx.x); i < batch; i += mining_threads) {
        sum += losses[i];
        taken += triplets[i];
        counted += active[i];
    }
    sum = block_sum<mining_threads>(sum);
    taken = block_sum<mining_threads>(taken);
    counted = block_sum<mining_threads>(counted);
    if (threadIdx.x != 0) return;
    const double among = share_of(reduction, taken, counted);
    *value = static_cast<real>(sum * among);
    *share = sum != sum ? sum : among;  // a NaN loss has a NaN gradient
}

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    batch_triplet_loss_forward_gradient_cuda(const real* __restrict__ z, const real* __restrict__ weights,
                                             real* __restrict__ half, int batch, int depth) {
    __shared__ TileMemory memory;
    const auto both_weights = [&](int i, int k) {
        return weights[static_cast<offset_t>(i) * batch + k] + weights[static_cast<offset_t>(k) * batch + i];
    };
    const auto store = [&](offset_t at, real v) { half[at] = v; };
    weighted_differences<Contiguous::depth>(memory, z, z, batch, batch, depth, both_weights, store);
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    batch_triplet_loss_backward_cuda(const real* __restrict__ half, const double* __restrict__ share,
                                     const real* __restrict__ grad, real* __restrict__ dz, offset_t elements) {
    const offset_t e = element_index();
    if (e < elements) dz[e] = half[e] * static_cast<real>(2 * *share * static_cast<double>(*grad));
}
