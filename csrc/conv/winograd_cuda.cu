// Convolution of 3 x 3 and stride 1, and its gradient by the input, by Winograd's F(2 x 2, 3 x 3); the contract stands
// in conv.h. Source: Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
//
//   Y = A^T [ (G g G^T) * (B^T d B) ] A     d: 4 x 4 inputs, g: 3 x 3 weights, Y: 2 x 2 results, * element by element
//
// 16 products where the direct sum has 36. A small kernel transforms the weights; the other does all the rest. For each
// of the 16 points the sum over channels is a product of matrices, tiles x channels by channels x filters. A block has
// 32 tiles and 32 filters of all points in registers: a warp two points, a lane 4 x 8 of each. Channels pass through
// shared memory, a few at a time, in two copies: while the ones are multiplied the next are on their way to registers,
// to be transformed and put into the other copy.
//
// The gradient by the input is the same: dy takes the place of x, the weights are turned by 180 degrees, channels and
// filters change places, and of the padding there is 2 minus what there was. Tiles are numbered by image, row, column.
#include "slope_cuda.cuh"

constexpr int winograd_threads = 256, winograd_tiles = 32, winograd_filters = 32, winograd_points = 16;
constexpr int winograd_depth = 16 / sizeof(real);  // channels in shared memory at once
// What a row of shared memory is longer: what a warp stores, 8 tiles of 4 channels, then lies in 32 banks.
constexpr int winograd_pad = 8;
constexpr int winograd_at_once = 8;                  // filters whose results are put together
constexpr int winograd_result = winograd_tiles + 4;  // so that neighbours of both, 8 filters x 4 tiles, are apart
// Threads that fetch an element of 16 points each: so many of x, as many of the weights.
constexpr int winograd_fetchers = winograd_tiles * winograd_depth;
// Blocks of a multiprocessor at least: 128 registers a thread in float, 255 in double.
constexpr int winograd_blocks = sizeof(real) == 4 ? 2 : 1;
static_assert(winograd_tiles == winograd_filters && 2 * winograd_fetchers <= winograd_threads, "one element a thread");
static_assert(winograd_points * lanes == 2 * winograd_threads, "two points a warp");
static_assert(winograd_at_once * winograd_tiles == winograd_threads, "one result a thread");

// What is convolved, (n, h, w, c), and what comes out, (n, p, q, k).
struct WinogradShape {
    int h, w, c, p, q, k, pad_top, pad_left, tiles;  // of all images
    __device__ int across() const { return (q + 1) / 2; }
    __device__ int down() const { return (p + 1) / 2; }
};

#define NST_WINOGRAD_SHAPE int h, int w, int c, int p, int q, int k, int pad_top, int pad_left, int tiles
#define NST_WINOGRAD_VALUES {h, w, c, p, q, k, pad_top, pad_left, tiles}

struct Place {
    int image, row, column;  // of the first of a tile's results
    __device__ Place(const WinogradShape& d, int tile)
        : image(tile / (d.across() * d.down())), row(tile / d.across() % d.down() * 2), column(tile % d.across() * 2) {}
};

struct __align__(16) WinogradOperands {
    real inputs[winograd_points][winograd_depth][winograd_tiles + winograd_pad];
    real weights[winograd_points][winograd_depth][winograd_filters];
};

union WinogradMemory {
    WinogradOperands operands[2];
    real products[winograd_points][winograd_at_once][winograd_result];
};

// B^T d of four elements `step` apart.
__device__ __forceinline__ void input_to_points(real (&d)[winograd_points], int at, int step) {
    const real d0 = d[at], d1 = d[at + step], d2 = d[at + 2 * step], d3 = d[at + 3 * step];
    d[at] = d0 - d2;
    d[at + step] = d1 + d2;
    d[at + 2 * step] = d2 - d1;
    d[at + 3 * step] = d1 - d3;
}

