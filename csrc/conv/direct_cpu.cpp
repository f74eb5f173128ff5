// Direct convolution as a product of patches and weights, for any kernel size, stride and padding.
//
//      depth (r, s, c), in chunks
//     +--------+--------+
//     | tile   |        |  x  weights packed in [chunk][panel][depth]
//     +--------+--------+
//     a block of positions    -> y, panel by panel
//
// A block's tile is gathered into the thread's own memory (it stays in its L2) and multiplied with every panel.
// The gradient of the input is the same product over dy: for stride s, the inputs split into s x s phases, and each
// phase is a stride-1 convolution of dy with the weights' taps of that phase, in reverse order.
#include "../common/gemm_cpu.h"
#include "../common/parallel.h"
#include "../common/scratch.h"
#include "conv.h"
#include "gather_cpu.h"
#include "narrow_cpu.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int64_t chunk_depth = 512;  // MR rows of a tile of this depth fit L1, a panel of it a quarter of L2

// Positions of a block: whole tiles, and a multiple of 8, so that the bits of every block begin a byte.
template <class T>
constexpr int64_t block_rows = Tile<T>::MR == 14 ? 112 : 96;

// Where the product's rows go: position (n, i, j) to out[n][i step_h + first_h][j step_w + first_w][:].
template <class T>
struct Target {
    T* out;
    int64_t h, w, c;
    int64_t step_h, step_w, first_h, first_w;

    bool dense() const { return step_h == 1 && step_w == 1; }
};

// Packs the weights as [chunk][panel][depth][NR]; row(k, n0, count, to) writes B(k, n0 .. n0 + count).
template <class T, class Row>
void pack_weights(int64_t depth, int64_t cols, T* packed, const Row& row) {
    constexpr int NR = Tile<T>::NR;
    const int64_t panels = ceil_div(cols, NR);
    parallel_for(panels * ceil_div(depth, chunk_depth), [&](int64_t job, int) {
        const int64_t k0 = job / panels * chunk_depth, k1 = min_of(depth, k0 + chunk_depth), n0 = job % panels * NR;
        const int64_t count = min_of<int64_t>(NR, cols - n0);
        T* to = packed + k0 * panels * NR + job % panels * (k1 - k0) * NR;
        for (int64_t k = k0; k < k1; k++, to += NR) {
            row(k, n0, count, to);
            for (int64_t j = count; j < NR; j++) to[j] = T(0);
        }
    });
}

template <class T>
void scatter(const Patches<T>& g, const Target<T>& target, int64_t m0, int64_t rows, const T* tile) {
    for (int64_t m = 0; m < rows; m++) {
        const int64_t j = (m0 + m) % g.grid_w, i = (m0 + m) / g.grid_w % g.grid_h, n = (m0 + m) / (g.grid_w * g.grid_h);
        const int64_t y = i * target.step_h + target.first_h, x = j * target.step_w + target.first_w;
        std::memcpy(target.out + ((n * target.h + y) * target.w + x) * target.c, tile + m * target.c,
                    static_cast<std::size_t>(target.c) * sizeof(T));
    }
}

// out = patches x packed weights, plus bias (padded to panels), then ReLU; bits: null, or those of out, which is dense.
template <class T>
void multiply_patches(const Patches<T>& g, int64_t images, const T* packed, const T* bias, bool relu, Target<T> target,
                      std::uint8_t* bits) {
    constexpr int NR = Tile<T>::NR;
    constexpr int64_t most = block_rows<T>;
    const int64_t depth = g.depth(), cols = target.c, panels = ceil_div(cols, NR);
    const int64_t positions = images * g.grid_h * g.grid_w, tile_size = most * min_of(depth, chunk_depth);
    const int64_t room = tile_size + (target.dense() ? 0 : most * cols);
    const bool in_place = g.is_map();  // a 1x1 convolution gathers nothing
    Scratch<T> rooms(num_threads() * room);
    parallel_for(ceil_div(positions, most), [&](int64_t block, int thread) {
        const int64_t m0 = block * most, rows = min_of(most, positions - m0);
        T* tile = rooms.get() + thread * room;
        T* out = target.dense() ? target.out + m0 * cols : tile + tile_size;
        for (int64_t k0 = 0; k0 < depth; k0 += chunk_depth) {
            const int64_t k1 = min_of(depth, k0 + chunk_depth), deep = k1 - k0;
            const T* patches = in_place ? g.map + m0 * depth + k0 : tile;
            if (!in_place) gather(g, m0, rows, k0, k1, tile, deep);
            for (int64_t j = 0; j < panels; j++) {
                const Epilogue<T> end = k1 < depth ? Epilogue<T>{} : Epilogue<T>{bias ? bias + j * NR : nullptr, relu};
                rows_product<T>(rows, static_cast<int>(min_of<int64_t>(NR, cols - j * NR)), patches,
                                in_place ? depth : deep, packed + k0 * panels * NR + j * deep * NR, deep, out + j * NR,
                                cols, k0 > 0, end);
            }
        }
        if (!target.dense()) scatter(g, target, m0, rows, out);
        if (bits) write_bits(target.out, m0 * cols, rows * cols, bits);
    });
}

// The taps of one phase along one axis: those t for which input coordinate a + stride i meets an output.
struct Phase {
    int64_t first, taps, offset, grid;  // first tap, how many (every stride-th), top/left for the gather, inputs
};

