// One 64 x 64 tile of a sum over a depth, such as a matrix product: C[row][column] = sum_k term(A[row][k],
// B[k][column]).
//
// A block of 256 threads holds the tile in registers, 4 x 4 elements a thread. The next 16 of the depth are on their
// way to registers while the current ones are worked on in shared memory, of which there are two copies: one barrier a
// step.
//
//                      B    16 x 64        thread (ty, tx) = (thread / 16, thread % 16)
//                   +---------+            has rows 4 ty .. 4 ty + 3 and columns 4 tx .. 4 tx + 3:
//   A^T  16 x 64    |  |4 tx  |            of each k two vectors of 4, one of them the same for half a warp
//   +------+        +---------+
//   | 4 ty |----->  |  4 x 4  |            Rows of shared memory are 64 and 16 bytes long, so that vectors stay
//   aligned.
//   +------+        +---------+
//
// Each 16 of the depth are summed apart and then added: the error grows with depth / 16 instead of depth.
//
// With NST_TENSOR_CORES a MatrixProduct is computed by tensor cores: a warp has 32 x 16 of the tile, as 2 x 2 of
// mma.sync's 16 x 8, whose 16 sums a thread take the place of its 4 x 4. Operands are rounded, sums are not.
#pragma once

#include "cuda_types.cuh"

constexpr int tile_side = 64, tile_depth = 16, tile_threads = 256, tile_share = 4;
constexpr int tile_loads = tile_side * tile_depth / tile_threads;  // elements of A and of B that a thread fetches

static_assert(tile_share == sizeof(Four) / sizeof(real), "a thread reads its share as a vector");

// What a row of shared memory is longer: vectors stay aligned; the fragments of tensor cores, 8 columns of 4 rows each,
// lie in 32 banks.
constexpr int tile_pad = NST_TENSOR_CORES ? 8 : 16 / sizeof(real);
// How much of a depth neighbouring threads fetch: a sector of floats. The stores of 8 x 4 lie in 32 banks, with the pad
// of tensor cores in 16.
constexpr int tile_stretch = 8;
typedef real TileRows[tile_depth][tile_side + tile_pad];

struct __align__(16) TileMemory {
    TileRows a[2], b[2];
};

// The same memory once the sum is done: elements of a tile.
typedef real TileElements[tile_side][tile_side + tile_pad];
static_assert(sizeof(TileElements) <= sizeof(TileMemory), "elements take the place of operands");
__device__ __forceinline__ TileElements& elements_of(TileMemory& memory) {
    return *reinterpret_cast<TileElements*>(&memory);
}

// How many blocks share a multiprocessor at least, for __launch_bounds__: 128 registers a thread in float, 255 in
// double.
constexpr int tile_blocks = sizeof(real) == 4 ? 2 : 1;

// Along what the elements of a matrix lie next to each other in memory; neighbouring threads fetch neighbours.
enum class Contiguous { rows, depth };

template <Contiguous along>
__device__ __forceinline__ int fetched_row(int i) {
    const int e = static_cast<int>(threadIdx.x) + i * tile_threads;
    if (along == Contiguous::rows) return e % tile_side;
    return e / tile_stretch % tile_side;
}
template <Contiguous along>
__device__ __forceinline__ int fetched_depth(int i) {
    const int e = static_cast<int>(threadIdx.x) + i * tile_threads;
    if (along == Contiguous::rows) return e / tile_side;
    return e % tile_stretch + e / (tile_stretch * tile_side) * tile_stretch;
}

template <Contiguous along, class Load>
__device__ __forceinline__ void fetch(const Load& load, int k, real (&held)[tile_loads]) {
#pragma unroll
    for (int i = 0; i < tile_loads; i++) held[i] = load(fetched_row<along>(i), k + fetched_depth<along>(i));
}

template <Contiguous along>
__device__ __forceinline__ void keep(TileRows& to, const real (&held)[tile_loads]) {
#pragma unroll
    for (int i = 0; i < tile_loads; i++) to[fetched_depth<along>(i)][fetched_row<along>(i)] = held[i];
}

// The term of a matrix product that needs every bit, and of one that may be computed by tensor cores.
struct Product {
    __device__ __forceinline__ real operator()(real sum, real a, real b, int, int) const { return sum + a * b; }
};
struct MatrixProduct : Product {};

