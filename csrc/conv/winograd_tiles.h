// Tiles of a Winograd convolution: from the map to V, from M to the result, from the weights to U.
#pragma once

#include <cstdint>

#include "../common/gemm_cpu.h"
#include "../common/transpose.h"
#include "winograd_transforms.h"

namespace nst::NST_ISA_NS {

// What is convolved: map (n, h, w, c) to out (n, p, q, k), both dense, c and k multiples of winograd_channels.
//
// pooled: one of the two is only there as windows of 2 x 2, (n, h / 2, w / 2, c) or (n, p / 2, q / 2, k). In a map
// every pixel is its window's element; in a result the window keeps its largest one. The bits stay those of single
// pixels.
enum class Pooled { none, map, out };

template <class T>
struct WinogradJob {
    const T* map;
    const std::uint8_t* map_positive;  // null, or a bit an element of the map: where it is 0 the map counts as 0
    const T* weights;                  // (k, 3, 3, c); turned: (c, 3, 3, k), read from the last tap to the first
    bool turned;
    const T* bias;  // null, or padded to panels
    T* out;
    std::uint8_t*
        out_positive;  // null, or gets a bit an element of the result: whether it is above 0 (and its window's)
    int64_t n, h, w, c, p, q, k, top, left;
    bool relu;
    Pooled pooled = Pooled::none;

    int64_t panels() const { return ceil_div(k, Tile<T>::NR); }
};

struct TilePlace {
    int64_t n, y, x;  // image, and the first output row and column of a tile
};

template <class T, int Edge>
struct TileGrid {
    int64_t down, across, count;
    explicit TileGrid(const WinogradJob<T>& job)
        : down(ceil_div(job.p, Edge)), across(ceil_div(job.q, Edge)), count(job.n * down * across) {}
    TilePlace place(int64_t tile) const {
        return {tile / (across * down), tile / across % down * Edge, tile % across * Edge};
    }
};

// How a vector of the map is read: as it is, where its bit is set, or from its window where its bit is set.
enum class Reading { plain, masked, windows };

// The pixels of a tile whose first one is (y0, x0) of image n, and maybe lies outside.
template <class T, Reading How>
struct Pixels {
    const T* map;
    const std::uint8_t* bits;
    int64_t first;  // the element of the first pixel
    Pixels(const WinogradJob<T>& job, int64_t n, int64_t y0, int64_t x0)
        : map(job.map), bits(job.map_positive), first(((n * job.h + y0) * job.w + x0) * job.c) {}
    // The vector at channel c of pixel (i, j), which is element `at`.
    Vec<T> operator()(int64_t at, int, int, int64_t) const {
        const Vec<T> v = load(map + at);
        return How == Reading::masked ? where_bits<T>(bits, at, v) : v;
    }
};

template <class T>
struct Pixels<T, Reading::windows> {
    const T* map;
    const std::uint8_t* bits;
    int64_t first, window, column, row, y_odd, x_odd;
    Pixels(const WinogradJob<T>& job, int64_t n, int64_t y0, int64_t x0)
        : map(job.map),
          bits(job.map_positive),
          first(((n * job.h + y0) * job.w + x0) * job.c),
          window(((n * (job.h / 2) + (y0 >> 1)) * (job.w / 2) + (x0 >> 1)) * job.c),
          column(job.c),
          row(job.w / 2 * job.c),
          y_odd(y0 & 1),
          x_odd(x0 & 1) {}
    Vec<T> operator()(int64_t at, int i, int j, int64_t c) const {
        return where_bits<T>(bits, at, load(map + window + (y_odd + i) / 2 * row + (x_odd + j) / 2 * column + c));
    }
};

// Rows or columns of a map of `size` that can be read: an odd last one lies in no window.
template <Reading How>
inline int64_t readable(int64_t size) {
    return How == Reading::windows ? size / 2 * 2 : size;
}

// V of a group of MR tiles is [C / L][MR][L] a point, L channels to a cache line: a product reads it from end to end,
// where rows of C would be MR streams that no hardware follows.
template <class T>
constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));

// What becomes of a tile's pixels along an axis: `taken` of them are read, `in` points are made.
template <class T, int Edge>
struct InputPoints {
    static constexpr int taken = Winograd<T, Edge>::in, in = taken;
    static void of(const Vec<T>* d, int s, Vec<T>* o, int so) { Winograd<T, Edge>::input(d, s, o, so); }
};

