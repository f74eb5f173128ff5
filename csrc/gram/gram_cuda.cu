// Gram matrices, the style loss made of them, and their gradient, on a GPU; the contract stands in gram.h.
//
// A feature map is a matrix of pixels x channels. The Gram matrix is symmetric: only tiles with row <= column are
// computed, and a map is cut into slices of pixels, so that few channels still fill the machine. The tiles of all
// slices are then added in the order of the slices, by a second kernel, whose threads write both halves; no sum depends
// on timing.
//
//   gram_forward_parts       grid (tiles, slices, images)    parts [image][slice][tile][64][64]
//   gram_forward_sum         grid (c c / 256, 1, images)     g [image][c][c]
//   style_loss_forward_sum   the same                        d = dJ/dG [image][c][c], a loss of each block
//   style_loss_forward_total one block                       the loss
//   gram_backward            grid (pixels / 64, c / 64, images)   dx = weight x (d + d^T) (+ dx)
#include "../common/cuda_sums.cuh"
#include "../common/cuda_tile.cuh"

constexpr int tile_elements = tile_side * tile_side;

// The first channel of row and of column of the block's tile, from its number along the upper triangle.
struct TilePair {
    int row, column;
    __device__ TilePair(int number, int channels) {
        const int tiles = (channels + tile_side - 1) / tile_side;
        int r = 0;
        for (; number >= tiles - r; r++) number -= tiles - r;
        row = r * tile_side;
        column = (r + number) * tile_side;
    }
};

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    gram_forward_parts_cuda(const real* __restrict__ x, real* __restrict__ parts, int pixels, int channels, int slice) {
    __shared__ TileMemory memory;
    const TilePair tile(static_cast<int>(blockIdx.x), channels);
    const int begin = static_cast<int>(blockIdx.y) * slice, end = min(pixels, begin + slice);
    const real* image = x + static_cast<offset_t>(blockIdx.z) * pixels * channels;
    const auto load = [&](int channel, int pixel) {
        return channel < channels && pixel < end ? image[static_cast<offset_t>(pixel) * channels + channel] : real(0);
    };
    real sum[tile_share][tile_share] = {};
    const auto load_row = [&](int row, int pixel) { return load(tile.row + row, pixel); };
    const auto load_column = [&](int column, int pixel) { return load(tile.column + column, pixel); };
    tile_sum<Contiguous::rows, Contiguous::rows>(memory, begin, end, load_row, load_column, MatrixProduct(), sum);
    const offset_t block = (static_cast<offset_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    real* to = parts + block * tile_elements;
    store_tile<MatrixProduct>(memory, sum, tile_side, tile_side,
                              [&](int row, int column, real v) { to[row * tile_side + column] = v; });
}

// Element (row, column) of an image's Gram matrix, row <= column, from its parts.
__device__ __forceinline__ real add_parts(const real* __restrict__ parts, int row, int column, int channels,
                                          int slices) {
    const int tiles = (channels + tile_side - 1) / tile_side, pairs = tiles * (tiles + 1) / 2;
    const int r = row / tile_side;
    const int number = r * tiles - r * (r - 1) / 2 + column / tile_side - r;
    const real* part =
        parts + static_cast<offset_t>(number) * tile_elements + row % tile_side * tile_side + column % tile_side;
    real sum = 0;
    for (int s = 0; s < slices; s++) sum += part[static_cast<offset_t>(s) * pairs * tile_elements];
    return sum;
}

// The parts of the image of this block.
__device__ __forceinline__ const real* own_parts(const real* parts, int channels, int slices) {
    const int tiles = (channels + tile_side - 1) / tile_side;
    return parts + static_cast<offset_t>(blockIdx.z) * slices * (tiles * (tiles + 1) / 2) * tile_elements;
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    gram_forward_sum_cuda(const real* __restrict__ parts, real* __restrict__ g, int channels, int slices) {
    const offset_t e = element_index(), elements = static_cast<offset_t>(channels) * channels;
    if (e >= elements) return;
    const int i = static_cast<int>(e / channels), j = static_cast<int>(e % channels);
    if (i > j) return;
    const real sum = add_parts(own_parts(parts, channels, slices), i, j, channels, slices);
    real* to = g + blockIdx.z * elements;
    to[e] = sum;
    to[static_cast<offset_t>(j) * channels + i] = sum;
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    style_loss_forward_sum_cuda(const real* __restrict__ parts, const real* __restrict__ target, real* __restrict__ d,
                                double* __restrict__ losses, int channels, int slices, real scale) {
    const offset_t e = element_index(), elements = static_cast<offset_t>(channels) * channels;
    double loss = 0;
    if (e < elements) {
        const int i = static_cast<int>(e / channels), j = static_cast<int>(e % channels);
        const offset_t image = blockIdx.z * elements;
        const real g = i <= j ? add_parts(own_parts(parts, channels, slices), i, j, channels, slices) : real(0);
        const auto squared_at = [&](offset_t at) {
            // Scaled before it is squared: float stays finite at any size of picture.
            const real difference = (g - target[at]) * scale;
            d[at] = 2 * difference * scale;
            return static_cast<double>(difference) * static_cast<double>(difference);
        };
        if (i <= j) loss = squared_at(image + e);
        if (i < j) loss += squared_at(image + static_cast<offset_t>(j) * channels + i);
    }
    loss = block_sum<element_threads>(loss);
    if (threadIdx.x == 0) losses[blockIdx.z * gridDim.x + blockIdx.x] = loss;
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    style_loss_forward_total_cuda(const double* __restrict__ losses, real* __restrict__ loss, int count) {
    const double total = block_total<element_threads>(losses, count);
    if (threadIdx.x == 0) *loss = static_cast<real>(total);
}

// `weight` is one number on the device, which nobody waits for, or null for 1.
extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    gram_backward_cuda(const real* __restrict__ x, const real* __restrict__ d, const real* __restrict__ weight,
                       real* __restrict__ dx, int pixels, int channels, int add) {
    __shared__ TileMemory memory;
    const int pixel0 = static_cast<int>(blockIdx.x) * tile_side, channel0 = static_cast<int>(blockIdx.y) * tile_side;
    const offset_t image = static_cast<offset_t>(blockIdx.z) * pixels * channels;
    const real* own = x + image;
    const real* slope = d + static_cast<offset_t>(blockIdx.z) * channels * channels;
    real sum[tile_share][tile_share] = {};
    const auto pixel_of_x = [&](int row, int k) {
        const int pixel = pixel0 + row;
        return pixel < pixels && k < channels ? own[static_cast<offset_t>(pixel) * channels + k] : real(0);
    };
    const auto both_of_d = [&](int column, int k) {
        const int channel = channel0 + column;
        if (channel >= channels || k >= channels) return real(0);
        return slope[static_cast<offset_t>(k) * channels + channel] +
               slope[static_cast<offset_t>(channel) * channels + k];
    };
    // A warp has 4 channels and 8 of the depth: it reads half sectors of d, whole ones of d^T.
    tile_sum<Contiguous::depth, Contiguous::depth>(memory, 0, channels, pixel_of_x, both_of_d, MatrixProduct(), sum);
    const real factor = weight ? *weight : real(1);
    real* to = dx + image;
    store_tile<MatrixProduct>(memory, sum, pixels - pixel0, channels - channel0, [&](int row, int column, real v) {
        const offset_t at = static_cast<offset_t>(pixel0 + row) * channels + channel0 + column;
        to[at] = add ? to[at] + factor * v : factor * v;
    });
}
