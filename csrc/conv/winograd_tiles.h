// Tiles of a Winograd convolution: from the map to V, from M to the result, from the weights to U.
#pragma once

#include <cstdint>

#include "../common/gemm_cpu.h"
#include "../common/transpose.h"
#include "winograd_transforms.h"

namespace nst::NST_ISA_NS {

// What is convolved: map (n, h, w, c) to out (n, p, q, k), both dense, c and k multiples of winograd_channels.
template <class T>
struct WinogradJob {
    const T* map;
    const std::uint8_t* map_positive;  // null, or a bit an element of the map: where it is 0 the map counts as 0
    const T* weights;                  // (k, 3, 3, c); turned: (c, 3, 3, k), read from the last tap to the first
    bool turned;
    const T* bias;  // null, or padded to panels
    T* out;
    std::uint8_t* out_positive;  // null, or gets a bit an element of the result: whether it is above 0
    int64_t n, h, w, c, p, q, k, top, left;
    bool relu;

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

// One vector of the map; Masked: only where its bit is set.
template <class T, bool Masked>
inline Vec<T> load_map(const WinogradJob<T>& job, int64_t at) {
    const Vec<T> v = load(job.map + at);
    if constexpr (Masked) return where_bits<T>(job.map_positive, at, v);
    return v;
}

// V of a group of MR tiles is [C / L][MR][L] a point, L channels to a cache line: a product reads it from end to end,
// where rows of C would be MR streams that no hardware follows.
template <class T>
constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));

// V of the tile whose first input is (y0, x0) of image n, from its first line in its group on, its points `plane`
// elements apart; Inside: no part of it lies outside the map.
template <class T, int Edge, bool Masked, bool Inside>
void transform_tile(const WinogradJob<T>& job, int64_t n, int64_t y0, int64_t x0, T* v, int64_t plane) {
    using F = Winograd<T, Edge>;
    const int64_t first = ((n * job.h + y0) * job.w + x0) * job.c;
    for (int64_t c = 0; c < job.c; c += lanes<T>) {
        Vec<T> e[F::points];
        for (int j = 0; j < F::in; j++) {
            Vec<T> d[F::in];
            for (int i = 0; i < F::in; i++) {
                const bool in = Inside || (y0 + i >= 0 && x0 + j >= 0 && y0 + i < job.h && x0 + j < job.w);
                d[i] = in ? load_map<T, Masked>(job, first + (i * job.w + j) * job.c + c) : Vec<T>{};
            }
            F::input(d, 1, e + j, F::in);
        }
        for (int i = 0; i < F::in; i++) {
            Vec<T> row[F::in];
            F::input(e + i * F::in, 1, row, 1);
            for (int j = 0; j < F::in; j++)
                store(v + (i * F::in + j) * plane + c / line<T> * line<T> * Tile<T>::MR + c % line<T>, row[j]);
        }
    }
}

template <class T, int Edge>
void tile_in(const WinogradJob<T>& job, const TilePlace& at, T* v, int64_t plane) {
    constexpr int in = Winograd<T, Edge>::in;
    const int64_t y = at.y - job.top, x = at.x - job.left;
    const bool inside = y >= 0 && x >= 0 && y + in <= job.h && x + in <= job.w;
    if (job.map_positive)
        inside ? transform_tile<T, Edge, true, true>(job, at.n, y, x, v, plane)
               : transform_tile<T, Edge, true, false>(job, at.n, y, x, v, plane);
    else
        inside ? transform_tile<T, Edge, false, true>(job, at.n, y, x, v, plane)
               : transform_tile<T, Edge, false, false>(job, at.n, y, x, v, plane);
}

// The outputs of one tile, `channels` of them from k0 on, from its M [point][NR]; Whole: none lies beyond the result.
// stream: past the caches.
template <class T, int Edge, bool Whole>
void write_tile(const WinogradJob<T>& job, const TilePlace& at, const T* m, int64_t k0, int64_t channels, bool stream) {
    using F = Winograd<T, Edge>;
    const int64_t rows = Whole ? F::out : min_of<int64_t>(F::out, job.p - at.y);
    const int64_t columns = Whole ? F::out : min_of<int64_t>(F::out, job.q - at.x);
    constexpr int W = lanes<T>, step = min_of<int>(line<T>, Tile<T>::NR);  // whole lines: halves could not be streamed
    for (int64_t c = 0; c < channels; c += step) {
        Vec<T> e[step / W][F::out * F::in], bias[step / W];
        for (int part = 0; part < step / W; part++) {
            for (int j = 0; j < F::in; j++) {
                Vec<T> column[F::in];
                for (int i = 0; i < F::in; i++) column[i] = load(m + (i * F::in + j) * Tile<T>::NR + c + part * W);
                F::output(column, 1, e[part] + j, F::in);
            }
            bias[part] = job.bias ? load(job.bias + k0 + c + part * W) : Vec<T>{};
        }
        for (int64_t i = 0; i < rows; i++) {
            Vec<T> row[step / W][F::out];
            for (int part = 0; part < step / W; part++) F::output(e[part] + i * F::in, 1, row[part], 1);
            const int64_t to = ((at.n * job.p + at.y + i) * job.q + at.x) * job.k + k0 + c;
            for (int64_t j = 0; j < columns; j++)
                for (int part = 0; part < step / W; part++) {
                    const Vec<T> sum = row[part][j] + bias[part], y = job.relu ? relu<T>(sum) : sum;
                    const int64_t place = to + j * job.k + part * W;
                    if (job.out_positive) store_bits<T>(job.out_positive, place, y);
                    stream ? store_stream(job.out + place, y) : store(job.out + place, y);
                }
        }
    }
}

