// The gradient of 3x3 weights by Winograd's F(4x4, 3x3), for maps and filters in multiples of 16 channels: 36
// multiplications for 16 positions, where the direct sum needs 144.
//
//   dg = G^T [ sum over tiles of (B^T d B) * (A dy A^T) ] G        d: 6x6 inputs of a tile, dy: 4x4 slopes
//
// the transpose of y = A^T [ (G g G^T) * (B^T d B) ] A with respect to g. For each of the 36 points the sum over tiles
// is a matrix product:
//
//   V[p]^T (C x tiles)  x  Z[p] (tiles x K)  =  dU[p] (C x K)
//
//   a job: a group of tiles, a block of C, a block of K          in L2: V, Z of some tiles, dU of the block
//
//     x  --B^T . B-->  V [36][C/L][tiles][L] --+                         L channels to a cache line
//                                              +-- L x L of dU in registers, tiles pass --> dU [36][C/L][K/L][L][L]
//     dy --A . A^T-->  Z [36][K/L][tiles][L] --+                             --G^T . G--> the group's dw [9][C][K]
//
// The groups' dw are added in their order. How many there are follows from the shape alone, and so do the bits.
#include "../common/caches.h"
#include "../common/parallel.h"
#include "../common/scratch.h"
#include "conv.h"
#include "winograd_tiles.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int edge = 4, in = Winograd<float, edge>::in, points = in * in, taps = 9;
constexpr int64_t block_c = 32, block_k = 64;
constexpr int64_t most_tiles = 64;      // of a block: its V and Z at one point stay in L1
constexpr int64_t wanted_jobs = 16;     // more would only add up more groups
constexpr int64_t most_sums = 8 << 20;  // bytes of all groups' dw

// A dy A^T, the other side of the product: the transpose of the output transform.
template <class T>
struct SlopePoints {
    static constexpr int taken = edge, in = Winograd<T, edge>::in;
    static void of(const Vec<T>* d, int s, Vec<T>* o, int so) {
        const Vec<T> even = d[0] + d[2 * s], odd = d[s] + d[3 * s], e = d[0] + 4 * d[2 * s],
                     f = 2 * d[s] + 8 * d[3 * s];
        o[0] = d[0];
        o[so] = even + odd;
        o[2 * so] = even - odd;
        o[3 * so] = e + f;
        o[4 * so] = e - f;
        o[5 * so] = d[3 * s];
    }
};

// Rows of a square of dU, a line by a line, that stay in registers while the tiles pass, as even as they can be.
template <class T>
struct Square {
    static constexpr int edge = static_cast<int>(line<T>), vectors = edge / lanes<T>;
    static constexpr int fit = max_of(1, min_of(edge, (vector_registers - vectors - 1) / vectors));
    static constexpr int parts = (edge + fit - 1) / fit, rows = (edge + parts - 1) / parts;
};

// u[R][line] += sum over tiles of v[tile][R] z[tile][line].
template <class T, int R>
void add_products(const T* v, const T* z, int64_t tiles, T* u) {
    constexpr int W = lanes<T>, N = Square<T>::vectors;
    Vec<T> sums[R][N];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < N; j++) sums[r][j] = load(u + r * line<T> + j * W);
    for (int64_t t = 0; t < tiles; t++, v += line<T>, z += line<T>) {
        Vec<T> of[N];
        for (int j = 0; j < N; j++) of[j] = load(z + j * W);
        for (int r = 0; r < R; r++)
            for (int j = 0; j < N; j++) sums[r][j] += v[r] * of[j];
    }
    for (int r = 0; r < R; r++)
        for (int j = 0; j < N; j++) store(u + r * line<T> + j * W, sums[r][j]);
}

template <class T, int First = 0>
void add_square(const T* v, const T* z, int64_t tiles, T* u) {
    constexpr int R = min_of(Square<T>::rows, Square<T>::edge - First);
    add_products<T, R>(v + First, z, tiles, u + First * line<T>);
    if constexpr (First + R < Square<T>::edge) add_square<T, First + R>(v, z, tiles, u);
}

// o = G^T u, along vectors `s` and `so` apart.
template <class T>
inline void taps_of(const Vec<T>* u, int s, Vec<T>* o, int so) {
    constexpr const auto& g = Winograd<T, edge>::g;
    const Vec<T> a = u[s] + u[2 * s], b = u[2 * s] - u[s], c = u[3 * s] + u[4 * s], d = u[3 * s] - u[4 * s];
    o[0] = g[0][0] * u[0] + g[1][0] * a + g[3][0] * c;
    o[so] = g[2][1] * b + g[3][1] * d;
    o[2 * so] = g[1][2] * a + g[3][2] * c + u[5 * s];
}

template <class T>
class WeightGradient {
  public:
    WeightGradient(const T* x, const T* dy, const std::uint8_t* positive, const ConvShape& s, bool pool)
        : map{x,   nullptr, nullptr, false, nullptr, nullptr,   nullptr,    s.n,  s.h,
              s.w, s.c,     s.p,     s.q,   s.k,     s.pad_top, s.pad_left, false},
          slopes{dy,  positive, nullptr, false, nullptr, nullptr, nullptr, s.n,   s.p,
                 s.q, s.k,      s.p,     s.q,   s.k,     0,       0,       false, pool ? Pooled::map : Pooled::none},
          grid(map),
          blocks_c(ceil_div(s.c, block_c)),
          blocks_k(ceil_div(s.k, block_k)) {
        const int64_t bytes = taps * s.c * s.k * static_cast<int64_t>(sizeof(T));
        const int64_t most = min_of(ceil_div(wanted_jobs, blocks_c * blocks_k), most_sums / bytes);
        group_tiles = max_of<int64_t>(most_tiles, ceil_div(grid.count, max_of<int64_t>(1, most)));
        groups = max_of<int64_t>(1, ceil_div(grid.count, group_tiles));
        const int64_t tile = points * (min_of(s.c, block_c) + min_of(s.k, block_k)) * static_cast<int64_t>(sizeof(T));
        tiles = max_of<int64_t>(8, min_of(most_tiles, l2_bytes() / 2 / tile));
    }