// Where the points of a tile lie: planes of points, in them groups of `line` channels.
struct Room {
    int64_t plane, group;
};

// The points of channels c0 .. c0 + channels of the tile whose first pixel is (y0, x0) of image n; Inside: no part of
// it lies outside the map.
template <class T, class Side, Reading How, bool Inside>
void transform_tile(const WinogradJob<T>& job, int64_t n, int64_t y0, int64_t x0, int64_t c0, int64_t channels,
                    const Room room, T* to) {
    constexpr int N = Side::taken, in = Side::in;
    const int64_t h = readable<How>(job.h), w = readable<How>(job.w), column = job.c, row = job.w * job.c;
    const Pixels<T, How> pixels(job, n, y0, x0);
    for (int64_t c = 0; c < channels; c += lanes<T>) {
        Vec<T> e[in * N];
        int64_t top = pixels.first + c0 + c;
        for (int j = 0; j < N; j++, top += column) {
            Vec<T> d[N];
            int64_t at = top;
            for (int i = 0; i < N; i++, at += row) {
                const bool there = Inside || (y0 + i >= 0 && x0 + j >= 0 && y0 + i < h && x0 + j < w);
                d[i] = there ? pixels(at, i, j, c0 + c) : Vec<T>{};
            }
            Side::of(d, 1, e + j, N);
        }
        T* place = to + c / line<T> * room.group + c % line<T>;
        for (int i = 0; i < in; i++) {
            Vec<T> points[in];
            Side::of(e + i * N, 1, points, 1);
            for (int j = 0; j < in; j++, place += room.plane) store(place, points[j]);
        }
    }
}

template <class T, class Side, Reading How>
void transform_tile(const WinogradJob<T>& job, int64_t n, int64_t y, int64_t x, int64_t c0, int64_t channels,
                    const Room room, T* to) {
    const bool inside =
        y >= 0 && x >= 0 && y + Side::taken <= readable<How>(job.h) && x + Side::taken <= readable<How>(job.w);
    inside ? transform_tile<T, Side, How, true>(job, n, y, x, c0, channels, room, to)
           : transform_tile<T, Side, How, false>(job, n, y, x, c0, channels, room, to);
}

// The same with the map read as the job says.
template <class T, class Side>
void transform_tile(const WinogradJob<T>& job, int64_t n, int64_t y, int64_t x, int64_t c0, int64_t channels,
                    const Room room, T* to) {
    if (job.pooled == Pooled::map) transform_tile<T, Side, Reading::windows>(job, n, y, x, c0, channels, room, to);
    else if (job.map_positive) transform_tile<T, Side, Reading::masked>(job, n, y, x, c0, channels, room, to);
    else transform_tile<T, Side, Reading::plain>(job, n, y, x, c0, channels, room, to);
}

// V of a tile, from its first line in its group on, its points `plane` elements apart.
template <class T, int Edge>
void tile_in(const WinogradJob<T>& job, const TilePlace& at, T* v, int64_t plane) {
    transform_tile<T, InputPoints<T, Edge>>(job, at.n, at.y - job.top, at.x - job.left, 0, job.c,
                                            {plane, line<T> * Tile<T>::MR}, v);
}
// Whole lines are written together: halves could not be streamed.
template <class T>
constexpr int line_step = min_of<int>(line<T>, Tile<T>::NR);
template <class T>
constexpr int line_parts = line_step<T> / lanes<T>;

// The vectors of a line of outputs, half transformed: their columns are done, their rows are not.
template <class T, int Edge>
struct HalfDone {
    using F = Winograd<T, Edge>;
    Vec<T> e[line_parts<T>][F::out * F::in], bias[line_parts<T>];

    HalfDone(const T* m, const T* biases) {
        for (int part = 0; part < line_parts<T>; part++) {
            for (int j = 0; j < F::in; j++) {
                Vec<T> column[F::in];
                for (int i = 0; i < F::in; i++) column[i] = load(m + (i * F::in + j) * Tile<T>::NR + part * lanes<T>);
                F::output(column, 1, e[part] + j, F::in);
            }
            bias[part] = biases ? load(biases + part * lanes<T>) : Vec<T>{};
        }
    }
    // Row i of the outputs of a part.
    void row(int64_t i, int part, bool with_relu, Vec<T>* y) const {
        F::output(e[part] + i * F::in, 1, y, 1);
        for (int j = 0; j < F::out; j++) {
            const Vec<T> sum = y[j] + bias[part];
            y[j] = with_relu ? relu<T>(sum) : sum;
        }
    }
};

