// The nearest rows: a job packs some queries and runs a chunk of the points past them. A tile of products stays in
// registers while it is compared with what would still enter a list; it is written out only if something might.
//
//                 queries: panels of NR rows, packed, half of the second-level cache
//              +----+----+----+----+
//   points  MR | t0 | t1 | t2 | .. |   a_r . b_c > P[r] + Q[c] ?   seldom: finish that row of the tile, offer it
//     block    | .. |    |    |    |
//
// A distance below the limit L of a list means  a.b > (|a|^2 + |b|^2 - L) / 2 = P[r] + Q[c].  P and Q are lowered by
// more than all rounding errors, so that what is passed over is certain to lie beyond the limit; what is not is
// finished as pairwise_sqdist does it. For float32 the comparison is made in 16-bit integers first (rounded_cpu.h), and
// only rows that it lets pass are multiplied as floats. Chunks tell each other the worst of their k best: no later one
// need collect what lies beyond it. The order of the result is total, so it depends neither on the cut nor on what was
// known when.
#include "best_cpu.h"
#include "pairwise.h"
#include "rounded_cpu.h"
#include "similarity_cpu.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int64_t wanted_jobs = 32;                 // enough for every thread, however they finish
constexpr int64_t fewest_points = 512;              // of one job; packing its queries must be cheap beside using them
constexpr int64_t try_again = 8;                    // blocks after which rounding is tried once more
constexpr int64_t packed_bytes = int64_t{1} << 19;  // of one job's queries

template <class T>
constexpr T not_a_number = static_cast<T>(__builtin_nan(""));

template <class T>
struct Limits;
template <>
struct Limits<float> {
    static constexpr float epsilon = 0x1p-23f, small = 0x1p-90f, large = 0x1p+120f;
    typedef std::int32_t bits;
};
template <>
struct Limits<double> {
    static constexpr double epsilon = 0x1p-52, small = 0x1p-800, large = 0x1p+1000;
    typedef std::int64_t bits;
};

template <class T>
using Bits = typename Limits<T>::bits;

// The next number above x; NaN, which limits nothing, for infinity.
template <class T>
T just_above(T x) {
    Bits<T> b;
    if (!(x < static_cast<T>(__builtin_inf()))) return not_a_number<T>;
    if (x == 0) x = T(0);  // not -0
    __builtin_memcpy(&b, &x, sizeof(b));
    b += x < 0 ? -1 : 1;
    __builtin_memcpy(&x, &b, sizeof(b));
    return x;
}

// The bounds that chunks share: of each query, a key that at least k points do not exceed.
template <class T>
struct Bounds {
    T* keys;  // null: none
    T get(int64_t i) const {
        T key;
        __atomic_load(keys + i, &key, __ATOMIC_RELAXED);
        return key;
    }
    // Two chunks may do this at once: then one of two bounds stays, and both hold.
    void lower(int64_t i, T key) const {
        if (key < get(i)) __atomic_store(keys + i, &key, __ATOMIC_RELAXED);
    }
};

template <class T>
T smaller(T a, T b) {  // NaN is none
    return a < b || b != b ? a : b;
}

// How queries x points is cut, by the shape alone.
struct Cut {
    int64_t panels, blocks, chunks;  // panels a job, blocks of queries, chunks of points
};

template <class T>
Cut cut_of(const PairwiseShape& s) {
    constexpr int NR = Tile<T>::NR;
    const int64_t all = max_of<int64_t>(1, Columns<T>::panels_of(s.rows));
    const int64_t possible = max_of<int64_t>(1, s.columns / fewest_points);
    const int64_t bytes = max_of<int64_t>(1, s.depth) * NR * static_cast<int64_t>(sizeof(T));
    const int64_t most = max_of<int64_t>(1, packed_bytes / bytes);
    const int64_t panels = max_of<int64_t>(1, min_of(min_of(most, all), all * possible / wanted_jobs));
    const int64_t blocks = ceil_div(all, panels);
    return {panels, blocks, min_of(possible, ceil_div(wanted_jobs, blocks))};
}

