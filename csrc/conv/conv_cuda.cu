// Convolution and its gradients on a GPU, as products of matrices that are never stored; the contract stands in conv.h.
//
//   forward          y [positions][filters]    = x's taps [positions][r s c]  w [filters][r s c]^T, then bias and ReLU
//   backward_input   dx [pixels][c]            = dy's taps [pixels][r s k]    w [r s k][c]
//   backward_weight  dw [filters][r s c]       = dy [positions][filters]^T    x's taps [positions][r s c]
//   backward_bias    db [filters]              = the sum of dy's rows
//
// Positions and pixels are rows (n, p, q) and (n, h, w). Each is a tile of 64 x 64, see cuda_tile.cuh; taps are found
// while a tile is fetched, neighbouring threads neighbouring channels. The sums over positions are cut into slices,
// whose parts backward_sum adds in their order. With a ReLU, forward leaves a byte an element of y that says where it
// is above 0, and the gradients take dy as 0 elsewhere.
#include "../common/cuda_sums.cuh"
#include "../common/cuda_tile.cuh"
#include "slope_cuda.cuh"

// x: (n, h, w, c), the kernel: (k, r, s, c), y: (n, p, q, k); strides and the padding above and on the left.
struct ConvShape {
    int n, h, w, c, k, r, s, p, q, stride_h, stride_w, pad_top, pad_left;
    __device__ int positions() const { return n * p * q; }
    __device__ int pixels() const { return n * h * w; }
    __device__ int depth() const { return r * s * c; }
};

// The parameters of every kernel here, in this order.
#define NST_CONV_SHAPE \
    int n, int h, int w, int c, int k, int r, int s, int p, int q, int stride_h, int stride_w, int pad_top, int pad_left
#define NST_CONV_VALUES {n, h, w, c, k, r, s, p, q, stride_h, stride_w, pad_top, pad_left}

// Element `at` of a row of taps (r, s, c) of position `row`; 0 in the padding.
__device__ __forceinline__ real tap_of_x(const ConvShape& d, const real* __restrict__ x, int row, int at) {
    const int channel = at % d.c, tap = at / d.c;
    const int y = row / d.q % d.p * d.stride_h + tap / d.s - d.pad_top;
    const int z = row % d.q * d.stride_w + tap % d.s - d.pad_left;
    if (y < 0 || y >= d.h || z < 0 || z >= d.w) return 0;
    const int image = row / (d.p * d.q);
    return x[((static_cast<offset_t>(image) * d.h + y) * d.w + z) * d.c + channel];
}

// Element `at` of a row of taps (r, s, k) of dy that pixel `row` reached; 0 where it reached none.
__device__ __forceinline__ real tap_of_dy(const ConvShape& d, const Slope& slope, int row, int at) {
    const int filter = at % d.k, tap = at / d.k;
    const int y = row / d.w % d.h + d.pad_top - tap / d.s, z = row % d.w + d.pad_left - tap % d.s;
    if (y < 0 || z < 0 || y % d.stride_h || z % d.stride_w) return 0;
    if (y / d.stride_h >= d.p || z / d.stride_w >= d.q) return 0;
    const offset_t image = row / (d.h * d.w);
    return slope(((image * d.p + y / d.stride_h) * d.q + z / d.stride_w) * d.k + filter);
}

// grid (positions / 64, filters / 64)
extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    conv2d_forward_cuda(const real* __restrict__ x, const real* __restrict__ weights, const real* __restrict__ bias,
                        real* __restrict__ y, unsigned char* __restrict__ positive, int relu, NST_CONV_SHAPE) {
    __shared__ TileMemory memory;
    const ConvShape d NST_CONV_VALUES;
    const int row0 = static_cast<int>(blockIdx.x) * tile_side, filter0 = static_cast<int>(blockIdx.y) * tile_side;
    const int rows = d.positions(), depth = d.depth();
    real sum[tile_share][tile_share] = {};
    const auto tap = [&](int row, int at) {
        return row0 + row < rows && at < depth ? tap_of_x(d, x, row0 + row, at) : real(0);
    };
    const auto weight = [&](int filter, int at) {
        if (filter0 + filter >= k || at >= depth) return real(0);
        return weights[static_cast<offset_t>(filter0 + filter) * depth + at];
    };
    tile_sum<Contiguous::depth, Contiguous::depth>(memory, 0, depth, tap, weight, MatrixProduct(), sum);
    store_tile<MatrixProduct>(memory, sum, rows - row0, k - filter0, [&](int row, int filter, real v) {
        const offset_t at = static_cast<offset_t>(row0 + row) * k + filter0 + filter;
        if (bias) v += bias[filter0 + filter];
        if (relu && v <= 0) v = 0;  // a NaN stays
        y[at] = v;
        if (positive) positive[at] = v > 0;
    });
}

