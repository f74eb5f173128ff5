// Gram forward: an image's pixels are cut into slices (by the shape alone), each slice sums its upper triangle in a
// partial matrix, and the partials are added in slice order. Backward: a product of the pixels with d + d^T.
//
//   x (pixels x C)          partial (C x C), one a slice
//   +-----------+           +---+---+---+     only tiles on or right of the diagonal are
//   | block p0  |  x^T x    | # | # | # |     computed; the reduction mirrors them
//   | block p1  |  ------>  |   | # | # |
//   +-----------+           +---+---+---+
#include "gram.h"

#include "../common/gemm_cpu.h"
#include "../common/parallel.h"
#include "../common/scratch.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int64_t block_pixels =
    128;  // rows of x that one pass over the triangle re-reads: 128 x 512 floats fill a quarter MB
constexpr int64_t most_slices = 16;
constexpr int64_t slice_pixels = 512;  // a slice is worth its own partial matrix from here on

int64_t slice_count(const GramShape& s) {
    const int64_t by_pixels = max_of<int64_t>(1, s.pixels / slice_pixels);
    return max_of<int64_t>(1, min_of(by_pixels, most_slices / max_of<int64_t>(1, s.images)));
}

// g[i][j] += block^T block for every tile that touches j >= i; block has a row stride of lda and is readable to NR.
template <class T>
void add_upper_triangle(const T* block, int64_t lda, int64_t rows, int64_t channels, T* g) {
    constexpr int NR = Tile<T>::NR;
    for (int64_t j = 0; j < channels; j += NR) {
        const int64_t wide = min_of<int64_t>(NR, channels - j);
        outer_product<T>(j + wide, wide, block, lda, block + j, lda, rows, g + j, channels);
    }
}

// Sums one slice into g (channels x channels, zeroed here). padded: room for block_pixels rows, used when the rows of
// x are not a multiple of NR long (a tile would read past the end of the last row).
template <class T>
void sum_slice(const T* x, int64_t pixels, int64_t channels, T* padded, T* g) {
    constexpr int NR = Tile<T>::NR;
    const int64_t stride = ceil_div(channels, NR) * NR;
    for (int64_t i = 0; i < channels * channels; i++) g[i] = T(0);
    for (int64_t p = 0; p < pixels; p += block_pixels) {
        const int64_t rows = min_of(block_pixels, pixels - p);
        const T* block = x + p * channels;
        if (stride != channels) {
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = 0; c < stride; c++)
                    padded[r * stride + c] = c < channels ? block[r * channels + c] : T(0);
            block = padded;
        }
        add_upper_triangle(block, stride, rows, channels, g);
    }
}

// g[i][j] = g[j][i] = partials summed in slice order, j >= i.
template <class T>
void reduce_slices(const T* partials, int64_t slices, int64_t channels, T* g) {
    for (int64_t i = 0; i < channels; i++)
        for (int64_t j = i; j < channels; j++) {
            T sum = partials[i * channels + j];
            for (int64_t k = 1; k < slices; k++) sum += partials[(k * channels + i) * channels + j];
            g[i * channels + j] = g[j * channels + i] = sum;
        }
}

}  // namespace

template <class T>
void gram_forward_cpu(const T* x, GramShape s, T* g) {
    constexpr int NR = Tile<T>::NR;
    const int64_t slices = slice_count(s), matrix = s.channels * s.channels;
    const int64_t padded = block_pixels * ceil_div(s.channels, NR) * NR;
    Scratch<T> partials(s.images * slices * matrix), rooms(num_threads() * padded);
    parallel_for(s.images * slices, [&](int64_t job, int thread) {
        const int64_t n = job / slices, k = job % slices;
        const int64_t first = s.pixels * k / slices, last = s.pixels * (k + 1) / slices;
        sum_slice(x + (n * s.pixels + first) * s.channels, last - first, s.channels, rooms.get() + thread * padded,
                  partials.get() + job * matrix);
    });
    parallel_for(s.images, [&](int64_t n, int) {
        reduce_slices(partials.get() + n * slices * matrix, slices, s.channels, g + n * matrix);
    });
}

template <class T>
void gram_backward_cpu(const T* x, const T* d, GramShape s, T* dx) {
    constexpr int NR = Tile<T>::NR;
    const int64_t c = s.channels, panels = ceil_div(c, NR), rows = 8 * Tile<T>::MR;
    const int64_t blocks = ceil_div(s.pixels, rows);
    Scratch<T> sum(c * c), packed(panels * c * NR);
    for (int64_t n = 0; n < s.images; n++) {
        const T* dn = d + n * c * c;
        for (int64_t i = 0; i < c; i++)
            for (int64_t j = 0; j < c; j++) sum.get()[i * c + j] = dn[i * c + j] + dn[j * c + i];
        pack_panels(sum.get(), c, 1, c, c, packed.get());
        parallel_for(blocks, [&](int64_t block, int) {
            const int64_t p = n * s.pixels + block * rows, count = min_of(rows, s.pixels - block * rows);
            for (int64_t j = 0; j < panels; j++)
                rows_product<T>(count, static_cast<int>(min_of<int64_t>(NR, c - j * NR)), x + p * c, c,
                                packed.get() + j * c * NR, c, dx + p * c + j * NR, c, false);
        });
    }
}

template void gram_forward_cpu<float>(const float*, GramShape, float*);
template void gram_forward_cpu<double>(const double*, GramShape, double*);
template void gram_backward_cpu<float>(const float*, const float*, GramShape, float*);
template void gram_backward_cpu<double>(const double*, const double*, GramShape, double*);

}  // namespace nst::NST_ISA_NS
