// Winograd convolution F(4x4, 3x3): 36 multiplications for 16 outputs, where the direct sum needs 144.
//
//   y = A^T [ (G g G^T) * (B^T d B) ] A        d: 6x6 inputs, g: 3x3 weights, y: 4x4 outputs, * element by element
//
// For each of the 36 points p the element-wise product over all channels is a matrix product:
//
//   V[p] (tiles x C)  x  U[p] (C x K)  =  M[p] (tiles x K)
//
// A thread takes a block of tiles through all three steps, a panel of output channels at a time. V and M are stored
// tile by tile, so that a transform touches one stretch of memory and not 36:
//
//   x --in--> V [tile][point][C]   --product with U[point] (C x NR)-->   M [tile][point][NR]   --out--> y
//             near L2, a block           once a block, from L3               near L2, a panel
//
// While a block is multiplied, the pixels of the thread's next one are fetched ahead.
// Points 0, +-1, +-2 and infinity. Source: Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
#include "../common/caches.h"
#include "../common/gemm_cpu.h"
#include "../common/parallel.h"
#include "../common/scratch.h"
#include "conv.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int in_edge = 6, out_edge = 4, points = in_edge * in_edge;

// Distance between the planes of two points: a plane of `count` elements, rounded up to 4 KiB plus one cache line, so
// that the 36 planes of a tile fall into different sets of the caches.
template <class T>
int64_t plane_stride(int64_t count) {
    constexpr int64_t page = 4096 / sizeof(T), line = 64 / sizeof(T);
    return ceil_div(count, page) * page + line;
}

// What is convolved: map (n, h, w, c) to out (n, p, q, k), both dense; `active` as in conv.h.
template <class T>
struct Job {
    const T* map;
    const T* active;
    const T* u;     // transformed weights, [point][panel][c][NR], points u_plane apart
    const T* bias;  // null, or padded to panels
    T* out;
    int64_t n, h, w, c, p, q, k, top, left;
    bool relu;

    int64_t tiles_down() const { return ceil_div(p, out_edge); }
    int64_t tiles_across() const { return ceil_div(q, out_edge); }
    int64_t tiles() const { return n * tiles_down() * tiles_across(); }
    int64_t panels() const { return ceil_div(k, Tile<T>::NR); }
    int64_t u_plane() const { return plane_stride<T>(panels() * c * Tile<T>::NR); }
};

struct Place {
    int64_t n, y, x;  // image, and the first output row and column of a tile
};

template <class T>
Place place_of(const Job<T>& job, int64_t tile) {
    const int64_t across = job.tiles_across(), down = job.tiles_down();
    return {tile / (across * down), tile / across % down * out_edge, tile % across * out_edge};
}

// o = B^T d, one column of six.
template <class V>
inline void transform_input(const V* d, int s, V* o, int so) {
    const V d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s], d5 = d[5 * s];
    const V even = d4 - 4 * d2, odd = d3 - 4 * d1, e = d4 - d2, f = 2 * (d3 - d1);
    o[0] = 4 * d0 - 5 * d2 + d4;
    o[so] = even + odd;
    o[2 * so] = even - odd;
    o[3 * so] = e + f;
    o[4 * so] = e - f;
    o[5 * so] = 4 * d1 - 5 * d3 + d5;
}

// o = A^T m, one column of six to four.
template <class V>
inline void transform_output(const V* m, int s, V* o, int so) {
    const V a = m[s] + m[2 * s], b = m[s] - m[2 * s], c = m[3 * s] + m[4 * s], d = m[3 * s] - m[4 * s];
    o[0] = m[0] + a + c;
    o[so] = b + 2 * d;
    o[2 * so] = a + 4 * c;
    o[3 * so] = b + 8 * d + m[5 * s];
}

// u[point] = G g G^T for one vector of output channels; taps: g as [9][NR].
template <class T>
void transform_weights(const T* taps, T* u, int64_t plane) {
    static constexpr T g[in_edge][3] = {{T(1) / 4, 0, 0},
                                        {T(-1) / 6, T(-1) / 6, T(-1) / 6},
                                        {T(-1) / 6, T(1) / 6, T(-1) / 6},
                                        {T(1) / 24, T(1) / 12, T(1) / 6},
                                        {T(1) / 24, T(-1) / 12, T(1) / 6},
                                        {0, 0, 1}};
    constexpr int NR = Tile<T>::NR;
    for (int i = 0; i < in_edge; i++) {
        Vec<T> half[3];
        for (int b = 0; b < 3; b++)
            half[b] = g[i][0] * load(taps + b * NR) + g[i][1] * load(taps + (3 + b) * NR) +
                      g[i][2] * load(taps + (6 + b) * NR);
        for (int j = 0; j < in_edge; j++)
            store(u + (i * in_edge + j) * plane, g[j][0] * half[0] + g[j][1] * half[1] + g[j][2] * half[2]);
    }
}