// What a thread works in, each part a multiple of the vector.
template <class T>
struct Room {
    T *packed, *norms;      // the queries and their squared norms
    T *limits, *threshold;  // of each query: L and Q
    T* tile;                // [MR][NR]
    T *norms_a, *level;     // [block_rows] of the points: squared norms, and P
    T* unit_points;         // [block_rows][depth], cosine only
    T* unit_queries;        // [panels * NR][depth], cosine only
    // Rounded rows only: words and scale of each point of a block, and P in that scale; the same of the queries.
    std::int32_t *point_words, *query_words;
    T *point_scales, *scaled_level, *query_scales, *scaled_threshold;

    static int64_t size(int64_t panels, int64_t depth, bool cosine) {
        constexpr int64_t NR = Tile<T>::NR;
        return panels * NR * (depth + 3) + Tile<T>::MR * NR + 2 * level_size() +
               (cosine ? (panels * NR + block_rows<T>)*depth : 0) + rounded_size(panels, depth);
    }
    static int64_t rounded_size(int64_t panels, int64_t depth) {
        if (!is_rounded<T>) return 0;
        return panels * Tile<T>::NR * (pairs_of(depth) + 2) + level_size() * (pairs_of(depth) + 2);
    }
    static int64_t level_size() { return ceil_div(block_rows<T>, Tile<T>::NR) * Tile<T>::NR; }
    Room(T* at, int64_t panels, int64_t depth, bool cosine) {
        constexpr int64_t NR = Tile<T>::NR;
        packed = at;
        norms = packed + panels * NR * depth;
        limits = norms + panels * NR;
        threshold = limits + panels * NR;
        tile = threshold + panels * NR;
        norms_a = tile + Tile<T>::MR * NR;
        level = norms_a + level_size();
        unit_points = level + level_size();
        unit_queries = unit_points + block_rows<T> * depth;
        if (!is_rounded<T>) return;
        query_scales = cosine ? unit_queries + panels * NR * depth : unit_points;
        scaled_threshold = query_scales + panels * NR;
        point_scales = scaled_threshold + panels * NR;
        scaled_level = point_scales + level_size();
        query_words = reinterpret_cast<std::int32_t*>(scaled_level + level_size());
        point_words = query_words + panels * NR * pairs_of(depth);
    }
};

// Q of a query with limit `limit`, which is NaN if every product must pass.
template <class T>
T threshold_of(Metric metric, T limit, T norm, T kept) {
    if (metric != Metric::sqeuclidean) return -limit;
    return norm < Limits<T>::large ? (norm * kept - limit) / 2 : not_a_number<T>;
}

// R points against one panel of queries. If any product may enter a list, it gives true, all are in the tile, and
// entering[c] is not 0 for the queries whose lists those are.
template <class T, int R>
inline bool passes(const T* a, const T* level, const T* panel, const T* threshold, int64_t depth, T* tile,
                   Bits<T>* entering) {
    constexpr int W = Tile<T>::W, NR = Tile<T>::NR;
    Vec<T> c0[R], c1[R];
    for (int r = 0; r < R; r++) c0[r] = c1[r] = Vec<T>{};  // an initialiser would be written to memory first
    for (int64_t k = 0; k < depth; k++) {
        const Vec<T> b0 = load(panel + k * NR), b1 = load(panel + k * NR + W);
        for (int r = 0; r < R; r++) {
            const T s = a[r * depth + k];
            c0[r] += s * b0;
            c1[r] += s * b1;
        }
    }
    const Vec<T> q0 = load(threshold), q1 = load(threshold + W);
    auto beyond0 = q0 == q0, beyond1 = beyond0;
    for (int r = 0; r < R; r++) {
        beyond0 = r ? beyond0 & (c0[r] <= level[r] + q0) : c0[r] <= level[r] + q0;
        beyond1 = r ? beyond1 & (c1[r] <= level[r] + q1) : c1[r] <= level[r] + q1;
    }
    if (!any(~(beyond0 & beyond1))) return false;
    const auto enter0 = ~beyond0, enter1 = ~beyond1;
    __builtin_memcpy(entering, &enter0, sizeof(enter0));
    __builtin_memcpy(entering + W, &enter1, sizeof(enter1));
    for (int r = 0; r < R; r++) {
        store(tile + r * NR, c0[r]);
        store(tile + r * NR + W, c1[r]);
    }
    return true;
}

template <class T, int R = Tile<T>::MR>
inline bool passes_rows(int64_t rows, const T* a, const T* level, const T* panel, const T* threshold, int64_t depth,
                        T* tile, Bits<T>* entering) {
    if constexpr (R > 1) {
        if (rows < R) return passes_rows<T, R - 1>(rows, a, level, panel, threshold, depth, tile, entering);
    }
    return passes<T, R>(a, level, panel, threshold, depth, tile, entering);
}

