// Max and average pooling of feature maps, any window, stride and padding.
//
//   max forward     y[n][p][q][c] = max over the window of x;  at[...] = which tap won, counted row by row from 0;
//                   the first of equal ones wins, and a NaN wins over everything
//   max backward    dx = sum of dy over the windows that this pixel won
//   avg forward     y = (sum over the window's real pixels) / count
//   avg backward    dx = sum of dy / count over the windows that hold this pixel
//   peaks forward   value[n][c] = max over all pixels of x, NaN counting as nothing;  at[n][c] = which pixel, the first
//                   of equal ones; -infinity and -1 where no pixel is above that
//
// x, dx: (images, y.in, x.in, channels); y, dy, at: (images, y.out, x.out, channels); all contiguous. Every window
// holds at least one real pixel. count is the number of real pixels, or, with count_padding, of pixels and padding.
#pragma once

#include <cstdint>

#include "../common/dispatch.h"

namespace nst {

struct PoolAxis {
    std::int64_t in, out, window, stride, padding;
};

struct PoolShape {
    std::int64_t images, channels;
    PoolAxis y, x;
    bool count_padding;
};

// Index is uint8_t for windows of up to 256 taps, int32_t beyond; `at` may be null in the forward pass.
#define NST_DECLARE_POOL(ns)                                                                                    \
    namespace ns {                                                                                              \
    template <class T, class Index>                                                                             \
    void max_pool2d_forward_cpu(const T* x, const PoolShape& s, T* y, Index* at);                               \
    template <class T, class Index>                                                                             \
    void max_pool2d_backward_cpu(const T* dy, const Index* at, const PoolShape& s, T* dx);                      \
    template <class T>                                                                                          \
    void avg_pool2d_forward_cpu(const T* x, const PoolShape& s, T* y);                                          \
    template <class T>                                                                                          \
    void avg_pool2d_backward_cpu(const T* dy, const PoolShape& s, T* dx);                                       \
    template <class T>                                                                                          \
    void channel_peaks_forward_cpu(const T* x, std::int64_t images, std::int64_t pixels, std::int64_t channels, \
                                   T* value, std::int64_t* at);                                                 \
    }
NST_FOR_EACH_ISA(NST_DECLARE_POOL)

}  // namespace nst
