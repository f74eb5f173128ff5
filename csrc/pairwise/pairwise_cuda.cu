// Squared distances, inner products and cosines of all pairs of rows, and their gradients, on a GPU; the contract
// stands in pairwise.h. All of them are tiles of 64 x 64, see cuda_tile.cuh; distances are sums of squared differences,
// so that equal rows are at distance 0 and no digits are lost where rows are close.
//
//   forward                      grid (columns / 64, rows / 64)
//   backward, backward_turned    grid (rows / 64, depth / 64): the gradient by a, and by b with the axes of g exchanged
//   cosine: forward_unit, backward   a warp a row, 8 rows a block
#include "../common/cuda_differences.cuh"
#include "../common/cuda_sums.cuh"
#include "rows_cuda.cuh"

constexpr int row_warps = 8, row_threads = row_warps * lanes;  // of a block that has a warp a row

template <class Term>
__device__ __forceinline__ void all_pairs(TileMemory& memory, const real* a, const real* b, real* out, int rows,
                                          int columns, int depth, const Term& term) {
    const int row0 = static_cast<int>(blockIdx.y) * tile_side, column0 = static_cast<int>(blockIdx.x) * tile_side;
    real sum[tile_share][tile_share] = {};
    const Rows of_a{a, row0, rows, depth}, of_b{b, column0, columns, depth};
    tile_sum<Contiguous::depth, Contiguous::depth>(memory, 0, depth, of_a, of_b, term, sum);
    store_tile<Term>(memory, sum, rows - row0, columns - column0, [&](int row, int column, real v) {
        out[static_cast<offset_t>(row0 + row) * columns + column0 + column] = v;
    });
}

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    pairwise_sqdist_forward_cuda(const real* __restrict__ a, const real* __restrict__ b, real* __restrict__ out,
                                 int rows, int columns, int depth) {
    __shared__ TileMemory memory;
    all_pairs(memory, a, b, out, rows, columns, depth, SquaredDifference());
}

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    pairwise_inner_forward_cuda(const real* __restrict__ a, const real* __restrict__ b, real* __restrict__ out,
                                int rows, int columns, int depth) {
    __shared__ TileMemory memory;
    all_pairs(memory, a, b, out, rows, columns, depth, Product());
}

// dx[i] = 2 sum_k g[i][k] (own[i] - other[k]).
extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    pairwise_sqdist_backward_cuda(const real* __restrict__ own, const real* __restrict__ other,
                                  const real* __restrict__ g, real* __restrict__ dx, int rows, int others, int depth) {
    __shared__ TileMemory memory;
    weighted_differences<Contiguous::depth>(
        memory, own, other, rows, others, depth, [&](int i, int k) { return g[static_cast<offset_t>(i) * others + k]; },
        [&](offset_t at, real v) { dx[at] = 2 * v; });
}

// The same with g[k][i] for g[i][k].
extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    pairwise_sqdist_backward_turned_cuda(const real* __restrict__ own, const real* __restrict__ other,
                                         const real* __restrict__ g, real* __restrict__ dx, int rows, int others,
                                         int depth) {
    __shared__ TileMemory memory;
    weighted_differences<Contiguous::rows>(
        memory, own, other, rows, others, depth, [&](int i, int k) { return g[static_cast<offset_t>(k) * rows + i]; },
        [&](offset_t at, real v) { dx[at] = 2 * v; });
}

