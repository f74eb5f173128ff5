// The highest value of each channel and where it lies. One job a block of pixels, which stays in the second-level cache
// while it is gone through once for each few vectors of channels; best value and place are kept in registers. Then the
// blocks are compared in their order, so that of equal values the first one wins, whatever the number of threads.
#include <limits>

#include "../common/parallel.h"
#include "../common/scratch.h"
#include "../common/simd.h"
#include "pool.h"

namespace nst::NST_ISA_NS {
namespace {

using std::int64_t;

constexpr int64_t block_bytes = 128 << 10;
constexpr int held = 4;  // vectors of channels at a time

// A block's best values and their pixels, counted from `first`; -1 where nothing is above -infinity.
template <class T>
struct Block {
    const T* x;
    int64_t pixels, channels, first;
    T* value;
    int64_t* at;
};

template <class T, int Vectors>
inline void vectors_of(const Block<T>& b, int64_t c) {
    using V = Vec<T>;
    using I = decltype(V{} < V{});
    constexpr int W = lanes<T>;
    V best[Vectors];
    I place[Vectors], now{};
    for (int k = 0; k < Vectors; k++) {
        best[k] = V{} - std::numeric_limits<T>::infinity();
        place[k] = I{} - 1;
    }
    const T* from = b.x + c;
    for (int64_t p = 0; p < b.pixels; p++, from += b.channels, now += 1)
        for (int k = 0; k < Vectors; k++) {
            const V v = load(from + k * W);
            const I above = v > best[k];  // false for NaN
            best[k] = above ? v : best[k];
            place[k] = above ? now : place[k];
        }
    for (int k = 0; k < Vectors; k++) {
        store(b.value + c + k * W, best[k]);
        for (int lane = 0; lane < W; lane++)
            b.at[c + k * W + lane] = place[k][lane] < 0 ? -1 : b.first + place[k][lane];
    }
}

template <class T>
void search(const Block<T>& b) {
    constexpr int64_t W = lanes<T>;
    int64_t c = 0;
    for (; c + held * W <= b.channels; c += held * W) vectors_of<T, held>(b, c);
    for (; c + W <= b.channels; c += W) vectors_of<T, 1>(b, c);
    for (; c < b.channels; c++) {
        T best = -std::numeric_limits<T>::infinity();
        int64_t place = -1;
        for (int64_t p = 0; p < b.pixels; p++)
            if (const T v = b.x[p * b.channels + c]; v > best) best = v, place = b.first + p;
        b.value[c] = best;
        b.at[c] = place;
    }
}

}  // namespace

template <class T>
void channel_peaks_forward_cpu(const T* x, int64_t images, int64_t pixels, int64_t channels, T* value, int64_t* at) {
    const int64_t row = max_of<int64_t>(1, channels * static_cast<int64_t>(sizeof(T)));
    const int64_t step = max_of<int64_t>(1, block_bytes / row), blocks = max_of<int64_t>(1, ceil_div(pixels, step));
    Scratch<T> values(images * blocks * channels);
    Scratch<int64_t> places(images * blocks * channels);
    parallel_for(images * blocks, [&](int64_t job, int) {
        const int64_t image = job / blocks, first = job % blocks * step;
        search<T>({x + (image * pixels + first) * channels, min_of(step, pixels - first), channels, first,
                   values.get() + job * channels, places.get() + job * channels});
    });
    for (int64_t image = 0; image < images; image++)
        for (int64_t block = 0; block < blocks; block++)
            for (int64_t c = 0; c < channels; c++) {
                const int64_t from = (image * blocks + block) * channels + c, to = image * channels + c;
                if (block && !(values.get()[from] > value[to])) continue;
                value[to] = values.get()[from];
                at[to] = places.get()[from];
            }
}

#define NST_INSTANTIATE(T) \
    template void channel_peaks_forward_cpu<T>(const T*, int64_t, int64_t, int64_t, T*, int64_t*);
NST_INSTANTIATE(float)
NST_INSTANTIATE(double)
#undef NST_INSTANTIATE

}  // namespace nst::NST_ISA_NS