template <class T, int Edge>
void tile_out(const WinogradJob<T>& job, const TilePlace& at, const T* m, int64_t k0, int64_t channels, bool stream) {
    const bool whole = at.y + Edge <= job.p && at.x + Edge <= job.q;
    whole ? write_tile<T, Edge, true>(job, at, m, k0, channels, stream)
          : write_tile<T, Edge, false>(job, at, m, k0, channels, stream);
}

// C[R][NR] (+)= V[R][depth] U[depth][NR] for R tiles of a group; its rows are ldc apart.
template <class T, int R>
inline void group_product(const T* v, const T* u, int64_t depth, T* c, int64_t ldc, bool accumulate) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR, MR = Tile<T>::MR, L = line<T>, ahead = 4;
    Vec<T> c0[R], c1[R];
    for (int r = 0; r < R; r++) {
        c0[r] = accumulate ? load(c + r * ldc) : Vec<T>{};
        c1[r] = accumulate ? load(c + r * ldc + W) : Vec<T>{};
    }
    for (int64_t k = 0; k < depth; k += L, v += MR * L) {
        for (int r = 0; r < R; r++) __builtin_prefetch(v + (ahead * MR + r) * L);
#pragma GCC unroll 4
        for (int i = 0; i < L; i++, u += NR) {
            const Vec<T> u0 = load(u), u1 = load(u + W);
            for (int r = 0; r < R; r++) {
                const T s = v[r * L + i];
                c0[r] += s * u0;
                c1[r] += s * u1;
            }
        }
    }
    for (int r = 0; r < R; r++) {
        store(c + r * ldc, c0[r]);
        store(c + r * ldc + W, c1[r]);
    }
}

template <class T, int R = Tile<T>::MR>
inline void group_rows(int64_t rows, const T* v, const T* u, int64_t depth, T* c, int64_t ldc, bool accumulate) {
    if constexpr (R > 0) {
        if (rows == R) group_product<T, R>(v, u, depth, c, ldc, accumulate);
        else group_rows<T, R - 1>(rows, v, u, depth, c, ldc, accumulate);
    }
}

// Zeros in a square as wide as a vector.
template <class T>
inline void fill_block(T* to, int64_t ld) {
    for (int r = 0; r < lanes<T>; r++) store(to + r * ld, Vec<T>{});
}

// taps [9][rows][NR]: the weights of input channels row0 .. row0 + rows and one panel of output channels, zeros beyond
// k.
template <class T>
void pack_taps(const WinogradJob<T>& job, int64_t panel, int64_t row0, int64_t rows, T* taps) {
    constexpr int64_t NR = Tile<T>::NR;
    const int64_t k0 = panel * NR, count = min_of(NR, job.k - k0);
    for (int64_t t = 0; t < 9; t++) {
        T* to = taps + t * rows * NR;
        if (job.turned) {
            for (int64_t r = 0; r < rows; r++) {
                const T* from = job.weights + ((row0 + r) * 9 + 8 - t) * job.k + k0;
                for (int64_t j = 0; j < NR; j++) to[r * NR + j] = j < count ? from[j] : T(0);
            }
        } else {
            for (int64_t j = 0; j < NR; j += lanes<T>)
                for (int64_t r = 0; r < rows; r += lanes<T>)
                    if (j < count)
                        transpose_square(job.weights + ((k0 + j) * 9 + t) * job.c + row0 + r, 9 * job.c,
                                         to + r * NR + j, NR);
                    else fill_block(to + r * NR + j, NR);
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
        F::weights(half[0], half[1], half[2], o);
        for (int j = 0; j < F::in; j++) store(u + j * plane + r, o[j]);
    }
}

}  // namespace nst::NST_ISA_NS