// Which rows and columns of the tile are the 4 x 4 of this thread, by the term.
template <class Term>
struct Share {
    static constexpr bool in_vectors = true;  // four of a row lie side by side
    __device__ static int row(int i) { return static_cast<int>(threadIdx.x) / 16 * tile_share + i; }
    __device__ static int column(int j) { return static_cast<int>(threadIdx.x) % 16 * tile_share + j; }
};

// Adds the terms of the depth in shared memory to a thread's share.
template <class Term>
__device__ __forceinline__ void add_terms(const TileRows& a_rows, const TileRows& b_rows, const Term& term,
                                          real (&sum)[tile_share][tile_share]) {
#pragma unroll
    for (int d = 0; d < tile_depth; d++) {
        const Four a = *reinterpret_cast<const Four*>(&a_rows[d][Share<Term>::row(0)]);
        const Four b = *reinterpret_cast<const Four*>(&b_rows[d][Share<Term>::column(0)]);
#pragma unroll
        for (int i = 0; i < tile_share; i++)
#pragma unroll
            for (int j = 0; j < tile_share; j++) sum[i][j] = term(sum[i][j], a.v[i], b.v[j], i, j);
    }
}

#if NST_TENSOR_CORES
#include "cuda_tensor_cores.cuh"
#endif

// Adds the terms of depth [begin, end) to `sum`. load_a(row, k) and load_b(column, k) take places in the tile and the
// depth, and give 0 outside of their matrix and from `end` on; term(sum, a, b, i, j) adds to element (i, j) of a
// thread.
template <Contiguous of_a, Contiguous of_b, class LoadA, class LoadB, class Term>
__device__ __forceinline__ void tile_sum(TileMemory& memory, int begin, int end, const LoadA& load_a,
                                         const LoadB& load_b, const Term& term, real (&sum)[tile_share][tile_share]) {
    real next_a[tile_loads], next_b[tile_loads];
    fetch<of_a>(load_a, begin, next_a);
    fetch<of_b>(load_b, begin, next_b);
    keep<of_a>(memory.a[0], next_a);
    keep<of_b>(memory.b[0], next_b);
    __syncthreads();
    int now = 0;
    for (int k = begin; k < end; k += tile_depth) {
        const bool more = k + tile_depth < end;
        if (more) {
            fetch<of_a>(load_a, k + tile_depth, next_a);
            fetch<of_b>(load_b, k + tile_depth, next_b);
        }
        real part[tile_share][tile_share] = {};
        add_terms(memory.a[now], memory.b[now], term, part);
#pragma unroll
        for (int i = 0; i < tile_share; i++)
#pragma unroll
            for (int j = 0; j < tile_share; j++) sum[i][j] += part[i][j];
        if (more) {
            keep<of_a>(memory.a[1 - now], next_a);
            keep<of_b>(memory.b[1 - now], next_b);
        }
        __syncthreads();
        now = 1 - now;
    }
}

// Puts the elements of every thread in their places; all of the block's may be read then.
template <class Term>
__device__ __forceinline__ void place_tile(TileElements& to, const real (&sum)[tile_share][tile_share]) {
#pragma unroll
    for (int i = 0; i < tile_share; i++)
        if constexpr (Share<Term>::in_vectors) {
            const Four row = {{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}};
            *reinterpret_cast<Four*>(&to[Share<Term>::row(i)][Share<Term>::column(0)]) = row;
        } else {
#pragma unroll
            for (int j = 0; j < tile_share; j++) to[Share<Term>::row(i)][Share<Term>::column(j)] = sum[i][j];
        }
    __syncthreads();
}

// Calls store(row, column, value) for the elements that lie in the rows and columns there are, neighbouring threads
// with neighbouring columns. `memory` is that of the sum.
template <class Term, class Store>
__device__ __forceinline__ void store_tile(TileMemory& memory, const real (&sum)[tile_share][tile_share], int rows,
                                           int columns, const Store& store) {
    TileElements& elements = elements_of(memory);
    place_tile<Term>(elements, sum);
#pragma unroll
    for (int i = 0; i < tile_share * tile_share; i++) {
        const int e = static_cast<int>(threadIdx.x) + i * tile_threads, row = e / tile_side, column = e % tile_side;
        if (row < rows && column < columns) store(row, column, elements[row][column]);
    }
}
