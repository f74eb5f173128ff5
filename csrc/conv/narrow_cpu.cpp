// Gradient of the input for few channels (a network's first layer), where the product of patches would fill only a few
// of a panel's columns.
//
//   dy row (q x k)  x  weights (k x r s c)  =  parts (q x r s c),   each part added to dx where its tap lies
//
// A job is a band of dx's rows: it computes the parts of every dy row that reaches into the band, and adds those that
// fall inside. An element of dx is summed over the rows of dy in their order, whatever the bands.
#include "narrow_cpu.h"

#include "../common/gemm_cpu.h"
#include "../common/parallel.h"
#include "../common/scratch.h"
#include "gather_cpu.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int64_t band_rows = 16;

// dx row y += what tap row r of the parts of one dy row contributes; parts: (q, ld).
template <class T>
void add_tap_row(const T* parts, int64_t ld, const ConvShape& s, int64_t r, T* row) {
    const int64_t span = s.s * s.c;  // elements that one position adds, contiguous in the row
    for (int64_t q = 0; q < s.q; q++) {
        const int64_t at = (q * s.stride_w - s.pad_left) * s.c;
        const int64_t first = max_of<int64_t>(0, -at), last = min_of(span, s.w * s.c - at);
        const T* part = parts + q * ld + r * span;
        for (int64_t i = first; i < last; i++) row[at + i] += part[i];
    }
}

}  // namespace

template <class T>
void backward_input_narrow(const T* dy, const T* active, const T* w, const ConvShape& s, T* dx) {
    constexpr int64_t NR = Tile<T>::NR;
    const int64_t depth = s.r * s.s * s.c, panels = ceil_div(depth, NR), wide = panels * NR;
    const int64_t bands = ceil_div(s.h, band_rows), room = s.q * (wide + (active ? s.k : 0));
    Scratch<T> packed(s.k * wide), rooms(num_threads() * room);
    pack_panels(w, depth, 1, s.k, depth, packed.get());
    parallel_for(s.n * bands, [&](int64_t job, int thread) {
        const int64_t n = job / bands, y0 = job % bands * band_rows, y1 = min_of(s.h, y0 + band_rows);
        T *parts = rooms.get() + thread * room, *image = dx + n * s.h * s.w * s.c;
        fill_zero(image + y0 * s.w * s.c, (y1 - y0) * s.w * s.c);
        for (int64_t p = 0; p < s.p; p++) {
            const int64_t top = p * s.stride_h - s.pad_top;  // the dx row of tap row 0
            if (top + s.r <= y0 || top >= y1) continue;
            const int64_t at = (n * s.p + p) * s.q * s.k;
            const T* row = dy + at;
            if (active) {
                copy_active(row, active + at, s.q * s.k, parts + s.q * wide);
                row = parts + s.q * wide;
            }
            for (int64_t j = 0; j < panels; j++)
                rows_product<T>(s.q, NR, row, s.k, packed.get() + j * s.k * NR, s.k, parts + j * NR, wide, false);
            for (int64_t r = max_of<int64_t>(0, y0 - top); r < min_of(s.r, y1 - top); r++)
                add_tap_row(parts, wide, s, r, image + (top + r) * s.w * s.c);
        }
    });
}

template void backward_input_narrow<float>(const float*, const float*, const float*, const ConvShape&, float*);
template void backward_input_narrow<double>(const double*, const double*, const double*, const ConvShape&, double*);

}  // namespace nst::NST_ISA_NS
