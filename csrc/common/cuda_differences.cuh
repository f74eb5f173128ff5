// The gradient of squared distances: rows weighted by how far they are from others.
#pragma once

#include "cuda_tile.cuh"

// The block's tile of out[i][c] = factor sum_k weight(i, k) (own[i][c] - other[k][c]), as differences, so that no
// digits are lost where rows are close. own: [rows][depth], other: [others][depth]; `weights_along` says along which of
// i (rows) and k (depth of the sum) the weights lie next to each other. Tiles of rows are numbered by blockIdx.x, of c
// by .y.
template <Contiguous weights_along, class Weight, class Store>
__device__ __forceinline__ void weighted_differences(TileMemory& memory, const real* __restrict__ own,
                                                     const real* __restrict__ other, int rows, int others, int depth,
                                                     const Weight& weight, const Store& store) {
    const int row0 = static_cast<int>(blockIdx.x) * tile_side, column0 = static_cast<int>(blockIdx.y) * tile_side;
    typedef Share<real> Own;            // as every term has it that tensor cores do not know
    real held[tile_share][tile_share];  // own, at the elements of this thread
#pragma unroll
    for (int i = 0; i < tile_share; i++)
#pragma unroll
        for (int j = 0; j < tile_share; j++) {
            const int row = row0 + Own::row(i), column = column0 + Own::column(j);
            held[i][j] = row < rows && column < depth ? own[static_cast<offset_t>(row) * depth + column] : real(0);
        }
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
    store_tile<real>(sum, rows - row0, depth - column0, [&](int row, int column, real v) {
        store(static_cast<offset_t>(row0 + row) * depth + column0 + column, v);
    });
}
