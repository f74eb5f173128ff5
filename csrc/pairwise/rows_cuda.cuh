// Rows of matrices as tiles take them, and their squared distance.
#pragma once

#include "../common/cuda_tile.cuh"

// What a term adds for a squared distance.
struct SquaredDifference {
    __device__ __forceinline__ real operator()(real sum, real a, real b, int, int) const {
        return sum + (a - b) * (a - b);
    }
};

// Gives rows of a matrix [count][depth] to a tile: load(place in the tile, k).
struct Rows {
    const real* matrix;
    int first, count, depth;
    __device__ __forceinline__ real operator()(int place, int k) const {
        return first + place < count && k < depth ? matrix[static_cast<offset_t>(first + place) * depth + k] : real(0);
    }
};
