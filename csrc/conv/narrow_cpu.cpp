// Convolution of maps with few channels, a network's first layer: see narrow_cpu.h.
//
// Forward. The rows of x under a band of results are copied once, with their padding. A patch's tap row then is a
// stretch of memory that the next position shares but for stride x c elements, and the product reads it where it lies:
//
//   padded row  |r g b r g b r g b r g b ...        position q reads s c elements from q stride c on, for each tap row
//
// Gradient of the input, stride 1. A few neighbouring pixels of dx at a time; every sum runs over the k of dy in
// vectors, whose lanes are added up at the end:
//
//   dx[y][x..x+3][:]  +=  dy[y + ph - r][x + pw - s ..][k..k+W]  *  w[r][s][:][k..k+W]
//
// Gradient of the input, any stride. dy row (q x k) x weights (k x r s c) = parts (q x r s c), each added to dx where
// its tap lies. A job is a band of dx's rows: it computes the parts of every dy row that reaches into the band, and
// adds those that fall inside. An element of dx is summed over the rows of dy in their order, whatever the bands.
#include "narrow_cpu.h"

#include "../common/gemm_cpu.h"
#include "../common/parallel.h"
#include "../common/scratch.h"
#include "../common/transpose.h"
#include "gather_cpu.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int64_t forward_band = 4, backward_band = 16;  // rows of y, of dx
constexpr int group = 4;                                 // pixels of dx that share the weights in registers

// Where a tile of y gets its numbers: positions `step` apart in padded rows `ld` apart; `rows` tap rows of `span`.
template <class T>
struct Source {
    const T* padded;
    int64_t step, ld, rows, span;
};

// Where they go: rows of y `ld` apart, from element `at` on; bits: null, or those of y, when ld is a multiple of 8.
template <class T>
struct Sink {
    T* y;
    std::uint8_t* bits;
    int64_t at, ld;
    bool stream;
};

// R positions x the outputs of `Vectors` vectors, of which `cols` exist.
template <class T, int R, int Vectors>
inline void position_tile(const Source<T>& x, const T* panel, const Epilogue<T>& end, int cols, const Sink<T>& to) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    Vec<T> sums[Vectors][R];
    for (int v = 0; v < Vectors; v++)
        for (int i = 0; i < R; i++) sums[v][i] = Vec<T>{};
    for (int64_t r = 0; r < x.rows; r++)
        for (int64_t j = 0; j < x.span; j++, panel += NR) {
            Vec<T> weights[Vectors];
            for (int v = 0; v < Vectors; v++) weights[v] = load(panel + v * W);
            const T* a = x.padded + r * x.ld + j;
            for (int i = 0; i < R; i++)
                for (int v = 0; v < Vectors; v++) sums[v][i] += a[i * x.step] * weights[v];
        }
    T edge[NR];
    for (int i = 0; i < R; i++) {
        const int64_t at = to.at + i * to.ld;
        for (int v = 0; v < Vectors; v++) {
            const Vec<T> sum = sums[v][i] + load(end.bias + v * W), y = end.relu ? relu<T>(sum) : sum;
            if (cols < Vectors * W) {
                store(edge + v * W, y);
                continue;
            }
            to.stream ? store_stream(to.y + at + v * W, y) : store(to.y + at + v * W, y);
            if (to.bits) store_bits<T>(to.bits, at + v * W, y);
        }
        if (cols == Vectors * W) continue;
        for (int j = 0; j < cols; j++) to.y[at + j] = edge[j];
        if (to.bits) write_bits(to.y, at, cols, to.bits);
    }
}

template <class T, int Vectors, int R = Tile<T>::MR>
inline void positions(int64_t count, const Source<T>& x, const T* panel, const Epilogue<T>& end, int cols,
                      const Sink<T>& to) {
    if constexpr (R > 0) {
        if (count == R) position_tile<T, R, Vectors>(x, panel, end, cols, to);
        else positions<T, Vectors, R - 1>(count, x, panel, end, cols, to);
    }
}

// dx row y += what tap row r of the parts of one dy row contributes; parts: (q, ld).
template <class T>
void add_tap_row(const T* parts, int64_t ld, const ConvShape& s, int64_t r, T* row) {
    const int64_t span = s.s * s.c;  // elements that one position adds, contiguous in the row
    for (int64_t q = 0; q < s.q; q++) {
        const int64_t at = (q * s.stride_w - s.pad_left) * s.c;
        const int64_t first = max_of<int64_t>(0, -at), last = min_of(span, s.w * s.c - at);
        const T* part = parts + q * ld + r * span;
        for (int64_t i = first; i < last; i++) row[at + i] += part[i];
    }
}

