// CUDA's device language for g++, as far as the kernels use it; included before each .cu file.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "emulator.h"

using std::max;
using std::min;

#define NST_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
// Serves `__shared__ T a[..]` and `extern __shared__ T a[]`; the machine clears it before each block.
#define __shared__ thread_local

#define threadIdx (emulator::indices.thread)
#define blockIdx (emulator::indices.block)
#define blockDim (emulator::indices.block_size)
#define gridDim (emulator::indices.grid_size)

// Where the call stands: the last parameters of every function that can be reported.
#define NST_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define NST_UNSEEN __attribute__((noinline, no_sanitize("thread")))

inline void __syncthreads(NST_HERE) { emulator::barrier({file, line}); }
inline void __syncwarp(unsigned mask = ~0u, NST_HERE) {
    emulator::collective(emulator::Collective::sync, mask, {file, line}, 0, {});
}

namespace emulator {

// A value of any size, four bytes at a time.
template <class T>
T shuffle(unsigned mask, T value, Shuffle how, Place place) {
    static_assert(sizeof(T) % 4 == 0, "shuffles take values of 4 or 8 bytes");
    std::uint32_t words[sizeof(T) / 4];
    std::memcpy(words, &value, sizeof(value));
    for (std::uint32_t& word : words) word = collective(Collective::shuffle, mask, place, word, how);
    std::memcpy(&value, words, sizeof(value));
    return value;
}

inline unsigned vote(unsigned mask, int predicate, Place place) {
    return collective(Collective::vote, mask, place, predicate != 0, {});
}

template <class T, class F>
NST_UNSEEN T read_modify_write(T* address, F change, Place place) {
    atomic_access(address, sizeof(T), place);
    const T before = *address;
    *address = change(before);
    return before;
}

template <class T>
using Same = std::common_type_t<T>;  // so that only the pointer decides the type

}  // namespace emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, NST_HERE) {
    return emulator::shuffle(mask, value, {emulator::Source::index, lane, width}, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32, NST_HERE) {
    return emulator::shuffle(mask, value, {emulator::Source::up, delta, width}, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32, NST_HERE) {
    return emulator::shuffle(mask, value, {emulator::Source::down, delta, width}, {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, NST_HERE) {
    return emulator::shuffle(mask, value, {emulator::Source::exclusive_or, lanes, width}, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, NST_HERE) {
    return emulator::vote(mask, predicate, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, NST_HERE) {
    return emulator::vote(mask, predicate, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, NST_HERE) {
    return emulator::vote(mask, predicate, {file, line}) == mask;
}

template <class T>
T atomicAdd(T* address, emulator::Same<T> value, NST_HERE) {
    return emulator::read_modify_write(address, [=](T old) { return T(old + value); }, {file, line});
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

// ---- tensor cores ----
namespace emulator {

// What a lane brings to mma.sync.m16n8k8: parts of a (16 x 8) and b (8 x 8), and of d (16 x 8), which it adds to.
struct Fragments {
    float* d;
    float a[4], b[2];
};

// Rounded to 10 bits of mantissa, halves away from zero.
inline float tf32(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    if (std::isfinite(value)) bits = (bits + 0x1000) & 0xffffe000u;
    std::memcpy(&value, &bits, sizeof(bits));
    return value;
}

NST_UNSEEN inline void multiply_fragments(void** of_lanes) {
    float a[16][8], b[8][8];
    for (int lane = 0; lane < 32; lane++) {
        const Fragments& f = *static_cast<Fragments*>(of_lanes[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) a[g + i % 2 * 8][t + i / 2 * 4] = tf32(f.a[i]);
        for (int i = 0; i < 2; i++) b[t + i * 4][g] = tf32(f.b[i]);
    }
    for (int lane = 0; lane < 32; lane++) {
        const Fragments& f = *static_cast<Fragments*>(of_lanes[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int k = 0; k < 8; k++) f.d[i] += a[g + i / 2 * 8][k] * b[k][2 * t + i % 2];
    }
}

}  // namespace emulator

NST_UNSEEN inline void multiply_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2], NST_HERE) {
    emulator::Fragments fragments{d, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    emulator::warp_call({file, line}, &fragments, emulator::multiply_fragments);
}

// ---- the kernels of a file, for the launcher ----
namespace emulator {

template <class... P>
struct Signature {
    template <void (*F)(P...), std::size_t... I>
    NST_UNSEEN static void unpack(void** arguments, std::index_sequence<I...>) {
        F(*static_cast<P*>(arguments[I])...);
    }
    template <void (*F)(P...)>
    NST_UNSEEN static void run(void** arguments) {
        unpack<F>(arguments, std::index_sequence_for<P...>{});
    }
    template <class T>
    static constexpr int kind() {
        if (std::is_pointer_v<T>) return -8;
        return static_cast<int>(sizeof(T)) + (std::is_floating_point_v<T> ? 100 : 0);
    }
    static constexpr int count = sizeof...(P);
    static constexpr int kinds[count + 1] = {kind<P>()..., 0};
};
template <class... P>
Signature<P...> signature_of(void (*)(P...));

}  // namespace emulator

#define NST_KERNEL(name, bound)                                           \
    {#name, decltype(emulator::signature_of(&name))::template run<&name>, \
     decltype(emulator::signature_of(&name))::count, decltype(emulator::signature_of(&name))::kinds, bound}
