// Distances: a job takes a few panels of b, packs them once, and runs blocks of rows of a past them; a tile is finished
// (norms added, close pairs redone) while it lies in the first-level cache. When a and b are the same array only tiles
// on or right of the diagonal are computed, and mirrored.
//
//                b: panels of NR rows, packed                nearest: points run past packed queries
//             +----+----+----+----+                          and a finished tile goes into the k best of
//   a  block  | t0 | t1 | t2 | t3 |  <- tiles, one after      each query; nothing else of it is kept
//      block  | .. |    |    |    |     the other, in L1
#include "pairwise.h"

#include "distances_cpu.h"

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

// What a thread works in.
template <class T>
class Rooms {
  public:
    Rooms(int64_t panels, int64_t depth)
        : packed_(panels * depth * NR), norms_(panels * NR), tile_(block_rows<T> * NR), all_(num_threads() * size()) {}
    Columns<T> columns(int thread, const T* rows, int64_t count, int64_t depth) const {
        T* at = all_.get() + thread * size();
        return {rows, count, depth, at, at + packed_};
    }
    T* tile(int thread) const { return all_.get() + thread * size() + packed_ + norms_; }
    T* row_norms(int thread) const { return tile(thread) + tile_; }
    T* limits(int thread) const { return row_norms(thread) + block_rows<T>; }  // as many as norms

  private:
    static constexpr int NR = Tile<T>::NR;
    int64_t size() const { return packed_ + 2 * norms_ + tile_ + ceil_div(block_rows<T>, NR) * NR; }
    const int64_t packed_, norms_, tile_;
    Scratch<T> all_;
};

template <class T>
void row_norms(const T* a, int64_t rows, int64_t depth, T* norms) {
    for (int64_t i = 0; i < rows; i++) norms[i] = squared_norm(a + i * depth, depth);
}

template <class T>
void every_pair(const T* a, const T* b, const PairwiseShape& s, T* out) {
    constexpr int64_t span = 4096;
    const int64_t spans = ceil_div(s.columns, span), row_jobs = ceil_div(s.rows, span);
    parallel_for(row_jobs * spans, [&](int64_t job, int) {
        const int64_t i1 = min_of(s.rows, (job / spans + 1) * span), j1 = min_of(s.columns, (job % spans + 1) * span);
        for (int64_t i = job / spans * span; i < i1; i++)
            for (int64_t j = job % spans * span; j < j1; j++)
                out[i * s.columns + j] = direct_sqdist(a + i * s.depth, b + j * s.depth, s.depth);
    });
}

// The k best of one query so far: a heap whose root is the worst of them.
template <class T>
struct Best {
    T* distances;
    int64_t* indices;
    int64_t k, size;

    // The order of the result: by distance, NaN last, equal ones by index.
    static bool before(T d0, int64_t i0, T d1, int64_t i1) {
        if (d0 < d1 || (d1 != d1 && d0 == d0)) return true;
        if (d1 < d0 || (d0 != d0 && d1 == d1)) return false;
        return i0 < i1;
    }
    // A distance that is >= the limit (false for NaN) need not be offered.
    T limit() const { return size < k ? static_cast<T>(__builtin_nan("")) : distances[0]; }

    void offer(T d, int64_t i) {
        if (size < k) rise(size++, d, i);
        else if (before(d, i, distances[0], indices[0])) sink(0, size, d, i);
    }
    void sort() {
        for (int64_t last = size - 1; last > 0; last--) {
            const T d = distances[last];
            const int64_t i = indices[last];
            distances[last] = distances[0], indices[last] = indices[0];
            sink(0, last, d, i);
        }
    }

