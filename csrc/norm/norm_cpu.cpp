// Limited by memory: three passes forward (two reads, one write), five backward. A job takes a chunk of positions that
// fits L1, where its sums are formed channel by channel; chunks are added in their order, in float64.
#include "channels_cpu.h"

namespace nst::NST_ISA_NS {
namespace {

// Calls each(p, c, tag) for all positions of [0, count) and channels.
template <class T, class Each>
void for_each(int64_t count, int64_t channels, const Each& each) {
    constexpr int W = lanes<T>;
    for (int64_t p = 0; p < count; p++) {
        int64_t c = 0;
        for (; c + W <= channels; c += W) each(p, c, Vec<T>{});
        for (; c < channels; c++) each(p, c, T{});
    }
}

}  // namespace

template <class T>
void batch_norm_forward_cpu(const T* x, const T* scale, const T* shift, const NormShape& s, double* moments, T* y) {
    if (s.positions == 0) return;
    if (!s.given) measure(x, s, moments);
    Scratch<T> room(2 * max_of<int64_t>(1, s.channels));
    const Lines<T> lines = lines_of(scale, shift, moments, s, room.get());
    const int64_t most = chunk_positions<T>(s);
    parallel_for(ceil_div(s.positions, most), [&](int64_t job, int) {
        const int64_t at = job * most * s.channels;
        for_each<T>(min_of(most, s.positions - job * most), s.channels, [&](int64_t p, int64_t c, auto tag) {
            const int64_t i = at + p * s.channels + c;
            const auto v = line_at<T>(lines, c, tag)(read<T>(x + i, tag));
            write<T>(y + i, s.relu ? clip<T>(v) : v);
        });
    });
}

template <class T>
void batch_norm_backward_cpu(const T* x, const T* dy, const T* scale, const T* shift, const double* moments,
                             const NormShape& s, T* dx, T* dscale, T* dshift) {
    const int64_t k = s.channels, most = chunk_positions<T>(s), chunks = ceil_div(s.positions, most);
    Scratch<T> room(4 * max_of<int64_t>(1, k)), rooms(max_of<int64_t>(1, chunks) * 2 * k);
    const Lines<T> lines = lines_of(scale, shift, moments, s, room.get());
    const auto slope = [&](int64_t i, int64_t c, auto tag) {  // dy behind the ReLU
        const auto g = read<T>(dy + i, tag);
        return s.relu ? keep_where_positive<T>(line_at<T>(lines, c, tag)(read<T>(x + i, tag)), g) : g;
    };
    parallel_for(chunks, [&](int64_t job, int) {
        const int64_t count = min_of(most, s.positions - job * most), at = job * most * k;
        T* sums = rooms.get() + job * 2 * k;
        sum_channels<T>(count, k, sums, [&](int64_t p, int64_t c, auto tag) { return slope(at + p * k + c, c, tag); });
        sum_channels<T>(count, k, sums + k, [&](int64_t p, int64_t c, auto tag) {
            const int64_t i = at + p * k + c;
            return slope(i, c, tag) * (read<T>(x + i, tag) - read<T>(lines.mean + c, tag));
        });
    });
    const Slopes<T> slopes = join_slopes(rooms.get(), chunks, moments, s, room.get() + 2 * k, dscale, dshift);
    if (!dx) return;
    parallel_for(chunks, [&](int64_t job, int) {
        const int64_t at = job * most * k;
        for_each<T>(min_of(most, s.positions - job * most), k, [&](int64_t p, int64_t c, auto tag) {
            const int64_t i = at + p * k + c;
            const auto off = read<T>(x + i, tag) - read<T>(lines.mean + c, tag);
            write<T>(dx + i, read<T>(lines.weight + c, tag) * (slope(i, c, tag) - read<T>(slopes.mean_slope + c, tag) -
                                                               off * read<T>(slopes.along + c, tag)));
        });
    });
}

#define NST_NORM(T)                                                                                                   \
    template void batch_norm_forward_cpu<T>(const T*, const T*, const T*, const NormShape&, double*, T*);             \
    template void batch_norm_backward_cpu<T>(const T*, const T*, const T*, const T*, const double*, const NormShape&, \
                                             T*, T*, T*);
NST_NORM(float)
NST_NORM(double)

}  // namespace nst::NST_ISA_NS
