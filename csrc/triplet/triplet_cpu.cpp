// A batch: the distances by one symmetric product, then one job an anchor. The job gathers its row of distances into
// the positives and the negatives, and compares a few positives at a time with a vector of negatives:
//
//                     negatives of anchor a, contiguous
//                   +-----------+-----------+-----------+        d(a,p) + margin > d(a,n) ?
//   positives   p0  | t0 > n0.. | t0 > n8.. |           |  ->  how often p0 is active
//   + margin    p1  | t1 > n0.. |           |           |  ->  how often p1 is active
//                   +-----------+-----------+-----------+
//                     |  how often n0, n1, ... are active
//
// The counts are the gradient by the distances (a row of w), and give the sum of the losses too:
// sum over active of (t_p - d_n) = sum_p count_p t_p - sum_n count_n d_n. Nothing of size batch^3 exists.
#include "triplet.h"

#include "../pairwise/distances_cpu.h"
#include "../pairwise/pairwise.h"

namespace nst::NST_ISA_NS {
namespace {

template <class T>
struct Counts;  // integers as wide as T
template <>
struct Counts<float> {
    typedef std::int32_t type;
    typedef std::int32_t vector __attribute__((vector_size(vector_bytes)));
};
template <>
struct Counts<double> {
    typedef std::int64_t type;
    typedef std::int64_t vector __attribute__((vector_size(vector_bytes)));
};
template <class T>
using Count = typename Counts<T>::type;

template <class T>
constexpr T infinity = static_cast<T>(__builtin_inf());

// The distances of one anchor, gathered by what the others are to it.
template <class T>
struct Anchor {
    int64_t anchor, batch;
    T margin;
    int64_t positives, negatives;
    T *to_positive, *to_negative;       // to_negative has infinities up to a multiple of the vector
    std::int32_t *positive, *negative;  // their indices, ascending
    Count<T>*positive_count, *negative_count;
    T* w;  // the anchor's row of coefficients, or null
    double loss;
    int64_t triplets, active;

