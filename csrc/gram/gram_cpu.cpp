// Gram forward. The pixels are cut into slices and the columns of g into groups, by the shape alone; one job sums one
// group of one slice in a partial matrix of its own, and the partials are added in the order of the slices. A job takes
// a block of pixels at a time, packed in panels of NR channels, and a tile of R x NR sums in registers:
//
//   x (pixels x channels)       panels of a block           partial matrix (channels x channels)
//   +-------------------+       +----+----+----+            +----+----+----+
//   | block             |       | p0 | p1 | p2 |            | \  | #  | #  |   tile rows above the diagonal
//   |  of 256 pixels    |  -->  |    |    |    |  p^T p --> |    | \  | #  |   only; on it, vectors that
//   +-------------------+       +----+----+----+            |    |    | \  |   reach over it; the reduction
//   | next block        |        256 x NR each              +----+----+----+   mirrors them
//
// Backward: a product of the pixels with the packed matrix weight (d + d^T), MR pixels x NR channels in registers.
#include "gram.h"

#include "../common/gemm_cpu.h"
#include "../common/parallel.h"
#include "../common/scratch.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int64_t block_pixels = 256;    // 256 x 512 floats: half of a second-level cache of 1 MB
constexpr int64_t group_channels = 128;  // 512 x 128 sums: a quarter of it
constexpr int64_t slice_pixels = 1024;   // a slice is worth its own partial matrix from here on
constexpr int64_t most_jobs = 16;
constexpr int64_t reduce_side = 32;

template <class T>
struct Parts {
    static constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    static constexpr int R = min_of(vector_registers == 32 ? 8 : 4, NR);  // rows of a tile; divides NR
    int64_t padded, groups, slices;

    explicit Parts(const GramShape& s) {
        padded = ceil_div(s.channels, NR) * NR;
        groups = ceil_div(s.channels, group_channels);
        const int64_t apart = max_of<int64_t>(1, s.images * groups);
        slices = max_of<int64_t>(1, min_of(s.pixels / slice_pixels, most_jobs / apart));
    }
    int64_t matrix() const { return padded * padded; }
};

constexpr int64_t line = 64;  // bytes that a prefetch fetches

// c[R][V vectors] += sum over p < depth of a[p][R] b[p][V vectors]; rows of a and b lie NR apart. Meanwhile fetches
// the lines from `ahead` on, `step` bytes apart.
template <class T, int R, int V>
inline void add_tile(const T* a, const T* b, int64_t depth, T* c, int64_t ldc, const char* ahead, int64_t step) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    Vec<T> sum[R][V] = {};
    for (int64_t p = 0; p < depth; p++, a += NR, b += NR, ahead += step) {
        __builtin_prefetch(ahead, 0, 2);
        Vec<T> right[V];
        for (int v = 0; v < V; v++) right[v] = load(b + v * W);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] += a[r] * right[v];
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(c + r * ldc + v * W, load(c + r * ldc + v * W) + sum[r][v]);
}

// Copies `rows` pixels of x (channels apart) into panels [channels / NR][block_pixels][NR], zeros on the right.
template <class T>
void pack_block(const T* x, int64_t rows, int64_t channels, int64_t wanted, T* panels) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    for (int64_t r = 0; r < rows; r++, x += channels)
        for (int64_t c = 0; c < wanted; c += NR) {
            T* to = panels + c * block_pixels + r * NR;
            if (c + NR <= channels) {
                store(to, load(x + c));
                store(to + W, load(x + c + W));
            } else {
                for (int64_t k = 0; k < NR; k++) to[k] = c + k < channels ? x[c + k] : T(0);
            }
        }
}

// Adds one block to columns [first, last) of g, down to the diagonal; fetches the pixels [next, end) on the way.
template <class T>
void add_block(const T* panels, int64_t rows, int64_t first, int64_t last, int64_t ldg, const T* next, const T* end,
               T* g) {
    constexpr int W = Parts<T>::W, NR = Parts<T>::NR, R = Parts<T>::R;
    const char *ahead = reinterpret_cast<const char*>(next), *stop = reinterpret_cast<const char*>(end);
    for (int64_t j = first; j < last; j += NR) {
        const T* right = panels + j * block_pixels;
        for (int64_t i = 0; i < j + NR; i += R) {
            const T* left = panels + i / NR * NR * block_pixels + i % NR;
            const int64_t step = ahead + rows * line <= stop ? line : 0;
            if (i < j + W) add_tile<T, R, 2>(left, right, rows, g + i * ldg + j, ldg, ahead, step);
            else add_tile<T, R, 1>(left, right + W, rows, g + i * ldg + j + W, ldg, ahead, step);
            ahead += rows * step;
        }
    }
}