// G g of three elements, to four.
__device__ __forceinline__ void filter_to_points(real g0, real g1, real g2, real* u, int step) {
    const real even = (g0 + g2) / 2, odd = g1 / 2;
    u[0] = g0;
    u[step] = even + odd;
    u[2 * step] = even - odd;
    u[3 * step] = g2;
}
__device__ __forceinline__ void filter_to_points(const real (&g)[9], real (&u)[winograd_points]) {
    real rows[4][3];
#pragma unroll
    for (int s = 0; s < 3; s++) filter_to_points(g[s], g[3 + s], g[6 + s], &rows[0][s], 3);
#pragma unroll
    for (int i = 0; i < 4; i++) filter_to_points(rows[i][0], rows[i][1], rows[i][2], &u[4 * i], 1);
}

// What a thread fetches of each step: of a tile and a channel the 4 x 4 inputs, or of a channel and a filter the
// weights of 4 x 4 points. In double half of the threads fetch nothing.
struct Fetcher {
    offset_t origin;  // of the first of the 16
    int there;        // a bit for each of them: whether there is such an element, in the steps but the last

    __device__ static bool of_inputs() { return static_cast<int>(threadIdx.x) / winograd_fetchers == 0; }
    __device__ static bool of_weights() { return static_cast<int>(threadIdx.x) / winograd_fetchers == 1; }
    // In the step; and which tile or filter of the block.
    __device__ static int channel() {
        const int e = static_cast<int>(threadIdx.x) % winograd_fetchers;
        return of_inputs() ? e % winograd_depth : e / winograd_filters;
    }
    __device__ static int column() {
        const int e = static_cast<int>(threadIdx.x) % winograd_fetchers;
        return of_inputs() ? e / winograd_depth : e % winograd_filters;
    }

    __device__ Fetcher(const WinogradShape& d, int tile0, int filter0) : there(0) {
        if (of_inputs()) {
            const Place place(d, tile0 + column());
            const int y = place.row - d.pad_top, z = place.column - d.pad_left;
            origin = ((static_cast<offset_t>(place.image) * d.h + y) * d.w + z) * d.c + channel();
            for (int at = 0; at < winograd_points && tile0 + column() < d.tiles; at++) {
                const int i = y + at / 4, j = z + at % 4;
                if (i >= 0 && i < d.h && j >= 0 && j < d.w) there |= 1 << at;
            }
        } else {
            origin = static_cast<offset_t>(channel()) * d.k + filter0 + column();
            there = of_weights() && filter0 + column() < d.k;
        }
    }

    // The step that begins at channel k.
    template <class Inputs>
    __device__ __forceinline__ void fetch(const WinogradShape& d, const Inputs& inputs,
                                          const real* __restrict__ weights, int k,
                                          real (&held)[winograd_points]) const {
        const int wanted = k + channel() < d.c ? there : 0;
        if (of_inputs()) {
            const offset_t from = origin + k;
#pragma unroll
            for (int at = 0; at < winograd_points; at++)
                held[at] = wanted >> at & 1 ? inputs(from + (at / 4 * d.w + at % 4) * d.c) : real(0);
        } else if (of_weights()) {
            const offset_t from = origin + static_cast<offset_t>(k) * d.k;
#pragma unroll
            for (int at = 0; at < winograd_points; at++) held[at] = wanted ? weights[from + at * d.c * d.k] : real(0);
        }
    }

    __device__ __forceinline__ void keep(WinogradOperands& to, real (&held)[winograd_points]) const {
        if (of_inputs()) {
#pragma unroll
            for (int i = 0; i < 4; i++) input_to_points(held, i, 4);
#pragma unroll
            for (int i = 0; i < 4; i++) input_to_points(held, 4 * i, 1);
#pragma unroll
            for (int at = 0; at < winograd_points; at++) to.inputs[at][channel()][column()] = held[at];
        } else if (of_weights()) {
#pragma unroll
            for (int at = 0; at < winograd_points; at++) to.weights[at][channel()][column()] = held[at];
        }
    }
};

// The first of a lane's 4 tiles, and of its filters: 4 from there on and 4 more, 16 further. So 8 neighbouring lanes
// read vectors of the weights that lie in different banks.
__device__ __forceinline__ int lane_tile() { return static_cast<int>(threadIdx.x) % lanes / 4 * 4; }
__device__ __forceinline__ int lane_filter() { return static_cast<int>(threadIdx.x) % 4 * 4; }
__device__ __forceinline__ int warp_point() { return static_cast<int>(threadIdx.x) / lanes * 2; }