template <class T>
struct Scan {
    Metric metric;
    Columns<T> queries;
    Room<T> room;
    Best<T>* best;  // of this block of queries and this chunk
    Bounds<T> bounds;
    int64_t first_query;
    T kept;       // 1 less what covers the rounding errors of a product
    float slack;  // the same for rounded rows, in their scale

    void set_threshold(int64_t c) const {
        room.threshold[c] = threshold_of(metric, room.limits[c], queries.norms[c], kept);
        if constexpr (is_rounded<T>) {
            const T scale = room.query_scales[c];
            room.scaled_threshold[c] = scale > 0 ? scale * room.threshold[c] : not_a_number<T>;
        }
    }
    void pack() const {
        queries.pack();
        if constexpr (is_rounded<T>) {
            constexpr int NR = Tile<T>::NR;
            const int64_t pairs = pairs_of(queries.depth);
            for (int64_t c = 0; c < queries.panels() * NR; c++) {
                const T scale = c < queries.count ? rounding_scale(queries.norms[c]) : T(0);
                room.query_scales[c] = scale;
                round_row(queries.rows + c * queries.depth, queries.depth, scale, room.point_words);
                for (int64_t k = 0; k < pairs; k++)
                    room.query_words[(c / NR * pairs + k) * NR + c % NR] = room.point_words[k];
            }
        }
    }
    // Looks at what the other chunks know.
    void refresh() const {
        for (int64_t c = 0; c < queries.count; c++) {
            room.limits[c] = best[c].limit();
            if (bounds.keys) {
                bounds.lower(first_query + c, room.limits[c]);
                room.limits[c] = smaller(room.limits[c], just_above(bounds.get(first_query + c)));
            }
            set_threshold(c);
        }
        for (int64_t c = queries.count; c < queries.panels() * Tile<T>::NR; c++) {
            room.threshold[c] = static_cast<T>(__builtin_inf());
            if constexpr (is_rounded<T>) room.scaled_threshold[c] = room.threshold[c];
        }
    }
    // The key of point r of a tile and query q: what pairwise_sqdist gives, or the product negated.
    T finished(const T* a, const T* norms_a, int64_t r, int64_t q, T product) const {
        if (metric != Metric::sqeuclidean) return -product;
        const T sum = norms_a[r] + queries.norms[q], d = sum - 2 * product;
        if (d > near_ratio<T> * sum + underflow<T> && sum < static_cast<T>(__builtin_inf())) return d;
        return direct_sqdist(a + r * queries.depth, queries.rows + q * queries.depth, queries.depth);
    }
    // Offers what may enter: row r of the tile is point j of all.
    void offer_row(const T* a, int64_t r, int64_t point, int64_t j, int64_t panel, const Bits<T>* entering) const {
        constexpr int NR = Tile<T>::NR;
        for (int c = 0; c < queries.width(panel); c++) {
            if (!entering[c]) continue;
            const int64_t q = panel * NR + c;
            const T product = room.tile[r * NR + c];
            if (product <= room.level[point] + room.threshold[q]) continue;
            const T key = finished(a, room.norms_a + point, 0, q, product);
            if (key >= room.limits[q]) continue;
            best[q].offer(key, j);
            room.limits[q] = smaller(best[q].limit(), room.limits[q]);
            set_threshold(q);
        }
    }
    // Points [i, i + rows) of a block that begins at a and j, against one panel, compared as floats.
    void look(const T* a, int64_t j, int64_t i, int64_t rows, int64_t panel) const {
        constexpr int NR = Tile<T>::NR;
        const int64_t depth = queries.depth;
        Bits<T> entering[NR];
        if (!passes_rows(rows, a + i * depth, room.level + i, queries.packed + panel * depth * NR,
                         room.threshold + panel * NR, depth, room.tile, entering))
            return;
        for (int64_t r = 0; r < rows; r++) offer_row(a + (i + r) * depth, r, i + r, j + i + r, panel, entering);
    }
    // The same, rounded first. Gives the number of rows that had to be multiplied as floats.
    int64_t look_rounded(const T* a, int64_t j, int64_t i, int64_t rows, int64_t panel) const {
        constexpr int NR = Tile<T>::NR;
        const int64_t depth = queries.depth, pairs = pairs_of(depth);
        std::int32_t above[Tile<T>::MR * NR];
        const RoundedPanel rounded{room.query_words + panel * pairs * NR, room.query_scales + panel * NR,
                                   room.scaled_threshold + panel * NR, pairs, slack};
        if (!rounded_rows_pass(rows, room.point_words + i * pairs, room.point_scales + i, room.scaled_level + i,
                               rounded, above))
            return 0;
        int64_t passed = 0;
        for (int64_t r = 0; r < rows; r++) {
            if (!any_of(above + r * NR)) continue;
            passed++;
            rows_product<T>(1, NR, a + (i + r) * depth, depth, queries.packed + panel * depth * NR, depth, room.tile,
                            NR, false);
            offer_row(a + (i + r) * depth, 0, i + r, j + i + r, panel, above + r * NR);
        }
        return passed;
    }
    static bool any_of(const std::int32_t* lane) {
        constexpr int W = lanes<float>;
        return any(load_words(lane) | load_words(lane + W));
    }
    // What is known of a block of points before it meets a query.
    void prepare(const T* p, int64_t points, bool rounded) const {
        const int64_t depth = queries.depth;
        const T* a = metric == Metric::cosine ? room.unit_points : p;
        for (int64_t i = 0; i < points; i++) {
            const T* row = a + i * depth;
            if (metric == Metric::cosine) unit_row(p + i * depth, depth, room.unit_points + i * depth);
            const T norm = is_rounded<T> || metric == Metric::sqeuclidean ? squared_norm(row, depth) : T(0);
            const bool usual = norm > Limits<T>::small && norm < Limits<T>::large;
            room.norms_a[i] = norm;
            room.level[i] = metric != Metric::sqeuclidean ? T(0) : usual ? norm * kept / 2 : not_a_number<T>;
            if constexpr (is_rounded<T>) {
                if (!rounded) continue;
                const T scale = rounding_scale(norm);
                room.point_scales[i] = scale;
                room.scaled_level[i] = scale > 0 ? scale * room.level[i] : not_a_number<T>;
                round_row(row, depth, scale, room.point_words + i * pairs_of(depth));
            }
        }
    }
    // Points [first, last), tile by tile.
    void run(const T* p, int64_t first, int64_t last) const {
        constexpr int MR = Tile<T>::MR;
        const int64_t depth = queries.depth;
        bool worth = true;  // rounding: where all points lie in one far corner, every row passes
        for (int64_t j = first, block = 0; j < last; j += block_rows<T>, block++) {
            const bool rounded = is_rounded<T> && (worth || block % try_again == 0);
            int64_t passed = 0;
            const int64_t points = min_of(block_rows<T>, last - j);
            const T* a = metric == Metric::cosine ? room.unit_points : p + j * depth;
            prepare(p + j * depth, points, rounded);
            refresh();
            // The next block is fetched while this one is worked on, a few cache lines a tile.
            const char* next = reinterpret_cast<const char*>(p + (j + points) * depth);
            const int64_t bytes = min_of(block_rows<T>, last - j - points) * depth * static_cast<int64_t>(sizeof(T));
            const int64_t share = ceil_div(bytes, queries.panels() * ceil_div(points, MR) * 64) * 64;
            int64_t fetched = 0;
            for (int64_t panel = 0; panel < queries.panels(); panel++)
                for (int64_t i = 0; i < points; i += MR) {
                    for (const int64_t end = min_of(bytes, fetched + share); fetched < end; fetched += 64)
                        __builtin_prefetch(next + fetched, 0, 2);
                    const int64_t rows = min_of<int64_t>(MR, points - i);
                    if constexpr (is_rounded<T>)
                        if (rounded) {
                            passed += look_rounded(a, j, i, rows, panel);
                            continue;
                        }
                    look(a, j, i, rows, panel);
                }
            if (rounded) worth = 4 * passed < points * queries.panels();
        }
        refresh();
    }
    // The same for few queries, or few points: pair by pair.
    void run_pairs(const T* q, const T* p, int64_t first, int64_t last) const {
        const int64_t depth = queries.depth;
        for (int64_t j = first; j < last; j++) {
            const T* point = p + j * depth;
            if (metric == Metric::cosine) unit_row(point, depth, room.unit_points), point = room.unit_points;
            for (int64_t i = 0; i < queries.count; i++) {
                const T key = metric == Metric::sqeuclidean ? direct_sqdist(q + i * depth, point, depth)
                                                            : -direct_dot(q + i * depth, point, depth);
                if (!(key >= best[i].limit())) best[i].offer(key, j);
            }
        }
    }
};