  private:
    void rise(int64_t at, T d, int64_t i) {
        for (; at > 0; at = (at - 1) / 2) {
            const int64_t up = (at - 1) / 2;
            if (!before(distances[up], indices[up], d, i)) break;
            distances[at] = distances[up], indices[at] = indices[up];
        }
        distances[at] = d, indices[at] = i;
    }
    void sink(int64_t at, int64_t end, T d, int64_t i) {
        for (int64_t down = 2 * at + 1; down < end; at = down, down = 2 * at + 1) {
            if (down + 1 < end && before(distances[down], indices[down], distances[down + 1], indices[down + 1]))
                down++;
            if (!before(d, i, distances[down], indices[down])) break;
            distances[at] = distances[down], indices[at] = indices[down];
        }
        distances[at] = d, indices[at] = i;
    }
};

// Offers a finished tile, points x queries of one panel, to the queries' lists; first is the index of its first point.
// limits: [NR], the lists' own, or -infinity beyond the last query.
template <class T>
void offer_tile(const T* tile, int64_t points, int64_t first, int queries, Best<T>* best, T* limits) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    Vec<T> l0 = load(limits), l1 = load(limits + W);
    for (int64_t r = 0; r < points; r++) {
        const T* t = tile + r * NR;
        if (!any(~(load(t) >= l0) | ~(load(t + W) >= l1))) continue;
        for (int c = 0; c < queries; c++)
            if (!(t[c] >= limits[c])) {
                best[c].offer(t[c], first + r);
                limits[c] = best[c].limit();
            }
        l0 = load(limits), l1 = load(limits + W);
    }
}

// Points [first, last) against `count` queries, pair by pair.
template <class T>
void scan_pairs(const T* q, int64_t count, const T* p, int64_t depth, int64_t first, int64_t last, Best<T>* best) {
    for (int64_t j = first; j < last; j++)
        for (int64_t i = 0; i < count; i++) {
            const T d = direct_sqdist(q + i * depth, p + j * depth, depth);
            if (!(d >= best[i].limit())) best[i].offer(d, j);
        }
}

// Points [first, last) against packed queries, tile by tile.
template <class T>
void scan_tiles(const Columns<T>& queries, const T* p, int64_t first, int64_t last, T* norms, T* tile, T* limits,
                Best<T>* best) {
    constexpr int NR = Tile<T>::NR;
    for (int64_t c = 0; c < queries.panels() * NR; c++)
        limits[c] = c < queries.count ? best[c].limit() : -static_cast<T>(__builtin_inf());
    for (int64_t j = first; j < last; j += block_rows<T>) {
        const int64_t points = min_of(block_rows<T>, last - j);
        row_norms(p + j * queries.depth, points, queries.depth, norms);
        for (int64_t panel = 0; panel < queries.panels(); panel++) {
            distance_tile(p + j * queries.depth, norms, points, queries, panel, tile);
            offer_tile(tile, points, j, queries.width(panel), best + panel * NR, limits + panel * NR);
        }
    }
}

}  // namespace

template <class T>
void pairwise_sqdist_forward_cpu(const T* a, const T* b, PairwiseShape s, T* out) {
    constexpr int NR = Tile<T>::NR;
    if (min_of(s.rows, s.columns) <= few_rows) return every_pair(a, b, s, out);
    if (a == b && s.rows == s.columns) return symmetric_sqdist(a, s.rows, s.depth, out, s.columns);
    const Cut cut = cut_of<T>(s.rows, s.columns);
    const Rooms<T> rooms(cut.panels, s.depth);
    const int64_t norm_jobs = ceil_div(s.rows, fewest_rows);
    Scratch<T> norms(s.rows);
    parallel_for(norm_jobs, [&](int64_t job, int) {
        const int64_t first = job * fewest_rows, count = min_of(fewest_rows, s.rows - first);
        row_norms(a + first * s.depth, count, s.depth, norms.get() + first);
    });
    parallel_for(cut.blocks * cut.chunks, [&](int64_t job, int thread) {
        const int64_t j = job / cut.chunks * cut.panels * NR, count = min_of(cut.panels * NR, s.columns - j);
        const int64_t chunk = job % cut.chunks;
        const int64_t first = s.rows * chunk / cut.chunks, last = s.rows * (chunk + 1) / cut.chunks;
        const Columns<T> columns = rooms.columns(thread, b + j * s.depth, count, s.depth);
        T* tile = rooms.tile(thread);
        if (first < last) columns.pack();
        for (int64_t i = first; i < last; i += block_rows<T>) {
            const int64_t rows = min_of(block_rows<T>, last - i);
            for (int64_t p = 0; p < columns.panels(); p++) {
                distance_tile(a + i * s.depth, norms.get() + i, rows, columns, p, tile);
                write_tile(tile, rows, columns.width(p), out + i * s.columns + j + p * NR, s.columns);
            }
        }
    });
}