// Adds the products of the channels in shared memory: [point][tile][filter] of this lane. Not unrolled: with the
// vectors of more than one channel on their way, registers spill.
__device__ __forceinline__ void add_products(const WinogradOperands& from, real (&sum)[2][4][8]) {
#pragma unroll 1
    for (int channel = 0; channel < winograd_depth; channel++)
#pragma unroll
        for (int point = 0; point < 2; point++) {
            const real* inputs = from.inputs[warp_point() + point][channel];
            const real* weights = from.weights[warp_point() + point][channel];
            const Four a = *reinterpret_cast<const Four*>(&inputs[lane_tile()]);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const Four b = *reinterpret_cast<const Four*>(&weights[lane_filter() + 16 * half]);
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int j = 0; j < 4; j++) sum[point][i][4 * half + j] += a.v[i] * b.v[j];
            }
        }
}

// Results (row, column) of a tile of one filter, from its 16 points: A^T m A.
__device__ __forceinline__ void from_points(const real (&m)[winograd_points], real (&y)[2][2]) {
    real rows[2][4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        rows[0][j] = m[j] + m[4 + j] + m[8 + j];
        rows[1][j] = m[4 + j] - m[8 + j] - m[12 + j];
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        y[i][0] = rows[i][0] + rows[i][1] + rows[i][2];
        y[i][1] = rows[i][1] - rows[i][2] - rows[i][3];
    }
}

// Puts a lane's products of 4 of its filters where the block's results are made.
__device__ __forceinline__ void put_products(WinogradMemory& memory, const real (&sum)[2][4][8], int half) {
#pragma unroll
    for (int point = 0; point < 2; point++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            Four v;
#pragma unroll
            for (int i = 0; i < 4; i++) v.v[i] = sum[point][i][4 * half + j];
            real* to = memory.products[warp_point() + point][lane_filter() % winograd_at_once + j];
            *reinterpret_cast<Four*>(&to[lane_tile()]) = v;
        }
}

// The points of 8 filters at a time come together in shared memory, a tile and a filter to a thread. Calls
// store(offset, filter, value) for the results there are.
template <class Store>
__device__ __forceinline__ void store_results(WinogradMemory& memory, const WinogradShape& d, int tile0, int filter0,
                                              const real (&sum)[2][4][8], const Store& store) {
    const int thread = static_cast<int>(threadIdx.x), own = thread % winograd_at_once, tile = thread / winograd_at_once;
    const Place place(d, tile0 + tile);
    const bool there = tile0 + tile < d.tiles;
    const offset_t first = ((static_cast<offset_t>(place.image) * d.p + place.row) * d.q + place.column) * d.k;
    int filter = filter0 + own;
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll 1
        for (int quarter = 0; quarter < 2; quarter++, filter += winograd_at_once) {
            if (lane_filter() / winograd_at_once == quarter) put_products(memory, sum, half);
            __syncthreads();
            real m[winograd_points], y[2][2];
#pragma unroll
            for (int point = 0; point < winograd_points; point++) m[point] = memory.products[point][own][tile];
            from_points(m, y);
#pragma unroll
            for (int at = 0; at < 4; at++)
                if (there && filter < d.k && place.row + at / 2 < d.p && place.column + at % 2 < d.q)
                    store(first + (at / 2 * d.q + at % 2) * d.k + filter, filter, y[at / 2][at % 2]);
            __syncthreads();
        }
}

// weights: [16 points][c][k]
template <class Inputs, class Store>
__device__ __forceinline__ void convolve(WinogradMemory& memory, const WinogradShape& d, const Inputs& inputs,
                                         const real* __restrict__ weights, const Store& store) {
    const int tile0 = static_cast<int>(blockIdx.x) * winograd_tiles;
    const int filter0 = static_cast<int>(blockIdx.y) * winograd_filters;
    const Fetcher fetcher(d, tile0, filter0);
    real sum[2][4][8] = {}, held[winograd_points];
    fetcher.fetch(d, inputs, weights, 0, held);
    fetcher.keep(memory.operands[0], held);
    __syncthreads();
    int now = 0;
    for (int k = 0; k < d.c; k += winograd_depth) {
        const int next = k + winograd_depth;
        if (next < d.c) fetcher.fetch(d, inputs, weights, next, held);
        add_products(memory.operands[now], sum);
        if (next < d.c) fetcher.keep(memory.operands[1 - now], held);
        __syncthreads();
        now = 1 - now;
    }
    store_results(memory, d, tile0, filter0, sum, store);
}

