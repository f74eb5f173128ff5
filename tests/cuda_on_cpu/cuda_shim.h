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

// ---- tensor cores: mma.sync of 16 x 8 sums, by the tables of the PTX manual ----
namespace emulator {

// What a lane brings: registers of a (16 x k) and b (k x 8), and its elements of d (16 x 8), which it adds to.
struct Fragments {
    float* d;
    const unsigned *a, *b;
};

inline std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}
inline float of_bits(std::uint32_t bits) { return __int_as_float(static_cast<int>(bits)); }

// k = 8 of tf32: the 13 lowest bits of a register are not looked at. k = 16 of bf16: two in a register, the first in
// the lower half.
template <int k>
NST_UNSEEN void multiply_fragments(void** of_lanes) {
    constexpr int packed = k / 8;
    float a[16][k], b[k][8];
    for (int lane = 0; lane < 32; lane++) {
        const Fragments& f = *static_cast<Fragments*>(of_lanes[lane]);
        const int group = lane / 4, in_group = lane % 4;
        for (int r = 0; r < 4; r++)
            for (int half = 0; half < packed; half++) {
                const int row = group + (r % 2 ? 8 : 0), at = packed * in_group + half + (r >= 2 ? k / 2 : 0);
                const auto value = [half](unsigned bits) {
                    return of_bits(packed == 1 ? bits & 0xffffe000u : half ? bits & 0xffff0000u : bits << 16);
                };
                a[row][at] = value(f.a[r]);
                if (r % 2 == 0) b[at][group] = value(f.b[r / 2]);
            }
    }
    for (int lane = 0; lane < 32; lane++) {
        const Fragments& f = *static_cast<Fragments*>(of_lanes[lane]);
        for (int i = 0; i < 4; i++)
            for (int at = 0; at < k; at++) f.d[i] += a[lane / 4 + (i >= 2 ? 8 : 0)][at] * b[at][lane % 4 * 2 + i % 2];
    }
}

}  // namespace emulator

// To 10 bits after the point, halves away from zero.
NST_UNSEEN inline unsigned rounded_to_tf32(float value) {
    const unsigned bits = emulator::bits_of(value);
    return std::isfinite(value) ? (bits + 0x1000) & 0xffffe000u : bits;
}
// To 7 bits after the point, halves to the even one.
NST_UNSEEN inline unsigned rounded_to_bf16(float low, float high) {
    const auto rounded = [](float value) {
        const unsigned bits = emulator::bits_of(value);
        return std::isnan(value) ? 0x7fffu : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    return rounded(low) | rounded(high) << 16;
}
NST_UNSEEN inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], NST_HERE) {
    emulator::Fragments fragments{d, a, b};
    emulator::warp_call({file, line}, &fragments, emulator::multiply_fragments<8>);
}
NST_UNSEEN inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], NST_HERE) {
    emulator::Fragments fragments{d, a, b};
    emulator::warp_call({file, line}, &fragments, emulator::multiply_fragments<16>);
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
