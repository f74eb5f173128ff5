// Costs are limited by memory. One job a chunk of elements, or a row of the picture; the sums of the jobs are added in
// their order.
#include "style.h"

#include "../common/sums.h"

namespace nst::NST_ISA_NS {
namespace {

using std::int64_t;

// Terms of sums are structures: some tools cannot read the names of loops whose parameter is a lambda's type.
template <class T>
struct SquaredDifference {
    const T *a, *b;
    double operator()(int64_t i) const {
        const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        return difference * difference;
    }
};

// Sum over i < count of (a[i] - b[i])^2, in float64.
template <class T>
double squared_distance(const T* a, const T* b, int64_t count) {
    return sum_of(0, count, SquaredDifference<T>{a, b});
}

}  // namespace

template <class T>
void content_loss_forward_cpu(const T* a, const T* target, int64_t count, double* j) {
    *j = 0.5 * sum_by_chunks(count, SquaredDifference<T>{a, target});
}

template <class T>
void content_loss_backward_cpu(const T* a, const T* target, T weight, int64_t count, bool add, T* da) {
    parallel_for(ceil_div(count, chunk_of_sum), [&](int64_t job, int) {
        const int64_t first = job * chunk_of_sum, last = min_of(first + chunk_of_sum, count);
        if (add)
            for (int64_t i = first; i < last; i++) da[i] += weight * (a[i] - target[i]);
        else
            for (int64_t i = first; i < last; i++) da[i] = weight * (a[i] - target[i]);
    });
}

template <class T>
void total_variation_forward_cpu(const T* x, PictureShape s, double* j) {
    const int64_t c = s.channels, row = s.width * c, rows = s.images * s.height;
    Scratch<double> sums(rows);
    parallel_for(rows, [&](int64_t i, int) {
        const T* here = x + i * row;
        const double down = i % s.height + 1 < s.height ? squared_distance(here + row, here, row) : 0;
        sums.get()[i] = down + squared_distance(here + c, here, max_of<int64_t>(0, row - c));
    });
    *j = sum_in_order(sums.get(), rows);
}

template <class T>
void total_variation_backward_cpu(const T* x, T weight, PictureShape s, T* dx) {
    const int64_t c = s.channels, row = s.width * c;
    const T twice = 2 * weight;
    parallel_for(s.images * s.height, [&](int64_t i, int) {
        const T* here = x + i * row;
        const int64_t up = i % s.height > 0 ? row : 0, down = i % s.height + 1 < s.height ? row : 0;
        for (int64_t k = 0; k < row; k++) {
            const int64_t left = k >= c ? c : 0, right = k + c < row ? c : 0;  // an edge is its own neighbour
            const T around = (here[k] - here[k - up]) + (here[k] - here[k + down]) + (here[k] - here[k - left]) +
                             (here[k] - here[k + right]);
            dx[i * row + k] = twice * around;
        }
    });
}

template <class T>
void normalize_channels_forward_cpu(const T* x, const double* scale, const double* shift, bool reverse, PictureShape s,
                                    T* y) {
    const int64_t c = s.channels, row = s.width * c;
    parallel_for(s.images * s.height, [&](int64_t i, int) {
        for (int64_t k = 0; k < c; k++) {
            const T weight = static_cast<T>(scale[k]), offset = static_cast<T>(shift[k]);
            const T* from = x + i * row + (reverse ? c - 1 - k : k);
            for (int64_t p = 0; p < row; p += c) y[i * row + p + k] = from[p] * weight + offset;
        }
    });
}

template <class T>
void normalize_channels_backward_cpu(const T* dy, const double* scale, bool reverse, PictureShape s, T* dx) {
    const int64_t c = s.channels, row = s.width * c;
    parallel_for(s.images * s.height, [&](int64_t i, int) {
        for (int64_t k = 0; k < c; k++) {
            const T weight = static_cast<T>(scale[k]);
            T* to = dx + i * row + (reverse ? c - 1 - k : k);
            for (int64_t p = 0; p < row; p += c) to[p] = dy[i * row + p + k] * weight;
        }
    });
}

#define NST_STYLE(T)                                                                                                 \
    template void content_loss_forward_cpu<T>(const T*, const T*, int64_t, double*);                                 \
    template void content_loss_backward_cpu<T>(const T*, const T*, T, int64_t, bool, T*);                            \
    template void total_variation_forward_cpu<T>(const T*, PictureShape, double*);                                   \
    template void total_variation_backward_cpu<T>(const T*, T, PictureShape, T*);                                    \
    template void normalize_channels_forward_cpu<T>(const T*, const double*, const double*, bool, PictureShape, T*); \
    template void normalize_channels_backward_cpu<T>(const T*, const double*, bool, PictureShape, T*);
NST_STYLE(float)
NST_STYLE(double)

}  // namespace nst::NST_ISA_NS
