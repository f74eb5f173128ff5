// MatrixProduct on tensor cores: mma.sync.aligned.m16n8k8 in tf32, by the fragments of the PTX manual. Included by
// cuda_tile.cuh.
#pragma once

static_assert(sizeof(real) == 4, "tf32 is a way to multiply floats");

// A lane's place in a fragment: its row or column of 8, and its pair of 4.
__device__ __forceinline__ int fragment_row() { return static_cast<int>(threadIdx.x) % lanes / 4; }
__device__ __forceinline__ int fragment_pair() { return static_cast<int>(threadIdx.x) % lanes % 4; }

// The first row and column of the 32 x 16 of this warp.
__device__ __forceinline__ int warp_row() { return static_cast<int>(threadIdx.x) / lanes / 4 * 32; }
__device__ __forceinline__ int warp_column() { return static_cast<int>(threadIdx.x) / lanes % 4 * 16; }

template <>
struct Share<MatrixProduct> {
    __device__ static int row(int i) { return warp_row() + i / 2 * 16 + i % 2 * 8 + fragment_row(); }
    __device__ static int column(int j) { return warp_column() + j / 2 * 8 + 2 * fragment_pair() + j % 2; }
};

// d += a b for 16 x 8 x 8, all lanes of a warp together. The emulator does the same in its own way.
#ifndef NST_EMULATED
__device__ __forceinline__ unsigned rounded_to_tf32(float value) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}
__device__ __forceinline__ void multiply_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(rounded_to_tf32(a[0])), "r"(rounded_to_tf32(a[1])), "r"(rounded_to_tf32(a[2])),
          "r"(rounded_to_tf32(a[3])), "r"(rounded_to_tf32(b[0])), "r"(rounded_to_tf32(b[1])));
}
#endif

__device__ __forceinline__ void add_terms(const TileRows& a_rows, const TileRows& b_rows, const MatrixProduct&,
                                          real (&sum)[tile_share][tile_share]) {
    const int g = fragment_row(), t = fragment_pair();
#pragma unroll
    for (int d = 0; d < tile_depth; d += 8)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = warp_row() + 16 * i + g;
            const float a[4] = {a_rows[d + t][row], a_rows[d + t][row + 8], a_rows[d + t + 4][row],
                                a_rows[d + t + 4][row + 8]};
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int column = warp_column() + 8 * j + g;
                const float b[2] = {b_rows[d + t][column], b_rows[d + t + 4][column]};
                float c[4] = {sum[2 * i][2 * j], sum[2 * i][2 * j + 1], sum[2 * i + 1][2 * j],
                              sum[2 * i + 1][2 * j + 1]};
                multiply_tf32(c, a, b);
                sum[2 * i][2 * j] = c[0];
                sum[2 * i][2 * j + 1] = c[1];
                sum[2 * i + 1][2 * j] = c[2];
                sum[2 * i + 1][2 * j + 1] = c[3];
            }
        }
}
