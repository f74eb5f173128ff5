// Winograd convolution F(6x6, 3x3) and F(4x4, 3x3): 64 multiplications for 36 outputs, or 36 for 16, where the direct
// sum needs 324 and 144.
//
//   y = A^T [ (G g G^T) * (B^T d B) ] A        d: inputs of a tile, g: 3x3 weights, y: its outputs
//
// For each of the 64 (36) points the element-wise product over all channels is a matrix product:
//
//   V[p] (tiles x C)  x  U[p] (C x K)  =  M[p] (tiles x K)
//
// Two schedules, chosen by the size of U:
//
//   blocks   U is made once and lies in L3. A thread takes a few tiles through all steps; V and M stay in its L2.
//   panels   U would fill L3. V of many tiles lies there instead, made by all threads; a thread takes a panel of NR
//            output channels, makes its part of U a row of points at a time, in its L2, and uses it for all these
//            tiles.
//
// Nothing is kept from call to call. Every output is summed in the order of the channels, whatever the schedule.
#include "../common/caches.h"
#include "../common/parallel.h"
#include "../common/scratch.h"
#include "conv.h"
#include "winograd_tiles.h"

namespace nst::NST_ISA_NS {
namespace {

constexpr int64_t most_weights = 20;      // U of up to so many L2 caches is read from L3 again for every block
constexpr int64_t most_tiles = 16 << 20;  // bytes of V that the panels read again and again: they should stay in L3

template <class T>
int64_t bytes_of(int64_t count) {
    return count * static_cast<int64_t>(sizeof(T));
}

template <class T, int Edge>
class Convolution {
  public:
    explicit Convolution(const WinogradJob<T>& what)
        : job(what),
          grid(what),
          panels(what.panels()),
          stream(
              can_stream(what.out, what.n * what.p * what.q * what.k / (what.pooled == Pooled::out ? 4 : 1), what.k)) {}

    void run() const {
        if (grid.count == 0) return;  // no picture, or one without pixels
        const int64_t u = bytes_of<T>(points * job.c * panels * NR);
        u <= most_weights* l2_bytes() ? run_blocks() : run_panels();
    }

  private:
    static constexpr int64_t NR = Tile<T>::NR, MR = Tile<T>::MR;
    static constexpr int in = Winograd<T, Edge>::in;
    static constexpr int64_t points = Winograd<T, Edge>::points;
    static constexpr int64_t m_tile = points * NR + line<T>;  // the line keeps tiles out of each other's cache sets
    const WinogradJob<T> job;
    const TileGrid<T, Edge> grid;
    const int64_t panels;
    const bool stream;

    int64_t width(int64_t panel) const { return min_of(NR, job.k - panel * NR); }

    void finish(int64_t panel, int64_t first, int64_t count, const T* m) const {
        for (int64_t t = 0; t < count; t++)
            tile_out<T, Edge>(job, grid.place(first + t), m + t * m_tile, panel * NR, width(panel), stream);
    }

    // U as [panel][point][C][NR], planes of points u_plane apart.
    int64_t u_plane() const { return job.c * NR + line<T>; }
    void make_weights(T* u) const {
        constexpr int64_t chunk = 16;  // input channels of one job
        const int64_t chunks = ceil_div(job.c, chunk);
        Scratch<T> taps(num_threads() * 9 * chunk * NR);
        parallel_for(panels * chunks, [&](int64_t i, int thread) {
            const int64_t panel = i / chunks, row = i % chunks * chunk, rows = min_of(chunk, job.c - row);
            T* mine = taps.get() + thread * 9 * chunk * NR;
            pack_taps(job, panel, row, rows, mine);
            for (int p = 0; p < in; p++)
                transform_weights<T, Edge>(mine, rows, p, u + (panel * points + p * in) * u_plane() + row * NR,
                                           u_plane());
        });
    }

    // Tiles of a block: V and M fill half of L2, and every thread gets as many blocks as every other.
    int64_t block_tiles() const {
        const int64_t tile = bytes_of<T>(points * (job.c + NR));
        const int64_t most = max_of(MR, l2_bytes() / 2 / tile / MR * MR);
        const int64_t rounds = ceil_div(grid.count, most * num_threads());
        return max_of(MR, min_of(most, ceil_div(ceil_div(grid.count, rounds * num_threads()), MR) * MR));
    }

    // V of tile t of a block or a lot whose groups lie `group` and whose points lie `plane` apart.
    static T* v_of(T* v, int64_t t, int64_t group) { return v + t / MR * group + t % MR * line<T>; }

    // M of `count` tiles at one point, `channels` of a panel.
    static void multiply(int64_t channels, int64_t count, const T* v, int64_t group, const T* u, int64_t depth, T* m,
                         bool accumulate) {
        for (int64_t t = 0; t < count; t += MR, v += group)
            channels <= lanes<T>
                ? group_rows<T, 1>(min_of(MR, count - t), v, u, depth, m + t * m_tile, m_tile, accumulate)
                : group_rows<T, 2>(min_of(MR, count - t), v, u, depth, m + t * m_tile, m_tile, accumulate);
    }