// Sums of every slice, upper triangles: [images][slices][padded][padded].
template <class T>
void sum_slices(const T* x, const GramShape& s, const Parts<T>& parts, T* partials) {
    const int64_t room = block_pixels * parts.padded;
    Scratch<T> rooms(num_threads() * room);
    parallel_for(s.images * parts.slices * parts.groups, [&](int64_t job, int thread) {
        const int64_t group = parts.groups - 1 - job % parts.groups, slice = job / parts.groups % parts.slices;
        const int64_t n = job / parts.groups / parts.slices;
        const int64_t left = group * group_channels, right = min_of(left + group_channels, parts.padded);
        T* g = partials + (n * parts.slices + slice) * parts.matrix();
        T* panels = rooms.get() + thread * room;
        for (int64_t i = 0; i < right; i++)
            for (int64_t j = left; j < right; j++) g[i * parts.padded + j] = T(0);
        const int64_t end = s.pixels * (slice + 1) / parts.slices;
        for (int64_t p = s.pixels * slice / parts.slices; p < end; p += block_pixels) {
            const int64_t rows = min_of(block_pixels, end - p);
            const T *block = x + (n * s.pixels + p) * s.channels, *next = block + rows * s.channels;
            pack_block(block, rows, s.channels, right, panels);
            add_block(panels, rows, left, right, parts.padded, next, next + min_of(rows, end - p - rows) * s.channels,
                      g);
        }
    });
}

// Calls use(thread's row block, n, i, j, g_ij) for j >= i of every image, square by square, so that the mirrored
// elements stay in the caches too.
template <class T, class Use>
void reduce_slices(const T* partials, const GramShape& s, const Parts<T>& parts, const Use& use) {
    const int64_t squares = ceil_div(s.channels, reduce_side);
    parallel_for(s.images * squares, [&](int64_t job, int) {
        const int64_t n = job / squares, top = job % squares * reduce_side;
        const T* first = partials + n * parts.slices * parts.matrix();
        for (int64_t left = top; left < s.channels; left += reduce_side)
            for (int64_t i = top; i < min_of(top + reduce_side, s.channels); i++)
                for (int64_t j = max_of(left, i); j < min_of(left + reduce_side, s.channels); j++) {
                    const T* from = first + i * parts.padded + j;
                    T sum = *from;
                    for (int64_t k = 1; k < parts.slices; k++) sum += from[k * parts.matrix()];
                    use(job, n, i, j, sum);
                }
    });
}

// What becomes of a tile of dx.
enum class Put { write, stream, add };

template <class T, int R, Put how>
inline void product_of_rows(const T* x, int64_t c, const T* panel, T* dx) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    constexpr int64_t per_line = line / static_cast<int64_t>(sizeof(T));
    Vec<T> s0[R] = {}, s1[R] = {};
    if constexpr (how == Put::add)
        for (int r = 0; r < R; r++) __builtin_prefetch(dx + r * c, 1), __builtin_prefetch(dx + r * c + NR - 1, 1);
    for (int64_t k = 0; k < c; k++) {
        __builtin_prefetch(x + R * c + k * per_line, 0, 2);  // the next pixels
        const Vec<T> b0 = load(panel + k * NR), b1 = load(panel + k * NR + W);
        for (int r = 0; r < R; r++) {
            const T a = x[r * c + k];
            s0[r] += a * b0;
            s1[r] += a * b1;
        }
    }
    for (int r = 0; r < R; r++) {
        T* to = dx + r * c;
        if constexpr (how == Put::stream) {
            store_stream(to, s0[r]);
            store_stream(to + W, s1[r]);
        } else {
            store(to, how == Put::add ? load(to) + s0[r] : s0[r]);
            store(to + W, how == Put::add ? load(to + W) + s1[r] : s1[r]);
        }
    }
}

template <class T, Put how, int R = Tile<T>::MR>
inline void product_of(int64_t rows, const T* x, int64_t c, const T* panel, T* dx) {
    if constexpr (R > 0) {
        if (rows == R) product_of_rows<T, R, how>(x, c, panel, dx);
        else product_of<T, how, R - 1>(rows, x, c, panel, dx);
    }
}