// grid (pixels / 64, channels / 64)
extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    conv2d_backward_input_cuda(const real* __restrict__ dy, const unsigned char* __restrict__ positive,
                               const real* __restrict__ weights, real* __restrict__ dx, NST_CONV_SHAPE) {
    __shared__ TileMemory memory;
    const ConvShape d NST_CONV_VALUES;
    const Slope slope{dy, positive};
    const int row0 = static_cast<int>(blockIdx.x) * tile_side, channel0 = static_cast<int>(blockIdx.y) * tile_side;
    const int rows = d.pixels(), depth = r * s * k;
    real sum[tile_share][tile_share] = {};
    const auto tap = [&](int row, int at) {
        return row0 + row < rows && at < depth ? tap_of_dy(d, slope, row0 + row, at) : real(0);
    };
    const auto weight = [&](int channel, int at) {
        if (channel0 + channel >= c || at >= depth) return real(0);
        return weights[(static_cast<offset_t>(at % k) * (r * s) + at / k) * c + channel0 + channel];
    };
    tile_sum<Contiguous::depth, Contiguous::rows>(memory, 0, depth, tap, weight, MatrixProduct(), sum);
    store_tile<MatrixProduct>(memory, sum, rows - row0, c - channel0, [&](int row, int channel, real v) {
        dx[static_cast<offset_t>(row0 + row) * c + channel0 + channel] = v;
    });
}

// grid (filters / 64, r s c / 64, slices); parts: [slice][filters][r s c]
extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    conv2d_backward_weight_cuda(const real* __restrict__ x, const real* __restrict__ dy,
                                const unsigned char* __restrict__ positive, real* __restrict__ parts, int slice,
                                NST_CONV_SHAPE) {
    __shared__ TileMemory memory;
    const ConvShape d NST_CONV_VALUES;
    const Slope slope{dy, positive};
    const int filter0 = static_cast<int>(blockIdx.x) * tile_side, at0 = static_cast<int>(blockIdx.y) * tile_side;
    const int depth = d.depth(), begin = static_cast<int>(blockIdx.z) * slice;
    const int end = min(d.positions(), begin + slice);
    real sum[tile_share][tile_share] = {};
    const auto slope_of = [&](int filter, int row) {
        if (filter0 + filter >= k || row >= end) return real(0);
        return slope(static_cast<offset_t>(row) * k + filter0 + filter);
    };
    const auto tap = [&](int at, int row) {
        return at0 + at < depth && row < end ? tap_of_x(d, x, row, at0 + at) : real(0);
    };
    tile_sum<Contiguous::rows, Contiguous::rows>(memory, begin, end, slope_of, tap, MatrixProduct(), sum);
    real* to = parts + static_cast<offset_t>(blockIdx.z) * k * depth;
    store_tile<MatrixProduct>(memory, sum, k - filter0, depth - at0, [&](int filter, int at, real v) {
        to[static_cast<offset_t>(filter0 + filter) * depth + at0 + at] = v;
    });
}

// A column of lanes a filter: grid (filters / 32, slices), 8 rows of a block going through the slice; parts:
// [slice][filters]
extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    conv2d_backward_bias_cuda(const real* __restrict__ dy, const unsigned char* __restrict__ positive,
                              real* __restrict__ parts, int slice, int positions, int filters) {
    constexpr int rows = element_threads / lanes;
    __shared__ real sums[rows][lanes];
    const Slope slope{dy, positive};
    const int lane = static_cast<int>(threadIdx.x) % lanes, row = static_cast<int>(threadIdx.x) / lanes;
    const int filter = static_cast<int>(blockIdx.x) * lanes + lane;
    const int begin = static_cast<int>(blockIdx.y) * slice, end = min(positions, begin + slice);
    real sum = 0;
    for (int i = begin + row; i < end && filter < filters; i += rows)
        sum += slope(static_cast<offset_t>(i) * filters + filter);
    sums[row][lane] = sum;
    __syncthreads();
    if (row != 0 || filter >= filters) return;
    sum = 0;
    for (int i = 0; i < rows; i++) sum += sums[i][lane];
    parts[static_cast<offset_t>(blockIdx.y) * filters + filter] = sum;
}

// The parts of all slices, in their order.
extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    conv2d_backward_sum_cuda(const real* __restrict__ parts, real* __restrict__ to, int elements, int slices) {
    const offset_t e = element_index();
    if (e >= elements) return;
    real sum = 0;
    for (int i = 0; i < slices; i++) sum += parts[static_cast<offset_t>(i) * elements + e];
    to[e] = sum;
}