template <class T>
void any_stride(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s, T* dx) {
    constexpr int64_t NR = Tile<T>::NR;
    const int64_t depth = s.r * s.s * s.c, panels = ceil_div(depth, NR), wide = panels * NR;
    const int64_t bands = ceil_div(s.h, backward_band), room = s.q * (wide + s.k);
    Scratch<T> packed(s.k * wide), rooms(num_threads() * room);
    pack_panels(w, depth, 1, s.k, depth, packed.get());
    parallel_for(s.n * bands, [&](int64_t job, int thread) {
        const int64_t n = job / bands, y0 = job % bands * backward_band, y1 = min_of(s.h, y0 + backward_band);
        T *parts = rooms.get() + thread * room, *row = parts + s.q * wide, *image = dx + n * s.h * s.w * s.c;
        fill_zero(image + y0 * s.w * s.c, (y1 - y0) * s.w * s.c);
        for (int64_t p = 0; p < s.p; p++) {
            const int64_t top = p * s.stride_h - s.pad_top;  // the dx row of tap row 0
            if (top + s.r <= y0 || top >= y1) continue;
            copy_where(dy, positive, (n * s.p + p) * s.q * s.k, s.q * s.k, row);
            for (int64_t j = 0; j < panels; j++)
                rows_product<T>(s.q, NR, row, s.k, packed.get() + j * s.k * NR, s.k, parts + j * NR, wide, false);
            for (int64_t r = max_of<int64_t>(0, y0 - top); r < min_of(s.r, y1 - top); r++)
                add_tap_row(parts, wide, s, r, image + (top + r) * s.w * s.c);
        }
    });
}

// out[i] = the sum of the lanes of sums[i].
template <class T>
inline void add_lanes(const Vec<T>* sums, int count, T* out) {
    constexpr int W = lanes<T>;
    for (int first = 0; first < count; first += W) {
        Vec<T> rows[W];
        for (int i = 0; i < W; i++) rows[i] = first + i < count ? sums[first + i] : Vec<T>{};
        sum_rows<T>(rows);
        for (int i = 0; i < W && first + i < count; i++) out[first + i] = rows[0][i];
    }
}

// The rows of dy, where they lie or, masked, in a ring that holds as many as a pixel of dx meets.
template <class T>
struct Rows {
    const T* base;
    int64_t size, ring;  // elements of a row; rows of the ring, or 0
    const T* at(int64_t p) const { return base + (ring ? p % ring : p) * size; }
};

// dx[x0 .. x0 + group) of row y; Inside: every tap of every pixel meets a column of dy. packed: (r, s, c, k).
template <class T, int C, bool Inside>
inline void pixel_group(const Rows<T>& dy, const T* packed, const ConvShape& s, int64_t y, int64_t x0, T* out) {
    Vec<T> sums[group * C];
    for (int i = 0; i < group * C; i++) sums[i] = Vec<T>{};  // an initialiser would be a call of memset
    for (int64_t r = max_of<int64_t>(0, y + s.pad_top - s.p + 1); r < min_of(s.r, y + s.pad_top + 1); r++) {
        const T* row = dy.at(y + s.pad_top - r);
        for (int64_t k = 0; k < s.k; k += lanes<T>)
            for (int64_t tap = 0; tap < s.s; tap++) {
                const T* weights = packed + (r * s.s + tap) * C * s.k + k;
                for (int g = 0; g < group; g++) {
                    const int64_t q = x0 + g + s.pad_left - tap;
                    if (!Inside && (q < 0 || q >= s.q)) continue;
                    const Vec<T> v = load(row + q * s.k + k);
                    for (int c = 0; c < C; c++) sums[g * C + c] += v * load(weights + c * s.k);
                }
            }
    }
    add_lanes(sums, group * C, out);
}