// `rows` pixels times one panel of `wide` columns.
template <class T, Put how>
void product_with_panel(int64_t rows, const T* x, int64_t c, const T* panel, int64_t wide, T* dx) {
    constexpr int MR = Tile<T>::MR, NR = Tile<T>::NR;
    T narrow[MR * NR];
    for (int64_t i = 0; i < rows; i += MR) {
        const int64_t r = min_of<int64_t>(MR, rows - i);
        if (wide == NR) {
            product_of<T, how>(r, x + i * c, c, panel, dx + i * c);
        } else {
            rows_product<T>(r, NR, x + i * c, c, panel, c, narrow, NR, false);
            for (int64_t k = 0; k < r; k++)
                for (int64_t j = 0; j < wide; j++) {
                    T& to = dx[(i + k) * c + j];
                    to = how == Put::add ? to + narrow[k * NR + j] : narrow[k * NR + j];
                }
        }
    }
}

template <class T, Put how>
void product_with_symmetric(const T* x, const T* packed, int64_t pixels, int64_t c, T* dx) {
    constexpr int NR = Tile<T>::NR;
    const int64_t rows = 8 * Tile<T>::MR;
    parallel_for(ceil_div(pixels, rows), [&](int64_t block, int) {
        const int64_t p = block * rows, count = min_of(rows, pixels - p);
        for (int64_t j = 0; j < c; j += NR)
            product_with_panel<T, how>(count, x + p * c, c, packed + j * c, min_of<int64_t>(NR, c - j), dx + p * c + j);
        if (how == Put::stream) stream_end();
    });
}

}  // namespace

template <class T>
void gram_forward_cpu(const T* x, GramShape s, T* g) {
    const Parts<T> parts(s);
    Scratch<T> partials(s.images * parts.slices * parts.matrix());
    sum_slices(x, s, parts, partials.get());
    const int64_t c = s.channels;
    reduce_slices(partials.get(), s, parts, [&](int64_t, int64_t n, int64_t i, int64_t j, T sum) {
        g[(n * c + i) * c + j] = g[(n * c + j) * c + i] = sum;
    });
}

template <class T>
void style_loss_forward_cpu(const T* x, const T* target, double scale, GramShape s, T* d, double* j) {
    const Parts<T> parts(s);
    const int64_t c = s.channels, squares = ceil_div(c, reduce_side);
    Scratch<T> partials(s.images * parts.slices * parts.matrix());
    Scratch<double> sums(s.images * squares);
    for (int64_t i = 0; i < s.images * squares; i++) sums.get()[i] = 0;
    sum_slices(x, s, parts, partials.get());
    reduce_slices(partials.get(), s, parts, [&](int64_t job, int64_t n, int64_t i, int64_t k, T sum) {
        const auto gap = [&](int64_t row, int64_t column) {
            const int64_t at = (n * c + row) * c + column;
            const double difference = scale * (static_cast<double>(sum) - static_cast<double>(target[at]));
            d[at] = static_cast<T>(2 * scale * difference);
            return difference * difference;
        };
        sums.get()[job] += i == k ? gap(i, i) : gap(i, k) + gap(k, i);
    });
    *j = 0;
    for (int64_t i = 0; i < s.images * squares; i++) *j += sums.get()[i];
}

template <class T>
void gram_backward_cpu(const T* x, const T* d, T weight, GramShape s, bool add, T* dx) {
    constexpr int NR = Tile<T>::NR;
    const int64_t c = s.channels, panels = ceil_div(c, NR);
    Scratch<T> packed(panels * c * NR);
    for (int64_t n = 0; n < s.images; n++) {
        const T *dn = d + n * c * c, *xn = x + n * s.pixels * c;
        T* to = dx + n * s.pixels * c;
        parallel_for(panels, [&](int64_t panel, int) {
            T* out = packed.get() + panel * c * NR;
            for (int64_t k = 0; k < c; k++)
                for (int64_t j = panel * NR; j < (panel + 1) * NR; j++)
                    *out++ = j < c ? weight * (dn[k * c + j] + dn[j * c + k]) : T(0);
        });
        if (add) product_with_symmetric<T, Put::add>(xn, packed.get(), s.pixels, c, to);
        else if (can_stream(to, s.pixels * c, c))
            product_with_symmetric<T, Put::stream>(xn, packed.get(), s.pixels, c, to);
        else product_with_symmetric<T, Put::write>(xn, packed.get(), s.pixels, c, to);
    }
}

#define NST_GRAM(T)                                                                 \
    template void gram_forward_cpu<T>(const T*, GramShape, T*);                     \
    template void gram_backward_cpu<T>(const T*, const T*, T, GramShape, bool, T*); \
    template void style_loss_forward_cpu<T>(const T*, const T*, double, GramShape, T*, double*);
NST_GRAM(float)
NST_GRAM(double)

}  // namespace nst::NST_ISA_NS