Phase phase_of(int64_t a, int64_t size, int64_t taps, int64_t stride, int64_t pad) {
    const int64_t first = (a + pad) % stride;
    const int64_t count = first < taps ? ceil_div(taps - first, stride) : 0;
    return {first, count, (a + pad - first) / stride - (count - 1), ceil_div(size - a, stride)};
}

template <class T>
void backward_phase(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s, int64_t a, int64_t b,
                    T* dx) {
    const Phase v = phase_of(a, s.h, s.r, s.stride_h, s.pad_top), u = phase_of(b, s.w, s.s, s.stride_w, s.pad_left);
    const int64_t depth = v.taps * u.taps * s.k, panels = ceil_div(s.c, Tile<T>::NR);
    Scratch<T> packed(max_of<int64_t>(1, depth) * panels * Tile<T>::NR);
    pack_weights(depth, s.c, packed.get(), [&](int64_t k, int64_t n0, int64_t count, T* to) {
        const int64_t r = v.first + (v.taps - 1 - k / (u.taps * s.k)) * s.stride_h;
        const int64_t q = u.first + (u.taps - 1 - k / s.k % u.taps) * s.stride_w;
        std::memcpy(to, w + (((k % s.k) * s.r + r) * s.s + q) * s.c + n0, static_cast<std::size_t>(count) * sizeof(T));
    });
    const Patches<T> g{dy, positive, s.p, s.q, s.k, v.grid, u.grid, v.taps, u.taps, 1, 1, v.offset, u.offset};
    multiply_patches<T>(g, s.n, packed.get(), nullptr, false, {dx, s.h, s.w, s.c, s.stride_h, s.stride_w, a, b},
                        nullptr);
}

// db of `count` (at most 16) channels from k0 on: blocks of positions in T, blocks together in double.
template <class T>
void bias_sums(const T* dy, const std::uint8_t* positive, int64_t positions, int64_t k, int64_t k0, int64_t count,
               T* db) {
    constexpr int64_t block = 256;
    double totals[16] = {};
    for (int64_t m = 0; m < positions; m += block) {
        T sums[16] = {};
        for (int64_t i = m; i < min_of(positions, m + block); i++)
            for (int64_t c = 0; c < count; c++) {
                const int64_t at = i * k + k0 + c;
                sums[c] += !positive || bit_at(positive, at) ? dy[at] : T(0);
            }
        for (int64_t c = 0; c < count; c++) totals[c] += static_cast<double>(sums[c]);
    }
    for (int64_t c = 0; c < count; c++) db[k0 + c] = static_cast<T>(totals[c]);
}

}  // namespace

template <class T>
void conv2d_forward_cpu(const T* x, const T* w, const T* bias, const ConvShape& s, bool relu, T* y,
                        std::uint8_t* positive) {
    const int64_t depth = s.r * s.s * s.c, padded = ceil_div(s.k, Tile<T>::NR) * Tile<T>::NR;
    Scratch<T> wide_bias(padded);
    for (int64_t j = 0; j < padded; j++) wide_bias.get()[j] = bias && j < s.k ? bias[j] : T(0);
    if (s.c <= narrow_channels) return forward_narrow(x, w, wide_bias.get(), s, relu, y, positive);
    Scratch<T> packed(max_of<int64_t>(1, depth) * padded);
    pack_weights(depth, s.k, packed.get(), [&](int64_t k, int64_t n0, int64_t count, T* to) {
        for (int64_t j = 0; j < count; j++) to[j] = w[(n0 + j) * depth + k];
    });
    const Patches<T> g{x, nullptr, s.h, s.w, s.c, s.p, s.q, s.r, s.s, s.stride_h, s.stride_w, -s.pad_top, -s.pad_left};
    multiply_patches<T>(g, s.n, packed.get(), wide_bias.get(), relu, {y, s.p, s.q, s.k, 1, 1, 0, 0}, positive);
}

template <class T>
void conv2d_backward_input_cpu(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s, T* dx) {
    if (s.c <= narrow_channels) return backward_input_narrow(dy, positive, w, s, dx);
    if (s.stride_h > s.r || s.stride_w > s.s) fill_zero(dx, s.n * s.h * s.w * s.c);  // some phases have no taps
    for (int64_t a = 0; a < min_of(s.stride_h, s.h); a++)
        for (int64_t b = 0; b < min_of(s.stride_w, s.w); b++)
            if ((a + s.pad_top) % s.stride_h < s.r && (b + s.pad_left) % s.stride_w < s.s)
                backward_phase(dy, positive, w, s, a, b, dx);
}

template <class T>
void conv2d_backward_bias_cpu(const T* dy, const std::uint8_t* positive, const ConvShape& s, T* db) {
    constexpr int64_t channels = 16;  // a cache line of floats
    parallel_for(ceil_div(s.k, channels), [&](int64_t job, int) {
        bias_sums(dy, positive, s.n * s.p * s.q, s.k, job * channels, min_of(channels, s.k - job * channels), db);
    });
}

#define NST_INSTANTIATE(T)                                                                                        \
    template void conv2d_forward_cpu<T>(const T*, const T*, const T*, const ConvShape&, bool, T*, std::uint8_t*); \
    template void conv2d_backward_input_cpu<T>(const T*, const std::uint8_t*, const T*, const ConvShape&, T*);    \
    template void conv2d_backward_bias_cpu<T>(const T*, const std::uint8_t*, const ConvShape&, T*);
NST_INSTANTIATE(float)
NST_INSTANTIATE(double)

}  // namespace nst::NST_ISA_NS
