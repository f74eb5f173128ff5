// Limited by memory: one pass. Channels are seldom a multiple of a vector, so the slopes are first repeated over as
// many rows as a vector has lanes; then the array is a plain run of elements, and every vector is full. One job a chunk
// of rows, a multiple of those.
#include "prelu.h"

#include "../common/parallel.h"
#include "../common/scratch.h"
#include "../common/simd.h"

namespace nst::NST_ISA_NS {
namespace {

using std::int64_t;

constexpr int64_t chunk = 1 << 15;  // about so many elements a job

template <class T>
struct Chunks {
    int64_t rows, channels, step, count;  // `step` rows a chunk
    Chunks(int64_t r, int64_t c)
        : rows(r),
          channels(c),
          step(ceil_div(chunk, max_of<int64_t>(c, 1) * lanes<T>) * lanes<T>),
          count(c > 0 ? ceil_div(r, step) : 0) {}
    int64_t first(int64_t i) const { return i * step * channels; }
    int64_t last(int64_t i) const { return min_of((i + 1) * step, rows) * channels; }
};

template <class T>
void repeat(const T* slope, int64_t channels, T* tile) {
    for (int64_t i = 0; i < channels * lanes<T>; i++) tile[i] = slope[i % channels];
}

// to[i] = from[i] where x[i] > 0, else slope from[i]; the run begins with channel 0.
template <class T>
void select(const T* x, const T* from, const T* tile, int64_t period, int64_t count, T* to) {
    for (int64_t start = 0; start < count; start += period) {
        const int64_t n = min_of(period, count - start);
        int64_t i = 0;
        for (; i + lanes<T> <= n; i += lanes<T>) {
            const Vec<T> v = load(from + start + i);
            store(to + start + i, load(x + start + i) > Vec<T>{} ? v : load(tile + i) * v);
        }
        for (; i < n; i++) to[start + i] = x[start + i] > 0 ? from[start + i] : tile[i] * from[start + i];
    }
}

}  // namespace

template <class T>
void prelu_forward_cpu(const T* x, const T* slope, int64_t rows, int64_t channels, T* y) {
    const Chunks<T> chunks(rows, channels);
    Scratch<T> tile(channels * lanes<T>);
    repeat(slope, channels, tile.get());
    parallel_for(chunks.count, [&](int64_t i, int) {
        const int64_t first = chunks.first(i);
        select(x + first, x + first, tile.get(), channels * lanes<T>, chunks.last(i) - first, y + first);
    });
}

template <class T>
void prelu_backward_cpu(const T* x, const T* slope, const T* dy, int64_t rows, int64_t channels, T* dx, T* dslope) {
    const Chunks<T> chunks(rows, channels);
    if (dx) {
        Scratch<T> tile(channels * lanes<T>);
        repeat(slope, channels, tile.get());
        parallel_for(chunks.count, [&](int64_t i, int) {
            const int64_t first = chunks.first(i);
            select(x + first, dy + first, tile.get(), channels * lanes<T>, chunks.last(i) - first, dx + first);
        });
    }
    if (!dslope) return;
    Scratch<double> sums(max_of<int64_t>(chunks.count, 1) * channels);
    parallel_for(chunks.count, [&](int64_t i, int) {
        double* sum = sums.get() + i * channels;
        for (int64_t k = 0; k < channels; k++) sum[k] = 0;
        for (int64_t p = chunks.first(i); p < chunks.last(i); p += channels)
            for (int64_t k = 0; k < channels; k++) {
                const T value = x[p + k];
                sum[k] += value > 0 ? 0.0 : static_cast<double>(dy[p + k]) * static_cast<double>(value);
            }
    });
    for (int64_t k = 0; k < channels; k++) {
        double total = 0;
        for (int64_t i = 0; i < chunks.count; i++) total += sums.get()[i * channels + k];
        dslope[k] = static_cast<T>(total);
    }
}

#define NST_PRELU(T)                                                              \
    template void prelu_forward_cpu<T>(const T*, const T*, int64_t, int64_t, T*); \
    template void prelu_backward_cpu<T>(const T*, const T*, const T*, int64_t, int64_t, T*, T*);
NST_PRELU(float)
NST_PRELU(double)

}  // namespace nst::NST_ISA_NS
