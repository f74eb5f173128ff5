// Patches of a feature map as rows of a matrix, a small tile at a time (never a whole layer's im2col).
//
// A grid position (n, i, j) sees the patch whose top left corner is (i stride_h + top, j stride_w + left); the patch's
// elements in the order (r, s, c) are the row. Along s and c they lie together in memory, so a row is taps_h copies.
#pragma once

#include <cstdint>

#include "../common/bits.h"

namespace nst::NST_ISA_NS {

using std::int64_t;

template <class T>
struct Patches {
    const T* map;                  // (n, h, w, c)
    const std::uint8_t* positive;  // null, or a bit an element of the map: where it is 0 the element counts as 0
    int64_t h, w, c;
    int64_t grid_h, grid_w;  // positions an image
    int64_t taps_h, taps_w;
    int64_t stride_h, stride_w;
    int64_t top, left;  // may be negative

    int64_t depth() const { return taps_h * taps_w * c; }

    // Whether the patch of every position is the pixel there: the map is the matrix.
    bool is_map() const {
        return taps_h == 1 && taps_w == 1 && stride_h == 1 && stride_w == 1 && top == 0 && left == 0 && grid_h == h &&
               grid_w == w && !positive;
    }
};

template <class T>
inline void fill_zero(T* to, int64_t count) {
    if (count > 0) std::memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
}

// Elements [first, last) of tap row r of one patch.
template <class T>
inline void gather_tap_row(const Patches<T>& g, int64_t n, int64_t y, int64_t x, int64_t first, int64_t last, T* to) {
    if (y < 0 || y >= g.h) return fill_zero(to, last - first);
    const int64_t inside = max_of(first, min_of(last, max_of<int64_t>(0, -x) * g.c));
    const int64_t beyond = max_of(inside, min_of(last, min_of(g.taps_w, g.w - x) * g.c));
    const int64_t offset = ((n * g.h + y) * g.w + x) * g.c;
    fill_zero(to, inside - first);
    if (beyond > inside) copy_where(g.map, g.positive, offset + inside, beyond - inside, to + inside - first);
    fill_zero(to + beyond - first, last - beyond);
}

// Rows [m0, m0 + rows) of the patch matrix, columns [k0, k1), into to (row stride ld).
template <class T>
void gather(const Patches<T>& g, int64_t m0, int64_t rows, int64_t k0, int64_t k1, T* to, int64_t ld) {
    const int64_t span = g.taps_w * g.c;  // elements a tap row
    int64_t j = m0 % g.grid_w, i = m0 / g.grid_w % g.grid_h, n = m0 / (g.grid_w * g.grid_h);
    for (int64_t m = 0; m < rows; m++, to += ld) {
        T* row = to;
        for (int64_t k = k0; k < k1;) {
            const int64_t r = k / span, first = k - r * span, last = min_of(span, k1 - r * span);
            gather_tap_row(g, n, i * g.stride_h + g.top + r, j * g.stride_w + g.left, first, last, row);
            row += last - first;
            k += last - first;
        }
        if (++j == g.grid_w) {
            j = 0;
            if (++i == g.grid_h) i = 0, n++;
        }
    }
}

}  // namespace nst::NST_ISA_NS
