// The nearest rows of each query, on a GPU; the contract stands in pairwise.h. Nothing of size queries x points exists.
//
// The points are cut into splits. A block has 64 queries and a split: it computes 64 distances of each query at a time,
// as a tile, and puts those that are better than the worst of the best k into the query's sorted list, a warp a query.
// The lists of the splits, at most one a lane, are then merged by a warp a query.
//
//   nearest_forward_sqeuclidean, _inner   grid (queries / 64, splits)   keys, indices [query][split][k], ascending
//   nearest_forward_merge                 grid (queries / 8)            values, indices [query][k]
//
// Keys are distances, or negated products; equal ones come by their index, NaN last.
#include "rows_cuda.cuh"

constexpr int block_warps = tile_threads / lanes;

// Whether a comes before b, of which a has the lower index where they are equal.
__device__ __forceinline__ bool stays_before(real a, real b) { return a <= b || b != b; }

// The best of one query so far, sorted; all lanes of a warp work on it together.
struct Best {
    real* keys;
    int* indices;
    int k, lane;

    // Puts a key behind all that stay before it, when there are `count`; the last one drops out of k.
    __device__ void insert(real key, int index, int count) const {
        int low = 0, high = count;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (stays_before(keys[middle], key)) low = middle + 1;
            else high = middle;
        }
        if (low >= k) return;
        __syncwarp();  // no lane searches any more
        // From the end on, 32 at a time, one place to the right.
        for (int end = min(count, k - 1); end > low; end -= lanes) {
            const int from = end - 1 - lane;
            real moved = 0;
            int index_of_moved = 0;
            if (from >= low) moved = keys[from], index_of_moved = indices[from];
            __syncwarp();
            if (from >= low) keys[from + 1] = moved, indices[from + 1] = index_of_moved;
            __syncwarp();
        }
        if (lane == 0) keys[low] = key, indices[low] = index;
        __syncwarp();
    }

    // Offers a key of each lane, in the order of the lanes; `seen` were offered before, `count` of these are some.
    __device__ void offer(real key, bool there, int first_index, int seen) const {
        const bool full = seen >= k;
        const bool chosen = there && (!full || !stays_before(keys[k - 1], key));
        for (unsigned left = __ballot_sync(whole_warp, chosen); left; left &= left - 1) {
            const int from = __ffs(left) - 1;
            const real offered = __shfl_sync(whole_warp, key, from);
            insert(offered, first_index + from, min(k, seen + (full ? 0 : from)));
        }
    }
};

template <class Term>
__device__ __forceinline__ void find_best(TileMemory& memory, const real* q, const real* p, real* keys, int* indices,
                                          int queries, int points, int depth, int k, int split, real sign,
                                          const Term& term) {
    const int query0 = static_cast<int>(blockIdx.x) * tile_side, begin = static_cast<int>(blockIdx.y) * split;
    const int end = min(points, begin + split), lane = static_cast<int>(threadIdx.x) % lanes;
    for (int point0 = begin; point0 < end; point0 += tile_side) {
        real sum[tile_share][tile_share] = {};
        const Rows of_q{q, query0, queries, depth}, of_p{p, point0, points, depth};
        tile_sum<Contiguous::depth, Contiguous::depth>(memory, 0, depth, of_q, of_p, term, sum);
#pragma unroll
        for (int i = 0; i < tile_share; i++)
#pragma unroll
            for (int j = 0; j < tile_share; j++) sum[i][j] *= sign;
        TileElements& of_pairs = elements_of(memory);  // [query][point]
        place_tile<Term>(of_pairs, sum);
        for (int row = static_cast<int>(threadIdx.x) / lanes; row < tile_side; row += block_warps) {
            if (query0 + row >= queries) break;
            const offset_t list = (static_cast<offset_t>(query0 + row) * gridDim.y + blockIdx.y) * k;
            const Best best{keys + list, indices + list, k, lane};
            for (int first = 0; first < min(tile_side, end - point0); first += lanes)
                best.offer(of_pairs[row][first + lane], point0 + first + lane < end, point0 + first,
                           point0 + first - begin);
        }
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    nearest_forward_sqeuclidean_cuda(const real* __restrict__ q, const real* __restrict__ p, real* keys, int* indices,
                                     int queries, int points, int depth, int k, int split) {
    __shared__ TileMemory memory;
    find_best(memory, q, p, keys, indices, queries, points, depth, k, split, real(1), SquaredDifference());
}

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    nearest_forward_inner_cuda(const real* __restrict__ q, const real* __restrict__ p, real* keys, int* indices,
                               int queries, int points, int depth, int k, int split) {
    __shared__ TileMemory memory;
    find_best(memory, q, p, keys, indices, queries, points, depth, k, split, real(-1), Product());
}

extern "C" __global__ void __launch_bounds__(tile_threads, tile_blocks)
    nearest_forward_merge_cuda(const real* __restrict__ keys, const int* __restrict__ indices,
                               real* __restrict__ values, long long* __restrict__ found, int queries, int points, int k,
                               int split, int splits, real sign) {
    const int query = static_cast<int>(blockIdx.x) * block_warps + static_cast<int>(threadIdx.x) / lanes;
    const int lane = static_cast<int>(threadIdx.x) % lanes;
    if (query >= queries) return;  // the whole warp
    // A lane has a list, and takes from it what was chosen. Lower lanes have lower indices.
    const int size = lane < splits ? min(k, min(split, points - lane * split)) : 0;
    const offset_t list = (static_cast<offset_t>(query) * splits + min(lane, splits - 1)) * k;
    int taken = 0;
    for (int place = 0; place < k; place++) {
        int from = lane, any = taken < size;
        real key = any ? keys[list + taken] : real(0);
        for (int step = 1; step < lanes; step *= 2) {
            const real other_key = __shfl_xor_sync(whole_warp, key, step);
            const int other_from = __shfl_xor_sync(whole_warp, from, step);
            const int other_any = __shfl_xor_sync(whole_warp, any, step);
            const bool lower = other_from < from;
            const bool other_first = lower ? stays_before(other_key, key) : !stays_before(key, other_key);
            if (other_any && (!any || other_first)) key = other_key, from = other_from, any = 1;
        }
        if (lane != from) continue;
        values[static_cast<offset_t>(query) * k + place] = sign * key;
        found[static_cast<offset_t>(query) * k + place] = indices[list + taken++];
    }
}
