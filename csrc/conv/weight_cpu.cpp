// The weight gradient: dw[k][r][s][c] = sum over positions of dy[position][k] x[the position's patch][r][s][c].
//
//   x rows, padded with zeros, as they lie          dy rows, a block of filters
//   +--------------------------------+              +----------+
//   | . . [s c, s c, s c] . . . . .  |   position   | k0 .. k1 |     for each slab of rows, in L2
//   +--------------------------------+              +----------+
//
// Along s and c the elements of a patch lie together in memory, so for one tap row r the (s, c) of a position are
// `width` = s c consecutive numbers that start stride_w c after those of the position before: the patch matrix is read
// where it lies and is never formed. A tile of dw, several (s, c) by two vectors of filters, stays in registers
// while the positions of a slab pass.
//
// A job is a group of images' rows, a tap row and a block of filters; each group has a dw of its own, and these are
// added in their order at the end. How many groups there are follows from the shape alone.
#include "../common/bits.h"
#include "../common/parallel.h"
#include "../common/scratch.h"
#include "conv.h"

namespace nst::NST_ISA_NS {
namespace {

using std::int64_t;

constexpr int64_t filter_block = 64;       // filters that one job takes: a line of x serves all of them
constexpr int64_t slab_bytes = 192 << 10;  // x and dy of a slab stay in L2 while every tile passes over them
constexpr int64_t most_groups = 16;
constexpr int64_t group_positions = 1024;      // at least: a tile is loaded and stored once in so many
constexpr int64_t most_group_bytes = 8 << 20;  // of all groups' dw together

// A tile of dw: `rows` numbers (s, c) by one or two vectors of filters.
template <class T, int Vectors>
struct Block {
    static constexpr int rows = (vector_registers == 32 ? 24 : 8) / Vectors;
    static constexpr int columns = Vectors * lanes<T>;
};

struct Cut {
    int64_t width;       // s c
    int64_t line;        // elements of a padded row of x
    int64_t filters;     // of a block, in whole tiles
    int64_t blocks;      // of filters
    int64_t slab_rows;   // rows of y in a slab
    int64_t group_rows;  // rows of y in a group
    int64_t groups;
};

template <class T>
Cut cut_of(const ConvShape& s) {
    constexpr int64_t size = static_cast<int64_t>(sizeof(T));
    const int64_t columns = s.k <= lanes<T> ? lanes<T> : 2 * lanes<T>;
    Cut cut{};
    cut.width = s.s * s.c;
    cut.line = ((s.q - 1) * s.stride_w + s.s) * s.c;
    cut.filters = min_of(filter_block, ceil_div(s.k, columns) * columns);
    cut.blocks = ceil_div(s.k, cut.filters);
    const int64_t row_bytes = (cut.line + s.q * cut.filters) * size, rows = s.n * s.p;
    cut.slab_rows = max_of<int64_t>(1, slab_bytes / max_of<int64_t>(1, row_bytes));
    const int64_t weight_bytes = max_of<int64_t>(1, s.r * cut.width * cut.blocks * cut.filters * size);
    const int64_t groups =
        max_of<int64_t>(1, min_of(min_of(most_groups, most_group_bytes / weight_bytes), rows * s.q / group_positions));
    cut.group_rows = max_of<int64_t>(1, ceil_div(rows, groups));
    cut.groups = max_of<int64_t>(1, ceil_div(rows, cut.group_rows));
    return cut;
}

// dw tile (R by Vectors vectors) += over rows and positions of x[0 .. R) times dy.
template <class T, int Vectors, int R>
void tile(const T* x, int64_t line, int64_t step, const T* dy, int64_t filters, int64_t rows, int64_t q, T* dw,
          int64_t ld) {
    constexpr int W = lanes<T>;
    Vec<T> c[Vectors][R];
    for (int v = 0; v < Vectors; v++)
        for (int i = 0; i < R; i++) c[v][i] = load(dw + i * ld + v * W);
    for (int64_t row = 0; row < rows; row++) {
        const T* a = x + row * line;
        const T* b = dy + row * q * filters;
        for (int64_t j = 0; j < q; j++, a += step, b += filters) {
            Vec<T> of[Vectors];
            for (int v = 0; v < Vectors; v++) of[v] = load(b + v * W);
            for (int i = 0; i < R; i++)
                for (int v = 0; v < Vectors; v++) c[v][i] += a[i] * of[v];
        }
    }
    for (int v = 0; v < Vectors; v++)
        for (int i = 0; i < R; i++) store(dw + i * ld + v * W, c[v][i]);
}

template <class T, int Vectors, int R = Block<T, Vectors>::rows>
void tile_of(int64_t count, const T* x, int64_t line, int64_t step, const T* dy, int64_t filters, int64_t rows,
             int64_t q, T* dw, int64_t ld) {
    if constexpr (R > 0) {
        if (count == R) tile<T, Vectors, R>(x, line, step, dy, filters, rows, q, dw, ld);
        else tile_of<T, Vectors, R - 1>(count, x, line, step, dy, filters, rows, q, dw, ld);
    }
}

// All tiles of (width, filters), while a slab lies in L2.
template <class T, int Vectors>
void add_slab(const Cut& cut, const T* x, int64_t step, const T* dy, int64_t rows, int64_t q, T* dw, int64_t ld) {
    constexpr int R = Block<T, Vectors>::rows, columns = Block<T, Vectors>::columns;
    for (int64_t k = 0; k < cut.filters; k += columns)
        for (int64_t i = 0; i < cut.width; i += R)
            tile_of<T, Vectors>(min_of<int64_t>(R, cut.width - i), x + i, cut.line, step, dy + k, cut.filters, rows, q,
                                dw + i * ld + k, ld);
}

// One row of x, padded, as output row `row` and tap row r meet it; `to` has cut.line elements.
template <class T>
void copy_line(const T* x, const ConvShape& s, const Cut& cut, int64_t row, int64_t r, T* to) {
    const int64_t y = row % s.p * s.stride_h + r - s.pad_top, left = min_of(cut.line, s.pad_left * s.c);
    const int64_t inside = y < 0 || y >= s.h ? 0 : max_of<int64_t>(0, min_of(cut.line - left, s.w * s.c));
    std::memset(to, 0, static_cast<std::size_t>(left) * sizeof(T));
    if (inside)
        std::memcpy(to + left, x + (row / s.p * s.h + y) * s.w * s.c, static_cast<std::size_t>(inside) * sizeof(T));
    std::memset(to + left + inside, 0, static_cast<std::size_t>(cut.line - left - inside) * sizeof(T));
}

// Filters k0 .. k0 + count of the positions of `rows` rows, where the ReLU let them through, with zeros behind them.
template <class T>
void copy_slopes(const T* dy, const std::uint8_t* positive, const ConvShape& s, int64_t filters, int64_t row,
                 int64_t rows, int64_t k0, T* to) {
    const int64_t count = min_of(filters, s.k - k0);
    for (int64_t i = row * s.q; i < (row + rows) * s.q; i++, to += filters) {
        copy_where(dy, positive, i * s.k + k0, count, to);
        for (int64_t k = count; k < filters; k++) to[k] = T(0);
    }
}

// The part of dw that one group of rows gives: tap row r, one block of filters. dw: (width, ld), zero at first.
template <class T>
void add_group(const T* x, const T* dy, const std::uint8_t* positive, const ConvShape& s, const Cut& cut, int64_t first,
               int64_t last, int64_t r, int64_t k0, T* room, T* dw, int64_t ld) {
    T* room_for_slopes = room + cut.slab_rows * cut.line;
    const bool as_it_lies = !positive && s.k == cut.filters;
    for (int64_t row = first; row < last; row += cut.slab_rows) {
        const int64_t rows = min_of(cut.slab_rows, last - row);
        for (int64_t i = 0; i < rows; i++) copy_line(x, s, cut, row + i, r, room + i * cut.line);
        if (!as_it_lies) copy_slopes(dy, positive, s, cut.filters, row, rows, k0, room_for_slopes);
        const T* slopes = as_it_lies ? dy + row * s.q * s.k : room_for_slopes;
        if (cut.filters == lanes<T>) add_slab<T, 1>(cut, room, s.stride_w * s.c, slopes, rows, s.q, dw, ld);
        else add_slab<T, 2>(cut, room, s.stride_w * s.c, slopes, rows, s.q, dw, ld);
    }
}

}  // namespace

template <class T>
void conv2d_backward_weight_cpu(const T* x, const T* dy, const std::uint8_t* positive, const ConvShape& s, T* dw) {
    const Cut cut = cut_of<T>(s);
    const int64_t ld = cut.blocks * cut.filters, size = s.r * cut.width * ld;
    const int64_t room = cut.slab_rows * (cut.line + s.q * cut.filters);
    Scratch<T> rooms(num_threads() * room), sums(cut.groups * size);
    parallel_for(cut.groups * s.r * cut.blocks, [&](int64_t job, int thread) {
        const int64_t group = job / (s.r * cut.blocks), r = job / cut.blocks % s.r, k0 = job % cut.blocks * cut.filters;
        T* part = sums.get() + group * size + r * cut.width * ld + k0;
        for (int64_t i = 0; i < cut.width; i++)
            for (int64_t k = 0; k < cut.filters; k++) part[i * ld + k] = T(0);
        add_group(x, dy, positive, s, cut, group * cut.group_rows, min_of(s.n * s.p, (group + 1) * cut.group_rows), r,
                  k0, rooms.get() + thread * room, part, ld);
    });
    parallel_for(s.r * cut.width, [&](int64_t i, int) {
        T* total = sums.get() + i * ld;
        for (int64_t g = 1; g < cut.groups; g++)
            for (int64_t k = 0; k < s.k; k++) total[k] += sums.get()[g * size + i * ld + k];
    });
    parallel_for(s.k, [&](int64_t k, int) {
        for (int64_t i = 0; i < s.r * cut.width; i++) dw[k * s.r * cut.width + i] = sums.get()[i * ld + k];
    });
}

#define NST_INSTANTIATE(T) \
    template void conv2d_backward_weight_cpu<T>(const T*, const T*, const std::uint8_t*, const ConvShape&, T*);
NST_INSTANTIATE(float)
NST_INSTANTIATE(double)

}  // namespace nst::NST_ISA_NS
