// The costs of style transfer that need no Gram matrix, and what a network does to a picture first, on a GPU; the
// contract stands in style.h. Sums are taken in double, by a fixed number of blocks whose sums one block adds up.
#include "../common/cuda_sums.cuh"

constexpr int sum_threads = 256;

// What a block leaves of the terms of its elements, which it shares with the other blocks of the grid.
template <class Term>
__device__ __forceinline__ void sum_terms(double* __restrict__ sums, offset_t elements, const Term& term) {
    double sum = 0;
    for (offset_t e = element_index(); e < elements; e += static_cast<offset_t>(gridDim.x) * sum_threads)
        sum += term(e);
    sum = block_sum<sum_threads>(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__device__ __forceinline__ double squared(real a, real b) {
    const double difference = static_cast<double>(a) - static_cast<double>(b);
    return difference * difference;
}

extern "C" __global__ void __launch_bounds__(sum_threads, element_blocks)
    content_loss_forward_cuda(const real* __restrict__ a, const real* __restrict__ target, double* __restrict__ sums,
                              offset_t elements) {
    sum_terms(sums, elements, [&](offset_t e) { return squared(a[e], target[e]); });
}

extern "C" __global__ void __launch_bounds__(sum_threads, element_blocks)
    content_loss_forward_total_cuda(const double* __restrict__ sums, real* __restrict__ loss, int count) {
    const double total = block_total<sum_threads>(sums, count);
    if (threadIdx.x == 0) *loss = static_cast<real>(0.5 * total);
}

// to = sign grad (a - target), added to what is there with `add`; `grad` is one number on the device.
extern "C" __global__ void __launch_bounds__(sum_threads, element_blocks)
    content_loss_backward_cuda(const real* __restrict__ a, const real* __restrict__ target,
                               const real* __restrict__ grad, real* __restrict__ to, offset_t elements, real sign,
                               int add) {
    const offset_t e = element_index();
    if (e >= elements) return;
    const real slope = sign * *grad * (a[e] - target[e]);
    to[e] = add ? to[e] + slope : slope;
}

// An element of a picture (n, h, w, c), and how far its neighbours are: below and on the right, or 0 at the edge.
struct Neighbours {
    offset_t below = 0, right = 0, above = 0, left = 0;
    __device__ Neighbours(offset_t e, int height, int width, int channels) {
        const offset_t row = static_cast<offset_t>(width) * channels;
        const offset_t i = e / row % height, j = e / channels % width;
        if (i + 1 < height) below = row;
        if (i > 0) above = row;
        if (j + 1 < width) right = channels;
        if (j > 0) left = channels;
    }
};

extern "C" __global__ void __launch_bounds__(sum_threads, element_blocks)
    total_variation_forward_cuda(const real* __restrict__ x, double* __restrict__ sums, offset_t elements, int height,
                                 int width, int channels) {
    sum_terms(sums, elements, [&](offset_t e) {
        const Neighbours n(e, height, width, channels);
        return squared(x[e + n.below], x[e]) + squared(x[e + n.right], x[e]);
    });
}

extern "C" __global__ void __launch_bounds__(sum_threads, element_blocks)
    total_variation_forward_total_cuda(const double* __restrict__ sums, real* __restrict__ loss, int count) {
    const double total = block_total<sum_threads>(sums, count);
    if (threadIdx.x == 0) *loss = static_cast<real>(total);
}

extern "C" __global__ void __launch_bounds__(sum_threads, element_blocks)
    total_variation_backward_cuda(const real* __restrict__ x, const real* __restrict__ grad, real* __restrict__ dx,
                                  offset_t elements, int height, int width, int channels) {
    const offset_t e = element_index();
    if (e >= elements) return;
    const Neighbours n(e, height, width, channels);
    const real v = x[e];
    const real slope = (v - x[e + n.below]) + (v - x[e + n.right]) + (v - x[e - n.above]) + (v - x[e - n.left]);
    dx[e] = 2 * *grad * slope;
}

// y = x scale + shift by channel, x's channels in the other order with `reverse`.
extern "C" __global__ void __launch_bounds__(sum_threads, element_blocks)
    normalize_channels_forward_cuda(const real* __restrict__ x, const real* __restrict__ scale,
                                    const real* __restrict__ shift, real* __restrict__ y, offset_t elements,
                                    int channels, int reverse) {
    const offset_t e = element_index();
    if (e >= elements) return;
    const int k = static_cast<int>(e % channels);
    y[e] = x[reverse ? e - k + (channels - 1 - k) : e] * scale[k] + shift[k];
}

extern "C" __global__ void __launch_bounds__(sum_threads, element_blocks)
    normalize_channels_backward_cuda(const real* __restrict__ dy, const real* __restrict__ scale, real* __restrict__ dx,
                                     offset_t elements, int channels, int reverse) {
    const offset_t e = element_index();
    if (e >= elements) return;
    const int k = static_cast<int>(e % channels), from = reverse ? channels - 1 - k : k;
    dx[e] = dy[e - k + from] * scale[from];
}