    void run(T* dw) const {
        const int64_t size = taps * map.c * map.k, blocks = blocks_c * blocks_k;
        Scratch<T> sums(groups * size), rooms(num_threads() * room_size());
        parallel_for(groups * blocks, [&](int64_t job, int thread) {
            add_group(job / blocks, job % blocks / blocks_k * block_c, job % blocks_k * block_k,
                      rooms.get() + thread * room_size(), sums.get() + job / blocks * size);
        });
        parallel_for(taps * map.c / line<T>, [&](int64_t row, int) {
            T* total = sums.get() + row * line<T> * map.k;
            for (int64_t g = 1; g < groups; g++)
                for (int64_t i = 0; i < line<T> * map.k; i += lanes<T>)
                    store(total + i, load(total + i) + load(total + g * size + i));
            for (int64_t c = 0; c < line<T>; c += lanes<T>)
                for (int64_t k = 0; k < map.k; k += lanes<T>)
                    transpose_square(total + c * map.k + k, map.k, dw + k * taps * map.c + row * line<T> + c,
                                     taps * map.c);
        });
    }

  private:
    const WinogradJob<T> map, slopes;
    const TileGrid<T, edge> grid;
    const int64_t blocks_c, blocks_k;
    int64_t groups, group_tiles, tiles;

    Room room_of(int64_t channels) const { return {channels * tiles + line<T>, tiles * line<T>}; }
    int64_t room_size() const { return points * (room_of(block_c).plane + room_of(block_k).plane + block_c * block_k); }

    // The part of dw that a group of tiles gives, for the blocks of channels from c0 and of filters from k0 on.
    void add_group(int64_t group, int64_t c0, int64_t k0, T* room, T* dw) const {
        const int64_t channels = min_of(block_c, map.c - c0), filters = min_of(block_k, map.k - k0);
        const Room of_v = room_of(channels), of_z = room_of(filters);
        T *v = room, *z = v + points * of_v.plane, *u = z + points * of_z.plane;
        const int64_t u_plane = channels * filters, last = min_of(grid.count, (group + 1) * group_tiles);
        for (int64_t i = 0; i < points * u_plane; i += lanes<T>) store(u + i, Vec<T>{});
        for (int64_t first = group * group_tiles; first < last; first += tiles) {
            const int64_t count = min_of(tiles, last - first);
            for (int64_t t = 0; t < count; t++) {
                const TilePlace at = grid.place(first + t);
                transform_tile<T, InputPoints<T, edge>>(map, at.n, at.y - map.top, at.x - map.left, c0, channels, of_v,
                                                        v + t * line<T>);
                transform_tile<T, SlopePoints<T>>(slopes, at.n, at.y, at.x, k0, filters, of_z, z + t * line<T>);
            }
            for (int64_t p = 0; p < points; p++) {
                T* square = u + p * u_plane;
                for (int64_t c = 0; c < channels / line<T>; c++)
                    for (int64_t k = 0; k < filters / line<T>; k++, square += line<T> * line<T>)
                        add_square(v + p * of_v.plane + c * of_v.group, z + p * of_z.plane + k * of_z.group, count,
                                   square);
            }
        }
        for (int64_t c = 0; c < channels / line<T>; c++)
            for (int64_t k = 0; k < filters / line<T>; k++)
                write_square(u + (c * (filters / line<T>)+k) * line<T> * line<T>, u_plane,
                             dw + (c0 + c * line<T>)*map.k + k0 + k * line<T>);
    }

    // dw [tap][c][k] of a square, from its dU.
    void write_square(const T* u, int64_t plane, T* dw) const {
        for (int64_t i = 0; i < line<T> * line<T>; i += lanes<T>) {
            Vec<T> half[3 * in];
            for (int j = 0; j < in; j++) {
                Vec<T> column[in];
                for (int p = 0; p < in; p++) column[p] = load(u + (p * in + j) * plane + i);
                taps_of<T>(column, 1, half + j, in);
            }
            for (int r = 0; r < 3; r++) {
                Vec<T> row[3];
                taps_of<T>(half + r * in, 1, row, 1);
                for (int s = 0; s < 3; s++) store(dw + ((r * 3 + s) * map.c + i / line<T>)*map.k + i % line<T>, row[s]);
            }
        }
    }
};

}  // namespace

template <class T>
void conv2d_backward_weight_winograd_cpu(const T* x, const T* dy, const std::uint8_t* positive, const ConvShape& s,
                                         bool pool, T* dw) {
    if (s.c > 0 && s.k > 0) WeightGradient<T>(x, dy, positive, s, pool).run(dw);
}

#define NST_INSTANTIATE(T)                                                                                          \
    template void conv2d_backward_weight_winograd_cpu<T>(const T*, const T*, const std::uint8_t*, const ConvShape&, \
                                                         bool, T*);
NST_INSTANTIATE(float)
NST_INSTANTIATE(double)

}  // namespace nst::NST_ISA_NS
