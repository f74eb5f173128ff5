// The three one-dimensional transforms of Winograd's F(m, 3), which the two-dimensional ones are made of.
//
//   y = A^T [ (G g) * (B^T d) ]      d: m + 2 inputs, g: 3 weights, y: m outputs, * element by element
//
// F(4, 3) takes the points 0, +-1, +-2 and infinity, F(6, 3) also +-1/2. A pair of opposite points shares its even and
// its odd part. Source: Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
#pragma once

#include "../common/simd.h"

namespace nst::NST_ISA_NS {

template <class T, int Edge>
struct Winograd;

// Every function reads and writes vectors `s` and `so` apart.
template <class T>
struct Winograd<T, 4> {
    static constexpr int out = 4, in = 6, points = in * in;
    using V = Vec<T>;

    static inline void input(const V* d, int s, V* o, int so) {
        const V d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s], d5 = d[5 * s];
        const V even = d4 - 4 * d2, odd = d3 - 4 * d1, e = d4 - d2, f = 2 * (d3 - d1);
        o[0] = 4 * d0 - 5 * d2 + d4;
        o[so] = even + odd;
        o[2 * so] = even - odd;
        o[3 * so] = e + f;
        o[4 * so] = e - f;
        o[5 * so] = 4 * d1 - 5 * d3 + d5;
    }

    static inline void output(const V* m, int s, V* o, int so) {
        const V a = m[s] + m[2 * s], b = m[s] - m[2 * s], c = m[3 * s] + m[4 * s], d = m[3 * s] - m[4 * s];
        o[0] = m[0] + a + c;
        o[so] = b + 2 * d;
        o[2 * so] = a + 4 * c;
        o[3 * so] = b + 8 * d + m[5 * s];
    }

    // G. The rows of opposite points, 1 and 2, 3 and 4 ..., differ in the sign of the middle element alone.
    static constexpr T g[in][3] = {{T(1) / 4, 0, 0},
                                   {T(-1) / 6, T(-1) / 6, T(-1) / 6},
                                   {T(-1) / 6, T(1) / 6, T(-1) / 6},
                                   {T(1) / 24, T(1) / 12, T(1) / 6},
                                   {T(1) / 24, T(-1) / 12, T(1) / 6},
                                   {0, 0, 1}};
};

template <class T>
struct Winograd<T, 6> {
    static constexpr int out = 6, in = 8, points = in * in;
    using V = Vec<T>;

    static inline void input(const V* d, int s, V* o, int so) {
        constexpr T w = T(21) / 4, x = T(17) / 4, y = T(5) / 4, z = T(5) / 2, half = T(1) / 2, quarter = T(1) / 4;
        const V d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s];
        const V d4 = d[4 * s], d5 = d[5 * s], d6 = d[6 * s], d7 = d[7 * s];
        const V even1 = d2 + d6 - x * d4, odd1 = d1 + d5 - x * d3;
        const V even2 = d6 + quarter * d2 - y * d4, odd2 = half * d1 - z * d3 + 2 * d5;
        const V even3 = d6 + 4 * d2 - 5 * d4, odd3 = 2 * d1 - z * d3 + half * d5;
        o[0] = d0 - d6 + w * (d4 - d2);
        o[so] = even1 + odd1;
        o[2 * so] = even1 - odd1;
        o[3 * so] = even2 + odd2;
        o[4 * so] = even2 - odd2;
        o[5 * so] = even3 + odd3;
        o[6 * so] = even3 - odd3;
        o[7 * so] = d7 - d1 + w * (d3 - d5);
    }

    static inline void output(const V* m, int s, V* o, int so) {
        const V a = m[s] + m[2 * s], b = m[s] - m[2 * s];
        const V c = m[3 * s] + m[4 * s], d = m[3 * s] - m[4 * s];
        const V e = m[5 * s] + m[6 * s], f = m[5 * s] - m[6 * s];
        o[0] = m[0] + a + (c + e);
        o[so] = b + 2 * d + T(1) / 2 * f;
        o[2 * so] = a + 4 * c + T(1) / 4 * e;
        o[3 * so] = b + 8 * d + T(1) / 8 * f;
        o[4 * so] = a + 16 * c + T(1) / 16 * e;
        o[5 * so] = b + 32 * d + (T(1) / 32 * f + m[7 * s]);
    }

    static constexpr T g[in][3] = {{1, 0, 0},
                                   {T(-2) / 9, T(-2) / 9, T(-2) / 9},
                                   {T(-2) / 9, T(2) / 9, T(-2) / 9},
                                   {T(1) / 90, T(1) / 45, T(2) / 45},
                                   {T(1) / 90, T(-1) / 45, T(2) / 45},
                                   {T(32) / 45, T(16) / 45, T(8) / 45},
                                   {T(32) / 45, T(-16) / 45, T(8) / 45},
                                   {0, 0, 1}};
};

// o = G g.
template <class T, int Edge>
inline void transform_filter(const Vec<T>* g, Vec<T>* o) {
    using F = Winograd<T, Edge>;
    o[0] = F::g[0][0] * g[0];
    for (int i = 1; i < F::in - 1; i += 2) {
        const Vec<T> even = F::g[i][0] * g[0] + F::g[i][2] * g[2], odd = F::g[i][1] * g[1];
        o[i] = even + odd;
        o[i + 1] = even - odd;
    }
    o[F::in - 1] = g[2];
}

}  // namespace nst::NST_ISA_NS
