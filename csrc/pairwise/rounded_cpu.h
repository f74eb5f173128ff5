// A first look at inner products in 16-bit integers, at twice the speed of floats, with a bound on what it misses.
//
//   x = round(s a), y = round(t b), s = N / |a|, t = N / |b|            |x.y - s t a.b| <= (N + e)^2 - N^2
//
// Every element is off by at most 1/2, so a row of `depth` elements is off by e = sqrt(depth) / 2 (a little more is
// taken: 0.51). N is such that x.y, at most (N + e)^2, fits into 32 bits. For 128 elements the bound is 4e-4 |a| |b|,
// while products of random rows spread over 9e-2 |a| |b|: hardly more pairs pass than with exact products.
//
// Two neighbouring elements are one 32-bit word, and a column of a panel is a word: [pair][NR].
#pragma once

#include "distances_cpu.h"

namespace nst::NST_ISA_NS {

template <class T>
constexpr bool is_rounded = has_pair_products && sizeof(T) == 4;

constexpr float rounded_norm = 32000;                               // N
constexpr float least_rounded = 0x1p-60f, most_rounded = 0x1p+60f;  // squared norms: no scaled number overflows

inline int64_t pairs_of(int64_t depth) { return (depth + 1) / 2; }

// All that a sum of rounded products, a float sum of `depth` products and a few more operations can be off by, as far
// as the product is at most N^2.
inline float rounded_slack(int64_t depth) {
    const double e = 0.51 * __builtin_sqrt(static_cast<double>(depth) + 1), n = rounded_norm;
    return static_cast<float>((n + e) * (n + e) - n * n + n * n * static_cast<double>(2 * depth + 64) * 0x1p-23);
}

// N / |row|; 0 for rows that cannot be rounded, whose products must all pass.
inline float rounding_scale(float squared_norm) {
    const bool usual = squared_norm > least_rounded && squared_norm < most_rounded;
    return usual ? rounded_norm / __builtin_sqrtf(squared_norm) : 0.0f;
}

// words[k] = elements 2k and 2k + 1 of the rounded row.
inline void round_row(const float* row, int64_t depth, float scale, std::int32_t* words) {
    constexpr int W = lanes<float>;
    constexpr float shift = 0x1.8p+23f;  // what is added to it is rounded to a whole number
    typedef std::int16_t Narrow __attribute__((vector_size(vector_bytes / 2)));
    std::int16_t* to = reinterpret_cast<std::int16_t*>(words);
    const int64_t full = scale > 0 ? depth / W * W : 0;
    for (int64_t k = 0; k < full; k += W) {
        const Vec<float> whole = (load(row + k) * scale + shift) - shift;
        const Narrow narrow = __builtin_convertvector(__builtin_convertvector(whole, IntVec), Narrow);
        __builtin_memcpy(to + k, &narrow, sizeof(narrow));
    }
    for (int64_t k = full; k < 2 * pairs_of(depth); k++) {
        std::int16_t whole = 0;
        if (scale > 0 && k < depth) whole = static_cast<std::int16_t>((row[k] * scale + shift) - shift);
        __builtin_memcpy(to + k, &whole, sizeof(whole));
    }
}

// A panel of rounded queries, and what the products of each are compared with.
struct RoundedPanel {
    const std::int32_t* words;  // [pairs][NR]
    const float *scales, *thresholds;
    int64_t pairs;
    float slack;
};

// R rounded points against a panel. True if a product may be above level[r] + threshold[c] in the scale of both, and
// then above[r][c] is not 0 for these.
template <int R>
inline bool rounded_passes(const std::int32_t* a, const float* scale, const float* level, const RoundedPanel& panel,
                           std::int32_t* above) {
    constexpr int W = Tile<float>::W, NR = Tile<float>::NR;
    IntVec c0[R], c1[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) c0[r] = c1[r] = IntVec{};  // as a loop it would be a memset
    for (int64_t k = 0; k < panel.pairs; k++) {
        const IntVec b0 = load_words(panel.words + k * NR), b1 = load_words(panel.words + k * NR + W);
        for (int r = 0; r < R; r++) {
            const IntVec both = IntVec{} + a[r * panel.pairs + k];
            c0[r] += pair_products(both, b0);
            c1[r] += pair_products(both, b1);
        }
    }
    const Vec<float> s0 = load(panel.scales), s1 = load(panel.scales + W);
    const Vec<float> q0 = load(panel.thresholds), q1 = load(panel.thresholds + W);
    auto some = IntVec{};
    for (int r = 0; r < R; r++) {
        const Vec<float> p0 = __builtin_convertvector(c0[r], Vec<float>),
                         p1 = __builtin_convertvector(c1[r], Vec<float>);
        c0[r] = ~(p0 <= level[r] * s0 + (scale[r] * q0 - panel.slack));  // true where it is NaN, too
        c1[r] = ~(p1 <= level[r] * s1 + (scale[r] * q1 - panel.slack));
        some |= c0[r] | c1[r];
    }
    if (!any(some)) return false;
    for (int r = 0; r < R; r++) {
        __builtin_memcpy(above + r * NR, &c0[r], sizeof(IntVec));
        __builtin_memcpy(above + r * NR + W, &c1[r], sizeof(IntVec));
    }
    return true;
}

template <int R = Tile<float>::MR>
inline bool rounded_rows_pass(int64_t rows, const std::int32_t* a, const float* scale, const float* level,
                              const RoundedPanel& panel, std::int32_t* above) {
    if constexpr (R > 1) {
        if (rows < R) return rounded_rows_pass<R - 1>(rows, a, scale, level, panel, above);
    }
    return rounded_passes<R>(a, scale, level, panel, above);
}

}  // namespace nst::NST_ISA_NS
