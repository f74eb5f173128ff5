// Max and average pooling and their gradients on a GPU; the contract stands in pool.h.
//
// A thread has one channel of one pixel, of the result forward and of the input backward; neighbours have neighbouring
// channels, so that every access of a warp is one stretch of memory. Backward a pixel gathers from the windows that
// hold it, in the order of the windows: nothing is added atomically.
//
//   grid (columns x channels / 256, rows, images), rows and images going round where they are more than a grid has
#include "../common/cuda_types.cuh"

// The windows along one axis: window o holds the pixels [o stride - padding, + window) that there are.
struct Axis {
    int in, out, window, stride, padding;
    __device__ offset_t start(int o) const { return static_cast<offset_t>(o) * stride - padding; }
    __device__ int first(int o) const { return static_cast<int>(max(start(o), 0LL)); }
    __device__ int end(int o) const { return static_cast<int>(min(start(o) + window, static_cast<offset_t>(in))); }
    // What an average divides by along this axis.
    __device__ int counted(int o, bool padding_too) const {
        if (!padding_too) return end(o) - first(o);
        return static_cast<int>(min(start(o) + window, static_cast<offset_t>(in) + padding) - start(o));
    }
    // The windows that hold pixel i, as many as [first_window, last_window].
    __device__ int first_window(int i) const {
        const offset_t before = static_cast<offset_t>(i) + padding - window;
        return before < 0 ? 0 : static_cast<int>(before / stride + 1);
    }
    __device__ int last_window(int i) const {
        return static_cast<int>(min((static_cast<offset_t>(i) + padding) / stride, static_cast<offset_t>(out - 1)));
    }
};

// Calls body(image, row, column, channel) for what this thread has of a map of rows x columns.
template <class Body>
__device__ __forceinline__ void for_own(int images, int rows, int columns, int channels, const Body& body) {
    const int e = static_cast<int>(element_index());
    if (e >= columns * channels) return;
    for (int image = static_cast<int>(blockIdx.z); image < images; image += static_cast<int>(gridDim.z))
        for (int row = static_cast<int>(blockIdx.y); row < rows; row += static_cast<int>(gridDim.y))
            body(image, row, e / channels, e % channels);
}

__device__ __forceinline__ offset_t place(int image, int rows, int row, int columns, int column, int channels,
                                          int channel) {
    return ((static_cast<offset_t>(image) * rows + row) * columns + column) * channels + channel;
}

template <class Index>
__device__ __forceinline__ void max_forward(const real* __restrict__ x, real* __restrict__ y, Index* __restrict__ at,
                                            int images, int channels, Axis down, Axis across) {
    for_own(images, down.out, across.out, channels, [&](int image, int p, int q, int channel) {
        real best = 0;
        int winner = -1;
        for (int i = down.first(p); i < down.end(p); i++)
            for (int j = across.first(q); j < across.end(q); j++) {
                const real value = x[place(image, down.in, i, across.in, j, channels, channel)];
                // The first of equal ones; a NaN beats all but an earlier NaN.
                if (winner >= 0 && !(value > best) && !(value != value && best == best)) continue;
                best = value;
                winner = static_cast<int>((i - down.start(p)) * across.window + (j - across.start(q)));
            }
        const offset_t to = place(image, down.out, p, across.out, q, channels, channel);
        y[to] = best;
        if (at) at[to] = static_cast<Index>(winner);
    });
}

template <class Index>
__device__ __forceinline__ void max_backward(const real* __restrict__ dy, const Index* __restrict__ at,
                                             real* __restrict__ dx, int images, int channels, Axis down, Axis across) {
    for_own(images, down.in, across.in, channels, [&](int image, int i, int j, int channel) {
        real sum = 0;
        for (int p = down.first_window(i); p <= down.last_window(i); p++)
            for (int q = across.first_window(j); q <= across.last_window(j); q++) {
                const offset_t from = place(image, down.out, p, across.out, q, channels, channel);
                const offset_t tap = (i - down.start(p)) * across.window + (j - across.start(q));
                if (static_cast<offset_t>(at[from]) == tap) sum += dy[from];
            }
        dx[place(image, down.in, i, across.in, j, channels, channel)] = sum;
    });
}

