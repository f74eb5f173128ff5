// The k best of one query so far. Keys are distances, or similarities negated: the lower the better.
#pragma once

#include <cstdint>

#include "../common/simd.h"

namespace nst::NST_ISA_NS {

using std::int64_t;

// A heap whose root is the worst of those kept.
template <class T>
struct Best {
    T* keys;
    int64_t* indices;
    int64_t k, size;

    // The order of the result: by key, NaN last, equal ones by index.
    static bool before(T d0, int64_t i0, T d1, int64_t i1) {
        if (d0 < d1 || (d1 != d1 && d0 == d0)) return true;
        if (d1 < d0 || (d0 != d0 && d1 == d1)) return false;
        return i0 < i1;
    }
    // A key that is >= the limit (false for NaN) need not be offered, if its index is above all those kept.
    T limit() const { return size < k ? static_cast<T>(__builtin_nan("")) : keys[0]; }

    void offer(T d, int64_t i) {
        if (size < k) rise(size++, d, i);
        else if (before(d, i, keys[0], indices[0])) sink(0, size, d, i);
    }
    void sort() {
        for (int64_t last = size - 1; last > 0; last--) {
            const T d = keys[last];
            const int64_t i = indices[last];
            keys[last] = keys[0], indices[last] = indices[0];
            sink(0, last, d, i);
        }
    }

  private:
    void rise(int64_t at, T d, int64_t i) {
        for (; at > 0; at = (at - 1) / 2) {
            const int64_t up = (at - 1) / 2;
            if (!before(keys[up], indices[up], d, i)) break;
            keys[at] = keys[up], indices[at] = indices[up];
        }
        keys[at] = d, indices[at] = i;
    }
    void sink(int64_t at, int64_t end, T d, int64_t i) {
        for (int64_t down = 2 * at + 1; down < end; at = down, down = 2 * at + 1) {
            if (down + 1 < end && before(keys[down], indices[down], keys[down + 1], indices[down + 1])) down++;
            if (!before(d, i, keys[down], indices[down])) break;
            keys[at] = keys[down], indices[at] = indices[down];
        }
        keys[at] = d, indices[at] = i;
    }
};

}  // namespace nst::NST_ISA_NS
