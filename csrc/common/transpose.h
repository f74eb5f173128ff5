// A square of lanes x lanes elements, turned in registers: log2(lanes) rounds in which two rows swap half their lanes.
#pragma once

#include <utility>

#include "simd.h"

namespace nst::NST_ISA_NS {

using std::int64_t;

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define NST_SHUFFLE
#endif
#endif

#ifdef NST_SHUFFLE
// Lane l of low becomes high[l - S] and lane l - S of high becomes low[l], for every l with bit S set.
template <class T, int S, int... L>
inline void swap_lanes(Vec<T>& low, Vec<T>& high, std::integer_sequence<int, L...>) {
    constexpr int W = lanes<T>;
    const Vec<T> l = low, h = high;
    low = __builtin_shufflevector(l, h, (L & S ? W + L - S : L)...);
    high = __builtin_shufflevector(l, h, (L & S ? W + L : L + S)...);
}

template <class T, int S = 1>
inline void transpose_lanes(Vec<T>* rows) {
    if constexpr (S < lanes<T>) {
        for (int i = 0; i < lanes<T>; i++)
            if (!(i & S)) swap_lanes<T, S>(rows[i], rows[i + S], std::make_integer_sequence<int, lanes<T>>{});
        transpose_lanes<T, 2 * S>(rows);
    }
}

// Leaves in lane r of rows[0] the sum of the lanes of rows[r]; the other rows are overwritten.
template <class T, int S = lanes<T> / 2>
inline void sum_rows(Vec<T>* rows) {
    if constexpr (S > 0) {
        for (int r = 0; r < S; r++) {
            swap_lanes<T, S>(rows[r], rows[r + S], std::make_integer_sequence<int, lanes<T>>{});
            rows[r] += rows[r + S];
        }
        sum_rows<T, S / 2>(rows);
    }
}
#else
template <class T>
inline void sum_rows(Vec<T>* rows) {
    Vec<T> sums;
    for (int r = 0; r < lanes<T>; r++) {
        T sum = 0;
        for (int i = 0; i < lanes<T>; i++) sum += rows[r][i];
        sums[r] = sum;
    }
    rows[0] = sums;
}

template <class T>
inline void transpose_lanes(Vec<T>* rows) {
    for (int i = 0; i < lanes<T>; i++)
        for (int j = 0; j < i; j++) {
            const T kept = rows[i][j];
            rows[i][j] = rows[j][i], rows[j][i] = kept;
        }
}
#endif

// out[j][i] = in[i][j] for i, j < lanes; ld_in and ld_out are the lengths of a row.
template <class T>
inline void transpose_square(const T* in, int64_t ld_in, T* out, int64_t ld_out) {
    Vec<T> rows[lanes<T>];
    for (int i = 0; i < lanes<T>; i++) rows[i] = load(in + i * ld_in);
    transpose_lanes<T>(rows);
    for (int i = 0; i < lanes<T>; i++) store(out + i * ld_out, rows[i]);
}

// out[j][i] = in[i][j] for i < rows, j < columns.
template <class T>
inline void transpose_rectangle(const T* in, int64_t ld_in, int64_t rows, int64_t columns, T* out, int64_t ld_out) {
    constexpr int W = lanes<T>;
    int64_t i = 0;
    for (; i + W <= rows; i += W) {
        int64_t j = 0;
        for (; j + W <= columns; j += W) transpose_square(in + i * ld_in + j, ld_in, out + j * ld_out + i, ld_out);
        for (; j < columns; j++)
            for (int64_t r = i; r < i + W; r++) out[j * ld_out + r] = in[r * ld_in + j];
    }
    for (; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) out[j * ld_out + i] = in[i * ld_in + j];
}

}  // namespace nst::NST_ISA_NS
