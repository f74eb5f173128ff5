// What the kernels of this family share: sums and moments of channels, and how one is normalised.
#pragma once

#include <cmath>

#include "../common/parallel.h"
#include "../common/scratch.h"
#include "../common/simd.h"
#include "norm.h"

namespace nst::NST_ISA_NS {

using std::int64_t;

constexpr int64_t chunk_bytes = 1 << 14;  // of x; the gradient beside it fits L1 too
constexpr int unroll = 4;                 // independent sums of one channel: additions do not wait for each other

template <class T>
int64_t chunk_positions(const NormShape& s) {
    return max_of<int64_t>(unroll, chunk_bytes / (max_of<int64_t>(1, s.channels) * static_cast<int64_t>(sizeof(T))));
}

// How one channel, or a vector of them, is normalised: y = (x - mean) weight + shift.
template <class V>
struct Line {
    V mean, weight, shift;
    V operator()(V x) const { return (x - mean) * weight + shift; }
};

template <class T>
struct Lines {
    const T *mean, *weight, *shift;
    Line<Vec<T>> vector(int64_t c) const { return {load(mean + c), load(weight + c), load(shift + c)}; }
    Line<T> one(int64_t c) const { return {mean[c], weight[c], shift[c]}; }
};

// The lines of all channels; room: 2 channels.
template <class T>
Lines<T> lines_of(const T* scale, const T* shift, const double* moments, const NormShape& s, T* room) {
    for (int64_t c = 0; c < s.channels; c++) {
        room[c] = static_cast<T>(moments[c]);
        room[s.channels + c] =
            static_cast<T>(static_cast<double>(scale[c]) / std::sqrt(moments[s.channels + c] + s.eps));
    }
    return {room, room + s.channels, shift};
}

// Adds up term(p, c) over `count` positions, a vector of channels at a time and then the channels left over.
// term is called with a tag of the type that it shall give: a vector or one element.
template <class T, class Term>
void sum_channels(int64_t count, int64_t channels, T* sums, const Term& term) {
    constexpr int W = lanes<T>;
    int64_t c = 0;
    for (; c + W <= channels; c += W) {
        Vec<T> parts[unroll] = {};
        int64_t p = 0;
        for (; p + unroll <= count; p += unroll)
            for (int u = 0; u < unroll; u++) parts[u] += term(p + u, c, Vec<T>{});
        for (; p < count; p++) parts[0] += term(p, c, Vec<T>{});
        store(sums + c, (parts[0] + parts[1]) + (parts[2] + parts[3]));
    }
    for (; c < channels; c++) {
        T sum = 0;
        for (int64_t p = 0; p < count; p++) sum += term(p, c, T{});
        sums[c] = sum;
    }
}

template <class T>
inline T read(const T* from, T) {
    return *from;
}
template <class T>
inline Vec<T> read(const T* from, Vec<T>) {
    return load(from);
}

// Means and squared deviations of each chunk by two passes in L1, joined as in Chan, Golub, LeVeque (1979).
template <class T>
void measure(const T* x, const NormShape& s, double* moments) {
    const int64_t most = chunk_positions<T>(s), chunks = ceil_div(s.positions, most), k = s.channels;
    Scratch<T> rooms(max_of<int64_t>(1, chunks) * 2 * k);
    parallel_for(chunks, [&](int64_t job, int) {
        const int64_t count = min_of(most, s.positions - job * most);
        const T* from = x + job * most * k;
        T *means = rooms.get() + job * 2 * k, *squares = means + k;
        sum_channels<T>(count, k, means,
                        [&](int64_t p, int64_t c, auto tag) { return read<T>(from + p * k + c, tag); });
        for (int64_t c = 0; c < k; c++) means[c] /= static_cast<T>(count);
        sum_channels<T>(count, k, squares, [&](int64_t p, int64_t c, auto tag) {
            const auto off = read<T>(from + p * k + c, tag) - read<T>(means + c, tag);
            return off * off;
        });
    });
    for (int64_t c = 0; c < k; c++) {
        double total = 0, squares = 0;
        const auto count_of = [&](int64_t i) { return static_cast<double>(min_of(most, s.positions - i * most)); };
        for (int64_t i = 0; i < chunks; i++) total += count_of(i) * static_cast<double>(rooms.get()[i * 2 * k + c]);
        const double mean = total / static_cast<double>(s.positions);
        for (int64_t i = 0; i < chunks; i++) {
            const double off = static_cast<double>(rooms.get()[i * 2 * k + c]) - mean;
            squares += static_cast<double>(rooms.get()[i * 2 * k + k + c]) + count_of(i) * off * off;
        }
        moments[c] = mean;
        moments[k + c] = squares / static_cast<double>(s.positions);
    }
}

template <class T>
inline T keep_where_positive(T of, T value) {
    return of > T(0) ? value : T(0);
}
template <class T>
inline Vec<T> keep_where_positive(Vec<T> of, Vec<T> value) {
    return of > Vec<T>{} ? value : Vec<T>{};
}

template <class T>
inline Line<T> line_at(const Lines<T>& lines, int64_t c, T) {
    return lines.one(c);
}
template <class T>
inline Line<Vec<T>> line_at(const Lines<T>& lines, int64_t c, Vec<T>) {
    return lines.vector(c);
}

template <class T>
inline void write(T* to, T v) {
    *to = v;
}
template <class T>
inline void write(T* to, Vec<T> v) {
    store(to, v);
}

template <class T>
inline T clip(T v) {
    return T(0) > v ? T(0) : v;
}
template <class T>
inline Vec<T> clip(Vec<T> v) {
    return relu<T>(v);
}

// How the gradient of x depends on the sums over all positions: dx = weight (slope - mean_slope - (x - mean) along).
template <class T>
struct Slopes {
    T *mean_slope, *along;
};

// Adds the chunks' sums of slopes, and of slopes times (x - mean), in their order; sums: (chunks, 2, channels). Gives
// dscale and dshift, and what dx needs; room: 2 channels.
template <class T>
Slopes<T> join_slopes(const T* sums, int64_t chunks, const double* moments, const NormShape& s, T* room, T* dscale,
                      T* dshift) {
    const int64_t k = s.channels;
    const Slopes<T> found{room, room + k};
    for (int64_t c = 0; c < k; c++) {
        double slopes = 0, products = 0;
        for (int64_t i = 0; i < chunks; i++) {
            slopes += static_cast<double>(sums[i * 2 * k + c]);
            products += static_cast<double>(sums[i * 2 * k + k + c]);
        }
        const double variance = moments[k + c] + s.eps, n = static_cast<double>(s.positions);
        dshift[c] = static_cast<T>(slopes);
        dscale[c] = static_cast<T>(products / std::sqrt(variance));
        found.mean_slope[c] = s.given ? T(0) : static_cast<T>(slopes / n);
        found.along[c] = s.given ? T(0) : static_cast<T>(products / (variance * n));
    }
    return found;
}

}  // namespace nst::NST_ISA_NS
