// Batch normalisation, ReLU and a 2x2 max pool in one pass. Limited by memory: the full map is read twice forward, read
// once and written once backward; everything else has a quarter of its size.
#include "channels_cpu.h"

namespace nst::NST_ISA_NS {
namespace {

// One channel, or a vector of them: the pixel of a window with the largest value so far.
template <class V>
struct Winner {
    V value, x;
};

template <class T>
inline void challenge(Winner<T>& best, T value, T x) {
    if (value > best.value || (value != value && best.value == best.value)) best = {value, x};
}
template <class T>
inline void challenge(Winner<Vec<T>>& best, Vec<T> value, Vec<T> x) {
    const auto wins = (value > best.value) | ((value != value) & (best.value == best.value));
    best.value = wins ? value : best.value;
    best.x = wins ? x : best.x;
}

// What of `slope` a pixel takes: all of it where x is the window's top, which then is not left for the next pixel.
template <class T>
inline T take(T x, T top, T& slope) {
    const T taken = x == top ? slope : T(0);
    slope = x == top ? T(0) : slope;
    return taken;
}
template <class T>
inline Vec<T> take(Vec<T> x, Vec<T> top, Vec<T>& slope) {
    const Vec<T> taken = x == top ? slope : Vec<T>{};
    slope = x == top ? Vec<T>{} : slope;
    return taken;
}

// Calls each(c, tag) for all channels, a vector of them at a time.
template <class T, class Each>
inline void for_channels(int64_t channels, const Each& each) {
    int64_t c = 0;
    for (; c + lanes<T> <= channels; c += lanes<T>) each(c, Vec<T>{});
    for (; c < channels; c++) each(c, T{});
}

}  // namespace

template <class T>
void batch_norm_pool2d_forward_cpu(const T* x, const T* scale, const T* shift, const NormPoolShape& s, double* moments,
                                   T* y, T* top) {
    const NormShape norm = s.norm();
    if (norm.positions == 0) return;
    if (!s.given) measure(x, norm, moments);
    Scratch<T> room(2 * max_of<int64_t>(1, s.c));
    const Lines<T> lines = lines_of(scale, shift, moments, norm, room.get());
    const int64_t p = s.h / 2, q = s.w / 2;
    parallel_for(s.n * p, [&](int64_t job, int) {
        const T* above = x + (job / p * s.h + job % p * 2) * s.w * s.c;
        for (int64_t j = 0; j < q; j++, above += 2 * s.c) {
            const int64_t to = (job * q + j) * s.c;
            for_channels<T>(s.c, [&](int64_t c, auto tag) {
                using V = decltype(tag);
                const auto line = line_at<T>(lines, c, tag);
                const T* pixels[4] = {above + c, above + s.c + c, above + s.w * s.c + c, above + (s.w + 1) * s.c + c};
                const V first = read<T>(pixels[0], tag);
                Winner<V> best{line(first), first};
                for (int i = 1; i < 4; i++) {
                    const V next = read<T>(pixels[i], tag);
                    challenge<T>(best, line(next), next);
                }
                write<T>(y + to + c, clip<T>(best.value));
                write<T>(top + to + c, best.x);
            });
        }
    });
}

template <class T>
void batch_norm_pool2d_backward_cpu(const T* x, const T* top, const T* dy, const T* scale, const T* shift,
                                    const double* moments, const NormPoolShape& s, T* dx, T* dscale, T* dshift) {
    const NormShape norm = s.norm();
    const int64_t k = s.c, p = s.h / 2, q = s.w / 2, windows = s.n * p * q;
    const int64_t most = chunk_positions<T>(norm), chunks = ceil_div(windows, most);
    Scratch<T> room(4 * max_of<int64_t>(1, k)), rooms(max_of<int64_t>(1, chunks) * 2 * k);
    const Lines<T> lines = lines_of(scale, shift, moments, norm, room.get());
    const auto slope = [&](int64_t i, int64_t c, auto tag) {
        return keep_where_positive<T>(line_at<T>(lines, c, tag)(read<T>(top + i, tag)), read<T>(dy + i, tag));
    };
    parallel_for(chunks, [&](int64_t job, int) {
        const int64_t count = min_of(most, windows - job * most), from = job * most * k;
        T* sums = rooms.get() + job * 2 * k;
        sum_channels<T>(count, k, sums,
                        [&](int64_t i, int64_t c, auto tag) { return slope(from + i * k + c, c, tag); });
        sum_channels<T>(count, k, sums + k, [&](int64_t i, int64_t c, auto tag) {
            const int64_t e = from + i * k + c;
            return slope(e, c, tag) * (read<T>(top + e, tag) - read<T>(lines.mean + c, tag));
        });
    });
    const Slopes<T> slopes = join_slopes(rooms.get(), chunks, moments, norm, room.get() + 2 * k, dscale, dshift);
    if (!dx) return;
    const auto put = [&](int64_t e, int64_t c, auto x_here, auto own) {  // own: the slope that this pixel gets itself
        using V = decltype(own);
        const V off = x_here - read<T>(lines.mean + c, V{});
        write<T>(dx + e, read<T>(lines.weight + c, V{}) *
                             (own - read<T>(slopes.mean_slope + c, V{}) - off * read<T>(slopes.along + c, V{})));
    };
    parallel_for(s.n * ceil_div(s.h, 2), [&](int64_t job, int) {
        const int64_t n = job / ceil_div(s.h, 2), i = job % ceil_div(s.h, 2), row = s.w * k;
        const int64_t first = (n * s.h + 2 * i) * row, window = (n * p + i) * q * k;
        for (int64_t j = 0; i < p && j < q; j++)
            for_channels<T>(k, [&](int64_t c, auto tag) {
                using V = decltype(tag);
                const int64_t w = window + j * k + c, e = first + 2 * j * k + c;
                const V best = read<T>(top + w, tag);
                V left = slope(w, c, tag);
                const int64_t pixels[4] = {e, e + k, e + row, e + row + k};
                for (const int64_t at : pixels) {
                    const V here = read<T>(x + at, tag);
                    put(at, c, here, take<T>(here, best, left));
                }
            });
        for (int64_t r = 0; r < min_of<int64_t>(2, s.h - 2 * i); r++)  // what the pool drops
            for (int64_t j = i < p ? 2 * q : 0; j < s.w; j++)
                for_channels<T>(k, [&](int64_t c, auto tag) {
                    const int64_t e = first + r * row + j * k + c;
                    put(e, c, read<T>(x + e, tag), decltype(tag){});
                });
    });
}

#define NST_NORM_POOL(T)                                                                                             \
    template void batch_norm_pool2d_forward_cpu<T>(const T*, const T*, const T*, const NormPoolShape&, double*, T*,  \
                                                   T*);                                                              \
    template void batch_norm_pool2d_backward_cpu<T>(const T*, const T*, const T*, const T*, const T*, const double*, \
                                                    const NormPoolShape&, T*, T*, T*);
NST_NORM_POOL(float)
NST_NORM_POOL(double)

}  // namespace nst::NST_ISA_NS
