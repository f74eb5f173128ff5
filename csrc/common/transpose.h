// A square block of numbers, a vector a row: turned over, or the sum of each row, in registers.
#pragma once

#include "simd.h"

namespace nst::NST_ISA_NS {

// Rows a and b, Half apart in their square, with the off-diagonal halves of their columns exchanged.
template <class T, int Half>
inline void exchange(Vec<T>& a, Vec<T>& b) {
#ifdef __clang__  // makes shuffles of the loop itself
    Vec<T> first, second;
    for (int i = 0; i < lanes<T>; i++) {
        first[i] = i & Half ? b[i - Half] : a[i];
        second[i] = i & Half ? b[i] : a[i + Half];
    }
#else
    decltype(a > b) low, high;
    for (int i = 0; i < lanes<T>; i++) {
        low[i] = i & Half ? lanes<T> + i - Half : i;
        high[i] = i & Half ? lanes<T> + i : i + Half;
    }
    const Vec<T> first = __builtin_shuffle(a, b, low), second = __builtin_shuffle(a, b, high);
#endif
    a = first, b = second;
}

template <class T, int Half = lanes<T> / 2>
inline void transpose_rows(Vec<T>* rows) {
    if constexpr (Half > 0) {
        for (int r = 0; r < lanes<T>; r++)
            if (!(r & Half)) exchange<T, Half>(rows[r], rows[r + Half]);
        transpose_rows<T, Half / 2>(rows);
    }
}

// to[c][r] = from[r][c] for a square as wide as a vector.
template <class T>
inline void transpose(const T* from, std::int64_t ld_from, T* to, std::int64_t ld_to) {
    Vec<T> rows[lanes<T>];
    for (int r = 0; r < lanes<T>; r++) rows[r] = load(from + r * ld_from);
    transpose_rows<T>(rows);
    for (int r = 0; r < lanes<T>; r++) store(to + r * ld_to, rows[r]);
}

// Leaves in lane r of rows[0] the sum of the lanes of rows[r]; the other rows are overwritten.
template <class T, int Half = lanes<T> / 2>
inline void sum_rows(Vec<T>* rows) {
    if constexpr (Half > 0) {
        for (int r = 0; r < Half; r++) {
            exchange<T, Half>(rows[r], rows[r + Half]);
            rows[r] += rows[r + Half];
        }
        sum_rows<T, Half / 2>(rows);
    }
}

}  // namespace nst::NST_ISA_NS
