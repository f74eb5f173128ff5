// Tiles of squared distances, |a|^2 + |b|^2 - 2 a.b with the close pairs done again as sum (a - b)^2, and the weighted
// sums of differences that are their gradient.
#pragma once

#include "../common/gemm_cpu.h"
#include "../common/parallel.h"
#include "../common/scratch.h"
#include "../common/transpose.h"

namespace nst::NST_ISA_NS {

// Distances below this share of |a|^2 + |b|^2 are done again. The product's error is about sqrt(depth) eps of that sum,
// so what is kept has a relative error of at most 32 sqrt(depth) eps: 2e-5 for 128 floats. Rows that lie far apart,
// the usual case, never get here.
template <class T>
constexpr T near_ratio = T(1) / 32;
// Below it |a|^2 and |b|^2, summed in double, are more than the rounding errors of a . b, whose summands underflow.
template <class T>
constexpr T underflow = static_cast<T>(sizeof(T) == 4 ? 0x1p-95 : 0x1p-960);

constexpr int64_t few_rows = 4;  // with so few rows on one side a tile would be mostly padding: each pair on its own

template <class T>
constexpr int64_t block_rows = 8 * Tile<T>::MR;  // rows of a that stay in the second-level cache, tile by tile

// Sum of the lanes, in a fixed order.
template <class T>
inline T lane_sum(const T* v) {
    T t[lanes<T>];
    for (int i = 0; i < lanes<T>; i++) t[i] = v[i];
    for (int half = lanes<T> / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) t[i] += t[i + half];
    return t[0];
}

template <class T>
inline T direct_sqdist(const T* a, const T* b, int64_t depth) {
    constexpr int W = lanes<T>;
    Vec<T> s[4] = {};
    int64_t k = 0;
    for (; k + 4 * W <= depth; k += 4 * W)
        for (int u = 0; u < 4; u++) {
            const Vec<T> e = load(a + k + u * W) - load(b + k + u * W);
            s[u] += e * e;
        }
    for (; k + W <= depth; k += W) {
        const Vec<T> e = load(a + k) - load(b + k);
        s[0] += e * e;
    }
    T sums[W];
    store(sums, (s[0] + s[1]) + (s[2] + s[3]));
    T total = lane_sum(sums);
    for (; k < depth; k++) total += (a[k] - b[k]) * (a[k] - b[k]);
    return total;
}

inline Vec<double> widen(const double* p) { return load(p); }

inline Vec<double> widen(const float* p) {
    typedef float Half __attribute__((vector_size(vector_bytes / 2)));
    Half half;
    __builtin_memcpy(&half, p, sizeof(half));
    return __builtin_convertvector(half, Vec<double>);
}

template <class T>
inline double squared_norm_double(const T* a, int64_t depth) {
    constexpr int W = lanes<double>;
    Vec<double> s0{}, s1{};
    int64_t k = 0;
    for (; k + 2 * W <= depth; k += 2 * W) {
        const Vec<double> v0 = widen(a + k), v1 = widen(a + k + W);
        s0 += v0 * v0;
        s1 += v1 * v1;
    }
    double sums[W];
    store(sums, s0 + s1);
    double total = lane_sum(sums);
    for (; k < depth; k++) total += static_cast<double>(a[k]) * static_cast<double>(a[k]);
    return total;
}

// sum a[k]^2, taken in double; beyond the range of T it is infinite.
template <class T>
inline T squared_norm(const T* a, int64_t depth) {
    return static_cast<T>(squared_norm_double(a, depth));
}

// Sum of a row, in double.
template <class T>
inline double row_sum(const T* g, int64_t count) {
    constexpr int W = lanes<double>;
    Vec<double> s0{}, s1{};
    int64_t k = 0;
    for (; k + 2 * W <= count; k += 2 * W) {
        s0 += widen(g + k);
        s1 += widen(g + k + W);
    }
    double sums[W];
    store(sums, s0 + s1);
    double total = lane_sum(sums);
    for (; k < count; k++) total += static_cast<double>(g[k]);
    return total;
}

// Whether any lane of a comparison is true.
template <class Mask>
inline bool any(const Mask& mask) {
    std::int64_t words[sizeof(Mask) / 8], bits = 0;
    __builtin_memcpy(words, &mask, sizeof(mask));
    for (const std::int64_t word : words) bits |= word;
    return bits != 0;
}

// Rows of b as the columns of a product: panels of NR, with zeros on the right of the last.
template <class T>
struct Columns {
    const T* rows;
    int64_t count, depth;
    T* packed;  // [panels()][depth][NR]
    T* norms;   // [panels() * NR]