template <class T, int C>
void stride_one(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s, T* dx) {
    const int64_t taps = s.r * s.s * C, bands = ceil_div(s.h, backward_band), size = s.q * s.k, ring = s.r * size;
    Scratch<T> packed(taps * s.k), rings(positive ? num_threads() * ring : 0);
    for (int64_t k = 0; k < s.k; k++)
        for (int64_t t = 0; t < taps; t++) packed.get()[t * s.k + k] = w[k * taps + t];
    parallel_for(s.n * bands, [&](int64_t job, int thread) {
        const int64_t n = job / bands, y0 = job % bands * backward_band, y1 = min_of(s.h, y0 + backward_band);
        T* masked = rings.get() + thread * ring;  // so that each element is masked once, not at each of its taps
        const Rows<T> rows{positive ? masked : dy + n * s.p * size, size, positive ? s.r : 0};
        int64_t next = max_of<int64_t>(0, y0 + s.pad_top - s.r + 1);  // row of dy that goes into the ring
        for (int64_t y = y0; y < y1; y++) {
            for (; positive && next < min_of(s.p, y + s.pad_top + 1); next++)
                copy_where(dy, positive, (n * s.p + next) * size, size, masked + next % s.r * size);
            for (int64_t x = 0; x < s.w; x += group) {
                T out[group * C];
                const bool inside = x + s.pad_left - (s.s - 1) >= 0 && x + group - 1 + s.pad_left < s.q;
                inside ? pixel_group<T, C, true>(rows, packed.get(), s, y, x, out)
                       : pixel_group<T, C, false>(rows, packed.get(), s, y, x, out);
                std::memcpy(dx + ((n * s.h + y) * s.w + x) * C, out,
                            static_cast<std::size_t>(min_of<int64_t>(group, s.w - x) * C) * sizeof(T));
            }
        }
    });
}

}  // namespace

template <class T>
void forward_narrow(const T* x, const T* w, const T* bias, const ConvShape& s, bool relu, T* y,
                    std::uint8_t* positive) {
    constexpr int64_t NR = Tile<T>::NR, MR = Tile<T>::MR;
    const int64_t depth = s.r * s.s * s.c, panels = ceil_div(s.k, NR), bands = ceil_div(s.p, forward_band);
    const int64_t ld = ((s.q - 1) * s.stride_w + s.s) * s.c, rows = (min_of(s.p, forward_band) - 1) * s.stride_h + s.r;
    const bool stream = can_stream(y, s.n * s.p * s.q * s.k, s.k) && s.k % NR == 0;
    Scratch<T> packed(panels * depth * NR), rooms(num_threads() * rows * ld);
    pack_panels(w, 1, depth, depth, s.k, packed.get());
    const Patches<T> wide{x, nullptr, s.h, s.w, s.c, 1, 1, 1, ld / s.c, 1, 1, 0, 0};  // a padded row is one tap row
    parallel_for(s.n * bands, [&](int64_t job, int thread) {
        const int64_t n = job / bands, p0 = job % bands * forward_band, p1 = min_of(s.p, p0 + forward_band);
        T* padded = rooms.get() + thread * rows * ld;
        for (int64_t i = 0; i < (p1 - p0 - 1) * s.stride_h + s.r; i++)
            gather_tap_row(wide, n, p0 * s.stride_h - s.pad_top + i, -s.pad_left, 0, ld, padded + i * ld);
        for (int64_t p = p0; p < p1; p++)
            for (int64_t q = 0; q < s.q; q += MR) {
                const int64_t at = ((n * s.p + p) * s.q + q) * s.k;
                const Source<T> from{padded + (p - p0) * s.stride_h * ld + q * s.stride_w * s.c, s.stride_w * s.c, ld,
                                     s.r, s.s * s.c};
                for (int64_t j = 0; j < panels; j++) {
                    const int cols = static_cast<int>(min_of(NR, s.k - j * NR));
                    const T* panel = packed.get() + j * depth * NR;
                    const Epilogue<T> end{bias + j * NR, relu};
                    const Sink<T> to{y, s.k % 8 == 0 ? positive : nullptr, at + j * NR, s.k, stream};
                    cols <= lanes<T> ? positions<T, 1>(min_of(MR, s.q - q), from, panel, end, cols, to)
                                     : positions<T, 2>(min_of(MR, s.q - q), from, panel, end, cols, to);
                }
            }
        if (stream) stream_end();
    });
    if (positive && s.k % 8) write_bits(y, 0, s.n * s.p * s.q * s.k, positive);
}

template <class T>
void backward_input_narrow(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s, T* dx) {
    const bool plain = s.stride_h == 1 && s.stride_w == 1 && s.k % max_of<int64_t>(8, lanes<T>) == 0;
    if (plain && s.c == 3) return stride_one<T, 3>(dy, positive, w, s, dx);
    any_stride(dy, positive, w, s, dx);
}

#define NST_INSTANTIATE(T)                                                                                    \
    template void forward_narrow<T>(const T*, const T*, const T*, const ConvShape&, bool, T*, std::uint8_t*); \
    template void backward_input_narrow<T>(const T*, const std::uint8_t*, const T*, const ConvShape&, T*);
NST_INSTANTIATE(float)
NST_INSTANTIATE(double)

}  // namespace nst::NST_ISA_NS
