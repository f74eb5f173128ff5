// What one anchor's row of distances says, worked out by one block: which triplets count, their losses, and how often
// each distance enters. All choices and sums are in a fixed order; counts are whole numbers, exact in any order.
#pragma once

#include "../common/cuda_sums.cuh"

constexpr int mining_threads = 256, mining_warps = mining_threads / lanes;
typedef long long count_t;

__device__ __forceinline__ real infinity() { return static_cast<real>(__int_as_float(0x7f800000)); }

// What an anchor adds to the batch. `weights` has how often each distance of the row enters the sum of the losses, less
// for negatives; or is null where no gradient is wanted.
struct Anchor {
    int place, batch;
    real margin;
    const real* row;
    const long long* labels;
    real* weights;
    double loss = 0;  // of this thread; as are the counts
    count_t triplets = 0, active = 0;

    __device__ bool positive(int j) const { return labels[j] == labels[place] && j != place; }
    __device__ bool negative(int j) const { return labels[j] != labels[place]; }
};

// A value and its place; of equal values the lower place wins.
struct Placed {
    real value;
    int place;
    __device__ void take_smaller(real other, int at) {
        if (at >= 0 && (place < 0 || other < value || (other == value && at < place))) value = other, place = at;
    }
};

// The smallest of the lanes, in every lane.
__device__ __forceinline__ Placed warp_smallest(Placed best) {
    for (int step = lanes / 2; step > 0; step /= 2) {
        const real value = __shfl_xor_sync(whole_warp, best.value, step);
        const int place = __shfl_xor_sync(whole_warp, best.place, step);
        best.take_smaller(value, place);
    }
    return best;
}

// The smallest of the block's threads, in every thread.
__device__ __forceinline__ Placed block_smallest(Placed best) {
    __shared__ Placed of_warps[mining_warps];
    const int warp = static_cast<int>(threadIdx.x) / lanes, lane = static_cast<int>(threadIdx.x) % lanes;
    best = warp_smallest(best);
    if (lane == 0) of_warps[warp] = best;
    __syncthreads();
    best = warp_smallest(lane < mining_warps ? of_warps[lane] : Placed{0, -1});
    __syncthreads();
    return best;
}

// Positives of a stretch of the row, close together and in order: their places and the distances that they reach.
struct Positives {
    real reach[mining_threads];
    int places[mining_threads];
    int of_warps[mining_warps];
};

// Finds the positives among [first, first + mining_threads); gives how many there are.
__device__ __forceinline__ int gather(const Anchor& a, int first, Positives& found) {
    const int j = first + static_cast<int>(threadIdx.x), lane = static_cast<int>(threadIdx.x) % lanes;
    const int warp = static_cast<int>(threadIdx.x) / lanes;
    const bool chosen = j < a.batch && a.positive(j);
    const unsigned in_warp = __ballot_sync(whole_warp, chosen);
    if (lane == 0) found.of_warps[warp] = __popc(in_warp);
    __syncthreads();
    int before = __popc(in_warp & ((1u << lane) - 1)), all = 0;
    for (int w = 0; w < mining_warps; w++) {
        if (w < warp) before += found.of_warps[w];
        all += found.of_warps[w];
    }
    if (chosen) {
        found.reach[before] = a.row[j] + a.margin;
        found.places[before] = j;
    }
    __syncthreads();
    return all;
}

// The sum over active triplets of (reach - d_n) is sum_p count_p reach_p - sum_n count_n d_n: the two counts are found
// one after the other, each by its own threads, instead of adding to both at once.
__device__ __forceinline__ void mine_all(Anchor& a, count_t positives) {
    __shared__ Positives found;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % lanes, warp = thread / lanes;
    for (int first = 0; first < a.batch; first += mining_threads) {
        const int count = gather(a, first, found);
        for (int j = thread; j < a.batch; j += mining_threads) {  // how many positives reach beyond a negative
            if (!a.negative(j)) continue;
            const real d = a.row[j];
            int near = 0;
            for (int p = 0; p < count; p++) near += found.reach[p] > d;
            if (near) a.loss -= static_cast<double>(near) * static_cast<double>(d);
            if (a.weights) a.weights[j] = (first ? a.weights[j] : real(0)) - static_cast<real>(near);
        }
        for (int p = warp; p < count; p += mining_warps) {  // how many negatives a positive reaches beyond
            int reached = 0;
            for (int j = lane; j < a.batch; j += lanes) reached += a.negative(j) && found.reach[p] > a.row[j];
            reached = warp_sum(reached);
            if (lane != 0) continue;
            a.active += reached;
            if (reached) a.loss += static_cast<double>(reached) * static_cast<double>(found.reach[p]);
            if (a.weights) a.weights[found.places[p]] = static_cast<real>(reached);
        }
        __syncthreads();
    }
    if (thread != 0) return;
    a.triplets = positives * (a.batch - 1 - positives);
    if (a.weights) a.weights[a.place] = 0;
}

// Takes the triplet with these distances and places, in one thread; several may take the same negative at once.
__device__ __forceinline__ void take(Anchor& a, int p, real to_positive, int n, real to_negative) {
    const real far = to_positive + a.margin;
    a.triplets++;
    if (!(far > to_negative)) return;
    a.active++;
    a.loss += static_cast<double>(far) - static_cast<double>(to_negative);
    if (!a.weights) return;
    a.weights[p] = 1;
    atomicAdd(&a.weights[n], real(-1));
}

__device__ __forceinline__ void clear_weights(const Anchor& a) {
    if (a.weights)
        for (int j = static_cast<int>(threadIdx.x); j < a.batch; j += mining_threads) a.weights[j] = 0;
    __syncthreads();
}

// The farthest or nearest of those that `chosen` takes, whatever thread asks.
template <class Chosen>
__device__ __forceinline__ Placed extreme(const Anchor& a, real sign, const Chosen& chosen) {
    Placed best{0, -1};
    for (int j = static_cast<int>(threadIdx.x); j < a.batch; j += mining_threads)
        if (chosen(j)) best.take_smaller(sign * a.row[j], j);
    best = block_smallest(best);
    best.value *= sign;
    return best;
}

// A warp a positive: the nearest negative of the band (d, d + margin), or where there is none the farthest of all.
__device__ __forceinline__ void mine_semi_hard(Anchor& a) {
    clear_weights(a);
    const Placed farthest = extreme(a, real(-1), [&](int j) { return a.negative(j); });
    const int lane = static_cast<int>(threadIdx.x) % lanes;
    for (int p = static_cast<int>(threadIdx.x) / lanes; p < a.batch; p += mining_warps) {
        if (!a.positive(p)) continue;  // the whole warp
        const real low = a.row[p], high = low + a.margin;
        Placed best{0, -1};
        for (int j = lane; j < a.batch; j += lanes) {
            const real d = a.row[j];
            if (low < d && d < high && a.negative(j)) best.take_smaller(d, j);
        }
        best = warp_smallest(best);
        if (best.place < 0) best = farthest;
        if (lane == 0) take(a, p, low, best.place, best.value);
    }
}

// One triplet: the farthest positive and the nearest negative.
__device__ __forceinline__ void mine_hard(Anchor& a) {
    clear_weights(a);
    const Placed p = extreme(a, real(-1), [&](int j) { return a.positive(j); });
    const Placed n = extreme(a, real(1), [&](int j) { return a.negative(j); });
    if (threadIdx.x == 0) take(a, p.place, p.value, n.place, n.value);
}