// The outputs of one tile, `channels` of them from k0 on, from its M [point][NR]; Whole: none lies beyond the result.
// stream: past the caches.
template <class T, int Edge, bool Whole>
void write_tile(const WinogradJob<T>& job, const TilePlace& at, const T* m, int64_t k0, int64_t channels, bool stream) {
    const int64_t rows = Whole ? Edge : min_of<int64_t>(Edge, job.p - at.y);
    const int64_t columns = Whole ? Edge : min_of<int64_t>(Edge, job.q - at.x);
    for (int64_t c = 0; c < channels; c += line_step<T>) {
        const HalfDone<T, Edge> half(m + c, job.bias ? job.bias + k0 + c : nullptr);
        for (int64_t i = 0; i < rows; i++) {
            Vec<T> row[line_parts<T>][Edge];
            for (int part = 0; part < line_parts<T>; part++) half.row(i, part, job.relu, row[part]);
            const int64_t to = ((at.n * job.p + at.y + i) * job.q + at.x) * job.k + k0 + c;
            for (int64_t j = 0; j < columns; j++)
                for (int part = 0; part < line_parts<T>; part++) {
                    const int64_t place = to + j * job.k + part * lanes<T>;
                    if (job.out_positive) store_bits<T>(job.out_positive, place, row[part][j]);
                    stream ? store_stream(job.out + place, row[part][j]) : store(job.out + place, row[part][j]);
                }
        }
    }
}

// The largest of the four vectors of a window, as max_pool2d finds it: the first of equal values, and the first NaN.
// own[i] becomes that value where element i is it, else 0.
template <class T>
inline Vec<T> largest(const Vec<T>* window, Vec<T>* own) {
    Vec<T> best = window[0];
    own[0] = best;
    for (int i = 1; i < 4; i++) {
        const auto wins = ~(window[i] <= best) & (best == best);
        best = wins ? window[i] : best;
        for (int before = 0; before < i; before++) own[before] = wins ? Vec<T>{} : own[before];
        own[i] = wins ? window[i] : Vec<T>{};
    }
    return best;
}

// The same with only the largest output of each whole window written.
template <class T, int Edge>
void write_windows(const WinogradJob<T>& job, const TilePlace& at, const T* m, int64_t k0, int64_t channels,
                   bool stream) {
    const int64_t p = job.p / 2, q = job.q / 2;
    const int64_t rows = min_of<int64_t>(Edge / 2, p - at.y / 2), columns = min_of<int64_t>(Edge / 2, q - at.x / 2);
    for (int64_t c = 0; c < channels; c += line_step<T>) {
        const HalfDone<T, Edge> half(m + c, job.bias ? job.bias + k0 + c : nullptr);
        for (int64_t i = 0; i < rows; i++) {
            Vec<T> row[2][line_parts<T>][Edge];
            for (int r = 0; r < 2; r++)
                for (int part = 0; part < line_parts<T>; part++) half.row(2 * i + r, part, job.relu, row[r][part]);
            T* to = job.out + ((at.n * p + at.y / 2 + i) * q + at.x / 2) * job.k + k0 + c;
            const int64_t first = ((at.n * job.p + at.y + 2 * i) * job.q + at.x) * job.k + k0 + c;
            for (int64_t j = 0; j < columns; j++)
                for (int part = 0; part < line_parts<T>; part++) {
                    const Vec<T>*upper = row[0][part] + 2 * j, *lower = row[1][part] + 2 * j;
                    const Vec<T> window[4] = {upper[0], upper[1], lower[0], lower[1]};
                    Vec<T> own[4];
                    const Vec<T> y = largest<T>(window, own);
                    T* place = to + j * job.k + part * lanes<T>;
                    stream ? store_stream(place, y) : store(place, y);
                    for (int tap = 0; job.out_positive && tap < 4; tap++)
                        store_bits<T>(job.out_positive,
                                      first + (tap / 2 * job.q + 2 * j + tap % 2) * job.k + part * lanes<T>, own[tap]);
                }
        }
    }
}