    void run_blocks() const {
        const int64_t most = block_tiles(), plane = MR * job.c + line<T>, group = points * plane;
        const int64_t room = most / MR * group + most * m_tile;
        Scratch<T> u(panels * points * u_plane()), rooms(num_threads() * room);
        make_weights(u.get());
        parallel_for(ceil_div(grid.count, most), [&](int64_t block, int thread) {
            T *v = rooms.get() + thread * room, *m = v + most / MR * group;
            const int64_t first = block * most, count = min_of(most, grid.count - first);
            for (int64_t t = 0; t < count; t++) tile_in<T, Edge>(job, grid.place(first + t), v_of(v, t, group), plane);
            for (int64_t panel = 0; panel < panels; panel++) {
                for (int64_t p = 0; p < points; p++)
                    multiply(width(panel), count, v + p * plane, group, u.get() + (panel * points + p) * u_plane(),
                             job.c, m + p * NR, false);
                finish(panel, first, count, m);
            }
            if (stream) stream_end();
        });
    }

    // Input channels whose taps and row of U fill half of L2.
    int64_t chunk_depth() const {
        const int64_t most = l2_bytes() / 2 / bytes_of<T>((9 + in) * NR) / 16 * 16;
        return ceil_div(ceil_div(job.c, ceil_div(job.c, max_of<int64_t>(16, most))), 16) * 16;
    }

    // The panels' schedule: tiles at once, input channels at once, and where their V lies.
    struct Lot {
        int64_t tiles, deep, group, plane;
        int64_t taps_size() const { return 9 * deep * NR; }
        int64_t row_plane() const { return deep * NR + line<T>; }
    };
    Lot lot_of() const {
        const int64_t most = max_of(MR, most_tiles / bytes_of<T>(points * job.c));
        const int64_t tiles = ceil_div(ceil_div(grid.count, ceil_div(grid.count, most)), MR) * MR;
        const int64_t group = MR * job.c;
        return {tiles, chunk_depth(), group, tiles / MR * group + line<T>};
    }

    void run_panels() const {
        constexpr int64_t together = max_of<int64_t>(1, 8 / NR);  // panels of a job: jobs share no byte of the bit mask
        const Lot lot = lot_of();
        const int64_t room = lot.taps_size() + in * lot.row_plane() + lot.tiles * m_tile;
        Scratch<T> v(points * lot.plane), rooms(num_threads() * room);
        for (int64_t first = 0; first < grid.count; first += lot.tiles) {
            const int64_t count = min_of(lot.tiles, grid.count - first);
            parallel_for(count, [&](int64_t t, int) {
                tile_in<T, Edge>(job, grid.place(first + t), v_of(v.get(), t, lot.group), lot.plane);
            });
            parallel_for(ceil_div(panels, together), [&](int64_t job_number, int thread) {
                T* mine = rooms.get() + thread * room;
                const int64_t p0 = job_number * together, p1 = min_of(panels, p0 + together);
                for (int64_t panel = p0; panel < p1; panel++) run_panel(panel, first, count, v.get(), lot, mine);
                if (stream) stream_end();
            });
        }
    }

    // One panel of output channels for tiles first .. first + count, whose V is ready.
    void run_panel(int64_t panel, int64_t first, int64_t count, const T* v, const Lot& lot, T* room) const {
        T *taps = room, *u = taps + lot.taps_size(), *m = u + in * lot.row_plane();
        for (int64_t c = 0; c < job.c; c += lot.deep) {
            const int64_t depth = min_of(lot.deep, job.c - c);
            pack_taps(job, panel, c, depth, taps);
            for (int i = 0; i < in; i++) {
                transform_weights<T, Edge>(taps, depth, i, u, lot.row_plane());
                for (int64_t j = 0; j < in; j++)
                    multiply(width(panel), count, v + (i * in + j) * lot.plane + c * MR, lot.group,
                             u + j * lot.row_plane(), depth, m + (i * in + j) * NR, c > 0);
            }
        }
        finish(panel, first, count, m);
    }
};

template <class T>
void run(const WinogradJob<T>& job, int edge) {
    edge == 6 ? Convolution<T, 6>(job).run() : Convolution<T, 4>(job).run();
}

}  // namespace

template <class T>
void conv2d_forward_winograd_cpu(const T* x, const T* w, const T* bias, const ConvShape& s, int edge, bool relu,
                                 bool pool, T* y, std::uint8_t* positive) {
    const int64_t padded = ceil_div(s.k, Tile<T>::NR) * Tile<T>::NR;
    Scratch<T> wide(padded);
    for (int64_t j = 0; j < padded; j++) wide.get()[j] = bias && j < s.k ? bias[j] : T(0);
    run<T>({x, nullptr, w, false, wide.get(), y, positive, s.n, s.h, s.w, s.c, s.p, s.q, s.k, s.pad_top, s.pad_left,
            relu, pool ? Pooled::out : Pooled::none},
           edge);
}

template <class T>
void conv2d_backward_winograd_cpu(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s, int edge,
                                  bool pool, T* dx) {
    run<T>({dy, positive, w, true, nullptr, dx, nullptr, s.n, s.p, s.q, s.k, s.h, s.w, s.c, 2 - s.pad_top,
            2 - s.pad_left, false, pool ? Pooled::map : Pooled::none},
           edge);
}

#define NST_INSTANTIATE(T)                                                                                            \
    template void conv2d_forward_winograd_cpu<T>(const T*, const T*, const T*, const ConvShape&, int, bool, bool, T*, \
                                                 std::uint8_t*);                                                      \
    template void conv2d_backward_winograd_cpu<T>(const T*, const std::uint8_t*, const T*, const ConvShape&, int,     \
                                                  bool, T*);
NST_INSTANTIATE(float)
NST_INSTANTIATE(double)

}  // namespace nst::NST_ISA_NS
