// Distances and inner products: a job takes a few panels of b, packs them once, and runs blocks of rows of a past them;
// a tile of distances is finished (norms added, close pairs redone) while it lies in the first-level cache. When a and
// b are the same array only squares on or right of the diagonal are computed (symmetric_sqdist).
//
//                b: panels of NR rows, packed
//             +----+----+----+----+
//   a  block  | t0 | t1 | t2 | t3 |  <- tiles, one after
//      block  | .. |    |    |    |     the other, in L1
#include "pairwise.h"

#include "similarity_cpu.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int64_t wanted_jobs = 32;   // enough for every thread, however they finish
constexpr int64_t most_panels = 4;    // of one job: packed, they fill a quarter of the second-level cache at depth 128
constexpr int64_t fewest_rows = 512;  // of one job; packing its panels again must be cheap beside using them

// How (rows x columns) is cut into jobs, by the shape alone.
struct Cut {
    int64_t panels, blocks, chunks;  // panels a job, jobs across, jobs down
};

template <class T>
Cut cut_of(int64_t rows, int64_t columns) {
    const int64_t all = Columns<T>::panels_of(columns);
    const int64_t panels = max_of<int64_t>(1, min_of(most_panels, all / wanted_jobs));
    const int64_t blocks = ceil_div(all, panels);
    const int64_t chunks = min_of(ceil_div(wanted_jobs, max_of<int64_t>(1, blocks)), rows / fewest_rows);
    return {panels, blocks, max_of<int64_t>(1, chunks)};
}

template <class T, class Pair>
void every_pair(const T* a, const T* b, const PairwiseShape& s, T* out, const Pair& pair) {
    constexpr int64_t span = 4096;
    const int64_t spans = ceil_div(s.columns, span), row_jobs = ceil_div(s.rows, span);
    parallel_for(row_jobs * spans, [&](int64_t job, int) {
        const int64_t i1 = min_of(s.rows, (job / spans + 1) * span), j1 = min_of(s.columns, (job % spans + 1) * span);
        for (int64_t i = job / spans * span; i < i1; i++)
            for (int64_t j = job % spans * span; j < j1; j++)
                out[i * s.columns + j] = pair(a + i * s.depth, b + j * s.depth, s.depth);
    });
}

// norms: of the rows of a; null for inner products.
template <class T>
void every_tile(const T* a, const T* b, const PairwiseShape& s, const T* norms, T* out) {
    constexpr int NR = Tile<T>::NR;
    const Cut cut = cut_of<T>(s.rows, s.columns);
    const int64_t packed = cut.panels * NR * s.depth, room = packed + cut.panels * NR + block_rows<T> * NR;
    Scratch<T> rooms(num_threads() * room);
    parallel_for(cut.blocks * cut.chunks, [&](int64_t job, int thread) {
        const int64_t j = job / cut.chunks * cut.panels * NR, count = min_of(cut.panels * NR, s.columns - j);
        const int64_t chunk = job % cut.chunks;
        const int64_t first = s.rows * chunk / cut.chunks, last = s.rows * (chunk + 1) / cut.chunks;
        T* at = rooms.get() + thread * room;
        const Columns<T> columns{b + j * s.depth, count, s.depth, at, at + packed};
        T* tile = at + packed + cut.panels * NR;
        columns.pack();
        for (int64_t i = first; i < last; i += block_rows<T>) {
            const int64_t rows = min_of(block_rows<T>, last - i);
            for (int64_t p = 0; p < columns.panels(); p++) {
                const T* panel = columns.packed + p * s.depth * NR;
                rows_product<T>(rows, NR, a + i * s.depth, s.depth, panel, s.depth, tile, NR, false);
                if (norms) finish_distances(a + i * s.depth, norms + i, rows, columns, p, tile);
                write_tile(tile, rows, columns.width(p), out + i * s.columns + j + p * NR, s.columns);
            }
        }
    });
}

constexpr int64_t unit_rows = 64;  // of one job

template <class T>
void normalise(const T* a, int64_t rows, int64_t depth, T* u, double* inverse) {
    parallel_for(ceil_div(rows, unit_rows), [&](int64_t job, int) {
        for (int64_t i = job * unit_rows; i < min_of(rows, (job + 1) * unit_rows); i++)
            inverse[i] = unit_row(a + i * depth, depth, u + i * depth);
    });
}