    static int64_t panels_of(int64_t columns) { return ceil_div(columns, Tile<T>::NR); }
    int64_t panels() const { return panels_of(count); }
    int width(int64_t panel) const {
        return static_cast<int>(min_of<int64_t>(Tile<T>::NR, count - panel * Tile<T>::NR));
    }

    void pack_panel(int64_t p) const {
        constexpr int NR = Tile<T>::NR;
        T* panel = packed + p * depth * NR;
        const T* from = rows + p * NR * depth;
        const int real = width(p);
        transpose_rectangle(from, depth, real, depth, panel, NR);
        for (int64_t k = 0; real < NR && k < depth; k++)
            for (int j = real; j < NR; j++) panel[k * NR + j] = T(0);
        for (int j = 0; j < NR; j++) norms[p * NR + j] = j < real ? squared_norm(from + j * depth, depth) : T(0);
    }
    void pack() const {
        for (int64_t p = 0; p < panels(); p++) pack_panel(p);
    }
};

// Redoes the pairs of rows [first, last) of a tile that are too close, or whose norms are too large or too small, for
// the product.
template <class T>
inline void redo_near(const T* a, const T* norms_a, int64_t first, int64_t last, const Columns<T>& b, int64_t panel,
                      T* tile) {
    constexpr int NR = Tile<T>::NR;
    constexpr T infinity = static_cast<T>(__builtin_inf());
    for (int64_t r = first; r < last; r++)
        for (int c = 0; c < b.width(panel); c++) {
            const T sum = norms_a[r] + b.norms[panel * NR + c];
            if (!(tile[r * NR + c] > near_ratio<T> * sum + underflow<T>) || !(sum < infinity))
                tile[r * NR + c] = direct_sqdist(a + r * b.depth, b.rows + (panel * NR + c) * b.depth, b.depth);
        }
}

// Makes |a_r - b_c|^2 of the products a_r . b_c in a tile: `rows` rows of a, one panel of b. Columns beyond b are
// undefined.
template <class T>
inline void finish_distances(const T* a, const T* norms_a, int64_t rows, const Columns<T>& b, int64_t panel, T* tile) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    constexpr int64_t group = 8;  // rows that are looked through together when one of them holds a close pair
    const Vec<T> infinity = Vec<T>{} + static_cast<T>(__builtin_inf());
    const Vec<T> n0 = load(b.norms + panel * NR), n1 = load(b.norms + panel * NR + W);
    for (int64_t first = 0; first < rows; first += group) {
        const int64_t last = min_of(rows, first + group);
        auto near = n0 != n0;
        for (int64_t r = first; r < last; r++) {
            T* t = tile + r * NR;
            const Vec<T> s0 = norms_a[r] + n0, s1 = norms_a[r] + n1;
            const Vec<T> d0 = s0 - T(2) * load(t), d1 = s1 - T(2) * load(t + W);
            near |= ~(d0 > near_ratio<T> * s0 + underflow<T>) | ~(d1 > near_ratio<T> * s1 + underflow<T>);
            near |= ~(s0 < infinity) | ~(s1 < infinity);
            store(t, d0);
            store(t + W, d1);
        }
        if (any(near)) redo_near(a, norms_a, first, last, b, panel, tile);
    }
}

// tile[r][c] = |a_r - b_c|^2; tile has NR columns.
template <class T>
inline void distance_tile(const T* a, const T* norms_a, int64_t rows, const Columns<T>& b, int64_t panel, T* tile) {
    constexpr int NR = Tile<T>::NR;
    rows_product<T>(rows, NR, a, b.depth, b.packed + panel * b.depth * NR, b.depth, tile, NR, false);
    finish_distances(a, norms_a, rows, b, panel, tile);
}

// Copies `rows` rows of a tile, as far as `columns`, to out.
template <class T>
inline void write_tile(const T* tile, int64_t rows, int columns, T* out, int64_t ld) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    for (int64_t r = 0; r < rows; r++)
        if (columns == NR) {
            store(out + r * ld, load(tile + r * NR));
            store(out + r * ld + W, load(tile + r * NR + W));
        } else {
            for (int c = 0; c < columns; c++) out[r * ld + c] = tile[r * NR + c];
        }
}

