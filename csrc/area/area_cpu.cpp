// A pixel's three channels are one vector of four: the fourth lane holds the next pixel's first channel and is never
// used. The table is one pass over the picture, each row a running sum plus the row above. Means: one job a row of a
// result, four loads a place whatever it covers.
#include "area.h"

#include "../common/parallel.h"
#include "../common/scratch.h"
#include "../common/simd.h"

namespace nst::NST_ISA_NS {
namespace {

using std::int64_t;
using std::uint32_t;

constexpr int64_t channels = 3;

typedef uint32_t Sum __attribute__((vector_size(16)));
typedef uint32_t SumInMemory __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Mean __attribute__((vector_size(16)));

inline Sum load_sum(const uint32_t* p) { return *reinterpret_cast<const SumInMemory*>(p); }

struct Part {
    int64_t begin, end;
};

// What place i of `count` touches of the pixels from first to last.
inline Part touched(int64_t first, int64_t last, int64_t i, int64_t count) {
    const int64_t length = last - first;
    return {first + i * length / count, first + ceil_div((i + 1) * length, count)};
}

}  // namespace

void area_sums(const std::uint8_t* levels, int64_t height, int64_t width, uint32_t* sums) {
    const int64_t row = (width + 1) * channels;
    for (int64_t i = 0; i < row; i++) sums[i] = 0;
    for (int64_t y = 0; y < height; y++) {
        const std::uint8_t* from = levels + y * width * channels;
        const uint32_t* above = sums + y * row;
        uint32_t* to = sums + (y + 1) * row;
        uint32_t run[channels] = {};
        for (int64_t k = 0; k < channels; k++) to[k] = 0;
        for (int64_t x = 0; x < width * channels; x += channels)
            for (int64_t k = 0; k < channels; k++) {
                run[k] += from[x + k];
                to[x + channels + k] = above[x + channels + k] + run[k];
            }
    }
}

void area_means(const uint32_t* sums, const int64_t* boxes, AreaShape s, float shift, float scale, float* out) {
    const int64_t row = (s.width + 1) * channels;
    Scratch<Part> columns(s.count * s.columns);
    for (int64_t n = 0; n < s.count; n++)
        for (int64_t q = 0; q < s.columns; q++)
            columns.get()[n * s.columns + q] = touched(boxes[4 * n], boxes[4 * n + 2], q, s.columns);
    parallel_for(s.count * s.rows, [&](int64_t job, int) {
        const int64_t n = job / s.rows;
        const Part down = touched(boxes[4 * n + 1], boxes[4 * n + 3], job % s.rows, s.rows);
        const uint32_t *top = sums + down.begin * row, *bottom = sums + down.end * row;
        const float height = static_cast<float>(down.end - down.begin);
        float* to = out + job * s.columns * channels;
        for (int64_t q = 0; q < s.columns; q++, to += channels) {
            const Part across = columns.get()[n * s.columns + q];
            const int64_t left = across.begin * channels, right = across.end * channels;
            const Sum total =
                load_sum(bottom + right) - load_sum(top + right) - load_sum(bottom + left) + load_sum(top + left);
            const Mean mean =
                __builtin_convertvector(total, Mean) / (height * static_cast<float>(across.end - across.begin));
            const Mean value = (mean - shift) * scale;
            for (int64_t k = 0; k < channels; k++) to[k] = value[k];
        }
    });
}

}  // namespace nst::NST_ISA_NS
