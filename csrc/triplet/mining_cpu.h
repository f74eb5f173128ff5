// What one anchor's row of distances says: which triplets count, their losses, and how often each distance enters.
//
// The batch is sorted by class, so that the anchor's positives are the entries [low, high) of its row without itself,
// and its negatives are all others; nothing is gathered. `order` has the indices that the caller knows, for ties.
#pragma once

#include "../pairwise/distances_cpu.h"
#include "triplet.h"

namespace nst::NST_ISA_NS {

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

// Positives and negatives of active triplets, as places in the sorted batch.
struct Pair {
    std::int32_t positive, negative;
};

template <class T>
struct Anchor {
    int64_t place, batch, padded;  // padded: batch, rounded up to the vector
    int64_t low, high;
    T margin;
    T* row;                     // its distances; batch_all leaves its row of coefficients here
    const std::int32_t* order;  // of each place, the index that the caller knows
    T *reach, *negatives;       // working memory, [padded] each
    Count<T>*reached, *near;    // the same
    Pair* pairs;                // the active triplets go here, as many as `active` says; or null
    bool weights;               // whether row shall become the coefficients
    double loss;
    int64_t triplets, active;

    int64_t positives() const { return high - low - 1; }
    // Takes the triplet with these distances and places; true if it is active.
    void take(int64_t p, T to_positive, int64_t n, T to_negative) {
        const T far = to_positive + margin;
        triplets++;
        if (!(far > to_negative)) return;
        if (pairs) pairs[active] = {static_cast<std::int32_t>(p), static_cast<std::int32_t>(n)};
        active++;
        loss += static_cast<double>(far) - static_cast<double>(to_negative);
    }
};

// Whether any of n values is NaN.
template <class T>
bool has_nan(const T* d, int64_t n) {
    constexpr int W = lanes<T>;
    int64_t j = 0, bad = 0;
    auto found = Vec<T>{} != Vec<T>{};
    for (; j + W <= n; j += W) found |= load(d + j) != load(d + j);
    for (; j < n; j++) bad += d[j] != d[j];
    return bad > 0 || any(found);
}

// Whether any of n distances is infinite.
template <class T>
bool has_infinity(const T* d, int64_t n) {
    int64_t bad = 0;
    for (int64_t j = 0; j < n; j++) bad += d[j] == infinity<T>;
    return bad > 0;
}

// The row with infinity for positives, for the anchor and up to the end of the last vector.
template <class T>
void only_negatives(const Anchor<T>& a) {
    __builtin_memcpy(a.negatives, a.row, static_cast<std::size_t>(a.batch) * sizeof(T));
    for (int64_t j = a.low; j < a.high; j++) a.negatives[j] = infinity<T>;
    for (int64_t j = a.batch; j < a.padded; j++) a.negatives[j] = infinity<T>;
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
    const int64_t positives = a.positives();
    only_negatives(a);
    int64_t count = 0;
    for (int64_t j = a.low; j < a.high; j++)
        if (j != a.place) a.reach[count++] = a.row[j] + a.margin;
    for (int64_t i = 0; i < positives; i++) a.reached[i] = 0;
    for (int64_t j = 0; j < a.padded; j++) a.near[j] = 0;
    compare_rest<T>(positives, a.reach, a.negatives, a.padded, a.reached, a.near);
    a.triplets = positives * (a.batch - positives - 1);
    for (int64_t i = 0; i < positives; i++) a.active += a.reached[i];
    a.loss = counted_sum(a.reached, a.reach, positives) - counted_sum(a.near, a.negatives, a.batch);
    if (!a.weights) return;
    for (int64_t j = 0; j < a.batch; j++) a.row[j] = -static_cast<T>(a.near[j]);
    for (int64_t j = a.low, i = 0; j < a.high; j++) a.row[j] = j == a.place ? T(0) : static_cast<T>(a.reached[i++]);
}

// The least value above `low` and below `high`, or infinity.
template <class T>
T least_between(const T* d, int64_t padded, T low, T high) {
    constexpr int W = lanes<T>;
    const Vec<T> none = Vec<T>{} + infinity<T>;
    Vec<T> best = none;
    for (int64_t j = 0; j < padded; j += W) {
        const Vec<T> v = load(d + j);
        const Vec<T> fit = ((v > low) & (v < high)) ? v : none;
        best = fit < best ? fit : best;
    }
    T least = infinity<T>;
    for (int i = 0; i < W; i++) least = best[i] < least ? best[i] : least;
    return least;
}

// The least (sign 1) or, negated, the largest (sign -1) of n values; infinity if there are none.
template <class T>
T extreme(const T* d, int64_t n, T sign) {
    constexpr int W = lanes<T>;
    Vec<T> best = Vec<T>{} + infinity<T>;
    int64_t j = 0;
    for (; j + W <= n; j += W) {
        const Vec<T> v = sign * load(d + j);
        best = v < best ? v : best;
    }
    T least = infinity<T>;
    for (int i = 0; i < W; i++) least = best[i] < least ? best[i] : least;
    for (; j < n; j++) least = sign * d[j] < least ? sign * d[j] : least;
    return least;
}

// Among the places [from, to) where the row is `value`, and `best`, the one whose index is lowest; -1 for none.
template <class T>
int64_t lowest_index(const Anchor<T>& a, T value, int64_t from, int64_t to, int64_t best = -1) {
    constexpr int W = lanes<T>;
    for (int64_t j = from; j < to; j += W) {
        if (j + W <= to && !any(load(a.row + j) == Vec<T>{} + value)) continue;
        for (int64_t i = j; i < min_of(j + W, to); i++)
            if (a.row[i] == value && i != a.place && (best < 0 || a.order[i] < a.order[best])) best = i;
    }
    return best;
}

template <class T>
int64_t lowest_negative(const Anchor<T>& a, T value) {
    return lowest_index(a, value, a.high, a.batch, lowest_index(a, value, 0, a.low));
}

template <class T>
void semi_hard(Anchor<T>& a) {
    only_negatives(a);
    const T before = extreme(a.row, a.low, T(-1)), after = extreme(a.row + a.high, a.batch - a.high, T(-1));
    const T largest = -(before < after ? before : after);
    const int64_t farthest = lowest_negative(a, largest);
    for (int64_t p = a.low; p < a.high; p++) {
        if (p == a.place) continue;
        const T d = a.row[p], least = least_between(a.negatives, a.padded, d, d + a.margin);
        if (least < infinity<T>) a.take(p, d, lowest_negative(a, least), least);
        else a.take(p, d, farthest, largest);
    }
}

template <class T>
void batch_hard(Anchor<T>& a) {
    const T before = extreme(a.row, a.low, T(1)), after = extreme(a.row + a.high, a.batch - a.high, T(1));
    const T nearest = before < after ? before : after;
    const T left = extreme(a.row + a.low, a.place - a.low, T(-1)),
            right = extreme(a.row + a.place + 1, a.high - a.place - 1, T(-1));
    const T farthest = -(left < right ? left : right);
    if (!(farthest + a.margin > nearest)) {  // not active: whichever they are
        a.triplets++;
        return;
    }
    a.take(lowest_index(a, farthest, a.low, a.high), farthest, lowest_negative(a, nearest), nearest);
}

// Fills in loss, triplets and active, and pairs or coefficients; the class has a positive and there is a negative.
template <class T>
void mine(Anchor<T>& a, Mining mining) {
    if (has_nan(a.row, a.batch) || has_infinity(a.row + a.low, a.high - a.low)) {
        a.loss = __builtin_nan("");
        a.triplets = mining == Mining::batch_hard ? 1 : a.positives();
    } else if (mining == Mining::batch_all) batch_all(a);
    else if (mining == Mining::semi_hard) semi_hard(a);
    else batch_hard(a);
}

}  // namespace nst::NST_ISA_NS