// out[i][j] = |z_i - z_j|^2 for all i, j < count; ld is the length of a row of out. Squares of `side` rows x a panel
// on or right of the diagonal are computed, and written twice: as they are, and turned. Both halves are equal, bit for
// bit: a product sums in the same order either way.
template <class T>
void symmetric_sqdist(const T* z, int64_t count, int64_t depth, T* out, int64_t ld) {
    constexpr int NR = Tile<T>::NR;
    constexpr int64_t side = 32;  // a multiple of every NR, so that a square on the diagonal is one job's alone
    const int64_t panels = Columns<T>::panels_of(count);
    Scratch<T> packed(panels * NR * depth), norms(panels * NR), tiles(num_threads() * side * NR);
    const Columns<T> columns{z, count, depth, packed.get(), norms.get()};
    parallel_for(panels, [&](int64_t p, int) { columns.pack_panel(p); });
    parallel_for(ceil_div(count, side), [&](int64_t job, int thread) {  // the longest rows first
        const int64_t i = job * side, rows = min_of(side, count - i);
        T* tile = tiles.get() + thread * side * NR;
        for (int64_t p = i / NR; p < panels; p++) {
            const int64_t j = p * NR;
            const int wide = columns.width(p);
            distance_tile(z + i * depth, norms.get() + i, rows, columns, p, tile);
            write_tile(tile, rows, wide, out + i * ld + j, ld);
            transpose_rectangle(tile, NR, rows, wide, out + j * ld + i, ld);
        }
    });
}

// out_i = 2 scale sum_k G(i, k) (own_i - other_k), i < rows, k < terms, where G(i, k) = g[i][k], or g[k][i] when
// Turned; ldg is the length of a row of g. A product again: 2 scale ((sum_k G(i, k)) own_i - sum_k G(i, k) other_k).
// Where own is null it is that product alone, out_i = sum_k G(i, k) other_k.
template <class T, bool Turned>
void weighted_differences(const T* g, int64_t ldg, const T* own, const T* other, int64_t rows, int64_t terms,
                          int64_t depth, T scale, T* out) {
    constexpr int MR = Tile<T>::MR, NR = Tile<T>::NR;
    constexpr int64_t slice = 512;  // terms at a time: a slice of a panel and of g stay in the second-level cache
    const int64_t panels = ceil_div(depth, NR), blocks = ceil_div(rows, block_rows<T>);
    Scratch<T> packed(panels * terms * NR);
    Scratch<double> sums(rows);
    parallel_for(panels, [&](int64_t j, int) {
        pack_panels(other + j * NR, depth, 1, terms, min_of<int64_t>(NR, depth - j * NR),
                    packed.get() + j * terms * NR);
    });
    parallel_for(own ? blocks : 0, [&](int64_t block, int) {
        const int64_t first = block * block_rows<T>, last = min_of(rows, first + block_rows<T>);
        for (int64_t i = first; i < last; i++) sums.get()[i] = Turned ? 0 : row_sum(g + i * ldg, terms);
        for (int64_t k = 0; Turned && k < terms; k++)
            for (int64_t i = first; i < last; i++) sums.get()[i] += static_cast<double>(g[k * ldg + i]);
    });
    parallel_for(blocks * panels, [&](int64_t job, int) {
        const int64_t first = job / panels * block_rows<T>, last = min_of(rows, first + block_rows<T>),
                      j = job % panels * NR;
        const int wide = static_cast<int>(min_of<int64_t>(NR, depth - j));
        const T* panel = packed.get() + j * terms;
        for (int64_t k = 0; k < terms; k += slice)
            for (int64_t i = first; i < last; i += MR)
                product_edge<T, Turned>(static_cast<int>(min_of<int64_t>(MR, last - i)), wide,
                                        Turned ? g + k * ldg + i : g + i * ldg + k, ldg, panel + k * NR, NR,
                                        min_of(slice, terms - k), out + i * depth + j, depth, k > 0, {});
        for (int64_t i = first; !own && !terms && i < last; i++)
            for (int c = 0; c < wide; c++) out[i * depth + j + c] = T(0);
        for (int64_t i = first; own && i < last; i++) {
            const T sum = static_cast<T>(sums.get()[i]);
            for (int c = 0; c < wide; c++) {
                T& o = out[i * depth + j + c];
                o = T(2) * scale * (sum * own[i * depth + j + c] - (terms ? o : T(0)));
            }
        }
    });
}

}  // namespace nst::NST_ISA_NS