template <class T>
void pairwise_sqdist_backward_cpu(const T* a, const T* b, const T* g, PairwiseShape s, T* da, T* db) {
    if (da) weighted_differences<T, false>(g, s.columns, a, b, s.rows, s.columns, s.depth, T(1), da);
    if (db) weighted_differences<T, true>(g, s.columns, b, a, s.columns, s.rows, s.depth, T(1), db);
}

template <class T>
void nearest_forward_cpu(const T* q, const T* p, PairwiseShape s, int64_t k, T* distances, int64_t* indices) {
    constexpr int NR = Tile<T>::NR;
    const bool few = min_of(s.rows, s.columns) <= few_rows;
    const int64_t block = most_panels * NR, blocks = ceil_div(s.rows, block);
    const int64_t chunks =
        max_of<int64_t>(1, min_of(ceil_div(wanted_jobs, max_of<int64_t>(1, blocks)), s.columns / fewest_rows));
    const int64_t kept = chunks == 1 ? k : min_of(k, ceil_div(s.columns, chunks));
    const Rooms<T> rooms(most_panels, s.depth);
    // One list a query and chunk; with a single chunk it is the result.
    const int64_t lists = chunks == 1 ? 0 : chunks * s.rows;
    Scratch<T> part_distances(lists * kept);
    Scratch<int64_t> part_indices(lists * kept);
    Scratch<Best<T>> best(chunks * s.rows);
    for (int64_t l = 0; l < chunks * s.rows; l++)
        best.get()[l] = {lists ? part_distances.get() + l * kept : distances + l * kept,
                         lists ? part_indices.get() + l * kept : indices + l * kept, kept, 0};
    parallel_for(blocks * chunks, [&](int64_t job, int thread) {
        const int64_t i = job / chunks * block, count = min_of(block, s.rows - i), chunk = job % chunks;
        const int64_t first = s.columns * chunk / chunks, last = s.columns * (chunk + 1) / chunks;
        Best<T>* mine = best.get() + chunk * s.rows + i;
        if (few) return scan_pairs(q + i * s.depth, count, p, s.depth, first, last, mine);
        const Columns<T> queries = rooms.columns(thread, q + i * s.depth, count, s.depth);
        queries.pack();
        scan_tiles(queries, p, first, last, rooms.row_norms(thread), rooms.tile(thread), rooms.limits(thread), mine);
    });
    parallel_for(s.rows, [&](int64_t i, int) {
        Best<T> result = lists ? Best<T>{distances + i * k, indices + i * k, k, 0} : best.get()[i];
        for (int64_t chunk = 0; lists && chunk < chunks; chunk++) {
            const Best<T>& part = best.get()[chunk * s.rows + i];
            for (int64_t l = 0; l < part.size; l++) result.offer(part.distances[l], part.indices[l]);
        }
        result.sort();
    });
}

#define NST_PAIRWISE(T)                                                                                 \
    template void pairwise_sqdist_forward_cpu<T>(const T*, const T*, PairwiseShape, T*);                \
    template void pairwise_sqdist_backward_cpu<T>(const T*, const T*, const T*, PairwiseShape, T*, T*); \
    template void nearest_forward_cpu<T>(const T*, const T*, PairwiseShape, int64_t, T*, int64_t*);
NST_PAIRWISE(float)
NST_PAIRWISE(double)

}  // namespace nst::NST_ISA_NS