// dx[i] = sum_k weight(i, k) other[k].
template <Contiguous weights_along, class Weight>
__device__ __forceinline__ void weighted_rows(TileMemory& memory, const real* __restrict__ other, real* __restrict__ dx,
                                              int rows, int others, int depth, const Weight& weight) {
    const int row0 = static_cast<int>(blockIdx.x) * tile_side, column0 = static_cast<int>(blockIdx.y) * tile_side;
    real sum[tile_share][tile_share] = {};
    const auto weight_of = [&](int row, int k) {
        return row0 + row < rows && k < others ? weight(row0 + row, k) : real(0);
    };
    const auto column_of = [&](int column, int k) {
        if (column0 + column >= depth || k >= others) return real(0);
        return other[static_cast<offset_t>(k) * depth + column0 + column];
    };
    const Product term{};
    tile_sum<weights_along, Contiguous::rows>(memory, 0, others, weight_of, column_of, term, sum);
    store_tile<Product>(memory, sum, rows - row0, depth - column0, [&](int row, int column, real v) {
        dx[static_cast<offset_t>(row0 + row) * depth + column0 + column] = v;
    });
}

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    pairwise_inner_backward_cuda(const real* __restrict__ other, const real* __restrict__ g, real* __restrict__ dx,
                                 int rows, int others, int depth) {
    __shared__ TileMemory memory;
    weighted_rows<Contiguous::depth>(memory, other, dx, rows, others, depth,
                                     [&](int i, int k) { return g[static_cast<offset_t>(i) * others + k]; });
}

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    pairwise_inner_backward_turned_cuda(const real* __restrict__ other, const real* __restrict__ g,
                                        real* __restrict__ dx, int rows, int others, int depth) {
    __shared__ TileMemory memory;
    weighted_rows<Contiguous::rows>(memory, other, dx, rows, others, depth,
                                    [&](int i, int k) { return g[static_cast<offset_t>(k) * rows + i]; });
}

// The row that a warp has, and its lane.
struct OwnRow {
    int row = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / lanes;
    int lane = static_cast<int>(threadIdx.x) % lanes;
};

// Rows of length 1, and one over the length that they had (in double); zeros and 0 for a row of zeros.
extern "C" __global__ void __launch_bounds__(row_threads, element_blocks)
    pairwise_cosine_forward_unit_cuda(const real* __restrict__ x, real* __restrict__ unit, double* __restrict__ inverse,
                                      int rows, int depth) {
    const OwnRow own;
    if (own.row >= rows) return;  // the whole warp
    const real* from = x + static_cast<offset_t>(own.row) * depth;
    // Divided by the largest element first: neither long nor short rows overflow or vanish. A NaN is the largest.
    double largest = 0;
    for (int k = own.lane; k < depth; k += lanes) {
        const double size = fabs(static_cast<double>(from[k]));
        if (size > largest || size != size) largest = size;
    }
    for (int step = lanes / 2; step > 0; step /= 2) {
        const double other = __shfl_xor_sync(whole_warp, largest, step);
        if (other > largest || other != other) largest = other;
    }
    double squares = 0;
    for (int k = own.lane; k < depth && largest != 0; k += lanes) {
        const double scaled = static_cast<double>(from[k]) / largest;
        squares += scaled * scaled;
    }
    const double norm = sqrt(warp_sum(squares));
    for (int k = own.lane; k < depth; k += lanes) {
        const double scaled = largest == 0 ? 0.0 : static_cast<double>(from[k]) / largest / norm;
        unit[static_cast<offset_t>(own.row) * depth + k] = static_cast<real>(scaled);
    }
    if (own.lane == 0) inverse[own.row] = largest == 0 ? 0.0 : 1 / norm / largest;
}

// dx = (e - (e . u) u) / |x|, in place of e.
extern "C" __global__ void __launch_bounds__(row_threads, element_blocks)
    pairwise_cosine_backward_cuda(const real* __restrict__ unit, const double* __restrict__ inverse,
                                  real* __restrict__ e, int rows, int depth) {
    const OwnRow own;
    if (own.row >= rows) return;
    const real* u = unit + static_cast<offset_t>(own.row) * depth;
    real* row = e + static_cast<offset_t>(own.row) * depth;
    double along = 0;
    for (int k = own.lane; k < depth; k += lanes) along += static_cast<double>(row[k]) * static_cast<double>(u[k]);
    along = warp_sum(along);
    const double factor = inverse[own.row];
    for (int k = own.lane; k < depth; k += lanes)
        row[k] = static_cast<real>((static_cast<double>(row[k]) - along * static_cast<double>(u[k])) * factor);
}