// Merges the lists of all chunks of query i, and sorts.
template <class T>
void merge(const Best<T>* parts, int64_t stride, int64_t chunks, Metric metric, Best<T> result) {
    if (chunks == 1) result.size = parts->size;
    for (int64_t chunk = 0; chunks > 1 && chunk < chunks; chunk++) {
        const Best<T>& part = parts[chunk * stride];
        for (int64_t l = 0; l < part.size; l++) result.offer(part.keys[l], part.indices[l]);
    }
    result.sort();
    for (int64_t l = 0; metric != Metric::sqeuclidean && l < result.k; l++) result.keys[l] = -result.keys[l];
}

}  // namespace

template <class T>
void nearest_forward_cpu(const T* q, const T* p, PairwiseShape s, int64_t k, Metric metric, T* values,
                         int64_t* indices) {
    constexpr int NR = Tile<T>::NR;
    const bool few = min_of(s.rows, s.columns) <= few_rows, cosine = metric == Metric::cosine;
    const Cut cut = cut_of<T>(s);
    const int64_t block = cut.panels * NR, chunks = cut.chunks;
    const int64_t kept = chunks == 1 ? k : min_of(k, ceil_div(s.columns, chunks));
    const int64_t size = Room<T>::size(cut.panels, s.depth, cosine);
    // One list a query and chunk; with a single chunk it is the result.
    const int64_t lists = chunks == 1 ? 0 : chunks * s.rows;
    Scratch<T> rooms(num_threads() * size), part_keys(lists * kept), bounds(s.rows);
    Scratch<int64_t> part_indices(lists * kept);
    Scratch<Best<T>> best(chunks * s.rows);
    for (int64_t i = 0; i < s.rows; i++) bounds.get()[i] = static_cast<T>(__builtin_inf());
    for (int64_t l = 0; l < chunks * s.rows; l++)
        best.get()[l] = {lists ? part_keys.get() + l * kept : values + l * kept,
                         lists ? part_indices.get() + l * kept : indices + l * kept, kept, 0};
    // Twice the worst error of a product of `depth` terms, and of all that is added to it.
    const T slack = static_cast<T>(2 * s.depth + 64) * Limits<T>::epsilon;
    parallel_for(s.rows ? cut.blocks * chunks : 0, [&](int64_t job, int thread) {
        const int64_t i = job / chunks * block, count = min_of(block, s.rows - i), chunk = job % chunks;
        const int64_t first = s.columns * chunk / chunks, last = s.columns * (chunk + 1) / chunks;
        const Room<T> room(rooms.get() + thread * size, cut.panels, s.depth, cosine);
        const T* own = cosine ? room.unit_queries : q + i * s.depth;
        for (int64_t r = 0; cosine && r < count; r++)
            unit_row(q + (i + r) * s.depth, s.depth, room.unit_queries + r * s.depth);
        const Columns<T> queries{own, count, s.depth, room.packed, room.norms};
        // A bound needs k points: a list that is cut short by its chunk cannot give one.
        const Bounds<T> shared{kept == k ? bounds.get() : nullptr};
        const Scan<T> scan{metric, queries, room,         best.get() + chunk * s.rows + i,
                           shared, i,       T(1) - slack, rounded_slack(s.depth)};
        if (few) return scan.run_pairs(own, p, first, last);
        scan.pack();
        scan.run(p, first, last);
    });
    parallel_for(ceil_div(s.rows, NR), [&](int64_t job, int) {
        for (int64_t i = job * NR; i < min_of<int64_t>(s.rows, (job + 1) * NR); i++)
            merge(best.get() + i, s.rows, chunks, metric, Best<T>{values + i * k, indices + i * k, k, 0});
    });
}

template void nearest_forward_cpu<float>(const float*, const float*, PairwiseShape, int64_t, Metric, float*, int64_t*);
template void nearest_forward_cpu<double>(const double*, const double*, PairwiseShape, int64_t, Metric, double*,
                                          int64_t*);

}  // namespace nst::NST_ISA_NS
