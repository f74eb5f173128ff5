// MatrixProduct on tensor cores: mma.sync, by the fragments of the PTX manual. Included by cuda_tile.cuh.
//
// NST_TENSOR_CORES says from what numbers: 1 tf32, of 11 bits; 2 bf16, of 8 bits; 3 tf32 twice, a number as the sum of
// two, whose products but that of the two small ones are added: about as exact as float.
#pragma once

static_assert(sizeof(real) == 4, "tensor cores multiply what floats are rounded to");

// A lane's place in a fragment: its row or column of 8, and its place among 4 in the depth.
__device__ __forceinline__ int fragment_row() { return static_cast<int>(threadIdx.x) % lanes / 4; }
__device__ __forceinline__ int fragment_pair() { return static_cast<int>(threadIdx.x) % lanes % 4; }

// The first row and column of the 32 x 16 of this warp.
__device__ __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / lanes / 4 * 32; }
__device__ __forceinline__ int warp_column() { return static_cast<int>(threadIdx.x) / lanes % 4 * 16; }

template <>
struct Share<MatrixProduct> {
    static constexpr bool in_vectors = false;
    __device__ static int row(int i) { return warp_row() + i / 2 * 16 + i % 2 * 8 + fragment_row(); }
    __device__ static int column(int j) { return warp_column() + j / 2 * 8 + 2 * fragment_pair() + j % 2; }
};

// The instructions; the emulator brings its own. mma is volatile: it must stay where all lanes of a warp come by.
#ifndef NST_EMULATED
__device__ __forceinline__ unsigned rounded_to_tf32(float value) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}
__device__ __forceinline__ unsigned rounded_to_bf16(float low, float high) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

__device__ __forceinline__ float as_float(unsigned bits) { return __int_as_float(static_cast<int>(bits)); }

// d += a b, 16 x 8 of 8 of the depth: a lane's elements of a are (row, depth) = (g, t), (g + 8, t), (g, t + 4), (g + 8,
// t + 4), of b (depth, column) = (t, g), (t + 4, g), with g its fragment_row and t its fragment_pair.
__device__ __forceinline__ void multiply_8(float (&d)[4], const float* a, const float* b) {
    unsigned high_a[4], high_b[2];
#pragma unroll
    for (int i = 0; i < 4; i++) high_a[i] = rounded_to_tf32(a[i]);
#pragma unroll
    for (int i = 0; i < 2; i++) high_b[i] = rounded_to_tf32(b[i]);
    if constexpr (NST_TENSOR_CORES == 3) {
        unsigned low_a[4], low_b[2];
#pragma unroll
        for (int i = 0; i < 4; i++) low_a[i] = rounded_to_tf32(a[i] - as_float(high_a[i]));
#pragma unroll
        for (int i = 0; i < 2; i++) low_b[i] = rounded_to_tf32(b[i] - as_float(high_b[i]));
        mma_tf32(d, low_a, high_b);  // the small ones first
        mma_tf32(d, high_a, low_b);
    }
    mma_tf32(d, high_a, high_b);
}

// The same of 16 of the depth: elements 4 .. 7 of a and 2 .. 3 of b lie 8 further. For bf16 the manual has pairs of
// neighbours in the depth where these are 4 apart; a sum may take its terms in any order.
__device__ __forceinline__ void multiply_16(float (&d)[4], const float (&a)[8], const float (&b)[4]) {
    if constexpr (NST_TENSOR_CORES == 2) {
        const unsigned of_a[4] = {rounded_to_bf16(a[0], a[2]), rounded_to_bf16(a[1], a[3]), rounded_to_bf16(a[4], a[6]),
                                  rounded_to_bf16(a[5], a[7])};
        const unsigned of_b[2] = {rounded_to_bf16(b[0], b[1]), rounded_to_bf16(b[2], b[3])};
        mma_bf16(d, of_a, of_b);
    } else {
        multiply_8(d, a, b);
        multiply_8(d, a + 4, b + 2);
    }
}

__device__ __forceinline__ void add_terms(const TileRows& a_rows, const TileRows& b_rows, const MatrixProduct&,
                                          real (&sum)[tile_share][tile_share]) {
    static_assert(tile_depth == 16, "one multiply_16");
    const int g = fragment_row(), t = fragment_pair();
#pragma unroll
    for (int i = 0; i < tile_share; i += 2) {
        const int row = Share<MatrixProduct>::row(i);
        float a[8];
#pragma unroll
        for (int d = 0; d < 4; d++) {
            a[2 * d] = a_rows[4 * d + t][row];
            a[2 * d + 1] = a_rows[4 * d + t][row + 8];
        }
#pragma unroll
        for (int j = 0; j < tile_share; j += 2) {
            const int column = warp_column() + 4 * j + g;
            float b[4];
#pragma unroll
            for (int d = 0; d < 4; d++) b[d] = b_rows[4 * d + t][column];
            float c[4] = {sum[i][j], sum[i][j + 1], sum[i + 1][j], sum[i + 1][j + 1]};
            multiply_16(c, a, b);
            sum[i][j] = c[0];
            sum[i][j + 1] = c[1];
            sum[i + 1][j] = c[2];
            sum[i + 1][j + 1] = c[3];
        }
    }
}