// Up to 256 taps the winner is kept in a byte; `wide` kernels keep it in four.
extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    max_pool2d_forward_cuda(const real* x, real* y, unsigned char* at, int images, int channels, int in_y, int out_y,
                            int window_y, int stride_y, int padding_y, int in_x, int out_x, int window_x, int stride_x,
                            int padding_x) {
    max_forward(x, y, at, images, channels, Axis{in_y, out_y, window_y, stride_y, padding_y},
                Axis{in_x, out_x, window_x, stride_x, padding_x});
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    max_pool2d_forward_wide_cuda(const real* x, real* y, int* at, int images, int channels, int in_y, int out_y,
                                 int window_y, int stride_y, int padding_y, int in_x, int out_x, int window_x,
                                 int stride_x, int padding_x) {
    max_forward(x, y, at, images, channels, Axis{in_y, out_y, window_y, stride_y, padding_y},
                Axis{in_x, out_x, window_x, stride_x, padding_x});
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    max_pool2d_backward_cuda(const real* dy, const unsigned char* at, real* dx, int images, int channels, int in_y,
                             int out_y, int window_y, int stride_y, int padding_y, int in_x, int out_x, int window_x,
                             int stride_x, int padding_x) {
    max_backward(dy, at, dx, images, channels, Axis{in_y, out_y, window_y, stride_y, padding_y},
                 Axis{in_x, out_x, window_x, stride_x, padding_x});
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    max_pool2d_backward_wide_cuda(const real* dy, const int* at, real* dx, int images, int channels, int in_y,
                                  int out_y, int window_y, int stride_y, int padding_y, int in_x, int out_x,
                                  int window_x, int stride_x, int padding_x) {
    max_backward(dy, at, dx, images, channels, Axis{in_y, out_y, window_y, stride_y, padding_y},
                 Axis{in_x, out_x, window_x, stride_x, padding_x});
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    avg_pool2d_forward_cuda(const real* __restrict__ x, real* __restrict__ y, int images, int channels, int in_y,
                            int out_y, int window_y, int stride_y, int padding_y, int in_x, int out_x, int window_x,
                            int stride_x, int padding_x, int padding_too) {
    const Axis down{in_y, out_y, window_y, stride_y, padding_y}, across{in_x, out_x, window_x, stride_x, padding_x};
    for_own(images, out_y, out_x, channels, [&](int image, int p, int q, int channel) {
        real sum = 0;
        for (int i = down.first(p); i < down.end(p); i++)
            for (int j = across.first(q); j < across.end(q); j++)
                sum += x[place(image, in_y, i, in_x, j, channels, channel)];
        const int count = down.counted(p, padding_too) * across.counted(q, padding_too);
        y[place(image, out_y, p, out_x, q, channels, channel)] = sum / static_cast<real>(count);
    });
}

extern "C" __global__ void __launch_bounds__(element_threads, element_blocks)
    avg_pool2d_backward_cuda(const real* __restrict__ dy, real* __restrict__ dx, int images, int channels, int in_y,
                             int out_y, int window_y, int stride_y, int padding_y, int in_x, int out_x, int window_x,
                             int stride_x, int padding_x, int padding_too) {
    const Axis down{in_y, out_y, window_y, stride_y, padding_y}, across{in_x, out_x, window_x, stride_x, padding_x};
    for_own(images, in_y, in_x, channels, [&](int image, int i, int j, int channel) {
        real sum = 0;
        for (int p = down.first_window(i); p <= down.last_window(i); p++)
            for (int q = across.first_window(j); q <= across.last_window(j); q++) {
                const int count = down.counted(p, padding_too) * across.counted(q, padding_too);
                sum += dy[place(image, out_y, p, out_x, q, channels, channel)] / static_cast<real>(count);
            }
        dx[place(image, in_y, i, in_x, j, channels, channel)] = sum;
    });
}