// One vector of the map; Masked: only where `active` is positive.
template <class T, bool Masked>
inline Vec<T> load_map(const Job<T>& job, int64_t at) {
    const Vec<T> v = load(job.map + at);
    if constexpr (Masked) return load(job.active + at) > Vec<T>{} ? v : Vec<T>{};
    return v;
}

// V of the tile whose first input is (y0, x0) of image n; Inside: no part of it lies outside the map.
template <class T, bool Masked, bool Inside>
void transform_tile(const Job<T>& job, int64_t n, int64_t y0, int64_t x0, T* v) {
    const int64_t first = ((n * job.h + y0) * job.w + x0) * job.c;
    for (int64_t c = 0; c < job.c; c += lanes<T>) {
        Vec<T> e[points];
        for (int j = 0; j < in_edge; j++) {
            Vec<T> d[in_edge];
            for (int i = 0; i < in_edge; i++) {
                const bool in = Inside || (y0 + i >= 0 && x0 + j >= 0 && y0 + i < job.h && x0 + j < job.w);
                d[i] = in ? load_map<T, Masked>(job, first + (i * job.w + j) * job.c + c) : Vec<T>{};
            }
            transform_input(d, 1, e + j, in_edge);
        }
        for (int i = 0; i < in_edge; i++) {
            Vec<T> row[in_edge];
            transform_input(e + i * in_edge, 1, row, 1);
            for (int j = 0; j < in_edge; j++) store(v + (i * in_edge + j) * job.c + c, row[j]);
        }
    }
}

template <class T>
void tile_in(const Job<T>& job, int64_t tile, T* v) {
    const Place at = place_of(job, tile);
    const int64_t y = at.y - job.top, x = at.x - job.left;
    const bool inside = y >= 0 && x >= 0 && y + in_edge <= job.h && x + in_edge <= job.w;
    if (job.active)
        inside ? transform_tile<T, true, true>(job, at.n, y, x, v) : transform_tile<T, true, false>(job, at.n, y, x, v);
    else
        inside ? transform_tile<T, false, true>(job, at.n, y, x, v)
               : transform_tile<T, false, false>(job, at.n, y, x, v);
}

// 4x4 outputs of one tile, `channels` of them from k0 on, from its M; stream: past the caches.
template <class T>
void tile_out(const Job<T>& job, int64_t tile, const T* m, int64_t k0, int64_t channels, bool stream) {
    constexpr int W = lanes<T>;
    const Place at = place_of(job, tile);
    const int64_t rows = min_of<int64_t>(out_edge, job.p - at.y), columns = min_of<int64_t>(out_edge, job.q - at.x);
    for (int64_t c = 0; c < channels; c += W) {
        Vec<T> e[out_edge * in_edge];
        for (int j = 0; j < in_edge; j++) {
            Vec<T> column[in_edge];
            for (int i = 0; i < in_edge; i++) column[i] = load(m + (i * in_edge + j) * Tile<T>::NR + c);
            transform_output(column, 1, e + j, in_edge);
        }
        const Vec<T> bias = job.bias ? load(job.bias + k0 + c) : Vec<T>{};
        for (int64_t i = 0; i < rows; i++) {
            Vec<T> row[out_edge];
            transform_output(e + i * in_edge, 1, row, 1);
            T* to = job.out + ((at.n * job.p + at.y + i) * job.q + at.x) * job.k + k0 + c;
            for (int64_t j = 0; j < columns; j++) {
                const Vec<T> sum = row[j] + bias, y = job.relu ? relu<T>(sum) : sum;
                stream ? store_stream(to + j * job.k, y) : store(to + j * job.k, y);
            }
        }
    }
}

// Tiles of a block. Few keep V and M near L2; where the weights are large, more tiles a block hide that U comes from
// L3. Every thread should get as many blocks as every other.
template <class T>
int64_t block_tiles(const Job<T>& job) {
    constexpr int64_t MR = Tile<T>::MR, few = 28 / MR * MR, many = 112 / MR * MR;
    const bool large = job.u_plane() * points * static_cast<int64_t>(sizeof(T)) > 16 * l2_bytes();
    const int64_t most = large ? many : few, tiles = job.tiles(), threads = num_threads();
    const int64_t rounds = ceil_div(tiles, most * threads);
    return max_of(MR, min_of(most, ceil_div(ceil_div(tiles, rounds * threads), MR) * MR));
}

// Asks for the part of x that only this tile (and those below it) reads: 4 rows of 4 pixels.
template <class T>
void fetch_ahead(const Job<T>& job, int64_t tile) {
    const Place at = place_of(job, tile);
    const int64_t y0 = at.y - job.top + 2, x0 = at.x - job.left + 2;
    const int64_t columns = min_of<int64_t>(out_edge, job.w - x0);
    for (int64_t y = max_of<int64_t>(0, y0); y < min_of(y0 + out_edge, job.h) && x0 >= 0; y++) {
        const char* row = reinterpret_cast<const char*>(job.map + ((at.n * job.h + y) * job.w + x0) * job.c);
        for (int64_t b = 0; b < columns * job.c * static_cast<int64_t>(sizeof(T)); b += 64)
            __builtin_prefetch(row + b, 0, 2);
    }
}