    // Takes one triplet: the p-th positive and the n-th negative.
    void take(int64_t p, int64_t n) {
        const T reach = to_positive[p] + margin;
        triplets++;
        if (!(reach > to_negative[n])) return;
        active++;
        loss += static_cast<double>(reach) - static_cast<double>(to_negative[n]);
        if (!w) return;
        w[positive[p]] += T(1);
        w[negative[n]] -= T(1);
    }
};

// Fills `a` from a row of distances; false when a distance is NaN.
template <class T>
bool gather(const T* row, const std::int32_t* classes, Anchor<T>& a) {
    const std::int32_t own = classes[a.anchor];
    int64_t p = 0, n = 0, bad = 0;
    for (int64_t j = 0; j < a.batch; j++) {
        const bool same = classes[j] == own;
        a.to_negative[n] = row[j], a.negative[n] = static_cast<std::int32_t>(j);
        a.to_positive[p] = row[j], a.positive[p] = static_cast<std::int32_t>(j);
        n += !same;
        p += same & (j != a.anchor);
        bad += row[j] != row[j];
    }
    a.positives = p, a.negatives = n;
    for (; n % lanes<T>; n++) a.to_negative[n] = infinity<T>;
    return bad == 0;
}

// Rows t[0..R) of the comparison with all negatives: adds to both counts. A true lane is -1.
template <class T, int R>
inline void compare_rows(const T* t, const T* negatives, int64_t padded, Count<T>* row_counts, Count<T>* counts) {
    constexpr int W = lanes<T>;
    using I = typename Counts<T>::vector;
    I in_row[R] = {};
    for (int64_t j = 0; j < padded; j += W) {
        const Vec<T> d = load(negatives + j);
        I in_column;
        __builtin_memcpy(&in_column, counts + j, sizeof(in_column));
        for (int r = 0; r < R; r++) {
            const I more = Vec<T>{} + t[r] > d;
            in_row[r] -= more;
            in_column -= more;
        }
        __builtin_memcpy(counts + j, &in_column, sizeof(in_column));
    }
    for (int r = 0; r < R; r++)
        for (int i = 0; i < W; i++) row_counts[r] += in_row[r][i];
}

template <class T, int R = vector_registers == 32 ? 8 : 4>
inline void compare_rest(int64_t rows, const T* t, const T* negatives, int64_t padded, Count<T>* row_counts,
                         Count<T>* counts) {
    if constexpr (R > 0) {
        for (; rows >= R; rows -= R, t += R, row_counts += R)
            compare_rows<T, R>(t, negatives, padded, row_counts, counts);
        compare_rest<T, R - 1>(rows, t, negatives, padded, row_counts, counts);
    }
}

// sum of count_i d_i over the counted ones, in double.
template <class T>
double counted_sum(const Count<T>* counts, const T* d, int64_t n) {
    constexpr int lots = 8;  // independent sums, so that one addition need not wait for the last
    double sums[lots] = {};
    int64_t i = 0;
    for (; i + lots <= n; i += lots)
        for (int u = 0; u < lots; u++)
            sums[u] += counts[i + u] ? static_cast<double>(counts[i + u]) * static_cast<double>(d[i + u]) : 0.0;
    for (; i < n; i++) sums[0] += counts[i] ? static_cast<double>(counts[i]) * static_cast<double>(d[i]) : 0.0;
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

template <class T>
void batch_all(Anchor<T>& a) {
    const int64_t padded = ceil_div(a.negatives, lanes<T>) * lanes<T>;
    for (int64_t i = 0; i < a.positives; i++) a.to_positive[i] += a.margin, a.positive_count[i] = 0;
    for (int64_t j = 0; j < padded; j++) a.negative_count[j] = 0;
    compare_rest<T>(a.positives, a.to_positive, a.to_negative, padded, a.positive_count, a.negative_count);
    a.triplets = a.positives * a.negatives;
    for (int64_t i = 0; i < a.positives; i++) a.active += a.positive_count[i];
    a.loss = counted_sum(a.positive_count, a.to_positive, a.positives) -
             counted_sum(a.negative_count, a.to_negative, a.negatives);
    if (!a.w) return;
    for (int64_t i = 0; i < a.positives; i++) a.w[a.positive[i]] = static_cast<T>(a.positive_count[i]);
    for (int64_t j = 0; j < a.negatives; j++) a.w[a.negative[j]] = -static_cast<T>(a.negative_count[j]);
}

// The least value above `low` and below `high`, or infinity.
template <class T>
T least_between(const T* d, int64_t padded, T low, T high) {
    constexpr int W = lanes<T>;
    const Vec<T> none = Vec<T>{} + infinity<T>;
    Vec<T> best = none;
    for (int64_t j = 0; j < padded; j += W) {
        const Vec<T> v = load(d + j);
        const Vec<T> fit = (v > low) & (v < high) ? v : none;
        best = fit < best ? fit : best;
    }
    T least = infinity<T>;
    for (int i = 0; i < W; i++) least = best[i] < least ? best[i] : least;
    return least;
}

// Index of the first largest (sign 1) or smallest (sign -1) of n >= 1 values.
template <class T>
int64_t first_extreme(const T* d, int64_t n, T sign) {
    int64_t at = 0;
    for (int64_t j = 1; j < n; j++)
        if (sign * d[j] > sign * d[at]) at = j;
    return at;
}

template <class T>
void semi_hard(Anchor<T>& a) {
    const int64_t padded = ceil_div(a.negatives, lanes<T>) * lanes<T>;
    const int64_t farthest = first_extreme(a.to_negative, a.negatives, T(1));
    for (int64_t p = 0; p < a.positives; p++) {
        const T least = least_between(a.to_negative, padded, a.to_positive[p], a.to_positive[p] + a.margin);
        int64_t n = farthest;
        if (least < infinity<T>)
            for (n = 0; a.to_negative[n] != least;) n++;
        a.take(p, n);
    }
}

// Adds w to its transpose, a square of tiles at a time.
template <class T>
void symmetrise(T* w, int64_t n) {
    constexpr int64_t side = 32;
    const int64_t tiles = ceil_div(n, side);
    parallel_for(tiles, [&](int64_t job, int) {
        const int64_t i0 = job * side, i1 = min_of(n, i0 + side);
        for (int64_t j0 = i0; j0 < n; j0 += side)
            for (int64_t i = i0; i < i1; i++)
                for (int64_t j = max_of(i, j0); j < min_of(n, j0 + side); j++)
                    w[i * n + j] = w[j * n + i] = w[i * n + j] + w[j * n + i];
    });
}

template <class T>
void mine(Anchor<T>& a, Mining mining) {
    if (mining == Mining::batch_all) return batch_all(a);
    if (mining == Mining::semi_hard) return semi_hard(a);
    a.take(first_extreme(a.to_positive, a.positives, T(1)), first_extreme(a.to_negative, a.negatives, T(-1)));
}

}  // namespace

template <class T>
void triplet_loss_forward_cpu(const TripletRows<T>& rows, T margin, T* losses) {
    constexpr int64_t block = 256;
    const int64_t d = rows.depth;
    parallel_for(ceil_div(rows.count, block), [&](int64_t job, int) {
        for (int64_t i = job * block; i < min_of(rows.count, (job + 1) * block); i++) {
            const T near = direct_sqdist(rows.anchors + i * d, rows.positives + i * d, d);
            const T far = direct_sqdist(rows.anchors + i * d, rows.negatives + i * d, d);
            const T loss = near - far + margin;
            losses[i] = loss <= T(0) ? T(0) : loss;
        }
    });
}

template <class T>
void triplet_loss_backward_cpu(const TripletRows<T>& rows, const T* losses, T scale, T* da, T* dp, T* dn) {
    constexpr int64_t block = 256;
    const int64_t d = rows.depth;
    parallel_for(ceil_div(rows.count, block), [&](int64_t job, int) {
        for (int64_t i = job * block; i < min_of(rows.count, (job + 1) * block); i++) {
            const T factor = losses[i] == T(0) ? T(0) : T(2) * scale;
            const T *a = rows.anchors + i * d, *p = rows.positives + i * d, *n = rows.negatives + i * d;
            for (int64_t k = 0; k < d; k++) da[i * d + k] = factor * (n[k] - p[k]);
            for (int64_t k = 0; k < d; k++) dp[i * d + k] = factor * (p[k] - a[k]);
            for (int64_t k = 0; k < d; k++) dn[i * d + k] = factor * (a[k] - n[k]);
        }
    });
}

template <class T>
void batch_triplet_loss_forward_cpu(const T* z, const std::int32_t* classes, int64_t batch, int64_t depth, T margin,
                                    Mining mining, T* w, TripletSum* sum) {
    const int64_t room = (batch / lanes<T> + 1) * lanes<T>;
    Scratch<T> distances(batch * batch), values(num_threads() * 2 * room);
    Scratch<std::int32_t> indices(num_threads() * 2 * room);
    Scratch<Count<T>> counts(num_threads() * 2 * room);
    Scratch<TripletSum> parts(batch);
    pairwise_sqdist_forward_cpu<T>(z, z, {batch, batch, depth}, distances.get());
    parallel_for(batch, [&](int64_t i, int thread) {
        T* v = values.get() + thread * 2 * room;
        std::int32_t* at = indices.get() + thread * 2 * room;
        Count<T>* c = counts.get() + thread * 2 * room;
        Anchor<T> a{i, batch, margin, 0, 0, v, v + room, at, at + room, c, c + room, w ? w + i * batch : nullptr,
                    0, 0,     0};
        for (int64_t j = 0; a.w && j < batch; j++) a.w[j] = T(0);
        const bool sound = gather(distances.get() + i * batch, classes, a);
        if (a.positives && a.negatives) {
            mine(a, mining);
            if (!sound) a.loss = __builtin_nan("");
        }
        parts.get()[i] = {a.loss, a.triplets, a.active};
    });
    *sum = {0, 0, 0};
    for (int64_t i = 0; i < batch; i++) {
        sum->loss += parts.get()[i].loss;
        sum->triplets += parts.get()[i].triplets;
        sum->active += parts.get()[i].active;
    }
    if (w) symmetrise(w, batch);
}

template <class T>
void batch_triplet_loss_backward_cpu(const T* z, const T* w, int64_t batch, int64_t depth, T scale, T* dz) {
    weighted_differences<T, false>(w, batch, z, z, batch, batch, depth, scale, dz);
}

#define NST_TRIPLET(T)                                                                                              \
    template void triplet_loss_forward_cpu<T>(const TripletRows<T>&, T, T*);                                        \
    template void triplet_loss_backward_cpu<T>(const TripletRows<T>&, const T*, T, T*, T*, T*);                     \
    template void batch_triplet_loss_forward_cpu<T>(const T*, const std::int32_t*, int64_t, int64_t, T, Mining, T*, \
                                                    TripletSum*);                                                   \
    template void batch_triplet_loss_backward_cpu<T>(const T*, const T*, int64_t, int64_t, T, T*);
NST_TRIPLET(float)
NST_TRIPLET(double)

}  // namespace nst::NST_ISA_NS
