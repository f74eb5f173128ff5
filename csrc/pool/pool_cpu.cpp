// Pooling, a vector of channels at a time. Forward: one job a row of the result, each pixel reads its window. Backward:
// one job a row of dx, each pixel collects from the windows over it, in row-major order; so nothing is written twice,
// nothing races, and dx needs no zeros first. Where windows abut, a pixel lies in one window at most, and one job a row
// of windows spreads each result over its window, past the caches if dx is large.
//
//   forward  (3x3, stride 2)              backward
//   x  . . . . . . .                      dx  . . . . .        a pixel lies in up to
//      [-----]                                    ^            ceil(window / stride)^2
//          [-----]                        dy   [1][2]          windows: here rows 0..1,
//   y     o   o                                [3][4]          columns 0..1
#include "pool.h"

#include <type_traits>

#include "../common/parallel.h"
#include "../common/scratch.h"
#include "../common/simd.h"

namespace nst::NST_ISA_NS {
namespace {

using std::int64_t;

// As many integers of two and of four bytes as a vector has elements.
template <class T>
struct Steps;
template <>
struct Steps<float> {
    typedef std::uint16_t Two __attribute__((vector_size(vector_bytes / 2)));
    typedef std::int32_t Four __attribute__((vector_size(vector_bytes)));
};
template <>
struct Steps<double> {
    typedef std::uint16_t Two __attribute__((vector_size(vector_bytes / 4)));
    typedef std::int32_t Four __attribute__((vector_size(vector_bytes / 2)));
};

// Two ways to walk over channels: Wide takes a vector, Single one channel (for fewer channels than a vector has lanes).
// I is an integer, or a vector of integers as wide as T: it holds the winning taps. wins: v is larger, or the first
// NaN.
template <class T>
struct Wide {
    using V = Vec<T>;
    using I = decltype(V{} < V{});
    using Element = std::remove_reference_t<decltype(I{}[0])>;
    static V get(const T* p) { return load(p); }
    static void put(T* p, V v) { store(p, v); }
    static I wins(V v, V best) { return ~(v <= best) & (best == best); }
    static I number(int64_t i) { return I{} + static_cast<Element>(i); }
    template <class Index>
    static I get_index(const Index* p) {
        typedef Index Narrow __attribute__((vector_size(lanes<T> * sizeof(Index))));
        Narrow narrow;
        __builtin_memcpy(&narrow, p, sizeof(narrow));
        if constexpr (sizeof(Index) == 1) {  // by doubling: a fourfold step is taken apart lane by lane
            const typename Steps<T>::Two two = __builtin_convertvector(narrow, typename Steps<T>::Two);
            const typename Steps<T>::Four four = __builtin_convertvector(two, typename Steps<T>::Four);
            return __builtin_convertvector(four, I);
        } else {
            return __builtin_convertvector(narrow, I);
        }
    }
    template <class Index>
    static void put_index(Index* p, I i) {
        typedef Index Narrow __attribute__((vector_size(lanes<T> * sizeof(Index))));
        const Narrow narrow = __builtin_convertvector(i, Narrow);
        __builtin_memcpy(p, &narrow, sizeof(narrow));
    }
};

template <class T>
struct Single {
    using V = T;
    using I = int64_t;
    static V get(const T* p) { return *p; }
    static void put(T* p, V v) { *p = v; }
    static bool wins(V v, V best) { return !(v <= best) && best == best; }
    static I number(int64_t i) { return i; }
    template <class Index>
    static I get_index(const Index* p) {
        return *p;
    }
    template <class Index>
    static void put_index(Index* p, I i) {
        *p = static_cast<Index>(i);
    }
};

// Calls body(way, c) so that all channels are covered; the last vector overlaps the one before it where it must.
template <class T, class Body>
inline void over_channels(int64_t channels, const Body& body) {
    constexpr int W = lanes<T>;
    if (channels < W) {
        for (int64_t c = 0; c < channels; c++) body(Single<T>{}, c);
        return;
    }
    for (int64_t c = 0; c + W <= channels; c += W) body(Wide<T>{}, c);
    if (channels % W) body(Wide<T>{}, channels - W);
}

// The taps [first, last) of one window that lie on the picture; tap 0 lies at pixel `start`, perhaps outside.
struct Taps {
    int64_t start, first, last;
};

inline Taps taps_of(const PoolAxis& a, int64_t window) {
    const int64_t start = window * a.stride - a.padding;
    return {start, max_of<int64_t>(0, -start), min_of(a.window, a.in - start)};
}

// How many positions of a window count in the average along one axis.
inline int64_t counted(const PoolAxis& a, const Taps& t, bool count_padding) {
    return count_padding ? min_of(t.start + a.window, a.in + a.padding) - t.start : t.last - t.first;
}

// The windows [first, last) that hold a pixel, followed from pixel to pixel without a division.
struct Holders {
    int64_t first = 0, last = 0;
    void move_to(const PoolAxis& a, int64_t pixel) {
        while (last < a.out && last * a.stride <= pixel + a.padding) last++;
        while (first < last && first * a.stride + a.window <= pixel + a.padding) first++;
    }
};

inline Holders holders_of(const PoolAxis& a, int64_t pixel) {
    Holders h;
    const int64_t beyond = pixel + a.padding - a.window;  // the last window that ends before the pixel starts here
    h.first = beyond < 0 ? 0 : min_of(a.out, beyond / a.stride + 1);
    h.last = h.first;
    h.move_to(a, pixel);
    return h;
}

// One pixel of y. K x K taps when K > 0 (all on the picture), else those of ty and tx.
template <class T, class Index, int K>
inline void max_of_window(const T* x, int64_t width, int64_t channels, int64_t row_taps, const Taps& ty, const Taps& tx,
                          T* y, Index* at) {
    const int64_t r0 = K ? 0 : ty.first, r1 = K ? K : ty.last, q0 = K ? 0 : tx.first, q1 = K ? K : tx.last;
    const T* corner = x + ((ty.start + r0) * width + tx.start + q0) * channels;
    over_channels<T>(channels, [&](auto way, int64_t c) {
        using Way = decltype(way);
        typename Way::V best = Way::get(corner + c);
        typename Way::I winner = Way::number(r0 * row_taps + q0);
        for (int64_t r = r0; r < r1; r++)
            for (int64_t q = q0; q < q1; q++) {
                const typename Way::V v = Way::get(corner + ((r - r0) * width + q - q0) * channels + c);
                const auto wins = Way::wins(v, best);
                best = wins ? v : best;
                winner = wins ? Way::number(r * row_taps + q) : winner;
            }
        Way::put(y + c, best);
        if (at) Way::put_index(at + c, winner);
    });
}

template <class T>
inline void mean_of_window(const T* x, int64_t width, int64_t channels, const Taps& ty, const Taps& tx, T count, T* y) {
    const T* corner = x + ((ty.start + ty.first) * width + tx.start + tx.first) * channels;
    over_channels<T>(channels, [&](auto way, int64_t c) {
        using Way = decltype(way);
        typename Way::V sum{};
        for (int64_t r = 0; r < ty.last - ty.first; r++)
            for (int64_t q = 0; q < tx.last - tx.first; q++) sum += Way::get(corner + (r * width + q) * channels + c);
        Way::put(y + c, sum / count);
    });
}

// What one pixel has from one window over it: where the window's result lies, which tap the pixel is, 1 / count.
template <class T>
struct Part {
    int64_t pixel, tap;
    T weight;
};

// Each pixel of dx: lists its parts, row by row, and puts what gather(way, parts, count, channel) makes of them.
template <class T, class Gather>
void collect(const PoolShape& s, T* dx, const Gather& gather) {
    const int64_t most = ceil_div(s.y.window, s.y.stride) * ceil_div(s.x.window, s.x.stride), c = s.channels;
    Scratch<Part<T>> lists(num_threads() * most);
    parallel_for(s.images * s.y.in, [&](int64_t row, int thread) {
        const int64_t image = row / s.y.in, i = row % s.y.in;
        const Holders hy = holders_of(s.y, i);
        Holders hx;
        Part<T>* parts = lists.get() + thread * most;
        for (int64_t j = 0; j < s.x.in; j++) {
            hx.move_to(s.x, j);
            int64_t count = 0;
            for (int64_t p = hy.first; p < hy.last; p++)
                for (int64_t q = hx.first; q < hx.last; q++) {
                    const Taps ty = taps_of(s.y, p), tx = taps_of(s.x, q);
                    const int64_t shared = counted(s.y, ty, s.count_padding) * counted(s.x, tx, s.count_padding);
                    parts[count++] = {((image * s.y.out + p) * s.x.out + q) * c,
                                      (i - ty.start) * s.x.window + j - tx.start, T(1) / static_cast<T>(shared)};
                }
            over_channels<T>(c, [&](auto way, int64_t k) {
                decltype(way)::put(dx + (row * s.x.in + j) * c + k, gather(way, parts, count, k));
            });
        }
    });
}

// Whether every pixel lies in one window at most, and no window hangs over the edge.
inline bool abut(const PoolAxis& a) { return a.window == a.stride && a.padding == 0 && a.out * a.window <= a.in; }

// One pixel of dx: value(way, channel) for all its channels.
template <class T, bool Stream, class Value>
inline void put_pixel(T* to, int64_t channels, const Value& value) {
    over_channels<T>(channels, [&](auto way, int64_t c) {
        using Way = decltype(way);
        if constexpr (Stream && std::is_same_v<Way, Wide<T>>) store_stream(to + c, value(way, c));
        else Way::put(to + c, value(way, c));
    });
}

// Fills dx with value(way, first element of the window's result, tap, channel), windows abutting, and with zeros
// where no window is.
template <class T, bool Stream, class Value>
void spread(const PoolShape& s, T* dx, const Value& value) {
    const int64_t c = s.channels, width = s.x.in, covered = s.x.out * s.x.window;
    const auto zero = [](auto way, int64_t) { return typename decltype(way)::V{}; };
    const int64_t bands = ceil_div(s.y.in, s.y.window);  // the last one may have no windows
    parallel_for(s.images * bands, [&](int64_t job, int) {
        const int64_t n = job / bands, p = job % bands, first = p * s.y.window;
        for (int64_t i = first; i < min_of(first + s.y.window, s.y.in); i++) {
            T* row = dx + (n * s.y.in + i) * width * c;
            const int64_t results = (n * s.y.out + p) * s.x.out * c, tap = (i - first) * s.x.window;
            const int64_t full = p < s.y.out ? covered : 0;
            for (int64_t j = 0, window = 0; j < full; window++)
                for (int64_t q = 0; q < s.x.window; q++, j++)
                    put_pixel<T, Stream>(row + j * c, c, [&](auto way, int64_t k) {
                        return value(way, results + window * c, tap + q, k);
                    });
            for (int64_t j = full; j < width; j++) put_pixel<T, Stream>(row + j * c, c, zero);
        }
        if (Stream) stream_end();
    });
}

// Spreads where windows abut; false where they do not.
template <class T, class Value>
bool spread_if_abutting(const PoolShape& s, T* dx, const Value& value) {
    if (!abut(s.y) || !abut(s.x)) return false;
    if (can_stream(dx, s.images * s.y.in * s.x.in * s.channels, s.channels)) spread<T, true>(s, dx, value);
    else spread<T, false>(s, dx, value);
    return true;
}

}  // namespace

template <class T, class Index>
void max_pool2d_forward_cpu(const T* x, const PoolShape& s, T* y, Index* at) {
    const int64_t c = s.channels, row_taps = s.x.window;
    const int64_t fixed = s.y.window == s.x.window ? s.y.window : 0;  // 2 and 3 are unrolled
    parallel_for(s.images * s.y.out, [&](int64_t row, int) {
        const T* image = x + row / s.y.out * s.y.in * s.x.in * c;
        const Taps ty = taps_of(s.y, row % s.y.out);
        const bool full_rows = ty.last - ty.first == s.y.window;
        for (int64_t q = 0; q < s.x.out; q++) {
            const Taps tx = taps_of(s.x, q);
            const bool full = full_rows && tx.last - tx.first == s.x.window;
            const int64_t pixel = (row * s.x.out + q) * c;
            T* to = y + pixel;
            Index* winner = at ? at + pixel : nullptr;
            if (full && fixed == 2) max_of_window<T, Index, 2>(image, s.x.in, c, row_taps, ty, tx, to, winner);
            else if (full && fixed == 3) max_of_window<T, Index, 3>(image, s.x.in, c, row_taps, ty, tx, to, winner);
            else max_of_window<T, Index, 0>(image, s.x.in, c, row_taps, ty, tx, to, winner);
        }
    });
}

template <class T, class Index>
void max_pool2d_backward_cpu(const T* dy, const Index* at, const PoolShape& s, T* dx) {
    const auto won_by = [&](auto way, int64_t result, int64_t tap, int64_t c) {
        using Way = decltype(way);
        const auto won = Way::get_index(at + result + c) == Way::number(tap);
        return won ? Way::get(dy + result + c) : typename Way::V{};
    };
    if (spread_if_abutting<T>(s, dx, won_by)) return;
    collect<T>(s, dx, [&](auto way, const Part<T>* parts, int64_t count, int64_t c) {
        using Way = decltype(way);
        typename Way::V sum{};
        for (int64_t i = 0; i < count; i++) {
            const auto won = Way::get_index(at + parts[i].pixel + c) == Way::number(parts[i].tap);
            sum += won ? Way::get(dy + parts[i].pixel + c) : typename Way::V{};
        }
        return sum;
    });
}

template <class T>
void avg_pool2d_forward_cpu(const T* x, const PoolShape& s, T* y) {
    const int64_t c = s.channels;
    parallel_for(s.images * s.y.out, [&](int64_t row, int) {
        const T* image = x + row / s.y.out * s.y.in * s.x.in * c;
        const Taps ty = taps_of(s.y, row % s.y.out);
        for (int64_t q = 0; q < s.x.out; q++) {
            const Taps tx = taps_of(s.x, q);
            const int64_t count = counted(s.y, ty, s.count_padding) * counted(s.x, tx, s.count_padding);
            mean_of_window<T>(image, s.x.in, c, ty, tx, static_cast<T>(count), y + (row * s.x.out + q) * c);
        }
    });
}

template <class T>
void avg_pool2d_backward_cpu(const T* dy, const PoolShape& s, T* dx) {
    const T share = T(1) / static_cast<T>(s.y.window * s.x.window);
    const auto part_of = [&](auto way, int64_t result, int64_t, int64_t c) {
        return share * decltype(way)::get(dy + result + c);
    };
    if (spread_if_abutting<T>(s, dx, part_of)) return;
    collect<T>(s, dx, [&](auto way, const Part<T>* parts, int64_t count, int64_t c) {
        using Way = decltype(way);
        typename Way::V sum{};
        for (int64_t i = 0; i < count; i++) sum += parts[i].weight * Way::get(dy + parts[i].pixel + c);
        return sum;
    });
}

#define NST_POOL_INDEX(T, Index)                                                            \
    template void max_pool2d_forward_cpu<T, Index>(const T*, const PoolShape&, T*, Index*); \
    template void max_pool2d_backward_cpu<T, Index>(const T*, const Index*, const PoolShape&, T*);
#define NST_POOL(T)                                                          \
    NST_POOL_INDEX(T, std::uint8_t)                                          \
    NST_POOL_INDEX(T, std::int32_t)                                          \
    template void avg_pool2d_forward_cpu<T>(const T*, const PoolShape&, T*); \
    template void avg_pool2d_backward_cpu<T>(const T*, const PoolShape&, T*);
NST_POOL(float)
NST_POOL(double)

}  // namespace nst::NST_ISA_NS