template <class T>
void run(const Job<T>& job) {
    constexpr int64_t NR = Tile<T>::NR, pad = 64 / sizeof(T);  // keeps tiles out of each other's cache sets
    const int64_t most = block_tiles(job), tiles = job.tiles(), panels = job.panels(), u_plane = job.u_plane();
    const int64_t v_tile = points * job.c + pad, m_tile = points * NR + pad, room = most * (v_tile + m_tile);
    const bool stream = can_stream(job.out, job.tiles() * out_edge * out_edge * job.k, job.k);
    Scratch<T> rooms(num_threads() * room);
    parallel_for(ceil_div(tiles, most), [&](int64_t block, int thread) {
        T *v = rooms.get() + thread * room, *m = v + most * v_tile;
        const int64_t t0 = block * most, count = min_of(most, tiles - t0);
        const int64_t next = t0 + num_threads() * most, ahead = max_of<int64_t>(0, min_of(most, tiles - next));
        for (int64_t t = 0; t < count; t++) tile_in(job, t0 + t, v + t * v_tile);
        for (int64_t j = 0; j < panels; j++) {
            for (int64_t p = 0; p < points; p++) {
                if (j == 0)
                    for (int64_t t = p * ahead / points; t < (p + 1) * ahead / points; t++) fetch_ahead(job, next + t);
                rows_product<T>(count, NR, v + p * job.c, v_tile, job.u + p * u_plane + j * job.c * NR, job.c,
                                m + p * NR, m_tile, false);
            }
            const int64_t channels = min_of(NR, job.k - j * NR);
            for (int64_t t = 0; t < count; t++) tile_out(job, t0 + t, m + t * m_tile, j * NR, channels, stream);
        }
        if (stream) stream_end();
    });
}

// u[point][panel][row][NR] for rows input and `columns` output channels; tap(t, row, column) is a weight.
template <class T, class Tap>
void pack_weights(int64_t rows, int64_t columns, T* u, const Tap& tap) {
    constexpr int64_t NR = Tile<T>::NR;
    const int64_t panels = ceil_div(columns, NR), plane = plane_stride<T>(panels * rows * NR);
    parallel_for(panels * rows, [&](int64_t job, int) {
        const int64_t panel = job / rows, row = job % rows;
        T taps[9 * NR];
        for (int64_t j = 0; j < NR; j++)
            for (int64_t t = 0; t < 9; t++)
                taps[t * NR + j] = panel * NR + j < columns ? tap(t, row, panel * NR + j) : T(0);
        for (int64_t j = 0; j < NR; j += lanes<T>) transform_weights(taps + j, u + job * NR + j, plane);
    });
}

}  // namespace

template <class T>
void conv2d_forward_winograd_weights_cpu(const T* w, const ConvShape& s, T* u) {
    pack_weights(s.c, s.k, u,
                 [&](int64_t tap, int64_t row, int64_t column) { return w[(column * 9 + tap) * s.c + row]; });
}

template <class T>
void conv2d_backward_winograd_weights_cpu(const T* w, const ConvShape& s, T* u) {
    pack_weights(s.k, s.c, u,
                 [&](int64_t tap, int64_t row, int64_t column) { return w[(row * 9 + 8 - tap) * s.c + column]; });
}

template <class T>
void conv2d_forward_winograd_cpu(const T* x, const T* u, const T* bias, const ConvShape& s, bool relu, T* y) {
    const int64_t padded = ceil_div(s.k, Tile<T>::NR) * Tile<T>::NR;
    Scratch<T> wide(padded);
    for (int64_t j = 0; j < padded; j++) wide.get()[j] = bias && j < s.k ? bias[j] : T(0);
    run<T>({x, nullptr, u, wide.get(), y, s.n, s.h, s.w, s.c, s.p, s.q, s.k, s.pad_top, s.pad_left, relu});
}

template <class T>
void conv2d_backward_winograd_cpu(const T* dy, const T* active, const T* u, const ConvShape& s, T* dx) {
    run<T>({dy, active, u, nullptr, dx, s.n, s.p, s.q, s.k, s.h, s.w, s.c, 2 - s.pad_top, 2 - s.pad_left, false});
}

#define NST_INSTANTIATE(T)                                                                                  \
    template void conv2d_forward_winograd_weights_cpu<T>(const T*, const ConvShape&, T*);                   \
    template void conv2d_backward_winograd_weights_cpu<T>(const T*, const ConvShape&, T*);                  \
    template void conv2d_forward_winograd_cpu<T>(const T*, const T*, const T*, const ConvShape&, bool, T*); \
    template void conv2d_backward_winograd_cpu<T>(const T*, const T*, const T*, const ConvShape&, T*);
NST_INSTANTIATE(float)
NST_INSTANTIATE(double)

}  // namespace nst::NST_ISA_NS