template <class T, int Edge>
void tile_out(const WinogradJob<T>& job, const TilePlace& at, const T* m, int64_t k0, int64_t channels, bool stream) {
    if (job.pooled == Pooled::out) return write_windows<T, Edge>(job, at, m, k0, channels, stream);
    const bool whole = at.y + Edge <= job.p && at.x + Edge <= job.q;
    whole ? write_tile<T, Edge, true>(job, at, m, k0, channels, stream)
          : write_tile<T, Edge, false>(job, at, m, k0, channels, stream);
}

// C[R][NR] (+)= V[R][depth] U[depth][NR] for R tiles of a group; its rows are ldc apart. Vectors: 1 where there are no
// more output channels than in a vector, half of NR.
template <class T, int R, int Vectors>
inline void group_product(const T* v, const T* u, int64_t depth, T* c, int64_t ldc, bool accumulate) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR, MR = Tile<T>::MR, L = line<T>, ahead = 4;
    Vec<T> sums[Vectors][R];
    for (int j = 0; j < Vectors; j++)
        for (int r = 0; r < R; r++) sums[j][r] = accumulate ? load(c + r * ldc + j * W) : Vec<T>{};
    for (int64_t k = 0; k < depth; k += L, v += MR * L) {
        for (int r = 0; r < R; r++) __builtin_prefetch(v + (ahead * MR + r) * L);
#pragma GCC unroll 4
        for (int i = 0; i < L; i++, u += NR) {
            Vec<T> of[Vectors];
            for (int j = 0; j < Vectors; j++) of[j] = load(u + j * W);
            for (int r = 0; r < R; r++)
                for (int j = 0; j < Vectors; j++) sums[j][r] += v[r * L + i] * of[j];
        }
    }
    for (int r = 0; r < R; r++)
        for (int j = 0; j < Vectors; j++) store(c + r * ldc + j * W, sums[j][r]);
}

template <class T, int Vectors, int R = Tile<T>::MR>
inline void group_rows(int64_t rows, const T* v, const T* u, int64_t depth, T* c, int64_t ldc, bool accumulate) {
    if constexpr (R > 0) {
        if (rows == R) group_product<T, R, Vectors>(v, u, depth, c, ldc, accumulate);
        else group_rows<T, Vectors, R - 1>(rows, v, u, depth, c, ldc, accumulate);
    }
}

// taps [9][rows][NR]: the weights of input channels row0 .. row0 + rows and one panel of output channels, zeros beyond
// k.
template <class T>
void pack_taps(const WinogradJob<T>& job, int64_t panel, int64_t row0, int64_t rows, T* taps) {
    constexpr int64_t NR = Tile<T>::NR;
    const int64_t k0 = panel * NR, count = min_of(NR, job.k - k0);
    for (int64_t i = 0; count < NR && i < 9 * rows * NR; i += lanes<T>) store(taps + i, Vec<T>{});
    for (int64_t t = 0; t < 9; t++) {
        T* to = taps + t * rows * NR;
        if (job.turned) {
            for (int64_t r = 0; r < rows; r++) {
                const T* from = job.weights + ((row0 + r) * 9 + 8 - t) * job.k + k0;
                for (int64_t j = 0; j < count; j++) to[r * NR + j] = from[j];
            }
        } else {
            for (int64_t j = 0; j < count; j += lanes<T>)
                for (int64_t r = 0; r < rows; r += lanes<T>)
                    transpose_square(job.weights + ((k0 + j) * 9 + t) * job.c + row0 + r, 9 * job.c, to + r * NR + j,
                                     NR);
        }
    }
}

// u [in][rows][NR], its points `plane` apart: row i of G g G^T for every pair of channels in taps.
template <class T, int Edge>
void transform_weights(const T* taps, int64_t rows, int i, T* u, int64_t plane) {
    using F = Winograd<T, Edge>;
    const T a = F::g[i][0], b = F::g[i][1], c = F::g[i][2];
    const int64_t step = rows * Tile<T>::NR;
    for (int64_t r = 0; r < step; r += lanes<T>) {
        Vec<T> half[3], o[F::in];
        for (int s = 0; s < 3; s++)
            half[s] = a * load(taps + s * step + r) + b * load(taps + (3 + s) * step + r) +
                      c * load(taps + (6 + s) * step + r);
        transform_filter<T, Edge>(half, o);
        for (int j = 0; j < F::in; j++) store(u + j * plane + r, o[j]);
    }
}

}  // namespace nst::NST_ISA_NS