// d_i = (e_i - (e_i . u_i) u_i) inverse_i, in the place of e.
template <class T>
void project(const T* u, const double* inverse, int64_t rows, int64_t depth, T* e) {
    parallel_for(ceil_div(rows, unit_rows), [&](int64_t job, int) {
        for (int64_t i = job * unit_rows; i < min_of(rows, (job + 1) * unit_rows); i++) {
            const T *unit = u + i * depth, along = direct_dot(e + i * depth, unit, depth);
            for (int64_t k = 0; k < depth; k++) {
                T& d = e[i * depth + k];
                d = static_cast<T>(static_cast<double>(d - along * unit[k]) * inverse[i]);
            }
        }
    });
}

}  // namespace

template <class T>
void pairwise_sqdist_forward_cpu(const T* a, const T* b, PairwiseShape s, T* out) {
    if (min_of(s.rows, s.columns) <= few_rows) return every_pair(a, b, s, out, direct_sqdist<T>);
    if (a == b && s.rows == s.columns) return symmetric_sqdist(a, s.rows, s.depth, out, s.columns);
    Scratch<T> norms(s.rows);
    parallel_for(ceil_div(s.rows, fewest_rows), [&](int64_t job, int) {
        for (int64_t i = job * fewest_rows; i < min_of(s.rows, (job + 1) * fewest_rows); i++)
            norms.get()[i] = squared_norm(a + i * s.depth, s.depth);
    });
    every_tile(a, b, s, norms.get(), out);
}

template <class T>
void pairwise_sqdist_backward_cpu(const T* a, const T* b, const T* g, PairwiseShape s, T* da, T* db) {
    if (da) weighted_differences<T, false>(g, s.columns, a, b, s.rows, s.columns, s.depth, T(1), da);
    if (db) weighted_differences<T, true>(g, s.columns, b, a, s.columns, s.rows, s.depth, T(1), db);
}

template <class T>
void pairwise_inner_forward_cpu(const T* a, const T* b, PairwiseShape s, T* out) {
    if (min_of(s.rows, s.columns) <= few_rows) return every_pair(a, b, s, out, direct_dot<T>);
    every_tile<T>(a, b, s, nullptr, out);
}

template <class T>
void pairwise_inner_backward_cpu(const T* a, const T* b, const T* g, PairwiseShape s, T* da, T* db) {
    if (da) weighted_differences<T, false>(g, s.columns, nullptr, b, s.rows, s.columns, s.depth, T(1), da);
    if (db) weighted_differences<T, true>(g, s.columns, nullptr, a, s.columns, s.rows, s.depth, T(1), db);
}

template <class T>
void pairwise_cosine_forward_cpu(const T* a, const T* b, PairwiseShape s, T* u, T* v, double* inverse_a,
                                 double* inverse_b, T* out) {
    normalise(a, s.rows, s.depth, u, inverse_a);
    normalise(b, s.columns, s.depth, v, inverse_b);
    pairwise_inner_forward_cpu<T>(u, v, s, out);
}

template <class T>
void pairwise_cosine_backward_cpu(const T* u, const T* v, const double* inverse_a, const double* inverse_b, const T* g,
                                  PairwiseShape s, T* da, T* db) {
    pairwise_inner_backward_cpu<T>(u, v, g, s, da, db);
    if (da) project(u, inverse_a, s.rows, s.depth, da);
    if (db) project(v, inverse_b, s.columns, s.depth, db);
}

#define NST_PAIRWISE(T)                                                                                            \
    template void pairwise_sqdist_forward_cpu<T>(const T*, const T*, PairwiseShape, T*);                           \
    template void pairwise_sqdist_backward_cpu<T>(const T*, const T*, const T*, PairwiseShape, T*, T*);            \
    template void pairwise_inner_forward_cpu<T>(const T*, const T*, PairwiseShape, T*);                            \
    template void pairwise_inner_backward_cpu<T>(const T*, const T*, const T*, PairwiseShape, T*, T*);             \
    template void pairwise_cosine_forward_cpu<T>(const T*, const T*, PairwiseShape, T*, T*, double*, double*, T*); \
    template void pairwise_cosine_backward_cpu<T>(const T*, const T*, const double*, const double*, const T*,      \
                                                  PairwiseShape, T*, T*);
NST_PAIRWISE(float)
NST_PAIRWISE(double)

}  // namespace nst::NST_ISA_NS
