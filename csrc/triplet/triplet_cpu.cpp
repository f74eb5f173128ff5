// A batch is sorted by class; its distances come from one symmetric product, whose rows are an odd number of cache
// lines apart. One job an anchor then compares its positives with a vector of negatives at a time:
//
//                     negatives of anchor a (infinity where the row has positives)
//                   +-----------+-----------+-----------+        d(a,p) + margin > d(a,n) ?
//   positives   p0  | t0 > n0.. | t0 > n8.. |           |  ->  how often p0 is active
//   + margin    p1  | t1 > n0.. |           |           |  ->  how often p1 is active
//                   +-----------+-----------+-----------+
//                     |  how often n0, n1, ... are active
//
// The counts give the sum of the losses, sum over active of (t_p - d_n) = sum_p count_p t_p - sum_n count_n d_n, and
// they are the gradient by the distances: a row w of coefficients, which takes the place of the row of distances. With
// w + w' for w the gradient is one product. Where few triplets are chosen they are listed, and added one by one.
// Nothing of size batch^3 exists, and of size batch^2 only the distances.
#include "mining_cpu.h"

namespace nst::NST_ISA_NS {
namespace {

// The batch in the order of its classes, equal ones in the order of their index.
template <class T>
struct Sorted {
    Scratch<T> z;                   // [batch][depth]
    Scratch<std::int32_t> order;    // the caller's index of each place
    Scratch<std::int32_t> starts;   // [class + 1] -> the places of a class
    Scratch<std::int64_t> offsets;  // of each place: how many pairs (a, p) come before it

    Sorted(const T* from, const std::int32_t* classes, int64_t batch, int64_t depth)
        : z(batch * depth), order(batch), starts(batch + 2), offsets(batch + 1) {
        std::int32_t* s = starts.get();
        for (int64_t c = 0; c < batch + 2; c++) s[c] = 0;
        for (int64_t i = 0; i < batch; i++) s[classes[i] + 2]++;
        for (int64_t c = 1; c < batch + 2; c++) s[c] += s[c - 1];
        for (int64_t i = 0; i < batch; i++) order.get()[s[classes[i] + 1]++] = static_cast<std::int32_t>(i);
        offsets.get()[0] = 0;
        for (int64_t i = 0; i < batch; i++) {
            const std::int32_t index = order.get()[i], own = classes[index];
            offsets.get()[i + 1] = offsets.get()[i] + s[own + 1] - s[own] - 1;
            __builtin_memcpy(z.get() + i * depth, from + index * depth, static_cast<std::size_t>(depth) * sizeof(T));
        }
    }
};

// Adds w to its transpose, a square of `side` at a time.
template <class T>
void symmetrise(T* w, int64_t n, int64_t ld) {
    constexpr int64_t side = 32;
    const int64_t tiles = ceil_div(n, side);
    Scratch<T> turned(num_threads() * side * side);
    parallel_for(tiles, [&](int64_t job, int thread) {
        const int64_t i0 = job * side, rows = min_of(side, n - i0);
        T* square = turned.get() + thread * side * side;
        for (int64_t j0 = i0; j0 < n; j0 += side) {
            const int64_t columns = min_of(side, n - j0);
            transpose_rectangle(w + j0 * ld + i0, ld, columns, rows, square, side);
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < columns; j++) square[i * side + j] += w[(i0 + i) * ld + j0 + j];
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < columns; j++) w[(i0 + i) * ld + j0 + j] = square[i * side + j];
            transpose_rectangle(square, side, rows, columns, w + j0 * ld + i0, ld);
        }
    });
}

// What the chosen triplets of each anchor add to dz, `slice` columns of all rows a job: no two jobs meet.
template <class T>
void add_pairs(const T* z, const Sorted<T>& sorted, const Pair* pairs, const int64_t* first, const int64_t* active,
               int64_t batch, int64_t depth, T* dz) {
    constexpr int64_t slice = 32;
    const std::int32_t* order = sorted.order.get();
    parallel_for(ceil_div(depth, slice), [&](int64_t job, int) {
        const int64_t k0 = job * slice, wide = min_of(slice, depth - k0);
        for (int64_t i = 0; i < batch; i++)
            for (int64_t k = k0; k < k0 + wide; k++) dz[i * depth + k] = T(0);
        for (int64_t place = 0; place < batch; place++)
            for (int64_t t = first[place]; t < first[place] + active[place]; t++) {
                const int64_t at = order[place] * depth + k0, pt = order[pairs[t].positive] * depth + k0,
                              nt = order[pairs[t].negative] * depth + k0;
                int64_t k = 0;
                for (; k + lanes<T> <= wide; k += lanes<T>) {
                    const Vec<T> a = load(z + at + k), p = load(z + pt + k), n = load(z + nt + k);
                    store(dz + at + k, load(dz + at + k) + (n - p));
                    store(dz + pt + k, load(dz + pt + k) + (p - a));
                    store(dz + nt + k, load(dz + nt + k) + (a - n));
                }
                for (; k < wide; k++) {
                    const T a = z[at + k], p = z[pt + k], n = z[nt + k];
                    dz[at + k] += n - p;
                    dz[pt + k] += p - a;
                    dz[nt + k] += a - n;
                }
            }
    });
}

