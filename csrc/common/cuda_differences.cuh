// The gradient of squared distances: rows weighted by how far they are from others.
#pragma once

#include "cuda_tile.cuh"

// The elements of a thread in the tile of own [rows][depth] from (row0, column0) on, 0 outside; neighbouring threads
// fetch neighbours.
__device__ __forceinline__ void hold_rows(TileMemory& memory, const real* __restrict__ own, int row0, int column0,
                                          int rows, int depth, real (&held)[tile_share][tile_share]) {
    TileElements& elements = elements_of(memory);
#pragma unroll 4
    for (int i = 0; i < tile_share * tile_share; i++) {
        const int e = static_cast<int>(threadIdx.x) + i * tile_threads, row = e / tile_side, column = e % tile_side;
        const bool inside = row0 + row < rows && column0 + column < depth;
        elements[row][column] = inside ? own[static_cast<offset_t>(row0 + row) * depth + column0 + column] : real(0);
    }
    __syncthreads();
    typedef Share<real> Own;  // as every term has it that tensor cores do not know
#pragma unroll
    for (int i = 0; i < tile_share; i++) {
        const Four four = *reinterpret_cast<const Four*>(&elements[Own::row(i)][Own::column(0)]);
#pragma unroll
        for (int j = 0; j < tile_share; j++) held[i][j] = four.v[j];
    }
    __syncthreads();
}

// The block's tile of out[i][c] = factor sum_k weight(i, k) (own[i][c] - other[k][c]), as differences, so that no
// digits are lost where rows are close. own: [rows][depth], other: [others][depth]; `weights_along` says along which of
// i (rows) and k (depth of the sum) the weights lie next to each other. Tiles of rows are numbered by blockIdx.x, of c
// by .y.
template <Contiguous weights_along, class Weight, class Store>
__device__ __forceinline__ void weighted_differences(TileMemory& memory, const real* __restrict__ own,
                                                     const real* __restrict__ other, int rows, int others, int depth,
                                                     const Weight& weight, const Store& store) {
    const int row0 = static_cast<int>(blockIdx.x) * tile_side, column0 = static_cast<int>(blockIdx.y) * tile_side;
    real held[tile_share][tile_share];
    hold_rows(memory, own, row0, column0, rows, depth, held);
    real sum[tile_share][tile_share] = {};
    const auto weight_of = [&](int row, int k) {
        return row0 + row < rows && k < others ? weight(row0 + row, k) : real(0);
    };
    const auto column_of = [&](int column, int k) {
        if (column0 + column >= depth || k >= others) return real(0);
        return other[static_cast<offset_t>(k) * depth + column0 + column];
    };
    const auto term = [&](real part, real w, real b, int i, int j) { return part + w * (held[i][j] - b); };
    tile_sum<weights_along, Contiguous::rows>(memory, 0, others, weight_of, column_of, term, sum);
    store_tile<real>(memory, sum, rows - row0, depth - column0, [&](int row, int column, real v) {
        store(static_cast<offset_t>(row0 + row) * depth + column0 + column, v);
    });
}
