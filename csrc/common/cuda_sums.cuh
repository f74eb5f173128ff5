// Sums over a warp and a block, always in the same order: equal inputs give equal bits.
#pragma once

#include "cuda_types.cuh"

// The sum over the lanes, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(whole_warp, value, step);
    return value;
}

// The sum over a block of `threads` threads, in every thread; all of them take part. May be called again and again.
template <int threads, class T>
__device__ __forceinline__ T block_sum(T value) {
    static_assert(threads % lanes == 0 && threads / lanes <= lanes, "whole warps, one value of each to a lane");
    __shared__ T of_warps[threads / lanes];
    const int warp = static_cast<int>(threadIdx.x) / lanes, lane = static_cast<int>(threadIdx.x) % lanes;
    value = warp_sum(value);
    if (lane == 0) of_warps[warp] = value;
    __syncthreads();
    value = warp_sum(lane < threads / lanes ? of_warps[lane] : T(0));
    __syncthreads();
    return value;
}

// The sum of `count` values by one block, a fixed share to each thread.
template <int threads>
__device__ __forceinline__ double block_total(const double* values, int count) {
    double sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) sum += values[i];
    return block_sum<threads>(sum);
}