// x: (n, h, w, c), y: (n, p, q, k); grid (tiles / 32, filters / 32)
extern "C" __global__ void __launch_bounds__(winograd_threads, winograd_blocks)
    conv2d_forward_winograd_cuda(const real* __restrict__ x, const real* __restrict__ weights,
                                 const real* __restrict__ bias, real* __restrict__ y,
                                 unsigned char* __restrict__ positive, int relu, NST_WINOGRAD_SHAPE) {
    __shared__ WinogradMemory memory;
    const WinogradShape d NST_WINOGRAD_VALUES;
    convolve(memory, d, Slope{x, nullptr}, weights, [&](offset_t at, int filter, real v) {
        if (bias) v += bias[filter];
        if (relu && v <= 0) v = 0;  // a NaN stays
        y[at] = v;
        if (positive) positive[at] = v > 0;
    });
}

// dy takes the place of x: (n, h, w, c) is its shape, (n, p, q, k) that of dx; grid (tiles / 32, filters / 32)
extern "C" __global__ void __launch_bounds__(winograd_threads, winograd_blocks)
    conv2d_backward_winograd_cuda(const real* __restrict__ dy, const unsigned char* __restrict__ positive,
                                  const real* __restrict__ weights, real* __restrict__ dx, NST_WINOGRAD_SHAPE) {
    __shared__ WinogradMemory memory;
    const WinogradShape d NST_WINOGRAD_VALUES;
    convolve(memory, d, Slope{dy, positive}, weights, [&](offset_t at, int, real v) { dx[at] = v; });
}

// w: (filters, 3, 3, channels), points: [16][channels][filters]. A warp reads 32 channels of a filter and the block
// writes 8 filters of a channel: both lie next to each other. grid (channels / 32, filters / 8)
extern "C" __global__ void __launch_bounds__(winograd_threads, winograd_blocks)
    conv2d_forward_winograd_weights_cuda(const real* __restrict__ w, real* __restrict__ points, int channels,
                                         int filters) {
    constexpr int of_filters = winograd_threads / lanes;
    __shared__ real turned[winograd_points][lanes][of_filters + 1];
    const int thread = static_cast<int>(threadIdx.x);
    const int channel0 = static_cast<int>(blockIdx.x) * lanes, filter0 = static_cast<int>(blockIdx.y) * of_filters;
    const int channel = thread % lanes, filter = thread / lanes;
    if (channel0 + channel < channels && filter0 + filter < filters) {
        real g[9], u[winograd_points];
#pragma unroll
        for (int tap = 0; tap < 9; tap++)
            g[tap] = w[(static_cast<offset_t>(filter0 + filter) * 9 + tap) * channels + channel0 + channel];
        filter_to_points(g, u);
#pragma unroll
        for (int point = 0; point < winograd_points; point++) turned[point][channel][filter] = u[point];
    }
    __syncthreads();
    const int to_channel = channel0 + thread / of_filters, to_filter = filter0 + thread % of_filters;
    if (to_channel >= channels || to_filter >= filters) return;
#pragma unroll
    for (int point = 0; point < winograd_points; point++)
        points[(static_cast<offset_t>(point) * channels + to_channel) * filters + to_filter] =
            turned[point][thread / of_filters][thread % of_filters];
}

// points: [16][filters][channels], of w turned by 180 degrees; an element (filter, channel) a thread
extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    conv2d_backward_winograd_weights_cuda(const real* __restrict__ w, real* __restrict__ points, int channels,
                                          int filters) {
    const offset_t e = element_index(), elements = static_cast<offset_t>(filters) * channels;
    if (e >= elements) return;
    const offset_t filter = e / channels, channel = e % channels;
    real g[9], u[winograd_points];
#pragma unroll
    for (int tap = 0; tap < 9; tap++) g[tap] = w[(filter * 9 + 8 - tap) * channels + channel];
    filter_to_points(g, u);
#pragma unroll
    for (int point = 0; point < winograd_points; point++) points[point * elements + e] = u[point];
}
