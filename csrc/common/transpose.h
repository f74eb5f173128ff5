// A square block of a matrix turned over in registers.
#pragma once

#include "simd.h"

namespace nst::NST_ISA_NS {

// Exchanges the off-diagonal halves of every square of 2 Half rows and columns, then of their quarters.
template <class T, int Half>
inline void exchange_halves(Vec<T>* rows) {
    if constexpr (Half > 0) {
        using I = decltype(rows[0] > rows[0]);
        I low, high;
        for (int i = 0; i < lanes<T>; i++) {
            low[i] = i & Half ? lanes<T> + i - Half : i;
            high[i] = i & Half ? lanes<T> + i : i + Half;
        }
        for (int r = 0; r < lanes<T>; r++)
            if (!(r & Half)) {
                const Vec<T> a = rows[r], b = rows[r + Half];
                rows[r] = __builtin_shuffle(a, b, low);
                rows[r + Half] = __builtin_shuffle(a, b, high);
            }
        exchange_halves<T, Half / 2>(rows);
    }
}

// to[c][r] = from[r][c] for a square as wide as a vector.
template <class T>
inline void transpose(const T* from, std::int64_t ld_from, T* to, std::int64_t ld_to) {
    Vec<T> rows[lanes<T>];
    for (int r = 0; r < lanes<T>; r++) rows[r] = load(from + r * ld_from);
    exchange_halves<T, lanes<T> / 2>(rows);
    for (int r = 0; r < lanes<T>; r++) store(to + r * ld_to, rows[r]);
}

}  // namespace nst::NST_ISA_NS