// dz from the coefficients: half of 2 sum_j (w + w')[i][j] (z_i - z_j).
template <class T>
void add_weights(T* w, int64_t ld, const Sorted<T>& sorted, int64_t batch, int64_t depth, T* dz) {
    Scratch<T> in_order(batch * depth);
    symmetrise(w, batch, ld);
    weighted_differences<T, false>(w, ld, sorted.z.get(), sorted.z.get(), batch, batch, depth, T(0.5), in_order.get());
    for (int64_t i = 0; i < batch; i++)
        __builtin_memcpy(dz + sorted.order.get()[i] * depth, in_order.get() + i * depth,
                         static_cast<std::size_t>(depth) * sizeof(T));
}

// Coefficients of chosen triplets, in the place of the anchor's distances.
template <class T>
void write_weights(const Anchor<T>& a, const Pair* pairs) {
    for (int64_t j = 0; j < a.batch; j++) a.row[j] = T(0);
    for (int64_t t = 0; t < a.active; t++) a.row[pairs[t].positive] += T(1), a.row[pairs[t].negative] -= T(1);
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
                                    Mining mining, T* dz, TripletSum* sum) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T)), few = 8;
    const int64_t padded = ceil_div(max_of<int64_t>(1, batch), lanes<T>) * lanes<T>;
    const int64_t ld = (ceil_div(batch, line) | 1) * line;  // rows never all begin in the same set of the cache
    const Sorted<T> sorted(z, classes, batch, depth);
    const int64_t chosen = mining == Mining::batch_hard ? batch : sorted.offsets.get()[batch];
    const bool list = dz && mining != Mining::batch_all;
    // A listed triplet costs about as much as nine coefficients in the product.
    const bool dense = dz && (mining == Mining::batch_all || chosen > batch * batch / few);
    Scratch<T> distances(batch * ld), values(num_threads() * 2 * padded);
    Scratch<Count<T>> counts(num_threads() * 2 * padded);
    Scratch<TripletSum> parts(batch);
    Scratch<Pair> pairs(list ? chosen : 0);
    Scratch<int64_t> first(batch), active(batch);
    symmetric_sqdist(sorted.z.get(), batch, depth, distances.get(), ld);
    parallel_for(batch, [&](int64_t i, int thread) {
        const std::int32_t own = classes[sorted.order.get()[i]];
        const int64_t low = sorted.starts.get()[own], high = sorted.starts.get()[own + 1];
        T* v = values.get() + thread * 2 * padded;
        Count<T>* c = counts.get() + thread * 2 * padded;
        first.get()[i] = mining == Mining::batch_hard ? i : sorted.offsets.get()[i];
        Pair* mine_here = list ? pairs.get() + first.get()[i] : nullptr;
        Anchor<T> a{i,
                    batch,
                    padded,
                    low,
                    high,
                    margin,
                    distances.get() + i * ld,
                    sorted.order.get(),
                    v,
                    v + padded,
                    c,
                    c + padded,
                    mine_here,
                    dense,
                    0,
                    0,
                    0};
        const bool any_triplet = high - low > 1 && high - low < batch;
        if (any_triplet) mine(a, mining);
        if (dense && (list || !any_triplet)) write_weights(a, mine_here);
        active.get()[i] = a.active;
        parts.get()[i] = {a.loss, a.triplets, a.active};
    });
    *sum = {0, 0, 0};
    for (int64_t i = 0; i < batch; i++) {
        sum->loss += parts.get()[i].loss;
        sum->triplets += parts.get()[i].triplets;
        sum->active += parts.get()[i].active;
    }
    if (dz && sum->loss != sum->loss)
        for (int64_t k = 0; k < batch * depth; k++) dz[k] = static_cast<T>(__builtin_nan(""));
    else if (dense) add_weights(distances.get(), ld, sorted, batch, depth, dz);
    else if (dz) add_pairs(z, sorted, pairs.get(), first.get(), active.get(), batch, depth, dz);
}

#define NST_TRIPLET(T)                                                                                              \
    template void triplet_loss_forward_cpu<T>(const TripletRows<T>&, T, T*);                                        \
    template void triplet_loss_backward_cpu<T>(const TripletRows<T>&, const T*, T, T*, T*, T*);                     \
    template void batch_triplet_loss_forward_cpu<T>(const T*, const std::int32_t*, int64_t, int64_t, T, Mining, T*, \
                                                    TripletSum*);
NST_TRIPLET(float)
NST_TRIPLET(double)

}  // namespace nst::NST_ISA_NS
